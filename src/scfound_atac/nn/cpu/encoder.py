"""ChromFound's forward pass on CPU: each step of an encoder layer as one numba kernel, without gradients.

The plain network (:mod:`scfound_atac.nn.chromfound`) moves every intermediate (B, L, D) tensor through memory some thirty times per
layer. Here a thread takes one attention window at a time and carries it from the residual to the input of the Mamba scan while it sits
in the core's own cache; only the residual and what the scan reads are written out. Three kernels per layer:

1. `_window_pass`   residual -> RMSNorm -> WPSA block -> down -> in_proj     parallel over cells x windows
2. `_conv_pass`     causal convolution, SiLU, x_proj, dt_proj, softplus      parallel over cells x blocks of OCRs
3. `scan_tokens`    selective scan, skip, gate                               parallel over cells x groups of 16 channels

and out_proj -> up -> residual happen at the start of the next `_window_pass`, or in `_final_pass`.

Letters as in `chromfound`: B cells, L OCRs, D width, W window, H heads, d inner channels, n states. Buffers are C-contiguous float32
and addressed by flat offsets; a matrix product writes whole groups of 32 columns, so buffers it writes have row strides that are
multiples of 32 (`_stride`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
import torch
from numba import njit, prange

from .scan import pack_decay, scan_tokens, torch_threads
from .simd import (
    LANES,
    TILE_ROWS,
    exp2,
    fma,
    gelu,
    lane_sum,
    load,
    matmul_tile_32,
    matmul_tile_48,
    maximum,
    silu,
    softplus,
    splat,
    store,
    transpose,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..chromfound import ChromFoundNet

PANEL = 2 * LANES  # columns of a packed weight that one tile covers
KEY_BLOCK = 64  # keys whose contributions are summed at a time
CONV_ROWS = 128  # OCRs a thread convolves at a time
_LOG2E = 1.4426950408889634
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


def _stride(n: int) -> int:
    return -(-n // PANEL) * PANEL


# A packed linear layer is one array (panels, 1 + n_in, 32): 32 output columns per panel, bias first, padded with zeros. The weights of a
# kernel are a flat NamedTuple of arrays, the one kind of structure that numba hands to the threads of a prange.


class WindowWeights(NamedTuple):
    """Weights of `_window_pass`."""

    out_proj: np.ndarray  # of the layer before
    up: np.ndarray  # of the layer before
    norm: np.ndarray  # (D,) RMSNorm
    qkv: np.ndarray  # (H, 1 + D, 3 P): per head the columns of q, k, v, each padded to P, a multiple of 16; bias first
    proj: np.ndarray
    norm1: np.ndarray  # (2, D) weight and bias of a LayerNorm
    fc1: np.ndarray
    fc2: np.ndarray
    norm2: np.ndarray  # (2, D)
    down: np.ndarray
    in_proj: np.ndarray


class ConvWeights(NamedTuple):
    """Weights of `_conv_pass`."""

    conv: np.ndarray  # (width, d)
    conv_bias: np.ndarray  # (d,)
    x_proj: np.ndarray
    dt: np.ndarray  # (dt_rank, d)
    dt_bias: np.ndarray  # (d,)


class Scratch(NamedTuple):
    """Intermediate values of one window, (threads, ...): small enough for the cache of a core."""

    h: np.ndarray  # (threads, W * stride(D))
    a: np.ndarray  # (threads, W * stride(D, d_mlp, 2 d))
    b: np.ndarray  # (threads, W * stride(D, d_mlp, 2 d))
    head: np.ndarray  # (threads, W * 3 P)
    scores: np.ndarray  # (threads, W * 32)
    small: np.ndarray  # (threads, (P + P + 8) * 32)


@njit
def _linear(x: Any, x_stride: int, layer: Any, y: Any, n_rows: int) -> None:
    """``y[:n_rows] = x[:n_rows] @ weight + bias``, y with row stride `_columns(layer)`.

    `n_rows` is rounded up to a multiple of `TILE_ROWS` (2 or 8), so x and y must have that many rows.
    """
    n_panels, n_in, y_stride = layer.shape[0], layer.shape[1] - 1, layer.shape[0] * PANEL
    for panel in range(n_panels):
        bias = panel * (n_in + 1) * PANEL
        for row in range(0, n_rows, TILE_ROWS):
            matmul_tile_32(
                x, row * x_stride, x_stride, 1,
                layer, bias + PANEL, PANEL,
                layer, bias,
                y, row * y_stride + panel * PANEL, y_stride, n_in,
            )  # fmt: skip


@njit
def _columns(layer: Any) -> int:
    """Columns a packed layer writes, padding included: the row stride of its output."""
    return layer.shape[0] * PANEL


@njit
def _rms_norm(x: Any, x0: int, weight: Any, y: Any, y0: int, width: int) -> None:
    """RMSNorm of one token, eps 1e-5."""
    squares = splat(_ZERO)
    for i in range(0, width, LANES):
        value = load(x, x0 + i)
        squares = fma(value, value, squares)
    scale = splat(_ONE / np.sqrt(lane_sum(squares) / np.float32(width) + np.float32(1e-5)))
    for i in range(0, width, LANES):
        store(y, y0 + i, load(x, x0 + i) * scale * load(weight, i))


@njit
def _add_layer_norm(h: Any, x: Any, x_stride: int, norm: Any, stride: int, width: int, n_rows: int) -> None:
    """``h += LayerNorm(x)`` for `n_rows` tokens, eps 1e-5."""
    for row in range(n_rows):
        x0, h0 = row * x_stride, row * stride
        total = splat(_ZERO)
        for i in range(0, width, LANES):
            total = total + load(x, x0 + i)
        mean = splat(lane_sum(total) / np.float32(width))
        squares = splat(_ZERO)
        for i in range(0, width, LANES):
            centred = load(x, x0 + i) - mean
            squares = fma(centred, centred, squares)
        scale = splat(_ONE / np.sqrt(lane_sum(squares) / np.float32(width) + np.float32(1e-5)))
        for i in range(0, width, LANES):
            y = fma((load(x, x0 + i) - mean) * scale, load(norm, i), load(norm, width + i))
            store(h, h0 + i, load(h, h0 + i) + y)


@njit
def _highest(scores: Any, column: int, window: int) -> Any:
    """Largest score of 16 queries; four chains, as one would wait for itself."""
    a, b = load(scores, column), load(scores, column + PANEL)
    c, d = load(scores, column + 2 * PANEL), load(scores, column + 3 * PANEL)
    for key in range(4, window, 4):
        a = maximum(a, load(scores, key * PANEL + column))
        b = maximum(b, load(scores, (key + 1) * PANEL + column))
        c = maximum(c, load(scores, (key + 2) * PANEL + column))
        d = maximum(d, load(scores, (key + 3) * PANEL + column))
    return maximum(maximum(a, b), maximum(c, d))


@njit
def _attend_head(
    head: Any,
    width: int,
    window: int,
    scores: Any,
    small: Any,
    zeros: Any,
    out: Any,
    out0: int,
    out_stride: int,
    n_out: int,
) -> None:
    """Softmax attention of one head of one window, 32 queries (one per lane) at a time.

    `head` is (W, 3 * width): q (already times ``log2(e) / sqrt(D / H)``), k, v. `scores` holds S^T (keys x 32 queries), `small`
    holds q^T, o^T (width x 32 each) and a tile that is added to o^T. Padded lanes and columns compute numbers that nobody reads.
    """
    row = 3 * width
    o0 = width * PANEL
    for query in range(0, window, PANEL):
        n_queries = min(PANEL, window - query)
        for q in range(0, n_queries, LANES):
            for i in range(0, width, LANES):
                transpose(head, (query + q) * row + i, row, small, i * PANEL + q, PANEL)
        for key in range(0, window, TILE_ROWS):
            matmul_tile_32(
                head, key * row + width, row, 1, small, 0, PANEL, zeros, 0, scores, key * PANEL, PANEL, width
            )
        highest0, highest1 = _highest(scores, 0, window), _highest(scores, LANES, window)
        total0, total1 = splat(_ZERO), splat(_ZERO)
        for i in range(width):
            store(small, o0 + i * PANEL, splat(_ZERO))
            store(small, o0 + i * PANEL + LANES, splat(_ZERO))
        # sums over a block of keys, then over blocks: many keys may be alike, and one long sum would lose a digit
        for first in range(0, window, KEY_BLOCK):
            n_keys = min(KEY_BLOCK, window - first)
            part0, part1 = splat(_ZERO), splat(_ZERO)
            for key in range(first, first + n_keys):
                p0 = exp2(load(scores, key * PANEL) - highest0)
                p1 = exp2(load(scores, key * PANEL + LANES) - highest1)
                store(scores, key * PANEL, p0)
                store(scores, key * PANEL + LANES, p1)
                part0 = part0 + p0
                part1 = part1 + p1
            total0 = total0 + part0
            total1 = total1 + part1
            for i in range(0, width, TILE_ROWS):
                matmul_tile_32(
                    head, first * row + 2 * width + i, 1, row,
                    scores, first * PANEL, PANEL,
                    zeros, 0,
                    small, 2 * o0, PANEL, n_keys,
                )  # fmt: skip
                for k in range(0, TILE_ROWS * PANEL, LANES):
                    o = o0 + i * PANEL + k
                    store(small, o, load(small, o) + load(small, 2 * o0 + k))
        inverse0, inverse1 = splat(_ONE) / total0, splat(_ONE) / total1
        for i in range(n_out):
            store(small, o0 + i * PANEL, load(small, o0 + i * PANEL) * inverse0)
            store(small, o0 + i * PANEL + LANES, load(small, o0 + i * PANEL + LANES) * inverse1)
        for q in range(0, n_queries, LANES):
            for i in range(0, n_out, LANES):
                first = out0 + (query + q) * out_stride + i
                if n_out - i >= LANES:
                    transpose(small, o0 + i * PANEL + q, PANEL, out, first, out_stride)
                else:
                    for j in range(LANES):
                        for k in range(n_out - i):
                            out[first + j * out_stride + k] = small[o0 + (i + k) * PANEL + q + j]


@njit
def _attention(
    h: Any, stride: int, d_model: int, weights: Any, window: int, scratch: Any, out: Any, thread: int, zeros: Any
) -> None:
    """All heads of one window: qkv projection and softmax attention, (W, D) -> (W, D)."""
    head, scores, small = scratch.head[thread], scratch.scores[thread], scratch.small[thread]
    n_heads, row = weights.qkv.shape[0], weights.qkv.shape[2]
    width = row // 3
    for i in range(n_heads):
        for column in range(0, row, 3 * LANES):
            for token in range(0, window, TILE_ROWS):
                matmul_tile_48(
                    h, token * stride, stride, 1,
                    weights.qkv, (i * (d_model + 1) + 1) * row + column, row,
                    weights.qkv, i * (d_model + 1) * row + column,
                    head, token * row + column, row, d_model,
                )  # fmt: skip
        _attend_head(
            head, width, window, scores, small, zeros, out, i * (d_model // n_heads), stride, d_model // n_heads
        )


@njit
def _add_mixed(
    residual: Any, y: Any, token0: int, n_rows: int, d_model: int, d_inner: int, out_proj: Any, up: Any, a: Any, b: Any
) -> None:
    """``residual += up(out_proj(y))`` for consecutive tokens; up to 7 rows more are computed and dropped."""
    wide = _columns(up)
    for i in range(0, n_rows * d_inner, LANES):
        store(a, i, load(y, token0 * d_inner + i))
    _linear(a, d_inner, out_proj, b, n_rows)
    _linear(b, _columns(out_proj), up, a, n_rows)
    for row in range(n_rows):
        for i in range(0, d_model, LANES):
            offset = (token0 + row) * d_model + i
            store(residual, offset, load(residual, offset) + load(a, row * wide + i))


@njit
def _one_window(
    residual: Any,
    y: Any,
    xz: Any,
    weights: Any,
    scratch: Any,
    zeros: Any,
    thread: int,
    index: int,
    window: int,
    shift: int,
    is_first: bool,
) -> None:
    n_cells, length, d_model = residual.shape
    d_inner = y.shape[2]
    n_windows = -(-length // window)
    cell, position = index // n_windows, index % n_windows * window + shift
    h, a, b = scratch.h[thread], scratch.a[thread], scratch.b[thread]
    stride, wide, mlp = _columns(weights.proj), _columns(weights.in_proj), _columns(weights.fc1)
    padded = n_windows * window

    # a window is one or two runs of consecutive tokens (the last one wraps round) with padding between them
    run1 = max(0, min(window, length - position))
    skip = max(0, padded - position)
    run2 = max(0, window - skip)
    first1, first2 = cell * length + position, cell * length + max(0, position - padded)
    if not is_first:
        _add_mixed(residual, y, first1, run1, d_model, d_inner, weights.out_proj, weights.up, a, b)
        _add_mixed(residual, y, first2, run2, d_model, d_inner, weights.out_proj, weights.up, a, b)
    for row in range(run1):
        _rms_norm(residual, (first1 + row) * d_model, weights.norm, h, row * stride, d_model)
    for row in range(run1, window - run2):
        for i in range(d_model):
            h[row * stride + i] = _ZERO
    for row in range(run2):
        _rms_norm(residual, (first2 + row) * d_model, weights.norm, h, (window - run2 + row) * stride, d_model)

    _attention(h, stride, d_model, weights, window, scratch, a, thread, zeros)
    _linear(a, stride, weights.proj, b, window)
    _add_layer_norm(h, b, stride, weights.norm1, stride, d_model, window)
    _linear(h, stride, weights.fc1, a, window)
    for i in range(0, window * mlp, LANES):
        store(a, i, gelu(load(a, i)))
    _linear(a, mlp, weights.fc2, b, window)
    _add_layer_norm(h, b, stride, weights.norm2, stride, d_model, window)
    _linear(h, stride, weights.down, a, window)
    _linear(a, _columns(weights.down), weights.in_proj, b, window)
    for row in range(run1):
        for i in range(0, 2 * d_inner, LANES):
            store(xz, (first1 + row) * 2 * d_inner + i, load(b, row * wide + i))
    for row in range(run2):
        for i in range(0, 2 * d_inner, LANES):
            store(xz, (first2 + row) * 2 * d_inner + i, load(b, (window - run2 + row) * wide + i))


@njit(parallel=True, cache=True)
def _window_pass(
    residual: Any, y: Any, xz: Any, weights: Any, scratch: Any, zeros: Any, window: int, shift: int, is_first: bool
) -> None:
    """residual (B, L, D), to which y (B, L, d) of the layer before is added -> xz (B, L, 2 d): convolution input and gate."""
    n_cells, length, d_model = residual.shape
    for index in prange(n_cells * -(-length // window)):
        _one_window(residual, y, xz, weights, scratch, zeros, numba.get_thread_id(), index, window, shift, is_first)


@njit
def _one_conv_block(
    xz: Any, weights: Any, u: Any, delta: Any, bc: Any, cell: int, first: int, rows: Any, projected: Any
) -> None:
    n_cells, length, d_inner = u.shape
    rank, n_bc, stride = weights.dt.shape[0], bc.shape[2], _columns(weights.x_proj)
    n_rows = min(CONV_ROWS, length - first)
    width = weights.conv.shape[0]
    for row in range(n_rows):
        token = cell * length + first + row
        n_taps = min(width, first + row + 1)
        for i in range(0, d_inner, LANES):
            total = load(weights.conv_bias, i)
            for tap in range(n_taps):
                total = fma(
                    load(xz, (token - tap) * 2 * d_inner + i),
                    load(weights.conv, (width - 1 - tap) * d_inner + i),
                    total,
                )
            total = silu(total)
            store(rows, row * d_inner + i, total)
            store(u, token * d_inner + i, total)
    _linear(rows, d_inner, weights.x_proj, projected, n_rows)
    for row in range(n_rows):
        token = cell * length + first + row
        for i in range(0, d_inner, LANES):
            step = load(weights.dt_bias, i)
            for j in range(rank):
                step = fma(splat(projected[row * stride + j]), load(weights.dt, j * d_inner + i), step)
            store(delta, token * d_inner + i, softplus(step))
        for i in range(n_bc):
            bc[cell, first + row, i] = projected[row * stride + rank + i]


@njit(parallel=True, cache=True)
def _conv_pass(xz: Any, weights: Any, u: Any, delta: Any, bc: Any, rows: Any, projected: Any) -> None:
    """xz (B, L, 2 d) -> what the scan reads: u and delta (B, L, d), bc (B, L, 2 n)."""
    n_cells, length, d_inner = u.shape
    n_blocks = -(-length // CONV_ROWS)
    for index in prange(n_cells * n_blocks):
        thread = numba.get_thread_id()
        cell, first = index // n_blocks, index % n_blocks * CONV_ROWS
        _one_conv_block(xz, weights, u, delta, bc, cell, first, rows[thread], projected[thread])


@njit(parallel=True, cache=True)
def _final_pass(residual: Any, y: Any, out_proj: Any, up: Any, norm: Any, a: Any, b: Any) -> None:
    """residual (B, L, D) -> hidden states, in place: add the last layer's output, then RMSNorm."""
    n_cells, length, d_model = residual.shape
    n_blocks = -(-length // CONV_ROWS)
    for index in prange(n_cells * n_blocks):
        thread = numba.get_thread_id()
        first = index % n_blocks * CONV_ROWS
        token, n_rows = index // n_blocks * length + first, min(CONV_ROWS, length - first)
        _add_mixed(residual, y, token, n_rows, d_model, y.shape[2], out_proj, up, a[thread], b[thread])
        for row in range(n_rows):
            _rms_norm(residual, (token + row) * d_model, norm, residual, (token + row) * d_model, d_model)


# Packing: torch parameters -> the arrays above. Well under a millisecond per layer, so it is done at every call and never goes stale.


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)


