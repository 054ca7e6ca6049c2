"""Laplacian eigenmaps of the cosine similarity between cells, and their extension to cells that took no part.

The method of SnapATAC2 (Zhang et al. 2024, Nature Methods 21:217): counts weighted by inverse document frequency, cells of unit length,
their similarity without the diagonal, normalised by the cells' degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .pca import signs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# So few cells are solved exactly; the iterative solver wants more of them than components.
_DENSE_CELLS = 64
_NO_DEGREE = 1e-9  # rounding leaves something like 1e-16 of a cell that shares nothing with another


@dataclass(frozen=True)
class SpectralFit:
    """Eigenmaps of some cells.

    Attributes
    ----------
    idf
        ``log(n_cells / n_cells_open)`` of each OCR, shape (L,).
    axes
        Products with a weighted cell of unit length give its components, up to one factor per cell; shape (L, k).
    vectors, values
        Eigenvectors (n_cells, k) and eigenvalues (k,), falling, all positive.
    """

    idf: NDArray[np.float32]
    axes: NDArray[np.float32]
    vectors: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def embedding(self) -> NDArray[np.float32]:
        """Eigenvectors times the square roots of their eigenvalues, (n_cells, k)."""
        return (self.vectors * np.sqrt(self.values)).astype(np.float32)


def unit_length(weighted: csr_matrix) -> csr_matrix:
    """Each cell scaled to length 1, in place, so that depth has no say; cells without weight stay zero."""
    length = np.sqrt(np.asarray(weighted.power(2).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    weighted.data *= np.repeat(scale, np.diff(weighted.indptr)).astype(weighted.dtype)
    return weighted


def unit_rows(counts: csr_matrix, idf: NDArray) -> csr_matrix:
    """Counts weighted by `idf`, each cell of length 1."""
    weighted = counts.astype(idf.dtype, copy=True)
    weighted.data *= idf[weighted.indices]
    return unit_length(weighted)


def spectral_fit(counts: csr_matrix, n_components: int, seed: int = 0, *, tolerance: float = 0.0) -> SpectralFit:
    """Eigenvectors of largest positive eigenvalue of the normalised similarity of cells.

    The similarity is never formed: products with it cost two products with the counts. Signs are such that the largest entry of
    each axis is positive.

    Parameters
    ----------
    counts
        Shape (n_cells, L).
    n_components
        Most components; there are fewer if fewer eigenvalues are positive.
    seed
        Start of the iterative solver.
    tolerance
        Relative error of the eigenvalues at which it stops; 0 is machine precision. Above 0 it works in single precision.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import LinearOperator, eigsh

    n_cells, n_ocrs = counts.shape
    idf = np.log(n_cells / np.maximum(counts.getnnz(axis=0), 1))
    unit = unit_rows(counts, idf)
    size = np.asarray(unit.power(2).sum(axis=1)).ravel()  # 1, or 0 for cells without any weight
    degree = unit @ np.asarray(unit.sum(axis=0)).ravel() - size
    scale = np.divide(1.0, np.sqrt(np.maximum(degree, 0)), out=np.zeros(n_cells), where=degree > _NO_DEGREE)
    half, diagonal = csr_matrix(unit.multiply(scale[:, None])), size * scale**2
    k = min(n_components, n_cells - 1)
    if k < 1 or not scale.any():
        empty = np.zeros((n_ocrs, 0), dtype=np.float32)
        return SpectralFit(idf.astype(np.float32), empty, np.zeros((n_cells, 0)), np.zeros(0))
    if n_cells <= max(_DENSE_CELLS, 2 * k):
        values, vectors = np.linalg.eigh((half @ half.T).toarray() - np.diag(diagonal))
    else:
        dtype = np.float32 if tolerance else np.float64
        rows, columns = (
            half.astype(dtype),
            csr_matrix(half.T, dtype=dtype),
        )  # both by row: twice as fast as a transposed product
        own = diagonal.astype(dtype)
        similarity = LinearOperator(
            (n_cells, n_cells), matvec=lambda v: rows @ (columns @ v.ravel()) - own * v.ravel(), dtype=dtype
        )
        start = np.random.default_rng(seed).random(n_cells).astype(dtype)
        values, vectors = eigsh(similarity, k=k, which="LA", v0=start, tol=tolerance)
    order = np.argsort(-values)[:k]
    order = order[values[order] > 1e-12]
    values, vectors = values[order], vectors[:, order]
    # A cell's own product with itself, which the similarity leaves out, adds the mean diagonal to each eigenvalue.
    axes = (half.T @ vectors) * (np.sqrt(values) / (values + diagonal.mean()))
    sign = signs(axes)
    return SpectralFit(idf.astype(np.float32), (axes * sign).astype(np.float32), vectors * sign, values)
