"""Groups of cells and what is kept of their profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfound_atac.data import Cells
from scfound_atac.inference.impute import group_profiles, largest, n_groups, to_depth


def as_cells(matrix) -> Cells:
    n_cells, n_ocrs = matrix.shape
    names = np.array([f"cell{i}" for i in range(n_cells)], dtype=object)
    return Cells(matrix, None, pd.DataFrame(index=range(n_ocrs)), names, np.zeros(n_cells, dtype=bool))


class Knowledge:
    """Tells that all cells open OCR 0 more, and OCR 1 less, by a factor of e."""

    keys = np.array([[1], [-1], [0], [0]], dtype=np.float32)

    def __call__(self, counts):
        return np.ones((counts.shape[0], 1), dtype=np.float32)


def two_kinds(n_cells: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Cells in opposite directions that open OCR 0 or OCR 1; OCR 2 is open in all, OCR 3 in none."""
    kind = np.arange(n_cells) % 2
    counts = np.column_stack([kind == 0, kind == 1, np.ones(n_cells), np.zeros(n_cells)]).astype(np.float32)
    return sparse.csr_matrix(3 * counts), np.where(kind == 0, 1, -1)[:, None].astype(np.float32)


def test_profiles_are_those_of_the_kinds() -> None:
    counts, vectors = two_kinds(6000)
    kept = np.array([True, True, True, True])
    groups = group_profiles(as_cells(counts), vectors, None, kept=kept, fit_order=np.arange(6000))
    found = groups(vectors[:2])
    np.testing.assert_allclose(found[:, :3], [[1, 0, 1], [0, 1, 1]], atol=0.2)
    assert (found[:, 3] < 1e-3).all()


def test_knowledge_shifts_small_groups() -> None:
    counts, vectors = two_kinds(20)
    kept = np.ones(4, dtype=bool)
    plain, told = (
        group_profiles(as_cells(counts), vectors, x, kept=kept, fit_order=np.arange(20)) for x in (None, Knowledge())
    )
    assert plain.profiles.shape == (1, 4)
    assert plain.profiles[0, 0] == pytest.approx(plain.profiles[0, 1])
    assert told.profiles[0, 0] > 2 * told.profiles[0, 1]
    assert told.profiles.sum() == pytest.approx(plain.profiles.sum(), rel=1e-5)


def test_columns_left_out_stay_zero() -> None:
    counts, vectors = two_kinds(100)
    kept = np.array([True, True, False, True])
    groups = group_profiles(as_cells(counts), vectors, Knowledge(), kept=kept, fit_order=np.arange(100))
    assert (groups.profiles[:, 2] == 0).all()
    assert (groups.profiles[:, kept] > 0).all()


def test_number_of_groups() -> None:
    assert [n_groups(n) for n in (1, 59, 60, 1000, 10**6)] == [1, 1, 2, 33, 50]


def test_ties_are_broken_by_the_given_order():
    values = np.array([[1, 2, 2, 2, 0], [0, 0, 3, 0, 0]], dtype=np.float32)
    kept = largest(values, 2, 0.0, np.array([4, 3, 2, 1, 0])).toarray()
    np.testing.assert_array_equal(kept, [[0, 0, 2, 2, 0], [0, 0, 3, 0, 0]])
    kept = largest(values, 5, 1.5, np.arange(3)).toarray()
    np.testing.assert_array_equal(kept, [[0, 2, 2, 0, 0], [0, 0, 3, 0, 0]])


def test_scaling_to_depth():
    values = np.array([[1, 3], [0, 0], [1, 1], [1, 9]], dtype=np.float32)
    found = to_depth(values, np.array([1, 4, 0, 2]))
    np.testing.assert_allclose(found, [[0.25, 0.75], [0, 0], [0, 0], [0.2, 1]], rtol=1e-6)
