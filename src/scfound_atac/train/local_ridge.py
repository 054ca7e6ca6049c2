"""Learn weights of the OCRs around each gene from what a head leaves unexplained.

For each gene, with X the centred values of the m OCRs near it in n cells, and r the centred residual of the head::

    w = (X'X + l I)^(-1) X' r                          weights
    GCV(l) = |r - X w|^2 / n / (1 - (1 + df(l)) / n)^2  generalised cross-validation
    df(l) = sum over i of e_i / (e_i + l)               e_i eigenvalues of X'X

The penalty l with the smallest GCV is chosen for each gene, an infinite one included, with which the gene has no local part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..inference.local import LocalView, near_genes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix, csr_matrix

# Penalties as fractions of the largest eigenvalue.
_PENALTIES = np.logspace(-3, 3, 25)
# Maximum number of OCRs of a gene, the most often open ones, which bounds the time of the eigendecomposition.
_MAX_OCRS = 1_000


def fit_local(
    counts: csr_matrix,
    residual: NDArray[np.float32],
    ocrs: pd.DataFrame,
    genes: pd.DataFrame,
    columns: NDArray[np.int64],
    *,
    distance: int,
) -> LocalView:
    """Fit the weights of the OCRs around genes.

    Parameters
    ----------
    counts
        Counts of the training cells, (n, L).
    residual
        Measured minus predicted expression, (n, n_genes).
    ocrs
        The OCRs: ``chrom``, ``start``, ``end``.
    genes, columns
        Table of the genes whose place is known, as from `scfound_atac.genome.read_genes`, and their columns of `residual`.
    distance
        Distance from the start of transcription in bases up to which OCRs count.
    """
    from scipy.sparse import csc_matrix

    total = np.asarray(counts.sum(axis=1)).ravel()
    empty = csc_matrix((len(ocrs), residual.shape[1]), dtype=np.float32)
    target_sum = float(np.median(total[total > 0])) if (total > 0).any() else 1.0
    places = ocrs[["chrom", "start", "end"]].reset_index(drop=True)
    view = LocalView(places, target_sum, empty, np.zeros(residual.shape[1], dtype=np.float32))
    values = view.of(places).prepare(counts).tocsc()
    mean = np.asarray(values.mean(axis=0)).ravel()
    near = near_genes(places, genes, distance)
    n_open = np.diff(values.indptr)
    data, rows, starts = [], [], np.zeros(residual.shape[1] + 1, dtype=np.int64)
    centre = np.zeros(residual.shape[1], dtype=np.float32)
    order = np.argsort(columns)
    for gene in order:
        column = columns[gene]
        own = near.indices[near.indptr[gene] : near.indptr[gene + 1]]
        own = own[n_open[own] > 0]
        own = np.sort(own[np.argsort(-n_open[own], kind="stable")[:_MAX_OCRS]])
        weights = _ridge(values[:, own], mean[own], residual[:, column].astype(np.float64))
        if weights is None:
            continue
        data.append(weights.astype(np.float32))
        rows.append(own)
        starts[column + 1] = len(own)
        centre[column] = mean[own] @ weights
    if data:
        fitted = (np.concatenate(data), np.concatenate(rows), np.cumsum(starts))
        view = LocalView(places, target_sum, csc_matrix(fitted, shape=empty.shape), centre)
    return view


def _ridge(values: csc_matrix, mean: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Weights of the OCRs of one gene, (m,); None if cross-validation prefers none."""
    n, m = values.shape
    if m == 0:
        return None
    # 1. X'X and X'r of centred values, without making the values dense.
    x = values.astype(np.float64)
    r = r - r.mean()
    gram = (x.T @ x).toarray() - n * np.outer(mean, mean)
    target = x.T @ r  # r has mean 0
    # 2. GCV in the basis of the eigenvectors.
    eigenvalues, basis = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0)
    if not eigenvalues[-1] > 0:
        return None
    along = basis.T @ target  # (m,)
    penalties = _PENALTIES[:, None] * eigenvalues[-1]
    weights = along / (eigenvalues + penalties)  # (n_penalties, m)
    squares = r @ r - 2 * weights @ along + weights**2 @ eigenvalues
    freedom = (eigenvalues / (eigenvalues + penalties)).sum(axis=1)
    gcv = squares / n / np.maximum(1 - (1 + freedom) / n, 1e-6) ** 2
    best = int(np.argmin(gcv))
    none = float(r @ r) / n / (1 - 1 / n) ** 2 if n > 1 else 0.0
    return basis @ weights[best] if gcv[best] < none else None
