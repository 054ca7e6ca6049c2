"""The corruption that ChromFound learns to undo (arXiv 2505.12638, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


def mask_values(
    value: Tensor, *, mask_fraction: float = 0.15, generator: Generator | Sequence[Generator] | None = None
) -> tuple[Tensor, Tensor]:
    """Corrupt a fraction of the closed and of the open OCRs of each cell.

    The fraction `mask_fraction` of the zeros of a cell is replaced by values drawn from its non-zero values, and the same fraction of its
    non-zero values is set to zero. Cells without any non-zero value are not changed.

    Parameters
    ----------
    value
        Prepared accessibility, shape (B, L).
    mask_fraction
        Expected fraction of positions that are replaced, among zeros and among non-zeros.
    generator
        Random generator on the device of `value`; or one per cell, so that the mask of a cell does not depend on other cells.

    Returns
    -------
    Corrupted values (B, L), and the mask (B, L) that is True where a value was replaced.
    """
    # 1. Choose the positions to replace.
    draw = _uniform(value, generator)  # (B, L)
    is_open = value > 0  # (B, L)
    n_open = is_open.sum(1)  # (B,)
    mask = (draw < mask_fraction) & (n_open > 0)[:, None]
    # 2. Pack the open values of each cell to the left, so that a random column below n_open is a random open value.
    packed = torch.gather(value, 1, torch.argsort(is_open.int(), dim=1, descending=True, stable=True))
    column = _uniform(value, generator) * n_open[:, None]
    column = column.long().clamp(max=value.shape[1] - 1)
    # 3. Open positions become 0, closed ones a random open value.
    replacement = torch.where(is_open, torch.zeros_like(value), torch.gather(packed, 1, column))
    return torch.where(mask, replacement, value), mask


def _uniform(value: Tensor, generator: Generator | Sequence[Generator] | None) -> Tensor:
    if not isinstance(generator, Sequence):
        return torch.rand(value.shape, generator=generator, device=value.device)
    return torch.stack([torch.rand(value.shape[1:], generator=g, device=value.device) for g in generator])
