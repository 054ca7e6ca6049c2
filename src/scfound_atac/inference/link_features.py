"""What is known of a pair of an OCR and a gene before any expression is seen.

Glossary
    TSS      start of transcription of a gene, one base on the line of the genome (`scfound_atac.genome.line`)
    bin      a piece of the genome that does not depend on the peak set; see `landscape.py`
    pair     an OCR and a TSS within the window
    contact  how often two places meet in the nucleus, up to a factor: a power of their distance
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..genome.elements import load_element_table
from ..genome.line import along_genome
from ..genome.promoters import load_promoters
from .landscape import Bins, bins_of, lead_bins, signal_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# The Activity-by-Contact model (Fulco et al. 2019; Nasser et al. 2021): the decay of contacts with distance in averaged Hi-C, the distance
# below which it is not known, and the reach within which enhancers compete.
_CONTACT_EXPONENT = -1.024
_CONTACT_FLOOR = 5_000
_REACH = 5_000_000
# Bases around a TSS that are its promoter.
_PROMOTER = 500
# Bins that are open in more than this fraction of the biosamples: sites of CTCF, and promoters of genes that all cells need.
_OPEN_EVERYWHERE = 0.85
# Bases next to the OCR and next to the TSS that are not counted as between both.
_MARGIN = 600
# Added to the breadth of a promoter, so that genes whose promoter is in no biosample compete as well.
_MIN_BREADTH = 0.05
# Competition that is always there, about that of a gene at 100 kb, so that an OCR far from the only gene of a desert is not taken for its
# own.
_BACKGROUND = 0.05
# Promoters are not taken for weaker than this, as hardly any weaker one was tested by CRISPRi (the 5th percentile of tested genes).
_MIN_STRENGTH = 0.2
# Bases on either side of an OCR in which its neighbours count; between 5 and 20 kb the width makes no difference.
_NEARBY = 10_000
# Distance from the strongest bin, as a fraction of the open ones, below which the rank no longer counts; from .01 to .1 it makes no
# difference.
_TOP = 0.03
_BLOCK = 200_000  # pairs whose vectors are compared at a time; it bounds memory

FEATURES = (
    "signal",
    "signal_nearby",
    "breadth",
    "promoter_strength",
    "n_open_everywhere",
    "log_gene_share",
    "type_similarity",
)
"""Names of the features, in the order of the columns of `features_of`."""


class Pairs(NamedTuple):
    """Pairs of an OCR and a TSS, and what is known of them in every group of cells.

    Attributes
    ----------
    bins
        Bins of the OCRs.
    middle
        Middle of each OCR on the line, (n_ocrs,).
    tss
        Place of each TSS on the line, (n_tss,).
    ocr, start
        Number of the OCR and of the TSS of each pair, by TSS and then by OCR, both (n_pairs,).
    distance
        Bases between the middle of the OCR and the TSS, (n_pairs,).
    promoters
        First and last + 1 bin of each promoter, (2, n_tss).
    promoter_strength
        Strength of the strongest bin of each promoter, at least .2, (n_tss,).
    first_bin
        First of the rows of `bins.ocr` that belong to each OCR, (n_ocrs,).
    first
        First of the rows of `known` that belong to each pair; there is a row for each bin of its OCR, (n_pairs,).
    known
        Features that are the same in every group, a row for each pair and bin, (n_rows, 3): ``n_open_everywhere``, ``log_gene_share``,
        ``type_similarity``.
    """

    bins: Bins
    middle: NDArray[np.int64]
    tss: NDArray[np.int64]
    ocr: NDArray[np.int64]
    start: NDArray[np.int64]
    distance: NDArray[np.int64]
    promoters: NDArray[np.int64]
    promoter_strength: NDArray[np.float32]
    first_bin: NDArray[np.int64]
    first: NDArray[np.int64]
    known: NDArray[np.float32]


def contact(distance: NDArray[np.int64]) -> NDArray[np.float64]:
    """Contact at a distance in bases, 1 at 5 kb and below."""
    return (np.maximum(distance, _CONTACT_FLOOR) / _CONTACT_FLOOR) ** _CONTACT_EXPONENT


def pairs_within(
    ocrs: pd.DataFrame, tss: NDArray[np.int64], window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of an OCR whose middle lies within `window` bases of a TSS, by TSS and OCR: numbers of both and distance, each (n_pairs,).

    Parameters
    ----------
    ocrs
        ``chrom``, ``start``, ``end`` on GRCh38, in any order.
    tss
        Places on the line, (n_tss,).
    window
        Maximum distance in bases.
    """
    middle = middles(ocrs)
    order = np.argsort(middle, kind="stable")
    place = middle[order]
    first, last = np.searchsorted(place, tss - window), np.searchsorted(place, tss + window, side="right")
    start, ocr = _ranges(first, last)
    ocr = order[ocr]
    by_both = np.lexsort((ocr, start))
    start, ocr = start[by_both], ocr[by_both]
    return ocr, start, np.abs(middle[ocr] - tss[start])


