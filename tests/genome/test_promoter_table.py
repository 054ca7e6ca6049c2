"""Tables of starts of transcription, and the genes that a user names."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scfound_atac.genome import CHROMOSOMES, read_genes, read_promoters, select_genes, transcription_starts
from scfound_atac.genome.gene_table import load_gene_table

COLUMNS = ["chrom", "tss", "name", "strand", "id", "type", "gene"]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


# ---------------------------------------------------------------- reading


def test_the_table_of_the_package() -> None:
    genes = load_gene_table()
    found = read_promoters(genes)
    assert list(found) == COLUMNS
    assert found["tss"].dtype == found["gene"].dtype == np.int64
    assert found["gene"].tolist() == list(range(len(genes)))
    np.testing.assert_array_equal(found["tss"], transcription_starts(genes))
    for column in ("chrom", "name", "strand", "id", "type"):
        assert found[column].tolist() == genes[column].tolist()


@pytest.mark.parametrize("name", ["tss.bed", "tss.bed.gz"])
def test_bed_of_single_bases(tmp_path: Path, name: str) -> None:
    """The base is the TSS on either strand, and several of a gene are kept."""
    text = "chr1\t100\t101\tA\t0\t+\nchr2\t50\t51\tB\t0\t-\nchr1\t700\t701\tA\t0\t+\nchr1\t100\t101\tA\t0\t+\n"
    found = read_promoters(write(tmp_path, name, text))
    assert found["name"].tolist() == ["A", "B", "A"]
    assert found["tss"].tolist() == [100, 50, 700]
    assert found["gene"].tolist() == [0, 1, 0]
    assert set(found["id"]) == set(found["type"]) == {""}


GENE = 'chr1\thavana\t{kind}\t{start}\t{end}\t.\t{strand}\t.\tgene_id "{id}.4"; gene_name "{name}"; gene_type "lincRNA";{more}\n'


def gtf(*rows: tuple[str, int, int, str, str, str, str]) -> str:
    keys = ("kind", "start", "end", "strand", "id", "name")
    return "##gtf\n" + "".join(
        GENE.format(**dict(zip(keys, row[:6], strict=True)), more=f' transcript_id "{row[6]}";' if row[6] else "")
        for row in rows
    )


A, B = "ENSG00000000001", "ENSG00000000002"
GENES = (("gene", 101, 900, "+", A, "A", ""), ("gene", 501, 800, "-", B, "B", ""))
TRANSCRIPTS = (
    ("transcript", 101, 900, "+", A, "A", "T1"),
    ("exon", 101, 200, "+", A, "A", "T1"),
    ("exon", 801, 900, "+", A, "A", "T1"),
    ("transcript", 301, 850, "+", A, "A", "T2"),
    ("exon", 301, 850, "+", A, "A", "T2"),
    ("transcript", 501, 800, "-", B, "B", "T3"),
    ("exon", 501, 800, "-", B, "B", "T3"),
    ("transcript", 600, 800, "-", B, "B", "T4"),  # starts where T3 does
    ("exon", 600, 800, "-", B, "B", "T4"),
)
EXONS = tuple(row for row in TRANSCRIPTS if row[0] == "exon")


@pytest.mark.parametrize(
    ("rows", "transcripts", "expected"),
    [
        (GENES, False, [("A", 100), ("B", 799)]),
        (GENES + TRANSCRIPTS, False, [("A", 100), ("B", 799)]),
        (GENES, True, [("A", 100), ("B", 799)]),
        (GENES + TRANSCRIPTS, True, [("A", 100), ("A", 300), ("B", 799)]),
        (TRANSCRIPTS, False, [("A", 100), ("A", 300), ("B", 799)]),
        (EXONS, False, [("A", 100), ("A", 300), ("B", 799)]),
    ],
)
def test_gtf(tmp_path: Path, rows: tuple, transcripts: bool, expected: list) -> None:
    path = write(tmp_path, "genes.gtf", gtf(*rows))
    found = read_promoters(path, transcripts=transcripts)
    assert list(zip(found["name"], found["tss"], strict=True)) == expected
    assert found["gene"].tolist() == [0 if name == "A" else 1 for name, _ in expected]
    assert found["id"].tolist() == [f"{A if name == 'A' else B}.4" for name, _ in expected]
    # the table of bodies still merges transcripts
    assert read_genes(path)[["name", "start", "end"]].values.tolist() == [["A", 100, 900], ["B", 500, 800]]


def test_gff3_of_ensembl(tmp_path: Path) -> None:
    """Transcripts have names of their own there; the gene has that of the gene."""
    lines = (
        f"1\te\tgene\t101\t900\t.\t+\t.\tID=gene:{A};Name=A;biotype=protein_coding;gene_id={A}",
        f"1\te\tmRNA\t101\t900\t.\t+\t.\tID=transcript:T1;Parent=gene:{A};Name=A-201;biotype=nonsense_mediated_decay",
        "1\te\texon\t101\t900\t.\t+\t.\tParent=transcript:T1;Name=E1",
        f"1\te\tmRNA\t301\t900\t.\t+\t.\tID=transcript:T2;Parent=gene:{A};Name=A-202;biotype=protein_coding",
    )
    found = read_promoters(
        write(tmp_path, "genes.gff3", "##gff-version 3\n" + "\n".join(lines) + "\n"), transcripts=True
    )
    assert found[["chrom", "tss", "name", "id", "type"]].values.tolist() == [
        ["chr1", 100, "A", A, "protein_coding"],
        ["chr1", 300, "A", A, "protein_coding"],
    ]


def test_frames() -> None:
    """Its own result can be read again, and the user's frame stays as it is."""
    genes = pd.DataFrame(
        {"seqnames": ["1", "X"], "start": [100, 100], "end": [200, 200], "strand": ["+", "-"], "gene_id": [None, "E1"]},
        index=["A", "B"],
    )
    before = genes.copy()
    found = read_promoters(genes)
    pd.testing.assert_frame_equal(genes, before)
    assert found.values.tolist() == [["chr1", 100, "A", "+", "", "", 0], ["chrX", 199, "B", "-", "E1", "", 1]]
    pd.testing.assert_frame_equal(read_promoters(found), found)
    pd.testing.assert_frame_equal(read_promoters(found.assign(tss=found["tss"].astype(str))), found)
    with pytest.raises(ValueError, match=r"invalid coordinates.*no number"):
        read_promoters(found.assign(tss=["x", 3]))


