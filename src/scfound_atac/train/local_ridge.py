"""Learn weights of the OCRs around each gene, given what else is known of the cells.

For each gene, with X the values of the m OCRs near it in n cells, y its expression, and P the projection that removes the mean and the
first principal components of what a head reads of these cells, such as their types::

    w = (X'PX + l I)^(-1) X'Py                                weights
    GCV(l) = |Py - PXw|^2 / n / (1 - (k + df(l)) / n)^2       generalised cross-validation
    df(l) = sum over i of e_i / (e_i + l)                     e_i eigenvalues of X'PX, k dimensions that P removes

The penalty l with the smallest GCV is chosen for each gene, an infinite one included, with which the gene has no local part. Without P,
OCRs that are open in the cell types that express a gene would get the weight of the type. The head is trained afterwards, on what the local
part leaves: a head that was trained first could fit the training cells by heart, and nothing would be left.

Whether a weight is more than noise cannot be seen from OCRs that have none. A second fit therefore gives weights to decoys too, OCRs of
other chromosomes that are open in as many cells: the same formula with X the values of OCRs and decoys, and the best finite l of the OCRs
alone. If no OCR acts on the gene, OCRs and decoys differ in nothing, so that the weights of the decoys are the null distribution of the
others (`scfound_atac.inference.perturbation_links`). All genes have this second fit, also those without a local part: OCRs that fit well
by chance are how a gene gets one. In simulated cells without a link, 5.1 % of the pairs of all genes had a p below 0.05, and 6.0 % of
those of genes with a local part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..genome import chromosome_ids, transcription_starts
from ..inference.local import LocalView, near_genes
from ..inference.matched_null import FAR, MIN_NULL

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix, csr_matrix

    # OCRs and their weights, by the column of the gene.
    _Weights = dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]]

# Penalties as fractions of the largest eigenvalue.
_PENALTIES = np.logspace(-3, 3, 25)
# Principal components of the features that are removed: at most this number, and this fraction of the cells.
_MAX_REMOVED, _REMOVED = 50, 0.25
# Maximum number of OCRs of a gene, the most often open ones, which bounds the time of the eigendecomposition.
_MAX_OCRS = 1_000
# Decoys of a gene, however many OCRs it has: with 200, one large weight among them hid 1 of 20 planted links, with 300 none. They are drawn
# from OCRs that all genes share, so that few OCRs have to be perturbed for all genes together.
_N_DECOYS, _MAX_POOL = 300, 2_000
# With fewer OCRs on other chromosomes, decoys may be far away on the chromosome of the gene.
_FEW_ELSEWHERE = 100


class LocalFit(NamedTuple):
    """Weights of the OCRs around genes."""

    alone: LocalView
    """Those of predictions; none for genes that are better predicted without."""
    with_decoys: LocalView
    """Those of OCRs and decoys together, for every gene with OCRs, from which links are read."""


def fit_local(
    counts: csr_matrix,
    features: NDArray[np.float32],
    expression: NDArray[np.float32],
    ocrs: pd.DataFrame,
    genes: pd.DataFrame,
    columns: NDArray[np.int64],
    *,
    distance: int,
    seed: int = 0,
) -> LocalFit:
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
    seed
        Random seed of the decoys.
    """
    from scipy.sparse import csc_matrix

    n_genes = expression.shape[1]
    removed = _removed(features)
    total = np.asarray(counts.sum(axis=1)).ravel()
    target_sum = float(np.median(total[total > 0])) if (total > 0).any() else 1.0
    places = ocrs[["chrom", "start", "end"]].reset_index(drop=True)
    empty = csc_matrix((len(ocrs), n_genes), dtype=np.float32)
    reader = LocalView(places, target_sum, empty, np.zeros(n_genes, dtype=np.float32)).of(places)
    values = reader.prepare(counts).tocsc()
    mean = np.asarray(values.mean(axis=0)).ravel()
    near = near_genes(places, genes, distance)
    n_open = np.diff(values.indptr)
    decoys = _Decoys(places, n_open, genes, max(distance, FAR), seed)
    fits: tuple[_Weights, _Weights] = ({}, {})
    for gene in np.argsort(columns):
        column = int(columns[gene])
        own = near.indices[near.indptr[gene] : near.indptr[gene + 1]]
        own = own[n_open[own] > 0]
        own = np.sort(own[np.argsort(-n_open[own], kind="stable")[:_MAX_OCRS]])
        if len(own) == 0:
            continue
        both = np.append(own, decoys.draw(gene, own))
        equations = _equations(values[:, both].astype(np.float64), expression[:, column].astype(np.float64), removed)
        weights, penalty = _ridge(equations.of(len(own)))
        if weights is not None:
            fits[0][column] = own, weights.astype(np.float32)
        if penalty is not None:
            fits[1][column] = both, _solve(equations, penalty).astype(np.float32)
    alone, with_decoys = (_as_view(fit, places, target_sum, mean, n_genes) for fit in fits)
    return LocalFit(alone, with_decoys)


