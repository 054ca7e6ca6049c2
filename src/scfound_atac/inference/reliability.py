"""How much of a view of cells is signal: what two halves of the same cells have in common.

The open OCRs of each cell are divided into two halves, both halves are embedded alike, and with rows a_i and b_i of the two, centred::

    C = sum over i of (a_i b_i^T + b_i a_i^T) / 2      what both halves have in common: covariance of the signal
    T = sum over i of (a_i a_i^T + b_i b_i^T) / 2      covariance of a half: signal and noise

Along an eigenvector e of C, ``e^T C e / e^T T e`` is the reliability of a half, between 0 and 1, and ``2 r / (1 + r)`` that of the whole
cell, which has twice the reads (Spearman-Brown). No label and no constant is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Bounds of the reliability of a view: an estimate from some hundred cells cannot tell what is beyond them from 0 and 1.
_BOUNDS = (0.02, 0.98)
# A direction in which the halves agree less than this, relative to all of their spread, agrees by rounding alone.
_NO_AGREEMENT = 1e-6


class Reliable(NamedTuple):
    """Reliable directions of a view, and how reliable the view is along them.

    Attributes
    ----------
    axes
        Directions, each as long as the square root of its reliability, (d, m).
    odds
        Ratio of signal to noise of the view along them.
    """

    axes: NDArray[np.float64]
    odds: float


def halves(counts: csr_matrix) -> tuple[csr_matrix, csr_matrix]:
    """Divide the open OCRs of each cell: the first, third, ... and the second, fourth, ..., with their counts.

    Whole OCRs are divided, not reads, because two reads of one OCR are often the ends of one fragment.
    """
    counts = counts.copy()
    counts.eliminate_zeros()
    counts.sort_indices()
    place = np.arange(counts.nnz) - np.repeat(counts.indptr[:-1], np.diff(counts.indptr))
    return tuple(_only(counts, place % 2 == parity) for parity in (0, 1))


def reliable_directions(first: NDArray, second: NDArray) -> Reliable:
    """Directions in which two halves of the cells agree, shrunk by how well they do.

    Parameters
    ----------
    first, second
        The same view of both halves, (n_cells, d).

    Returns
    -------
    Directions and odds. If the halves agree in nothing, all directions as they are, and the lowest odds.
    """
    # 1. Covariances C of the signal and T of a half, both (d, d).
    a, b = (np.asarray(half, dtype=np.float64) - np.mean(half, axis=0, dtype=np.float64) for half in (first, second))
    common, total = (a.T @ b + b.T @ a) / 2, (a.T @ a + b.T @ b) / 2
    # 2. Directions of the signal, those with most of it first.
    values, vectors = np.linalg.eigh(common)
    kept = np.flatnonzero(values > _NO_AGREEMENT * np.trace(total))[::-1]
    if not len(kept):
        return Reliable(np.eye(len(common)), _odds(0.0))
    signal, vectors = values[kept], vectors[:, kept]  # (m,), (d, m)
    # 3. Reliability of each, for a half and for the whole cell.
    spread = np.einsum("dm,de,em->m", vectors, total, vectors)
    whole = 2 * signal / (spread + signal)  # 2 r / (1 + r) with r = signal / spread
    # 4. Reliability of the shrunk view, again of a half: the factor 2 would be the same for all views.
    return Reliable(vectors * np.sqrt(whole), _odds(float((whole * signal).sum() / (whole * spread).sum())))


def _only(counts: csr_matrix, chosen: NDArray[np.bool_]) -> csr_matrix:
    ends = np.append(0, np.cumsum(chosen))[counts.indptr]
    return csr_matrix((counts.data[chosen], counts.indices[chosen], ends), shape=counts.shape)


def _odds(reliability: float) -> float:
    bounded = float(np.clip(reliability, *_BOUNDS))
    return bounded / (1 - bounded)