def _pack(weight: Tensor, bias: Tensor | None) -> np.ndarray:
    n_out, n_in = weight.shape
    padded = np.zeros((1 + n_in, _stride(n_out)), dtype=np.float32)
    if bias is not None:
        padded[0, :n_out] = _numpy(bias)
    padded[1:, :n_out] = _numpy(weight).T
    return np.ascontiguousarray(padded.reshape(1 + n_in, -1, PANEL).transpose(1, 0, 2))


def _pack_qkv(weight: Tensor, bias: Tensor, n_heads: int) -> np.ndarray:
    d_model = weight.shape[1]
    width = d_model // n_heads
    padded_width = -(-width // LANES) * LANES
    both = np.concatenate([_numpy(bias)[:, None], _numpy(weight)], axis=1).reshape(3, n_heads, width, d_model + 1)
    both[0] *= _LOG2E / np.sqrt(width)  # softmax(x) = 2^(x log2(e)) / sum
    padded = np.zeros((n_heads, d_model + 1, 3, padded_width), dtype=np.float32)
    padded[..., :width] = both.transpose(1, 3, 0, 2)
    return padded.reshape(n_heads, d_model + 1, 3 * padded_width)


def _pack_window(layer: Any, before: Any, n_heads: int) -> WindowWeights:
    block = layer.wpsa
    return WindowWeights(
        out_proj=_pack(before.mamba.out_proj.weight, None),
        up=_pack(before.up.weight, before.up.bias),
        norm=_numpy(layer.norm.weight),
        qkv=_pack_qkv(block.attn.qkv.weight, block.attn.qkv.bias, n_heads),
        proj=_pack(block.attn.proj.weight, block.attn.proj.bias),
        norm1=np.stack([_numpy(block.norm1.weight), _numpy(block.norm1.bias)]),
        fc1=_pack(block.mlp.fc1.weight, block.mlp.fc1.bias),
        fc2=_pack(block.mlp.fc2.weight, block.mlp.fc2.bias),
        norm2=np.stack([_numpy(block.norm2.weight), _numpy(block.norm2.bias)]),
        down=_pack(layer.down.weight, layer.down.bias),
        in_proj=_pack(layer.mamba.in_proj.weight, None),
    )


def _pack_conv(layer: Any) -> ConvWeights:
    mamba = layer.mamba
    return ConvWeights(
        conv=_numpy(mamba.conv1d.weight[:, 0].T),
        conv_bias=_numpy(mamba.conv1d.bias),
        x_proj=_pack(mamba.x_proj.weight, None),
        dt=_numpy(mamba.dt_proj.weight.T),
        dt_bias=_numpy(mamba.dt_proj.bias),
    )


def supports(net: ChromFoundNet, residual: Tensor) -> bool:
    """Whether `encode` supports these sizes and types: float32 on the CPU, without gradient, with widths that fill the lanes."""
    # a shorter sequence is one window of its own size
    return residual.shape[1] > net.config.window_size and supports_windows(net, residual)


def supports_windows(net: ChromFoundNet, tokens: Tensor) -> bool:
    """Whether `mix_windows` supports these sizes and types; see `supports`."""
    config = net.config
    return (
        not torch.is_grad_enabled()
        and not numba.config.DISABLE_JIT
        and tokens.dtype == torch.float32
        and tokens.shape[0] > 0
        and config.window_size % LANES == 0
        and config.d_model % LANES == 0
        and config.expand * config.d_low % LANES == 0
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in net.parameters())
    )


