"""Read the coordinates of OCRs from a table such as ``adata.var``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._arguments import settable
from .._logging import logger
from ._chromosomes import is_chromosome, normalize_chromosomes
from .build import check_genome, declared_genome, looks_like_grch38
from .names import Reading, fix_columns, refuse_unread, scan_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]

_CHROM = ("chrom", "chr", "chromosome", "seqnames", "seqname", "seqid", "contig")
_BOUNDS = (
    ("start", "end"),
    ("start", "stop"),
    ("chromstart", "chromend"),
    ("chrom_start", "chrom_end"),
    ("chr_start", "chr_end"),
)
_BUILDS = ("hg38", "grch38")
_INTERVALS = ("interval",)
_MISSING = ("", "nan", "none", "<na>", "na", ".")


def _lower_columns(table: pd.DataFrame) -> dict[str, Any]:
    """Columns by their name in lower case with underscores; the first of those that only differ in case."""
    return {
        re.sub(r"[\s.-]+", "_", str(column).lower().removeprefix("#")): column for column in reversed(table.columns)
    }


def _column_sets(table: pd.DataFrame) -> Iterator[tuple[Any, Any, Any, bool]]:
    """Sets of columns with chromosome, start and end, and whether their names contain GRCh38; the usual ones first."""
    columns = _lower_columns(table)
    plain = [columns[name] for name in _CHROM if name in columns]
    if {"chrom", "start", "end"} <= set(
        table.columns
    ):  # the names that this package writes take precedence over those in other cases
        plain = list(dict.fromkeys(["chrom", *plain]))
        columns |= {"start": "start", "end": "end"}
    for low, high in _BOUNDS:
        if low in columns and high in columns:
            for chrom in plain:
                yield chrom, columns[low], columns[high], False
    for build in _BUILDS:
        own = [columns[f"{build}_{name}"] for name in _CHROM if f"{build}_{name}" in columns]
        own += [columns[f"{name}_{build}"] for name in _CHROM if f"{name}_{build}" in columns]
        for low, high in _BOUNDS:
            for first, last in ((f"{build}_{low}", f"{build}_{high}"), (f"{low}_{build}", f"{high}_{build}")):
                if first in columns and last in columns:
                    for chrom in own or plain:
                        yield chrom, columns[first], columns[last], True


def coordinate_columns(var: pd.DataFrame) -> tuple[Any, Any, Any] | None:
    """Names of the columns with chromosome, start and end; None if there are none."""
    return next((columns[:3] for columns in _column_sets(var)), None)


@dataclass(frozen=True)
class _Source:
    """Coordinates from one source: a set of columns, or names."""

    label: str
    """Name in messages."""
    ocrs: pd.DataFrame
    """``chrom``, ``start``, ``end`` with rows 0 to n - 1, which are valid where `holds`."""
    holds: Bools
    """Which rows have coordinates."""
    refuse: Callable[[Bools, str], None]
    """Raises the error for rows without coordinates; the text of a hint is appended."""
    on_chromosome: Bools
    """Which rows are on a chromosome."""
    broken: Bools
    """Which rows have invalid values. Where values are only missing, another source may have them."""
    columns: tuple[Any, ...] = ()
    """The columns; empty for names."""
    is_labelled: bool = False
    """Whether the names of the columns contain GRCh38."""
    reading: NDArray[np.int8] | None = None
    """Where coordinates are read from text, such as names, what each text was found to be."""

    @property
    def is_text(self) -> bool:
        """Whether coordinates are read from text."""
        return self.reading is not None


def _refuse(var: pd.DataFrame, bad: Bools, what: str, fix: str) -> None:
    if bad.any():
        first = ", ".join(repr(name) for name in var.index[bad][:3])
        msg = f"{bad.sum()} of {len(var)} OCRs have {what}, among them {first}. {fix}"
        raise ValueError(msg)


def _numbers(values: pd.Series) -> NDArray[Any]:
    """Numbers of a column: int64 if all are whole, or else float64, with NaN for values that are not numbers."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object).infer_objects()
    if pd.api.types.is_integer_dtype(values) and not values.hasnans:
        return values.to_numpy(dtype=np.int64)
    if not pd.api.types.is_numeric_dtype(values):
        # AnnData may store numbers as text, also with thousands separators.
        values = values.astype(object).map(lambda v: v.decode(errors="replace") if isinstance(v, bytes) else v)
        values = values.map(lambda v: v.replace(",", "") if isinstance(v, str) else v)
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _column_source(var: pd.DataFrame, where: str, chrom: Any, start: Any, end: Any, is_labelled: bool) -> _Source:  # noqa: FBT001
    names = var[chrom].astype(object)
    no_chrom = names.isna().to_numpy()
    spelled = normalize_chromosomes(names)
    codes, unique = pd.factorize(spelled)
    # not in place: what pandas gives out may be read-only
    no_chrom = no_chrom | np.array([str(name).lower() in _MISSING for name in unique], dtype=bool)[codes]
    bounds, faults = [], [(no_chrom, f'no chromosome in {where}["{chrom}"]')]
    broken = np.zeros(len(var), dtype=bool)
    for column in (start, end):
        numbers = _numbers(var[column])
        if numbers.dtype != np.int64:
            is_missing = np.isnan(numbers)
            is_broken = ~is_missing & (~np.isfinite(numbers) | (numbers != np.round(numbers)))
            faults += [
                (is_missing, f'no number in {where}["{column}"]'),
                (is_broken, f'no whole number in {where}["{column}"]'),
            ]
            broken = broken | is_broken
            # Text that is not a number counts as invalid, not as missing.
            lost = np.flatnonzero(is_missing)
            is_word = [str(value).strip().lower() not in (*_MISSING, "nat") for value in var[column].iloc[lost]]
            broken[lost] |= np.array(is_word, dtype=bool)
            numbers = np.where(is_missing | is_broken, 0, numbers).astype(np.int64)
        bounds.append(numbers)
    lacking = np.logical_or.reduce([bad for bad, _ in faults])
    first, last = bounds
    first = _from_zero(var, where, first, last, ~lacking)
    below, empty = ~lacking & (first < 0), ~lacking & (last <= first)
    faults += [(below, "a start below 0"), (empty, "an end not beyond the start")]
    fix = (
        f'Correct {where}["{chrom}"], {where}["{start}"] and {where}["{end}"] (0-based, half-open), or drop these OCRs.'
    )

    def refuse(rows: Bools, hint: str) -> None:
        for bad, what in faults:
            _refuse(var, bad & rows, what, fix + hint)

    return _Source(
        f"the columns {chrom!r}, {start!r} and {end!r}",
        pd.DataFrame({"chrom": spelled, "start": first, "end": last}),
        ~np.logical_or.reduce([bad for bad, _ in faults]),
        refuse,
        on_chromosome=np.array([is_chromosome(str(name)) for name in unique], dtype=bool)[codes],
        broken=broken | below | empty,
        columns=(chrom, start, end),
        is_labelled=is_labelled,
    )


