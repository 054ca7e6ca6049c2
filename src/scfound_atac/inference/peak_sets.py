"""Which OCRs each batch measured, and regions that tie overlapping OCRs of several batches together.

Batches of one matrix may come from laboratories with peaks of their own: in ``anndata.concat(..., join="outer")`` a batch has zeros in all
columns of the others, which means that they were not measured, not that they are closed. A column that is open in a cell of the batch was
measured there. For the others there are two explanations. With ``pi_b`` the fraction of the others' columns that batch b measured, and
``E_bj`` the number of counts to be expected in it by the other batches, column j without counts was measured with probability::

    q_bj = pi_b exp(-E_bj) / (pi_b exp(-E_bj) + 1 - pi_b)        q_bj = 1 for a column with counts
    pi_b = mean over j of q_bj, over columns with counts in other batches

These two lines are repeated. A small batch, whose expected counts are few, is thereby judged by all its columns together. In the end the
first line decides about each column, with a tenth of the expected counts: an OCR that is open in a cell type which the batch lacks has
fewer counts there, though not none.

Regions are unions of OCRs that overlap, also by way of others. A region was measured by a batch if one of its OCRs was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..genome.regions_of_ocrs import regions_of_ocrs

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells

# An OCR of cell types that a batch lacks has background in other cells, of about this fraction.
_BACKGROUND = 0.1
_N_ITERATIONS = 100
# Columns that a batch did not measure hold at least this fraction of all counts if batches have peak sets of their own. Below it, single
# OCRs without counts are taken as closed.
_MIN_OTHER = 0.05
# A region is shared if this fraction of the batches measured it: all of up to four batches. With many batches hardly any is left in all.
_IN_BATCHES = 0.8
# With fewer regions, or less of the counts in them, cells of different batches cannot be compared by their counts.
_MIN_REGIONS = 50
_MIN_COUNTS = 0.05


@dataclass(frozen=True)
class PeakSets:
    """Peak sets of several batches, tied by shared regions.

    Attributes
    ----------
    region
        Number of the shared region of each OCR, -1 for OCRs of regions that are not shared, (n_ocrs,); None if all batches measured the
        same OCRs, which then need no regions.
    n_measured
        Number of OCRs that each batch measured, (n_batches,).
    fraction_shared
        Fraction of the counts of each batch that lie in shared regions, (n_batches,).
    """

    region: NDArray[np.int64] | None
    n_measured: NDArray[np.int64]
    fraction_shared: NDArray[np.float64]

    @property
    def n_regions(self) -> int:
        """Number of shared regions; 0 if there are none, or if none are needed."""
        return 0 if self.region is None else int(self.region.max(initial=-1)) + 1

    @property
    def tie(self) -> csr_matrix | None:
        """1 for each OCR and its region, (n_ocrs, n_regions): counts of OCRs times it are counts of regions. None without regions."""
        from scipy.sparse import csr_matrix

        if self.region is None:
            return None
        ocrs = np.flatnonzero(self.region >= 0)
        # Without any shared region, one that no OCR belongs to.
        shape = (len(self.region), max(self.n_regions, 1))
        return csr_matrix((np.ones(len(ocrs), dtype=np.float32), (ocrs, self.region[ocrs])), shape=shape)


def sums_of_batches(
    cells: Cells, batches: NDArray[np.int64], n_batches: int, kept: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Sum of the counts of each batch in each OCR, (n_batches, n_ocrs); 0 for OCRs that are not `kept`."""
    from scipy.sparse import csr_matrix

    sums = np.zeros((n_batches, cells.n_ocrs))
    for index, chunk in cells.iter_rows():
        batch, n = batches[index], chunk.shape[0]
        sums += (csr_matrix((np.ones(n), (batch, np.arange(n))), shape=(n_batches, n)) @ chunk).toarray()
    return sums * kept


def measured(sums: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a batch measured an OCR, (n_batches, n_ocrs), by the sums of counts of batches; OCRs without any counts are left out.

    `sums` has shape (n_batches, n_ocrs).
    """
    depth, total, is_open = sums.sum(axis=1), sums.sum(axis=0), sums > 0
    depth_open = depth @ is_open  # (l,)
    found = is_open.copy()
    for row, opened, own, size in zip(found, is_open, sums, depth, strict=True):
        # 1. Only OCRs with counts in other batches, as those with counts in this one alone would say that it measures what it has.
        others = total > own
        # Counts to be expected, by the counts of an OCR per count of the other batches that have some in it.
        expected = size * (total - own)[others] / (depth_open - opened * size)[others]
        n_open, closed = int(opened[others].sum()), expected[~opened[others]]
        if not len(closed):
            continue
        # 2. The two lines of the module.
        unseen, fraction = np.exp(-closed), 0.5
        for _ in range(_N_ITERATIONS):
            fraction = (n_open + _chance(fraction, unseen).sum()) / len(expected)
        row[others & ~opened] = _chance(fraction, np.exp(-_BACKGROUND * closed)) > 0.5
    return found


def _chance(fraction: float, unseen: NDArray[np.float64]) -> NDArray[np.float64]:
    """q of the module for columns without counts, by the probability that one which was measured has none."""
    return fraction * unseen / np.maximum(fraction * unseen + 1 - fraction, 1e-300)


def peak_sets(ocrs: pd.DataFrame, sums: NDArray[np.float64]) -> PeakSets:
    """Tie the peak sets of several batches, unless all batches measured the same OCRs.

    Parameters
    ----------
    ocrs
        ``chrom``, ``start`` and ``end`` of all OCRs.
    sums
        Sum of the counts of each batch in each OCR, (n_batches, n_ocrs); 0 everywhere for OCRs that are to be left out.
    """
    # 1. Who measured what.
    found = measured(sums)  # (b, l)
    total = sums.sum(axis=0)
    found[:, total == 0] = False
    other = ((~found) @ total) / max(total.sum(), 1)  # (b,)
    if not (other > _MIN_OTHER).any():
        return PeakSets(None, found.sum(axis=1), np.ones(len(sums)))
    # 2. Regions, and those that (nearly) all batches measured.
    region = regions_of_ocrs(ocrs)
    n_regions, n_batches = int(region.max()) + 1, len(sums)
    n_measuring = np.zeros(n_regions, dtype=np.int64)
    for row in found:
        n_measuring += np.bincount(region[row], minlength=n_regions) > 0
    is_shared = n_measuring >= np.ceil(_IN_BATCHES * n_batches)
    # 3. Shared regions are numbered from 0. If they hold next to nothing, none counts as shared.
    fraction = sums @ is_shared[region] / np.maximum(sums.sum(axis=1), 1)
    if is_shared.sum() < _MIN_REGIONS or total @ is_shared[region] < _MIN_COUNTS * total.sum():
        is_shared[:] = False
    number = np.where(is_shared, np.cumsum(is_shared) - 1, -1)[region]
    number[total == 0] = -1
    return PeakSets(number, found.sum(axis=1), fraction)