class _Decoys:
    """Draws the decoys of one gene after the other."""

    def __init__(self, ocrs: pd.DataFrame, n_open: NDArray[np.int64], genes: pd.DataFrame, far: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.chromosome = chromosome_ids(ocrs["chrom"])
        self.middle = ((ocrs["start"] + ocrs["end"]) // 2).to_numpy()
        self.of_gene, self.tss, self.far = chromosome_ids(genes["chrom"]), transcription_starts(genes), far
        # Numbers of cells with the OCR; a fraction puts those that are equal into random order.
        self.n_open = n_open + self.rng.random(len(n_open))
        usable = np.flatnonzero((n_open > 0) & (self.chromosome > 0))
        pool = self.rng.choice(usable, min(_MAX_POOL, len(usable)), replace=False)
        self.pool = pool[np.argsort(self.n_open[pool])]

    def draw(self, gene: int, own: NDArray[np.int64]) -> NDArray[np.int64]:
        """300 OCRs, or as many as there are, that are open in as many cells as the OCRs `own`; none if there are fewer than 30."""
        # 1. OCRs of other chromosomes; if they are few, those of the gene's own that are far away as well, as for other nulls.
        is_other = self.chromosome[self.pool] != self.of_gene[gene]
        if is_other.sum() < _FEW_ELSEWHERE:
            is_other |= np.abs(self.middle[self.pool] - self.tss[gene]) > self.far
        pool = self.pool[is_other]
        n = min(_N_DECOYS, len(pool))
        if n < MIN_NULL:
            return np.empty(0, dtype=own.dtype)
        # 2. The numbers of cells that are wanted: of all own OCRs equally often, as far as n allows.
        wanted = np.append(np.repeat(own, n // len(own)), self.rng.choice(own, n % len(own), replace=False))
        place = np.searchsorted(self.n_open[pool], np.sort(self.n_open[wanted]))
        # 3. The nearest of the pool, each once: half-way between moving those that collide up, and moving them down.
        step = np.arange(n)
        up = np.maximum.accumulate(place - step) + step
        down = np.minimum.accumulate((place - step)[::-1])[::-1] + step
        return pool[np.clip((up + down) // 2, step, len(pool) - n + step)]


def _as_view(
    fit: _Weights, ocrs: pd.DataFrame, target_sum: float, mean: NDArray[np.floating], n_genes: int
) -> LocalView:
    """The weights of all genes; `mean` is the mean value of each OCR, (L,)."""
    from scipy.sparse import csc_matrix

    rows, columns, data = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, np.float32)
    centre = np.zeros(n_genes, dtype=np.float32)
    if fit:
        rows = np.concatenate([own for own, _ in fit.values()])
        data = np.concatenate([weights for _, weights in fit.values()])
        columns = np.repeat(list(fit), [len(own) for own, _ in fit.values()])
    for column, (own, weights) in fit.items():
        centre[column] = mean[own] @ weights
    matrix = csc_matrix((data, (rows, columns)), shape=(len(ocrs), n_genes))
    return LocalView(ocrs, target_sum, matrix, centre)


def _removed(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Orthonormal basis of what is removed of values and expression: the mean and some principal components, (n, k)."""
    n = len(features)
    k = min(_MAX_REMOVED, int(_REMOVED * n), features.shape[1])
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    left = left[:, :k][:, size[:k] > 1e-6 * max(float(size[0]), 1e-300)] if len(size) else left[:, :0]
    return np.column_stack([np.full(n, n**-0.5), left])


class _Equations(NamedTuple):
    """Least squares of one gene, without P."""

    gram: NDArray[np.float64]
    """X'PX, (m, m)."""
    along: NDArray[np.float64]
    """X'Py, (m,)."""
    square: float
    """y'Py."""
    n_free: int
    """Number of cells less the dimensions that P removes."""

    def of(self, m: int) -> _Equations:
        """Those of the first m OCRs."""
        return _Equations(self.gram[:m, :m], self.along[:m], self.square, self.n_free)


def _equations(x: csc_matrix, y: NDArray[np.float64], removed: NDArray[np.float64]) -> _Equations:
    """The products that a fit of y (n,) by x (n, m) needs, without making PX dense."""
    shared = x.T @ removed  # (m, k)
    y = y - removed @ (removed.T @ y)
    gram = (x.T @ x).toarray() - shared @ shared.T
    return _Equations(gram, x.T @ y, float(y @ y), len(y) - removed.shape[1])


def _ridge(equations: _Equations) -> tuple[NDArray[np.float64] | None, float | None]:
    """Weights of the OCRs of one gene, (m,), None if cross-validation prefers none; and the best finite penalty, None if there is none."""
    gram, along, square, n_free = equations
    if len(along) == 0 or n_free < 2:
        return None, None
    # 1. GCV in the basis of the eigenvectors.
    eigenvalues, basis = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0)
    if not eigenvalues[-1] > 0:
        return None, None
    along = basis.T @ along  # (m,)
    penalties = _PENALTIES[:, None] * eigenvalues[-1]
    weights = along / (eigenvalues + penalties)  # (n_penalties, m)
    squares = square - 2 * weights @ along + weights**2 @ eigenvalues
    freedom = (eigenvalues / (eigenvalues + penalties)).sum(axis=1)
    gcv = squares / np.maximum(n_free - freedom, 1e-6) ** 2
    best = int(np.argmin(gcv))
    # 2. Without weights the numerator is y'Py, and no freedom is spent.
    chosen = basis @ weights[best] if gcv[best] < square / n_free**2 else None
    return chosen, float(penalties[best, 0])


def _solve(equations: _Equations, penalty: float) -> NDArray[np.float64]:
    """Weights with a penalty that is given, (m,)."""
    from scipy.linalg import solve

    penalised = equations.gram.copy()
    penalised[np.diag_indices_from(penalised)] += penalty
    return np.asarray(solve(penalised, equations.along, assume_a="pos"))
