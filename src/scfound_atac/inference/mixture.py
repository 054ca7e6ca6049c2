"""The default embedding: the counts of a cell combined with what is known of its open regions.

Two views of a cell, each a direction (a vector of length 1):

    s   spectral components of its own counts, without the first, which reflects depth (k,)
    u   the vector that a network reads from its open regions                          (d,)

Each is rotated to the directions in which two halves of the same cells agree, and shrunk along each by its reliability
(`reliability.py`). The two are scaled to Frobenius norms that are the roots of their ratios of signal to noise, that of u times 1.3, so
that noise has about the same size in both; then they are concatenated and rotated to their common principal components.

The embedding of sparse cells therefore rests more on what is known of their regions, and that of deep cells more on their own counts; and
where the network knows little of the tissue, its vectors agree little between halves, and get little weight.

The spectral components are also shrunk before they are scaled to length 1: the smallest eigenvalue that is computed, ``l_min``, is taken as
the noise floor, and component j gets the factor ``sqrt((l_j - l_min) / l_j)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import block_diag
from tqdm.auto import tqdm

from .kind import is_known
from .pca import signs
from .profiles import only
from .reliability import halves, reliable_directions
from .spectral import spectral_fit, unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from .spectral import SpectralFit

    CellReader = Callable[[csr_matrix], NDArray[np.float32]]  # counts (cells, L) -> cell vectors of length 1 (cells, d)

# Factor of the weight of the cell vectors. The spectral axes are fitted to the cells whose halves are compared, so that halves agree on
# them even in noise, and the ratio of signal to noise of the counts comes out too high. Chosen among 0.8, 1, 1.3, 1.6 and 2 on a training
# donor and simulated cells (benchmarks/logs/mixture.md): at 1.3 no depth loses more than 0.002 in accuracy to the fixed weights of before.
_KNOWLEDGE = 1.3
# Relative error of the eigenvalues at which the solver stops: far below the noise of cells, and several times as fast as full precision.
_TOLERANCE = 1e-4
# A view in which all cells are equal up to this root mean square per cell only contains rounding errors, and gets weight 0.
_NO_SPREAD = 1e-6


@dataclass(frozen=True)
class MixtureBasis:
    """Everything that is needed to embed other cells in the same space.

    Attributes
    ----------
    idf
        Weight of each OCR, 0 for OCRs that are left out, shape (L,).
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
    cells: Cells,
    reader: CellReader,
    *,
    mix: float | None,
    order: NDArray[np.int64],
    n_components: int,
    fit_rows: NDArray[np.int64],
    basis: MixtureBasis | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[NDArray[np.float32], MixtureBasis, NDArray[np.float64] | None]:
    """Stream cells into the mixture of both views.

    Parameters
    ----------
    cells
        Cells to embed.
    reader
        Computes cell vectors of length 1.
    mix
        Frobenius norm of the cell vectors relative to that of the spectral components; None to derive it from their reliability.
    order
        Numbers of the OCRs that are used, in genome order.
    n_components
        Maximum number of spectral components, and of components of the result.
    fit_rows
        Row numbers of the cells to which everything is fitted.
    basis
        Result of an earlier fit, to be used instead of fitting.
    seed
        Random seed of the start vector of the iterative solver.
    progress
        Show a progress bar.

    Returns
    -------
    The embedding (n_cells, n_components), its basis, and the fraction of the variance along each component, None with a given `basis`.

    Raises
    ------
    ValueError
        If all fitted cells are equal in both views.
    """
    variance_ratio, kept = None, is_known(order, cells.n_ocrs)
    if basis is None:
        counts = only(cells.to_memory(np.sort(fit_rows)), kept)
        basis, variance_ratio = _fit(counts, order, reader, mix, n_components, seed)
    out = np.empty((len(cells), basis.rotation.shape[1]), dtype=np.float32)
    with tqdm(total=len(out), unit="cells", disable=not progress, desc="embedding") as bar:
        for index, chunk in cells.iter_rows():
            out[index] = basis.views(only(chunk, kept), reader) @ basis.rotation - basis.shift
            bar.update(chunk.shape[0])
    return out, basis, variance_ratio


def _views(
    counts: csr_matrix, idf: NDArray[np.float32], axes: NDArray[np.float32], reader: CellReader
) -> NDArray[np.float32]:
    return np.hstack([_unit(unit_rows(counts, idf) @ axes), reader(counts)])


def _fit(
    counts: csr_matrix,
    order: NDArray[np.int64],
    reader: CellReader,
    mix: float | None,
    n_components: int,
    seed: int,
) -> tuple[MixtureBasis, NDArray[np.float64]]:
    # 1. Spectral axes, with two more than requested: the first reflects depth, and the last the noise.
    fit = spectral_fit(counts, n_components + 2, seed, tolerance=_TOLERANCE)
    used, shrinkage = _above_noise(fit)
    axes = fit.axes[:, used] * shrinkage.astype(np.float32)  # (L, k)

    # 2. Both views of the fitted cells, centred.
    views = _views(counts, fit.idf, axes, reader).astype(np.float64)  # (n, k + d)
    mean, k = views.mean(axis=0), axes.shape[1]
    views -= mean

    # 3. The reliable directions of each view, from two halves of each cell.
    parts = halves(counts, order)
    of_counts = reliable_directions(*(_unit(fit.project_part(part, counts)[:, used] * shrinkage) for part in parts))
    of_regions = reliable_directions(*(reader(part) for part in parts))

    # 4. One factor for each view, so that its Frobenius norm is the root of its odds, or of its odds times `_KNOWLEDGE` squared.
    norms = (np.sqrt(of_counts.odds), _KNOWLEDGE * np.sqrt(of_regions.odds)) if mix is None else (1.0, mix)
    weights = block_diag(
        _scaled(of_counts.axes, views[:, :k], norms[0]), _scaled(of_regions.axes, views[:, k:], norms[1])
    )
    views = views @ weights  # (n, m), with m <= k + d

    # 5. Common principal components: eigenvectors of the m x m covariance.
    values, vectors = np.linalg.eigh(views.T @ views)
    total = values.sum()
    if not total > 0:
        msg = "All cells have the same vector, so PCA has no components. Check that the matrix is not constant."
        raise ValueError(msg)
    order = np.argsort(-values)[: min(n_components, counts.shape[0] - 1)]
    order = order[values[order] > 1e-10 * total]  # smaller values are due to rounding
    values, vectors = values[order], vectors[:, order]

    # 6. Weights and rotation in one matrix; the largest entry of each component is positive.
    rotation = weights @ vectors  # (k + d, n_components)
    rotation *= signs(rotation)
    basis = MixtureBasis(fit.idf, axes, rotation.astype(np.float32), (mean @ rotation).astype(np.float32))
    return basis, values / total


def _unit(vectors: NDArray) -> NDArray:
    """Rows scaled to length 1; rows without any entry stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _scaled(axes: NDArray[np.float64], view: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    """Axes (d, m), scaled such that the centred `view` (n, d) has the Frobenius norm `norm` along them; 0 if all of its cells are equal."""
    size = np.linalg.norm(view @ axes)
    return axes * (norm / size if size > _NO_SPREAD * np.sqrt(len(view)) else 0.0)


def _above_noise(fit: SpectralFit) -> tuple[slice, NDArray[np.float64]]:
    """All components but the first, which reflects depth, and the last, the noise floor; and the factors by which they are shrunk."""
    values = fit.values[1:]
    if len(values) < 2:
        return slice(0), np.zeros(0)
    return slice(1, -1), np.sqrt((values[:-1] - values[-1]) / values[:-1])
