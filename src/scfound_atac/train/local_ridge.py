"""Learn weights of the OCRs around each gene, given what else is known of the cells.

For each gene, with X the values of the m OCRs near it in n cells, y its expression, and P the projection that removes the mean and the
first principal components of what a head reads of these cells, such as their types::

    w = (X'PX + l I)^(-1) X'Py                                weights
    GCV(l) = |Py - PXw|^2 / n / (1 - (k + df(l)) / n)^2       generalised cross-validation
    df(l) = sum over i of e_i / (e_i + l)                     e_i eigenvalues of X'PX, k dimensions that P removes

The penalty l with the smallest GCV is chosen for each gene, an infinite one included, with which the gene has no local part. Without P,
OCRs that are open in the cell types that express a gene would get the weight of the type. The head is trained afterwards, on what the local
part leaves: a head that was trained first could fit the training cells by heart, and nothing would be left.
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
# Principal components of the features that are removed: at most this number, and this fraction of the cells.
_MAX_REMOVED, _REMOVED = 50, 0.25
# Maximum number of OCRs of a gene, the most often open ones, which bounds the time of the eigendecomposition.
_MAX_OCRS = 1_000


def fit_local(
    counts: csr_matrix,
    features: NDArray[np.float32],
    expression: NDArray[np.float32],
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
    features
        What the head reads of these cells, each column with mean 0, (n, d).
    expression
        Standardised expression, (n, n_genes).
    ocrs
        The OCRs: ``chrom``, ``start``, ``end``.
    genes, columns
        Table of the genes whose place is known, as from `scfound_atac.genome.read_genes`, and their columns of `expression`.
    distance
        Distance from the start of transcription in bases up to which OCRs count.
    """
    from scipy.sparse import csc_matrix

    n_genes = expression.shape[1]
    removed = _removed(features)
    total = np.asarray(counts.sum(axis=1)).ravel()
    empty = csc_matrix((len(ocrs), n_genes), dtype=np.float32)
    target_sum = float(np.median(total[total > 0])) if (total > 0).any() else 1.0
    places = ocrs[["chrom", "start", "end"]].reset_index(drop=True)
    view = LocalView(places, target_sum, empty, np.zeros(n_genes, dtype=np.float32))
    values = view.of(places).prepare(counts).tocsc()
    mean = np.asarray(values.mean(axis=0)).ravel()
    near = near_genes(places, genes, distance)
    n_open = np.diff(values.indptr)
    data, rows, starts = [], [], np.zeros(n_genes + 1, dtype=np.int64)
    centre = np.zeros(n_genes, dtype=np.float32)
    order = np.argsort(columns)
    for gene in order:
        column = columns[gene]
        own = near.indices[near.indptr[gene] : near.indptr[gene + 1]]
        own = own[n_open[own] > 0]
        own = np.sort(own[np.argsort(-n_open[own], kind="stable")[:_MAX_OCRS]])
        weights = _ridge(values[:, own].astype(np.float64), expression[:, column].astype(np.float64), removed)
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


def _removed(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Orthonormal basis of what is removed of values and expression: the mean and some principal components, (n, k)."""
    n = len(features)
    k = min(_MAX_REMOVED, int(_REMOVED * n), features.shape[1])
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    left = left[:, :k][:, size[:k] > 1e-6 * max(float(size[0]), 1e-300)] if len(size) else left[:, :0]
    return np.column_stack([np.full(n, n**-0.5), left])


def _ridge(x: csc_matrix, y: NDArray[np.float64], removed: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Weights of the OCRs of one gene, (m,); None if cross-validation prefers none."""
    n, m = x.shape
    n_free = n - removed.shape[1]
    if m == 0 or n_free < 2:
        return None
    # 1. X'PX and X'Py, without making PX dense.
    shared = x.T @ removed  # (m, k)
    y = y - removed @ (removed.T @ y)
    gram = (x.T @ x).toarray() - shared @ shared.T
    # 2. GCV in the basis of the eigenvectors.
    eigenvalues, basis = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0)
    if not eigenvalues[-1] > 0:
        return None
    along = basis.T @ (x.T @ y)  # (m,), as Py is removed already
    penalties = _PENALTIES[:, None] * eigenvalues[-1]
    weights = along / (eigenvalues + penalties)  # (n_penalties, m)
    squares = y @ y - 2 * weights @ along + weights**2 @ eigenvalues
    freedom = (eigenvalues / (eigenvalues + penalties)).sum(axis=1)
    gcv = squares / np.maximum(n_free - freedom, 1e-6) ** 2
    best = int(np.argmin(gcv))
    return basis @ weights[best] if gcv[best] < (y @ y) / n_free**2 else None
