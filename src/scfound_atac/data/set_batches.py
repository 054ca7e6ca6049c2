"""Put sets of different sizes into batches, with padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# Minimum length of a cell in a bucket, as a fraction of the longest one; it bounds padding to a tenth.
_MIN_FILL = 0.9


def buckets(lengths: NDArray[np.int64], max_cells: int, max_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Groups of cells of similar length, the longest first.

    Parameters
    ----------
    lengths
        Number of tokens of each cell, at least 1, shape (n_cells,).
    max_cells, max_tokens
        Maximum number of cells of a bucket, and of tokens including padding; a longer cell is a bucket of its own.

    Yields
    ------
    Row numbers of the cells of a bucket. Every cell is in one bucket.
    """
    order = np.argsort(-lengths, kind="stable")
    falling = lengths[order]
    first = 0
    while first < len(order):
        longest = int(falling[first])
        like = int(np.searchsorted(-falling, -_MIN_FILL * longest, side="right")) - first
        n = max(1, min(like, max_cells, max_tokens // longest))
        yield order[first : first + n]
        first += n


def pad(sets: Sequence[NDArray], filler: int) -> tuple[NDArray, NDArray[np.bool_]]:
    """Sets as rows of one array, padded with `filler` to the size of the largest, and a mask of the entries: both (n_sets, largest)."""
    lengths = np.array([len(one) for one in sets])
    is_there = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(is_there.shape, filler, dtype=sets[0].dtype)
    padded[is_there] = np.concatenate(sets)
    return padded, is_there
