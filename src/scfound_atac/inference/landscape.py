"""The accessibility of a group of cells on bins of the genome that are the same for every peak set.

Peaks, 500-bp bins and 5-kb tiles of the same cells hold the same signal in different pieces. What links are computed from must not depend
on the pieces, so all of them are brought to the bins of the region table, and signals to ranks among these.

Glossary
    bin      a bin of the region table (500 bp), or an OCR that overlaps none
    lead     the bin of an OCR with the strongest signal in a group; it stands for the OCR
    line     positions on all chromosomes, one after the other (`scfound_atac.genome`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import rankdata

from ..genome import chromosome_ids, load_region_table
from ..genome.line import along_genome, chromosome_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# Fraction of the bins of a genome that are open in a sample: the median over the biosamples is .147, K562 has .156.
_FRACTION_OPEN = 0.15
_BIN = 500  # bases
_MIN_COVERED = 250  # bases: a bin of which fewer are measured gets less than its density


class Bins(NamedTuple):
    """Bins of a set of OCRs, in genome order.

    Attributes
    ----------
    middle
        Middle of each bin on the line, which rises, (n_bins,).
    start, end
        Bounds on the line, both (n_bins,).
    breadth
        Fraction of the biosamples in which the bin is open, (n_bins,).
    strength
        Mean rank of its signal over the biosamples, 0 to 1, (n_bins,).
    row
        Row of the region table, -1 for an OCR that overlaps none of its bins, (n_bins,).
    ocr, bin
        Pairs of an OCR and a bin that overlap, by OCR, both (n_pairs,).
    spread
        Signal of bins from values of OCRs, (n_bins, n_ocrs).
    n_open
        Maximum number of bins that are taken to be open in a group of cells.
    """

    middle: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    breadth: NDArray[np.float32]
    strength: NDArray[np.float32]
    row: NDArray[np.int64]
    ocr: NDArray[np.int64]
    bin: NDArray[np.int64]
    spread: csr_matrix
    n_open: float


def bins_of(ocrs: pd.DataFrame) -> Bins:
    """The bins of `ocrs`: all of the region table, and OCRs on chr1 to chrY that overlap none of these.

    The value of an OCR is shared out among the n_ij bases that it has in common with bin j by how strongly the bins are open elsewhere,
    and divided by the measured bases of the bin::

        signal[j] = 500 / max(bases[j], 250) * sum over i of value[i] * n_ij * s_j / (sum over k of n_ik * s_k)
    """
    from scipy.sparse import csr_matrix

    table = load_region_table()
    # 1. Bins of the table, then the OCRs that overlap none of them.
    ocr, of_table, shared = table.overlaps(ocrs)
    is_new = (np.bincount(ocr, minlength=len(ocrs)) == 0) & (chromosome_ids(ocrs["chrom"]) > 0)
    new = np.flatnonzero(is_new)
    n = len(table.bins)
    bounds = [
        np.append(of_bins, along_genome(ocrs["chrom"].iloc[new], ocrs[name].iloc[new]))
        for name, of_bins in zip(("start", "end"), table.bounds, strict=True)
    ]
    order = np.argsort(bounds[0] + bounds[1], kind="stable")
    start, end = bounds[0][order], bounds[1][order]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    nothing = np.zeros(len(new), dtype=np.float32)
    breadth = np.append((table.n_open / table.n_biosamples).astype(np.float32), nothing)[order]
    strength = np.append((table.strength / 255).astype(np.float32), nothing)[order]
    row = np.append(np.arange(n), np.full(len(new), -1))[order]
    # 2. Pairs of an OCR and a bin, and how values are shared out; 1 / 255 is the unit of strength, so that no bin is left without any.
    ocr = np.append(ocr, new)
    bin_ = place[np.append(of_table, n + np.arange(len(new)))]
    shared = np.append(shared, np.full(len(new), _BIN))
    by_ocr = np.argsort(ocr, kind="stable")
    ocr, bin_, shared = ocr[by_ocr], bin_[by_ocr], shared[by_ocr]
    weight = shared * (strength[bin_] + 1 / 255)
    weight /= np.bincount(ocr, weights=weight, minlength=len(ocrs))[ocr]
    covered = np.bincount(bin_, weights=shared, minlength=len(row))
    weight *= _BIN / np.clip(covered, _MIN_COVERED, None)[bin_]
    spread = csr_matrix((weight.astype(np.float32), (bin_, ocr)), shape=(len(row), len(ocrs)))
    # 3. A part of the bins of the chromosomes of the data is open.
    here = np.isin(chromosome_of(table.bounds[0]), np.unique(chromosome_ids(ocrs["chrom"])))
    n_open = _FRACTION_OPEN * here.sum()
    return Bins((start + end) // 2, start, end, breadth, strength, row, ocr, bin_, spread, float(n_open))


def signal_of(bins: Bins, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Signal of each bin in a group of cells, from 0 (closed) to 1 (the strongest), (n_bins,).

    Parameters
    ----------
    bins
        Bins of the OCRs.
    values
        Sum of the values of each OCR over the cells of the group, (n_ocrs,).
    """
    signal = bins.spread @ values
    # 1 for the strongest bin, falling to 0 at the last open one. Many cells have a few counts in nearly all bins, so that only as many
    # as in a sample of one cell type count as open.
    is_open = signal > 0
    place = rankdata(-signal[is_open], method="average")
    ranked = np.zeros(len(signal), dtype=np.float32)
    ranked[is_open] = np.clip(1 - (place - 0.5) / min(bins.n_open, is_open.sum()), 0, None)
    return ranked


def lead_bins(bins: Bins, signal: NDArray[np.float32], middle: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bin that stands for each OCR: that with the strongest signal, of several the nearest to the OCR's middle; -1 for none, (n_ocrs,).

    Parameters
    ----------
    bins
        Bins of the OCRs.
    signal
        Signal of the bins in a group, (n_bins,).
    middle
        Middle of the OCRs on the line, (n_ocrs,).
    """
    off = np.abs(bins.middle[bins.bin] - middle[bins.ocr])
    order = np.lexsort((-off, signal[bins.bin], bins.ocr))
    lead = np.full(len(middle), -1, dtype=np.int64)
    lead[bins.ocr[order]] = bins.bin[order]  # the last one of each OCR stays
    return lead
