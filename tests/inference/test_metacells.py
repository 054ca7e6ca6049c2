"""Groups of like cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scfound_atac.inference.metacells import metacells, sum_groups


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 200), n_per=st.integers(1, 60), d=st.integers(1, 4), seed=st.integers(0, 99))
def test_groups_have_equal_sizes(n: int, n_per: int, d: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    group = metacells(vectors, n_per)
    sizes = np.bincount(group)
    assert len(sizes) == max(round(n / n_per), 1)
    assert sizes.min() > 0
    assert np.ptp(sizes) <= 1
    np.testing.assert_array_equal(metacells(vectors, n_per), group)


def test_groups_hold_cells_that_lie_close() -> None:
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(8), 80)
    vectors = rng.normal(size=(8, 10))[kind] * 3 + rng.normal(size=(640, 10)) * 0.5
    group = metacells(vectors, 10)
    purity = np.mean([np.bincount(kind[group == k]).max() / (group == k).sum() for k in range(group.max() + 1)])
    assert purity > 0.95
    within = np.mean([vectors[group == k].var(axis=0).sum() for k in range(group.max() + 1)])
    assert within < 0.3 * vectors.var(axis=0).sum()


def test_equal_cells() -> None:
    assert np.bincount(metacells(np.zeros((25, 3)), 10)).tolist() == [12, 13]


@pytest.mark.parametrize("mean", [False, True])
def test_sums(mean: bool) -> None:
    rng = np.random.default_rng(0)
    counts, group = rng.poisson(1, size=(30, 7)).astype(np.float32), np.arange(30) % 4
    expected = np.array([counts[group == k].mean(axis=0) if mean else counts[group == k].sum(axis=0) for k in range(4)])
    found = sum_groups(sparse.csr_matrix(counts), group, mean=mean)
    assert found.format == "csr"
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    np.testing.assert_allclose(sum_groups(counts, group, mean=mean), expected, rtol=1e-6)
