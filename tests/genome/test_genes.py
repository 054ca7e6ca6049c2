"""Tables of genes and the OCRs that reach them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scfound_atac.genome import gene_weights, read_genes, transcription_starts

LINES = (
    "chr1\t1000\t5000\tPLUS\t0\t+",
    "chr1\t90000\t95000\tMINUS\t0\t-",
    "chrX\t100\t200\tFAR\t0\t+",
)
HEADER = "#chr\tstart\tend\tname\tscore\tstrand\tEnsembl_ID\tgene_type"


def make_genes(*rows: tuple[str, int, int, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "name", "strand"])


@pytest.fixture
def genes() -> pd.DataFrame:
    return read_genes(
        make_genes(
            ("chr1", 1000, 5000, "PLUS", "+"), ("chr1", 90_000, 95_000, "MINUS", "-"), ("chrX", 100, 200, "FAR", "+")
        )
    )


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("header", [None, "#chr\tstart\tend\tname\tscore\tstrand", HEADER])
@pytest.mark.parametrize("suffix", [".bed", ".bed.gz"])
def test_bed_with_and_without_header(tmp_path: Path, genes: pd.DataFrame, header: str | None, suffix: str) -> None:
    import gzip

    lines = [f"{line}\tENSG{i}\tlincRNA" if header == HEADER else line for i, line in enumerate(LINES)]
    text = "\n".join(([header] if header else []) + lines) + "\n"
    path = tmp_path / f"genes{suffix}"
    if suffix == ".bed":
        path.write_text(text)
    else:
        path.write_bytes(gzip.compress(text.encode()))
    found = read_genes(path)
    pd.testing.assert_frame_equal(found[["chrom", "start", "end", "name", "strand"]], genes)
    assert found["start"].dtype == np.int64
    if header == HEADER:
        assert found["id"].tolist() == ["ENSG0", "ENSG1", "ENSG2"]
        assert found["type"].tolist() == ["lincRNA"] * 3
    else:
        assert list(found) == ["chrom", "start", "end", "name", "strand"]


def test_data_frames(genes: pd.DataFrame) -> None:
    given = genes.rename(columns={"name": "symbol", "chrom": "seqnames"}).assign(seqnames=["1", "1", "X"])
    before = given.copy()
    pd.testing.assert_frame_equal(read_genes(given), genes)
    pd.testing.assert_frame_equal(given, before)
    pd.testing.assert_frame_equal(read_genes(genes.set_index("name")), genes)
    # the frame in uns of a gene activity
    pd.testing.assert_frame_equal(read_genes(genes.set_index("name").rename_axis(None)), genes)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file.*nowhere\.bed"):
        read_genes(tmp_path / "nowhere.bed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.drop(columns="strand"), "lacks strand"),
        (lambda g: g.drop(columns="name"), "lacks name"),
        (lambda g: g.drop(columns=["start", "strand"]), "lacks chrom, start, end, strand"),
        (lambda g: g.assign(strand=["+", ".", "-"]), r"1 of 3 genes have a strand.*row 1 \(MINUS: '\.'\)"),
        (lambda g: g.assign(name=["A", "", None]), r"2 of 3 genes have no name: row 1 .*row 2"),
        (
            lambda g: g.assign(end=g["start"]),
            "invalid coordinates: 3 of 3.*end not beyond the start.*'PLUS', 'MINUS', 'FAR'",
        ),
        (lambda g: g.assign(start=[-1, 1, 1]), "invalid coordinates: 1 of 3.*start below 0.*'PLUS'"),
        (lambda g: g.assign(start=["x", "1", "1"]), "invalid coordinates: 1 of 3.*no number"),
        (lambda g: g.iloc[:0], "no rows"),
    ],
)
def test_what_is_no_table_of_genes(genes: pd.DataFrame, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_genes(change(genes))


def test_short_bed(tmp_path: Path) -> None:
    path = tmp_path / "short.bed"
    path.write_text("chr1\t1\t2\tA\n")
    with pytest.raises(ValueError, match="4 columns and no header"):
        read_genes(path)


def test_repeated_symbols(caplog: pytest.LogCaptureFixture) -> None:
    table = make_genes(
        ("chr2", 10, 20, "ONCE", "+"),
        ("chr1", 100, 300, "MERGED", "+"),
        ("chr1", 500, 600, "LONGEST", "-"),
        ("chr1", 250, 400, "MERGED", "+"),
        ("chrX", 500, 700, "LONGEST", "-"),
        ("chr1", 390, 395, "MERGED", "+"),
        ("chr1", 300, 301, "MERGED", "-"),  # other strand: not merged, and shorter
        ("chr1", 400, 420, "MERGED", "+"),  # only touches
    )
    found = read_genes(table)
    expected = make_genes(
        ("chr2", 10, 20, "ONCE", "+"), ("chr1", 100, 400, "MERGED", "+"), ("chrX", 500, 700, "LONGEST", "-")
    )
    pd.testing.assert_frame_equal(found, expected)
    assert "5 of 8 rows of the table of genes repeat a symbol: 2 were merged" in caplog.text
    assert "3 dropped for a longer one" in caplog.text


def test_transcription_starts(genes: pd.DataFrame) -> None:
    assert transcription_starts(genes).tolist() == [1000, 94_999, 100]


def test_real_table(data_dir: Path) -> None:
    genes = read_genes(data_dir / "genome" / "genes_grch38.bed")
    assert len(genes) == 20_666
    assert genes["name"].is_unique
    irf1 = genes.set_index("name").loc["IRF1"]
    assert (irf1["chrom"], irf1["strand"], irf1["type"]) == ("chr5", "-", "protein_coding")


# ---------------------------------------------------------------- weights


def make_ocrs(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


OCRS = make_ocrs(
    ("chr1", 500, 600),  # promoter of PLUS
    ("chr1", 2000, 2100),  # body of PLUS
    ("chr1", 5000, 5100),  # touches the end of PLUS
    ("chr1", 96_999, 97_100),  # last base of the promoter of MINUS
    ("chr1", 97_000, 97_100),  # one beyond
    ("chr1", 89_000, 89_100),  # downstream of MINUS
    ("chr2", 2000, 2100),
)


def test_overlap(genes: pd.DataFrame) -> None:
    weights = gene_weights(OCRS, genes)
    assert weights.format == "csr"
    assert weights.dtype == np.float32
    expected = np.zeros((7, 3))
    expected[[0, 1, 3], [0, 0, 1]] = 1
    np.testing.assert_array_equal(weights.toarray(), expected)


def test_extensions(genes: pd.DataFrame) -> None:
    expected = np.zeros((7, 3))
    expected[[1, 2, 5], [0, 0, 1]] = 1
    np.testing.assert_array_equal(gene_weights(OCRS, genes, upstream=0, downstream=1000).toarray(), expected)


def test_distances(genes: pd.DataFrame) -> None:
    weights = gene_weights(OCRS, genes, weights="distance").toarray()
    floor = np.exp(-1)
    assert weights[0, 0] == pytest.approx(1 + floor)
    assert weights[2, 0] == pytest.approx(1 + floor)  # touching: no base in between
    assert weights[5, 1] == pytest.approx(np.exp(-900 / 5000) + floor)
    assert weights[4, 0] == pytest.approx(np.exp(-92_000 / 5000) + floor)
    assert weights[6].sum() == 0
    far = make_ocrs(("chr1", 104_999, 105_100), ("chr1", 105_000, 105_100))
    assert (gene_weights(far, genes, weights="distance").toarray()[:, 0] > 0).tolist() == [True, False]


def test_order_plays_no_part(genes: pd.DataFrame) -> None:
    ocrs, columns = np.random.default_rng(0).permutation(len(OCRS)), [2, 0, 1]
    whole = gene_weights(OCRS, genes, weights="distance").toarray()
    shuffled = gene_weights(OCRS.iloc[ocrs], genes.iloc[columns], weights="distance").toarray()
    np.testing.assert_array_equal(shuffled, whole[ocrs][:, columns])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "linear"}, "Unknown weights 'linear'"),
        ({"upstream": -1}, "upstream=-1 must not be negative"),
        ({"downstream": -5}, "downstream=-5 must not be negative"),
    ],
)
def test_bad_options(genes: pd.DataFrame, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gene_weights(OCRS, genes, **options)
