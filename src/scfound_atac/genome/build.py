"""Which genome build OCRs are on.

Peaks of any tissue fall on known accessible regions far more often than places some ten thousand bases beside them do, and only
on the build they were called on. That is the test: OCRs against the same OCRs shifted, on GRCh38 and on hg19.
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

_CHAIN = "https://hgdownload.soe.ucsc.edu/goldenPath/hg19/liftOver/hg19ToHg38.over.chain.gz"


def _declare(role: str) -> str:
    """How the object called `role` is declared to be on GRCh38: the one that is worked on often by an argument too."""
    in_uns = f'{role}.uns["genome"] = "GRCh38"'
    has_argument = role.startswith(("adata", "mdata"))
    return f'{in_uns} (or genome="GRCh38" where the function has that argument)' if has_argument else in_uns


def _lift(role: str) -> str:
    target = settable(role)
    call = f'{target} = sfa.pp.liftover_ocrs({target}, chain="hg19ToHg38.over.chain.gz")'
    return f"Move them first: {call}, with the chain file from {_CHAIN}."


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
        """Whether the overlap is far more than chance explains."""
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


def declared_genome(value: Any) -> str | None:
    """The build that ``uns["genome"]`` or an argument names, however it is stored.

    Parameters
    ----------
    value
        Text, bytes, or an array, list or categorical of such with one value, once or many times. Missing and empty values say nothing.

    Raises
    ------
    ValueError
        If several builds are named.
    TypeError
        If it is anything else.
    """
    if value is None or isinstance(value, str | bytes):
        values = [value]
    elif isinstance(value, np.ndarray | pd.Series | pd.Index | pd.Categorical | list | tuple | set | frozenset):
        # tolist() of an array without dimensions is its one value
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
        msg = f"Several genome builds are declared: {builds[:3]}. Keep the OCRs of GRCh38 alone and name that one."
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
    """Evidence for either build; None if there are too few OCRs to tell."""
    rows = np.flatnonzero(ids > 0)
    if len(rows) < _MIN_OCRS:
        return None
    rows = rows[:: -(-len(rows) // _MAX_OCRS)]
    start, end = ocrs["start"].to_numpy()[rows], ocrs["end"].to_numpy()[rows]
    grch38, hg19 = (enrichment(ids[rows], start, end, build) for build in ("GRCh38", "hg19"))
    only_grch38, only_hg19 = int((grch38.hit & ~hg19.hit).sum()), int((hg19.hit & ~grch38.hit).sum())
    # Sign test on the OCRs that tell the builds apart.
    return _Evidence(grch38, hg19, (only_grch38 - only_hg19) / np.sqrt(max(only_grch38 + only_hg19, 1)))


def looks_like_grch38(ocrs: pd.DataFrame) -> bool:
    """Whether OCRs are recognised as GRCh38, as `check_genome` does it without a declared build."""
    ids = chromosome_ids(ocrs["chrom"])
    evidence = _weigh(ocrs, ids)
    return evidence is not None and evidence.says_grch38 and len(_beyond(ocrs, ids)) == 0


def check_genome(ocrs: pd.DataFrame, genome: str | None = None, *, role: str = "adata") -> str:
    """Make sure that OCRs are on GRCh38.

    A declared build is believed unless positions lie beyond a chromosome's end. An undeclared one is recognised by overlap
    with accessible regions and promoters known on GRCh38 and on hg19, each against the same OCRs shifted by 20 to 127 kb.
    OCRs outside chr1 to chr22, X and Y do not count.

    Parameters
    ----------
    ocrs
        Columns ``chrom``, ``start``, ``end``, as :func:`get_ocrs` gives them.
    genome
        Declared build, as text or as it is stored in ``uns``; None: recognise it.
    role
        What the object with these OCRs is called, for messages.

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
    declared = declared_genome(genome)
    if declared is not None:
        return _check_declared(ocrs, declared, beyond, role)

    evidence = _weigh(ocrs, ids)
    if evidence is not None and evidence.says_hg19:
        # To declare another build helps only where all positions exist on it.
        after_all = "" if len(beyond) else f" If they are on GRCh38 after all, say so: {_declare(role)}."
        msg = (
            f"OCRs of {role} look like hg19 (GRCh37): {evidence.hg19.share:.0%} overlap accessible regions known there, "
            f"{evidence.grch38.share:.0%} those of GRCh38. The models know GRCh38 only. {_lift(role)}{after_all}"
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
        f"Cannot recognise the genome build of {len(ocrs)} OCRs of {role}: {grch38.share:.0%} overlap accessible regions known on GRCh38 "
        f"and {hg19.share:.0%} those on hg19, no clear lead over each other and over places beside them ({grch38.background:.0%} and "
        f"{hg19.background:.0%}). They may be of another species, or bins that cover the genome. If they are on GRCh38, say so: "
        f"{_declare(role)}."
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
                msg += f" Keep the OCRs of GRCh38 alone, then declare that one: {_declare(role)}."
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
