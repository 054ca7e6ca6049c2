"""Text files with places on the genome."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scfound_atac.genome import read_genes
from scfound_atac.genome.bed import read_bed_ocrs

PLACES = [("chr1", 99, 500), ("chrX", 0, 20), ("KI270728.1", 5, 90)]
OCRS = pd.DataFrame(PLACES, columns=["chrom", "start", "end"])
PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def write(folder: Path, name: str, text: str, packing: str = "") -> Path:
    path = folder / (name + packing)
    path.write_bytes(PACK[packing](text.encode()))
    return path


def lines(gap: str = "\t", more: str = "", chrom: str = "") -> str:
    return "".join(f"{chrom}{c}{gap}{s}{gap}{e}{more}\n" for c, s, e in PLACES)


BED_FILES = {
    "plain": lines(),
    "narrowPeak": lines(more="\tpeak\t10\t.\t5.5\t3.1\t2.2\t100"),
    "comments": "# cellranger\n#\n" + lines(),
    "comments of 10x": "# id=x\n# primary_contig=chr1\n" + lines(),
    "comments between": lines() + "\n# the end\n",
    "track": 'browser position chr7:127471196-127495720\ntrack name="a b" description="x"\n' + lines(),
    "header": "chrom\tstart\tend\n" + lines(),
    "header behind #": "#chr\tstart\tend\n" + lines(),
    "header behind # and a blank": "# chrom\tchromStart\tchromEnd\n" + lines(),
    "comment, then header": "#made by me\n#seqnames\tstart\tend\tname\n" + lines(more="\tx"),
    "blanks": lines(" "),
    "several blanks": lines("   "),
    "commas": "chrom,start,end\n" + lines(","),
    "windows": lines().replace("\n", "\r\n"),
    "no last end of line": lines().rstrip(),
    "byte order mark": "\ufeff" + lines(),
    "build in front": lines(chrom="GRCh38_"),
    "ragged": lines().replace("500\n", "500\tname\n"),
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", BED_FILES)
def test_ocrs_of_bed(tmp_path: Path, kind: str, packing: str) -> None:
    found = read_bed_ocrs(write(tmp_path, "peaks.bed", BED_FILES[kind], packing))
    pd.testing.assert_frame_equal(found, OCRS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89HDF\r\n\x1a\n....", "is not a text file with one interval per line"),
        (b"PK\x03\x04\x00\x00\xff\xfe", "is not a text file"),
        (b"\xff\xfe\xfa\xfb", "is not a text file"),
        (b"cell1\ncell2\n", "is not a text file.*first line is 'cell1'"),
        (b"a\tb\tc\nd\te\tf\n", "is not a text file.*first line is 'a b c'"),
        (b"chr1\t5\t2\n", "one OCR per line.*end not beyond the start.*0"),
        (b"chr1\t5\tx\n", "one OCR per line.*no number"),
        (b"chr1\t5\n", "is not a text file"),
    ],
)
def test_what_is_no_bed(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "peaks.bed"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_bed_ocrs(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.bed"):
        read_bed_ocrs(tmp_path / "nowhere.bed")


# ---------------------------------------------------------------- genes

GENES = pd.DataFrame(
    [("chr1", 1000, 5000, "PLUS", "+"), ("chr1", 90_000, 95_000, "MINUS", "-"), ("chrX", 100, 200, "FAR", "+")],
    columns=["chrom", "start", "end", "name", "strand"],
)
ROWS = list(enumerate(GENES.itertuples(index=False, name=None)))
BED6 = "".join(f"{c}\t{s}\t{e}\t{n}\t0\t{d}\n" for _, (c, s, e, n, d) in ROWS)


def gff(attributes: str, kinds: tuple[str, ...] = ("gene", "transcript", "exon"), **names: str) -> str:
    out = []
    for i, (c, s, e, n, d) in ROWS:
        for kind in kinds:
            said = attributes.format(n=n, i=i, kind=kind)
            first = s + 1 if kind != "exon" else s + 20
            out.append(f"{names.get(c, c)}\tHAVANA\t{kind}\t{first}\t{e}\t.\t{d}\t.\t{said}\n")
    return "".join(out)


GTF = 'gene_id "ENSG{i}"; gene_type "lincRNA"; gene_name "{n}"; level 2;'
GENE_FILES = {
    "genes.bed": 'track name="x"\n#comment\n' + BED6,
    "header.bed": "# note\n#chr\tstart\tend\tname\tscore\tstrand\n" + BED6,
    "gencode.gtf": "##description: evidence\n#!genome-build GRCh38\n" + gff(GTF),
    "ensembl.gtf": "#!genome-build GRCh38.p14\n"
    + gff('gene_id "ENSG{i}"; gene_version "5"; gene_name "{n}"; gene_biotype "lincRNA"', chr1="1", chrX="X"),
    "transcripts.gtf": gff(GTF + ' transcript_id "ENST{i}";', ("transcript", "exon")),
    "gencode.gff3": "##gff-version 3\n" + gff("ID=ENSG{i};gene_id=ENSG{i};gene_type=lincRNA;gene_name={n};level=2"),
    "ensembl.gff3": gff(
        "ID=gene:ENSG{i};Name={n};biotype=lincRNA;gene_id=ENSG{i};version=5", ("gene",), chr1="1", chrX="X"
    ),
    "ncbi.gff": gff(
        "ID=gene-{n};Dbxref=GeneID:{i};Name={n};gbkey=Gene;gene={n};gene_biotype=lincRNA",
        ("gene",),
        chr1="NC_000001.11",
        chrX="NC_000023.11",
    ),
}


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("name", GENE_FILES)
def test_genes_of_files(tmp_path: Path, name: str, packing: str) -> None:
    found = read_genes(write(tmp_path, name, GENE_FILES[name], packing))
    pd.testing.assert_frame_equal(found[list(GENES)], GENES)
    if name.endswith((".gtf", ".gff3")):
        assert found["id"].tolist() == ["ENSG0", "ENSG1", "ENSG2"]
        assert found["type"].tolist() == ["lincRNA"] * 3


def test_genes_without_a_strand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = gff(GTF) + 'chr3\tx\tgene\t5\t9\t.\t.\t.\tgene_name "NOWHERE"\n'
    assert read_genes(write(tmp_path, "genes.gtf", text))["name"].tolist() == GENES["name"].tolist()
    assert "1 of 4 genes of" in caplog.text


def test_genes_without_a_name(tmp_path: Path) -> None:
    found = read_genes(write(tmp_path, "genes.gtf", gff('gene_id "ENSG{i}"')))
    assert found["name"].tolist() == ["ENSG0", "ENSG1", "ENSG2"]
    with pytest.raises(ValueError, match="neither genes nor transcripts with a name"):
        read_genes(write(tmp_path, "none.gtf", gff("x 1", ("CDS",))))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["CD8A", "CD4"], TypeError, r"got list \('CD8A', 'CD4'\).*Select genes by name from the result"),
        (("CD8A",), TypeError, "got tuple"),
        (np.array(["CD8A"]), TypeError, "got ndarray"),
        (pd.Index(["CD8A"]), TypeError, "got Index"),
        (pd.Series(["CD8A"]), TypeError, "got Series"),
        ({"CD8A": 1}, TypeError, "got dict"),
        (5, TypeError, "got int"),
        (True, TypeError, "got bool"),
        ("CD8A", ValueError, "no file 'CD8A'; is it the name of a gene.*Select genes by name from the result"),
        ("AL627309.1", ValueError, "is it the name of a gene"),
        ("HLA-DRB1", ValueError, "is it the name of a gene"),
        ("genes.gtf.gz", FileNotFoundError, "no file 'genes.gtf.gz'.*path of a BED, GTF or GFF3 file"),
        ("nowhere/genes", FileNotFoundError, "no file"),
        (".", ValueError, "is a folder"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_are_no_genes(given: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_genes(given)


def test_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"cells\.h5ad' is not a text file.*BED, GTF or GFF3"):
        read_genes(path)


def test_genes_among_many_records(tmp_path: Path) -> None:
    line = 'chr1\tHAVANA\texon\t{0}\t{1}\t.\t+\t.\tgene_id "E{0}"; gene_name "G{0}"; tag "basic"; level 2;\n'
    gene = 'chr1\tHAVANA\tgene\t{0}\t{1}\t.\t+\t.\tgene_id "E{0}"; gene_name "G{0}";\n'
    text = "".join((gene if i % 50 == 0 else line).format(i + 1, i + 300) for i in range(30_000))
    assert len(read_genes(write(tmp_path, "large.gtf", text, ".gz"))) == 600
