"""Read coordinates from names of OCRs."""

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
# Nearly all names have this form, which is fast to match.
_PLAIN = re.compile(_CONTIG + r"[:_-](\d{1,12})[_-](\d{1,12})", re.ASCII)
# Thousands separators, whole floats (pandas) and powers of ten (R); blanks and ".." between the numbers; a strand after them.
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
# Refused: "chr1_5_10_20" could be on a contig chr1_5, or have one number too many; "chr1:5-10-1" is a name that was made unique.
_NUMBERED = re.compile(r"(?:chr)?(?:\d+|x|y|m|mt)(?:[._:-]\d+)+", re.IGNORECASE)
_HLA = re.compile(r"hla-", re.IGNORECASE)
# chrUn_KI270742v1, KI270728.1, NC_007605.1, 14_GL000194v1_random, HLA-A*01:01, HSCHR6_MHC_COX_CTG1, hs38d1, scaffold_12
_KNOWN_CONTIG = re.compile(
    r"chr.+|(?:(?:\d+|x|y|un)[_-])?[a-z]{1,4}_?\d{5,}.*|hla-.+\*.+|hschr.+|hs3[78]d\d.*|(?:scaffold|contig|un|ebv|phix|lambda)(?![a-z]).*",
    re.IGNORECASE,
)
# The names of some genes end in two small numbers (tRNA-Gly-GCC-1-5, IGHV4-30-2); no OCR is as narrow as that.
_MIN_WIDTH = 20


class Reading(IntEnum):
    """How a name was read."""

    NONE = 0
    """No coordinates."""
    UNCLEAR = 1
    """Numbers that can be read in several ways."""
    OTHER_BUILD = 2
    """Coordinates on another build than GRCh38."""
    EMPTY = 3
    """Coordinates whose end is not greater than the start."""
    GUESSED = 4
    """Coordinates on a name that does not look like any known contig."""
    CONTIG = 5
    """Coordinates on a scaffold or another contig."""
    CHROMOSOME = 6
    """Coordinates on one of the chromosomes."""


class NamesRead(NamedTuple):
    """Coordinates of n names, with rows 0 to n - 1."""

    ocrs: pd.DataFrame
    """``chrom``, ``start`` and ``end``, which are valid where `is_read`."""
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
    """A number in the form of `_NUMBER`; -1 if it is not whole."""
    number = float(text.replace(",", ""))
    return int(number) if number.is_integer() and number < 1e12 else -1


_NOTHING = ("", "0", "0")


def _read_rarely_written(text: str) -> tuple[str, int, int] | None:
    """Read a name that does not have the plain form. Its contig must be a known one, so that free text is not taken for coordinates."""
    found = _RARE.fullmatch(text)
    if found and _judge_contig(found[1]) != Reading.GUESSED:
        start, end = _whole(found[2]), _whole(found[3])
        return (found[1], start, end) if min(start, end) >= 0 else None
    found = _DOTTED.fullmatch(text)
    if found and _judge_contig(found[1]) != Reading.GUESSED:
        start, end = int(found[2]), int(found[3])
        # Versions, and names of genes that were made unique, also contain dots.
        if without_build(found[1]).lower().startswith("chr") or (
            end - start >= _MIN_WIDTH and not is_chromosome(found[1])
        ):
            return found[1], start, end
    return None


# The index that was read last, and what was read of it: one call asks first which features are peaks and then where they lie, and a
# million names take seconds. An index never changes, and is not kept alive from here.
_last: tuple[weakref.ref[pd.Index], NamesRead] | None = None


def scan_names(names: Iterable[Any]) -> NamesRead:
    """Read the coordinates in names; no name raises an error."""
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
    """Which of n names hold coordinates, on any build and contig, shape (n,)."""
    read = scan_names(names)
    return read.is_read | (read.reading == Reading.OTHER_BUILD)


def looks_transposed(
    obs_names: Iterable[Any], var_names: Iterable[Any], *, has_columns: bool = False, n_names: int = 1000
) -> bool:
    """Whether rows are OCRs and columns are not, judged by the first `n_names` names of each.

    `has_columns` says that the table of the rows, and not that of the columns, has coordinates.
    """
    rows, columns = (
        scan_names(pd.Index(names)[:n_names]).reading >= Reading.CHROMOSOME for names in (obs_names, var_names)
    )
    return len(rows) > 0 and (has_columns or bool(rows.mean() > 0.5)) and not columns.any()


def fix_columns(where: str = "var") -> str:
    """Advice for names that cannot be read."""
    if not where.endswith("var"):
        return f"Give a table instead, with the columns chrom, start and end (0-based, half-open): {where} = pandas.DataFrame(...)."
    return f'Give coordinates instead: set {where}["chrom"], {where}["start"] and {where}["end"] (0-based, half-open).'


def refuse_unread(names: Iterable[Any], reading: NDArray[np.int8], *, where: str = "var") -> None:
    """Raise ValueError with the first three names that were not read, if there are any.

    Parameters
    ----------
    names
        Names of n OCRs.
    reading
        The `Reading` of each name, shape (n,).
    where
        Name of the table in which the user can give coordinates instead.
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
        f"Keep only the OCRs of GRCh38, or move those of hg19 with sfa.pp.liftover_ocrs({holder}, "
        'chain="hg19ToHg38.over.chain.gz") after naming them without the build.',
    )
    refuse(reading <= Reading.UNCLEAR, "are not of the form chr1:100-200", fix_columns(where))
    refuse(reading == Reading.EMPTY, "have an end not beyond their start", fix_columns(where))


def parse_names(names: Iterable[Any]) -> pd.DataFrame:
    """Read coordinates from OCR names.

    Names of the form ``chr1:1-2``, ``chr1-1-2``, ``chr1_1_2`` and mixtures of these separators can be read, and also variants

    - without ``chr``
    - with ``GRCh38`` or ``hg38`` as a prefix (``GRCh38_chr1:1-2``, ``hg38.chr1:1-2``)
    - with thousands separators (``chr1:1,000-2,000``)
    - followed by a strand (``chr1:1-2(+)``)
    - as bytes, or as the text of bytes (``"b'chr1:1-2'"``, ``"b'chr1':1-2"``)

    The text before the last two numbers is the contig: ``chr14-GL000194v1-random-1-2`` lies on a scaffold. Ambiguous names are refused,
    such as ``chr1_5_10_20``, or ``chr1:1-2-1``, which is a name that was made unique.

    Parameters
    ----------
    names
        Names of n OCRs.

    Returns
    -------
    Table with rows 0 to n - 1 and columns ``chrom`` (in the spelling of :func:`normalize_chromosomes`), ``start`` and ``end`` (int64, as
    written in the name).

    Raises
    ------
    ValueError
        If a name is ambiguous or names another genome build, or its end is not greater than its start.
    """
    names = list(names)
    read = scan_names(names)
    if not read.is_read.all():
        refuse_unread(names, read.reading)
    return read.ocrs