def test_one_symbol_of_two_genes() -> None:
    found = read_promoters(
        pd.DataFrame(
            [
                ("chr1", 10, "A", "+", f"{A}.1"),
                ("chr1", 20, "A", "+", B),
                ("chr1", 30, "A", "+", f"{A.lower()}.2"),
                ("chrX", 10, "A", "+", f"{A}.1"),
                ("chrY", 10, "A", "+", f"{A}.1_PAR_Y"),
                ("chr1", 40, "A", "-", A),
            ],
            columns=["chrom", "tss", "name", "strand", "id"],
        )
    )
    assert found["gene"].tolist() == [0, 1, 0, 2, 3, 4]
    assert select_genes(found, ["A"])[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert select_genes(found, [B])[0].tolist() == [1]
    assert select_genes(found, [f"{A}.9"])[0].tolist() == [0, 2, 3, 4, 5]


def test_other_chromosomes_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "scfound_atac")
    table = pd.DataFrame(
        {"chrom": ["MT", "1", "KI270728.1"], "tss": 5, "name": ["MT-ND1", "A", "B"], "strand": "+"}, index=[4, 4, 4]
    )
    assert read_promoters(table)["name"].tolist() == ["A"]
    assert "2 of 3 rows of the table of genes are on chrM or scaffolds and are left out: MT-ND1, B" in caplog.text
    with pytest.raises(ValueError, match=r"None of the 2 rows.*chr1 to chr22.*'chrM', 'KI270728.1'"):
        read_promoters(table[table["name"] != "A"])


def test_windows_around_tss(caplog: pytest.LogCaptureFixture) -> None:
    starts = np.arange(1000, 21_000, 1000)
    table = pd.DataFrame(
        {"chrom": "chr1", "start": starts, "end": starts + 500, "name": starts.astype(str), "strand": "-"}
    )
    np.testing.assert_array_equal(read_promoters(table)["tss"], starts + 250)
    assert "all 20 rows of the table of genes are 500 bases wide" in caplog.text
    np.testing.assert_array_equal(read_promoters(table.iloc[1:])["tss"], starts[1:] + 499)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.drop(columns="strand"), "lacks strand"),
        (lambda g: g.drop(columns="name"), "lacks name"),
        (lambda g: g.drop(columns="tss"), "lacks chrom, start, end"),
        (lambda g: g.assign(strand="."), "have a strand that is neither"),
        (lambda g: g.assign(tss=[3, 300_000_000]), "1 of 2 genes start beyond their chromosome.*among them B"),
        (lambda g: g.iloc[:0], "no rows"),
    ],
)
def test_what_is_no_table(change, message: str) -> None:
    table = pd.DataFrame({"chrom": "chr1", "tss": [3, 4], "name": ["A", "B"], "strand": "+"})
    with pytest.raises(ValueError, match=message):
        read_promoters(change(table))


