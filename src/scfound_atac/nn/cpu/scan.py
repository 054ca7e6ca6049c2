"""Selective scan on CPU: 16 channels in the lanes of a vector, their states in the first-level cache, one pass over the sequence.

Steps depend on each other, so threads share out cells and groups of 16 channels. Two layouts: `selective_scan_numba` has the public one
(batch, channel, length); `scan_tokens` is for callers that hold (batch, length, channel), as ChromFound's CPU path does.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from numba import njit, prange

from .simd import LANES, exp2, fma, load, load_splat, minimum, silu, softplus, splat, store, transpose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CHUNK = 64  # steps that the channel-major entry transposes at a time
_LOG2E = np.float32(1.4426950408889634)
_LARGEST = np.float32(127.0)
_ZERO = np.float32(0.0)


@contextmanager
def torch_threads() -> Iterator[int]:
    """Let numba use as many threads as torch does; gives their number and restores the caller's setting."""
    before = numba.get_num_threads()
    n_threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(n_threads)
    try:
        yield n_threads
    finally:
        numba.set_num_threads(before)


def pack_decay(A: Tensor) -> np.ndarray:
    """A (channel, state) -> (groups of 16 channels, state, 16), times log2(e), missing channels zero."""
    n_channels, n_states = A.shape
    padded = np.zeros((-(-n_channels // LANES) * LANES, n_states), dtype=np.float32)
    padded[:n_channels] = A.detach().float().numpy() * _LOG2E
    return np.ascontiguousarray(padded.reshape(-1, LANES, n_states).transpose(0, 2, 1))


@njit
def _scan_steps(
    u: Any, u0: int, delta: Any, delta0: int, stride: int, bc: Any, bc0: int, z: Any, z0: int, z_stride: int,
    A: Any, group: int, skip: Any, state: Any, n_steps: int,
) -> None:  # fmt: skip
    """Advance 16 channels by `n_steps`, from and into `state` (n, 16); y replaces u. `bc` has B then C of a step, 2 n per step.

    Arrays are read from the flat offsets `*0` on, a step every `stride` elements; there is no gate if `z_stride` is 0.
    """
    n_states = A.shape[1]
    a0 = group * n_states * LANES
    for t in range(n_steps):
        x, step = load(u, u0 + t * stride), load(delta, delta0 + t * stride)
        drive = step * x
        y = skip * x
        row = bc0 + t * 2 * n_states
        for i in range(n_states):
            decay = exp2(minimum(step * load(A, a0 + i * LANES), splat(_LARGEST)))
            h = fma(decay, load(state, i * LANES), drive * load_splat(bc, row + i))
            store(state, i * LANES, h)
            y = fma(h, load_splat(bc, row + n_states + i), y)
        if z_stride > 0:
            y = y * silu(load(z, z0 + t * z_stride))
        store(u, u0 + t * stride, y)


@njit(parallel=True, cache=True)
def scan_tokens(u: Any, delta: Any, bc: Any, A: Any, D: Any, z: Any, z0: int, z_stride: int) -> None:
    """Scan u, delta (B, L, d) with bc (B, L, 2 n): B, then C, of each step; y replaces u.

    `delta` is the step size itself, `A` comes from `pack_decay`, D is (d,), d a multiple of 16. The gate of channel c of token t,
    counted over all cells, is element ``z0 + t * z_stride + c`` of `z`.
    """
    n_cells, length, n_channels = u.shape
    n_groups, n_states = A.shape[0], A.shape[1]
    for index in prange(n_cells * n_groups):
        cell, group = index // n_groups, index % n_groups
        token, channel = cell * length, group * LANES
        state = np.zeros(n_states * LANES, dtype=np.float32)
        u0 = token * n_channels + channel
        _scan_steps(
            u, u0, delta, u0, n_channels, bc, token * 2 * n_states, z, z0 + token * z_stride + channel, z_stride,
            A, group, load(D, channel), state, length,
        )  # fmt: skip


@njit(parallel=True, cache=True)
def scan_tokens_from(u: Any, delta: Any, bc: Any, A: Any, D: Any, z: Any, state: Any) -> None:
    """`scan_tokens` for parts of sequences: from and into `state` (B, groups of 16 channels, n * 16), with a gate z (B, L, d)."""
    n_parts, length, n_channels = u.shape
    n_groups, n_states = A.shape[0], A.shape[1]
    for index in prange(n_parts * n_groups):
        part, group = index // n_groups, index % n_groups
        first = part * length * n_channels + group * LANES
        _scan_steps(
            u, first, delta, first, n_channels, bc, part * length * 2 * n_states, z, first, n_channels,
            A, group, load(D, group * LANES), state[part, group], length,
        )  # fmt: skip


@njit
def _to_steps(x: Any, cell: int, first: int, n: int, t0: int, n_steps: int, y: Any, column: int, stride: int) -> None:
    """Copy x[cell, first : first + n, t0 : t0 + n_steps] to (step, row): y[step * stride + column + row], n of at most 16."""
    length = x.shape[2]
    x0 = (cell * x.shape[1] + first) * length + t0
    full = n_steps // LANES * LANES if n == LANES else 0
    for t in range(0, full, LANES):
        transpose(x, x0 + t, length, y, t * stride + column, stride)
    for i in range(n):
        for t in range(full, n_steps):
            y[t * stride + column + i] = x[cell, first + i, t0 + t]


@njit
def _scan_channels(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    z: Any,
    bias: Any,
    use_softplus: bool,
    y: Any,
    cell: int,
    group: int,
) -> None:
    """One group of channels of one cell, in chunks that are transposed to (step, channel) and back."""
    n_channels, length = u.shape[1], u.shape[2]
    n_states, channel = A.shape[1], group * LANES
    n = min(LANES, n_channels - channel)
    state = np.zeros(n_states * LANES, dtype=np.float32)
    part_u = np.zeros(CHUNK * LANES, dtype=np.float32)
    part_delta, part_z = np.zeros_like(part_u), np.zeros_like(part_u)
    part_bc = np.zeros(CHUNK * 2 * n_states, dtype=np.float32)
    skip, shift = load(D, channel), load(bias, channel)
    z_stride = LANES if z.size > 0 else 0
    for t0 in range(0, length, CHUNK):
        n_steps = min(CHUNK, length - t0)
        _to_steps(u, cell, channel, n, t0, n_steps, part_u, 0, LANES)
        _to_steps(delta, cell, channel, n, t0, n_steps, part_delta, 0, LANES)
        if z_stride > 0:
            _to_steps(z, cell, channel, n, t0, n_steps, part_z, 0, LANES)
        for i in range(0, n_states, LANES):
            n_rows = min(LANES, n_states - i)
            _to_steps(B, cell, i, n_rows, t0, n_steps, part_bc, i, 2 * n_states)
            _to_steps(C, cell, i, n_rows, t0, n_steps, part_bc, n_states + i, 2 * n_states)
        for t in range(n_steps):
            step = load(part_delta, t * LANES) + shift
            if use_softplus:
                step = softplus(step)
            store(part_delta, t * LANES, step)
        _scan_steps(part_u, 0, part_delta, 0, LANES, part_bc, 0, part_z, 0, z_stride, A, group, skip, state, n_steps)
        full = n_steps // LANES * LANES if n == LANES else 0
        for t in range(0, full, LANES):
            transpose(part_u, t * LANES, LANES, y, (cell * n_channels + channel) * length + t0 + t, length)
        for c in range(n):
            for t in range(full, n_steps):
                y[cell, channel + c, t0 + t] = part_u[t * LANES + c]


@njit(parallel=True, cache=True)
def _scan_all(
    u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any, use_softplus: bool, y: Any
) -> None:
    n_groups = A.shape[0]
    for index in prange(u.shape[0] * n_groups):
        _scan_channels(u, delta, A, B, C, D, z, bias, use_softplus, y, index // n_groups, index % n_groups)


def selective_scan_numba(
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
    """Selective scan of CPU tensors in fp32, without gradients; shapes as in `scfound_atac.nn.selective_scan`.

    A decay ``exp(dt A)`` saturates at 2**127; with negative A and positive steps, as in Mamba, it never grows.
    """
    n_cells, n_channels, length = u.shape
    decay = pack_decay(A)

    def array(tensor: Tensor) -> np.ndarray:
        return np.ascontiguousarray(tensor.detach().float().numpy())

    def per_channel(tensor: Tensor | None) -> np.ndarray:
        padded = np.zeros(len(decay) * LANES, dtype=np.float32)
        if tensor is not None:
            padded[:n_channels] = array(tensor)
        return padded

    y = np.empty((n_cells, n_channels, length), dtype=np.float32)
    gate = np.empty((0, 0, 0), dtype=np.float32) if z is None else array(z)
    inputs = (array(u), array(delta), decay, array(B), array(C), per_channel(D), gate, per_channel(delta_bias))
    with torch_threads():
        _scan_all(*inputs, delta_softplus, y)
    return torch.from_numpy(y).to(u.dtype)