def encode(net: ChromFoundNet, residual: Tensor) -> Tensor:
    """All encoder layers and the final norm: embedded tokens (B, L, D) -> hidden states (B, L, D), written over `residual`.

    Same result as the plain layers up to float32 rounding (about 1e-6). Besides `residual` it holds 4 d + 2 n numbers per token.
    """
    with torch_threads() as n_threads:
        _encode(net, residual.numpy(), n_threads)
    return residual


def mix_windows(net: ChromFoundNet, layer: Any, tokens: Tensor) -> Tensor:
    """One layer up to the convolution, for windows of `net.config.window_size` by themselves: (n, W, D) -> (n, W, 2 d)."""
    config = net.config
    x, d_inner = tokens.contiguous().numpy(), config.expand * config.d_low
    mixed = np.empty((*x.shape[:2], 2 * d_inner), dtype=np.float32)
    before = np.empty((*x.shape[:2], d_inner), dtype=np.float32)  # only its width is read
    zeros = np.zeros(PANEL, dtype=np.float32)
    with torch_threads() as n_threads:
        scratch = _scratch(net, n_threads)
        weights = _pack_window(layer, layer, config.n_heads)
        _window_pass(x, before, mixed, weights, scratch, zeros, config.window_size, 0, True)
    return torch.from_numpy(mixed)


