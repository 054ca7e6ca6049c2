"""`precision="auto"` takes bf16 only where it leaves the differences between cells as they are: played through on a CPU."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from scfound_atac.hub import Checkpoint
from scfound_atac.inference.chromfound import Runner


def rounding(runner: Runner, noise: float) -> None:
    """Let bf16 be off by so much, relative to what differs between cells; nobody has said yet whether it is used."""
    forward, generator = runner._run, torch.Generator().manual_seed(0)

    def run(values: torch.Tensor, *, bf16: bool) -> torch.Tensor:
        exact = forward(values, bf16=False)
        scale = (exact - exact.mean(0)).std()
        return exact + bf16 * noise * scale * torch.randn(exact.shape, generator=generator)

    runner._run, runner.bf16 = run, None  # type: ignore[method-assign]


def test_bf16_is_used_if_cells_keep_their_differences(
    checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix
) -> None:
    runner = Runner(checkpoint, ocrs, device="cpu")
    rounding(runner, noise=0.005)
    runner(values)
    assert runner.bf16 is True


def test_bf16_is_given_up_if_it_blurs_them(
    checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix
) -> None:
    expected = Runner(checkpoint, ocrs, device="cpu")(values)
    runner = Runner(checkpoint, ocrs, device="cpu")
    rounding(runner, noise=0.2)
    np.testing.assert_array_equal(runner(values), expected)
    assert runner.bf16 is False


def test_a_common_offset_does_not_hide_that_bf16_blurs(
    checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix
) -> None:
    """All cells share a large vector here, so that without taking the mean off, any rounding would seem to agree."""
    runner = Runner(checkpoint, ocrs, device="cpu")
    rounding(runner, noise=0.2)
    blurred = runner._run
    runner._run = lambda values, *, bf16: blurred(values, bf16=bf16) + 1e3  # type: ignore[method-assign]
    runner(values)
    assert runner.bf16 is False
