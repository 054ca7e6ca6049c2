from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import pdist

from scfound_atac.data import Cells, prepare_rows
from scfound_atac.inference import chromfound
from scfound_atac.inference.chromfound import Runner, embed_cells
from scfound_atac.inference.pca import PCA


@pytest.fixture
def runner(checkpoint, ocrs) -> Runner:
    return Runner(checkpoint, ocrs, device="cpu", batch_size=8)


def as_cells(matrix) -> Cells:
    n_cells, n_ocrs = matrix.shape
    names = np.array([f"cell{i}" for i in range(n_cells)], dtype=object)
    return Cells(matrix, None, pd.DataFrame(index=range(n_ocrs)), names, np.zeros(n_cells, dtype=bool))


class Embedding(NamedTuple):
    vectors: np.ndarray
    axes: PCA | None


def embed(matrix, runner: Runner, n_components: int | None = 5, **options):
    options = {"prepare": lambda rows: rows, "progress": False, "fit_rows": np.arange(matrix.shape[0]), **options}
    return Embedding(*embed_cells(as_cells(matrix), runner, n_components=n_components, **options))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("n_components", [None, 5])
def test_form_of_the_matrix_does_not_show(runner: Runner, values, form, n_components: int | None) -> None:
    expected = embed(values, runner, n_components).vectors
    found = embed(form(values.toarray()), runner, n_components).vectors
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_from_a_file(runner: Runner, values, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        found = embed(file.create_dataset("x", data=values.toarray()), runner).vectors
    np.testing.assert_allclose(found, embed(values, runner).vectors, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 17, 24, 100])
def test_chunks_do_not_show(checkpoint, ocrs, values, runner: Runner, batch_size: int) -> None:
    expected = embed(values, runner).vectors
    other = Runner(checkpoint, ocrs, device="cpu", batch_size=batch_size)
    np.testing.assert_allclose(embed(values, other).vectors, expected, atol=1e-5 * np.abs(expected).max())


def test_whole_vectors(runner: Runner, values) -> None:
    result = embed(values, runner, None)
    np.testing.assert_allclose(result.vectors, runner(values), atol=1e-6)
    assert result.axes is None


def test_pca_of_whole_vectors(runner: Runner, values) -> None:
    whole, result = embed(values, runner, None).vectors, embed(values, runner)
    pca = PCA.fit(whole, 5)
    scale = np.abs(result.vectors).max()
    np.testing.assert_allclose(result.vectors, pca.project(whole), atol=1e-4 * scale)
    np.testing.assert_allclose(result.axes.variance_ratio, pca.variance_ratio, rtol=1e-4)
    assert result.vectors.dtype == np.float32
    assert result.axes.components.shape == (70, 5)


def test_cells_that_are_not_fitted_are_projected(runner: Runner, values) -> None:
    rows = np.array([20, 3, 11, 5, 7, 0, 13, 19, 2])
    result = embed(values, runner, 4, fit_rows=rows)
    whole = embed(values, runner, None).vectors
    pca = PCA.fit(whole[np.sort(rows)], 4)
    np.testing.assert_allclose(result.vectors, pca.project(whole), atol=1e-4 * np.abs(result.vectors).max())


def test_basis_is_used_again(runner: Runner, values) -> None:
    rows = np.arange(12)
    first = embed(values, runner, 4, fit_rows=rows)
    again = embed(values[12:], runner, 4, axes=first.axes)
    assert again.axes is first.axes
    np.testing.assert_allclose(again.vectors, first.vectors[12:], atol=1e-5 * np.abs(first.vectors).max())


def test_one_cell_with_a_basis(runner: Runner, values) -> None:
    first = embed(values, runner, 4)
    one = embed(values[5], runner, 4, axes=first.axes)
    np.testing.assert_allclose(one.vectors, first.vectors[5:6], atol=1e-5 * np.abs(first.vectors).max())


def test_basis_decides_the_number_of_components(runner: Runner, values) -> None:
    rng, whole = np.random.default_rng(0), embed(values, runner, None).vectors
    axes = PCA(rng.normal(size=70).astype(np.float32), rng.normal(size=(70, 3)).astype(np.float32))
    expected = (whole - axes.mean) @ axes.components
    found = embed(values, runner, 50, axes=axes).vectors
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_cells_are_prepared(runner: Runner, values) -> None:
    counts = values.ceil()
    found = embed(counts, runner, None, prepare=prepare_rows).vectors
    np.testing.assert_allclose(found, embed(prepare_rows(counts), runner, None).vectors, atol=1e-6)
    assert np.abs(found - embed(counts, runner, None).vectors).max() > 1e-4


def test_each_cell_is_prepared_once(runner: Runner, values) -> None:
    seen = 0

    def prepare(rows: sparse.csr_matrix) -> sparse.csr_matrix:
        nonlocal seen
        seen += rows.shape[0]
        return rows

    embed(values, runner, 3, fit_rows=np.arange(9), prepare=prepare)
    assert seen == values.shape[0]


@pytest.mark.parametrize("n_bytes", [0, 4 * 70 * 5])
def test_vectors_on_disk(runner: Runner, values, n_bytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = embed(values, runner, fit_rows=np.arange(0, 24, 2)).vectors
    everything = embed(values, runner).vectors
    monkeypatch.setattr(chromfound, "_IN_MEMORY_BYTES", n_bytes)
    monkeypatch.setattr(chromfound.tempfile, "tempdir", str(tmp_path))
    made = []
    monkeypatch.setattr(chromfound.np, "memmap", lambda *a, f=np.memmap, **k: made.append(a[0]) or f(*a, **k))
    found = embed(values, runner).vectors
    assert len(made) == 1
    assert made[0].is_relative_to(tmp_path)
    np.testing.assert_allclose(found, everything, atol=1e-5 * np.abs(everything).max())
    found = embed(values, runner, fit_rows=np.arange(0, 24, 2)).vectors
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_on_disk_after_an_error(
    runner: Runner, values, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(chromfound, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(chromfound.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="All cells have the same vector"):
        embed(sparse.csr_matrix((6, 70), dtype=np.float32), runner)
    assert list(tmp_path.iterdir()) == []


def test_fewer_cells_than_components(runner: Runner, values) -> None:
    """Three components hold all there is between four cells."""
    found, whole = embed(values[:4], runner, 50).vectors, embed(values[:4], runner, None).vectors
    assert found.shape == (4, 3)
    np.testing.assert_allclose(pdist(found), pdist(whole), rtol=1e-4)


def test_one_cell_without_a_basis(runner: Runner, values) -> None:
    with pytest.raises(ValueError, match="at least two cells"):
        embed(values[0], runner)
