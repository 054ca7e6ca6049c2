"""OCR names to coordinates."""

from __future__ import annotations

import re
import weakref
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ._chromosomes import is_chromosome, normalize_chromosomes, without_build

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_CONTIG = r"([A-Za-z0-9](?:[\w.*:#|-]*[A-Za-z0-9])?)"
# Nearly all names are of this form, which is quick to match.
_PLAIN = re.compile(_CONTIG + r"[:_-](\d{1,12})[_-](\d{1,12})", re.ASCII)
# Thousands separators, whole floats (pandas) and powers of ten (R); blanks and ".." between the numbers; a strand behind them.
_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d{1,12}(?:\.0+)?|\d(?:\.\d{1,11})?[eE]\+?\d{1,2})"
_RARE = re.compile(
    _CONTIG
    + r"(?:[:_-]|:?\s+)"
    + _NUMBER
    + r"(?:[:_-]|\.\.|\s+(?:-\s+)?)"
    + _NUMBER
    + r"(?:[:_-]?\([+*.-]\)|[:_][+*.-])?",
    re.ASCII,
)
# R's make.names turns every separator into a dot.
_DOTTED = re.compile(_CONTIG + r"\.(\d{1,12})\.(\d{1,12})", re.ASCII)
_TEXT_OF_BYTES = re.compile(r"""b(['"])(.*?)\1""")

_OTHER_BUILD = re.compile(
    r"(?:(?:grch3[67]|b37|hg1[6-9]|ncbi3[67]|hs1|t2t(?:-chm13)?|chm13|mm\d+|grcm\d+|rn\d+|grcr\d+|mratbn[\d.]*\d|rnor_[\d.]*\d)"
    r"(?:\.?[vp]\d+(?:\.\d+)*)?)(?:[._:#-]+(?P<rest>.+))?",
    re.IGNORECASE,
)
_SOME_PREFIX = re.compile(r".+[._:#-]chr(?:\d+|[xym]|mt)", re.IGNORECASE)
# "chr1_5_10_20" could be a contig chr1_5 or a range with a number too many, "chr1:5-10-1" a range made unique: refused.
_NUMBERED = re.compile(r"(?:chr)?(?:\d+|x|y|m|mt)(?:[._:-]\d+)+", re.IGNORECASE)
_HLA = re.compile(r"hla-", re.IGNORECASE)
# chrUn_KI270742v1, KI270728.1, NC_007605.1, 14_GL000194v1_random, HLA-A*01:01, HSCHR6_MHC_COX_CTG1, hs38d1, scaffold_12
_KNOWN_CONTIG = re.compile(
    r"chr.+|(?:(?:\d+|x|y|un)[_-])?[a-z]{1,4}_?\d{5,}.*|hla-.+\*.+|hschr.+|hs3[78]d\d.*|(?:scaffold|contig|un|ebv|phix|lambda)(?![a-z]).*",
    re.IGNORECASE,
)
# The names of some genes end in two small numbers (tRNA-Gly-GCC-1-5, IGHV4-30-2): no OCR is as narrow as this.
_MIN_WIDTH = 20


class Reading(IntEnum):
    """What a name was found to be."""

    NONE = 0
    """No coordinates."""
    UNCLEAR = 1
    """Numbers that could be read in more than one way."""
    OTHER_BUILD = 2
    """Coordinates on another build than GRCh38."""
    EMPTY = 3
    """Coordinates with an end not beyond the start."""
    GUESSED = 4
    """Coordinates on something that looks like no contig in use."""
    CONTIG = 5
    """Coordinates on a scaffold or another contig."""
    CHROMOSOME = 6
    """Coordinates on one of the chromosomes."""


class NamesRead(NamedTuple):
    """Coordinates in names, rows 0 to n - 1."""

    ocrs: pd.DataFrame
    """``chrom``, ``start`` and ``end``, which mean something where `is_read`."""
    reading: NDArray[np.int8]
    """The `Reading` of each name."""

    @property
    def is_read(self) -> NDArray[np.bool_]:
        """Which names hold coordinates."""
        return self.reading >= Reading.GUESSED


