"""Embedding of cells by what was measured and by what their regions tell.

Two views of a cell are put side by side: the spectral components of its own counts (without the first one, which tells the cell's
degree), and the cell vector that a network reads from its open regions. In each, a cell is a direction: a vector of length 1. Both are
centred, scaled, and rotated to their common principal components.

How much the counts are worth is told by their spectrum. The smallest eigenvalue found is taken for the noise floor: each spectral
component is shrunk by the share of its eigenvalue above it, and the view as a whole is scaled to the root of that share over
all components, against `mix` for the cell vectors. Sparse cells therefore lean on what is known of their regions, deep ones on themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ..data import iter_rows
from ._profiles import gather, only
from ._spectral import spectral_fit, unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ._profiles import CellReader
    from ._spectral import SpectralFit

DEFAULT_MIX = 0.67
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class MixtureBasis:
    """What turns counts into an embedding.

    Attributes
    ----------
    idf
        Weight of each OCR, 0 for those left out, shape (L,).
    axes
        Spectral axes, shape (L, k).
    rotation
        From both views side by side to the components, shape (k + d, n_components).
    shift
        Components of the mean cell, shape (n_components,).
    """

    idf: NDArray[np.float32]
    axes: NDArray[np.float32]
    rotation: NDArray[np.float32]
    shift: NDArray[np.float32]

    def views(self, counts: csr_matrix, reader: CellReader) -> NDArray[np.float32]:
        """Both views of cells side by side, (cells, k + d)."""
        return _views(counts, self.idf, self.axes, reader)


def embed_mixture(
    matrix: Any,
    reader: CellReader,
    *,
    prepare: Callable[[csr_matrix], csr_matrix],
    mix: float,
    kept: NDArray[np.bool_],
    n_components: int,
    fit_rows: NDArray[np.int64],
    basis: MixtureBasis | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[NDArray[np.float32], MixtureBasis, NDArray[np.float64] | None]:
    """Stream a matrix into the mixture of both views.

    Parameters
    ----------
    matrix
        Counts, shape (n_cells, n_columns), in any form that `scfound_atac.data.iter_rows` reads.
    reader
        Gives cell vectors of length 1.
    prepare
        What is done to a chunk of the matrix first.
    mix
        Frobenius norm of the cell vectors; that of the spectral components is the root of their share above the noise, below 1.
    kept
        Columns that take part, shape (n_columns,).
    n_components
        Most spectral components, and most components of the result.
    fit_rows
        Row numbers of the cells that everything is fitted to.
    basis
        Found before; used instead of fitting.
    seed
        Start of the iterative solver.
    progress
        Show a progress bar.

    Returns
    -------
    The embedding (n_cells, n_components), what led to it, and the share of the variance of each component, None with a given `basis`.

    Raises
    ------
    ValueError
        If all fitted cells are the same to both views.
    """
    variance_ratio = None
    if basis is None:
        counts = gather(matrix, np.sort(fit_rows), prepare, kept)
        basis, variance_ratio = _fit(counts, reader, mix, n_components, seed)
    out = np.empty((matrix.shape[0], basis.rotation.shape[1]), dtype=np.float32)
    with tqdm(total=len(out), unit="cells", disable=not progress, desc="embedding") as bar:
        for index, chunk in iter_rows(matrix):
            out[index] = basis.views(only(prepare(chunk), kept), reader) @ basis.rotation - basis.shift
            bar.update(chunk.shape[0])
    return out, basis, variance_ratio


def _views(
    counts: csr_matrix, idf: NDArray[np.float32], axes: NDArray[np.float32], reader: CellReader
) -> NDArray[np.float32]:
    measured = unit_rows(counts, idf) @ axes
    measured /= np.maximum(np.linalg.norm(measured, axis=1, keepdims=True), 1e-12)
    return np.hstack([measured, reader(counts, counts, idf)])


def _fit(
    counts: csr_matrix, reader: CellReader, mix: float, n_components: int, seed: int
) -> tuple[MixtureBasis, NDArray[np.float64]]:
    fit = spectral_fit(counts, n_components + 2, seed, tolerance=_TOLERANCE)
    axes, share = _above_noise(fit)
    views = _views(counts, fit.idf, axes, reader).astype(np.float64)
    mean, k = views.mean(axis=0), axes.shape[1]
    views -= mean
    weight = np.empty(views.shape[1])
    for part, norm in ((slice(0, k), np.sqrt(share)), (slice(k, None), mix)):
        size = np.linalg.norm(views[:, part])
        weight[part] = norm / size if size > 1e-6 * np.sqrt(len(views)) else 0.0
    views *= weight
    values, vectors = np.linalg.eigh(views.T @ views)
    total = values.sum()
    if not total > 0:
        msg = "All cells have the same vector; there is nothing for PCA to find. Check that the matrix is not constant."
        raise ValueError(msg)
    order = np.argsort(-values)[: min(n_components, len(counts.indptr) - 2)]
    order = order[values[order] > 1e-10 * total]
    values, vectors = values[order], vectors[:, order]
    rotation = weight[:, None] * vectors
    rotation *= np.sign(rotation[np.abs(rotation).argmax(axis=0), np.arange(len(values))])
    basis = MixtureBasis(fit.idf, axes, rotation.astype(np.float32), (mean @ rotation).astype(np.float32))
    return basis, values / total


def _above_noise(fit: SpectralFit) -> tuple[NDArray[np.float32], float]:
    """Axes of all components but the first and the last, shrunk by what their eigenvalues have above the last one, and that share."""
    values = fit.values[1:]
    if len(values) < 2:
        return fit.axes[:, :0], 0.0
    signal = values[:-1] - values[-1]
    return fit.axes[:, 1:-1] * np.sqrt(signal / values[:-1]).astype(np.float32), float(signal.sum() / values[:-1].sum())
