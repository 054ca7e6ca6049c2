from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfound_atac.genome import CHROMOSOMES, get_ocrs, normalize_chromosomes, parse_names
from scfound_atac.genome.names import looks_transposed, readable

SCAFFOLDS = (
    "chr1_KI270706v1_random",
    "chr14-GL000194v1-random",
    "chr6_GL000250v2_alt",
    "chrUn_KI270742v1",
    "chrUn-KI270742v1",
    "KI270728.1",
    "GL000194.1",
    "NC_007605.1",
    "chrEBV",
    "hs38d1",
    "HSCHR6_MHC_COX_CTG1",
    "HLA-A*01:01:01:01",
    "HLA-DRB1*15:01:01:01",
)
CONTIGS = (*CHROMOSOMES, "chrM", *SCAFFOLDS)
FORMS = {
    "colon": lambda c, s, e: f"{c}:{s}-{e}",
    "dashes": lambda c, s, e: f"{c}-{s}-{e}",
    "underscores": lambda c, s, e: f"{c}_{s}_{e}",
    "grch38_": lambda c, s, e: f"GRCh38_{c}:{s}-{e}",
    "grch38-": lambda c, s, e: f"GRCh38-{c}-{s}-{e}",
    "hg38_": lambda c, s, e: f"hg38_{c}_{s}_{e}",
    "bytes": lambda c, s, e: f"{c}:{s}-{e}".encode(),
    "text of bytes": lambda c, s, e: str(f"{c}:{s}-{e}".encode()),
    "colon and underscore": lambda c, s, e: f"{c}:{s}_{e}",
    "underscore and dash": lambda c, s, e: f"{c}_{s}-{e}",
    "GRCh38.": lambda c, s, e: f"GRCh38.{c}:{s}-{e}",
    "hg38:": lambda c, s, e: f"hg38:{c}:{s}-{e}",
    "hg38.": lambda c, s, e: f"hg38.{c}-{s}-{e}",
    "10x reference": lambda c, s, e: f"GRCh38-2020-A_{c}:{s}-{e}",
    "thousands": lambda c, s, e: f"{c}:{s:,}-{e:,}",
    "thousands and build": lambda c, s, e: f"GRCh38_{c}-{s:,}-{e:,}",
    "bytes of the contig": lambda c, s, e: f"{c.encode()!r}:{s}-{e}",
    "strand in brackets": lambda c, s, e: f"{c}:{s}-{e}(+)",
    "strand": lambda c, s, e: f"{c}:{s}-{e}:-",
    "floats": lambda c, s, e: f"{c}:{float(s)}-{float(e)}",
    "blanks": lambda c, s, e: f"{c} {s} {e}",
    "dots between": lambda c, s, e: f"{c}:{s}..{e}",
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
        "chr1_1_2_3",
        "chr1_5_10_20",
        "chr1-5-10-20",
        "X_5_10_20",
        "chr1:1-2-1",
        "chr1-100-200-1",
        "KI270728.1:5-10-1",
        "GRCh38_1_2",
        "hg19_1_2",
        "chr1:-5-10",
        " chr1:1-2",
        "chr1:1.5-2",
        "chr1:10,00-20,00",
        "ATAC_chr1_1_2",
        "GAPDH",
        "HLA-DRB1",
        "AL627309.1",
        "RP11-34P13.7",
        "IGHV4-30-2",
        "tRNA-Gly-GCC-1-5",
        "1.2.3",
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


@pytest.mark.parametrize(
    "name",
    ["hg19.chr1:1-2", "GRCh37_1:1-2", "mm10___chr1-1-2", "mm10-1-1-2", "GRCm39:chr1:1-2", "T2T-CHM13v2.0_chr1_1_2"],
)
def test_each_other_build_is_refused(name):
    with pytest.raises(ValueError, match="1 of 2 OCR names carry another genome build"):
        parse_names(["chr1:1-2", name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chr1-1e+05-100500", ("chr1", 100_000, 100_500)),  # R writes round numbers so
        ("chr1:99500-1e+05", ("chr1", 99_500, 100_000)),
        ("chr1.100.200", ("chr1", 100, 200)),  # R's make.names
        ("GL000219.1.100.200", ("GL000219.1", 100, 200)),
        ("NC_000023.11:5-9", ("chrX", 5, 9)),
        ("CM000686.2:5-9", ("chrY", 5, 9)),
        ("SARS-CoV-2_1_200", ("SARS-CoV-2", 1, 200)),
        ("14-GL000194v1-random-1-2", ("14-GL000194v1-random", 1, 2)),
        ("HLA-A_01_01_01_01_1_200", ("HLA-A_01_01_01_01", 1, 200)),
        ("my_construct:1-5", ("my_construct", 1, 5)),
        ("scaffold_12_100_200", ("scaffold_12", 100, 200)),
        ("GRCh38.p13_KI270728.1:1-2", ("KI270728.1", 1, 2)),
        ("chr01:1-2", ("chr1", 1, 2)),
        ("chrMT:1-2", ("chrM", 1, 2)),
    ],
)
def test_names_as_tools_write_them(name, expected):
    assert next(parse_names([name, "chr1:1-2"]).itertuples(index=False, name=None)) == expected


@given(st.lists(st.text(max_size=30) | st.from_regex(r"[a-z0-9]{1,5}([:_.,-][0-9e+]{1,4}){1,4}", fullmatch=True)))
def test_any_text_is_read_or_refused(names):
    is_read = readable(names)
    assert is_read.shape == (len(names),)
    for name, one in zip(names, is_read, strict=True):
        if one and not re.match(r"(mm|rn|hs1|hg1|b37)", name, re.IGNORECASE):
            ocrs = parse_names([name])
            assert 0 <= ocrs["start"].iloc[0] < ocrs["end"].iloc[0]
        elif not one:
            with pytest.raises(ValueError, match="1 of 1 OCR names"):
                parse_names([name])


def test_readable():
    names = ["chr1:1-2", "GAPDH", b"chr2-3-4", "mm10_chr1:1-2", "chr1_5_10_20", "KI270728.1-1-2", "chr1:5-5", None]
    assert readable(names).tolist() == [True, False, True, True, False, True, False, False]
    assert readable([]).shape == (0,)


@pytest.mark.parametrize(
    ("obs", "var", "expected"),
    [
        (["chr1:1-2", "chr2-3-4"], ["AAACG-1", "AAACT-1"], True),
        (["AAACG-1", "AAACT-1"], ["chr1:1-2", "chr2-3-4"], False),
        (["AAACG-1", "AAACT-1"], ["peak1", "peak2"], False),
        (["plate_1_96", "plate_2_96"], ["peak1", "peak2"], False),
        (["chr1:1-2", "chr2-3-4"], ["chr1:1-2", "peak2"], False),
        ([], [], False),
    ],
)
def test_transposed(obs, var, expected):
    assert looks_transposed(pd.Index(obs, dtype=object), pd.Index(var, dtype=object)) is expected


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("GRCh38_chr1", "chr1"),
        ("hg38.chr1", "chr1"),
        ("hg38:X", "chrX"),
        ("b'chr1'", "chr1"),
        ("chrom7", "chr7"),
        ("Chromosome 7", "chr7"),
        (" chr7 ", "chr7"),
        ("7.0", "chr7"),
        ("07", "chr7"),
        ("NC_000007.14", "chr7"),
        ("NC_000007.13", "NC_000007.13"),  # hg19
        ("GRCh38_KI270728.1", "KI270728.1"),
        ("mm10_chr1", "mm10_chr1"),
        ("HLA-A*01:01", "HLA-A*01:01"),
    ],
)
def test_chromosomes_as_tools_write_them(given_name, expected):
    assert normalize_chromosomes([given_name]).tolist() == [expected]


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


# Without the null character, which ends a text where pandas compares texts.
ANY_TEXT = st.text(st.characters(exclude_characters="\x00"), max_size=12)


@given(st.lists(st.sampled_from(CONTIGS) | ANY_TEXT | st.integers(0, 30) | st.floats()))
def test_spelling_is_settled_at_once(values):
    once = normalize_chromosomes(values)
    assert normalize_chromosomes(once).tolist() == once.tolist()
