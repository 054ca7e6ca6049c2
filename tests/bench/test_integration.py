from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.bench._integration import BATCH, BIO, with_averages
from scfound_atac.bench._scvi_methods import paired_rna
from scfound_atac.data import Cells

COLUMNS = [*BIO, *BATCH[:4], "bio", "batch", "total", "silhouette_batch", "avg_bio", "avg_batch"]


@pytest.fixture
def cells() -> AnnData:
    """Three types in two batches; batch b has another background."""
    rng = np.random.default_rng(0)
    n, n_ocrs = 240, 150
    group, batch = np.arange(n) % 3, np.arange(n) // 3 % 2
    rate = np.where(np.arange(n_ocrs)[None] % 3 == group[:, None], 1.0, 0.1)
    rate = rate * np.where((np.arange(n_ocrs)[None] % 5 == 0) & (batch[:, None] == 1), 3.0, 1.0)
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.obs["cell_type"] = pd.Categorical.from_codes(group, ["T", "B", "NK"])
    adata.obs["batch"] = pd.Categorical.from_codes(batch, ["a", "b"])
    adata.var_names = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(n_ocrs)]
    adata.obsm["true"] = np.eye(3)[group] + rng.normal(scale=0.05, size=(n, 3))
    noise = rng.normal(scale=0.05, size=(n, 4))
    adata.obsm["near"] = np.column_stack([np.eye(3)[group], 0.3 * batch]) + noise
    adata.obsm["apart"] = np.column_stack([np.eye(3)[group], 5.0 * batch]) + rng.normal(scale=0.05, size=(n, 4))
    return adata


