"""Reference selective scan: plain torch, differentiable, memory bounded by a chunk.

A chunk of length T is cut into S segments of K steps, S and K near sqrt(T). All segments advance together from a zero state
(K steps); then the states at the segment borders are chained (S steps) and their decayed contribution is added. So a chunk costs
S + K small steps instead of T, and nothing of shape (batch, channel, length, state) exists beyond one chunk.

Letters: b batch, d channel, l length, n state, s segment, k step in a segment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

# Elements of one (batch, channel, chunk, state) tensor: cache-sized on CPU; on a GPU large, because small steps are launches.
_CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}
_MIN_CHUNK = 256


def selective_scan_torch(
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
    chunk_size: int | None = None,
) -> Tensor:
    """Selective scan in fp32 with autograd; shapes as in `scfound_atac.nn.selective_scan`, `chunk_size` in OCRs."""
    dtype = u.dtype
    u, delta, A, B, C = (t.float() for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.float()[:, None]
    if delta_softplus:
        delta = F.softplus(delta)

    if chunk_size is None:
        budget = _CHUNK_ELEMENTS.get(u.device.type, _CHUNK_ELEMENTS["cpu"])
        chunk_size = max(_MIN_CHUNK, budget // max(1, u.shape[0] * A.numel()))
    state = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])  # (b, d, n)
    outputs = []
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (u, delta, A, B, C))
    for first in range(0, u.shape[2], chunk_size):
        part = slice(first, first + chunk_size)
        arguments = (u[..., part], delta[..., part], A, B[..., part], C[..., part], state)
        # Recomputing a chunk in the backward pass keeps one chunk's states in memory instead of all of them.
        y, state = checkpoint(_scan_chunk, *arguments, use_reentrant=False) if needs_grad else _scan_chunk(*arguments)
        outputs.append(y)
    y = torch.cat(outputs, dim=2) if outputs else torch.zeros_like(u)
    if D is not None:
        y = y + D.float()[:, None] * u
    if z is not None:
        y = y * F.silu(z.float())
    return y.to(dtype)


def selective_scan_torch_from(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """See `scfound_atac.nn.selective_scan.scan_from`."""
    y, state = _scan_chunk(u.transpose(1, 2), delta.transpose(1, 2), A, B.transpose(1, 2), C.transpose(1, 2), state)
    return (y.transpose(1, 2) + D * u) * F.silu(z), state


def _scan_chunk(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Scan (b, d, l) from `state` (b, d, n); returns the read-out (b, d, l) and the last state."""
    length = u.shape[2]
    n_steps = max(1, math.isqrt(length))
    n_segments = -(-length // n_steps)
    padding = n_segments * n_steps - length  # dt = 0 leaves the state as it is

    def segments(x: Tensor) -> Tensor:  # (b, x, l) -> (k, b, x, s): one step of all segments lies together in memory
        return F.pad(x, (0, padding)).unflatten(2, (n_segments, n_steps)).permute(3, 0, 1, 2)

    delta, delta_u, B, C = segments(delta), segments(delta * u), segments(B), segments(C)
    decay = torch.exp(delta[..., None] * A[:, None, :])  # (k, b, d, s, n)
    drive = delta_u[..., None] * B.transpose(2, 3)[:, :, None]  # (k, b, d, s, n)

    local = torch.zeros_like(drive[0])  # (b, d, s, n)
    local_states = []
    for a, b in zip(decay.unbind(0), drive.unbind(0), strict=True):
        local = torch.addcmul(b, a, local)
        local_states.append(local)
    states = torch.stack(local_states)  # (k, b, d, s, n), each segment from zero

    # Decay from a segment's border to each of its steps; the exponent sums, so nothing under- or overflows on the way.
    reach = torch.exp(delta.cumsum(0)[..., None] * A[:, None, :])
    borders = []
    for a, h in zip(reach[-1].unbind(2), states[-1].unbind(2), strict=True):
        borders.append(state)
        state = torch.addcmul(h, a, state)
    states = torch.addcmul(states, reach, torch.stack(borders, dim=2))
    y = torch.einsum("kbdsn,kbns->bdsk", states, C)
    return y.flatten(2)[..., :length], state
