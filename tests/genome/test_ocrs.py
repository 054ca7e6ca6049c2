"""Where OCRs are: columns, names, both, and what is done when they disagree."""

from __future__ import annotations

import logging
import re

import numpy as np
import pandas as pd
import pytest

from scfound_atac.datasets import pbmc_multiome_sample
from scfound_atac.genome import get_ocrs
from scfound_atac.genome.ocrs import column_ocrs, read_ocrs


@pytest.fixture(scope="module")
def places() -> pd.DataFrame:
    """Real OCRs, named by their coordinates."""
    var = pbmc_multiome_sample()["atac"].var[["chrom", "start", "end"]].astype({"chrom": object})
    return var.set_axis(named(var), axis=0)


def named(ocrs: pd.DataFrame, gap: str = ":", dash: str = "-") -> list[str]:
    return [f"{c}{gap}{s}{dash}{e}" for c, s, e in zip(ocrs["chrom"], ocrs["start"], ocrs["end"], strict=True)]


def moved(ocrs: pd.DataFrame, bases: int) -> pd.DataFrame:
    return ocrs.assign(start=ocrs["start"] + bases, end=ocrs["end"] + bases)


def anonymous(ocrs: pd.DataFrame) -> pd.DataFrame:
    return ocrs.set_axis([f"peak{i}" for i in range(len(ocrs))], axis=0)


def check_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found) == ["chrom", "start", "end"]
    assert found["start"].dtype == found["end"].dtype == np.int64
    np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())


# ---------------------------------------------------------------- one place after the other


@pytest.mark.parametrize(
    "columns",
    [
        ("chrom", "start", "end"),
        ("chr", "Start", "End"),
        ("seqnames", "start", "stop"),
        ("#Chromosome", "hg38_Start", "hg38_End"),
        ("chrom", "chromStart", "chromEnd"),
        ("Chromosome", "start_hg38", "end_hg38"),
        ("hg38_chr", "hg38_start", "hg38_end"),
        ("contig", "chrom_start", "chrom_end"),
    ],
)
@pytest.mark.parametrize("kind", ["as is", "text", "thousands", "categorical", "float", "nullable"])
def test_columns_in_use(places: pd.DataFrame, columns: tuple[str, str, str], kind: str) -> None:
    var = anonymous(places.set_axis(columns, axis=1))
    bounds = list(columns[1:])
    if kind == "thousands":
        var[bounds] = var[bounds].map("{:,}".format)
    elif kind != "as is":
        var[bounds] = var[bounds].astype(
            {"text": str, "categorical": "category", "float": float, "nullable": "Int64"}[kind]
        )
    before = var.copy()
    check_same(read_ocrs(var), places)
    pd.testing.assert_frame_equal(var, before)


@pytest.mark.parametrize("missing", [np.nan, None, "", "nan", pd.NA], ids=repr)
@pytest.mark.parametrize("columns", [["chrom", "start", "end"], ["start"], ["chrom"]])
def test_gaps_in_columns_are_read_from_names(places: pd.DataFrame, missing: object, columns: list[str]) -> None:
    var = places.astype(object)
    var.loc[var.index[100:200], columns] = missing
    check_same(read_ocrs(var), places)
    check_same(read_ocrs(var.astype({"chrom": "category"})), places)


def test_gaps_without_names(places: pd.DataFrame) -> None:
    var = anonymous(places).astype(object)
    var.iloc[5, 0] = np.nan
    with pytest.raises(ValueError, match=r'1 of 662 OCRs have no chromosome in target\.var\["chrom"\].*\'peak5\''):
        read_ocrs(var, role="target")


def test_gaps_in_scaffolds(places: pd.DataFrame) -> None:
    var = places.astype(object)
    var.iloc[:3] = np.nan
    var = var.set_axis(
        ["KI270728.1-5-900", "chr14-GL000194v1-random-5-900", "HLA-A*01:01-5-900", *var.index[3:]], axis=0
    )
    found = read_ocrs(var)
    assert found["chrom"].tolist()[:3] == ["KI270728.1", "chr14-GL000194v1-random", "HLA-A*01:01"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("start", -5, "a start below 0"),
        ("end", 7, "an end not beyond the start"),
        ("start", 0.5, "no whole number"),
        ("start", np.inf, "no whole number"),
        ("end", "x", "no number"),
    ],
)
@pytest.mark.parametrize("n_rows", [1, 662])
def test_wrong_values_are_refused(places: pd.DataFrame, column: str, value: object, message: str, n_rows: int) -> None:
    var = places.astype(object)
    var.loc[var.index[:n_rows], column] = value
    with pytest.raises(ValueError, match=rf"{n_rows} of 662 OCRs have {message}.*del basis\.var\['end'\]\.$"):
        read_ocrs(var, role="basis")
    with pytest.raises(ValueError, match=rf"{n_rows} of 662 OCRs have {message}.*drop these OCRs\.$"):
        read_ocrs(anonymous(var), role="basis")
    check_same(read_ocrs(var.drop(columns="end")), places)


