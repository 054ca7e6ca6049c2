from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from scfound_atac.data import prepare_rows


@pytest.fixture
def rows() -> sparse.csr_matrix:
    counts = np.random.default_rng(0).poisson(0.3, (40, 300)).astype(np.float32)
    counts[7] = 0
    return sparse.csr_matrix(counts)


@pytest.mark.parametrize("log1p", [True, False])
@pytest.mark.parametrize("target_sum", [1e4, 17.0, None])
def test_equals_scanpy(rows: sparse.csr_matrix, target_sum: float | None, log1p: bool) -> None:
    adata = AnnData(rows.copy())
    if target_sum is not None:
        sc.pp.normalize_total(adata, target_sum=target_sum)
    if log1p:
        sc.pp.log1p(adata)
    found = prepare_rows(rows, target_sum=target_sum, log1p=log1p)
    np.testing.assert_allclose(found.toarray(), adata.X.toarray(), rtol=1e-6)


def test_totals(rows: sparse.csr_matrix) -> None:
    total = prepare_rows(rows, target_sum=500.0, log1p=False).sum(1).A1
    assert total[7] == 0
    np.testing.assert_allclose(np.delete(total, 7), 500, rtol=1e-5)


def test_empty_cell_stays_empty(rows: sparse.csr_matrix) -> None:
    found = prepare_rows(rows)
    assert np.isfinite(found.data).all()
    assert found[7].nnz == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_input_stays_and_result_is_float32(rows: sparse.csr_matrix, dtype: type) -> None:
    rows = rows.astype(dtype)
    before = rows.copy()
    found = prepare_rows(rows)
    assert found.dtype == np.float32
    assert rows.dtype == dtype
    assert (rows != before).nnz == 0
    np.testing.assert_array_equal(found.indices, rows.indices)


def test_large_totals_keep_their_digits() -> None:
    """A cell of 30 million counts, summed in float32, would be off."""
    rows = sparse.csr_matrix(np.full((1, 100_000), 301.0, dtype=np.float32))
    np.testing.assert_allclose(prepare_rows(rows, target_sum=1e4, log1p=False).data, 0.1, rtol=1e-6)


def test_no_cells() -> None:
    assert prepare_rows(sparse.csr_matrix((0, 5), dtype=np.float32)).shape == (0, 5)
