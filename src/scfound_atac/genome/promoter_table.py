"""Starts of transcription by gene, and genes by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._logging import logger
from ._chromosomes import chromosome_ids
from ._genes import checked_genes, transcription_starts

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SHOWN = 3  # names in messages


def promoter_table(genes: str | os.PathLike[str] | pd.DataFrame) -> pd.DataFrame:
    """Starts of transcription of a table of genes or transcripts.

    Parameters
    ----------
    genes
        As for `scfound_atac.genome.read_genes`. Rows may be genes, transcripts or single bases, and a gene may have several.

    Returns
    -------
    One row per different start, in the order of the table: ``chrom``, ``tss`` (0-based), ``name``, ``strand``, ``id`` and ``type`` (``""``
    where the table has none), and ``gene``, the number of the gene from 0. Rows belong to one gene if they have the same id, whatever its
    version, or without ids the same symbol and chromosome; so one symbol can stand for two genes. Rows on chrM and scaffolds are left out,
    and their number is logged.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        As `scfound_atac.genome.read_genes`; and if no row lies on chr1 to chr22, chrX or chrY.
    """
    table = checked_genes(genes)
    for column in ("id", "type"):
        values = table[column] if column in table else pd.Series("", index=table.index)
        table[column] = values.where(values.notna(), "").astype(str).str.strip()
    table["tss"] = transcription_starts(table)
    is_known = chromosome_ids(table["chrom"]) > 0
    if not is_known.any():
        names = ", ".join(table["chrom"].unique()[:_SHOWN])
        msg = f"None of the {len(table)} rows of the table of genes lies on chr1 to chr22, chrX or chrY: {names}."
        raise ValueError(msg)
    if n_lost := int((~is_known).sum()):
        logger.info("%d of %d rows of the table of genes lie on chrM or scaffolds and are left out", n_lost, len(table))
    table = table[is_known]
    own = table["name"] + "\t" + table["chrom"]
    table = table.assign(gene=pd.factorize(own.where(table["id"] == "", without_version(table["id"])))[0])
    columns = ["chrom", "tss", "name", "strand", "id", "type", "gene"]
    return table[columns].drop_duplicates(["gene", "chrom", "tss"]).reset_index(drop=True)


def select_genes(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows of the genes `names` of a `promoter_table`.

    A symbol selects all genes that have it, and an Ensembl id any version of it. A symbol that is spelled in other cases than in the table
    is taken if there is only one such gene. Names that are not found are logged.

    Parameters
    ----------
    table
        A table from `promoter_table`.
    names
        Symbols or Ensembl ids.

    Raises
    ------
    KeyError
        If none is found; the message shows similar symbols.
    """
    wanted = list(dict.fromkeys(str(name).strip() for name in names))
    symbols, ids = table["name"], without_version(table["id"])
    lower = symbols.str.lower()
    # Symbols that differ in case alone are ambiguous when they are spelled otherwise.
    n_spellings = symbols.groupby(lower).nunique()
    is_wanted = np.zeros(len(table), dtype=bool)
    unmatched, respelled = [], []
    rows_of_symbol, rows_of_id, rows_of_lower = (x.groupby(x).indices for x in (symbols, ids[ids != ""], lower))
    number_with_id = np.flatnonzero(ids != "")
    for name in wanted:
        version_free = without_version(pd.Series([name])).iloc[0]
        rows: NDArray[np.int64]
        if name in rows_of_symbol:
            rows = rows_of_symbol[name]
        elif version_free in rows_of_id:
            rows = number_with_id[rows_of_id[version_free]]
        elif n_spellings.get(name.lower(), 0) == 1:
            rows = rows_of_lower[name.lower()]
            respelled.append(f"{name} as {symbols.iloc[rows[0]]}")
        else:
            unmatched.append(name)
            continue
        is_wanted[rows] = True
    if respelled:
        logger.warning("%d genes were found in other spelling: %s", len(respelled), ", ".join(respelled[:_SHOWN]))
    if unmatched and not is_wanted.any():
        close = [
            x for name in unmatched[:_SHOWN] for x in difflib.get_close_matches(name.upper(), symbols.unique(), n=3)
        ]
        hint = f" Similar symbols: {', '.join(dict.fromkeys(close))}." if close else ""
        msg = (
            f"None of the {len(wanted)} genes is in the table of genes: {', '.join(map(repr, unmatched[:_SHOWN]))}. Use symbols or Ensembl "
            f"ids of human genes, or pass a table with starts of transcription as genes=.{hint}"
        )
        raise KeyError(msg)
    if unmatched:
        logger.warning(
            "%d of %d genes are not in the table of genes: %s",
            len(unmatched),
            len(wanted),
            ", ".join(unmatched[:_SHOWN]),
        )
    return table[is_wanted].reset_index(drop=True)


def without_version(ids: pd.Series) -> pd.Series:
    """Ensembl ids in capitals without the version behind the point; other texts as they are."""
    is_ensembl = ids.str.fullmatch(r"(?i)ENS[A-Z]*G?\d+(\.\d+)?")
    return ids.where(~is_ensembl, ids.str.upper().str.partition(".")[0])
