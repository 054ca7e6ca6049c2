from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.bench._rna_baselines import RNA_METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from mudata import MuData

GENES = [f"G{i}" for i in range(9)]
ALL_RNA = (*RNA_METHODS, "cell-type-mean-true")


def gene_table() -> pd.DataFrame:
    """Nine genes, each around the OCR of its number; one is not among those measured."""
    start = 1_000_000 + 10_000 * np.arange(len(GENES))
    return pd.DataFrame(
        {"chrom": "chr1", "start": start, "end": start + 900, "name": ["OTHER", *GENES[1:]], "strand": "+"}
    )


@pytest.fixture(scope="module")
def predictions(pair: tuple[MuData, MuData]) -> dict[str, pd.DataFrame]:
    return sfa.bench.rna_baselines(*pair, methods=ALL_RNA, labels_key="cell_type", genes=gene_table())


def test_planted_expression_is_predicted(pair: tuple[MuData, MuData], predictions: dict[str, pd.DataFrame]) -> None:
    measured = pair[1]["rna"].to_df()
    assert tuple(predictions) == ALL_RNA
    scores = {name: sfa.bench.expression_scores(measured, table) for name, table in predictions.items()}
    for name, table in predictions.items():
        assert table.index.equals(measured.index)
        assert table.columns.equals(measured.columns)
        assert (table.dtypes == np.float32).all()
        assert scores[name]["gene_pearson"] > (0.15 if name == "gene-activity" else 0.6), name
    assert scores["cell-type-mean-true"]["gene_pearson"] >= scores["cell-type-mean"]["gene_pearson"]
    assert scores["ridge-lsi"]["mse"] < measured.to_numpy().var()


def test_gene_activity_is_that_of_tl(pair: tuple[MuData, MuData], predictions: dict[str, pd.DataFrame]) -> None:
    atac = pair[1]["atac"].copy()
    sfa.tl.gene_activity(atac, genes=gene_table())
    expected = pd.DataFrame(
        atac.obsm["gene_activity"].toarray(), atac.obs_names, atac.uns["gene_activity"]["genes"].index
    )
    found = predictions["gene-activity"]
    pd.testing.assert_frame_equal(found[GENES[1:]], expected[GENES[1:]])
    assert (found["G0"] == 0).all()  # no gene of the table


def test_means_of_types(pair: tuple[MuData, MuData], predictions: dict[str, pd.DataFrame]) -> None:
    train, test = pair[0]["rna"], pair[1]["rna"]
    means = train.to_df().groupby(train.obs["cell_type"]).mean()
    expected = means.loc[test.obs["cell_type"]].to_numpy()
    np.testing.assert_allclose(predictions["cell-type-mean-true"], expected, rtol=1e-5)
    rows = {tuple(row) for row in predictions["cell-type-mean"].round(4).to_numpy()}
    assert rows == {tuple(row) for row in means.astype(np.float32).round(4).to_numpy()}


def test_cells_of_no_known_type_get_the_mean_of_all(pair: tuple[MuData, MuData]) -> None:
    train, test = pair[0]["atac"].copy(), pair[1]["atac"].copy()
    train.obs["cell_type"] = [None, *train.obs["cell_type"].iloc[1:]]
    test.obs["cell_type"] = [None, "new", *test.obs["cell_type"].iloc[2:]]
    measured = pair[0]["rna"].to_df()
    methods: Any = ["cell-type-mean-true"]
    found = sfa.bench.rna_baselines(train, test, methods=methods, expression=measured, labels_key="cell_type")
    table = found["cell-type-mean-true"]
    np.testing.assert_allclose(table.iloc[:2], [measured.mean()] * 2, rtol=1e-5)
    b = measured[(train.obs["cell_type"] == "b").to_numpy()].mean()
    np.testing.assert_allclose(table[(test.obs["cell_type"] == "b").to_numpy()].iloc[0], b, rtol=1e-5)


@pytest.mark.parametrize("kind", ["frame", "array", "sparse", "layer"])
def test_expression_from_anywhere(
    pair: tuple[MuData, MuData], predictions: dict[str, pd.DataFrame], planted: Callable[..., MuData], kind: str
) -> None:
    methods: Any = ["ridge-lsi", "knn-lsi"]
    measured = pair[0]["rna"].to_df()
    if kind == "layer":
        train = planted()
        train["rna"].layers["logged"], train["rna"].X = sparse.csr_matrix(train["rna"].X), None
        found = sfa.bench.rna_baselines(train, pair[1], methods=methods, rna_layer="logged")
    else:
        given: Any = measured.sample(frac=1, random_state=0)
        if kind != "frame":
            given = measured.to_numpy() if kind == "array" else sparse.csr_matrix(measured)
        found = sfa.bench.rna_baselines(pair[0]["atac"], pair[1]["atac"], methods=methods, expression=given)
    for name in methods:
        np.testing.assert_allclose(found[name], predictions[name], atol=1e-5, err_msg=name)


