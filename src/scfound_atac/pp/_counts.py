"""The counts of an AnnData as one checked CSR matrix, and in-place subsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..data import Cells

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse


def read_counts(data: Any, layer: str | None, modality: str | None = None, **options: Any) -> sparse.csr_matrix:
    """The counts of all cells, float32 CSR in memory of its own; `options` are those of `Cells.read`, and any finite values >= 0 pass."""
    return Cells.read(data, layer=layer, modality=modality, values="any", coordinates=False, **options).to_memory()


def subset(
    data: Any, adata: AnnData, *, cells: NDArray[np.bool_] | None = None, ocrs: NDArray[np.bool_] | None = None
) -> None:
    """Keep some cells and OCRs of `adata` in place, and update the MuData `data` that holds it, if there is one."""
    if cells is not None and not cells.all():
        adata._inplace_subset_obs(cells)
    if ocrs is not None and not ocrs.all():
        adata._inplace_subset_var(ocrs)
    if data is not adata:
        data.update()