def _as_text(name: Any) -> str:
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return _TEXT_OF_BYTES.sub(r"\2", text) if text.startswith(("b'", 'b"')) else text


def _judge_contig(contig: str) -> Reading:
    stem = without_build(contig)
    other = _OTHER_BUILD.fullmatch(stem)
    if other:
        return Reading.OTHER_BUILD if other["rest"] else Reading.UNCLEAR
    if is_chromosome(stem):
        return Reading.CHROMOSOME
    if without_build(stem + "_1") == "1" or _SOME_PREFIX.fullmatch(stem) or _NUMBERED.fullmatch(stem):
        return Reading.UNCLEAR
    if ":" in stem and not _HLA.match(stem):
        return Reading.UNCLEAR
    return Reading.CONTIG if _KNOWN_CONTIG.fullmatch(stem) else Reading.GUESSED


def _whole(text: str) -> int:
    """A number as `_NUMBER` finds it; -1 if it is not whole."""
    number = float(text.replace(",", ""))
    return int(number) if number.is_integer() and number < 1e12 else -1


_NOTHING = ("", "0", "0")


def _read_rarely_written(text: str) -> tuple[str, int, int] | None:
    """What is not of the plain form. Contigs must be known ones, so that free text is not taken for coordinates."""
    found = _RARE.fullmatch(text)
    if found and _judge_contig(found[1]) != Reading.GUESSED:
        start, end = _whole(found[2]), _whole(found[3])
        return (found[1], start, end) if min(start, end) >= 0 else None
    found = _DOTTED.fullmatch(text)
    if found and _judge_contig(found[1]) != Reading.GUESSED:
        start, end = int(found[2]), int(found[3])
        # Versions and the names of genes made unique have dots too.
        if without_build(found[1]).lower().startswith("chr") or (
            end - start >= _MIN_WIDTH and not is_chromosome(found[1])
        ):
            return found[1], start, end
    return None


# The index that was read last, and what was read of it: one call asks first which features are peaks and then where they lie, and a
# million names take seconds. An index never changes, and is not kept alive from here.
_last: tuple[weakref.ref[pd.Index], NamesRead] | None = None


def scan_names(names: Iterable[Any]) -> NamesRead:
    """Read what coordinates names hold; nothing is refused."""
    global _last  # noqa: PLW0603
    if not isinstance(names, pd.Index):
        return _scan(names)
    if _last is None or _last[0]() is not names:
        _last = weakref.ref(names), _scan(names)
    return _last[1]


def _scan(names: Iterable[Any]) -> NamesRead:
    texts = [_as_text(name) for name in names]
    contigs, starts, ends = [""] * len(texts), np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    match = _PLAIN.fullmatch
    parts = [found.groups() if (found := match(text)) else _NOTHING for text in texts]
    if parts:
        columns = list(zip(*parts, strict=True))
        contigs = list(columns[0])
        starts, ends = (np.array(column, dtype="U12").astype(np.int64) for column in columns[1:])
    for row in [row for row, contig in enumerate(contigs) if not contig]:
        rare = _read_rarely_written(texts[row])
        if rare is not None:
            contigs[row], starts[row], ends[row] = rare

    codes, unique = pd.factorize(np.array(contigs, dtype=object))
    judged = np.array([_judge_contig(contig) if contig else Reading.NONE for contig in unique], dtype=np.int8)
    reading = judged[codes] if len(codes) else np.zeros(0, np.int8)
    narrow = np.flatnonzero((reading == Reading.GUESSED) & (ends - starts < _MIN_WIDTH))
    reading[[row for row in narrow if ":" not in texts[row]]] = Reading.NONE
    reading[(reading >= Reading.GUESSED) & (ends <= starts)] = Reading.EMPTY
    chrom = normalize_chromosomes(unique)[codes] if len(codes) else np.array([], dtype=object)
    return NamesRead(pd.DataFrame({"chrom": chrom, "start": starts, "end": ends}), reading)


