"""Which genome build OCRs are on.

Peaks of any tissue fall on known accessible regions far more often than places some ten thousand bases beside them do, and only
on the build they were called on. That is the test: OCRs against the same OCRs shifted, on GRCh38 and on hg19.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._chromosomes import CHROMOSOME_SIZES, CHROMOSOMES, chromosome_ids

if TYPE_CHECKING:
    import pandas as pd

BIN_SIZE = 500
"""Bases per bin of the table of accessible regions."""

_GRCH38 = re.compile(r"(?:grch38|hg38)(?:\.p\d+)?", re.IGNORECASE)
_HG19 = re.compile(r"(?:grch37|hg19|b37|hs37d5)(?:\.p\d+)?", re.IGNORECASE)

# Far enough that a shifted OCR misses its own peak, near enough that it stays in the same kind of chromatin. Odd multiples of
# no common bin width, so that shifted tiles do not lie on tiles.
_SHIFTS = np.array([sign * (20_000 + step * 9_700) for sign in (-1, 1) for step in range(12)])
# Wide OCRs meet some region wherever they lie: only their middle tells.
_MAX_WIDTH = 1_500
_MIN_OCRS = 30
_MAX_OCRS = 20_000
_MIN_Z = 4.5
_MIN_FOLD = 1.2
_MIN_PAIRED_Z = 2.0

_DECLARE = 'genome="GRCh38" (or adata.uns["genome"] = "GRCh38")'
_LIFT = (
    'Move them first: adata = sfa.pp.liftover_ocrs(adata, chain="hg19ToHg38.over.chain.gz"), with the chain file from '
    "https://hgdownload.soe.ucsc.edu/goldenPath/hg19/liftOver/hg19ToHg38.over.chain.gz."
)


class Enrichment(NamedTuple):
    """How OCRs sit on the known accessible regions of one build."""

    hit: np.ndarray
    """For each OCR, whether its middle 1,500 bases overlap a known region."""
    share: float
    """Share of OCRs that do."""
    background: float
    """The same share for shifted OCRs, mean over shifts."""
    z: float
    """Excess over the background in standard deviations."""

    @property
    def is_clear(self) -> bool:
        return self.z >= _MIN_Z and self.share >= _MIN_FOLD * self.background


def first_bins(genome: str) -> np.ndarray:
    """Number of the first bin of each chromosome in the table, then the number of all bins."""
    n_bins = [-(-CHROMOSOME_SIZES[genome][name] // BIN_SIZE) for name in CHROMOSOMES]
    return np.concatenate([[0], np.cumsum(n_bins)])


@cache
def _regions_before(genome: str) -> np.ndarray:
    """Count of accessible bins before each bin, so that a difference of two tells whether a stretch holds any."""
    with resources.files(__package__).joinpath("accessible_regions.npz").open("rb") as file, np.load(file) as table:
        is_open = np.unpackbits(table[genome], count=int(first_bins(genome)[-1]))
    return np.concatenate([[0], np.cumsum(is_open, dtype=np.int32)]).astype(np.int32)


def enrichment(ids: np.ndarray, start: np.ndarray, end: np.ndarray, genome: str) -> Enrichment:
    """Overlap of OCRs with the known accessible regions of a build, against the same OCRs shifted.

    The spread of the background is the larger of the binomial one and the one seen among shifts, which is wider when OCRs
    lie in clusters.
    """
    edges, before = first_bins(genome), _regions_before(genome)
    low, high = edges[ids - 1], edges[ids]
    trim = np.maximum(end - start - _MAX_WIDTH, 0) // 2
    start, end = start + trim, end - trim

    def hits(shift: int) -> np.ndarray:
        first = np.clip(low + (start + shift) // BIN_SIZE, low, high)
        last = np.clip(low + (end - 1 + shift) // BIN_SIZE + 1, low, high)
        return before[last] > before[first]

    hit = hits(0)
    shifted = np.array([hits(shift).sum() for shift in _SHIFTS])
    mean = float(shifted.mean())
    # A floor of 2 % keeps a handful of hits in a desert from counting as proof.
    rate = min(max(mean / len(ids), 0.02), 0.98)
    spread = max(float(shifted.std(ddof=1)), float(np.sqrt(len(ids) * rate * (1 - rate))))
    return Enrichment(hit, float(hit.mean()), mean / len(ids), (float(hit.sum()) - mean) / spread)


def _beyond(ocrs: pd.DataFrame, ids: np.ndarray) -> np.ndarray:
    sizes = np.array([CHROMOSOME_SIZES["GRCh38"][name] for name in CHROMOSOMES])
    return np.flatnonzero((ids > 0) & (ocrs["end"].to_numpy() > sizes[ids - 1]))


def _first_three(ocrs: pd.DataFrame, rows: np.ndarray) -> str:
    some = ocrs.iloc[rows[:3]]
    return ", ".join(
        f"{chrom}:{start}-{end}" for chrom, start, end in zip(some["chrom"], some["start"], some["end"], strict=True)
    )


def check_genome(ocrs: pd.DataFrame, genome: str | None = None) -> str:
    """Make sure that OCRs are on GRCh38.

    A declared build is believed unless positions lie beyond a chromosome's end. An undeclared one is recognised by overlap
    with accessible regions and promoters known on GRCh38 and on hg19, each against the same OCRs shifted by 20 to 127 kb.
    OCRs outside chr1 to chr22, X and Y do not count.

    Parameters
    ----------
    ocrs
        Columns ``chrom``, ``start``, ``end``, as :func:`get_ocrs` gives them.
    genome
        Declared build; None: recognise it.

    Returns
    -------
    ``"GRCh38"``.

    Raises
    ------
    ValueError
        If OCRs are on hg19 or another genome, lie beyond a chromosome's end, or cannot be told from random places; the
        message says what to do.
    """
    ids = chromosome_ids(ocrs["chrom"])
    beyond = _beyond(ocrs, ids)
    if genome is not None:
        return _check_declared(ocrs, str(genome), beyond)

    rows = np.flatnonzero(ids > 0)
    if len(rows) < _MIN_OCRS:
        msg = (
            f"{len(rows)} OCRs on chr1 to chr22, X and Y are too few to recognise their genome build (at least {_MIN_OCRS} are "
            f"needed). If they are on GRCh38, say so: {_DECLARE}."
        )
        raise ValueError(msg)
    rows = rows[:: -(-len(rows) // _MAX_OCRS)]
    start, end = ocrs["start"].to_numpy()[rows], ocrs["end"].to_numpy()[rows]
    grch38, hg19 = (enrichment(ids[rows], start, end, build) for build in ("GRCh38", "hg19"))
    only_grch38, only_hg19 = int((grch38.hit & ~hg19.hit).sum()), int((hg19.hit & ~grch38.hit).sum())
    # Sign test on the OCRs that tell the builds apart.
    margin = (only_grch38 - only_hg19) / np.sqrt(max(only_grch38 + only_hg19, 1))
    if hg19.is_clear and margin <= -_MIN_PAIRED_Z:
        msg = (
            f"OCRs look like hg19 (GRCh37): {hg19.share:.0%} overlap accessible regions known there, {grch38.share:.0%} those of "
            f"GRCh38. The models know GRCh38 only. {_LIFT} If they are on GRCh38 after all, pass {_DECLARE}."
        )
        raise ValueError(msg)
    if len(beyond):
        msg = (
            f"{len(beyond)} of {len(ocrs)} OCRs lie beyond the end of their GRCh38 chromosome, among them "
            f"{_first_three(ocrs, beyond)}. Are they from another genome? Drop them or correct their coordinates."
        )
        raise ValueError(msg)
    if grch38.is_clear and margin >= _MIN_PAIRED_Z:
        return "GRCh38"
    msg = (
        f"Cannot recognise the genome build of {len(ocrs)} OCRs: {grch38.share:.0%} overlap accessible regions known on GRCh38 and "
        f"{hg19.share:.0%} those on hg19, no clear lead over each other and over places beside them ({grch38.background:.0%} and "
        f"{hg19.background:.0%}). They may be of another species, or bins that cover the genome. If they are on GRCh38, pass {_DECLARE}."
    )
    raise ValueError(msg)


def _check_declared(ocrs: pd.DataFrame, genome: str, beyond: np.ndarray) -> str:
    if _HG19.fullmatch(genome.strip()):
        msg = f"OCRs are declared to be on {genome}, and the models know GRCh38 only. {_LIFT}"
        raise ValueError(msg)
    if not _GRCH38.fullmatch(genome.strip()):
        msg = (
            f"OCRs are declared to be on genome {genome!r}, and the models know human GRCh38 (hg38) only. If that is what they are "
            f"on, pass {_DECLARE}."
        )
        raise ValueError(msg)
    if len(beyond):
        msg = (
            f"{len(beyond)} of {len(ocrs)} OCRs declared to be on {genome} lie beyond the end of their chromosome, among them "
            f"{_first_three(ocrs, beyond)}. If they are on hg19: {_LIFT} Else drop them or correct their coordinates."
        )
        raise ValueError(msg)
    return "GRCh38"
