"""Recognise a misleading design: concatenated samples, each with an OCR set of its own.

It shows in two ways: cells fall into groups without a common open OCR, or overlapping OCRs are hardly ever open in the same cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Minimum size of a group, as a fraction of the cells and as a number; smaller groups are not samples.
_MIN_FRACTION = 0.05
_MIN_CELLS = 10
# Minimum number of common open OCRs per cell of a group. Very sparse cells form loosely connected groups by chance.
_MIN_MEETINGS = 5
# Minimum fraction of OCRs that overlap another one, minimum number of times that such pairs are expected to be open in the same cell, and
# the maximum fraction of it that is observed if the pairs exclude each other.
_OVERLAP_FRACTION = 0.2
_MIN_EXPECTED = 20
_MAX_OBSERVED = 0.2
# Maximum numbers of open OCRs and of pairs that are used, which bound the time.
_MAX_OPEN = 2_000_000
_MAX_PAIRS = 20_000

_MEND = (
    "This is typical of samples with different sets of OCRs after an outer concatenation, and models then separate samples instead of cell "
    "types. Map all samples to one set first, sample = sfa.pp.map_ocrs(sample, reference), and concatenate afterwards; only sfa.tl.embed "
    "with batch_key= the column of samples takes such cells as they are."
)


def check_design(chunks: sparse.csr_matrix, ocrs: pd.DataFrame) -> str | None:
    """Find out whether cells look like concatenated samples with different OCR sets.

    Parameters
    ----------
    chunks
        Counts of a random sample of at most a few thousand cells, shape (n_cells, n_ocrs).
    ocrs
        Table with columns ``chrom``, ``start``, ``end`` and n_ocrs rows.

    Returns
    -------
    A warning with the finding and advice, or None.
    """
    is_open = _some_cells(chunks)
    if is_open.shape[0] < 2 * _MIN_CELLS:
        return None
    sizes = _groups(is_open)
    if len(sizes) > 1:
        fractions = ", ".join(f"{size / is_open.shape[0]:.0%}" for size in sizes[:5])
        return f"Cells fall into {len(sizes)} groups ({fractions} of those looked at) that have no open OCR in common. {_MEND}"
    return _exclusive_overlaps(is_open, ocrs)


def _some_cells(chunks: sparse.csr_matrix) -> sparse.csr_matrix:
    """Open OCRs (float32 ones) of cells that have any, for at most `_MAX_OPEN` open OCRs."""
    counts = sparse.csr_matrix(chunks)
    n_open = np.diff(counts.indptr)
    cells = np.flatnonzero(n_open)
    if n_open.sum() > _MAX_OPEN:
        cells = np.random.default_rng(0).permutation(cells)
        n_cells = int(np.searchsorted(np.cumsum(n_open[cells]), _MAX_OPEN))
        cells = np.sort(cells[: max(n_cells, 4 * _MIN_CELLS)])
    some = counts[cells]
    return sparse.csr_matrix(((some.data != 0).astype(np.float32), some.indices, some.indptr), shape=some.shape)


def _groups(is_open: sparse.csr_matrix) -> list[int]:
    """Sizes of groups of cells that have no open OCR in common with other cells, the largest first, without small groups."""
    n_cells, n_ocrs = is_open.shape
    cells = np.repeat(np.arange(n_cells, dtype=np.int64), np.diff(is_open.indptr))
    columns = is_open.indices
    # Each cell is connected to the first cell with the same open OCR, which gives the same groups as connecting all pairs.
    first = np.full(n_ocrs, -1, dtype=np.int64)
    first[columns[::-1]] = cells[::-1]
    tied = np.zeros((n_cells, n_cells), dtype=bool)
    tied[cells, first[columns]] = True
    _, group = connected_components(sparse.csr_matrix(tied), directed=False)
    sizes = np.bincount(group)
    is_later = cells != first[columns]
    meetings = np.bincount(group[cells[is_later]], minlength=len(sizes))
    large = (sizes >= max(_MIN_CELLS, _MIN_FRACTION * n_cells)) & (meetings >= _MIN_MEETINGS * sizes)
    return sorted(sizes[large].tolist(), reverse=True)


def _overlapping(ocrs: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Pairs of overlapping OCRs that are neighbours by start, and the fraction of OCRs that overlap another one."""
    chrom = pd.factorize(ocrs["chrom"])[0]
    start, end = ocrs["start"].to_numpy(np.int64), ocrs["end"].to_numpy(np.int64)
    order = np.lexsort((start, chrom))
    one, other = order[:-1], order[1:]
    meet = (chrom[one] == chrom[other]) & (start[other] < end[one])
    involved = np.zeros(len(ocrs), dtype=bool)
    involved[one[meet]] = involved[other[meet]] = True
    return one[meet], other[meet], float(involved.mean()) if len(ocrs) else 0.0


def _exclusive_overlaps(is_open: sparse.csr_matrix, ocrs: pd.DataFrame) -> str | None:
    one, other, fraction = _overlapping(ocrs)
    if fraction < _OVERLAP_FRACTION:
        return None
    # Number of cells in which both OCRs of a pair are expected to be open if they were independent, (n_pairs,).
    n_cells = is_open.shape[0]
    frequency = np.bincount(is_open.indices, weights=is_open.data, minlength=is_open.shape[1]) / n_cells
    expected = n_cells * frequency[one] * frequency[other]
    if expected.sum() < _MIN_EXPECTED:
        return None
    if len(expected) > _MAX_PAIRS:
        best = np.argpartition(expected, -_MAX_PAIRS)[-_MAX_PAIRS:]
        one, other, expected = one[best], other[best], expected[best]
    columns = is_open.tocsc()
    together = float(columns[:, one].multiply(columns[:, other]).sum())
    if expected.sum() < _MIN_EXPECTED or together >= _MAX_OBSERVED * expected.sum():
        return None
    return (
        f"{fraction:.0%} of the OCRs overlap another one, and overlapping OCRs are hardly ever open in the same cell: {together:.0f} "
        f"times, where {expected.sum():.0f} would be expected by chance. {_MEND}"
    )
