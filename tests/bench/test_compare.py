from __future__ import annotations

from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import scfound_atac as sfa

DEPTHS = (1.0, 0.5)


@pytest.fixture
def cells() -> AnnData:
    rng = np.random.default_rng(0)
    group = np.arange(66) % 3
    rate = np.where(np.arange(120)[None] % 3 == group[:, None], 1.0, 0.1)
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.obs["cell_type"] = pd.Categorical.from_codes(group, ["T", "B", "NK"])
    adata.obs.iloc[:3, 0] = np.nan
    adata.obs["donor"] = "one"
    adata.var_names = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(120)]
    adata.layers["normalised"] = adata.X * 0.5
    return adata


def first_two_columns(adata: AnnData) -> np.ndarray:
    return adata.X[:, :2].toarray()


def compare(adata, methods=("lsi", "spectral"), **options) -> pd.DataFrame:
    options = {"fractions": DEPTHS, "n_seeds": 2, "n_components": 5} | options
    return sfa.bench.compare(adata, "cell_type", methods=methods, **options)


@pytest.mark.slow
def test_table(cells: AnnData) -> None:
    before = cells.copy()
    table = compare(cells)
    assert len(table) == 2 * 2 * 2
    assert list(zip(table["fraction"], table["smooth"], table["method"], strict=True)) == [
        (fraction, smooth, method) for fraction in DEPTHS for smooth in (False, True) for method in ("lsi", "spectral")
    ]
    assert "data" not in table
    assert set(table["n_cells"]) == {63}
    assert set(table["n_labels"]) == {3}
    assert set(table["weights"]) == {""}
    full = table[table["fraction"] == 1]
    assert (full["knn"] > 0.95).all()
    assert (full["kmeans_nmi"] > 0.9).all()
    assert full["counts_per_cell"].iloc[0] == pytest.approx(before.X[3:].sum() / 63)
    assert table["counts_per_cell"].iloc[-1] == pytest.approx(full["counts_per_cell"].iloc[0] / 2, rel=0.1)
    assert (table["seconds"] >= 0).all()
    # the user's object
    assert (cells.X != before.X).nnz == 0
    assert cells.obs.equals(before.obs)
    assert set(cells.layers) - {None} == {"normalised"}  # anndata 0.13 lists X as None
    assert (list(cells.obsm), list(cells.uns)) == ([], [])


def test_same_seed_same_table(cells: AnnData) -> None:
    first, second = compare(cells), compare(cells)
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))


def test_methods_get_the_same_counts_and_no_labels(cells: AnnData) -> None:
    seen: dict[str, list[AnnData]] = {"a": [], "b": []}

    def method(name: str):
        def embed(adata: AnnData) -> np.ndarray:
            seen[name].append(adata.copy())
            result = first_two_columns(adata)
            adata.X = adata.X * 0  # must not reach the next method
            return result

        return embed

    table = compare(cells, {"a": method("a"), "b": method("b")}, fractions=[0.5])
    assert list(table["method"]) == ["a", "b", "a", "b"]
    plain, smoothed = seen["a"]
    for a, b in zip(seen["a"], seen["b"], strict=True):
        assert (a.X != b.X).nnz == 0
        assert list(a.obs.columns) == []
        assert set(a.layers) <= {None}
    expected = sfa.pp.aggregate_neighbors(plain, n_neighbors=10, copy=True).layers["neighbor_sum"]
    assert (expected != smoothed.X).nnz == 0


def test_subset_of_cells(cells: AnnData) -> None:
    names: list[list[str]] = []

    def embed(adata: AnnData) -> np.ndarray:
        names.append(list(adata.obs_names))
        return first_two_columns(adata)

    for seed in (0, 0, 1):
        compare(cells, {"f": embed}, fractions=[1.0], smooth=[False], n_cells=30, seed=seed)
    assert len(names[0]) == 30
    assert names[0] == names[1] != names[2]
    assert not {"0", "1", "2"} & set(names[0] + names[2])  # without a label


def test_interrupted_run_goes_on(cells: AnnData, tmp_path: Path) -> None:
    out = tmp_path / "new" / "table.csv"
    calls = 0

    def embed(adata: AnnData) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return first_two_columns(adata)

    methods = {"lsi": "lsi", "f": embed}
    with pytest.raises(KeyboardInterrupt):
        compare(cells, methods, name="test", out=out)
    assert len(pd.read_csv(out)) == 5
    with out.open("a") as file:
        file.write("test,lsi,,0.5,Tr")  # killed while writing
    table = compare(cells, methods, name="test", out=out)
    assert calls == 3 + 2
    whole = compare(cells, methods, name="test")
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), whole.drop(columns="seconds"))

    calls = 10
    again = compare(cells, methods, name="test", out=out)
    assert calls == 10
    pd.testing.assert_frame_equal(again, table)
    # another data set, other counts, other options: computed
    compare(cells, methods, name="other", out=out, fractions=[0.5], smooth=[False])
    compare(cells[:50], methods, name="test", out=out, fractions=[0.5], smooth=[False])
    compare(cells, methods, name="test", out=out, fractions=[0.5], smooth=[False], n_seeds=1)
    assert calls == 10 + 3


def test_other_file(cells: AnnData, tmp_path: Path) -> None:
    out = tmp_path / "mine.csv"
    out.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a table of sfa.bench.compare"):
        compare(cells, out=out)
    assert out.read_text() == "a,b\n1,2\n"


def test_modality_and_layer(cells: AnnData) -> None:
    cells.layers["counts"] = cells.X.copy()
    expected = compare(cells, fractions=[1.0], smooth=[False]).drop(columns="seconds")
    mdata = mudata.MuData({"peaks": cells})
    table = compare(mdata, fractions=[1.0], smooth=[False], modality="peaks", layer="counts")
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), expected)


def test_models(cells: AnnData, tmp_path: Path) -> None:
    net = sfa.nn.ChromFoundNet(
        sfa.nn.ChromFoundConfig(d_model=16, n_layers=1, n_heads=2, window_size=8, shift_size=4, d_mlp=8, d_low=4)
    )
    folder = sfa.hub.save(net, tmp_path / "tiny")
    methods = {"named": folder, "loaded": sfa.hub.load(folder), "random": "random"}
    cells.uns["genome"] = "GRCh38"
    table = compare(cells, methods, fractions=[1.0], smooth=[False], n_cells=20)
    weights = table.set_index("method")["weights"]
    assert weights["named"] == weights["loaded"] == sfa.hub.load(folder).sha256[:12]
    assert weights["random"] not in ("", weights["named"])
    assert table["knn"].iloc[0] == table["knn"].iloc[1]


def test_errors(cells: AnnData) -> None:
    with pytest.raises(KeyError, match="no column 'celltype' in adata.obs. Columns: .'cell_type', 'donor'"):
        sfa.bench.compare(cells, "celltype")
    with pytest.raises(ValueError, match=r"adata\.obs\['donor'\] has 1 label.s. .'one'."):
        sfa.bench.compare(cells, "donor")
    with pytest.raises(ValueError, match="fractions must be above 0 and at most 1, got .1.5"):
        compare(cells, fractions=[1.0, 1.5])
    with pytest.raises(ValueError, match="not whole numbers"):
        compare(cells, layer="normalised")
    with pytest.raises(
        ValueError, match="Method 'short' must return one row .* for each of the 63 cells; got shape .3, 2"
    ):
        compare(cells, {"short": lambda adata: first_two_columns(adata)[:3]})
    with pytest.raises(KeyError, match="no-such-model"):
        compare(cells, ["no-such-model"])