def middles(ocrs: pd.DataFrame) -> NDArray[np.int64]:
    """Middle of each OCR on the line, (n_ocrs,)."""
    return (along_genome(ocrs["chrom"], ocrs["start"]) + along_genome(ocrs["chrom"], ocrs["end"])) // 2


def describe_pairs(
    ocrs: pd.DataFrame,
    tss: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
) -> Pairs:
    """Compute what is known of `pairs`, as `pairs_within` gives them, in every group of cells.

    For each pair of a bin j of the OCR and a TSS t, with contact c and breadth b of promoters::

        n_open_everywhere      log(1 + bins between j and t that are open in more than 85 % of the biosamples)
        log_gene_share         log(c(j, t) (b_t + .05) / (.05 + sum over genes u within 5 Mb of c(j, u) (b_u + .05)))
        type_similarity        cosine of the cell types in which j and the promoter are active (`scfound_atac.genome.elements`)
    """
    ocr, start, distance = pairs
    bins = bins_of(ocrs)
    # 1. Promoters of these TSSs, and of all genes of the package, which compete for the contacts of an OCR whatever genes are asked for.
    promoters = _promoter_bins(bins, tss)
    everyone = load_promoters().place
    breadth = _max_of(bins.breadth, _promoter_bins(bins, everyone)) + _MIN_BREADTH
    competition = _contacts(bins.middle[bins.bin], everyone, breadth)  # (n rows of bins.ocr,)
    # 2. A row for each pair and each bin of its OCR.
    n_bins = np.bincount(bins.ocr, minlength=len(ocrs))
    first_bin = np.cumsum(n_bins) - n_bins
    pair, row = _ranges(first_bin[ocr], first_bin[ocr] + n_bins[ocr])
    bin_, of_pair = bins.bin[row], start[pair]
    place, target = bins.middle[bin_], tss[of_pair]
    d = np.abs(place - target)
    known = np.empty((len(row), 3), dtype=np.float32)
    # 3. Bins that are open everywhere, between both.
    count = np.append(0, np.cumsum(bins.breadth > _OPEN_EVERYWHERE))
    left = np.searchsorted(bins.middle, np.minimum(place, target) + _MARGIN)
    right = np.searchsorted(bins.middle, np.maximum(place, target) - _MARGIN)
    known[:, 0] = np.log1p(count[np.maximum(left, right)] - count[left])
    # 4. The gene's fraction of the contacts of the bin.
    own = contact(d) * (_max_of(bins.breadth, promoters) + _MIN_BREADTH)[of_pair]
    known[:, 1] = np.log(own / (np.maximum(competition[row], own) + _BACKGROUND))
    # 5. Similarity of bin and promoter, by the cell types in which they are active.
    known[:, 2] = _type_similarity(bins, tss, bin_, of_pair)
    return Pairs(
        bins,
        middles(ocrs),
        tss,
        ocr,
        start,
        distance,
        promoters,
        np.maximum(_max_of(bins.strength, promoters), np.float32(_MIN_STRENGTH)),
        first_bin,
        np.searchsorted(pair, np.arange(len(ocr))),
        known,
    )


def log_rank(signal: NDArray[np.floating]) -> NDArray[np.floating]:
    """Feature of the signal of OCRs: minus the logarithm of the distance of its rank from the top, which is near linear in log reads."""
    return -np.log(1 - signal + _TOP)


class GroupFeatures(NamedTuple):
    """What is seen of pairs in a group of cells.

    Attributes
    ----------
    features
        Columns `FEATURES`, (n_pairs, 7).
    abc
        ABC share, (n_pairs,).
    promoter
        Signal of the promoter of each TSS, from 0 to 1; NaN where no OCR lies, (n_tss,).
    """

    features: NDArray[np.float32]
    abc: NDArray[np.float32]
    promoter: NDArray[np.float32]


