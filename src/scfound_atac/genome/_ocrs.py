"""Coordinates of the OCRs of a var table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ._build import check_genome
from ._chromosomes import normalize_chromosomes
from ._names import parse_names

_CHROM = ("chrom", "chr", "chromosome", "seqnames", "seqname")
_STARTS_ENDS = (("start", "end"), ("hg38_start", "hg38_end"), ("chromstart", "chromend"), ("chrom_start", "chrom_end"))
_FIX = 'Correct var["chrom"], var["start"] and var["end"] (0-based, half-open), or drop these OCRs.'


def coordinate_columns(var: pd.DataFrame) -> tuple[str, str, str] | None:
    """Names of the columns with chromosome, start and end; None if there are none and names must be read."""
    if {"chrom", "start", "end"} <= set(var.columns):
        return "chrom", "start", "end"
    # Earlier columns win where two differ in case only.
    columns = {str(column).lower().removeprefix("#"): column for column in reversed(var.columns)}
    chrom = next((columns[name] for name in _CHROM if name in columns), None)
    pair = next((pair for pair in _STARTS_ENDS if set(pair) <= set(columns)), None)
    return None if chrom is None or pair is None else (chrom, columns[pair[0]], columns[pair[1]])


def _refuse(var: pd.DataFrame, bad: np.ndarray, what: str) -> None:
    if bad.any():
        first = ", ".join(repr(name) for name in var.index[bad][:3])
        msg = f"{bad.sum()} of {len(var)} OCRs have {what}, among them {first}. {_FIX}"
        raise ValueError(msg)


def _positions(var: pd.DataFrame, column: str) -> np.ndarray:
    values = var[column]
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if pd.api.types.is_integer_dtype(values) and not values.hasnans:
        return values.to_numpy(dtype=np.int64)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(var, np.isnan(numbers), f'no number in var["{column}"]')
    _refuse(var, ~np.isfinite(numbers) | (numbers != np.round(numbers)), f'no whole number in var["{column}"]')
    return numbers.astype(np.int64)


def get_ocrs(var: pd.DataFrame) -> pd.DataFrame:
    """Coordinates of OCRs, from columns where there are any, else from names.

    Columns are ``chrom``, ``start``, ``end``, or else a spelling in common use: ``chr``, ``seqnames`` or ``chromosome`` with
    ``start`` and ``end``, and the ``#Chromosome``, ``hg38_Start``, ``hg38_End`` of published OCR tables, where chromosomes
    may be numbers (23 for X, 24 for Y). Columns are taken as 0-based and half-open. Without such columns the index is read
    with :func:`parse_names`.

    Parameters
    ----------
    var
        One row per OCR, such as ``adata.var``; it is left as it is.

    Returns
    -------
    New table with the index of ``var`` and the columns ``chrom`` (``"chr1"``, ...), ``start`` and ``end`` (int64).

    Raises
    ------
    ValueError
        If coordinates are missing, negative, empty or not whole numbers, or names cannot be read.
    """
    columns = coordinate_columns(var)
    if columns is None:
        return parse_names(var.index).set_axis(var.index, axis=0)
    chrom, start, end = columns
    _refuse(var, var[chrom].isna().to_numpy(), f'no chromosome in var["{chrom}"]')
    ocrs = pd.DataFrame(
        {
            "chrom": normalize_chromosomes(var[chrom].astype(object)),
            "start": _positions(var, start),
            "end": _positions(var, end),
        },
        index=var.index,
    )
    _refuse(var, (ocrs["start"] < 0).to_numpy(), "a start below 0")
    _refuse(var, (ocrs["end"] <= ocrs["start"]).to_numpy(), "an end not beyond the start")
    return ocrs


def refuse_duplicates(ocrs: pd.DataFrame) -> None:
    """ValueError that names the first three OCRs whose coordinates stand more than once."""
    repeated = ocrs.duplicated(["chrom", "start", "end"]).to_numpy()
    if repeated.any():
        some = ocrs[repeated].iloc[:3]
        first = ", ".join(f"{c}:{s}-{e}" for c, s, e in zip(some["chrom"], some["start"], some["end"], strict=True))
        msg = (
            f"{repeated.sum()} of {len(ocrs)} OCRs repeat the coordinates of an earlier one, among them {first}. Keep one of each: "
            "adata = adata[:, ~sfa.genome.get_ocrs(adata.var).duplicated().to_numpy()].copy()."
        )
        raise ValueError(msg)


def checked_ocrs(var: pd.DataFrame, *genomes: str | None) -> pd.DataFrame:
    """Coordinates of OCRs as by `get_ocrs`, each once and on GRCh38.

    Parameters
    ----------
    var
        One row per OCR, such as ``adata.var``.
    *genomes
        Declared builds; the first that is not None holds. Without one the build is recognised.

    Raises
    ------
    ValueError
        If coordinates are not usable, stand more than once or are not on GRCh38.
    """
    ocrs = get_ocrs(var)
    refuse_duplicates(ocrs)
    check_genome(ocrs, next((genome for genome in genomes if genome is not None), None))
    return ocrs


def ocr_names(ocrs: pd.DataFrame) -> pd.Index:
    """Names such as ``chr1:100-600`` of a table with ``chrom``, ``start`` and ``end``."""
    return pd.Index(ocrs["chrom"].astype(str) + ":" + ocrs["start"].astype(str) + "-" + ocrs["end"].astype(str))
