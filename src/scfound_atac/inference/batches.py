"""Factors by which the openness of each OCR differs between batches, estimated from cells of several batches that lie together.

With ``c_ij`` the count of OCR j in cell i, which belongs to batch b and cluster q::

    E[c_ij] = d_i p_qj r_bj

d_i is the depth of the cell, p_qj the profile of its cluster, and r_bj the factor of the batch, which is the same in all clusters. It
therefore cannot take up that batches differ in their composition. With ``O_qbj`` the sum of counts over the cells of cluster q and batch b,
and ``N_qb = sum_j O_qbj``, these two lines are repeated::

    p_qj = sum_b O_qbj / sum_b N_qb r_bj
    r_bj = (sum_q O_qbj + kappa) / (E_bj + kappa)        E_bj = sum_q N_qb p_qj

The second is the mean of a gamma prior with mean 1 and variance ``1 / kappa``. The variance is that of the data beyond Poisson noise,
``sum_bj (O_bj - E_bj)^2 - E_bj`` over ``sum_bj E_bj^2``. Factors of batches that hardly differ, or that have few cells, therefore stay
close to 1. They are scaled such that their geometric mean over batches is 1 for each OCR. Cells are corrected by ``c_ij / r_bj``.

What remains of the batch in an embedding is removed in two steps. First, one shift s_b per batch is subtracted, which is read from mutual
nearest neighbours (Haghverdi et al. 2018, Nature Biotechnology 36:421): pairs of cells of two batches b and q, each among the 20 nearest of
the other's batch. With n_bq the number of pairs and d_bq their mean difference ``x_b - x_q``, the shifts minimise::

    sum_bq n_bq |s_b - s_q - d_bq|^2 / 2 + 20 sum_b |s_b|^2

This is repeated with the shifted points. As all cells of a batch move alike, no cell type moves into another. (Harmony, or a step of its
own for each cell, mixes batches a little better, but a type that only one batch has comes to lie among others then.)

Then each vector is averaged over neighbours, which takes the noise of single cells away. With ``m_ib`` the mean of the 10 nearest cells of
batch b to cell i, and ``l_ib`` the distance of the last of them, it becomes::

    sum_b w_ib m_ib / sum_b w_ib        w_ib = n_b / 10 (min_b l_ib / l_ib)^8

n_b is 10, or the number of cells of a smaller batch. A batch without cells of this type is farther away, and the power leaves it little
weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# Clusters have to be finer than differences in composition, and to have cells of several batches; types of a tissue are of this number.
_N_CLUSTERS = 15
_CELLS_PER_CLUSTER = 20  # with fewer cells there are fewer clusters
_CLUSTER_COMPONENTS = 20  # the following components of an embedding are mostly noise
_N_ITERATIONS = 10
_FIRST_KAPPA = 20.0
# OCRs with fewer expected counts in a batch are left out of the variance, which would be that of single counts.
_MIN_EXPECTED = 5.0
_MIN_VARIANCE = 1e-3
_N_ROUNDS = 3  # of pairs and shifts in turn
_N_MUTUAL = 20
_RIDGE = 20  # number of pairs; a small batch hardly moves on its own account
# On a random half of the cells of two bone-marrow donors 5 to 15 neighbours have about the same scores. Fewer leave more noise, and types
# that only one batch has are less pure; more make cells of one batch and type so alike that what remains of the batch stands out.
_N_NEIGHBORS = 10
_POWER = 8
_CELLS_PER_BLOCK = 4_096
_OCRS_PER_BLOCK = 16_384  # OCRs of which the sums of all clusters and batches are held at a time


def cluster(points: NDArray[np.floating], seed: int) -> NDArray[np.int64]:
    """Clusters of cells by k-means on their first components, (n_cells, k) -> (n_cells,)."""
    from sklearn.cluster import KMeans

    points = np.ascontiguousarray(points[:, :_CLUSTER_COMPONENTS], dtype=np.float64)
    n = int(np.clip(len(points) // _CELLS_PER_CLUSTER, 1, _N_CLUSTERS))
    order = np.argsort(points[:, 0], kind="stable")  # so that the start does not depend on the order of cells
    found = np.empty(len(points), dtype=np.int64)
    found[order] = KMeans(n, n_init=3, random_state=seed).fit_predict(points[order])
    return found


def centred(points: NDArray[np.floating], batches: NDArray[np.int64]) -> NDArray[np.floating]:
    """Points without the mean of their batch, so that first clusters hold several batches even if these are far apart."""
    points = points.copy()
    for batch in np.unique(batches):
        points[batches == batch] -= points[batches == batch].mean(axis=0)
    return points


def batch_factors(
    counts: csr_matrix, clusters: NDArray[np.int64], batches: NDArray[np.int64], n_batches: int
) -> NDArray[np.float32]:
    """Factors r of each batch and OCR, (n_batches, n_ocrs).

    Parameters
    ----------
    counts
        Counts, shape (n_cells, n_ocrs).
    clusters, batches
        Number of the cluster and of the batch of each cell, (n_cells,).
    n_batches
        Number of batches. One without cells, or without a cluster in common with another batch, gets the factor 1 before scaling.
    """
    from scipy.sparse import csr_matrix

    # 1. Sums of counts by cluster and batch, without clusters of one batch alone: they say nothing about its factor.
    n_clusters = int(clusters.max()) + 1
    groups = clusters * n_batches + batches
    n_groups, n_cells = n_clusters * n_batches, len(groups)
    members = csr_matrix((np.ones(n_cells), (groups, np.arange(n_cells))), shape=(n_groups, n_cells))
    sums = (members @ counts.astype(np.float64)).tocsc()  # (n_groups, n_ocrs)
    depth = np.asarray(sums.sum(axis=1)).reshape(n_clusters, n_batches)
    shared = (depth > 0).sum(axis=1) > 1
    depth = depth[shared]  # (q, b)

    def observed(block: slice) -> NDArray[np.float64]:
        return sums[:, block].toarray().reshape(n_clusters, n_batches, -1)[shared]  # (q, b, l)

    # 2. Profiles and factors in turn, and kappa after each round.
    n_ocrs = counts.shape[1]
    blocks = [slice(i, i + _OCRS_PER_BLOCK) for i in range(0, n_ocrs, _OCRS_PER_BLOCK)]
    factors, kappa = np.ones((n_batches, n_ocrs)), _FIRST_KAPPA
    for _ in range(_N_ITERATIONS):
        excess = size = 0.0
        for block in blocks:
            found = observed(block)
            total = found.sum(axis=0)  # (b, l)
            profile = found.sum(axis=1) / np.maximum(depth @ factors[:, block], 1e-12)  # (q, l)
            expected = depth.T @ profile  # (b, l)
            updated = (total + kappa) / (expected + kappa)
            factors[:, block] = updated / np.exp(np.log(updated).mean(axis=0))
            known = expected > _MIN_EXPECTED
            excess += float(((total - expected) ** 2 - expected)[known].sum())
            size += float((expected[known] ** 2).sum())
        kappa = 1 / max(excess / size if size else 0.0, _MIN_VARIANCE)
    return factors.astype(np.float32)


def divide(counts: csr_matrix, factors: NDArray[np.float32], batches: NDArray[np.int64]) -> csr_matrix:
    """Counts over the factors of the cells' batches; `batches` has the number of the batch of each cell, below 0 for none."""
    counts = counts.astype(np.float32, copy=True)
    batch = np.repeat(batches, np.diff(counts.indptr))
    counts.data /= np.where(batch < 0, np.float32(1), factors[batch, counts.indices])
    return counts


