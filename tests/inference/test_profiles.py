from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfound_atac.data import Cells
from scfound_atac.inference import profiles
from scfound_atac.inference.profiles import embed_profiles

N_CELLS, N_OCRS, N_COMPONENTS, WIDTH = 50, 80, 4, 6


class Reader:
    """Cell vectors that are a fixed map of the counts."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.keys = rng.normal(size=(N_OCRS, WIDTH)).astype(np.float32)
        self.map = rng.normal(size=(N_OCRS, WIDTH)).astype(np.float32)

    def read(self, counts, weighted, idf) -> np.ndarray:
        return counts @ self.map


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def counts() -> sparse.csr_matrix:
    rng = np.random.default_rng(1)
    kind = rng.choice(5, N_CELLS, p=[0.1, 0.15, 0.2, 0.25, 0.3])
    rate = np.where(np.arange(N_OCRS)[None] % 5 == kind[:, None], 1.2, 0.1)
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32))


def as_cells(matrix) -> Cells:
    n_cells, n_ocrs = matrix.shape
    names = np.array([f"cell{i}" for i in range(n_cells)], dtype=object)
    return Cells(matrix, None, pd.DataFrame(index=range(n_ocrs)), names, np.zeros(n_cells, dtype=bool))


class Embedding(NamedTuple):
    vectors: np.ndarray
    axes: object
    space: object


def embedded(matrix, reader, **kwargs):
    options = {"mix": 0.5, "kept": np.ones(N_OCRS, dtype=bool), "n_components": N_COMPONENTS, "progress": False}
    options["fit_rows"] = np.arange(matrix.shape[0])
    return Embedding(*embed_profiles(as_cells(matrix), reader, **{**options, **kwargs}))


def unit_tfidf(x: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Signac's TF-IDF with the weights of the `fitted` cells, each cell of length 1."""
    idf = len(fitted) / (1 + (fitted > 0).sum(axis=0))
    weighted = np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1) * idf)
    return weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)


def dense_profiles(x: np.ndarray, reader: Reader, mix: float | None, fit: np.ndarray, kept: np.ndarray) -> np.ndarray:
    x = np.where(kept, x.astype(np.float64), 0)
    low_rank = (x @ reader.map) @ np.where(kept[:, None], reader.keys, 0).T
    if mix is None:
        return low_rank
    signal = np.where(kept, unit_tfidf(x, x[fit]), 0)
    scaled = [part / np.linalg.norm(part[fit] - part[fit].mean(axis=0)) for part in (signal, low_rank)]
    return scaled[0] + mix * scaled[1]


def dense_pca(profiles: np.ndarray, n: int, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = profiles[fit].mean(axis=0)
    _, values, axes = np.linalg.svd(profiles[fit] - mean, full_matrices=False)
    return (profiles - mean) @ axes[:n].T, (values**2 / (values**2).sum())[:n]


ALL, EVERY_OCR = np.arange(N_CELLS), np.ones(N_OCRS, dtype=bool)


@pytest.fixture(params=["dense", "iterative"])
def solver(request, monkeypatch) -> str:
    monkeypatch.setattr(profiles, "_DENSE_ENTRIES", 10**9 if request.param == "dense" else 0)
    return request.param


@pytest.mark.parametrize("mix", [None, 0.0, 0.25, 2.0])
def test_equals_the_dense_computation(counts, reader, mix, solver) -> None:
    embedding = embedded(counts, reader, mix=mix)
    expected, ratio = dense_pca(dense_profiles(counts.toarray(), reader, mix, ALL, EVERY_OCR), N_COMPONENTS, ALL)
    np.testing.assert_allclose(np.abs(embedding.vectors), np.abs(expected), atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(embedding.axes.variance_ratio, ratio, rtol=1e-3)
    assert embedding.vectors.dtype == np.float32


def test_dense_and_iterative_agree_in_sign_too(counts, reader, monkeypatch) -> None:
    found = []
    for n_entries in (0, 10**9):
        monkeypatch.setattr(profiles, "_DENSE_ENTRIES", n_entries)
        found.append(embedded(counts, reader))
    np.testing.assert_allclose(found[0].vectors, found[1].vectors, atol=2e-3 * np.abs(found[1].vectors).max())
    np.testing.assert_allclose(found[0].axes.components, found[1].axes.components, atol=5e-3)


def test_axes_are_orthonormal_and_largest_entry_positive(counts, reader, solver) -> None:
    axes = embedded(counts, reader).axes.components
    np.testing.assert_allclose(axes.T @ axes, np.eye(N_COMPONENTS), atol=1e-4)
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(N_COMPONENTS)] > 0).all()


@pytest.mark.parametrize("mix", [None, 0.5])
def test_whole_profiles(counts, reader, mix) -> None:
    embedding = embedded(counts, reader, mix=mix, n_components=None)
    expected = dense_profiles(counts.toarray(), reader, mix, ALL, EVERY_OCR)
    np.testing.assert_allclose(embedding.vectors, expected, atol=1e-5 * np.abs(expected).max())
    assert embedding.axes is None


