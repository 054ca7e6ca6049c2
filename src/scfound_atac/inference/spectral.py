"""Laplacian eigenmaps of the cosine similarity between cells, and their extension to cells that were not fitted.

This is the method of SnapATAC2 (Zhang et al. 2024, Nature Methods 21:217). With c the counts of n cells, idf_j = log(n / number of cells in
which OCR j is open), and u_i the row ``c_i * idf`` of cell i, scaled to unit length::

    S = U U^T - diag(|u_i|^2)              similarity, without that of a cell with itself
    d_i = sum over k of S_ik               degree
    M = D^(-1/2) S D^(-1/2)                with D = diag(d)
    M v = l v                              embedding: v sqrt(l) for the largest positive l

The embedding of another cell is the projection of its unit vector on the axes ``U^T D^(-1/2) v``, up to one factor per component.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .pca import signs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# Up to this number of cells the eigenvectors are computed exactly; the iterative solver needs more cells than components.
_DENSE_CELLS = 64
# A cell that has no OCR in common with another one has degree 0, of which rounding leaves about 1e-16.
_NO_DEGREE = 1e-9


@dataclass(frozen=True)
class SpectralFit:
    """Eigenmaps of the fitted cells.

    Attributes
    ----------
    idf
        ``log(n_cells / n_cells_open)`` of each OCR, shape (L,).
    axes
        Axes, shape (L, k). The product of a weighted cell of unit length with them gives its components, up to one factor per cell.
    vectors, values
        Eigenvectors (n_cells, k) and eigenvalues (k,), which are positive and in decreasing order.
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
    """Scale each cell to length 1, in place, which removes depth; cells without weight stay zero."""
    length = np.sqrt(np.asarray(weighted.power(2).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    weighted.data *= np.repeat(scale, np.diff(weighted.indptr)).astype(weighted.dtype)
    return weighted


def unit_rows(counts: csr_matrix, idf: NDArray) -> csr_matrix:
    """Counts weighted by `idf` (L,), with each cell scaled to length 1, (n_cells, L)."""
    weighted = counts.astype(idf.dtype, copy=True)
    weighted.data *= idf[weighted.indices]
    return unit_length(weighted)


def spectral_fit(counts: csr_matrix, n_components: int, seed: int = 0, *, tolerance: float = 0.0) -> SpectralFit:
    """Eigenvectors with the largest positive eigenvalues of the normalised similarity of cells.

    The similarity is never computed, because a product with it only needs two products with the counts. Signs are chosen such that the
    largest entry of each axis is positive.

    Parameters
    ----------
    counts
        Counts, shape (n_cells, L).
    n_components
        Maximum number of components; there are fewer if fewer eigenvalues are positive.
    seed
        Random seed of the start vector of the iterative solver.
    tolerance
        Relative error of the eigenvalues at which the solver stops; 0 is machine precision. Above 0 it uses single precision.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import LinearOperator, eigsh

    # 1. Weighted cells of unit length.
    n_cells, n_ocrs = counts.shape
    idf = np.log(n_cells / np.maximum(counts.getnnz(axis=0), 1))
    unit = unit_rows(counts, idf)  # (n_cells, L)
    # 2. Degrees without the similarity of a cell with itself, and the factor D^(-1/2).
    size = np.asarray(unit.power(2).sum(axis=1)).ravel()  # 1, or 0 for cells without any weight
    degree = unit @ np.asarray(unit.sum(axis=0)).ravel() - size
    scale = np.divide(1.0, np.sqrt(np.maximum(degree, 0)), out=np.zeros(n_cells), where=degree > _NO_DEGREE)
    # M = half half^T - diag(diagonal)
    half, diagonal = csr_matrix(unit.multiply(scale[:, None])), size * scale**2
    k = min(n_components, n_cells - 1)
    if k < 1 or not scale.any():
        empty = np.zeros((n_ocrs, 0), dtype=np.float32)
        return SpectralFit(idf.astype(np.float32), empty, np.zeros((n_cells, 0)), np.zeros(0))
    # 3. Eigenvectors of M.
    if n_cells <= max(_DENSE_CELLS, 2 * k):
        values, vectors = np.linalg.eigh((half @ half.T).toarray() - np.diag(diagonal))
    else:
        dtype = np.float32 if tolerance else np.float64
        rows, columns = (
            half.astype(dtype),
            csr_matrix(half.T, dtype=dtype),
        )  # both stored by row, which is twice as fast as a transposed product
        own = diagonal.astype(dtype)
        similarity = LinearOperator(
            (n_cells, n_cells), matvec=lambda v: rows @ (columns @ v.ravel()) - own * v.ravel(), dtype=dtype
        )
        start = np.random.default_rng(seed).random(n_cells).astype(dtype)
        values, vectors = eigsh(similarity, k=k, which="LA", v0=start, tol=tolerance)
    order = np.argsort(-values)[:k]
    order = order[values[order] > 1e-12]  # smaller eigenvalues are 0 up to rounding
    values, vectors = values[order], vectors[:, order]
    # 4. Axes. The product of a fitted cell with them contains its product with itself, which M leaves out and which adds about the mean
    #    diagonal to each eigenvalue; dividing by the sum corrects for it.
    axes = (half.T @ vectors) * (np.sqrt(values) / (values + diagonal.mean()))
    sign = signs(axes)
    return SpectralFit(idf.astype(np.float32), (axes * sign).astype(np.float32), vectors * sign, values)