def _from_zero(
    var: pd.DataFrame, where: str, start: NDArray[np.int64], end: NDArray[np.int64], known: Bools
) -> NDArray[np.int64]:
    """Starts counted from 0. GRanges of R counts from 1, which its column ``width`` reveals."""
    width = next((column for name, column in _lower_columns(var).items() if name == "width"), None)
    if width is None or not known.any():
        return start
    widths = _numbers(var[width])[known]
    is_known = ~np.isnan(widths)
    if not is_known.any() or (widths[is_known] != (end - start + 1)[known][is_known]).any() or (start[known] < 1).any():
        return start
    logger.info(
        'Starts in %s are counted from 1, as %s["%s"] shows (end - start + 1): 1 is subtracted', where, where, width
    )
    return start - known


def _name_source(var: pd.DataFrame, where: str, column: Any | None = None, *, alone: bool = True) -> _Source:
    names = var.index if column is None else var[column]
    read = scan_names(names)
    # If there are columns, only names with certain coordinates are used: "peak_1_200" may be just a name.
    holds = read.is_read if alone else read.reading >= Reading.CONTIG

    def refuse(rows: Bools, _: str) -> None:
        reading = np.where(read.reading == Reading.GUESSED, np.int8(Reading.NONE), read.reading)
        refuse_unread(names, np.where(rows, reading, np.int8(Reading.CHROMOSOME)), where=where)

    return _Source(
        "the names" if column is None else f"the column {column!r}",
        read.ocrs,
        holds,
        refuse,
        on_chromosome=read.reading == Reading.CHROMOSOME,
        broken=np.zeros(len(var), dtype=bool),
        columns=() if column is None else (column,),
        reading=read.reading,
    )