def without_shift(
    points: NDArray[np.float32], fitted: NDArray[np.int64], batches: NDArray[np.int64], *, fixed: int | None = None
) -> NDArray[np.float32]:
    """Points without the shift of their batch, as the module says, (n_cells, k) -> (n_cells, k).

    Parameters
    ----------
    points
        Vectors of cells, (n_cells, k).
    fitted
        Numbers of the cells by which shifts are estimated.
    batches
        Number of the batch of each cell, (n_cells,).
    fixed
        A batch that stays where it is, and relative to which the others are shifted; None if the mean of all shifts is 0.
    """
    names = np.unique(batches[fitted])
    groups = [points[fitted[batches[fitted] == name]] for name in names]
    shift = np.zeros((len(names), points.shape[1]), dtype=np.float32)
    for _ in range(_N_ROUNDS):
        shift += _shifts([group - s for group, s in zip(groups, shift, strict=True)])
        shift -= shift.mean(axis=0) if fixed is None else shift[names == fixed]
    own = np.searchsorted(names, batches)
    is_known = names[np.minimum(own, len(names) - 1)] == batches  # cells of a batch of which none was fitted stay
    moved = points.copy()
    moved[is_known] -= shift[own[is_known]]
    return moved


def _shifts(groups: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The shifts s of batches, (n_batches, k), by the points of each."""
    n_batches = len(groups)
    n = np.zeros((n_batches, n_batches))
    total = np.zeros((n_batches, groups[0].shape[1]))  # sum over q of n_bq d_bq
    for b in range(n_batches):
        for q in range(b):
            mine, other = _mutual(groups[b], groups[q])
            n[b, q] = n[q, b] = len(mine)
            difference = (groups[b][mine] - groups[q][other]).sum(axis=0, dtype=np.float64)
            total[b] += difference
            total[q] -= difference
    # The derivative of the sum in the module is 0.
    return np.linalg.solve(np.diag(n.sum(axis=1) + _RIDGE) - n, total).astype(np.float32)


def _mutual(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the points of `a` and of `b` in all pairs of mutual nearest neighbours."""
    there, back = _nearest(b, a)[1], _nearest(a, b)[1]
    pairs = np.repeat(np.arange(len(a)), there.shape[1]) * len(b) + there.ravel()
    others = back.ravel() * len(b) + np.repeat(np.arange(len(b)), back.shape[1])
    return np.divmod(np.intersect1d(pairs, others, assume_unique=True), len(b))


def balanced_mean(
    points: NDArray[np.float32], fitted: NDArray[np.int64], batches: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Means over the nearest cells of all batches, as the module says, (n_cells, k) -> (n_cells, k).

    `fitted` are the numbers of the cells that can be neighbours, and `batches` has the number of the batch of each cell, (n_cells,).
    """
    groups = _groups(fitted, batches)
    sizes = np.array([min(_N_NEIGHBORS, len(rows)) for rows in groups])
    out = np.empty_like(points)
    for block in _blocks(len(points)):
        last = np.empty((len(groups), len(points[block])))
        means = np.empty((*last.shape, points.shape[1]), dtype=np.float32)
        for number, rows in enumerate(groups):
            distance, found = _nearest(points[rows], points[block], _N_NEIGHBORS)
            last[number], means[number] = distance[:, -1], points[rows[found]].mean(axis=1)
        # Of a small batch the last distance is that to one of few cells, and may be 0 for its own: it is no measure for the others.
        nearest = last[sizes == sizes.max()].min(axis=0)
        weight = sizes[:, None] * (np.minimum(nearest / np.maximum(last, 1e-12), 1.0) ** _POWER + 1e-12)
        out[block] = np.einsum("bn,bnk->nk", (weight / weight.sum(axis=0)).astype(np.float32), means)
    return out


def _groups(fitted: NDArray[np.int64], batches: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Numbers of the fitted cells of each batch that has some."""
    return [fitted[batches[fitted] == b] for b in np.unique(batches[fitted])]


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + _CELLS_PER_BLOCK) for start in range(0, n, _CELLS_PER_BLOCK)]


def _nearest(
    known: NDArray[np.float32], points: NDArray[np.float32], n: int = _N_MUTUAL
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances and numbers of the n nearest of the known points, or of all if there are fewer, each (n_points, n)."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=min(n, len(known))).fit(known).kneighbors(points)
