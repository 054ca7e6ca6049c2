"""PCA of vectors with one entry per OCR, from a table that may be on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Size of the float64 working copy of a block of columns.
_BLOCK_BYTES = 128 * 2**20
# Up to this number of cells the complete eigendecomposition is faster than the iterative one.
_DENSE_EIGH = 2_000


@dataclass(frozen=True)
class PCA:
    """Principal axes of per-OCR vectors.

    Attributes
    ----------
    mean
        Mean vector, shape (n_features,), float32.
    components
        Orthonormal axes in columns, shape (n_features, n_components), float32. The entry of largest magnitude of each axis
        is positive, so that signs do not depend on the order of the cells.
    variance
        Variance of the fitted cells along each axis, shape (n_components,); None for axes from an earlier embedding.
    variance_ratio
        The same as a fraction of the total variance.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variance: NDArray[np.float64] | None = None
    variance_ratio: NDArray[np.float64] | None = None

    @classmethod
    def fit(cls, table: NDArray[np.float32], n_components: int) -> PCA:
        """Exact PCA by the Gram matrix of the cells.

        As there are fewer cells n than OCRs, the eigenvectors of the (n, n) Gram matrix G of the centred vectors X are computed and turned
        into axes::

            G = X X^T = U diag(l) U^T
            axes = X^T U diag(l)^(-1/2)

        The table is read twice in blocks of columns; memory is 8 bytes x n^2 plus one block.

        Parameters
        ----------
        table
            Vectors of the cells to fit, shape (n_cells, n_features); an array or a memory map.
        n_components
            Number of axes; fewer are kept if the cells span fewer dimensions.

        Raises
        ------
        ValueError
            If there are fewer than two cells, or all cells have the same vector.
        """
        n_cells, n_features = table.shape
        if n_cells < 2:
            msg = f"PCA needs at least two cells, got {n_cells}. Pass n_components=None for the whole vector, or basis= a fitted reference."
            raise ValueError(msg)
        n_components = min(n_components, n_cells - 1, n_features)
        width = max(1, _BLOCK_BYTES // (8 * n_cells))
        blocks = [slice(i, min(i + width, n_features)) for i in range(0, n_features, width)]

        # 1. Mean and Gram matrix, block by block.
        mean = np.empty(n_features)
        gram = np.zeros((n_cells, n_cells))
        for block in blocks:
            part = table[:, block].astype(np.float64)
            mean[block] = part.mean(axis=0)
            part -= mean[block]
            gram += part @ part.T
        total = float(np.trace(gram))
        # Rounding in float32 causes a relative variance of about 1e-14, so a smaller variance is not real.
        if not total > 1e-12 * n_cells * max(float(mean @ mean), 1e-300):
            msg = "All cells have the same vector, so PCA has no components. Check that the matrix is not constant."
            raise ValueError(msg)
        # 2. Eigenvectors, without those whose eigenvalue is 0 up to rounding.
        values, vectors = _top_eigenpairs(gram, n_components)  # (k,), (n, k)
        keep = values > 1e-10 * total
        values, vectors = values[keep], vectors[:, keep]

        # 3. Axes of unit length.
        components = np.empty((n_features, len(values)))
        for block in blocks:
            components[block] = (table[:, block].astype(np.float64) - mean[block]).T @ vectors
        components /= np.sqrt(values)
        components *= signs(components)
        return cls(
            mean=mean.astype(np.float32),
            components=components.astype(np.float32),
            variance=values / (n_cells - 1),
            variance_ratio=values / total,
        )

    def project(self, table: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coordinates of the vectors `table` (n_cells, n_features) along the axes: (n_cells, n_components), float32."""
        return np.asarray((table - self.mean) @ self.components, dtype=np.float32)


def signs(axes: NDArray[np.floating]) -> NDArray[np.floating]:
    """1 or -1 for each column of `axes` (n, k), such that its largest entry becomes positive, whatever the solver."""
    return np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])


def _top_eigenpairs(gram: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The k largest eigenvalues of a symmetric matrix in decreasing order, and their eigenvectors in columns."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    n = len(gram)
    if n <= _DENSE_EIGH or k > n // 10:
        values, vectors = eigh(gram, subset_by_index=(n - k, n - 1))
    else:
        start = np.random.default_rng(0).standard_normal(n)
        values, vectors = eigsh(gram, k=k, which="LA", v0=start)
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order]