@pytest.fixture
def fake_packages(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand-ins that record what they are given."""
    seen = SimpleNamespace(neighbors=[], harmony=[], pcr=[])
    scib, neighbors, harmony = (
        ModuleType("scib_metrics"),
        ModuleType("scib_metrics.nearest_neighbors"),
        ModuleType("harmonypy"),
    )

    class NeighborsResults:
        def __init__(self, indices, distances) -> None:
            assert indices.shape == distances.shape
            assert (indices[:, 0] == np.arange(len(indices))).all()
            seen.neighbors.append(indices.shape[1])

    neighbors.NeighborsResults = NeighborsResults
    scib.isolated_labels = lambda x, labels, batch: 0.1
    scib.nmi_ari_cluster_labels_kmeans = lambda x, labels: {"nmi": 0.2, "ari": 0.3}
    scib.silhouette_label = lambda x, labels: 0.4
    scib.clisi_knn = lambda x, labels: 0.5
    scib.bras = lambda x, labels, batch: 0.6
    scib.ilisi_knn = lambda x, batch: 0.7
    scib.kbet_per_label = lambda x, batch, labels: 0.8
    scib.graph_connectivity = lambda x, labels: 0.9
    scib.silhouette_batch = lambda x, labels, batch: 0.5

    def pcr_comparison(before, after, batch, *, categorical):
        seen.pcr.append((before.shape[1], after.shape[1], categorical))
        return 1.0

    def run_harmony(vectors, table, keys, *, verbose, random_state):
        seen.harmony.append((vectors.shape, list(table), keys, random_state))
        return SimpleNamespace(Z_corr=vectors.T + 1)

    scib.pcr_comparison, harmony.run_harmony = pcr_comparison, run_harmony
    for module in (scib, neighbors, harmony):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def integration(adata, methods=("lsi", "true"), **options) -> pd.DataFrame:
    return sfa.bench.integration(adata, "cell_type", "batch", methods=methods, **({"n_components": 5} | options))


def test_averages() -> None:
    scores = dict(zip([*BIO, *BATCH[:4]], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], strict=True))
    found = with_averages(scores, 0.5)
    assert list(found) == COLUMNS
    assert found["bio"] == pytest.approx(0.3)
    assert found["batch"] == pytest.approx(0.75)
    assert found["total"] == pytest.approx(0.6 * 0.3 + 0.4 * 0.75)
    assert found["avg_bio"] == pytest.approx(0.3)
    assert found["avg_batch"] == pytest.approx(0.7)
    assert with_averages(scores | {"pcr_comparison": 0.0}, 0.5)["batch"] == pytest.approx(0.6)


def test_table_and_what_scib_is_given(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    before = cells.copy()
    table = integration(cells, ["lsi", "lsi+harmony", "true"], n_cells=50, seed=3)
    assert list(table["method"]) == ["lsi", "lsi+harmony", "true"]
    assert list(table) == [
        *("method", "n_cells", "n_batches", "n_labels", "n_components", "seed"),
        *COLUMNS,
        "seconds",
    ]
    assert (table["n_cells"] == 100).all()
    assert list(table["n_components"]) == [5, 5, 3]
    assert fake_packages.harmony == [((100, 5), ["batch"], ["batch"], 3)]
    assert fake_packages.neighbors == [90, 90, 50, 15] * 3
    assert fake_packages.pcr == []
    assert cells.obs.equals(before.obs)
    assert (list(cells.obsm), list(cells.uns)) == (list(before.obsm), [])


def test_batches_of_the_chosen_cells_are_given_to_methods(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    seen = []
    integration(cells, {"f": lambda adata: seen.append(adata.obs["batch"]) or adata.X.toarray()}, n_cells=20)
    assert list(seen[0]) == list(cells.obs["batch"][seen[0].index])
    assert seen[0].value_counts().to_dict() == {"a": 20, "b": 20}


def with_genes(cells: AnnData) -> mudata.MuData:
    """The cells with expression in another order, and five cells that have expression alone."""
    rng = np.random.default_rng(1)
    names = [*cells.obs_names, *(f"other{i}" for i in range(5))]
    rna = AnnData(sparse.csr_matrix(rng.poisson(1.0, (len(names), 40)).astype(np.float32)))
    rna.obs_names = names
    return mudata.MuData({"atac": cells, "rna": rna[rng.permutation(len(names))].copy()})


def test_models_are_given_the_batches(cells: AnnData, fake_packages: SimpleNamespace, monkeypatch) -> None:
    given = {}

    def embed(adata: AnnData, *, batch_key: str | None = None, **options) -> None:
        adata.obsm[options["key_added"]] = np.arange(adata.n_obs)[:, None] * [1.0, 2.0]
        given[batch_key] = None if batch_key is None else list(adata.obs[batch_key][:8])

    monkeypatch.setattr(sfa.tl, "embed", embed)
    table = sfa.bench.integration(cells, "cell_type", "batch", methods=["default", "default+batch_key"])
    assert list(table["method"]) == ["default", "default+batch_key"]
    assert given == {None: None, "batch": list(cells.obs["batch"][:8])}
    with pytest.raises(ValueError, match="Only models take batches, and 'lsi' is none"):
        sfa.bench.integration(cells, "cell_type", "batch", methods=["lsi+batch_key"])


@pytest.mark.slow  # scvi-tools is imported, and three models trained
def test_models_of_scvi_tools(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    import scvi
    import torch

    counts = cells.X.toarray()
    counts[:2] = 0
    cells.X = sparse.csr_matrix(counts)
    mdata = with_genes(cells)
    names = ["peakvi", "poissonvi", "multivi", "peakvi+harmony"]
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    vectors = {}

    def scores(x, labels, batches, before):
        vectors.setdefault(len(vectors), x)
        return dict.fromkeys(("bio", "batch", "total"), 0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scfound_atac.bench._integration.integration_scores", scores)
        for seed in (0, 0, 1):
            table = integration(mdata, names, max_epochs=1, seed=seed)
    assert list(table["method"]) == names
    runs = [[vectors[len(names) * run + i] for i in range(3)] for run in range(3)]
    for first, again, other in zip(*runs, strict=True):
        assert len(first) == 240
        assert np.isfinite(first).all()
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other)
    assert scvi.settings.seed is None
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert list(mdata["atac"].obs) == ["cell_type", "batch"]


def test_models_of_scvi_tools_are_given_the_batch_and_their_defaults(
    cells: AnnData, fake_packages: SimpleNamespace, monkeypatch
) -> None:
    import scvi

    asked = []

    class Model:
        def __init__(self, adata) -> None:
            self.adata = adata

        @staticmethod
        def setup_anndata(adata, batch_key) -> None:
            asked.append((adata.obs[batch_key].nunique(), scvi.settings.seed))

        def train(self, **options) -> None:
            asked.append(options)

        def get_latent_representation(self):
            return self.adata.X.toarray().astype(np.float32)

    monkeypatch.setattr(scvi.model, "PEAKVI", Model)
    integration(cells, ["peakvi"], seed=7)
    integration(cells, ["peakvi"], max_epochs=3)
    assert asked[0] == (2, 7)
    assert set(asked[1]) == {"enable_progress_bar"}
    assert asked[3]["max_epochs"] == 3


def test_expression_of_the_chosen_cells(cells: AnnData) -> None:
    mdata = with_genes(cells)
    read, rows = Cells.read(mdata, coordinates=False), np.array([5, 3, 200])
    found = paired_rna(read, rows, "rna", None)
    names = list(cells.obs_names[rows])
    assert list(found.obs_names) == names
    np.testing.assert_array_equal(found.X.toarray(), mdata["rna"][names].X.toarray())


def test_faults_of_expression(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    mdata = with_genes(cells)
    with pytest.raises(TypeError, match="'multivi' needs expression: pass a MuData"):
        integration(cells, ["multivi"])
    with pytest.raises(KeyError, match="no modality 'genes'"):
        integration(mdata, ["multivi"], rna_modality="genes")
    few = mudata.MuData({"atac": cells, "rna": mdata["rna"][:100].copy()})
    with pytest.raises(ValueError, match=r"of the 240 cells to use are not in adata\[\"rna\"\].*intersect_obs"):
        integration(few, ["multivi"])
    mdata["rna"].X = mdata["rna"].X * 0.3
    with pytest.raises(ValueError, match="needs counts. Pass rna_layer="):
        integration(mdata, ["multivi"])
    cells.X = sparse.csr_matrix(np.eye(1, cells.n_vars, dtype=np.float32).repeat(cells.n_obs, axis=0))
    with pytest.raises(ValueError, match="Only 1 of 150 OCRs are found in 5% of the cells"):
        integration(cells, ["peakvi"])


def test_before(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    table = integration(cells, ["true"], before="apart")
    assert fake_packages.pcr == [(4, 3, True)]
    assert table["pcr_comparison"].item() == 1.0
    assert table["batch"].item() == pytest.approx(0.8)


def test_embedding_is_computed_once(cells: AnnData, fake_packages: SimpleNamespace, monkeypatch) -> None:
    calls = []
    monkeypatch.setitem(
        sys.modules["scfound_atac.bench._methods"]._LINEAR,
        "lsi",
        lambda adata, **k: calls.append(list(adata.obs)) or sfa.pp.lsi(adata, **k),
    )
    integration(cells, ["lsi+harmony", "lsi"], before="lsi")
    assert calls == [["batch"]]  # methods do not see labels


def test_cells_without_label_or_batch_and_mudata(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(object)
    cells.obs.iloc[:4, 0] = np.nan
    cells.obs["batch"] = cells.obs["batch"].astype(object)
    cells.obs.iloc[2:6, 1] = "unknown"
    assert (integration(mudata.MuData({"atac": cells}))["n_cells"] == 234).all()


def test_functions_in_a_mapping(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    table = integration(cells, {"a": lambda adata: adata.X[:, :50].toarray(), "b": "true+harmony"})
    assert list(table["method"]) == ["a", "b"]
    assert list(table["n_components"]) == [50, 3]
    assert len(fake_packages.harmony) == 1


def test_errors(cells: AnnData, fake_packages: SimpleNamespace) -> None:
    with pytest.raises(KeyError, match="'nothing'"):
        sfa.bench.integration(cells, "cell_type", "nothing", methods=["lsi"])
    with pytest.raises(TypeError, match="batch_key= takes one name"):
        sfa.bench.integration(cells, "cell_type", 3)
    cells.obs["one"] = "x"
    with pytest.raises(ValueError, match=r"adata\.obs\['one'\] has 1 label"):
        sfa.bench.integration(cells, "cell_type", "one", methods=["lsi"])
    with pytest.raises(KeyError, match="nothing"):
        integration(cells, ["nothing+harmony"])
    with pytest.raises(ValueError, match="Method 'f' must return one row"):
        integration(cells, {"f": lambda adata: np.ones((3, 2))})
    alone = cells[(cells.obs["batch"] == "a") | cells.obs["cell_type"].isna()].copy()
    alone.obs["batch"] = ["a"] * (alone.n_obs - 1) + ["b"]
    alone.obs["cell_type"] = [*alone.obs["cell_type"].astype(object)[:-1], None]
    with pytest.raises(ValueError, match="fewer than two batches"):
        integration(alone)


@pytest.mark.parametrize(("module", "package"), [("scib_metrics", "scib-metrics"), ("harmonypy", "harmonypy")])
def test_missing_package(cells: AnnData, fake_packages: SimpleNamespace, monkeypatch, module, package) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'scfound-atac\[integration\]'"):
        integration(cells, ["true+harmony"])


@pytest.mark.slow  # jax compiles
@pytest.mark.filterwarnings("ignore")
def test_scores_of_scib(cells: AnnData) -> None:
    pytest.importorskip("scib_metrics", reason="scib-metrics is an optional package")
    pytest.importorskip("harmonypy", reason="harmonypy is an optional package")
    table = integration(cells, ["true", "apart", "near", "near+harmony"], before="apart").set_index("method")
    assert np.isfinite(table.drop(columns="seconds").to_numpy(dtype=float)).all()
    assert table.loc["true", "total"] > 0.8
    assert table.loc["apart", "ilisi_knn"] < 0.1
    assert table.loc["true", "ilisi_knn"] > 0.8
    assert table.loc["near+harmony", "batch"] > table.loc["near", "batch"] + 0.1
    again = integration(cells, ["near+harmony"], before="apart").set_index("method")
    pd.testing.assert_frame_equal(table.loc[["near+harmony"]].drop(columns="seconds"), again.drop(columns="seconds"))
