"""The counts of an AnnData as one checked CSR matrix, and in-place subsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .._anndata import check_values, get_matrix
from ..data import iter_rows, shape_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def read_counts(adata: AnnData, layer: str | None, *, column: str = "OCR") -> sparse.csr_matrix:
    """All cells, float32 CSR, not sharing memory with `adata`; ValueError for NaN, infinite and negative values, as of a `column`."""
    matrix = get_matrix(adata, layer)
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    chunks = []
    for index, chunk in iter_rows(matrix):
        check_values(chunk, where, rows=index, column=column)
        chunks.append(chunk)
    if not chunks:
        return sparse.csr_matrix(shape_of(matrix), dtype=np.float32)
    return sparse.vstack(chunks, format="csr")


def refuse_backed(adata: AnnData) -> None:
    """ValueError if `adata` cannot be changed in place because its matrix is a file."""
    if adata.isbacked:
        msg = "A backed AnnData cannot be changed in place: use adata = adata.to_memory() first."
        raise ValueError(msg)


def subset(
    data: Any, adata: AnnData, *, cells: NDArray[np.bool_] | None = None, ocrs: NDArray[np.bool_] | None = None
) -> None:
    """Keep some cells and OCRs of `adata` in place, and tell the MuData `data` that holds it, if it is one."""
    if cells is not None and not cells.all():
        adata._inplace_subset_obs(cells)
    if ocrs is not None and not ocrs.all():
        adata._inplace_subset_var(ocrs)
    if data is not adata:
        data.update()
