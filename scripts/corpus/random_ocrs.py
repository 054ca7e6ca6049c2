"""Draw the OCR set of a simulated study from bins of the genome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scfound_atac.genome import CHROMOSOME_SIZES, chromosome_ids, genome_order, ocr_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_WIDTH = 300
MAX_WIDTH = 1_500
_MAX_SHIFT = 200
_CLOSED_SHIFTS = (2_000, 50_000)
# Of the OCRs that are open in no biosample of the study, half are bins open elsewhere, half lie where no bin does.
_UNKNOWN_SHARE = 0.5
# Bins drawn per OCR wanted: what overlaps becomes one OCR.
_SURPLUS = 1.5


def random_ocrs(
    bins: pd.DataFrame,
    signal: NDArray[np.float32],
    *,
    n_ocrs: int,
    closed_share: float,
    selection: float,
    width: int | None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Draw peaks as a peak caller could have called them.

    Each OCR stands for one bin: its centre is moved by up to 200 bases, its width drawn anew. OCRs that overlap are merged where
    the union is no wider than a peak may be; of the others the first one stays. None reaches beyond a chromosome's end.

    Parameters
    ----------
    bins
        Columns ``chrom``, ``start``, ``end``, GRCh38.
    signal
        How open each bin is in the study, shape (bins,); 0 is closed.
    n_ocrs
        OCRs wanted; fewer come back where the bins do not suffice.
    closed_share
        Share of OCRs open in no biosample of the study: half are other bins, half are 2 to 50 kb away from a bin.
    selection
        An open bin is drawn with a probability proportional to ``signal ** selection``.
    width
        Bases of every OCR; None draws widths from 300 to 1,500 (log-normal, median 650).
    rng
        Source of randomness.

    Returns
    -------
    Columns ``chrom``, ``start``, ``end`` (int64) in genome order, indexed by names such as ``chr1:100-600``. No two overlap.
    """
    wanted = int(n_ocrs * _SURPLUS)
    n_closed = int(wanted * closed_share)
    n_unknown = int(n_closed * _UNKNOWN_SHARE)
    is_open = signal > 0
    opened = _choose(np.flatnonzero(is_open), signal[is_open].astype(np.float64) ** selection, wanted - n_closed, rng)
    closed = _choose(np.flatnonzero(~is_open), None, n_closed - n_unknown, rng)
    # A place beside a bin, rather than anywhere: assembly gaps hold no peaks.
    beside = rng.integers(0, len(bins), n_unknown)
    rows = np.concatenate([opened, closed, beside])
    centre = (bins["start"].to_numpy(np.int64) + bins["end"].to_numpy(np.int64))[rows] // 2
    centre += rng.integers(-_MAX_SHIFT, _MAX_SHIFT + 1, len(rows))
    if n_unknown:
        centre[-n_unknown:] += rng.integers(*_CLOSED_SHIFTS, n_unknown) * rng.choice([-1, 1], n_unknown)
    if width is None:
        drawn = np.exp(rng.normal(np.log(650), 0.4, len(rows))).astype(np.int64)
        widths = np.clip(drawn, MIN_WIDTH, MAX_WIDTH)
    else:
        widths = np.full(len(rows), width, dtype=np.int64)
    chrom = bins["chrom"].to_numpy().astype(object)[rows]
    sizes = pd.Series(chrom).map(CHROMOSOME_SIZES["GRCh38"]).to_numpy(dtype=np.int64)
    start = np.clip(centre - widths // 2, 0, sizes - widths)
    ocrs = pd.DataFrame({"chrom": chrom, "start": start, "end": start + widths})
    ocrs = _merge(ocrs.iloc[genome_order(ocrs)].reset_index(drop=True), MAX_WIDTH if width is None else width)
    if len(ocrs) > n_ocrs:
        ocrs = ocrs.iloc[np.sort(rng.choice(len(ocrs), n_ocrs, replace=False))]
    return ocrs.set_axis(ocr_names(ocrs), axis=0)


def _choose(
    rows: NDArray[np.int64], weight: NDArray[np.float64] | None, n_rows: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw without replacement; all rows where there are not enough."""
    if len(rows) <= n_rows:
        return rows
    if weight is None:
        return rng.choice(rows, n_rows, replace=False)
    # Exponential race: the n smallest of Exp(1) / weight are a weighted draw without replacement, in one pass.
    race = rng.exponential(size=len(rows)) / weight
    return rows[np.argpartition(race, n_rows)[:n_rows]]


def _merge(ocrs: pd.DataFrame, max_width: int) -> pd.DataFrame:
    """One OCR for each run of overlapping ones: their union, or the first where the union is wider than ``max_width``."""
    ids = chromosome_ids(ocrs["chrom"])
    # Chromosomes are laid end to end with room between them, so that the running maximum never crosses from one to the next.
    offset = ids * 1_000_000_000
    start, end = ocrs["start"].to_numpy() + offset, ocrs["end"].to_numpy() + offset
    reach = np.concatenate([[-1], np.maximum.accumulate(end)[:-1]])
    first = np.flatnonzero(start >= reach)
    union_end = np.maximum.reduceat(end, first) - offset[first]
    merged = ocrs.iloc[first].reset_index(drop=True)
    fits = union_end - merged["start"].to_numpy() <= max_width
    merged["end"] = np.where(fits, union_end, merged["end"].to_numpy())
    return merged
