from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scfound_atac.genome import (
    CHROMOSOMES,
    best_overlaps,
    chromosome_ids,
    genome_order,
    liftover,
    normalize_chromosomes,
    overlaps,
    read_chain,
)

INTERVALS = st.lists(
    st.tuples(st.sampled_from(["chr1", "chr2", "chrX"]), st.integers(0, 60), st.integers(1, 30)), max_size=25
)


def table(rows):
    frame = pd.DataFrame([(c, s, s + n) for c, s, n in rows], columns=["chrom", "start", "end"])
    return frame.astype({"start": np.int64, "end": np.int64})


@settings(deadline=None)  # the first example pays for the import of bioframe
@given(INTERVALS, INTERVALS)
def test_overlaps_equal_the_naive_ones(rows_a, rows_b):
    a, b = table(rows_a), table(rows_b)
    expected = [
        (i, j, min(x.end, y.end) - max(x.start, y.start))
        for i, x in enumerate(a.itertuples())
        for j, y in enumerate(b.itertuples())
        if x.chrom == y.chrom and x.start < y.end and y.start < x.end
    ]
    assert list(overlaps(a, b).itertuples(index=False, name=None)) == expected


@given(INTERVALS)
def test_genome_order_sorts_and_is_stable(rows):
    ocrs = table(rows)
    key = [(CHROMOSOMES.index(row.chrom), row.start, row.end) for row in ocrs.itertuples()]
    assert genome_order(ocrs).tolist() == sorted(range(len(key)), key=key.__getitem__)


def test_scaffolds_come_last():
    ocrs = pd.DataFrame({"chrom": ["chrUn_b", "chrM", "chrY", "chr10", "chr2"], "start": 0, "end": 1})
    assert genome_order(ocrs).tolist() == [4, 3, 2, 1, 0]


def test_chromosome_spellings():
    assert normalize_chromosomes([1, 23.0, "x", "chrMT", b"chr2", "GRCh38_chr3", "chrUn_1"]).tolist() == [
        "chr1", "chrX", "chrX", "chrM", "chr2", "chr3", "chrUn_1",
    ]  # fmt: skip
    assert chromosome_ids(["chr1", "22", "X", "Y", "chrM", "scaffold"]).tolist() == [1, 22, 23, 24, 0, 0]


CHAIN = """\
chain 900 chr1 1000 + 100 500 chr2 2000 + 1100 1510 1
100 0 10
300

chain 800 chr1 1000 + 600 700 chr3 500 - 50 150 2
100

"""


@pytest.fixture
def chain_path(tmp_path):
    path = tmp_path / "small.over.chain"
    path.write_text(CHAIN)
    return path


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (100, 200, ("chr2", 1100, 1200)),
        (150, 350, ("chr2", 1150, 1360)),  # over a gap of 10 bases: 5 % longer
        (199, 201, None),  # the same gap makes it six times as long
        (600, 610, ("chr3", 440, 450)),  # minus strand
        (450, 650, None),  # two chains
        (90, 120, None),  # starts outside
    ],
)
def test_liftover(chain_path, start, end, expected):
    ocrs = pd.DataFrame({"chrom": ["chr1"], "start": [start], "end": [end]}, index=["a"])
    lifted = liftover(ocrs, chain_path)
    if expected is None:
        assert lifted.isna().all(axis=None)
        return
    assert tuple(lifted.loc["a"]) == expected
    back = liftover(lifted.astype({"start": int, "end": int}), read_chain(chain_path, inverted=True))
    assert tuple(back.loc["a"]) == ("chr1", start, end)


def test_not_a_chain(tmp_path):
    path = tmp_path / "peaks.bed"
    path.write_text("chr1\t1\t2\n")
    with pytest.raises(ValueError, match="not a UCSC chain file"):
        read_chain(path)


@settings(deadline=None)
@given(INTERVALS, INTERVALS)
def test_best_overlaps_are_the_best(rows_a, rows_b):
    """Most bases first, then equal coordinates, then the order of the partners."""
    a, b = table(rows_a), table(rows_b)
    expected = {}
    for i, j, n in overlaps(a, b).itertuples(index=False, name=None):
        expected.setdefault(i, []).append((-n, tuple(a.iloc[i]) != tuple(b.iloc[j]), j))
    found = best_overlaps(a, b)
    assert list(found["a"]) == sorted(expected)
    assert list(found["b"]) == [min(expected[i])[2] for i in sorted(expected)]
    assert list(found["n_targets"]) == [len(expected[i]) for i in sorted(expected)]


def test_same_coordinates_win_over_a_wider_interval():
    found = best_overlaps(table([("chr1", 10, 5)]), table([("chr1", 0, 30), ("chr1", 10, 5)]))
    assert list(found.itertuples(index=False, name=None)) == [(0, 1, 2)]