def test_whole_profile_of_one_cell(counts, reader) -> None:
    """There is no variance to scale by: the reader's profile as it is, and TF-IDF of length 1 beside `mix` times that profile."""
    x = counts[:1].toarray().astype(np.float64)
    low_rank = (x @ reader.map) @ reader.keys.T
    alone = embedded(counts[:1], reader, mix=None, n_components=None)
    np.testing.assert_allclose(alone.vectors, low_rank, rtol=1e-4, atol=1e-4)
    both = embedded(counts[:1], reader, mix=0.5, n_components=None)
    np.testing.assert_allclose(both.vectors, unit_tfidf(x, x) + 0.5 * low_rank, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_components", [N_COMPONENTS, None])
def test_columns_that_are_not_kept_have_no_say(counts, reader, n_components) -> None:
    kept = np.arange(N_OCRS) % 4 != 1
    x = counts.toarray()
    found = embedded(counts, reader, kept=kept, n_components=n_components)
    space = found.space
    expected = dense_profiles(x, reader, 0.5, ALL, kept)
    if n_components is None:
        np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
        assert not found.vectors[:, ~kept].any()
    else:
        expected, _ = dense_pca(expected, n_components, ALL)
        np.testing.assert_allclose(np.abs(found.vectors), np.abs(expected), atol=1e-4)
        np.testing.assert_allclose(found.axes.components[~kept], 0, atol=1e-12)
    assert not space.idf[~kept].any()
    x[:, ~kept] = 7
    other = embedded(sparse.csr_matrix(x), reader, kept=kept, n_components=n_components)
    np.testing.assert_array_equal(other.vectors, found.vectors)


def test_fitted_cells_and_the_others(counts, reader) -> None:
    fit = np.array([30, 2, 5, 9, 11, 14, 21, 26, 33, 35, 38, 41, 44, 48])
    embedding = embedded(counts, reader, fit_rows=fit)
    expected, _ = dense_pca(dense_profiles(counts.toarray(), reader, 0.5, fit, EVERY_OCR), N_COMPONENTS, fit)
    np.testing.assert_allclose(np.abs(embedding.vectors), np.abs(expected), atol=1e-4)


def test_a_given_space_and_basis_do_the_same_to_a_cell_alone(counts, reader) -> None:
    embedding = embedded(counts, reader)
    space = embedding.space
    alone = embedded(counts[7:8], reader, axes=embedding.axes, space=space)
    same = alone.space
    np.testing.assert_allclose(alone.vectors, embedding.vectors[7:8], atol=1e-6)
    assert same is space
    assert alone.axes is embedding.axes
    whole = embedded(counts, reader, n_components=None)
    one = embedded(counts[7:8], reader, n_components=None, space=space)
    np.testing.assert_allclose(one.vectors, whole.vectors[7:8], atol=1e-6)


def test_cell_order_chunks_and_storage_do_not_matter(counts, reader) -> None:
    expected = embedded(counts, reader)
    order = np.random.default_rng(2).permutation(N_CELLS)
    shuffled = embedded(counts[order], reader)
    np.testing.assert_allclose(shuffled.vectors, expected.vectors[order], atol=1e-5)
    for matrix in (counts.toarray(), counts.tocsc(), counts.astype(np.uint8)):
        np.testing.assert_allclose(embedded(matrix, reader).vectors, expected.vectors, atol=1e-6)


def test_no_more_components_than_there_are(counts, reader) -> None:
    assert embedded(counts[:6], reader, n_components=20).vectors.shape == (6, 5)
    assert embedded(counts, reader, mix=None, n_components=20).vectors.shape == (N_CELLS, WIDTH)


@pytest.mark.parametrize("mix", [None, 0.5])
@pytest.mark.parametrize("n_cells", [2, 3, 50, 700])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_cells_are_an_error(reader, mix, n_cells, seed) -> None:
    x = np.tile(np.random.default_rng(seed).poisson(0.5, N_OCRS), (n_cells, 1))
    with pytest.raises(ValueError, match="All cells have the same profile"):
        embedded(x.astype(np.float32), reader, mix=mix)


def test_one_cell_is_an_error(counts, reader) -> None:
    with pytest.raises(ValueError, match="at least two cells, got 1"):
        embedded(counts[:1], reader)


def test_an_empty_cell_is_the_origin_of_the_profiles(counts, reader) -> None:
    x = counts.toarray()
    x[4] = 0
    embedding = embedded(x, reader)
    assert np.isfinite(embedding.vectors).all()
    np.testing.assert_allclose(
        embedding.vectors[4], -embedding.axes.mean @ embedding.axes.components, rtol=1e-4, atol=1e-6
    )
