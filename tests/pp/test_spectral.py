from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from mudata import MuData
from scipy import sparse

import scfound_atac as sfa


def blocks(n_cells: int = 90, n_ocrs: int = 240, n_blocks: int = 3, seed: int = 0) -> tuple[AnnData, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = np.arange(n_cells) % n_blocks
    rate = np.where(np.arange(n_ocrs)[None] % n_blocks == group[:, None], 0.5, 0.05)
    return AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32))), group


def spectral(adata: AnnData, **options: int) -> np.ndarray:
    return sfa.pp.spectral(adata, copy=True, **options).obsm["X_spectral"]


def dense_reference(x: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """The formula of SnapATAC2, written out with the whole similarity matrix."""
    x = x.astype(np.float64)
    n_open = (x > 0).sum(axis=0)
    x = x * np.where(n_open > 0, np.log(len(x) / np.maximum(n_open, 1)), 0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    similarity = x @ x.T
    np.fill_diagonal(similarity, 0)
    degree = similarity.sum(axis=1)
    values, vectors = np.linalg.eigh(similarity / np.sqrt(np.outer(degree, degree)))
    order = np.argsort(-values)[:n_components]
    return values[order], vectors[:, order] * np.sqrt(values[order])


def test_equals_the_dense_formula() -> None:
    adata, _ = blocks()
    embedding = spectral(adata, n_components=10)
    values, reference = dense_reference(adata.X.toarray(), 10)
    assert embedding.shape == (90, 10)
    np.testing.assert_allclose((embedding.astype(np.float64) ** 2).sum(axis=0), values, rtol=1e-5)
    np.testing.assert_allclose(np.abs(embedding), np.abs(reference), atol=1e-5)


def test_separates_blocks() -> None:
    adata, group = blocks()
    embedding = spectral(adata, n_components=3)
    assert sfa.bench.knn_accuracy(embedding, group)[0] == 1.0
    assert sfa.bench.clustering_scores(embedding, group, n_seeds=1)["kmeans_ari"] == 1.0


def test_deterministic() -> None:
    adata, _ = blocks()
    np.testing.assert_array_equal(spectral(adata), spectral(adata))


@pytest.mark.parametrize("function", [sfa.pp.lsi, sfa.pp.spectral])
def test_linear_embeddings_have_one_contract(function: Callable[..., Any]) -> None:
    adata, _ = blocks()
    adata.layers["counts"] = adata.X.copy()
    before = adata.copy()
    copied = function(adata, n_components=4, copy=True)
    assert_equal(adata, before)
    (name,) = copied.obsm
    assert name == f"X_{function.__name__}"

    assert function(adata, n_components=4, layer="counts", key_added="mine") is None
    assert list(adata.obsm) == ["mine"]
    assert adata.obsm["mine"].dtype == np.float32
    np.testing.assert_array_equal(adata.obsm["mine"], copied.obsm[name])
    del adata.obsm["mine"]
    assert_equal(adata, before)

    mdata = MuData({"peaks": before.copy()})
    function(mdata, n_components=4, modality="peaks")
    np.testing.assert_array_equal(mdata["peaks"].obsm[name], copied.obsm[name])
    with pytest.raises(ValueError, match="n_components=0"):
        function(adata, n_components=0)
    assert_equal(adata, before)


def test_cells_without_counts_or_neighbours_are_zero() -> None:
    x = blocks()[0].X.toarray()
    x[3] = 0
    x = np.hstack([x, np.zeros((len(x), 1), dtype=np.float32)])
    x[7] = 0
    x[7, -1] = 2  # open in this cell alone
    embedding = spectral(AnnData(x), n_components=5)
    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(embedding[[3, 7]], 0, atol=1e-5)
    assert (np.abs(embedding).sum(axis=1) > 1e-3).sum() == len(x) - 2


def test_nothing_in_common() -> None:
    assert not spectral(AnnData(np.eye(5, dtype=np.float32))).any()


def test_few_cells_and_errors() -> None:
    adata, _ = blocks(6)
    assert spectral(adata, n_components=30).shape[1] < 6
    with pytest.raises(ValueError, match="at least 3 cells, got 2"):
        spectral(adata[:2])
