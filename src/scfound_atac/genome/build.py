"""Recognise the genome build of OCRs.

Peaks of any tissue overlap known accessible regions far more often than positions some ten thousand bases away, but only on the build
on which they were called. The test compares OCRs with the same OCRs shifted along the chromosome, on GRCh38 and on hg19::

    z = (n_hits - mean of n_hits over shifts) / spread of n_hits over shifts
    margin = (n_only_grch38 - n_only_hg19) / sqrt(n_only_grch38 + n_only_hg19)

n_hits is the number of OCRs that overlap an accessible region; n_only_grch38 are the OCRs that do so on GRCh38 and not on hg19.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .._arguments import settable
from ._chromosomes import CHROMOSOME_SIZES, CHROMOSOMES, chromosome_ids

BIN_SIZE = 500
"""Bases per bin of the table of accessible regions."""

_GRCH38 = re.compile(r"grch38|hg38|(?<![a-z])b38(?!\d)", re.IGNORECASE)
_HG19 = re.compile(r"grch37|hg19|(?<![a-z])b37(?!\d)|hs37d5", re.IGNORECASE)
_OTHER = re.compile(
    r"(?<![a-z])(?:mm\d+|grcm\d+|mouse|mus|rn\d+|rat|grcr\d+|mratbn|hg1[678]|ncbi3[56]|t2t|chm13|hs1(?!\d)|danrer\d+|dm\d|ce\d+|"
    r"galgal\d|susscr\d+|rhemac\d+|macfas\d|mmul|pantro\d)",
    re.IGNORECASE,
)

# Distances in bases by which OCRs are shifted: 20 to 127 kb in both directions. They are large enough for a shifted OCR to miss its own
# peak, and small enough for it to stay in similar chromatin. They are not multiples of common bin widths, so that tiles of the genome do
# not fall on other tiles.
_SHIFTS = np.array([sign * (20_000 + step * 9_700) for sign in (-1, 1) for step in range(12)])
# Wide OCRs overlap some region wherever they lie, so only their middle bases are used.
_MAX_WIDTH = 1_500
# Fewer OCRs are not tested; of more, every n-th is used, which bounds the time.
_MIN_OCRS = 30
_MAX_OCRS = 20_000
# Thresholds for a clear overlap: the excess over the shifted OCRs in standard deviations, and as a ratio, because with many OCRs a small
# excess has a large z.
_MIN_Z = 4.5
_MIN_FOLD = 1.2
# Threshold for the difference between the builds, in standard deviations.
_MIN_PAIRED_Z = 2.0

_CHAIN = "https://hgdownload.soe.ucsc.edu/goldenPath/hg19/liftOver/hg19ToHg38.over.chain.gz"


def _declare(role: str) -> str:
    """Code that declares the object called `role` to be on GRCh38; the object that is processed can also be declared by an argument."""
    in_uns = f'{role}.uns["genome"] = "GRCh38"'
    has_argument = role.startswith(("adata", "mdata"))
    return f'{in_uns} (or genome="GRCh38" where the function has that argument)' if has_argument else in_uns


def _lift(role: str) -> str:
    target = settable(role)
    call = f'{target} = sfa.pp.liftover_ocrs({target}, chain="hg19ToHg38.over.chain.gz")'
    return f"Move them first: {call}, with the chain file from {_CHAIN}."


class Enrichment(NamedTuple):
    """Overlap of OCRs with the known accessible regions of one build."""

    hit: np.ndarray
    """Whether the middle 1,500 bases of each OCR overlap a known region, (n_ocrs,)."""
    fraction: float
    """Fraction of the OCRs that do."""
    background: float
    """The same fraction for shifted OCRs, mean over shifts."""
    z: float
    """Excess over the background, in standard deviations."""

    @property
    def is_clear(self) -> bool:
        """Whether the overlap is far larger than expected by chance."""
        return self.z >= _MIN_Z and self.fraction >= _MIN_FOLD * self.background


def first_bins(genome: str) -> np.ndarray:
    """Number of the first bin of each chromosome in the table, and the total number of bins at the end, (25,)."""
    n_bins = [-(-CHROMOSOME_SIZES[genome][name] // BIN_SIZE) for name in CHROMOSOMES]
    return np.concatenate([[0], np.cumsum(n_bins)])


@cache
def _regions_before(genome: str) -> np.ndarray:
    """Number of accessible bins before each bin, (n_bins + 1,): bins i to j - 1 hold an accessible one if ``before[j] > before[i]``."""
    with resources.files(__package__).joinpath("accessible_regions.npz").open("rb") as file, np.load(file) as table:
        is_open = np.unpackbits(table[genome], count=int(first_bins(genome)[-1]))
    return np.concatenate([[0], np.cumsum(is_open, dtype=np.int32)]).astype(np.int32)


def enrichment(ids: np.ndarray, start: np.ndarray, end: np.ndarray, genome: str) -> Enrichment:
    """Overlap of OCRs with the known accessible regions of a build, compared with the same OCRs shifted.

    The spread of the background is the larger of the binomial standard deviation and the one observed among shifts, which is larger if
    OCRs lie in clusters.
    """
    # 1. The middle of each OCR, and the bins of its chromosome.
    edges, before = first_bins(genome), _regions_before(genome)
    low, high = edges[ids - 1], edges[ids]
    trim = np.maximum(end - start - _MAX_WIDTH, 0) // 2
    start, end = start + trim, end - trim

    def hits(shift: int) -> np.ndarray:
        first = np.clip(low + (start + shift) // BIN_SIZE, low, high)
        last = np.clip(low + (end - 1 + shift) // BIN_SIZE + 1, low, high)
        return before[last] > before[first]

    # 2. OCRs that overlap a region where they are (n_ocrs,), and the number of such OCRs after each shift (n_shifts,).
    hit = hits(0)
    shifted = np.array([hits(shift).sum() for shift in _SHIFTS])
    mean = float(shifted.mean())
    # 3. Standardise. A minimum rate of 2 % prevents a few hits far from any known region from counting as evidence.
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


def declared_genome(value: Any) -> str | None:
    """The build that ``uns["genome"]`` or an argument declares, in any form in which it may be stored.

    Parameters
    ----------
    value
        Text, bytes, or an array, list or categorical of these with one distinct value. Missing and empty values are ignored.

    Raises
    ------
    ValueError
        If several builds are declared.
    TypeError
        If `value` is of another type.
    """
    if value is None or isinstance(value, str | bytes):
        values = [value]
    elif isinstance(value, np.ndarray | pd.Series | pd.Index | pd.Categorical | list | tuple | set | frozenset):
        # tolist() of an array without dimensions returns its only value
        listed = value.tolist() if hasattr(value, "tolist") else list(value)
        values = pd.unique(np.array(listed, dtype=object).ravel()).tolist()
    else:
        values = [value]
    builds = []
    for one in values:
        if isinstance(one, bytes):
            builds.append(one.decode(errors="replace").strip())
        elif isinstance(one, str):
            builds.append(str(one).strip())
        elif not (pd.api.types.is_scalar(one) and pd.isna(one)):
            msg = f'The genome build must be text such as "GRCh38", not {type(one).__name__}.'
            raise TypeError(msg)
    builds = list(dict.fromkeys(build for build in builds if build and build.lower() not in ("nan", "none")))
    if len({"GRCh38" if _is_grch38(build) else build for build in builds}) > 1:
        msg = f"Several genome builds are declared: {builds[:3]}. Keep only the OCRs of GRCh38, and declare that build."
        raise ValueError(msg)
    return builds[0] if builds else None


def _is_grch38(genome: str) -> bool:
    return bool(_GRCH38.search(genome)) and not _HG19.search(genome) and not _OTHER.search(genome)


class _Evidence(NamedTuple):
    grch38: Enrichment
    hg19: Enrichment
    margin: float
    """Lead of GRCh38 over hg19 in standard deviations."""

    @property
    def says_grch38(self) -> bool:
        return self.grch38.is_clear and self.margin >= _MIN_PAIRED_Z

    @property
    def says_hg19(self) -> bool:
        return self.hg19.is_clear and self.margin <= -_MIN_PAIRED_Z


def _weigh(ocrs: pd.DataFrame, ids: np.ndarray) -> _Evidence | None:
    """Evidence for either build; None if there are too few OCRs."""
    rows = np.flatnonzero(ids > 0)
    if len(rows) < _MIN_OCRS:
        return None
    rows = rows[:: -(-len(rows) // _MAX_OCRS)]
    start, end = ocrs["start"].to_numpy()[rows], ocrs["end"].to_numpy()[rows]
    grch38, hg19 = (enrichment(ids[rows], start, end, build) for build in ("GRCh38", "hg19"))
    only_grch38, only_hg19 = int((grch38.hit & ~hg19.hit).sum()), int((hg19.hit & ~grch38.hit).sum())
    # Sign test on the OCRs that overlap a region on one build only.
    return _Evidence(grch38, hg19, (only_grch38 - only_hg19) / np.sqrt(max(only_grch38 + only_hg19, 1)))


def looks_like_grch38(ocrs: pd.DataFrame) -> bool:
    """Whether `check_genome` recognises OCRs as GRCh38 without a declared build."""
    ids = chromosome_ids(ocrs["chrom"])
    evidence = _weigh(ocrs, ids)
    return evidence is not None and evidence.says_grch38 and len(_beyond(ocrs, ids)) == 0


def check_genome(ocrs: pd.DataFrame, genome: str | None = None, *, role: str = "adata") -> str:
    """Make sure that OCRs are on GRCh38.

    A declared build is accepted unless positions lie beyond the end of a chromosome. Otherwise the build is recognised by the overlap with
    accessible regions and promoters that are known on GRCh38 and on hg19, compared with the same OCRs shifted by 20 to 127 kb.
    OCRs outside chr1 to chr22, X and Y are ignored.

    Parameters
    ----------
    ocrs
        Table with columns ``chrom``, ``start``, ``end``, as returned by :func:`get_ocrs`.
    genome
        Declared build, as text or as stored in ``uns``; if None, the build is recognised.
    role
        Name of the object with these OCRs, for messages.

    Returns
    -------
    ``"GRCh38"``.

    Raises
    ------
    ValueError
        If OCRs are on hg19 or another genome, lie beyond the end of a chromosome, or cannot be distinguished from random positions. The
        message says what to do.
    """
    ids = chromosome_ids(ocrs["chrom"])
    beyond = _beyond(ocrs, ids)
    declared = declared_genome(genome)
    if declared is not None:
        return _check_declared(ocrs, declared, beyond, role)

    evidence = _weigh(ocrs, ids)
    if evidence is not None and evidence.says_hg19:
        # To declare another build helps only where all positions exist on it.
        after_all = "" if len(beyond) else f" If they are on GRCh38 after all, say so: {_declare(role)}."
        msg = (
            f"OCRs of {role} look like hg19 (GRCh37): {evidence.hg19.fraction:.0%} overlap accessible regions of that build, "
            f"{evidence.grch38.fraction:.0%} those of GRCh38. The models know GRCh38 only. {_lift(role)}{after_all}"
        )
        raise ValueError(msg)
    if len(beyond):
        msg = (
            f"{len(beyond)} of {len(ocrs)} OCRs of {role} lie beyond the end of their GRCh38 chromosome, among them "
            f"{_first_three(ocrs, beyond)}. Are they from another genome? Drop them or correct their coordinates."
        )
        raise ValueError(msg)
    if evidence is None:
        msg = (
            f"{(ids > 0).sum()} OCRs of {role} on chr1 to chr22, X and Y are too few to recognise their genome build (at least "
            f"{_MIN_OCRS} are needed)."
        )
        if (ids > 0).any() or not len(ocrs):
            msg += f" If they are on GRCh38, say so: {_declare(role)}."
        else:
            contigs = ", ".join(repr(str(name)) for name in ocrs["chrom"].unique()[:3])
            msg += f" Chromosomes are called {contigs}: name them chr1 or 1."
        raise ValueError(msg)
    if evidence.says_grch38:
        return "GRCh38"
    grch38, hg19 = evidence.grch38, evidence.hg19
    msg = (
        f"Cannot recognise the genome build of {len(ocrs)} OCRs of {role}: {grch38.fraction:.0%} overlap accessible regions known on "
        f"GRCh38 and {hg19.fraction:.0%} those on hg19, which differs too little from each other and from shifted OCRs "
        f"({grch38.background:.0%} and {hg19.background:.0%}). They may be of another species, or bins that cover the genome. If they are "
        f"on GRCh38, say so: {_declare(role)}."
    )
    raise ValueError(msg)


def _check_declared(ocrs: pd.DataFrame, genome: str, beyond: np.ndarray, role: str) -> str:
    if not _is_grch38(genome):
        only_hg19 = bool(_HG19.search(genome)) and not _GRCH38.search(genome)
        build = genome if only_hg19 else f"genome {genome!r}"
        msg = f"OCRs of {role} are declared to be on {build}, and the models know human GRCh38 (hg38) only."
        if only_hg19:
            msg += f" {_lift(role)}"
        elif _OTHER.search(genome):
            msg += " There is no model for other genomes."
            if _GRCH38.search(genome):
                msg += f" Keep only the OCRs of GRCh38, then declare that build: {_declare(role)}."
        else:
            msg += f" If that is what they are on, say so: {_declare(role)}."
        raise ValueError(msg)
    if len(beyond):
        msg = (
            f"{len(beyond)} of {len(ocrs)} OCRs of {role}, declared to be on {genome}, lie beyond the end of their chromosome, among them "
            f"{_first_three(ocrs, beyond)}. If they are on hg19: {_lift(role)} Else drop them or correct their coordinates."
        )
        raise ValueError(msg)
    return "GRCh38"
