"""Tables of starts of transcription, and the genes in them that a user names."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._arguments import NotFoundError
from .._logging import logger
from ._chromosomes import CHROMOSOME_SIZES, CHROMOSOMES
from ._genes import checked_genes, read_file, transcription_starts

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})(?:\.\d+)?(?:_PAR_Y)?", re.IGNORECASE)
_N_SHOWN = 5  # names in a message
# Rows of one common width above 1 are windows around TSSs, as in the files of ABC, and no bounds of genes; of fewer rows it may be chance.
_MIN_WINDOWS = 20


def read_promoters(genes: str | os.PathLike[str] | pd.DataFrame, *, transcripts: bool = False) -> pd.DataFrame:
    """Read a table of genes or of starts of transcription (TSSs): one row per TSS.

    Unlike `read_genes`, which merges the rows of a symbol into one body, this keeps several TSSs of a gene. Rows are of one gene if they
    have the same name, chromosome and strand, and the same id, if there are ids. Genes with one name on two chromosomes, or with two
    Ensembl ids, are therefore two genes. A TSS that a gene has twice is kept once. Genes on chrM and on scaffolds are left out; their
    number is logged.

    Parameters
    ----------
    genes
        One of the following, as a file plain or compressed:

        - a BED file of genes or of TSSs, with a header that names the columns ``chrom``, ``start``, ``end``, ``name`` and ``strand``, or a
          BED6 file without a header. The TSS is ``start`` on the plus strand and ``end - 1`` on the minus strand, which is the base itself
          in a file of single bases. If all rows, 20 or more, have one width above 1, they are taken for windows around TSSs, and the TSS
          is their middle; this is logged.
        - a GTF or GFF3 file, of which the records of genes are used, or those of transcripts if it has none of genes
        - a DataFrame with these columns, or with ``chrom``, ``tss`` (0-based), ``name`` and ``strand``; without a column of names the index
          has them
    transcripts
        Whether the TSSs of a GTF or GFF3 file are those of its transcripts, also if it has records of genes.

    Returns
    -------
    In the order of the first row of each TSS, numbered from 0: ``chrom`` (``"chr1"``, ...), ``tss`` (int64, 0-based, GRCh38), ``name``,
    ``strand`` (``"+"`` or ``"-"``), ``id`` and ``type`` (``""`` where there is none), and ``gene``, the number of the gene from 0 in the
    order of the table, which the TSSs of a gene share.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If columns are missing; rows have no name, no strand or no valid coordinates; a TSS lies beyond the end of its chromosome on GRCh38;
        there is no gene on chr1 to chr22, chrX or chrY; a file is not a table of genes; or `genes` is the name of a gene.
    TypeError
        If `genes` is a list of names, or of another type that is not a table.
    """
    # 1. Rows with bounds and our names of columns.
    if isinstance(genes, pd.DataFrame):
        table = _with_bounds(genes)
    else:
        table = read_file(genes, records="transcripts" if transcripts else "genes or transcripts")
    if len(table) == 0:
        msg = "The table of genes has no rows."
        raise ValueError(msg)
    table = checked_genes(table)
    found = table[["chrom", "name", "strand"]].assign(tss=_tss(table))
    for column in ("id", "type"):
        given = table[column] if column in table else pd.Series("", index=table.index, dtype=object)
        found[column] = given.where(given.notna(), "").astype(str).str.strip()

    # 2. Chromosomes that models know, and positions that exist there.
    there = found["chrom"].isin(CHROMOSOMES).to_numpy()
    if not there.any():
        some = ", ".join(map(repr, found["chrom"].unique()[:3]))
        msg = f"None of the {len(found)} rows of the table of genes is on chr1 to chr22, chrX or chrY; chromosomes: {some}."
        raise ValueError(msg)
    if not there.all():
        some = ", ".join(found["name"][~there].unique()[:_N_SHOWN])
        logger.info(
            "%d of %d rows of the table of genes are on chrM or scaffolds and are left out: %s, ...",
            (~there).sum(),
            len(found),
            some,
        )
    found = found[there].reset_index(drop=True)
    beyond = found["tss"] >= found["chrom"].map(CHROMOSOME_SIZES["GRCh38"]).astype(np.int64)
    if beyond.any():
        some = ", ".join(found["name"][beyond].unique()[:3])
        msg = f"{beyond.sum()} of {len(found)} genes start beyond their chromosome's end on GRCh38, among them {some}. Check its build."
        raise ValueError(msg)

    # 3. Genes, and each of their TSSs once. A file may give versions of an id, or an id in either case.
    stems = [_stem(value) for value in found["id"]]
    found["gene"] = found.assign(id=stems).groupby(["name", "chrom", "strand", "id"], sort=False).ngroup()
    found = found.drop_duplicates(["gene", "tss"]).reset_index(drop=True)
    return found[["chrom", "tss", "name", "strand", "id", "type", "gene"]]


def select_genes(table: pd.DataFrame, names: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Find the rows of named genes.

    A name is looked up as a symbol; then as an id, of which the version (``.7``) and the case are ignored on both sides; then as a symbol
    in another case, if only one symbol matches. A name may match several rows: all TSSs of a gene, and all genes with that symbol or id.

    Parameters
    ----------
    table
        Genes: ``name`` and perhaps ``id``, as from `read_promoters` or `read_genes`.
    names
        Symbols (``"MYC"``) or Ensembl ids (``"ENSG00000136997"``, ``"ENSG00000136997.19"``).

    Returns
    -------
    rows
        Positions of the rows, each once, in the order of `names`, then of the table.
    unmatched
        Names that match nothing, each once, in their order. A warning is logged with their number and the first few.

    Raises
    ------
    KeyError
        If names are given and none matches; the message lists names that are spelled alike.
    """
    asked = list(dict.fromkeys(str(name).strip() for name in names))
    symbols = [str(name).strip() for name in table["name"]]
    ids = [str(id_) for id_ in table["id"].where(table["id"].notna(), "")] if "id" in table else [""] * len(table)
    # 1. Rows of each spelling. A table may have ids as names, so that both columns count.
    by_symbol: dict[str, list[int]] = {}
    by_id: dict[str, list[int]] = {}
    for row, (symbol, id_) in enumerate(zip(symbols, ids, strict=True)):
        by_symbol.setdefault(symbol, []).append(row)
        for stem in {_stem(id_), _stem(symbol) if _ENSEMBL.fullmatch(symbol) else ""} - {""}:
            by_id.setdefault(stem, []).append(row)
    spellings: dict[str, list[str]] = {}
    for symbol in by_symbol:
        spellings.setdefault(symbol.casefold(), []).append(symbol)

    # 2. Exact symbols, ids, and symbols in another case if there is no doubt which is meant.
    found: dict[int, None] = {}
    unmatched, in_other_case = [], []
    for name in asked:
        rows = by_symbol.get(name) or by_id.get(_stem(name))
        alike = spellings.get(name.casefold(), ())
        if not rows and len(alike) == 1:
            rows = by_symbol[alike[0]]
            in_other_case.append(f"{name} -> {alike[0]}")
        if not rows:
            unmatched.append(name)
            continue
        found.update(dict.fromkeys(rows))

    # 3. What the user is told.
    if unmatched and not found:
        msg = f"None of the {len(asked)} genes is in the table of {len(by_symbol)} genes: {_some(unmatched)}.{_alike(unmatched, by_symbol)}"
        raise NotFoundError(msg)
    if in_other_case:
        logger.info("%d genes were found in another case: %s", len(in_other_case), _some(in_other_case))
    if unmatched:
        logger.warning("%d of %d genes are not in the table of genes: %s", len(unmatched), len(asked), _some(unmatched))
    return np.fromiter(found, dtype=np.int64, count=len(found)), unmatched