def test_names_that_only_look_like_places(places: pd.DataFrame) -> None:
    var = places.set_axis([f"peak_{i}_{i + 100}" for i in range(len(places))], axis=0)
    check_same(read_ocrs(var), places)
    var.iloc[3, 1] = var.iloc[3, 2]
    with pytest.raises(ValueError, match="1 of 662 OCRs have an end not beyond the start"):
        read_ocrs(var)


def test_interval_of_10x(places: pd.DataFrame) -> None:
    check_same(read_ocrs(anonymous(pd.DataFrame({"interval": places.index}))), places)


def test_names_of_another_build_beside_columns(places: pd.DataFrame) -> None:
    check_same(read_ocrs(places.set_axis([f"hg19_{name}" for name in named(moved(places, -900))], axis=0)), places)


# ---------------------------------------------------------------- counted from 1


@pytest.mark.parametrize("names", ["none", "from 0", "from 1"])
def test_width_of_granges(places: pd.DataFrame, names: str, caplog: pytest.LogCaptureFixture) -> None:
    from_1 = places.assign(start=places["start"] + 1)
    var = from_1.assign(width=from_1["end"] - from_1["start"] + 1, strand="*").rename(columns={"chrom": "seqnames"})
    var.index = {"none": anonymous(var).index, "from 0": places.index, "from 1": named(from_1, "-")}[names]
    with caplog.at_level(logging.INFO, "scfound_atac"):
        check_same(read_ocrs(var), places)
    assert "counted from 1" in caplog.text


def test_width_counted_from_0(places: pd.DataFrame) -> None:
    check_same(read_ocrs(anonymous(places.assign(width=places["end"] - places["start"]))), places)


@pytest.mark.parametrize("which", ["names", "columns"])
def test_one_base_is_no_disagreement(places: pd.DataFrame, which: str, caplog: pytest.LogCaptureFixture) -> None:
    from_1 = places.assign(start=places["start"] + 1)
    var = from_1.set_axis(places.index, axis=0) if which == "columns" else places.set_axis(named(from_1), axis=0)
    check_same(read_ocrs(var), places)
    assert not caplog.records


# ---------------------------------------------------------------- disagreement


