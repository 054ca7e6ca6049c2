"""PCA of vectors as long as the genome, from a table that may lie on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Float64 working copy of a block of columns.
_BLOCK_BYTES = 128 * 2**20
# Below this many cells the full eigendecomposition is quicker than the iterative one.
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
        Variance of the fitted cells along each axis, shape (n_components,); None of axes that were found earlier.
    variance_ratio
        The same as a fraction of the total variance.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variance: NDArray[np.float64] | None = None
    variance_ratio: NDArray[np.float64] | None = None

    @classmethod
    def fit(cls, table: NDArray[np.float32], n_components: int) -> PCA:
        """Exact PCA through the cells' Gram matrix.

        There are fewer cells than OCRs, so the eigenvectors of the (cells x cells) Gram matrix are found and turned into axes. The
        table is read in blocks of columns, twice; memory is 8 bytes x cells squared plus one block.

        Parameters
        ----------
        table
            Vectors of the cells to fit, shape (n_cells, n_features); an array or a memory map.
        n_components
            Number of axes; fewer are kept if the cells span fewer dimensions.

        Raises
        ------
        ValueError
            With fewer than two cells, or if all cells have the same vector.
        """
        n_cells, n_features = table.shape
        if n_cells < 2:
            msg = f"PCA needs at least two cells, got {n_cells}. Pass n_components=None for the whole vector, or basis= a fitted reference."
            raise ValueError(msg)
        n_components = min(n_components, n_cells - 1, n_features)
        width = max(1, _BLOCK_BYTES // (8 * n_cells))
        blocks = [slice(i, min(i + width, n_features)) for i in range(0, n_features, width)]

        mean = np.empty(n_features)
        gram = np.zeros((n_cells, n_cells))
        for block in blocks:
            part = table[:, block].astype(np.float64)
            mean[block] = part.mean(axis=0)
            part -= mean[block]
            gram += part @ part.T
        total = float(np.trace(gram))
        # Float32 rounding alone leaves a relative variance near 1e-14: nothing to find below it.
        if not total > 1e-12 * n_cells * max(float(mean @ mean), 1e-300):
            msg = "All cells have the same vector; there is nothing for PCA to find. Check that the matrix is not constant."
            raise ValueError(msg)
        values, vectors = _top_eigenpairs(gram, n_components)
        keep = values > 1e-10 * total
        values, vectors = values[keep], vectors[:, keep]

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
        """Coordinates of vectors (n_cells, n_features) along the axes: (n_cells, n_components) float32."""
        return np.asarray((table - self.mean) @ self.components, dtype=np.float32)


def signs(axes: NDArray[np.floating]) -> NDArray[np.floating]:
    """1 or -1 for each column of `axes` (n, k): what makes its largest entry positive, so that signs do not depend on a solver."""
    return np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])


def _top_eigenpairs(gram: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The k largest eigenvalues of a symmetric matrix, in falling order, and their eigenvectors in columns."""
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
