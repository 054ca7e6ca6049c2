"""Selective scan on CPU with gradients, for training without a GPU.

The recurrence alone is compiled; step size, skip connection and gate stay in torch. One channel of one cell is a chain of
vectors of 16 states. Its backward pass recomputes the states (16 floats per OCR) instead of keeping them for all channels.

Letters: b cell, d channel, l OCR, n state (16, one per SIMD lane).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange

from .simd import LANES, exp2, fma, lane_sum, load, splat, store

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_LOG2E = np.float32(1.4426950408889634)


@njit(parallel=True, cache=True)
def _forward(u: Any, dt: Any, A: Any, B: Any, C: Any, y: Any) -> None:
    """u, dt, y (b, d, l); A (d, n); B, C (b, l, n)."""
    n_cells, n_channels, length = u.shape
    for chain in prange(n_cells * n_channels):
        cell, channel = chain // n_channels, chain % n_channels
        rate = load(A, channel * LANES) * splat(_LOG2E)
        h = splat(np.float32(0.0))
        for t in range(length):
            step = dt[cell, channel, t]
            place = (cell * length + t) * LANES
            h = fma(exp2(splat(step) * rate), h, splat(step * u[cell, channel, t]) * load(B, place))
            y[cell, channel, t] = lane_sum(h * load(C, place))


@njit(parallel=True, cache=True)
def _backward(
    u: Any, dt: Any, A: Any, B: Any, C: Any, dy: Any, du: Any, ddt: Any, dA: Any, dB: Any, dC: Any, n_groups: int
) -> None:
    """Gradients; dA (b, d, n), dB and dC (groups, b, l, n) hold one part per cell or channel group, to be summed by the caller."""
    n_cells, n_channels, length = u.shape
    zero = np.float32(0.0)
    for task in prange(n_cells * n_groups):
        cell, group = task // n_groups, task % n_groups
        states = np.empty((length + 1) * LANES, np.float32)  # state before each step, then the last
        for channel in range(group * n_channels // n_groups, (group + 1) * n_channels // n_groups):
            decay = load(A, channel * LANES)
            rate = decay * splat(_LOG2E)
            h = splat(zero)
            store(states, 0, h)
            for t in range(length):
                step = dt[cell, channel, t]
                h = fma(
                    exp2(splat(step) * rate),
                    h,
                    splat(step * u[cell, channel, t]) * load(B, (cell * length + t) * LANES),
                )
                store(states, (t + 1) * LANES, h)
            dh = splat(zero)
            d_decay = splat(zero)
            for t in range(length - 1, -1, -1):
                place = (cell * length + t) * LANES
                grouped = (group * n_cells * length) * LANES + place
                step, x, g = dt[cell, channel, t], u[cell, channel, t], splat(dy[cell, channel, t])
                b = load(B, place)
                dh = fma(g, load(C, place), dh)
                store(dC, grouped, fma(g, load(states, (t + 1) * LANES), load(dC, grouped)))
                store(dB, grouped, fma(splat(step * x), dh, load(dB, grouped)))
                decayed = dh * exp2(splat(step) * rate)
                through_decay = decayed * load(states, t * LANES)
                d_decay = fma(splat(step), through_decay, d_decay)
                through_input = lane_sum(dh * b)
                ddt[cell, channel, t] = lane_sum(through_decay * decay) + x * through_input
                du[cell, channel, t] = step * through_input
                dh = decayed
            store(dA, (cell * n_channels + channel) * LANES, d_decay)


class _Scan(torch.autograd.Function):
    """``y[t] = C[t] . h[t]`` with ``h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]``."""

    @staticmethod
    def forward(
        ctx: Any, *inputs: Tensor
    ) -> Tensor:  # u, dt (b, d, l); A (d, n); B, C (b, l, n), all contiguous float32
        ctx.save_for_backward(*inputs)
        y = torch.empty_like(inputs[0])
        _forward(*(t.detach().numpy() for t in inputs), y.numpy())
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        inputs: tuple[NDArray[np.float32], ...] = tuple(t.detach().numpy() for t in ctx.saved_tensors)
        u, dt, A, B, C = inputs
        n_groups = min(u.shape[1], -(-numba.get_num_threads() // u.shape[0]))
        du, ddt = np.empty_like(u), np.empty_like(dt)
        dA = np.empty((u.shape[0], *A.shape), np.float32)
        dB, dC = np.zeros((n_groups, *B.shape), np.float32), np.zeros((n_groups, *C.shape), np.float32)
        _backward(u, dt, A, B, C, grad_outputs[0].contiguous().numpy(), du, ddt, dA, dB, dC, n_groups)
        return tuple(torch.from_numpy(g) for g in (du, ddt, dA.sum(0), dB.sum(0), dC.sum(0)))


def selective_scan_numba_grad(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
) -> Tensor:
    """Differentiable scan on CPU for 16 states per channel; shapes as in `scfound_atac.nn.selective_scan`."""
    dtype = u.dtype
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    y = _Scan.apply(
        *(t.float().contiguous() for t in (u, delta, A)), *(t.float().transpose(1, 2).contiguous() for t in (B, C))
    )
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * F.silu(z)
    return y.to(dtype)
