"""The OCRs around each gene, one by one: a linear part of predicted expression, beside what heads make of a whole cell.

A few dozen components of a cell cannot tell one OCR among thousands from its neighbours. This part gives every OCR near the start of a
gene a weight of its own for that gene: ``sum over j near g of w_jg v_ij``, v_ij the value of OCR j in cell i, which is its count after
scaling to the total of the cell and ``log(1 + x)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data import prepare_rows
from ..genome import overlaps, transcription_starts
from .features import overlap_transfer

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix, csr_matrix


@dataclass(frozen=True)
class LocalView:
    """Weights of OCRs of a reference for genes.

    Attributes
    ----------
    ocrs
        OCRs of the reference: ``chrom``, ``start``, ``end``.
    target_sum
        Total to which cells are scaled: the median of the reference.
    weights
        Weights of the OCRs, CSC (L, n_genes), on the scale on which they were fitted.
    mean
        What the sum is in the mean cell of the reference, which is subtracted, (n_genes,).
    """

    ocrs: pd.DataFrame
    target_sum: float
    weights: csc_matrix
    mean: NDArray[np.float32]

    def of(self, ocrs: pd.DataFrame) -> LocalReader:
        """The same weights for cells with other OCRs, each of which takes those of the OCR with which it has most bases in common."""
        return LocalReader(self, overlap_transfer(ocrs, self.ocrs))


class LocalReader:
    """A `LocalView` for cells with an OCR set."""

    def __init__(self, view: LocalView, transfer: csr_matrix) -> None:
        self._view = view
        self._is_known = np.diff(transfer.indptr) > 0
        self.weights = (transfer @ view.weights).tocsc()  # (n_ocrs, n_genes)

    def prepare(self, counts: csr_matrix) -> csr_matrix:
        """Values (cells, n_ocrs) of counts; OCRs that the reference lacks are 0 and do not count for the total of a cell."""
        rows = counts.astype(np.float32)
        rows.data *= self._is_known[rows.indices]
        return prepare_rows(rows, target_sum=self._view.target_sum, log1p=True)

    def sums(self, values: csr_matrix, genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Weighted sums of values for `genes`, (cells, len(genes))."""
        return np.asarray((values @ self.weights[:, genes]).toarray(), dtype=np.float32)

    def predict(self, values: csr_matrix, genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """The linear part of `genes`, (cells, len(genes)): sums, which are 0 in the mean cell."""
        return self.sums(values, genes) - self.mean[genes]

    @property
    def mean(self) -> NDArray[np.float32]:
        """See `LocalView`."""
        return self._view.mean


def near_genes(ocrs: pd.DataFrame, genes: pd.DataFrame, distance: int) -> csc_matrix:
    """True for OCRs within `distance` bases of the start of transcription of each row of `genes`, CSC (n_ocrs, n_genes)."""
    from scipy.sparse import csc_matrix

    start = transcription_starts(genes)
    region = genes[["chrom"]].assign(start=np.maximum(start - distance, 0), end=start + distance + 1)
    pairs = overlaps(ocrs[["chrom", "start", "end"]], region.reset_index(drop=True))
    near = (np.ones(len(pairs), dtype=bool), (pairs["a"], pairs["b"]))
    return csc_matrix(near, shape=(len(ocrs), len(genes)))