def _sources(var: pd.DataFrame, where: str) -> list[_Source]:
    """All sources that may hold coordinates: sets of columns, the column ``interval`` of 10x, and names."""
    found = [_column_source(var, where, *columns) for columns in _column_sets(var)]
    columns = _lower_columns(var)
    found += [_name_source(var, where, columns[name]) for name in _INTERVALS if name in columns]
    found.append(_name_source(var, where, alone=not found))
    # Sets of columns without any value, and names without coordinates, are ignored.
    return [source for source in found if source.holds.any() or source.broken.any()] or found[:1]


def _comparable(a: _Source, b: _Source) -> Bools:
    """Rows for which two sources can be compared.

    Scaffolds have too many spellings to compare, and text before two numbers need not be a scaffold. Chromosomes are recognised in any
    spelling.
    """
    rows = a.holds & b.holds & (a.on_chromosome | b.on_chromosome)
    for source in (a, b):
        if source.is_text:
            rows &= source.on_chromosome
    return rows


def _differences(a: _Source, b: _Source) -> Bools:
    """Rows for which two sources give different positions. A difference of one base is due to the way of counting."""
    differ = a.ocrs["chrom"].to_numpy() != b.ocrs["chrom"].to_numpy()
    for column in ("start", "end"):
        differ = differ | (np.abs(a.ocrs[column].to_numpy() - b.ocrs[column].to_numpy()) > 1)
    return _comparable(a, b) & differ


def _show(ocrs: pd.DataFrame, row: int) -> str:
    chrom, start, end = ocrs.iloc[row]
    return f"{chrom}:{start}-{end}"


def _choose(var: pd.DataFrame, a: _Source, b: _Source, differ: Bools, where: str) -> _Source:
    """The one of two disagreeing sources that is on GRCh38."""
    rows = np.flatnonzero(differ)
    n_both = int(_comparable(a, b).sum())
    shown = [f"{var.index[row]!r}: {_show(a.ocrs, row)} or {_show(b.ocrs, row)}" for row in rows[:3]]
    kinds = "two sets of columns" if a.columns and b.columns else "names and columns"
    disagreement = (
        f"{where}: {kinds} disagree in {len(rows)} of {n_both} OCRs, e.g. {'; '.join(shown)} "
        f"(by {a.label}, or by {b.label})"
    )
    # Rows on which they agree say nothing about which one is correct.
    recognised = [source for source in (a, b) if looks_like_grch38(source.ocrs[differ])]
    if len(recognised) == 1:
        logger.warning(
            "%s: using %s, which are recognised as GRCh38 while the others are not",
            disagreement,
            recognised[0].label,
        )
        return recognised[0]
    labelled = [source for source in (a, b) if source.is_labelled]
    if len(labelled) == 1:
        logger.warning("%s: using %s, whose names say GRCh38", disagreement, labelled[0].label)
        return labelled[0]
    lone = "Correct these OCRs or drop them" if len(rows) <= 3 else "Remove what is wrong"
    msg = f"{disagreement}. {lone}: {_mend(a, b, where)}"
    raise ValueError(msg)


