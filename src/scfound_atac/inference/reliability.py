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

# Bounds of the reliability: an estimate from some hundred cells cannot tell what is beyond them from 0 and 1.
_BOUNDS = (0.02, 0.98)


class Reliable(NamedTuple):
    """Reliable directions of a view, and how reliable the view is along them.

    Attributes
    ----------
    axes
        Directions, each as long as the square root of its reliability, (d, d).
    odds
        Ratio of signal to noise of the view along them.
    """

    axes: NDArray[np.float64]
    odds: float


def halves(counts: csr_matrix, order: NDArray[np.int64]) -> tuple[csr_matrix, csr_matrix]:
    """Divide the open OCRs of each cell: the first, third, ... and the second, fourth, ... along the genome, with their counts.

    Whole OCRs are divided, not reads, because two reads of one OCR are often the ends of one fragment.

    Parameters
    ----------
    counts
        Counts, (n_cells, L).
    order
        Numbers of the OCRs that are used, in genome order.
    """
    ordered = counts[:, order]
    ordered.eliminate_zeros()
    ordered.sort_indices()
    place = np.arange(ordered.nnz) - np.repeat(ordered.indptr[:-1], np.diff(ordered.indptr))
    parts = []
    for parity in (0, 1):
        chosen = place % 2 == parity
        ends = np.append(0, np.cumsum(chosen))[ordered.indptr]
        parts.append(csr_matrix((ordered.data[chosen], order[ordered.indices[chosen]], ends), shape=counts.shape))
    return parts[0], parts[1]


def reliable_directions(first: NDArray, second: NDArray) -> Reliable:
    """Directions in which two halves of the cells agree, shrunk by how well they do.

    Parameters
    ----------
    first, second
        The same view of both halves, (n_cells, d).

    Returns
    -------
    All directions, those on which the halves agree least nearly shrunk away, and the odds.
    """
    # 1. Covariances C of the signal and T of a half, both (d, d).
    a, b = (np.asarray(half, dtype=np.float64) - np.mean(half, axis=0, dtype=np.float64) for half in (first, second))
    common, total = (a.T @ b + b.T @ a) / 2, (a.T @ a + b.T @ b) / 2
    # 2. Directions of the signal, and the spread of a half along them, (d, d) and (d,).
    signal, vectors = np.linalg.eigh(common)
    spread = np.einsum("de,df,fe->e", vectors, total, vectors)
    # 3. Reliability of each, of a half and of the whole cell, (d,).
    half = np.clip(np.divide(signal, spread, out=np.zeros_like(signal), where=spread > 0), *_BOUNDS)
    whole = 2 * half / (1 + half)
    # 4. Reliability of the shrunk view, again of a half: for whole cells the odds of all views would be twice as high.
    size = float(whole @ spread)
    reliability = float((whole * half) @ spread) / size if size > 0 else _BOUNDS[0]
    return Reliable(vectors * np.sqrt(whole), reliability / (1 - reliability))
