"""Read tables of genes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._logging import logger
from .bed import read_table
from .ocrs import column_ocrs, coordinate_columns

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from .bed import Records

_BED = ("chrom", "start", "end", "name", "score", "strand")
# Names of the other columns in lower case; chromosome, start and end are read as for OCRs.
_SPELLINGS = {
    "name": ("name", "symbol", "gene_name", "gene"),
    "strand": ("strand",),
    "id": ("id", "ensembl_id", "gene_id"),
    "type": ("type", "gene_type", "biotype", "gene_biotype"),
}


def read_genes(genes: str | os.PathLike[str] | pd.DataFrame) -> pd.DataFrame:
    """Read and check a table of genes.

    Each symbol occurs once in the result. Overlapping rows of a symbol on the same chromosome and strand are taken for transcripts of one
    gene and merged, from the first to the last base. Of several remaining rows the longest is kept. The number of dropped rows is logged.

    Parameters
    ----------
    genes
        One of the following, as a file plain or compressed:

        - a BED file with a header that names the columns ``chrom`` (or ``#chr``, ...), ``start``, ``end``, ``name`` (or ``symbol``, ...)
          and ``strand``, or a BED6 file without a header
        - a GTF or GFF3 file, of which the records of genes are used
        - a DataFrame with these columns, such as that of `scfound_atac.datasets.genes`; without a column of names the index has them

    Returns
    -------
    ``chrom`` (``"chr1"``, ...), ``start``, ``end`` (int64, 0-based, half-open, GRCh38), ``name``, ``strand`` (``"+"`` or ``"-"``), and
    ``id`` and ``type`` if there are such columns; in the order of the first row of each symbol, numbered from 0.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If columns are missing; rows have no name, no strand or no valid coordinates (the message shows the first three); a file is not a
        table of genes; or `genes` is the name of a gene.
    TypeError
        If `genes` is a list of names, or of another type that is not a table.
    """
    table = genes if isinstance(genes, pd.DataFrame) else read_file(genes)
    if len(table) == 0:
        msg = "The table of genes has no rows."
        raise ValueError(msg)
    return _one_per_name(checked_genes(table))


def transcription_starts(genes: pd.DataFrame) -> NDArray[np.int64]:
    """First transcribed base of each row of `genes`, (n,): ``start`` on the plus strand, and ``end - 1`` on the minus strand."""
    return np.where(genes["strand"] == "+", genes["start"], genes["end"] - 1).astype(np.int64)


_WANTED = (
    "genes= is a table with the positions of genes: the path of a BED, GTF or GFF3 file, a DataFrame with chrom, start, end, name and "
    "strand, or None for that of the package. Select genes by name from the result"
)
_TEXT_FILES = (".bed", ".gtf", ".gff", ".gff3", ".tsv", ".txt", ".csv", ".gz", ".bgz", ".bz2", ".xz")


def read_file(genes: str | os.PathLike[str], *, records: Records = "genes") -> pd.DataFrame:
    """The table in a file of genes, as text; `records` is that of `read_table`."""
    if not isinstance(genes, str | Path) and not hasattr(genes, "__fspath__"):
        shown = f" ({', '.join(map(repr, list(genes)[:3]))})" if isinstance(genes, list | tuple | set) else ""
        msg = f"genes= got {type(genes).__name__}{shown}. {_WANTED}."
        raise TypeError(msg)
    path = Path(genes)
    if path.is_dir():
        msg = f"{str(path)!r} is a folder. {_WANTED}."
        raise ValueError(msg)
    if not path.is_file():
        if isinstance(genes, str) and len(path.parts) == 1 and path.suffix.lower() not in _TEXT_FILES:
            msg = f"There is no file {genes!r}; is it the name of a gene? {_WANTED}."
            raise ValueError(msg)
        msg = (
            f"There is no file {str(path)!r}. Pass the path of a BED, GTF or GFF3 file, a DataFrame, or None as genes=."
        )
        raise FileNotFoundError(msg)
    table = read_table(path, records=records)
    if "strand" not in {str(name).lower() for name in table} and list(table)[:3] == ["chrom", "start", "end"]:
        msg = (
            f"{str(path)!r} has {table.shape[1]} columns and no header; without one, the six of BED6 are needed: chrom, start, end, name, "
            "score, strand."
        )
        raise ValueError(msg)
    return table


def checked_genes(table: pd.DataFrame) -> pd.DataFrame:
    """The table with our names of columns and with checked values."""
    lower = {str(column).lower(): column for column in reversed(table.columns)}
    found = {ours: next((lower[name] for name in names if name in lower), None) for ours, names in _SPELLINGS.items()}
    missing = [name for name in ("name", "strand") if found[name] is None]
    if found["name"] is None and not isinstance(table.index, pd.RangeIndex):
        missing.remove("name")
    if coordinate_columns(table) is None:
        missing.insert(0, "chrom, start, end")
    if missing:
        msg = f"The table of genes lacks {', '.join(missing)}; columns: {list(table.columns)}. Needed: chrom, start, end, name, strand."
        raise ValueError(msg)
    names = pd.Series(table.index if found["name"] is None else table[found["name"]].to_numpy(), dtype=object)
    names = names.where(names.notna(), "").astype(str).str.strip()
    _refuse(names, (names == "").to_numpy(), "no name", names.index)
    try:
        bounds = column_ocrs(table.set_axis(pd.Index(names), axis=0))
    except ValueError as error:
        msg = f"The table of genes has invalid coordinates: {error}"
        raise ValueError(msg) from error
    strand = pd.Series(table[found["strand"]].to_numpy(), dtype=object).astype(str).str.strip()
    _refuse(strand, ~strand.isin(["+", "-"]).to_numpy(), "a strand that is neither '+' nor '-'", names)
    checked = bounds.reset_index(drop=True).assign(name=names, strand=strand)
    for column in ("id", "type"):
        if found[column] is not None:
            checked[column] = table[found[column]].astype(object).to_numpy()
    return checked


def _refuse(values: pd.Series, bad: NDArray[np.bool_], what: str, shown: pd.Series | pd.Index) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)[:3]
        first = ", ".join(f"row {row} ({shown[row]}: {values[row]!r})" for row in rows)
        msg = f"{bad.sum()} of {len(values)} genes have {what}: {first}. Correct the table or drop these rows."
        raise ValueError(msg)


def _one_per_name(genes: pd.DataFrame) -> pd.DataFrame:
    if not genes["name"].duplicated().any():
        return genes
    first_row = genes.groupby("name", sort=False).ngroup()
    sorted_genes = genes.assign(gene=first_row).sort_values(["gene", "chrom", "strand", "start"], kind="stable")
    place = ["gene", "chrom", "strand"]
    reach = sorted_genes.groupby(place)["end"].cummax().groupby([sorted_genes[name] for name in place]).shift()
    cluster = (
        ~(sorted_genes["start"] < reach)
    ).cumsum()  # a row that starts after the end of all earlier rows starts a new cluster
    others = {name: "first" for name in genes.columns if name not in ("start", "end")}
    merged = sorted_genes.groupby(cluster).agg({"start": "min", "end": "max", **others, "gene": "first"})
    merged["length"] = merged["end"] - merged["start"]
    merged = merged.sort_values(["gene", "length"], ascending=[True, False], kind="stable")
    kept = merged.drop_duplicates("gene")[list(genes.columns)].reset_index(drop=True)
    logger.warning(
        "%d of %d rows of the table of genes repeat a symbol: %d were merged with an overlapping row, %d dropped for a longer one",
        len(genes) - len(kept),
        len(genes),
        len(genes) - len(merged),
        len(merged) - len(kept),
    )
    return kept
