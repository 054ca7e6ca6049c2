"""What was measured of a cell on the OCRs of a reference: its spectral components.

The axes are fitted to the reference. A query with other OCRs is brought to those of the reference by overlap; what the query did not
measure is missing there, and what the reference does not have is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data import iter_rows
from ..genome import best_overlaps
from ._spectral import spectral_fit, unit_rows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ._cells import Cells

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class MeasuredView:
    """Spectral axes of a reference.

    Attributes
    ----------
    ocrs
        Of the reference: ``chrom``, ``start``, ``end``.
    idf
        Weight of each OCR, shape (L,).
    axes
        Shape (L, k), without the first component, which tells depth.
    """

    ocrs: pd.DataFrame
    idf: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def fit(cls, cells: Cells, rows: NDArray[np.int64], *, n_components: int, seed: int = 0) -> MeasuredView:
        """Fit at most `n_components` axes to the cells `rows`."""
        fit = spectral_fit(cells.subset(rows).matrix, n_components + 1, seed, tolerance=_TOLERANCE)
        return cls(cells.ocrs[["chrom", "start", "end"]].reset_index(drop=True), fit.idf, fit.axes[:, 1:])

    def __call__(self, cells: Cells) -> NDArray[np.float32]:
        """Directions of cells among the axes, of length 1, or 0 where nothing is shared: (n_cells, k)."""
        transfer = self._transfer(cells.ocrs)
        view = np.empty((len(cells), self.axes.shape[1]), dtype=np.float32)
        for rows, chunk in iter_rows(cells.matrix):
            view[rows] = unit_rows((chunk @ transfer).tocsr(), self.idf) @ self.axes
        return view / np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-12)

    def coverage(self, ocrs: pd.DataFrame) -> float:
        """Share of the reference's OCRs that `ocrs` overlap."""
        return best_overlaps(self.ocrs, ocrs)["a"].nunique() / len(self.ocrs)

    def _transfer(self, ocrs: pd.DataFrame) -> csr_matrix:
        """From other OCRs to those of the reference, (n_ocrs, L); each goes where it shares most bases."""
        from scipy.sparse import csr_matrix

        best = best_overlaps(ocrs, self.ocrs)
        ones = np.ones(len(best), dtype=np.float32)
        return csr_matrix((ones, (best["a"], best["b"])), shape=(len(ocrs), len(self.ocrs)))
