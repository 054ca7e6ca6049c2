"""The vector functions against NumPy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit

from scfound_atac.nn.cpu import simd

X = np.concatenate([np.linspace(-130, 100, 3000), np.linspace(-6, 6, 5000)]).astype(np.float32)[: 16 * 500]


def _apply(function: object) -> np.ndarray:
    @njit
    def loop(x, y):
        for i in range(0, x.size, 16):
            simd.store(y, i, function(simd.load(x, i)))

    y = np.empty_like(X)
    loop(X, y)
    return y


def test_exp2() -> None:
    expected = np.exp2(np.maximum(X, -126).astype(np.float64))
    np.testing.assert_allclose(_apply(simd.exp2), expected, rtol=2e-7)


@pytest.mark.parametrize("name", ["silu", "softplus", "gelu"])
def test_activations(name: str) -> None:
    expected = getattr(torch.nn.functional, name)(torch.from_numpy(X).double()).numpy()
    np.testing.assert_allclose(_apply(getattr(simd, name)), expected, atol=1e-6, rtol=4e-7)


def test_transpose_and_lane_sum() -> None:
    @njit
    def run(a, b, sums):
        simd.transpose(a, 3, 20, b, 0, 16)
        for i in range(16):
            sums[i] = simd.lane_sum(simd.load(b, 16 * i))

    a = np.random.default_rng(0).normal(size=(17, 20)).astype(np.float32)
    b, sums = np.empty((16, 16), dtype=np.float32), np.empty(16, dtype=np.float32)
    run(a, b, sums)
    np.testing.assert_array_equal(b, a[:16, 3:19].T)
    np.testing.assert_allclose(sums, b.sum(1), atol=1e-5)
