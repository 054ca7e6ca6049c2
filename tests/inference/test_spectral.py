from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scfound_atac.inference import spectral
from scfound_atac.inference.spectral import spectral_fit, unit_rows

N_CELLS, N_OCRS, N_COMPONENTS = 80, 150, 6


def blocks(n_cells: int = N_CELLS, n_blocks: int = 7, seed: int = 0) -> sparse.csr_matrix:
    """Kinds of cells of uneven sizes, each with OCRs of its own."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(n_blocks, n_cells, p=np.arange(1, n_blocks + 1) / (n_blocks * (n_blocks + 1) / 2))
    rate = np.where(np.arange(N_OCRS)[None] % n_blocks == kind[:, None], 0.9, 0.08)
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32))


def weighted_unit_rows(x: np.ndarray) -> np.ndarray:
    """Counts times log(cells / cells with the OCR open), each cell of length 1 where it has any weight."""
    n_open = (x > 0).sum(axis=0)
    weighted = x.astype(np.float64) * np.where(n_open > 0, np.log(len(x) / np.maximum(n_open, 1)), 0)
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    return np.divide(weighted, length, out=np.zeros_like(weighted), where=length > 0)


def normalised_similarity(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix whose eigenvectors are sought, and the cells' degrees."""
    unit = weighted_unit_rows(x)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, 0)
    degree = similarity.sum(axis=1)
    scale = np.where(degree > 1e-9, 1 / np.sqrt(np.maximum(degree, 1e-9)), 0)
    return scale[:, None] * similarity * scale, degree


@pytest.fixture(params=["dense", "iterative"])
def solver(request, monkeypatch) -> str:
    monkeypatch.setattr(spectral, "_DENSE_CELLS", 1000 if request.param == "dense" else 0)
    return request.param


def test_equals_the_whole_similarity_without_its_diagonal(solver) -> None:
    counts = blocks()
    fit = spectral_fit(counts, N_COMPONENTS)
    matrix, degree = normalised_similarity(counts.toarray())
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(fit.values, values[::-1][:N_COMPONENTS], rtol=1e-8)
    np.testing.assert_allclose(np.abs(fit.vectors), np.abs(vectors[:, ::-1][:, :N_COMPONENTS]), atol=1e-7)
    np.testing.assert_allclose(fit.embedding, fit.vectors * np.sqrt(fit.values), rtol=1e-6)
    # the first one tells the degree alone
    assert fit.values[0] == pytest.approx(1)
    np.testing.assert_allclose(np.abs(fit.vectors[:, 0]), np.sqrt(degree / degree.sum()), atol=1e-7)
    assert fit.embedding.dtype == fit.axes.dtype == fit.idf.dtype == np.float32


def test_axes_give_the_embedding_back_up_to_a_cells_product_with_itself(solver) -> None:
    """A cell's components are its embedding, times one number per cell, times what its own product adds to each eigenvalue."""
    counts = blocks()
    fit = spectral_fit(counts, N_COMPONENTS)
    degree = normalised_similarity(counts.toarray())[1][:, None]
    own = 1 / degree  # the diagonal that the similarity leaves out
    components = unit_rows(counts, fit.idf) @ fit.axes
    expected = fit.embedding * np.sqrt(degree) * (fit.values + own) / (fit.values + own.mean())
    np.testing.assert_allclose(components, expected, atol=1e-5 * np.abs(expected).max())
    for found, embedded in zip(components.T, (fit.embedding * np.sqrt(degree)).T, strict=True):
        assert np.corrcoef(found, embedded)[0, 1] > 0.99


def test_a_kind_that_was_fitted_is_found_in_other_cells(solver) -> None:
    both = blocks(160)
    fit = spectral_fit(both[:80], N_COMPONENTS)
    all_cells = spectral_fit(both, N_COMPONENTS)
    found = unit_rows(both[80:], fit.idf) @ fit.axes[:, 1:]
    expected = all_cells.embedding[80:, 1:]

    def cosines(x: np.ndarray) -> np.ndarray:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (x @ x.T)[np.triu_indices(len(x), 1)]

    assert np.corrcoef(cosines(found), cosines(expected))[0, 1] > 0.8


def test_unit_rows() -> None:
    counts, idf = blocks(), np.linspace(0, 2, N_OCRS).astype(np.float32)
    before = counts.copy()
    unit = unit_rows(counts, idf)
    expected = counts.toarray() * idf
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.toarray(), expected, atol=1e-6)
    assert unit.dtype == np.float32
    assert (counts != before).nnz == 0


def test_cells_that_share_nothing_are_zero(solver) -> None:
    x = np.hstack([blocks().toarray(), np.zeros((N_CELLS, 1), np.float32)])
    x[3] = 0
    x[7] = 0
    x[7, -1] = 2  # open in this cell alone
    fit = spectral_fit(sparse.csr_matrix(x), N_COMPONENTS)
    np.testing.assert_allclose(fit.embedding[[3, 7]], 0, atol=1e-6)
    assert (np.linalg.norm(fit.embedding, axis=1) > 1e-3).sum() == N_CELLS - 2
    assert not unit_rows(sparse.csr_matrix(x[3:4]), fit.idf).nnz


@pytest.mark.parametrize(
    "counts",
    [
        np.tile(np.arange(5), (70, 1)),  # all open OCRs are open everywhere: no weight is left
        np.zeros((70, 5)),
        np.eye(70, 80),
        np.ones((1, 5)),
    ],
    ids=["equal cells", "empty cells", "nothing shared", "one cell"],
)
def test_nothing_to_find(counts) -> None:
    fit = spectral_fit(sparse.csr_matrix(counts.astype(np.float32)), 3)
    n_cells, n_ocrs = counts.shape
    assert fit.embedding.shape == fit.vectors.shape == (n_cells, 0)
    assert fit.axes.shape == (n_ocrs, 0)
    assert np.isfinite(fit.idf).all()


def test_fewer_positive_eigenvalues(solver) -> None:
    """Two kinds that share nothing, and alike within: two positive eigenvalues, whatever is asked for."""
    x = np.zeros((20, 10), np.float32)
    x[:12, :5], x[12:, 5:] = 1, 1
    fit = spectral_fit(sparse.csr_matrix(x), 8)
    np.testing.assert_allclose(fit.values, 1, rtol=1e-8)
    assert fit.embedding.shape == (20, 2)
    assert np.linalg.matrix_rank(fit.embedding, tol=1e-4) == 2


def test_more_components_than_cells() -> None:
    fit = spectral_fit(blocks(12), 50)
    assert 0 < fit.embedding.shape[1] < 12
    assert (fit.values > 0).all()
    assert (np.diff(fit.values) <= 0).all()


def test_neither_seed_nor_cell_order_matters(solver) -> None:
    counts = blocks()
    order = np.random.default_rng(3).permutation(N_CELLS)
    fit, other, shuffled = (
        spectral_fit(counts, N_COMPONENTS),
        spectral_fit(counts, N_COMPONENTS, seed=5),
        spectral_fit(counts[order], N_COMPONENTS),
    )
    np.testing.assert_allclose(other.embedding, fit.embedding, atol=1e-6)
    np.testing.assert_allclose(shuffled.embedding, fit.embedding[order], atol=1e-6)
    np.testing.assert_allclose(shuffled.axes, fit.axes, atol=1e-5 * np.abs(fit.axes).max())
    np.testing.assert_array_equal(spectral_fit(counts, N_COMPONENTS).embedding, fit.embedding)


def test_the_largest_entry_of_an_axis_is_positive(solver) -> None:
    axes = spectral_fit(blocks(), N_COMPONENTS).axes
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] > 0).all()
