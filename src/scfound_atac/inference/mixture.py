"""The default embedding: the counts of a cell combined with what is known of its open regions.

Two views of a cell, each a direction (a vector of length 1):

    s   spectral components of its own counts, without the first, which reflects depth (k,)
    u   the vector that a network reads from its open regions                          (d,)

Over the fitted cells, both are centred, scaled to Frobenius norms ``sqrt(r)`` and `mix`, concatenated, and rotated to their common
principal components.

The spectrum of the counts determines their weight. The smallest eigenvalue that is computed, ``l_min``, is taken as the noise floor.
Component j is shrunk by ``sqrt((l_j - l_min) / l_j)``, and the view as a whole gets the norm ``sqrt(r)``, with
``r = sum_j (l_j - l_min) / sum_j l_j`` the fraction of the spectrum above the floor. The embedding of sparse cells therefore rests more
on what is known of their regions, and that of deep cells more on their own counts.

With batches, both views read counts that are divided by the factors of `batches.py`. The factors need clusters and these an embedding, so
that a fit is repeated: the first clusters are those of the uncorrected counts, with the mean of each batch subtracted. What remains of the
batches is removed from the vectors of cells by a shift of each batch and a mean over neighbours of all batches.

If batches have peak sets of their own, the spectral view is fitted to counts of the regions that they share (`peak_sets.py`), and the
network reads all OCRs. Weights and axes of a region are those of each of its OCRs: as ``s`` is a direction, that is the same to a cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from .batches import balanced_mean, batch_factors, centred, cluster, divide, without_shift
from .pca import signs
from .profiles import only
from .spectral import spectral_fit, unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from .spectral import SpectralFit

    CellReader = Callable[[csr_matrix], NDArray[np.float32]]  # counts (cells, L) -> cell vectors of length 1 (cells, d)

# Norm of the cell vectors, where that of the counts is at most 1. It was chosen while looking at the scores of both bone-marrow
# donors, PBMC, a multiome bone marrow and simulated cell lines (docs/benchmark.md says so too).
DEFAULT_MIX = 0.67
# Relative error of the eigenvalues at which the solver stops: far below the noise of cells, and several times as fast as full precision.
_TOLERANCE = 1e-4
# Number of times that factors of batches are estimated, from clusters that are better each time.
_BATCH_ROUNDS = 3
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
    factors
        Factors of each batch by which counts are divided, shape (n_batches, L); None without batches.
    """

    idf: NDArray[np.float32]
    axes: NDArray[np.float32]
    rotation: NDArray[np.float32]
    shift: NDArray[np.float32]
    factors: NDArray[np.float32] | None = None

    def views(self, counts: csr_matrix, reader: CellReader) -> NDArray[np.float32]:
        """Both views of cells side by side, (cells, k + d)."""
        return _views(counts, self.idf, self.axes, reader)


