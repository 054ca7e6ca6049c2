"""Prepare the counts of cells for networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def prepare_rows(rows: csr_matrix, *, target_sum: float | None = 1e4, log1p: bool = True) -> csr_matrix:
    """Scale each cell to the same total and take log1p; zeros stay zero.

    Parameters
    ----------
    rows
        Counts, shape (n_cells, n_ocrs).
    target_sum
        Total of every cell after scaling; None for no scaling. A cell without counts stays empty.
    log1p
        Take ``log(1 + x)`` afterwards.

    Returns
    -------
    A new float32 matrix of the same shape and sparsity.
    """
    rows = rows.astype(np.float32, copy=True)
    if target_sum is not None:
        total = np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel()
        scale = np.divide(target_sum, total, out=np.zeros_like(total), where=total > 0)
        rows.data *= np.repeat(scale, np.diff(rows.indptr)).astype(np.float32)
    if log1p:
        np.log1p(rows.data, out=rows.data)
    return rows


def is_open(rows: csr_matrix) -> csr_matrix:
    """1 for each open OCR, float32, whatever its count; the indices are those of `rows`, not a copy."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(rows.nnz, dtype=np.float32), rows.indices, rows.indptr), shape=rows.shape)
