"""Cells as the supervised tasks take them: one checked matrix, the coordinates of its columns, the names of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._anndata import check_values, get_matrix, refuse_normalised
from ..data import iter_rows
from ..genome._ocrs import checked_ocrs

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Cells:
    """Counts that are fit for a model.

    Attributes
    ----------
    matrix
        Counts, shape (n_cells, n_ocrs), in any form that `scfound_atac.data.iter_rows` reads.
    ocrs
        Its columns: ``chrom``, ``start``, ``end`` on GRCh38.
    names
        Of the cells, shape (n_cells,).
    is_empty
        Cells in which no OCR is open, shape (n_cells,).
    """

    matrix: Any
    ocrs: pd.DataFrame
    names: NDArray[np.object_]
    is_empty: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, rows: NDArray[np.int64]) -> Cells:
        """Some of the cells, in memory."""
        from scipy.sparse import csr_matrix, vstack

        chunks = [chunk for _, chunk in iter_rows(self.matrix, rows=rows)]
        matrix = vstack(chunks, format="csr") if chunks else csr_matrix((0, len(self.ocrs)), dtype=np.float32)
        return Cells(matrix, self.ocrs, self.names[rows], self.is_empty[rows])


def read_cells(adata: AnnData, *, layer: str | None = None, genome: str | None = None) -> Cells:
    """Check an AnnData with counts.

    Parameters
    ----------
    adata
        Cells x OCRs.
    layer
        Layer with the counts; ``X`` if None.
    genome
        Genome build, if it cannot be recognised.

    Raises
    ------
    ValueError
        For coordinates that are not usable or not GRCh38, values that are no counts, or no cells at all.
    KeyError
        For a layer that does not exist.
    """
    matrix = get_matrix(adata, layer)
    where = f"layers[{layer!r}]" if layer else "X"
    if adata.n_obs == 0 or adata.n_vars == 0:
        msg = f"Nothing to read: adata has {adata.n_obs} cells and {adata.n_vars} OCRs."
        raise ValueError(msg)
    ocrs = checked_ocrs(adata.var, genome, adata.uns.get("genome"))
    is_empty = np.zeros(adata.n_obs, dtype=bool)
    for rows, chunk in iter_rows(matrix):
        check_values(chunk, where, rows=rows)
        is_empty[rows] = np.asarray((chunk != 0).sum(axis=1)).ravel() == 0
    refuse_normalised(
        matrix,
        where,
        ", and counts are needed. Pass layer= a layer with counts, or binarise: "
        "adata.layers['binary'] = (adata.X > 0).astype('float32').",
    )
    return Cells(matrix, ocrs, adata.obs_names.to_numpy(dtype=object), is_empty)