def embed_mixture(
    cells: Cells,
    reader: CellReader,
    *,
    mix: float,
    kept: NDArray[np.bool_],
    n_components: int,
    fit_rows: NDArray[np.int64],
    basis: MixtureBasis | None = None,
    batches: NDArray[np.int64] | None = None,
    tie: csr_matrix | None = None,
    anchors: NDArray[np.float32] | None = None,
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
        Frobenius norm of the cell vectors; that of the spectral components is the root of their fraction above the noise, below 1.
    kept
        Mask of the OCRs that are used, shape (n_ocrs,).
    n_components
        Maximum number of spectral components, and of components of the result.
    fit_rows
        Row numbers of the cells to which everything is fitted.
    basis
        Result of an earlier fit, to be used instead of fitting.
    batches
        Number of the batch of each cell, shape (n_cells,); None if there is nothing to correct. With a `basis`, batches from 0 on have
        factors there, and those below 0 have none.
    tie
        1 for each OCR and the region that batches share, (n_ocrs, n_regions), for a fit to regions; None if all measured the same OCRs.
    anchors
        Vectors of the cells of the `basis`, (n, n_components), to which batches are moved.
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
    variance_ratio = None
    rows = np.sort(fit_rows)
    moves = batches is not None and (basis is None or anchors is not None)
    if basis is None:
        counts = only(cells.to_memory(rows), kept)
        basis, variance_ratio = _fit(counts, reader, mix, n_components, seed, tie)
        if batches is not None:
            n_batches = int(batches.max()) + 1
            read = counts
            for number in range(_BATCH_ROUNDS):
                points = basis.views(read, reader) @ basis.rotation
                clusters = cluster(points if number else centred(points, batches[rows]), seed)
                factors = _factors(counts, clusters, batches[rows], n_batches, tie)
                read = divide(counts, factors, batches[rows])
                basis, variance_ratio = _fit(read, reader, mix, n_components, seed, tie)
            basis = replace(basis, factors=factors)
    out = np.empty((len(cells), basis.rotation.shape[1]), dtype=np.float32)
    with tqdm(total=len(out), unit="cells", disable=not progress, desc="embedding") as bar:
        for index, chunk in cells.iter_rows():
            chunk_counts = only(chunk, kept)
            if batches is not None and basis.factors is not None:
                chunk_counts = divide(chunk_counts, basis.factors, batches[index])
            out[index] = basis.views(chunk_counts, reader) @ basis.rotation - basis.shift
            bar.update(chunk.shape[0])
    if moves and batches is not None:
        out = _without_batches(out, rows, batches, anchors)
    return out, basis, variance_ratio


def _factors(
    counts: csr_matrix, clusters: NDArray[np.int64], batches: NDArray[np.int64], n_batches: int, tie: csr_matrix | None
) -> NDArray[np.float32]:
    """Factors of batches and OCRs, (n_batches, L); those of a region for its OCRs, and 1 for OCRs that are not shared."""
    if tie is None:
        return batch_factors(counts, clusters, batches, n_batches)
    factors = np.ones((n_batches, counts.shape[1]), dtype=np.float32)
    ocrs = np.flatnonzero(np.diff(tie.indptr))
    if len(ocrs):
        factors[:, ocrs] = batch_factors(counts @ tie, clusters, batches, n_batches)[:, tie.indices]
    return factors


def _without_batches(
    points: NDArray[np.float32],
    rows: NDArray[np.int64],
    batches: NDArray[np.int64],
    anchors: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Points without shifts, averaged; `rows` can be neighbours, and the `anchors` of a basis are a batch that stays where it is."""
    if anchors is None:
        return balanced_mean(without_shift(points, rows, batches), rows, batches)
    n, fixed = len(anchors), int(batches.max()) + 1
    points = np.concatenate([anchors, points])
    batches = np.concatenate([np.full(n, fixed), batches])
    fitted = np.concatenate([np.arange(n), n + rows])
    return balanced_mean(without_shift(points, fitted, batches, fixed=fixed), fitted, batches)[n:]


def _views(
    counts: csr_matrix, idf: NDArray[np.float32], axes: NDArray[np.float32], reader: CellReader
) -> NDArray[np.float32]:
    measured = unit_rows(counts, idf) @ axes
    measured /= np.maximum(np.linalg.norm(measured, axis=1, keepdims=True), 1e-12)
    return np.hstack([measured, reader(counts)])


def _fit(
    counts: csr_matrix, reader: CellReader, mix: float, n_components: int, seed: int, tie: csr_matrix | None
) -> tuple[MixtureBasis, NDArray[np.float64]]:
    # 1. Spectral axes, with two more than requested: the first reflects depth, and the last the noise.
    fit = spectral_fit(counts if tie is None else counts @ tie, n_components + 2, seed, tolerance=_TOLERANCE)
    axes, fraction = _above_noise(fit)  # (L, k)
    idf = fit.idf
    if tie is not None:
        idf, axes = tie @ idf, tie @ axes

    # 2. Both views of the fitted cells, centred.
    views = _views(counts, idf, axes, reader).astype(np.float64)  # (n, k + d)
    mean, k = views.mean(axis=0), axes.shape[1]
    views -= mean

    # 3. One factor for each view, so that their Frobenius norms are sqrt(fraction) and mix.
    weight = np.empty(views.shape[1])
    for part, norm in ((slice(0, k), np.sqrt(fraction)), (slice(k, None), mix)):
        size = np.linalg.norm(views[:, part])
        weight[part] = norm / size if size > _NO_SPREAD * np.sqrt(len(views)) else 0.0
    views *= weight

    # 4. Common principal components: eigenvectors of the (k + d) x (k + d) covariance.
    values, vectors = np.linalg.eigh(views.T @ views)
    total = values.sum()
    if not total > 0:
        msg = "All cells have the same vector, so PCA has no components. Check that the matrix is not constant."
        raise ValueError(msg)
    order = np.argsort(-values)[: min(n_components, counts.shape[0] - 1)]
    order = order[values[order] > 1e-10 * total]  # smaller values are due to rounding
    values, vectors = values[order], vectors[:, order]

    # 5. Weights and rotation in one matrix; the largest entry of each component is positive.
    rotation = weight[:, None] * vectors  # (k + d, n_components)
    rotation *= signs(rotation)
    basis = MixtureBasis(idf, axes, rotation.astype(np.float32), (mean @ rotation).astype(np.float32))
    return basis, values / total


def _above_noise(fit: SpectralFit) -> tuple[NDArray[np.float32], float]:
    """Axes of all components but the first and the last, shrunk as the module says, and the fraction r of the spectrum above the noise."""
    values = fit.values[1:]  # without the first component, which reflects depth
    if len(values) < 2:
        return fit.axes[:, :0], 0.0
    signal = values[:-1] - values[-1]  # (k,)
    shrunk = fit.axes[:, 1:-1] * np.sqrt(signal / values[:-1]).astype(np.float32)
    return shrunk, float(signal.sum() / values[:-1].sum())
