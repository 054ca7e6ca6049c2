"""Convert the expression of a cell into a few levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BINS = 256
"""Maximum number of levels, as they are stored in eight bits."""


def bin_rows(rows: sparse.csr_matrix, n_bins: int) -> sparse.csr_matrix:
    """Levels of expression, cell by cell (bioRxiv 2025.02.05.636688, section 3.4).

    Zero stays 0. If a cell has n other values and k of them are smaller than x::

        level(x) = 1 + floor((n_bins - 1) * k / n)

    Equal values therefore get equal levels, and the result is not random.

    Parameters
    ----------
    rows
        Finite values of at least 0, shape (n_cells, n_genes), without duplicate entries.
    n_bins
        Number of levels including 0: levels are 0 to ``n_bins - 1``.

    Returns
    -------
    Levels, uint8, with the same stored entries as `rows`.

    Raises
    ------
    ValueError
        If `n_bins` does not lie between 2 and 256.
    """
    if not 2 <= n_bins <= MAX_BINS:
        msg = f"n_bins must lie between 2 (not expressed, expressed) and {MAX_BINS}, got {n_bins}."
        raise ValueError(msg)
    # 1. For each stored value, how many values of its cell are positive and smaller; stored zeros do not count.
    values, n_stored = rows.data, np.diff(rows.indptr).astype(np.int64)
    n_zeros = np.add.reduceat(np.append(values == 0, False), rows.indptr[:-1]) * (n_stored > 0)
    cell = np.repeat(np.arange(len(n_stored)), n_stored)
    n_below = _count_below(values, cell, rows.indptr) - n_zeros[cell]
    # 2. The number n of positive values of the cell, and the level.
    n_values = (n_stored - n_zeros)[cell]
    levels = np.where(values > 0, 1 + (n_bins - 1) * n_below // np.maximum(n_values, 1), 0)
    return sparse.csr_matrix((levels.astype(np.uint8), rows.indices.copy(), rows.indptr.copy()), shape=rows.shape)


def _count_below(values: NDArray, cell: NDArray[np.int64], indptr: NDArray) -> NDArray[np.int64]:
    """Number of smaller values of the same cell, for each value."""
    order = np.lexsort((values, cell))
    ranked, place = values[order], np.arange(len(values))
    is_new = np.ones(len(values), dtype=bool)
    is_new[1:] = (ranked[1:] != ranked[:-1]) | (cell[1:] != cell[:-1])  # sorting by cell does not change `cell`
    first_equal = np.maximum.accumulate(np.where(is_new, place, 0))
    n_below = np.empty(len(values), dtype=np.int64)
    n_below[order] = first_equal - indptr[cell]
    return n_below
