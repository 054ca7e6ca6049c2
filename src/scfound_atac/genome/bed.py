"""Read text files with genome coordinates: variants of BED, GTF and GFF3."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd

from .._logging import logger
from .ocrs import column_ocrs, coordinate_columns

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_HDF5 = b"\x89HDF"
_BED = ("chrom", "start", "end", "name", "score", "strand")
_ATTRIBUTE = re.compile(r"""\s*([\w.:-]+)(?:\s*=\s*|\s+)("[^"]*"|[^;]*)(?:;|$)""")
# Names in GENCODE, Ensembl and NCBI of the records with genes, and of those with transcripts, for files without records of genes.
_GENES = frozenset(("gene", "ncRNA_gene", "pseudogene", "protein_coding_gene"))
_TRANSCRIPTS = frozenset(("transcript", "mRNA", "lnc_RNA", "ncRNA", "primary_transcript", "exon"))

Records: TypeAlias = Literal["genes", "genes or transcripts", "transcripts"]


def read_table(path: str | os.PathLike[str], *, records: Records = "genes") -> pd.DataFrame:
    """Read a text file with one interval per line.

    Parameters
    ----------
    path
        BED file with at least three columns, with or without a header (plain or after ``#``), and with comment, ``track`` and ``browser``
        lines; or GTF or GFF3 file, of which the genes are used. Files may be plain or compressed with gzip, bzip2 or xz, and separated
        by tabs, blanks or commas.
    records
        What is read of GTF and GFF3 files. ``"genes"``: one row per gene; in a file without records of genes, its transcripts are merged.
        ``"genes or transcripts"``: the same, but transcripts stay apart. ``"transcripts"``: one row per transcript, and one per gene in a
        file without transcripts.

    Returns
    -------
    Table of text with the columns of the header, or else of BED by position. For GTF and GFF3 the columns are ``chrom``, ``start``, ``end``
    (0-based, half-open), ``name``, ``strand``, ``id`` and ``type``.

    Raises
    ------
    ValueError
        If it is not such a file.
    """
    path = Path(path)
    try:
        header, rows = _split(path)
    except (UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(_no_text(path)) from error
    if rows and _is_gff(rows[0]):
        return _genes_of(path, records)
    return _as_bed(path, header, rows)


def read_bed_ocrs(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the OCRs of a BED file.

    Parameters
    ----------
    path
        BED file with three or more columns, narrowPeak or broadPeak, as :func:`read_table` reads it.

    Returns
    -------
    ``chrom`` (``"chr1"``, ...), ``start`` and ``end`` (int64, 0-based, half-open), in the order of the file, numbered from 0.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is not a BED file, or a line has no valid coordinates.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"There is no file {str(path)!r}."
        raise FileNotFoundError(msg)
    table = read_table(path)
    if coordinate_columns(table) is None:
        msg = f"{str(path)!r} has no columns chrom, start and end; columns: {list(table.columns)[:10]}."
        raise ValueError(msg)
    try:
        return column_ocrs(table)
    except ValueError as error:
        msg = f"{str(path)!r} is read as a BED file, one OCR per line (counted from 0): {error}"
        raise ValueError(msg) from error


def _no_text(path: Path) -> str:
    return f"{str(path)!r} is not a text file with one interval per line: a BED, GTF or GFF3 file, plain or gzipped, is needed."


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        first = file.read(6)
    if first.startswith(_HDF5) or (b"\0" in first and not first.startswith(tuple(_PACKED))):
        raise ValueError(_no_text(path))
    opener = next((opener for magic, opener in _PACKED.items() if first.startswith(magic)), None)
    with (opener or open)(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as text:  # type: ignore[operator]
        for line in text:
            yield line.rstrip("\r\n")


def _is_comment(line: str) -> bool:
    return line.startswith(("#", "track ", "track\t", "browser ", "browser\t")) or not line.strip()


def _fields(line: str) -> list[str]:
    if "\t" in line:
        return [field.strip() for field in line.split("\t")]
    if line.count(",") >= 2 and " " not in line.strip():
        return [field.strip().strip('"') for field in line.split(",")]
    return line.split()


def _split(path: Path) -> tuple[list[str] | None, list[list[str]]]:
    """The header, if there is one, and the fields of each line; for GTF and GFF3 only those of the first line."""
    header: list[str] | None = None
    rows: list[list[str]] = []
    for line in _lines(path):
        if _is_comment(line):
            named = _fields(line.lstrip("#").strip()) if not rows and line.startswith("#") else []
            if _is_header(named):
                header = named
            continue
        fields = _fields(line)
        if not rows:
            if _is_gff(fields):
                return None, [fields]
            if header is None and _is_header(fields):
                header = fields
                continue
        rows.append(fields)
    return header, rows


def _is_header(fields: list[str]) -> bool:
    """Whether fields are names of columns; start and end would be numbers."""
    return len(fields) >= 3 and not any(field.isdigit() for field in fields[1:3]) and _names_places(fields)


def _names_places(fields: list[str]) -> bool:
    lower = {field.lower().removeprefix("#") for field in fields}
    return (
        coordinate_columns(pd.DataFrame(columns=fields)) is not None
        or len(
            lower
            & {"chrom", "chr", "chromosome", "seqnames", "start", "end", "name", "strand", "chromstart", "chromend"}
        )
        >= 2
    )


def _is_gff(fields: list[str]) -> bool:
    return len(fields) >= 8 and not fields[1].isdigit() and fields[3].isdigit() and fields[4].isdigit()


def _as_bed(path: Path, header: list[str] | None, rows: list[list[str]]) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame(columns=header or list(_BED))
    width = max(map(len, rows))  # lines may have fields that others lack
    table = pd.DataFrame([row + [None] * (width - len(row)) for row in rows], dtype=object)
    if header is not None:
        if len(header) < table.shape[1]:
            msg = f"{str(path)!r} names {len(header)} columns, and its lines have {table.shape[1]}."
            raise ValueError(msg)
        return table.set_axis(header[: table.shape[1]], axis=1)
    if table.shape[1] < 3 or not any(field.isdigit() for field in rows[0][1:3]):
        shown = " ".join(rows[0])[:60]
        msg = f"{_no_text(path)} Its first line is {shown!r}, without a start and an end."
        raise ValueError(msg)
    return table.rename(columns=dict(enumerate(_BED)))


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in _ATTRIBUTE.findall(text):
        found.setdefault(key.lower(), value.strip().strip('"'))
    return found


def _first(attributes: dict[str, str], *keys: str) -> str | None:
    return next((attributes[key] for key in keys if attributes.get(key)), None)


def _gene(fields: list[str]) -> dict[str, Any] | None:
    said = _attributes(fields[8] if len(fields) > 8 else "")
    parent = (said.get("parent") or "").split(",")[0]
    own_id = said.get("id") if fields[2] in _GENES else parent
    gene_id = _first(said, "gene_id") or (own_id or "").removeprefix("gene:").removeprefix("gene-") or None
    name = _first(said, "gene_name", "gene") or (said.get("name") if fields[2] in _GENES else None) or gene_id
    if name is None:
        return None
    return {
        "chrom": fields[0],
        "start": int(fields[3]) - 1,  # GTF and GFF3 count from 1 and include the end
        "end": int(fields[4]),
        "name": name,
        "strand": fields[6],
        "id": gene_id,
        "type": _first(said, "gene_type", "gene_biotype", "biotype"),
    }


def _genes_of(path: Path, records: Records) -> pd.DataFrame:
    """Genes or transcripts of a GTF or GFF3 file; see `read_table`."""
    genes, parts = [], []
    has_transcripts = False  # exons, which are many, are needed where there are none
    for line in _lines(path):
        if line.startswith("##FASTA"):
            break
        if _is_comment(line):
            continue
        fields = line.split("\t")
        if len(fields) < 8 or not (fields[3].isdigit() and fields[4].isdigit()):
            continue
        if fields[2] in _GENES:
            genes.append(_gene(fields))
        elif fields[2] in _TRANSCRIPTS and (records == "transcripts" or not genes):
            if records == "genes":
                parts.append(_gene(fields))
            elif fields[2] != "exon" or not has_transcripts:
                parts.append(_transcript(fields))
                has_transcripts |= fields[2] != "exon"
    found, transcripts = ([row for row in rows if row is not None] for rows in (genes, parts))
    if not found and not transcripts:
        msg = f"{str(path)!r} is read as GTF or GFF3, and has neither genes nor transcripts with a name."
        raise ValueError(msg)
    if found and (records != "transcripts" or not transcripts):
        table = pd.DataFrame(found)
    elif records == "genes":
        place = ["id", "name", "chrom", "strand"]
        table = pd.DataFrame(transcripts)
        table["id"] = table["id"].fillna(table["name"])
        table = table.groupby(place, sort=False, as_index=False).agg({"start": "min", "end": "max", "type": "first"})
    else:
        table = _apart(pd.DataFrame(transcripts), {gene["id"]: gene for gene in found})
    stranded = table["strand"].isin(["+", "-"]).to_numpy()
    if not stranded.all():
        logger.warning("%d of %d genes of %s have no strand and are left out", (~stranded).sum(), len(table), path)
    return table[stranded].reset_index(drop=True)


def _transcript(fields: list[str]) -> dict[str, Any] | None:
    """The gene of a record of a transcript or an exon, with ``record``, which tells them apart, and the id of the ``transcript``."""
    gene = _gene(fields)
    if gene is None:
        return None
    said = _attributes(fields[8])
    # An exon of GFF3 names its transcript as its parent.
    own = _first(said, "transcript_id", *(("parent",) if fields[2] == "exon" else ("id",)))
    return {**gene, "record": fields[2], "transcript": (own or "").removeprefix("transcript:").removeprefix("rna-")}


def _apart(parts: pd.DataFrame, genes: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per transcript: their own records, or else their exons, from the first to the last base; names and types of known genes."""
    own = parts[parts["record"] != "exon"]
    if len(own) > 0:
        table = own
    else:
        parts["id"] = parts["id"].fillna(parts["name"])
        place = ["transcript", "id", "name", "chrom", "strand"]
        table = parts.groupby(place, sort=False, as_index=False).agg({"start": "min", "end": "max", "type": "first"})
    for column in ("name", "type"):
        known = [genes[key][column] if key in genes else None for key in table["id"]]
        table = table.assign(**{column: pd.Series(known, index=table.index, dtype=object).fillna(table[column])})
    return table[["chrom", "start", "end", "name", "strand", "id", "type"]]