def _mend(a: _Source, b: _Source, where: str) -> str:
    """Advice how to use one source or the other."""
    ways = []
    index = f"{where}_names" if where.endswith(".var") else f"{where}.index"
    for wrong, right in ((a, b), (b, a)):
        if wrong.columns:
            # Columns that belong to both sets must be kept.
            own = [column for column in wrong.columns if column not in right.columns]
            ways.append(f"if {right.label} are right, drop the others: del {where}[{own[-1]!r}]")
        else:
            chrom, *bounds = (f"{where}[{column!r}].astype(str)" for column in right.columns)
            # A column such as 10x's "interval" holds whole names, and has no bounds to add.
            names = " + ".join([chrom, *(f'"{gap}" + {bound}' for gap, bound in zip(":-", bounds, strict=False))])
            ways.append(f"if {right.label} are right, rename: {index} = {names}")
    return "; ".join(ways) + "."


def _fill(a: _Source, b: _Source) -> _Source:
    """Combine two sources that agree: rows that the first lacks are taken from the second."""
    ocrs, rows = a.ocrs, b.holds & ~a.holds & ~a.broken
    first, second = ocrs["start"].to_numpy(), b.ocrs["start"].to_numpy()
    # If starts differ by one base, the smaller one is counted from 0.
    counted = _comparable(a, b) & (second == first - 1)
    start = np.where(counted, second, first)
    if rows.any() or counted.any():
        ocrs = pd.DataFrame(
            {
                "chrom": np.where(rows, b.ocrs["chrom"].to_numpy(), ocrs["chrom"].to_numpy()),
                "start": np.where(rows, second, start),
                "end": np.where(rows, b.ocrs["end"].to_numpy(), ocrs["end"].to_numpy()),
            }
        )
    if rows.any():
        logger.info("%d of %d OCRs have no coordinates in %s: using %s", rows.sum(), len(rows), a.label, b.label)
    on_chromosome = np.where(rows, b.on_chromosome, a.on_chromosome)
    return replace(
        a, ocrs=ocrs, holds=a.holds | rows, on_chromosome=on_chromosome, is_labelled=a.is_labelled or b.is_labelled
    )


def _read(var: pd.DataFrame, role: str | None, *, is_table: bool = False) -> pd.DataFrame:
    where = "var" if role is None else role if is_table else f"{role}.var"
    if var.columns.has_duplicates:
        var = var.loc[:, ~var.columns.duplicated()]
    first, *others = _sources(var, where)
    chosen = first
    for other in others:
        differ = _differences(chosen, other)
        chosen = (
            _choose(var, chosen, other, differ, "adata.var" if role is None else where)
            if differ.any()
            else _fill(chosen, other)
        )
    if len(var) and not chosen.columns and chosen.reading is not None and (chosen.reading == Reading.NONE).all():
        raise ValueError(_no_coordinates(var, where, role or "the table"))
    if not chosen.holds.all():
        last = (first, *others)[-1]
        hint = ""
        if (
            chosen.columns
            and last.is_text
            and not last.columns
            and last.holds[chosen.broken].all()
            and chosen.broken.any()
        ):
            hint = f" The names also hold coordinates; to use them: del {where}[{chosen.columns[-1]!r}]."
        chosen.refuse(~chosen.holds, hint)
    return chosen.ocrs.set_axis(var.index, axis=0)


def _no_coordinates(var: pd.DataFrame, where: str, role: str) -> str:
    """What to say of features of which not one has a place."""
    names = ", ".join(repr(name) for name in var.index[:3])
    columns = f"; its columns are {list(var.columns)[:6]}" if len(var.columns) else ""
    return (
        f"None of the {len(var)} features of {role} has coordinates: names such as {names} are not of the form chr1:100-200, and {where} "
        f"has no columns chrom, start and end{columns}. {fix_columns(where)} If these features are genes, {role} holds expression, and "
        "chromatin accessibility (cells x peaks) is needed."
    )


def read_coordinates(var: pd.DataFrame, role: str) -> pd.DataFrame:
    """`get_ocrs` of the ``var`` of the object that is called `role` in messages."""
    return _read(var, role)