def readable(names: Iterable[Any]) -> NDArray[np.bool_]:
    """Which of n names hold coordinates, on whatever build and contig, shape (n,)."""
    read = scan_names(names)
    return read.is_read | (read.reading == Reading.OTHER_BUILD)


def looks_transposed(
    obs_names: Iterable[Any], var_names: Iterable[Any], *, has_columns: bool = False, n_names: int = 1000
) -> bool:
    """Whether rows are OCRs and columns are not, told from the first `n_names` names of each.

    `has_columns` says that the table of the rows, and not that of the columns, has coordinates.
    """
    rows, columns = (
        scan_names(pd.Index(names)[:n_names]).reading >= Reading.CHROMOSOME for names in (obs_names, var_names)
    )
    return len(rows) > 0 and (has_columns or bool(rows.mean() > 0.5)) and not columns.any()


def fix_columns(where: str = "var") -> str:
    """What to do where names cannot be read."""
    if not where.endswith("var"):
        return f"Give a table instead, with the columns chrom, start and end (0-based, half-open): {where} = pandas.DataFrame(...)."
    return f'Give coordinates instead: set {where}["chrom"], {where}["start"] and {where}["end"] (0-based, half-open).'


def refuse_unread(names: Iterable[Any], reading: NDArray[np.int8], *, where: str = "var") -> None:
    """ValueError that names the first three names that were not read.

    Parameters
    ----------
    names
        n names.
    reading
        Their `Reading`, shape (n,).
    where
        The table whose columns would mend it.
    """
    text = pd.Series([_as_text(name) for name in names], dtype=object)
    holder = "adata" if where == "var" else where.removesuffix(".var")

    def refuse(bad: NDArray[np.bool_], what: str, fix: str) -> None:
        if bad.any():
            shown = ", ".join(repr(name) for name in text[bad].iloc[:3])
            msg = f"{bad.sum()} of {len(text)} OCR names {what}, among them {shown}. {fix}"
            raise ValueError(msg)

    refuse(
        reading == Reading.OTHER_BUILD,
        "carry another genome build than GRCh38",
        f"Keep the OCRs of GRCh38 alone, or move hg19 ones with sfa.pp.liftover_ocrs({holder}, "
        'chain="hg19ToHg38.over.chain.gz") after naming them without the build.',
    )
    refuse(reading <= Reading.UNCLEAR, "are not of the form chr1:100-200", fix_columns(where))
    refuse(reading == Reading.EMPTY, "have an end not beyond their start", fix_columns(where))


def parse_names(names: Iterable[Any]) -> pd.DataFrame:
    """Read coordinates from OCR names.

    Understood are ``chr1:1-2``, ``chr1-1-2``, ``chr1_1_2`` and mixtures of these separators, each also without ``chr``, with
    ``GRCh38`` or ``hg38`` in front (``GRCh38_chr1:1-2``, ``hg38.chr1:1-2``), with thousands separators (``chr1:1,000-2,000``), with a
    strand behind (``chr1:1-2(+)``), as bytes, or as the text of bytes (``"b'chr1:1-2'"``, ``"b'chr1':1-2"``). What stands before the
    last two numbers is the contig: ``chr14-GL000194v1-random-1-2`` lies on a scaffold. Refused is what could be read in another way,
    such as ``chr1_5_10_20``, or ``chr1:1-2-1``, which is a name that was made unique.

    Parameters
    ----------
    names
        n OCR names.

    Returns
    -------
    Columns ``chrom`` (as :func:`normalize_chromosomes` spells it), ``start`` and ``end`` (int64, as written in the name);
    rows 0 to n - 1.

    Raises
    ------
    ValueError
        If a name cannot be read without doubt, names another genome build, or its end is not beyond its start.
    """
    names = list(names)
    read = scan_names(names)
    if not read.is_read.all():
        refuse_unread(names, read.reading)
    return read.ocrs
