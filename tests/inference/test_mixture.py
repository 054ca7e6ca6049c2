from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfound_atac.data import Cells
from scfound_atac.inference.mixture import embed_mixture
from scfound_atac.inference.spectral import spectral_fit, unit_rows

N_CELLS, N_OCRS, N_COMPONENTS, WIDTH = 90, 120, 5, 4


class Reader:
    """Cell vectors of length 1, by a fixed map of the counts."""

    def __init__(self, varies: bool = True) -> None:
        self.keys = np.zeros((N_OCRS, WIDTH), np.float32)
        self.map = np.random.default_rng(0).normal(size=(N_OCRS, WIDTH))
        self.varies = varies

    def __call__(self, counts) -> np.ndarray:
        vectors = counts @ self.map + 3 if self.varies else np.ones((counts.shape[0], WIDTH))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def counts() -> sparse.csr_matrix:
    rng = np.random.default_rng(1)
    kind = rng.choice(6, N_CELLS, p=np.arange(1, 7) / 21)
    rate = np.where(np.arange(N_OCRS)[None] % 6 == kind[:, None], 1.0, 0.1)
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32))


def as_cells(matrix) -> Cells:
    n_cells, n_ocrs = matrix.shape
    names = np.array([f"cell{i}" for i in range(n_cells)], dtype=object)
    return Cells(matrix, None, pd.DataFrame(index=range(n_ocrs)), names, np.zeros(n_cells, dtype=bool))


def embedded(matrix, reader=None, **kwargs):
    options = {
        "mix": 1.5,
        "kept": np.ones(N_OCRS, dtype=bool),
        "n_components": N_COMPONENTS,
        "fit_rows": np.arange(matrix.shape[0]),
        "progress": False,
    }
    return embed_mixture(as_cells(matrix), reader or Reader(), **{**options, **kwargs})


