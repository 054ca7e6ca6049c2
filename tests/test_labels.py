"""Labels of cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfound_atac._labels import is_label, read_labels

NONE_TEXTS = ["nan", "NaN", "None", "NA", "n/a", "<NA>", "", "  ", "Unknown", " unknown ", "UNASSIGNED", "Unlabeled"]
NONE_TEXTS += ["unlabelled", "Not assigned", "not_assigned", "null", b"Unknown"]


@pytest.mark.parametrize("value", [*NONE_TEXTS, None, np.nan, pd.NA, pd.NaT], ids=repr)
def test_what_is_no_label(value: object) -> None:
    assert is_label(pd.Series(["B", value, "T"], dtype=object)).tolist() == [True, False, True]


@pytest.mark.parametrize("value", ["Nanog+", "NK", "unknown T", 0, 0.0, False, "0", "other", "nonclassical"], ids=repr)
def test_what_is_a_label(value: object) -> None:
    assert is_label(pd.Series([value], dtype=object)).all()


@pytest.mark.parametrize("dtype", [object, "category", "string", "str"])
def test_texts(dtype: object, caplog: pytest.LogCaptureFixture) -> None:
    column = pd.Series(["T", "B", None, "T ", "Unknown", "nan", "unknown"]).astype(object).astype(dtype)
    if dtype == "str":
        column = column.where(column.notna(), "None")
    codes, labels = read_labels(column, "cell_type", role="reference")
    assert labels == ["B", "T"]
    assert codes.dtype == np.int64
    assert codes.tolist() == [1, 0, -1, 1, -1, -1, -1]
    assert "cells of reference have no label by reference.obs['cell_type']" in caplog.text
    assert "'Unknown': 1" in caplog.text


def test_gaps_alone_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    read_labels(pd.Series(["a", None, "b", np.nan, "", "a"]), "x")
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([3, 1, 3, 1]), ["1", "3"]),
        (np.array([3.0, np.nan, 3.0, 1.0]), ["1", "3"]),
        (np.array([3, 1, 3, 1], dtype=np.uint8), ["1", "3"]),
        (pd.array([3, None, 3, 1], dtype="Int64"), ["1", "3"]),
        (pd.array([3, None, 3, 1], dtype="Float64"), ["1", "3"]),
        (pd.Categorical([3, 1, 3, None]), ["1", "3"]),
        (pd.Categorical([3.0, 1.0, 3.0, None]), ["1", "3"]),
        (np.array([True, False, True, False]), ["False", "True"]),
        (pd.array([True, None, True, False], dtype="boolean"), ["False", "True"]),
        (np.array([b"a", b"b", b"a", b"b"], dtype=object), ["a", "b"]),
        (np.array(["1.1", "1.2", "1.1", "1.2"], dtype=object), ["1.1", "1.2"]),
        (np.array([1, "x", 1.0, "x"], dtype=object), ["1", "x"]),
    ],
)
def test_codes_of_clusters(values: object, expected: list[str]) -> None:
    codes, labels = read_labels(pd.Series(values), "leiden")
    assert labels == expected
    missing = pd.isna(pd.Series(values)).to_numpy()
    np.testing.assert_array_equal(codes < 0, missing)


def test_many_clusters() -> None:
    rng = np.random.default_rng(0)
    assert len(read_labels(pd.Series(rng.integers(0, 300, 5000)), "metacell")[1]) == 300


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RNG.random(300), "measurements: 300 of 300 values are not whole"),
        (np.repeat([0.5, 1.5], 50), "measurements: 100 of 100 values are not whole"),
        (RNG.random(300).astype(np.float32), "measurements"),
        (np.where(np.arange(300) % 2, np.nan, RNG.random(300)), "measurements: 150 of 150"),
        (pd.array(RNG.random(300), dtype="Float64"), "measurements"),
        (pd.Categorical(RNG.random(300)), "measurements"),
        (RNG.integers(1000, 20_000, 300), "measurements: 29. different numbers"),
        (RNG.integers(1000, 20_000, 30_000), "measurements: .* different numbers"),
        (RNG.integers(1000, 20_000, 300).astype(float), "measurements"),
        ([f"{i:08d}-1" for i in range(300)], "its values all differ .300 in 300"),
        ([f"{i // 2 if i < 20 else i:08d}-1" for i in range(300)], "its values nearly all differ"),
        (["a"] * 9, "1 label.*at least 2"),
        ([None] * 9, "0 label.*stand for none"),
        (["nan"] * 9, "0 label.*stand for none"),
    ],
)
def test_what_is_no_column_of_labels(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"reference\.obs\['x'\].*label.*") as error:
        read_labels(pd.Series(values), "x", role="reference")
    assert error.match(message)


def test_fewer_labels_may_do() -> None:
    assert read_labels(pd.Series(["a"] * 9), "x", n_min=1)[1] == ["a"]


@given(st.lists(st.sampled_from(["A", "B", "C", "nan", None, "Unknown", 3, 3.0])))
def test_codes_name_labels(values: list[object]) -> None:
    column = pd.Series(values, dtype=object)
    try:
        codes, labels = read_labels(column, "x", n_min=0)
    except ValueError:
        return
    assert labels == sorted(set(labels))
    np.testing.assert_array_equal(codes >= 0, is_label(column))
    for code, value in zip(codes, values, strict=True):
        assert code < 0 or labels[code] == str(int(value) if isinstance(value, float) else value)
