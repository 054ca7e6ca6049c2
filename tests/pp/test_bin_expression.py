"""Levels of expression: what a level is, and what must not matter."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pytest
from anndata.tests.helpers import assert_equal
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

import scfound_atac as sfa

# Whole numbers, as counts are: scaling them keeps their order exactly.
COUNTS = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.integers(0, 9).map(np.float32)
)
N_BINS = st.integers(2, 12)


def levels(matrix: object, **kwargs: object) -> np.ndarray:
    adata = ad.AnnData(matrix)
    sfa.pp.bin_expression(adata, **kwargs)
    found = adata.layers["binned"]
    return found.toarray() if sparse.issparse(found) else found


def test_levels_by_hand() -> None:
    """Nine values, one per level; ties take the lowest quantile of theirs; a single value the first level."""
    cells = np.zeros((4, 12), np.float32)
    cells[0, :9] = [9, 1, 8, 2, 7, 3, 6, 4, 5]
    cells[1, :10] = [1, 1, 1, 1, 1, 1, 2, 2, 2, 5]
    cells[2, 3] = 7
    expected = np.zeros((4, 12), int)
    expected[0, :9] = cells[0, :9]
    expected[1, :10] = [1, 1, 1, 1, 1, 1, 6, 6, 6, 9]
    expected[2, 3] = 1
    np.testing.assert_array_equal(levels(cells), expected)


@given(COUNTS, N_BINS)
def test_zeros_stay_and_levels_are_in_range(counts: np.ndarray, n_bins: int) -> None:
    found = levels(counts, n_bins=n_bins)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found == 0, counts == 0)
    assert found.max() <= n_bins - 1
    for row, level in zip(counts, found, strict=True):
        if row.any():
            assert level[row == row[row > 0].min()].max() == 1  # the smallest value is at the first level
            if np.unique(row[row > 0]).size == (row > 0).sum() >= n_bins - 1:
                assert level.max() == n_bins - 1  # with enough different values, all levels are there
                assert set(level[row > 0]) == set(range(1, n_bins))


@given(COUNTS, N_BINS)
def test_levels_follow_the_values(counts: np.ndarray, n_bins: int) -> None:
    for row, level in zip(counts, levels(counts, n_bins=n_bins).astype(int), strict=True):
        order = np.argsort(row, kind="stable")
        assert (np.diff(level[order]) >= 0).all()
        assert (np.diff(level[order])[np.diff(row[order]) == 0] == 0).all()


@given(COUNTS, st.integers(1, 1000))
def test_scale_of_a_cell_does_not_matter(counts: np.ndarray, factor: int) -> None:
    scale = np.arange(1, len(counts) + 1)[:, None] * factor
    np.testing.assert_array_equal(levels(counts * scale), levels(counts))
    np.testing.assert_array_equal(levels(np.log1p(counts)), levels(counts))


@given(COUNTS)
def test_other_cells_and_order_of_genes_do_not_matter(counts: np.ndarray) -> None:
    found = levels(counts)
    np.testing.assert_array_equal(levels(counts[:, ::-1].copy())[:, ::-1], found)
    for i in range(len(counts)):
        np.testing.assert_array_equal(levels(counts[[i]])[0], found[i])


@given(COUNTS)
def test_storage_does_not_matter(counts: np.ndarray) -> None:
    found = levels(counts)
    for convert in (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array):
        np.testing.assert_array_equal(levels(convert(counts)), found)


def test_what_is_written() -> None:
    counts = sparse.random(6, 20, density=0.5, format="csr", random_state=0, dtype=np.float32)
    adata = ad.AnnData(counts.copy())
    before = adata.copy()
    sfa.pp.bin_expression(adata)
    assert adata.layers["binned"].format == "csr"
    del adata.layers["binned"]
    assert_equal(adata, before)
    other = ad.AnnData(sparse.csc_matrix(counts), layers={"raw": counts.copy()})
    copied = sfa.pp.bin_expression(other, layer="raw", key_added="levels", copy=True)
    assert "levels" not in other.layers
    assert copied.layers["levels"].format == "csr"
    sfa.pp.bin_expression(other)
    assert other.layers["binned"].format == "csc"
    assert isinstance(sfa.pp.bin_expression(ad.AnnData(counts.toarray()), copy=True).layers["binned"], np.ndarray)


def test_stored_zeros_and_empty_tables() -> None:
    counts = sparse.csr_matrix(np.array([[1, 2, 0, 3], [0, 0, 0, 0]], np.float32))
    counts.data[1] = 0  # stored, yet no value
    np.testing.assert_array_equal(levels(counts, n_bins=3), [[1, 0, 0, 2], [0, 0, 0, 0]])
    assert levels(sparse.csr_matrix((0, 4), dtype=np.float32)).shape == (0, 4)
    assert levels(sparse.csr_matrix((3, 0), dtype=np.float32)).shape == (3, 0)


def test_mudata_and_file(tmp_path) -> None:
    counts = sparse.random(6, 20, density=0.5, format="csr", random_state=0, dtype=np.float32)
    genes, ocrs = ad.AnnData(counts.copy()), ad.AnnData(counts.copy())
    ocrs.var_names = [f"chr1:{100 * i}-{100 * i + 50}" for i in range(20)]
    mdata = md.MuData({"rna": genes, "atac": ocrs})
    sfa.pp.bin_expression(mdata)
    assert "binned" not in mdata["atac"].layers
    mdata.write_h5mu(tmp_path / "a.h5mu")
    again = md.read_h5mu(tmp_path / "a.h5mu")["rna"].layers["binned"]
    np.testing.assert_array_equal(again.toarray(), levels(counts))
    with pytest.raises(KeyError, match="no modality 'gex'"):
        sfa.pp.bin_expression(mdata, modality="gex")


@pytest.mark.parametrize("bad", [np.nan, -1, np.inf])
def test_values_that_are_no_expression(bad: float) -> None:
    counts = np.ones((3, 4), np.float32)
    counts[1, 2] = bad
    adata = ad.AnnData(counts)
    before = adata.copy()
    with pytest.raises(ValueError, match=r"adata.X has 1 values .*cell 1"):
        sfa.pp.bin_expression(adata)
    assert_equal(adata, before)


@pytest.mark.parametrize("n_bins", [1, 0, -3, 257])
def test_number_of_levels(n_bins: int) -> None:
    with pytest.raises(ValueError, match="n_bins must lie between 2"):
        levels(np.ones((2, 2), np.float32), n_bins=n_bins)


def test_real_cells(data_dir) -> None:
    rna = md.read_h5mu(data_dir / "bmmc_multiome_1.h5mu")["rna"].copy()
    sfa.pp.bin_expression(rna)
    binned = rna.layers["binned"]
    assert (binned.sum(axis=1) > 0).sum() == (rna.X.sum(axis=1) > 0).sum()
    assert binned.nnz == rna.X.nnz
    assert binned.max() == 9