def dense_mixture(
    counts: sparse.csr_matrix, reader: Reader, mix: float, fit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both views written out, and their common principal components by SVD; also the share of the counts above their noise."""
    spectrum = spectral_fit(counts[fit], N_COMPONENTS + 2)
    noise, values = spectrum.values[-1], spectrum.values[1:-1]
    measured = unit_rows(counts, spectrum.idf) @ (spectrum.axes[:, 1:-1] * np.sqrt(1 - noise / values))
    measured /= np.maximum(np.linalg.norm(measured, axis=1, keepdims=True), 1e-12)
    share = 1 - len(values) * noise / values.sum()
    parts = []
    for view, norm in ((measured, np.sqrt(share)), (reader(counts).astype(np.float64), mix)):
        centred = view - view[fit].mean(axis=0)
        parts.append(norm * centred / np.linalg.norm(centred[fit]))
    both = np.hstack(parts)
    _, values, axes = np.linalg.svd(both[fit], full_matrices=False)
    return (both @ axes.T)[:, :N_COMPONENTS], (values**2 / (values**2).sum())[:N_COMPONENTS]


@pytest.mark.parametrize("mix", [0.3, 1.5])
def test_equals_the_dense_computation(counts, mix) -> None:
    vectors, _, ratio = embedded(counts, mix=mix)
    expected, expected_ratio = dense_mixture(counts, Reader(), mix, np.arange(N_CELLS))
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected), atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(ratio, expected_ratio, rtol=1e-4)
    assert vectors.dtype == np.float32


def test_fitted_cells_and_the_others(counts) -> None:
    """What is fitted comes from some cells; the others are projected, and would be the same without each other."""
    fit = np.sort(np.random.default_rng(2).choice(N_CELLS, 70, replace=False))
    vectors, basis, _ = embedded(counts, fit_rows=fit[::-1])
    expected, _ = dense_mixture(counts, Reader(), 1.5, fit)
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected), atol=1e-4 * np.abs(expected).max())
    alone, _, _ = embedded(counts[fit])
    np.testing.assert_allclose(vectors[fit], alone, atol=1e-6)
    rest = np.setdiff1d(np.arange(N_CELLS), fit)
    np.testing.assert_allclose(embedded(counts[rest], basis=basis)[0], vectors[rest], atol=1e-6)


def test_a_given_basis_gives_the_same_vectors(counts) -> None:
    vectors, basis, _ = embedded(counts)
    again, same, ratio = embedded(counts[::-1], basis=basis)
    np.testing.assert_allclose(again, vectors[::-1], atol=1e-6)
    assert same is basis
    assert ratio is None
    np.testing.assert_allclose(embedded(counts[7:8], basis=basis)[0], vectors[7:8], atol=1e-6)
    views = basis.views(counts, Reader())
    np.testing.assert_allclose(views @ basis.rotation - basis.shift, vectors, atol=1e-6)


def test_neither_seed_nor_order_nor_storage_matters(counts) -> None:
    vectors, _, _ = embedded(counts)
    order = np.random.default_rng(3).permutation(N_CELLS)
    np.testing.assert_allclose(embedded(counts[order])[0], vectors[order], atol=1e-5)
    np.testing.assert_allclose(embedded(counts, seed=4)[0], vectors, atol=1e-5)
    np.testing.assert_allclose(embedded(counts.toarray().astype(np.int32))[0], vectors, atol=1e-6)


def test_columns_that_are_not_kept_have_no_say(counts) -> None:
    kept = np.arange(N_OCRS) % 5 != 2
    vectors, basis, _ = embedded(counts, kept=kept)
    other = counts.toarray()
    other[:, ~kept] = 9
    np.testing.assert_array_equal(embedded(other, kept=kept)[0], vectors)
    assert not basis.axes[~kept].any()


def test_regions_without_variance_leave_the_counts(counts) -> None:
    vectors, basis, ratio = embedded(counts, Reader(varies=False))
    k = basis.axes.shape[1]
    assert vectors.shape[1] <= k
    assert not basis.rotation[k:].any()
    assert ratio.sum() == pytest.approx(1)


def test_counts_without_spectrum_leave_the_regions() -> None:
    """Each cell has an OCR of its own: nothing is shared, yet their regions tell them apart."""
    vectors, basis, _ = embedded(np.eye(70, N_OCRS, dtype=np.float32))
    assert basis.axes.shape == (N_OCRS, 0)
    regions = Reader()(np.eye(70, N_OCRS))
    expected = np.linalg.svd(regions - regions.mean(axis=0), full_matrices=False)[1]
    found = np.linalg.svd(vectors, full_matrices=False)[1]
    np.testing.assert_allclose(found / found[0], (expected / expected[0])[: len(found)], rtol=1e-4)


@pytest.mark.parametrize("n_cells", [2, 50, 300])
def test_equal_cells_are_an_error(counts, n_cells) -> None:
    with pytest.raises(ValueError, match="All cells have the same vector"):
        embedded(np.tile(counts[0].toarray(), (n_cells, 1)))


def test_an_empty_cell_is_finite(counts) -> None:
    x = counts.toarray()
    x[4] = 0
    vectors, basis, _ = embedded(x)
    assert np.isfinite(vectors).all()
    k = basis.axes.shape[1]
    of_regions = Reader()(np.zeros((1, N_OCRS)))[0]  # nothing is added by the counts
    np.testing.assert_allclose(vectors[4], of_regions @ basis.rotation[k:] - basis.shift, atol=1e-5)


def test_few_cells_give_fewer_components(counts) -> None:
    vectors, _, ratio = embedded(counts[:4], n_components=50)
    assert vectors.shape == (4, 3)
    assert ratio.sum() == pytest.approx(1)
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-5)  # all four are what was fitted
    np.testing.assert_allclose(vectors.var(axis=0) / vectors.var(axis=0).sum(), ratio, atol=1e-4)
