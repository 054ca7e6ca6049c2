from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfound_atac.genome import CHROMOSOMES, get_ocrs, parse_names

CONTIGS = (*CHROMOSOMES, "chrM", "chr1_KI270706v1_random", "chrUn_KI270742v1", "KI270728.1", "GL000194.1")
FORMS = {
    "colon": lambda c, s, e: f"{c}:{s}-{e}",
    "dashes": lambda c, s, e: f"{c}-{s}-{e}",
    "underscores": lambda c, s, e: f"{c}_{s}_{e}",
    "grch38_": lambda c, s, e: f"GRCh38_{c}:{s}-{e}",
    "grch38-": lambda c, s, e: f"GRCh38-{c}-{s}-{e}",
    "hg38_": lambda c, s, e: f"hg38_{c}_{s}_{e}",
    "bytes": lambda c, s, e: f"{c}:{s}-{e}".encode(),
    "text of bytes": lambda c, s, e: str(f"{c}:{s}-{e}".encode()),
    "without chr": lambda c, s, e: f"{c.removeprefix('chr') if c in CHROMOSOMES else c}_{s}_{e}",
}


@pytest.mark.parametrize("form", FORMS)
@given(
    st.lists(st.tuples(st.sampled_from(CONTIGS), st.integers(0, 2**31), st.integers(1, 10**6)), min_size=1, max_size=20)
)
def test_every_form_round_trips(form, rows):
    rows = [(chrom, start, start + length) for chrom, start, length in rows]
    parsed = parse_names([FORMS[form](*row) for row in rows])
    assert list(parsed.itertuples(index=False, name=None)) == rows
    assert parsed["start"].dtype == parsed["end"].dtype == np.int64


def test_no_names():
    assert parse_names([]).shape == (0, 3)


@pytest.mark.parametrize(
    "name",
    [
        "gene",
        "chr1",
        "1-2",
        "chr1:1,000-2,000",
        "chr1_1_2_3",
        "chr1_1-2",
        "GRCh38_1_2",
        "chr1:-5-10",
        " chr1:1-2",
        "chr1:1-2:+",
    ],
)
def test_unclear_names_are_refused(name):
    with pytest.raises(ValueError, match=r'1 of 2 OCR names are not of the form.*var\["chrom"\]'):
        parse_names(["chr1:1-2", name])


def test_first_three_offenders_are_named():
    with pytest.raises(ValueError, match="4 of 5 OCR names.*'a', 'b', 'c'\\. "):
        parse_names(["a", "chr1:1-2", "b", "c", "d"])


def test_other_builds_are_refused():
    with pytest.raises(ValueError, match=r"another genome build.*hg19_chr1.*mm10_chr2.*liftover_ocrs"):
        parse_names(["hg19_chr1:1-2", "mm10_chr2-3-4"])


@pytest.mark.parametrize("name", ["chr1:5-5", "chr1:9-5"])
def test_empty_intervals_are_refused(name):
    with pytest.raises(ValueError, match="end not beyond"):
        parse_names([name])


@pytest.mark.parametrize(
    "columns", [("chrom", "start", "end"), ("#Chromosome", "hg38_Start", "hg38_End"), ("seqnames", "start", "end")]
)
@pytest.mark.parametrize(
    "chrom", [[1, 23, 24], [1.0, 23.0, 24.0], ["1", "X", "chrY"], pd.Categorical(["chr1", "chrX", "chrY"])]
)
def test_columns_come_first(columns, chrom):
    var = pd.DataFrame(dict(zip(columns, [chrom, [0.0, 5.0, 7.0], [3, 9, 11]], strict=True)), index=["a", "b", "c"])
    before = var.copy()
    ocrs = get_ocrs(var)
    assert ocrs["chrom"].tolist() == ["chr1", "chrX", "chrY"]
    assert ocrs["start"].tolist() == [0, 5, 7]
    assert ocrs.dtypes.tolist()[1:] == [np.int64, np.int64]
    assert ocrs.index.equals(var.index)
    pd.testing.assert_frame_equal(var, before)


def test_names_serve_when_there_are_no_columns():
    var = pd.DataFrame({"score": [1, 2]}, index=["chr1:1-2", "X_5_9"])
    assert get_ocrs(var).to_numpy().tolist() == [["chr1", 1, 2], ["chrX", 5, 9]]


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("chrom", None, "no chromosome"),
        ("start", np.nan, "no number"),
        ("start", 1.5, "no whole number"),
        ("start", -1, "start below 0"),
        ("end", 2, "end not beyond"),
    ],
)
def test_wrong_columns_are_refused(column, value, match):
    var = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [1, 2], "end": [5, 6]}, index=["a", "b"], dtype=object)
    var.loc["b", column] = value
    with pytest.raises(ValueError, match=f"1 of 2 OCRs have .*{match}.*'b'"):
        get_ocrs(var)
