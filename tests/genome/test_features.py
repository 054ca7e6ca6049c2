"""Which features of a table are peaks."""

from __future__ import annotations

import ast
import re

import numpy as np
import pandas as pd
import pytest

from scfound_atac.genome.features import peak_columns

GENES, PEAKS = (
    ["CD3E", "HLA-DRB1", "IGHV4-30-2"],
    ["chr1:100-200", "chr2-500-900", "KI270728.1-1-2000", "GRCh38_chrX:1,000-2,000"],
)
NAMES = GENES + PEAKS
IS_PEAK = [False] * 3 + [True] * 4
PLACES = {"chrom": "chr1", "start": range(0, 700, 100), "end": range(50, 750, 100)}


def table(names: list[str], **columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


@pytest.mark.parametrize("column", ["feature_types", "feature_type", "featureType", "Feature Types"])
@pytest.mark.parametrize(
    "gene", ["Gene Expression", "gene expression", "Antibody Capture", "CRISPR Guide Capture", "Custom"]
)
@pytest.mark.parametrize("peak", ["Peaks", "peak", "ATAC", "Chromatin Accessibility", b"Peaks", "b'Peaks'"], ids=repr)
@pytest.mark.parametrize("kind", ["object", "category"])
def test_feature_types(column: str, gene: str, peak: object, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    values = pd.Series([gene] * 3 + [peak] * 4, dtype=object).astype(kind)
    found = peak_columns(table(NAMES, **{column: values.to_numpy()}, **PLACES))
    assert found.tolist() == IS_PEAK
    assert "3 of 7 features of adata are no peaks" in caplog.text
    assert "'CD3E'" in caplog.text


@pytest.mark.parametrize("missing", [None, np.nan, "", "promoter"], ids=repr)
def test_gaps_are_told_by_names(missing: object) -> None:
    values = ["Gene Expression", missing, missing, "Peaks", missing, missing, missing]
    assert peak_columns(table(NAMES, feature_types=values)).tolist() == IS_PEAK


def test_all_peaks(caplog: pytest.LogCaptureFixture) -> None:
    assert peak_columns(table(PEAKS)) is None
    assert peak_columns(table(PEAKS, feature_types="Peaks")) is None
    assert peak_columns(table(NAMES, feature_types="Peaks", **PLACES)) is None
    assert peak_columns(table(PEAKS, feature_types="promoter")) is None
    assert peak_columns(table([f"peak{i}" for i in range(7)], **PLACES)) is None
    # what could be read in two ways is no gene: get_ocrs has more to say
    assert peak_columns(table([*PEAKS, "chr1_5_10_20", "mm10_chr1:1-2", "chr1:1-2-1"])) is None
    assert peak_columns(table([])) is None
    assert not caplog.records


def test_no_peak_at_all() -> None:
    var = table(GENES, feature_types=["Gene Expression", "Gene Expression", "Antibody Capture"])
    message = r"reference has no peak matrix.*none of its 3 features is a peak \('Gene Expression': 2, .*gex_only=False"
    with pytest.raises(ValueError, match=message):
        peak_columns(var, role="reference")


@pytest.mark.parametrize("columns", [{}, PLACES, {"feature_types": "promoter"}])
def test_mixture_without_types(columns: dict[str, object]) -> None:
    looks = "look like genes" if "chrom" not in columns else "are these genes, whose places the columns give"
    with pytest.raises(
        ValueError, match=rf"'CD3E', 'HLA-DRB1', 'IGHV4-30-2'.*{re.escape('adata.var[')}\"feature_types\""
    ) as error:
        peak_columns(table(NAMES, **columns))
    assert looks in str(error.value)
    mend = re.search(r"contains\((r?'.*?')\)", str(error.value))[1]
    assert pd.Index(NAMES).str.contains(ast.literal_eval(mend)).tolist() == IS_PEAK