def _scratch(net: ChromFoundNet, n_threads: int) -> Scratch:
    config = net.config
    d_model, d_inner, window = config.d_model, config.expand * config.d_low, config.window_size
    padded_head = -(-(d_model // config.n_heads) // LANES) * LANES

    def buffer(*shape: int) -> np.ndarray:
        return np.zeros((n_threads, *shape), dtype=np.float32)

    widest = max(_stride(n) for n in (d_model, config.d_mlp, config.d_low, 2 * d_inner))
    n_rows = max(window, CONV_ROWS)
    return Scratch(
        h=buffer(window * _stride(d_model)),
        a=buffer(n_rows * widest),
        b=buffer(n_rows * widest),
        head=buffer(window * 3 * padded_head),
        scores=buffer(window * PANEL),
        small=buffer((2 * padded_head + TILE_ROWS) * PANEL),
    )


def _encode(net: ChromFoundNet, x: np.ndarray, n_threads: int) -> None:
    config = net.config
    n_cells, length, _ = x.shape
    d_inner, window = config.expand * config.d_low, config.window_size
    scratch = _scratch(net, n_threads)
    zeros = np.zeros(PANEL, dtype=np.float32)
    projected = np.zeros((n_threads, CONV_ROWS * _stride(config.dt_rank + 2 * config.d_state)), dtype=np.float32)
    xz = np.empty((n_cells, length, 2 * d_inner), dtype=np.float32)
    u, delta = np.empty((2, n_cells, length, d_inner), dtype=np.float32)
    bc = np.empty((n_cells, length, 2 * config.d_state), dtype=np.float32)

    layers: list[Any] = list(net.layers)
    before = layers[0]
    for index, layer in enumerate(layers):
        weights = _pack_window(layer, before, config.n_heads)
        _window_pass(x, u, xz, weights, scratch, zeros, window, config.shift_size, index == 0)
        _conv_pass(xz, _pack_conv(layer), u, delta, bc, scratch.a, projected)
        decay = pack_decay(-torch.exp(layer.mamba.A_log.detach()))
        scan_tokens(u, delta, bc, decay, _numpy(layer.mamba.D), xz, d_inner, 2 * d_inner)
        before = layer
    out_proj, up = _pack(before.mamba.out_proj.weight, None), _pack(before.up.weight, before.up.bias)
    _final_pass(x, u, out_proj, up, _numpy(net.norm.weight), scratch.a, scratch.b)
