"""More cells than what is fitted to them takes: `n_fit_cells` in every function and class that has it.

The cells are chosen by seed and name. So the result does not change from call to call, nor with the order of the cells, and what is fitted
is what the chosen cells alone give.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.data import Cells
from scfound_atac.data.fit_rows import fit_rows
from scfound_atac.inference.features import CellFeatures
from scfound_atac.model import CellAnnotator, RNAPredictor
from scfound_atac.model._cell_annotator import Annotation

N_CELLS, CAP = 150, 60


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")


@pytest.fixture(scope="module")
def adata(make_labelled: Callable[..., AnnData]) -> AnnData:
    """To be read only."""
    return make_labelled(N_CELLS)


@pytest.fixture(scope="module")
def shuffled(adata: AnnData) -> AnnData:
    return adata[np.random.default_rng(3).permutation(N_CELLS)].copy()


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= 1e-4 * np.abs(a).max())


def model_of(name: str, tiny_backbones):
    return tiny_backbones.get(name, name)


@pytest.mark.parametrize("model", ["region-set", "biosample-mix", "biosample-prior", "chromfound", "epifoundation"])
def test_embed(model, adata, shuffled, tiny_backbones):
    def embedded(cells: AnnData, n_fit_cells: int, seed: int = 0) -> pd.DataFrame:
        cells = cells.copy()
        sfa.tl.embed(
            cells,
            model=model_of(model, tiny_backbones),
            n_components=5,
            n_fit_cells=n_fit_cells,
            seed=seed,
            device="cpu",
        )
        return pd.DataFrame(cells.obsm["X_sfa"], index=cells.obs_names)

    capped = embedded(adata, CAP)
    assert np.isfinite(capped).all(axis=None)
    np.testing.assert_array_equal(embedded(adata, CAP), capped)
    assert close(capped.to_numpy(), embedded(shuffled, CAP).loc[capped.index].to_numpy())
    assert not close(capped.to_numpy(), embedded(adata, N_CELLS).to_numpy())
    assert not close(capped.to_numpy(), embedded(adata, CAP, seed=1).to_numpy())
    # what is fitted comes from the chosen cells, whether the others are there or not
    chosen = adata[fit_rows(adata.obs_names, CAP, 0)].copy()
    assert close(capped.loc[chosen.obs_names].to_numpy(), embedded(chosen, CAP).to_numpy())


@pytest.mark.parametrize("model", ["region-set", "biosample-mix"])
def test_impute(model, adata, shuffled):
    def imputed(cells: AnnData, **options) -> pd.DataFrame:
        cells = cells.copy()
        sfa.tl.impute(cells, model=model, n_kept=None, **options)
        return pd.DataFrame(cells.layers["sfa_imputed"].toarray(), index=cells.obs_names)

    capped = imputed(adata, n_fit_cells=CAP)
    assert np.isfinite(capped).all(axis=None)
    np.testing.assert_array_equal(imputed(adata, n_fit_cells=CAP), capped)
    np.testing.assert_allclose(imputed(shuffled, n_fit_cells=CAP).loc[capped.index], capped, atol=1e-4)
    np.testing.assert_array_equal(imputed(adata), imputed(adata, n_fit_cells=N_CELLS))
    assert np.abs(capped - imputed(adata)).max(axis=None) > 0.01
    n_open = np.asarray((adata.X > 0).sum(axis=1)).ravel()
    np.testing.assert_allclose(capped.sum(axis=1), n_open, rtol=0.05)  # the cells beyond the cap have values, too


@pytest.mark.parametrize("backbone", ["region-set", "chromfound", "epifoundation"])
def test_features(backbone, adata, shuffled, tiny_backbones):
    def measured(cells: AnnData, n_fit_cells: int) -> np.ndarray:
        read = Cells.read(cells)
        features = CellFeatures.fit(tiny_backbones[backbone], read, n_fit_cells=n_fit_cells)
        return features.view.axes

    capped = measured(adata, CAP)
    assert np.isfinite(capped).all()
    assert close(capped, measured(shuffled, CAP))
    assert close(capped, measured(adata[fit_rows(adata.obs_names, CAP, 0)].copy(), CAP))
    assert capped.shape != measured(adata, N_CELLS).shape or not close(capped, measured(adata, N_CELLS))


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_annotator(mode, adata, make_labelled, tiny_backbones):
    query = make_labelled(40, seed=1)

    def predicted(**options) -> Annotation:
        steps = {} if mode == "probe" else {"max_epochs": 1}
        annotator = CellAnnotator(tiny_backbones["region-set"])
        annotator.train(adata, "cell_type", mode=mode, device="cpu", **options, **steps)
        return annotator.predict(query, device="cpu")

    capped, again, whole = predicted(n_fit_cells=CAP), predicted(n_fit_cells=CAP), predicted()
    assert np.isfinite(capped.probabilities).all(axis=None)
    np.testing.assert_array_equal(again.probabilities, capped.probabilities)
    assert (capped.probabilities.idxmax(axis=1) == query.obs["cell_type"].astype(str)).mean() > 0.9
    # probabilities of such cells are 1 and 0 either way; distances are not
    assert not close(capped.novelty.to_numpy(), whole.novelty.to_numpy())
    np.testing.assert_array_equal(predicted(n_fit_cells=N_CELLS).novelty, whole.novelty)


def test_annotate_hands_it_on(adata, make_labelled):
    query = make_labelled(40, seed=1)
    novelty = {}
    for cap in (CAP, N_CELLS):
        sfa.tl.annotate(query, reference=adata, labels_key="cell_type", key_added="x", n_fit_cells=cap)
        novelty[cap] = query.obs["x_novelty"].to_numpy()
    assert not close(novelty[CAP], novelty[N_CELLS])


def test_predictor(adata, make_labelled, tiny_backbones):
    kind = adata.obs["cell_type"].astype("category").cat.codes.to_numpy()
    genes = [f"GENE{i}" for i in range(4)]
    counts = np.random.default_rng(0).poisson(np.where(kind[:, None] == np.arange(4), 6.0, 1.0)).astype(np.float32)
    rna = AnnData(sparse.csr_matrix(counts), obs=adata.obs[[]].copy(), var=pd.DataFrame(index=genes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = md.MuData({"atac": adata.copy(), "rna": rna})
    query = make_labelled(40, seed=1)

    def predicted(**options) -> pd.DataFrame:
        predictor = RNAPredictor(tiny_backbones["region-set"])
        predictor.train(mdata, max_epochs=2, train_batch_size=32, device="cpu", **options)
        return predictor.predict(query, device="cpu")

    capped = predicted(n_fit_cells=CAP)
    assert np.isfinite(capped).all(axis=None)
    np.testing.assert_array_equal(predicted(n_fit_cells=CAP), capped)
    assert not close(capped.to_numpy(), predicted().to_numpy())


@pytest.mark.parametrize("bad", [0, -1, 2.5, "all", None])
def test_impossible_caps(bad, adata, tiny_backbones):
    error = ValueError if isinstance(bad, int) else TypeError
    with pytest.raises(error, match="n_fit_cells="):
        sfa.tl.impute(adata.copy(), n_fit_cells=bad)
    with pytest.raises(error, match="n_fit_cells="):
        CellAnnotator(tiny_backbones["region-set"]).train(adata, "cell_type", n_fit_cells=bad)