def get_ocrs(var: pd.DataFrame) -> pd.DataFrame:
    """Read the coordinates of OCRs from columns and from names.

    - Columns are ``chrom``, ``start``, ``end``, or common variants of these names: ``chr``, ``seqnames`` or ``chromosome`` with ``start``
      and ``end``, and ``#Chromosome``, ``hg38_Start``, ``hg38_End`` of published OCR tables. Chromosomes may be numbers (23 for X, 24
      for Y).
    - Columns are taken as 0-based and half-open, unless a column ``width`` shows that starts are counted from 1, as in R.
    - Where there are no such columns, or they have no value, the index is read as by :func:`parse_names`.
    - If names and columns, or two sets of columns, disagree, those are used that are recognised as GRCh38 while the others are not, or
      those with ``hg38`` in their name, and a warning is logged. If this does not decide, ValueError is raised.

    Parameters
    ----------
    var
        Table with one row per OCR, such as ``adata.var``. It is not changed.

    Returns
    -------
    New table with the index of `var` and the columns ``chrom`` (``"chr1"``, ...), ``start`` and ``end`` (int64).

    Raises
    ------
    ValueError
        If coordinates are missing, negative, of length 0 or not whole numbers, names cannot be read, or names and columns disagree.
    """
    return _read(var, None)


def column_ocrs(table: pd.DataFrame) -> pd.DataFrame:
    """Coordinates as from `get_ocrs`, but only from the first set of columns.

    Raises
    ------
    ValueError
        If a row has no valid coordinates, or there are no columns with coordinates.
    """
    columns = next(_column_sets(table), None)
    if columns is None:
        raise ValueError(fix_columns())
    source = _column_source(table, "var", *columns)
    source.refuse(~source.holds, "")
    return source.ocrs.set_axis(table.index, axis=0)


def refuse_duplicates(ocrs: pd.DataFrame, *, role: str = "adata", is_table: bool = False) -> None:
    """Raise ValueError with the first three OCRs whose coordinates are repeated, if there are any."""
    repeated = ocrs.duplicated(["chrom", "start", "end"]).to_numpy()
    if repeated.any():
        some = ocrs[repeated].iloc[:3]
        first = ", ".join(f"{c}:{s}-{e}" for c, s, e in zip(some["chrom"], some["start"], some["end"], strict=True))
        mend = f"{settable(role)} = {role}[:, ~sfa.genome.get_ocrs({role}.var).duplicated().to_numpy()].copy()"
        if is_table:
            mend = f"{role} = {role}[~sfa.genome.get_ocrs({role}).duplicated().to_numpy()]"
        what = f"{repeated.sum()} of {len(ocrs)} OCRs repeat the coordinates of an earlier one, among them {first}"
        msg = f"{what}. Keep one of each: {mend}."
        raise ValueError(msg)


def read_ocrs(
    var: pd.DataFrame, *, genome: Any = None, uns_genome: Any = None, role: str = "adata", is_table: bool = False
) -> pd.DataFrame:
    """Read the coordinates of OCRs as `get_ocrs` does, and check that they are unique and on GRCh38.

    Parameters
    ----------
    var
        Table with one row per OCR, such as ``adata.var``.
    genome
        Declared build; `uns_genome` if None.
    uns_genome
        The value of ``uns["genome"]``, in any form in which it may be stored. Without a declared build, the build is recognised.
    role
        Name of the object with these OCRs, for messages: ``"adata"``, ``"reference"``, ``'mdata["atac"]'``.
    is_table
        Whether `role` is the name of the table itself, not of an AnnData with it as ``var``.

    Raises
    ------
    ValueError
        If coordinates cannot be used, are repeated or are not on GRCh38.
    """
    declared = declared_genome(genome)
    if declared is None:
        declared = declared_genome(uns_genome)
    ocrs = _read(var, role, is_table=is_table)
    refuse_duplicates(ocrs, role=role, is_table=is_table)
    check_genome(ocrs, declared, role=role)
    return ocrs


def ocr_names(ocrs: pd.DataFrame) -> pd.Index:
    """Names such as ``chr1:100-600`` of the rows of `ocrs`, a table with ``chrom``, ``start`` and ``end``."""
    return pd.Index(ocrs["chrom"].astype(str) + ":" + ocrs["start"].astype(str) + "-" + ocrs["end"].astype(str))
