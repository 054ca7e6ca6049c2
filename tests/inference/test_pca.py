from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA as ReferencePCA

from scfound_atac.inference import pca as pca_module
from scfound_atac.inference.pca import PCA


@pytest.fixture
def table() -> np.ndarray:
    """Forty cells by 300 OCRs with six directions of falling variance over noise."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 6)) * np.array([30, 20, 12, 7, 4, 2])
    return (scores @ rng.normal(size=(6, 300)) + 0.1 * rng.normal(size=(40, 300)) + 5).astype(np.float32)


def assert_same_as_reference(pca: PCA, table: np.ndarray, n: int) -> None:
    reference = ReferencePCA(n, svd_solver="full").fit(table.astype(np.float64))
    np.testing.assert_allclose(pca.variance, reference.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(pca.variance_ratio, reference.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(pca.mean, table.mean(0), rtol=1e-4, atol=1e-5)
    found, expected = pca.project(table), reference.transform(table)
    for i in range(n):
        assert abs(np.corrcoef(found[:, i], expected[:, i])[0, 1]) > 0.99999
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("n", [1, 3, 6])
def test_equals_sklearn(table: np.ndarray, n: int) -> None:
    pca = PCA.fit(table, n)
    assert pca.components.shape == (300, n)
    assert pca.components.dtype == pca.mean.dtype == np.float32
    assert_same_as_reference(pca, table, n)


def test_axes_are_orthonormal(table: np.ndarray) -> None:
    axes = PCA.fit(table, 6).components
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-5)


def test_more_cells_than_features(table: np.ndarray) -> None:
    narrow = table[:, :5]
    pca = PCA.fit(narrow, 50)
    assert pca.components.shape == (5, 5)
    assert_same_as_reference(pca, narrow, 5)


def test_blocks_of_columns_do_not_show(table: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PCA.fit(table, 6)
    for n_bytes in (1, 8 * 40 * 7, 8 * 40 * 299):
        monkeypatch.setattr(pca_module, "_BLOCK_BYTES", n_bytes)
        np.testing.assert_allclose(PCA.fit(table, 6).components, whole.components, atol=1e-5)


def test_iterative_and_full_decomposition_agree(table: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    full = PCA.fit(table, 3)
    monkeypatch.setattr(pca_module, "_DENSE_EIGH", 10)
    iterative = PCA.fit(table, 3)
    np.testing.assert_allclose(iterative.components, full.components, atol=1e-4)
    np.testing.assert_allclose(iterative.variance, full.variance, rtol=1e-5)


def test_memory_map(table: np.ndarray, tmp_path: Path) -> None:
    on_disk = np.memmap(tmp_path / "table", dtype=np.float32, mode="w+", shape=table.shape)
    on_disk[:] = table
    pca, expected = PCA.fit(on_disk, 6), PCA.fit(table, 6)
    np.testing.assert_array_equal(pca.components, expected.components)
    np.testing.assert_array_equal(pca.project(on_disk), expected.project(table))
    np.testing.assert_array_equal(on_disk, table)


def test_signs_do_not_depend_on_cell_order(table: np.ndarray) -> None:
    first, shuffled = PCA.fit(table, 6), PCA.fit(table[np.random.default_rng(1).permutation(40)], 6)
    np.testing.assert_allclose(first.components, shuffled.components, atol=1e-4)
    largest = np.abs(first.components).argmax(0)
    assert (first.components[largest, range(6)] > 0).all()


@pytest.mark.parametrize("n_cells", [2, 3, 10])
def test_fewer_cells_than_components(table: np.ndarray, n_cells: int) -> None:
    pca = PCA.fit(table[:n_cells], 50)
    assert pca.components.shape == (300, n_cells - 1)
    np.testing.assert_allclose(pca.variance_ratio.sum(), 1, rtol=1e-6)


def test_repeated_cells_span_fewer_axes(table: np.ndarray) -> None:
    pca = PCA.fit(np.repeat(table[:3], 5, axis=0), 10)
    assert pca.components.shape == (300, 2)
    assert np.isfinite(pca.components).all()


def test_one_cell(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least two cells, got 1"):
        PCA.fit(table[:1], 2)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e6])
def test_equal_cells(value: float) -> None:
    with pytest.raises(ValueError, match="All cells have the same vector"):
        PCA.fit(np.full((7, 50), value, dtype=np.float32), 2)


def test_small_differences_on_a_large_mean_are_found(table: np.ndarray) -> None:
    shifted = (table - table.mean(0)) * 1e-3 + 10
    found = PCA.fit(shifted.astype(np.float32), 1)
    assert abs(np.corrcoef(found.components[:, 0], PCA.fit(table, 1).components[:, 0])[0, 1]) > 0.999
