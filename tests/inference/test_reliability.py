from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scfound_atac.inference.reliability import halves, reliable_directions


def noisy(signal: np.ndarray, noise: float, seed: int) -> np.ndarray:
    return signal + noise * np.random.default_rng(seed).normal(size=signal.shape)


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    """Two directions of five with a signal, of variance 4 and 1."""
    return np.random.default_rng(0).normal(size=(20_000, 5)) * [2, 1, 0, 0, 0]


def test_halves_are_disjoint_and_complete() -> None:
    counts = sparse.random(50, 80, density=0.2, format="csr", random_state=1)
    first, second = halves(counts, np.arange(80))
    assert (first + second != counts).nnz == 0
    assert first.multiply(second).nnz == 0
    difference = first.getnnz(axis=1) - second.getnnz(axis=1)
    assert set(difference) <= {0, 1}


def test_halves_know_neither_stored_zeros_nor_the_order_of_storage() -> None:
    x = np.array([[1.0, 2, 0, 3, 4]])
    stored = sparse.csr_matrix((np.array([4.0, 0, 3, 2, 1]), np.array([4, 2, 3, 1, 0]), [0, 5]), shape=(1, 5))
    for matrix in (sparse.csr_matrix(x), stored):
        first, second = halves(matrix, np.arange(5))
        np.testing.assert_array_equal(first.toarray(), [[1, 0, 0, 3, 0]])
        np.testing.assert_array_equal(second.toarray(), [[0, 2, 0, 0, 4]])


def test_halves_follow_the_genome_and_leave_out_what_is_not_in_it() -> None:
    first, second = halves(sparse.csr_matrix([[1.0, 2, 0, 3, 4]]), np.array([4, 3, 1, 2]))
    np.testing.assert_array_equal(first.toarray(), [[0, 2, 0, 0, 4]])
    np.testing.assert_array_equal(second.toarray(), [[0, 0, 0, 3, 0]])


def test_reliability_of_each_direction(signal) -> None:
    """With noise of variance 1 in a half, a signal of variance v has a reliability of v / (v + 1/2) in the whole cell."""
    axes, odds = reliable_directions(noisy(signal, 1, 2), noisy(signal, 1, 3))
    squared = (axes**2).sum(axis=0)
    np.testing.assert_allclose(np.sort(squared), [0.04 / 1.02] * 3 + [1 / 1.5, 4 / 4.5], atol=0.01)
    assert np.abs(axes[0]).argmax() == squared.argmax()
    shrunk = np.array([4 / 4.5, 1 / 1.5, *[0.04 / 1.02] * 3])
    expected = (shrunk @ [4, 1, 0, 0, 0]) / (shrunk @ np.ones(5))  # signal over noise of variance 1, after shrinkage
    assert odds == pytest.approx(expected, rel=0.05)


def test_noise_has_low_odds_and_equal_halves_high_ones(signal) -> None:
    nothing = np.zeros_like(signal)
    assert reliable_directions(noisy(nothing, 1, 4), noisy(nothing, 1, 5)).odds < 0.05
    assert reliable_directions(signal, signal).odds == pytest.approx(0.98 / 0.02)


def test_halves_without_any_spread_treat_all_directions_alike() -> None:
    axes, odds = reliable_directions(np.zeros((9, 3)), np.zeros((9, 3)))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3) * 0.04 / 1.02, atol=1e-12)
    assert odds == pytest.approx(0.02 / 0.98)
