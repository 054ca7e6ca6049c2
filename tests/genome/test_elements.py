from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scfound_atac
from scfound_atac.genome import CHROMOSOMES, overlaps
from scfound_atac.genome.elements import NO_TYPE, RANK_WEIGHTS, UNIT, ElementTable, load_element_table


def toy() -> ElementTable:
    """Three elements on chr1 and two on chr3, in three modules, two types of REMO and one that was added."""
    return ElementTable(
        n_per_chromosome=np.array([3, 0, 2, *[0] * (len(CHROMOSOMES) - 3)]),
        start=np.array([100, 500, 1000, 40, 300]),
        end=np.array([300, 700, 1500, 90, 400]),
        module=np.array([0, 1, 0, 2, 2], dtype=np.int32),
        ranked=np.array([[1, 0], [0, NO_TYPE], [NO_TYPE, NO_TYPE]], dtype=np.uint8),
        gc=np.array([40, 50, 60], dtype=np.uint8),
        stratum=np.array([0, 1, 1, 2, 2], dtype=np.uint8),
        marked=(np.array([1, 3], dtype=np.int32),),
        type_ids=("CL:1", "CL:2", "CL:3"),
        type_names=("a", "b", "added"),
        tissues={"Liver": (0, 2)},
    )


def ocrs(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


def test_weights_fall_with_the_rank_and_added_types_are_marked() -> None:
    first, second = RANK_WEIGHTS[:2]
    expected = [[second, first, 0], [first, 0, 1], [second, first, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(toy().types.toarray(), expected)


def test_lookup_is_the_mean_over_elements_by_common_bases() -> None:
    known = toy().lookup(ocrs(("chr1", 250, 600), ("chr1", 300, 500), ("3", 0, 1000), ("chrUn_1", 100, 300)))
    weight = np.array([50, 100]) / 150
    expected = weight @ toy().types.toarray()[:2]
    np.testing.assert_allclose(
        known.types.toarray(), [expected, [0, 0, 0], np.array([0, 0, 1 / 3]), [0, 0, 0]], atol=1e-6
    )
    assert known.found.tolist() == [True, False, True, False]
    assert known.element.tolist() == [1, -1, 4, -1]
    assert known.module.tolist() == [1, -1, 2, -1]
    assert known.stratum.tolist() == [1, -1, 2, -1]
    np.testing.assert_array_equal(known.gc, [50, np.nan, 60, np.nan])


def test_expected_is_mean_and_variance_within_classes() -> None:
    mean, variance = toy().expected()
    dense = toy().types.toarray()
    np.testing.assert_allclose(mean[1], dense[1:3].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance[1], dense[1:3].var(axis=0), atol=1e-6)


def test_saved_table_is_the_same(tmp_path) -> None:
    toy().save(tmp_path / "t.npz")
    again = ElementTable.load(tmp_path / "t.npz")
    for name in ("n_per_chromosome", "start", "end", "module", "ranked", "gc", "stratum"):
        np.testing.assert_array_equal(getattr(again, name), getattr(toy(), name), err_msg=name)
    np.testing.assert_array_equal(again.marked[0], toy().marked[0])
    assert (again.type_ids, again.type_names, again.tissues) == (toy().type_ids, toy().type_names, toy().tissues)


@settings(deadline=None)  # the first call imports bioframe
@given(
    st.lists(
        st.tuples(st.sampled_from(["chr1", "chr2", "chr3", "chrM"]), st.integers(0, 2000), st.integers(1, 900)),
        min_size=1,
    )
)
def test_overlaps_are_those_of_bioframe(rows) -> None:
    table, asked = toy(), ocrs(*((chrom, start, start + width) for chrom, start, width in rows))
    chrom = np.repeat(np.array(CHROMOSOMES, dtype=object), table.n_per_chromosome)
    elements = pd.DataFrame({"chrom": chrom, "start": table.start, "end": table.end})
    expected = overlaps(asked, elements)
    found = pd.DataFrame(dict(zip(("a", "b", "n_bases"), table.overlaps(asked), strict=True)))
    assert set(found.itertuples(index=False, name=None)) == set(expected.itertuples(index=False, name=None))


def test_table_of_the_package() -> None:
    table = load_element_table()
    assert (len(table.start), len(table.ranked), table.n_types) == (1_507_327, 340_069, 150)
    assert (table.start % UNIT == 0).all()
    assert (table.end > table.start).all()
    starts, ends = table._bounds
    assert (np.diff(starts) > 0).all()
    assert (np.diff(ends) >= 0).all()  # what the look-up relies on
    assert {"Blood", "Brain", "Liver"} <= set(table.tissues)


def test_the_licence_of_the_elements_lies_beside_them() -> None:
    text = Path(scfound_atac.__file__).with_name("genome") / "element_table.LICENSE.txt"
    assert "The Artistic License 2.0" in text.read_text(encoding="utf-8")


def test_elements_are_those_of_remo(data_dir) -> None:
    table, original = load_element_table(), np.load(data_dir / "remo" / "remo_v1_grch38.npz")
    np.testing.assert_array_equal(table.start, original["start"] // UNIT * UNIT)
    np.testing.assert_array_equal(table.end, -(-original["end"] // UNIT) * UNIT)
    np.testing.assert_array_equal(table.module, original["module"])
    np.testing.assert_array_equal(table.gc, np.round(original["gc"]))
    sorted_types = np.sort(table.ranked, axis=1)
    np.testing.assert_array_equal((sorted_types != NO_TYPE).sum(axis=1), np.diff(original["indptr"]))
    np.testing.assert_array_equal(sorted_types[sorted_types != NO_TYPE], original["indices"])


@pytest.mark.parametrize(
    ("cell_type", "gene"),
    [("hepatocyte", ("chr4", 73_404_000, 73_405_000)), ("naive B cell", ("chr16", 28_931_500, 28_932_500))],
)
def test_promoters_of_markers_are_known_for_their_type(cell_type, gene) -> None:
    # ALB and CD19
    table = load_element_table()
    weights = table.lookup(ocrs(gene)).types.toarray()[0]
    assert weights[table.type_names.index(cell_type)] > 0