def features_of(pairs: Pairs, values: NDArray[np.float64]) -> GroupFeatures:
    """Features of pairs in a group of cells, and their ABC share.

    An OCR is described by its lead bin, that with the strongest signal in the group, so that a wide tile counts as the peak in it. The ABC
    share of an OCR is that of all its bins; r is the signal of a bin in the group, from 0 to 1::

        signal         -log(1.03 - r of the lead bin)
        signal_nearby  log(1 + sum of r over the bins within 10 kb)
        abc = sum over bins j of the OCR of r_j c(j, t) / sum over all bins k within 5 Mb of r_k c(k, t)

    Parameters
    ----------
    pairs
        Pairs, as from `describe_pairs`.
    values
        Sum of the values of each OCR over the cells of the group, (n_ocrs,).
    """
    bins, ocr, start = pairs.bins, pairs.ocr, pairs.start
    # 1. The signal of the group, and the bin that stands for each OCR.
    signal = signal_of(bins, values)
    lead = lead_bins(bins, signal, pairs.middle)
    is_lead = bins.bin == lead[bins.ocr]
    local = np.zeros(len(lead), dtype=np.int64)
    local[bins.ocr[is_lead]] = np.flatnonzero(is_lead) - pairs.first_bin[bins.ocr[is_lead]]
    known = pairs.known[pairs.first + local[ocr]]
    # 2. ABC share, over all bins of an OCR.
    row = np.arange(len(pairs.known))
    pair = np.searchsorted(pairs.first, row, side="right") - 1
    bin_ = bins.bin[pairs.first_bin[ocr[pair]] + row - pairs.first[pair]]
    activity = signal[bin_] * contact(np.abs(bins.middle[bin_] - pairs.tss[start[pair]]))
    total = _contacts(pairs.tss, bins.middle[signal > 0], signal[signal > 0])
    own = np.bincount(pair, weights=activity, minlength=len(ocr))
    abc = (own / np.maximum(total[start], 1e-12)).astype(np.float32)
    # 3. Signal around the lead bins.
    running = np.append(0, np.cumsum(signal, dtype=np.float64))
    left = np.searchsorted(bins.middle, bins.middle[lead] - _NEARBY)
    right = np.searchsorted(bins.middle, bins.middle[lead] + _NEARBY, side="right")
    nearby = np.log1p(running[right] - running[left])
    # 4. All features.
    features = np.column_stack(
        [
            log_rank(signal[lead])[ocr],
            nearby[ocr],
            bins.breadth[lead[ocr]],
            pairs.promoter_strength[start],
            known,
        ]
    )
    # 5. The promoters, as far as they were measured.
    is_measured = _max_of((np.diff(bins.spread.indptr) > 0).astype(np.float32), pairs.promoters) > 0
    promoter = np.where(is_measured, _max_of(signal, pairs.promoters), np.float32(np.nan))
    return GroupFeatures(features.astype(np.float32), abc, promoter)


def _ranges(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers from `first` to `last` - 1 of each range, one after the other, and the number of the range of each."""
    n = np.maximum(last - first, 0)
    range_ = np.repeat(np.arange(len(n)), n)
    return range_, np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(first, n)


def _blocks(n: int, size: int) -> Iterator[slice]:
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def _contacts(place: NDArray[np.int64], others: NDArray[np.int64], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of contact times `weight` over the `others` (sorted) within 5 Mb of each place, in the shape of `place`."""
    found = np.empty(len(place), dtype=np.float64)
    for block in _blocks(len(place), 4096):
        here = place[block]
        which, other = _ranges(np.searchsorted(others, here - _REACH), np.searchsorted(others, here + _REACH))
        there = contact(np.abs(others[other] - here[which])) * weight[other]
        found[block] = np.bincount(which, weights=there, minlength=len(here))
    return found


def _promoter_bins(bins: Bins, tss: NDArray[np.int64]) -> NDArray[np.int64]:
    """First and last + 1 bin that overlaps each promoter, (2, n_tss)."""
    # Bounds of bins rise with their middles but for OCRs that overlap each other; a wider search is not worth these.
    first = np.searchsorted(bins.end, tss - _PROMOTER, side="right")
    last = np.searchsorted(bins.start, tss + _PROMOTER + 1)
    return np.stack([first, np.maximum(first, last)])


def _max_of(values: NDArray[np.float32], ranges: NDArray[np.int64]) -> NDArray[np.float32]:
    """Maximum of `values` over each range of bins, 0 for an empty range, (n_ranges,)."""
    range_, bin_ = _ranges(ranges[0], ranges[1])
    found = np.zeros(ranges.shape[1], dtype=np.float32)
    np.maximum.at(found, range_, values[bin_])
    return found


def _type_similarity(
    bins: Bins,
    tss: NDArray[np.int64],
    bin_: NDArray[np.int64],
    start: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Cosine of the types of each bin and of each promoter, (n_rows,)."""
    import pandas as pd

    from ..genome import CHROMOSOMES
    from ..genome.line import place_of

    elements = load_element_table()
    used, of_row = np.unique(bin_, return_inverse=True)

    def types(first: NDArray[np.int64], last: NDArray[np.int64]) -> csr_matrix:
        number, position = place_of(first)
        table = pd.DataFrame({"chrom": np.array(CHROMOSOMES, dtype=object)[number - 1], "start": position})
        found = elements.lookup(table.assign(end=position + (last - first))).types
        norm = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
        return found.multiply(1 / np.maximum(norm, 1e-12)[:, None]).tocsr()

    of_bins = types(bins.start[used], bins.end[used])
    of_promoters = types(tss - _PROMOTER, tss + _PROMOTER + 1)
    similarity = np.empty(len(bin_), dtype=np.float32)
    for block in _blocks(len(bin_), _BLOCK):
        both = of_bins[of_row[block]].multiply(of_promoters[start[block]])
        similarity[block] = np.asarray(both.sum(axis=1)).ravel()
    return similarity
