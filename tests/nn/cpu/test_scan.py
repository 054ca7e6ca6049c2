"""The compiled selective scan against the recurrence and the released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scfound_atac.nn.cpu.scan import selective_scan_numba


def step_by_step(u, delta, A, B, C, D=None, z=None, delta_bias=None, *, delta_softplus=False):
    """The recurrence as written, in float64."""
    u, delta, A, B, C = (t.double() for t in (u, delta, A, B, C))
    dt = delta if delta_bias is None else delta + delta_bias.double()[:, None]
    dt = F.softplus(dt) if delta_softplus else dt
    decay = torch.exp(dt[..., None] * A[:, None]).numpy()  # (b, d, l, n)
    drive = ((dt * u)[..., None] * B.transpose(1, 2)[:, None]).numpy()
    for t in range(1, u.shape[2]):
        drive[:, :, t] += decay[:, :, t] * drive[:, :, t - 1]
    y = (torch.from_numpy(drive) * C.transpose(1, 2)[:, None]).sum(-1)
    y = y if D is None else y + D.double()[:, None] * u
    return y if z is None else y * F.silu(z.double())


def random_inputs(n_channels: int, n_states: int, length: int, n_cells: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    channels, states = (n_cells, n_channels, length), (n_cells, n_states, length)
    return {
        "u": normal(*channels),
        "delta": normal(*channels),
        "A": -torch.rand(n_channels, n_states, generator=generator) * 4,
        "B": normal(*states),
        "C": normal(*states),
        "D": normal(n_channels),
        "z": normal(*channels),
        "delta_bias": normal(n_channels),
    }


@pytest.mark.parametrize(
    ("n_channels", "n_states", "length"),
    [(64, 16, 300), (64, 16, 64), (5, 3, 7), (24, 8, 65), (16, 1, 1), (17, 33, 130)],
)
@pytest.mark.parametrize("optional", [("D", "z", "delta_bias"), ("D",), ("z",), ()])
def test_equals_recurrence(n_channels: int, n_states: int, length: int, optional: tuple[str, ...]) -> None:
    inputs = random_inputs(n_channels, n_states, length)
    chosen = {key: inputs[key] for key in ("u", "delta", "A", "B", "C", *optional)}
    expected = step_by_step(**chosen, delta_softplus=True)
    y = selective_scan_numba(**chosen, delta_softplus=True)
    torch.testing.assert_close(y.double(), expected, atol=2e-6 * float(expected.abs().max()), rtol=0)


def test_without_softplus() -> None:
    inputs = random_inputs(16, 4, 100)
    inputs["delta"], inputs["delta_bias"] = inputs["delta"].abs(), inputs["delta_bias"].abs()
    expected = step_by_step(**inputs)
    torch.testing.assert_close(
        selective_scan_numba(**inputs).double(), expected, atol=2e-6 * float(expected.abs().max()), rtol=0
    )


def test_long_memory() -> None:
    """Small steps: the state remembers thousands of steps, so an error of the decay would build up."""
    inputs = random_inputs(16, 16, 4000, n_cells=1)
    inputs["delta_bias"] = torch.full((16,), -7.0)
    inputs["delta"], inputs["B"] = inputs["delta"] * 0.1, inputs["B"].abs()
    inputs["u"] = inputs["u"].abs()
    expected = step_by_step(**inputs, delta_softplus=True)
    y = selective_scan_numba(**inputs, delta_softplus=True)
    torch.testing.assert_close(y.double(), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_equals_released_code(oracle_dir) -> None:
    case = {key: torch.from_numpy(array) for key, array in np.load(oracle_dir / "selective_scan.npz").items()}
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    y = selective_scan_numba(*(case[name] for name in names), delta_softplus=True)
    torch.testing.assert_close(y, case["y"], atol=1e-5, rtol=0)


def test_inputs_stay_and_strides_do_not_matter() -> None:
    inputs = random_inputs(24, 6, 90)
    strided = {key: t.transpose(1, 2).contiguous().transpose(1, 2) if t.ndim == 3 else t for key, t in inputs.items()}
    before = {key: t.clone() for key, t in strided.items()}
    y = selective_scan_numba(**strided, delta_softplus=True)
    assert torch.equal(y, selective_scan_numba(**inputs, delta_softplus=True))
    assert all(torch.equal(strided[key], before[key]) for key in before)


def test_dtype_of_u_is_kept() -> None:
    inputs = {key: t.bfloat16() for key, t in random_inputs(16, 4, 20).items()}
    assert selective_scan_numba(**inputs, delta_softplus=True).dtype == torch.bfloat16


def test_empty_sequence() -> None:
    assert selective_scan_numba(**random_inputs(16, 4, 0), delta_softplus=True).shape == (2, 16, 0)
