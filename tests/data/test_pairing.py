from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scfound_atac.data.pairing import match_names

BARCODES = ["AAACAGCC", "AAACATGC", "AAACCGGA", "TTTGCGCA"]


def pairs(first, second) -> list[tuple[str, str]]:
    rows = match_names(pd.Index(first), pd.Index(second))
    return [(first[i], second[j]) for i, j in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}-1", "{}-1_rna"),
        ("{}-1", "sample#{}-1"),
        ("{}-1", "{}"),
        ("{}-1_atac", "{}-1_rna"),
        ("sample#{}-1", "{}-1_sample_gex"),
        ("{}-1-0", "{}-1"),
    ],
)
def test_names_of_the_same_cells(first, second) -> None:
    one, other = [first.format(x) for x in BARCODES], [second.format(x) for x in BARCODES[::-1]]
    assert pairs(one, other) == list(zip(one, other[::-1], strict=True))


def test_equal_names_first() -> None:
    one, other = ["AAACAGCC-1", "AAACATGC-1"], ["AAACATGC-1_rna", "AAACAGCC-1", "AAACAGCC-1_rna"]
    assert pairs(one, other) == [("AAACAGCC-1", "AAACAGCC-1"), ("AAACATGC-1", "AAACATGC-1_rna")]
    assert pairs(["x", "y"], ["y", "x"]) == [("x", "x"), ("y", "y")]


def test_samples_that_both_name() -> None:
    one = [f"s{i}#{x}-1" for i in (1, 2) for x in BARCODES]
    other = [f"{x}-1_s{i}_rna" for i in (2, 1) for x in BARCODES]
    found = pairs(one, other)
    assert len(found) == 8
    assert all(a[:2] == b.split("_")[1] and a[3:11] == b[:8] for a, b in found)


def test_what_cannot_be_told_apart_has_no_pair() -> None:
    one = [f"s{i}#{x}-1" for i in (1, 2) for x in BARCODES[:3]]
    assert pairs(one, [f"{x}-1" for x in BARCODES]) == []
    assert pairs(["cell1", "cell2"], ["one", "two"]) == []
    assert pairs(["-", "--"], ["+", "++"]) == []


def test_cells_that_are_alone_have_no_pair() -> None:
    """Also where all other words of their names are the same, and where a barcode is in two samples."""
    one = ["AAACAGCC-1", "GGGGCCCC-1"]
    assert pairs(one, ["AAACAGCC-1_rna", "CCCCTTTT-1_rna"]) == [("AAACAGCC-1", "AAACAGCC-1_rna")]
    assert pairs(["s1#GGGGCCCC-1", "s2#GGGGCCCC-1"], ["s1#TTTTCCCC-1_rna", "s1#TTTTCCCC-2_rna"]) == []


def test_shapes_and_types() -> None:
    rows = match_names(pd.Index(["a"]), pd.Index(["b"]))
    assert [x.shape for x in rows] == [(0,), (0,)]
    assert [x.dtype for x in rows] == [np.int64, np.int64]
