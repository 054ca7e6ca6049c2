"""Divide cells into those that are trained on, those of the validation, and those of the test, as scvi-tools does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def divide(
    n_cells: int, train_size: float, validation_size: float | None, seed: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the training, validation and test cells; in the order of the rows if there is no seed.

    Raises
    ------
    ValueError
        If a size is out of range.
    """
    if not 0 < train_size <= 1:
        msg = f"train_size must lie in (0, 1], got {train_size}."
        raise ValueError(msg)
    if validation_size is not None and not (0 <= validation_size < 1 and train_size + validation_size <= 1 + 1e-9):
        msg = f"validation_size must lie in [0, 1), and with train_size be at most 1; got {validation_size} and {train_size}."
        raise ValueError(msg)
    n_train = max(1, round(train_size * n_cells))
    n_rest = n_cells - n_train
    n_val = n_rest if validation_size is None else min(n_rest, round(validation_size * n_cells))
    if seed is None:
        order = np.arange(n_cells)
        return order[n_val : n_val + n_train], order[:n_val], order[n_val + n_train :]
    order = np.random.default_rng(seed).permutation(n_cells)
    return order[:n_train], order[n_train : n_train + n_val], order[n_train + n_val :]


def given_parts(
    given: Sequence[NDArray[np.integer] | None], n_cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the training, validation and test cells as the user gave them; the last two may be left out.

    Raises
    ------
    ValueError
        If row numbers are repeated, overlap, or lie outside the table, or there are none to train on.
    """
    parts = [np.asarray([] if part is None else part, dtype=np.int64).ravel() for part in given]
    parts += [np.empty(0, dtype=np.int64)] * (3 - len(parts))
    rows = np.concatenate(parts)
    if (
        len(parts) > 3
        or not len(parts[0])
        or len(np.unique(rows)) < len(rows)
        or rows.min() < 0
        or rows.max() >= n_cells
    ):
        msg = (
            f"external_indexing takes the row numbers (0 to {n_cells - 1}) of training, validation and test cells, each cell once, "
            "and at least one to train on."
        )
        raise ValueError(msg)
    return parts[0], parts[1], parts[2]