def test_cells_are_paired_by_name(pair: tuple[MuData, MuData], make_mudata: Callable[..., MuData]) -> None:
    atac, rna = pair[0]["atac"], pair[0]["rna"]
    methods: Any = ["ridge-lsi", "cell-type-mean"]
    partly = make_mudata(atac[:100].copy(), rna[np.random.default_rng(0).permutation(np.arange(20, 150))].copy())
    common = make_mudata(atac[20:100].copy(), rna[20:100].copy())
    found, expected = (
        sfa.bench.rna_baselines(train, pair[1], methods=methods, labels_key="cell_type") for train in (partly, common)
    )
    for name in methods:
        pd.testing.assert_frame_equal(found[name], expected[name])
    unpaired = make_mudata(atac[:50].copy(), rna[50:].copy())
    with pytest.raises(ValueError, match="0 of the 50 training cells have expression"):
        sfa.bench.rna_baselines(unpaired, pair[1], methods=methods, labels_key="cell_type")


def test_types_in_the_obs_of_the_mudata(predictions: dict[str, pd.DataFrame], planted: Callable[..., MuData]) -> None:
    moved = planted(), planted(60, seed=1)
    for mdata in moved:
        mdata.obs["type"] = mdata["atac"].obs["cell_type"].reindex(mdata.obs_names).to_numpy()
        del mdata["atac"].obs["cell_type"], mdata["rna"].obs["cell_type"]
    methods: Any = ["cell-type-mean", "cell-type-mean-true"]
    found = sfa.bench.rna_baselines(*moved, methods=methods, labels_key="type")
    for name in methods:
        pd.testing.assert_frame_equal(found[name], predictions[name])


def test_few_training_cells_and_one_gene(pair: tuple[MuData, MuData], make_mudata: Callable[..., MuData]) -> None:
    few = make_mudata(pair[0]["atac"][:4].copy(), pair[0]["rna"][:4, :1].copy())
    found = sfa.bench.rna_baselines(few, pair[1]["atac"][:1].copy(), methods=["ridge-lsi", "knn-lsi"])
    for table in found.values():
        assert table.shape == (1, 1)
        assert np.isfinite(table.to_numpy()).all()


def test_genes_in_parts_are_genes_at_once(pair: tuple[MuData, MuData], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sfa.bench.rna_baselines(*pair, methods=["ridge-lsi"])
    monkeypatch.setattr("scfound_atac.bench._rna_baselines.GENES_AT_ONCE", 2)
    parts = sfa.bench.rna_baselines(*pair, methods=["ridge-lsi"])
    pd.testing.assert_frame_equal(parts["ridge-lsi"], whole["ridge-lsi"], rtol=1e-4)


def test_expression_that_cannot_be_predicted(pair: tuple[MuData, MuData]) -> None:
    train, test = pair
    baselines = sfa.bench.rna_baselines
    measured = train["rna"].to_df()
    with pytest.raises(ValueError, match="cell-type-mean needs cell types: pass a column of obs as labels_key="):
        baselines(train, test)
    with pytest.raises(ValueError, match="Unknown methods \\['magic'\\]"):
        baselines(train, test, methods=["magic"])  # type: ignore[list-item]
    with pytest.raises(KeyError, match="no column 'louvain'"):
        baselines(train, test, labels_key="louvain", methods=["cell-type-mean"])
    with pytest.raises(ValueError, match="pass it as expression="):
        baselines(train["atac"], test, methods=["ridge-lsi"])
    with pytest.raises(KeyError, match="no modality 'gex'"):
        baselines(train, test, methods=["ridge-lsi"], rna_modality="gex")
    with pytest.raises(ValueError, match=r"shape \(149, 9\), but there are 150 training cells"):
        baselines(train, test, methods=["ridge-lsi"], expression=measured.to_numpy()[1:])
    with pytest.raises(ValueError, match="Names of genes of the expression repeat: \\['G0'\\]"):
        baselines(train, test, methods=["ridge-lsi"], expression=measured.set_axis(["G0", *GENES[:-1]], axis=1))
    with pytest.raises(ValueError, match="1 genes has NaN or infinite values: \\['G4'\\]"):
        baselines(train, test, methods=["ridge-lsi"], expression=measured.assign(G4=np.nan))
    with pytest.raises(ValueError, match="None of the 9 genes.*Name genes by symbol"):
        baselines(train, test, methods=["gene-activity"], genes=gene_table().assign(name=[f"X{i}" for i in range(9)]))
    with pytest.raises(ValueError, match="sfa.pp.map_ocrs"):
        baselines(train, test["atac"][:, 5:].copy(), methods=["ridge-lsi"])
    unlabelled = train["atac"].copy()
    unlabelled.obs["cell_type"] = None
    with pytest.raises(ValueError, match="labels_key='cell_type' has 0 types in 0 training cells"):
        baselines(unlabelled, test, methods=["cell-type-mean"], labels_key="cell_type", expression=measured)
