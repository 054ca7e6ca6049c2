"""The selective scan of Mamba-1, with several back ends.

``torch`` is differentiable, runs everywhere and defines the result; ``numba`` is the fast CPU path; ``cuda`` is the
compiled kernel of ``mamba-ssm``, used only when the kernel itself (not just the Python package) can be imported.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch

from ..._logging import logger
from ._torch import selective_scan_torch, selective_scan_torch_from

if TYPE_CHECKING:
    from torch import Tensor

    Backend = Literal["auto", "torch", "numba", "cuda"]

__all__ = ["available_backends", "scan_from", "selective_scan", "selective_scan_torch"]


@cache
def _cuda_kernel_importable() -> bool:
    """Whether the compiled Mamba-1 kernel can be loaded; recent versions of ``mamba-ssm`` may be installed without it."""
    if find_spec("mamba_ssm") is None or find_spec("selective_scan_cuda") is None:
        return False
    try:
        import selective_scan_cuda  # noqa: F401
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        logger.debug("mamba-ssm is installed but its CUDA kernel does not load: %s", error)
        return False
    return True


def available_backends() -> tuple[str, ...]:
    """Names of the back ends that can run on this machine, the reference first."""
    names = ["torch", "numba"]
    if torch.cuda.is_available() and _cuda_kernel_importable():
        names.append("cuda")
    return tuple(names)


@cache
def _report(backend: str, device_type: str) -> None:
    logger.debug("selective scan on %s: %s back end", device_type, backend)


# The compiled backward pass holds one state per SIMD lane.
_NUMBA_GRAD_STATES = 16


def _numba_runs(u: Tensor, n_states: int, *, needs_grad: bool) -> bool:
    return u.device.type == "cpu" and (not needs_grad or n_states == _NUMBA_GRAD_STATES)


def _choose(u: Tensor, n_states: int, *, needs_grad: bool) -> str:
    if u.is_cuda and _cuda_kernel_importable():
        return "cuda"
    return "numba" if _numba_runs(u, n_states, needs_grad=needs_grad) else "torch"


def selective_scan(
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
    backend: Backend = "auto",
) -> Tensor:
    """Selective state-space scan (Mamba, section 3.2; ChromFound section 3.2.2).

    For every cell and channel, with step ``dt = delta + delta_bias`` (after softplus if `delta_softplus`), the state
    ``h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]`` is read out as ``y[t] = C[t] . h[t] + D u[t]`` and gated by ``SiLU(z[t])``.

    Parameters
    ----------
    u, delta
        Input and step size, shape (batch, channel, length).
    A
        State decay, shape (channel, state); negative in Mamba.
    B, C
        Input and output projections, shape (batch, state, length).
    D
        Skip connection, shape (channel,).
    z
        Gate, shape (batch, channel, length).
    delta_bias
        Added to ``delta``, shape (channel,).
    delta_softplus
        Apply softplus to the step size.
    backend
        ``"auto"`` uses the compiled CUDA kernel if it can be loaded, numba on the CPU (with gradients only for 16 states per channel, the
        released size), and torch otherwise.

    Returns
    -------
    ``y``, shape (batch, channel, length), in the dtype of ``u``.

    Raises
    ------
    ValueError
        If the back end is unknown or cannot run on this machine.
    """
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    name = _choose(u, A.shape[1], needs_grad=needs_grad) if backend == "auto" else backend
    if name not in ("torch", "numba", "cuda"):
        msg = f"Unknown selective scan back end {backend!r}; use one of 'auto', 'torch', 'numba', 'cuda'."
        raise ValueError(msg)
    if name == "cuda" and not (u.is_cuda and _cuda_kernel_importable()):
        msg = "The CUDA scan kernel is not available here. Use backend='auto', or `pip install scfound-atac[cuda]` on a CUDA machine."
        raise ValueError(msg)
    if name == "numba" and not _numba_runs(u, A.shape[1], needs_grad=needs_grad):
        msg = f"The numba scan runs on CPU, with gradients for {_NUMBA_GRAD_STATES} states per channel. Use backend='torch'."
        raise ValueError(msg)
    _report(name, u.device.type)
    if name == "cuda":
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        return selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    if name == "numba" and needs_grad:
        from ..cpu.scan_grad import selective_scan_numba_grad

        return selective_scan_numba_grad(u, delta, A, B, C, D, z, delta_bias, delta_softplus=delta_softplus)
    if name == "numba":
        from ..cpu.scan import selective_scan_numba

        return selective_scan_numba(u, delta, A, B, C, D, z, delta_bias, delta_softplus=delta_softplus)
    return selective_scan_torch(u, delta, A, B, C, D, z, delta_bias, delta_softplus=delta_softplus)


@torch.no_grad()
def scan_from(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The scan of parts of sequences that begins at given states, without gradients; a step of length 0 leaves the state as it is.

    Parameters
    ----------
    u, delta, z
        Input, step size (what softplus gives) and gate, shape (batch, length, channel).
    A, D
        As in `selective_scan`.
    B, C
        Input and output projections, shape (batch, length, state).
    state
        The state before the first step, shape (batch, channel, state).

    Returns
    -------
    ``y``, shape (batch, length, channel), and the state after the last step.
    """
    n_channels, n_states = A.shape
    if not _numba_runs(u, n_states, needs_grad=False) or n_channels % 16:  # compiled channels come in groups of 16
        return selective_scan_torch_from(u, delta, A, B, C, D, z, state)
    from ..cpu.scan import pack_decay, scan_tokens_from, torch_threads

    y = u.contiguous().clone()
    grouped = state.unflatten(1, (-1, 16)).transpose(2, 3).flatten(2).contiguous().clone()  # (b, groups, n * 16)
    bc = torch.cat([B, C], dim=-1)
    with torch_threads():
        scan_tokens_from(
            y.numpy(),
            delta.contiguous().numpy(),
            bc.numpy(),
            pack_decay(A),
            D.detach().numpy(),
            z.contiguous().numpy(),
            grouped.numpy(),
        )
    return y, grouped.unflatten(2, (n_states, 16)).transpose(2, 3).flatten(1, 2)
