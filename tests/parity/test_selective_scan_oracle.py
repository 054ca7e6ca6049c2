"""The selective scan and its gradients against the released kernel's recurrence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scfound_atac.nn import selective_scan
from scfound_atac.nn.selective_scan import selective_scan_torch

INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
STATES = {"A": 1, "B": 1, "C": 1}  # inputs with a state axis, and which one it is


@pytest.fixture(scope="module")
def case(oracle_dir) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array) for key, array in np.load(oracle_dir / "selective_scan.npz").items()}


def leaves(case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: case[name].clone().requires_grad_() for name in INPUTS}


def check(y: torch.Tensor, inputs: dict[str, torch.Tensor], case: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(y.detach(), case["y"], atol=1e-5, rtol=0)
    (y * case["loss_weight"]).sum().backward()
    for name, tensor in inputs.items():
        torch.testing.assert_close(
            tensor.grad, case[f"grad_{name}"], atol=1e-4, rtol=0, msg=lambda m, n=name: f"grad_{n}: {m}"
        )


@pytest.mark.parametrize("chunk_size", [1, 7, 16, 35, 69, 70, 4096])
def test_torch(case: dict[str, torch.Tensor], chunk_size: int) -> None:
    inputs = leaves(case)
    check(selective_scan_torch(*inputs.values(), delta_softplus=True, chunk_size=chunk_size), inputs, case)


def test_auto(case: dict[str, torch.Tensor]) -> None:
    inputs = leaves(case)
    check(selective_scan(*inputs.values(), delta_softplus=True), inputs, case)


def test_numba(case: dict[str, torch.Tensor]) -> None:
    """The compiled gradients hold 16 states; states that B never feeds and C never reads change nothing."""
    inputs = leaves(case)
    padded = dict(inputs)
    for name, axis in STATES.items():
        pad = [0, 0] * (inputs[name].ndim - 1 - axis) + [0, 16 - inputs[name].shape[axis]]
        padded[name] = F.pad(inputs[name], pad)
    check(selective_scan(*padded.values(), delta_softplus=True, backend="numba"), inputs, case)


def test_numba_forward(case: dict[str, torch.Tensor]) -> None:
    y = selective_scan(*(case[name] for name in INPUTS), delta_softplus=True, backend="numba")
    torch.testing.assert_close(y, case["y"], atol=1e-5, rtol=0)