def test_a_list_of_names_is_no_table() -> None:
    with pytest.raises(TypeError, match="got list"):
        read_promoters(["MYC"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is it the name of a gene"):
        read_promoters("MYC")


TSSS = st.lists(
    st.tuples(st.sampled_from(CHROMOSOMES), st.integers(0, 40_000_000), st.sampled_from("ABC"), st.sampled_from("+-")),
    min_size=1,
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(rows=TSSS)
def test_all_forms_say_the_same(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    """BED with and without a header, GTF and a frame of the same TSSs are the same table, and every TSS is in it."""
    folder = tmp_path_factory.mktemp("tables")
    frame = pd.DataFrame(rows, columns=["chrom", "tss", "name", "strand"])
    found = read_promoters(frame)
    bed = "".join(f"{chrom}\t{tss}\t{tss + 1}\t{name}\t0\t{strand}\n" for chrom, tss, name, strand in rows)
    header = "#chrom\tstart\tend\tname\tscore\tstrand\n"
    lines = "".join(
        f'{chrom}\tx\ttranscript\t{tss + 1}\t{tss + 1}\t.\t{strand}\t.\tgene_name "{name}"; transcript_id "T{i}";\n'
        for i, (chrom, tss, name, strand) in enumerate(rows)
    )
    for name, text in (("a.bed", bed), ("b.bed", header + bed), ("c.gtf", lines)):
        pd.testing.assert_frame_equal(read_promoters(write(folder, name, text)), found)
    assert set(map(tuple, found[["chrom", "tss", "name", "strand"]].values.tolist())) == set(rows)
    assert len(found) == len(set(rows))
    of_gene = found.groupby("gene")[["name", "chrom", "strand"]].nunique()
    assert (of_gene == 1).all(axis=None)
    assert found["gene"].nunique() == len({(chrom, name, strand) for chrom, _, name, strand in rows})


# ---------------------------------------------------------------- names


TABLE = pd.DataFrame(
    {
        "name": ["MYC", "Abc", "ABC", "C1orf43", "MYC", "RIDA", f"{B}.3"],
        "id": [f"{A}.17", None, "", "ENSG00000143612", A, "ENSG00000132541", None],
    },
    index=[3, 3, 1, 0, 0, 9, 9],
)


@pytest.mark.parametrize(
    ("names", "rows", "unmatched"),
    [
        (["MYC"], [0, 4], []),
        ([" RIDA ", "MYC", "RIDA"], [5, 0, 4], []),
        (["myc", "c1ORF43"], [0, 4, 3], []),
        ([A], [0, 4], []),
        ([f"{A.lower()}.2"], [0, 4], []),
        ([f"{A}.17_PAR_Y", "MYC"], [0, 4], []),
        (["ABC"], [2], []),
        (["abc", "Abc"], [1], ["abc"]),  # which is meant is not known
        ([B, f"{B}.8"], [6], []),  # ids as names
        (["NONE", "RIDA", "NONE", ""], [5], ["NONE", ""]),
        ([], [], []),
    ],
)
def test_names(names: list[str], rows: list[int], unmatched: list[str]) -> None:
    found, lacking = select_genes(TABLE, names)
    assert found.tolist() == rows
    assert found.dtype == np.int64
    assert lacking == unmatched


def test_what_the_user_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "scfound_atac")
    select_genes(TABLE, ["myc", *(f"NONE{i}" for i in range(7))])
    assert "1 genes were found in another case: myc -> MYC" in caplog.text
    assert "7 of 8 genes are not in the table of genes: NONE0, NONE1, NONE2, NONE3, NONE4, ..." in caplog.text


def test_no_name_matches() -> None:
    with pytest.raises(
        KeyError, match="None of the 2 genes is in the table of 6 genes: C1orf34, XX. Did you mean C1orf43"
    ) as error:
        select_genes(TABLE, ["C1orf34", "XX"])
    assert not str(error.value).startswith("'")
    with pytest.raises(KeyError, match=r"NOTHING\.$"):
        select_genes(TABLE.drop(columns="id"), ["NOTHING"])


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(max_size=6) | st.sampled_from(["MYC", "rida", A, f"{A}.2"]), max_size=6))
def test_every_name_is_found_or_reported(names: list[str]) -> None:
    """Whatever text is given: rows occur once, and a name that matches nothing is reported."""
    try:
        rows, unmatched = select_genes(TABLE, names)
    except KeyError:
        rows, unmatched = np.empty(0, dtype=np.int64), names
    assert len(set(rows.tolist())) == len(rows)
    if any(name in ("MYC", "rida", A, f"{A}.2") for name in names):
        assert len(rows) > 0
    elif names:
        assert unmatched or len(rows) > 0


def test_genes_of_the_package() -> None:
    table = read_promoters(load_gene_table())
    rows, unmatched = select_genes(table, ["MYC", "ENSG00000102145.15", "gapdh"])
    assert table["name"].iloc[rows].tolist() == ["MYC", "GATA1", "GAPDH"]
    assert unmatched == []
