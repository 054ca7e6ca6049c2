"""TF-IDF of count matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


# Components that go along with the log total count more closely than this show sequencing depth (Granja et al. 2021, ArchR).
_DEPTH_CORRELATION = 0.75


def inverse_document_frequency(counts: csr_matrix) -> NDArray[np.float32]:
    """``n_cells / (1 + number of cells in which the OCR is open)``, (n_ocrs,), of `counts` (n_cells, n_ocrs)."""
    return (counts.shape[0] / (1.0 + counts.getnnz(axis=0))).astype(np.float32)


def tfidf(counts: csr_matrix, idf: NDArray[np.float32]) -> csr_matrix:
    """TF-IDF as in Signac (Stuart et al. 2021), which also chose the factor 1e4. Zeros, and so empty cells, stay zero.

    ::

        x[i, j] = log(1 + 1e4 * tf[i, j] * idf[j])
        tf[i, j] = counts[i, j] / sum of the counts of cell i

    Parameters
    ----------
    counts
        Counts, shape (n_cells, n_ocrs).
    idf
        Weights, shape (n_ocrs,); an OCR with weight 0 is left out.

    Returns
    -------
    A new float32 matrix of the same shape.
    """
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()  # (n_cells,)
    scale = np.divide(1e4, total, out=np.zeros_like(total), where=total > 0)
    weighted = counts.astype(np.float32, copy=True)
    weighted.data = np.log1p(
        weighted.data * np.repeat(scale, np.diff(weighted.indptr)) * idf[weighted.indices], dtype=np.float32
    )
    return weighted


def without_depth(embedding: NDArray[np.float32], depth: NDArray[np.float64]) -> NDArray[np.intp]:
    """Numbers of the components that do not correlate with depth, the log total count of the cells; of all if no other is left."""
    x, y = embedding - embedding.mean(axis=0, dtype=np.float64), depth - depth.mean()
    norm = np.linalg.norm(x, axis=0) * np.linalg.norm(y)  # (n_components,)
    # A component or a depth that is the same in all cells has no correlation: 1e-12 separates it from rounding.
    correlation = np.divide(y @ x, norm, out=np.zeros(x.shape[1]), where=norm > 1e-12)
    keep = np.abs(correlation) <= _DEPTH_CORRELATION
    return np.flatnonzero(keep if keep.any() else ~keep)