@pytest.mark.parametrize("genome", [None, "GRCh38"])
@pytest.mark.parametrize("right", ["names", "columns"])
def test_what_is_recognised_wins(
    places: pd.DataFrame, right: str, genome: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = moved(places, 40_000)
    var = wrong.set_axis(places.index, axis=0) if right == "names" else places.set_axis(named(wrong), axis=0)
    check_same(read_ocrs(var, genome=genome, role="reference"), places)
    assert re.search(
        rf"reference\.var: names and columns disagree in 662 of 662 OCRs, e\.g\..*using the {right}", caplog.text
    )


def test_places_of_genes_beside_peaks(places: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    wide = places.assign(
        start=places["start"] - rng.integers(2000, 50_000, 662), end=places["start"] + rng.integers(1000, 90_000, 662)
    )
    check_same(read_ocrs(wide, genome="GRCh38"), places)
    assert "using the names" in caplog.text


@pytest.mark.parametrize("chrom", ["p13", "chrUn_KI270742v1", "chrM"])
def test_columns_without_chromosomes(places: pd.DataFrame, chrom: str, caplog: pytest.LogCaptureFixture) -> None:
    check_same(read_ocrs(places.assign(chrom=chrom)), places)
    assert "names and columns disagree in 662 of 662" in caplog.text


def test_scaffolds_have_many_spellings(places: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    var = places.assign(chrom=["chr14_GL000194v1_random", *places["chrom"][1:]])
    var.index = ["chr14-GL000194v1-random-5-900", *places.index[1:]]
    check_same(read_ocrs(var), var)
    check_same(read_ocrs(places.set_axis(["chr1_peak_100_200", *places.index[1:]], axis=0)), places)
    assert not caplog.records


def test_the_others_do_not_fill_gaps_of_what_is_taken(places: pd.DataFrame) -> None:
    var = moved(places, 40_000).set_axis(["peak_1_200", *places.index[1:]], axis=0)
    with pytest.raises(ValueError, match="1 of 662 OCR names are not of the form.*'peak_1_200'"):
        read_ocrs(var)


def test_repeated_columns(places: pd.DataFrame) -> None:
    check_same(read_ocrs(pd.concat([places, places[["start"]]], axis=1)), places)


def test_two_sets_of_columns(places: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    both = moved(places, 40_000).assign(hg38_start=places["start"], hg38_end=places["end"])
    check_same(read_ocrs(anonymous(both)), places)
    assert "two sets of columns disagree" in caplog.text
    assert "recognised as GRCh38" in caplog.text
    caplog.clear()
    check_same(read_ocrs(anonymous(both).iloc[:20], genome="GRCh38"), places[:20])  # too few to recognise
    assert "'hg38_start' and 'hg38_end', whose names say GRCh38" in caplog.text


def test_undecided(places: pd.DataFrame) -> None:
    wider = places.assign(start=places["start"] - 200, end=places["end"] + 200)
    message = (
        r'mdata\["atac"\]\.var: names and columns disagree in 662 of 662 OCRs(.*?chr1:157\d+-157\d+ or chr1:157\d+-157\d+){3}.*'
        r"""del mdata\["atac"\]\.var\['end'\].*mdata\["atac"\]\.var_names = """
    )
    with pytest.raises(ValueError, match=message):
        read_ocrs(wider, genome="GRCh38", role='mdata["atac"]')


@pytest.mark.parametrize("column", ["start", "chrom"])
def test_a_lone_wrong_row(places: pd.DataFrame, column: str) -> None:
    var = places.copy()
    var.iloc[7, list(var).index(column)] = 156_000_000 if column == "start" else "chr9"
    with pytest.raises(ValueError, match="disagree in 1 of 662 OCRs.*Correct these OCRs or drop them"):
        read_ocrs(var, genome="GRCh38")


def test_advice_mends(places: pd.DataFrame) -> None:
    adata = type("Table", (), {})()
    for wrong in ("names", "columns"):
        wider = places.assign(start=places["start"] - 200, end=places["end"] + 200)
        var = places.set_axis(named(wider), axis=0) if wrong == "names" else wider.set_axis(places.index, axis=0)
        with pytest.raises(ValueError, match="disagree") as error:
            read_ocrs(var)
        adata.var, adata.var_names = var, None
        advice = str(error.value)
        if wrong == "names":
            exec(re.search(r"rename: (adata\.var_names = .*)\.$", advice)[1], {"adata": adata})
            adata.var.index = adata.var_names
        else:
            exec(re.search(r"drop the others: (del .*?);", advice)[1], {"adata": adata})
        check_same(read_ocrs(adata.var), places)


# ---------------------------------------------------------------- once, and on GRCh38


def test_repeated(places: pd.DataFrame) -> None:
    var = anonymous(pd.concat([places, places[:2]]))
    with pytest.raises(ValueError, match=r"2 of 664 OCRs repeat.*basis = basis\[:, ~sfa") as error:
        read_ocrs(var, role="basis")
    assert "GRCh38" not in str(error.value)


@pytest.mark.parametrize(
    ("genome", "uns", "message"),
    [
        ("hg19", "GRCh38", r"reference are declared to be on hg19.*reference = sfa\.pp\.liftover_ocrs\(reference"),
        (None, np.array(["mm10"]), "declared to be on genome 'mm10'"),
    ],
)
def test_declared(places: pd.DataFrame, genome: str | None, uns: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_ocrs(places, genome=genome, uns_genome=uns, role="reference")
    assert '"GRCh38"' not in str(error.value)
    check_same(read_ocrs(places, genome="hg38", uns_genome=uns), places)


def test_from_columns_alone(places: pd.DataFrame) -> None:
    check_same(column_ocrs(moved(places, 40_000)), moved(places, 40_000))
    with pytest.raises(ValueError, match=r'set var\["chrom"\]'):
        column_ocrs(places[[]])


def test_no_rows() -> None:
    assert get_ocrs(pd.DataFrame({"chrom": [], "start": [], "end": []})).shape == (0, 3)
    assert get_ocrs(pd.DataFrame(index=pd.Index([], dtype=object))).shape == (0, 3)