def _with_bounds(genes: pd.DataFrame) -> pd.DataFrame:
    """A table of TSSs as one of intervals of a single base; other tables as they are."""
    lower = {str(column).lower(): column for column in reversed(genes.columns)}
    if "tss" not in lower or "start" in lower:
        return genes
    tss = pd.to_numeric(genes[lower["tss"]], errors="coerce")
    # Whole numbers stay whole; what is none is refused with the other coordinates.
    return genes.assign(start=tss, end=tss + 1)


def _tss(table: pd.DataFrame) -> NDArray[np.int64]:
    """First transcribed base of each row, (n,)."""
    width = (table["end"] - table["start"]).to_numpy()
    if len(table) >= _MIN_WINDOWS and width[0] > 1 and (width == width[0]).all():
        logger.warning(
            "all %d rows of the table of genes are %d bases wide: taken for windows around TSSs, whose middle is used",
            len(table),
            width[0],
        )
        return (table["start"] + width // 2).to_numpy(dtype=np.int64)
    return transcription_starts(table)


def _stem(name: str) -> str:
    """An id in upper case, one of Ensembl without its version."""
    match = _ENSEMBL.fullmatch(name.strip())
    return (match[1] if match else name.strip()).upper()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_N_SHOWN]) + (", ..." if len(names) > _N_SHOWN else "")


def _alike(names: Sequence[str], symbols: Iterable[str]) -> str:
    """A sentence with the symbols that are spelled like the first names, or nothing."""
    spelled = {symbol.upper(): symbol for symbol in symbols}
    close = [
        spelled[match]
        for name in names[:3]
        for match in difflib.get_close_matches(name.upper(), list(spelled), n=2, cutoff=0.75)
    ]
    return f" Did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
