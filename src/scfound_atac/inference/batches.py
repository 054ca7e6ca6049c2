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

What remains of the batch in an embedding is averaged out. With ``m_ib`` the mean of the n nearest cells of batch b to cell i, and ``d_ib``
the distance of the last of them, the vector of the cell becomes::

    sum_b w_ib m_ib / sum_b w_ib        w_ib = n / 15 (min_b d_ib / d_ib)^8

n is 15, or the number of cells of a smaller batch. A batch without cells of this type is farther away, and the power leaves it little
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
_N_NEIGHBORS = 15
_POWER = 8
_CELLS_PER_BLOCK = 4_096
_OCRS_PER_BLOCK = 16_384  # OCRs of which the sums of all clusters and batches are held at a time


def cluster(points: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Clusters of cells by k-means on their first components, (n_cells, k) -> (n_cells,)."""
    from sklearn.cluster import KMeans

    points = np.ascontiguousarray(points[:, :_CLUSTER_COMPONENTS], dtype=np.float64)
    n = int(np.clip(len(points) // _CELLS_PER_CLUSTER, 1, _N_CLUSTERS))
    order = np.argsort(points[:, 0], kind="stable")  # so that the start does not depend on the order of cells
    found = np.empty(len(points), dtype=np.int64)
    found[order] = KMeans(n, n_init=3, random_state=seed).fit_predict(points[order])
    return found


def centred(points: NDArray[np.float32], batches: NDArray[np.int64]) -> NDArray[np.float32]:
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
    """Counts over the factors of the cells' batches; `batches` has the number of the batch of each cell, -1 for none."""
    counts = counts.astype(np.float32, copy=True)
    batch = np.repeat(batches, np.diff(counts.indptr))
    counts.data /= np.where(batch < 0, np.float32(1), factors[batch, counts.indices])
    return counts


def balanced_mean(
    points: NDArray[np.float32], fitted: NDArray[np.int64], batches: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Means of the nearest cells of each batch, weighted as the module says, (n_cells, k) -> (n_cells, k).

    `fitted` are the numbers of the cells that can be neighbours, and `batches` has the number of the batch of each cell, (n_cells,).
    """
    from sklearn.neighbors import NearestNeighbors

    groups = [rows for b in np.unique(batches[fitted]) if len(rows := fitted[batches[fitted] == b])]
    sizes = np.array([min(_N_NEIGHBORS, len(rows)) for rows in groups])
    last = np.empty((len(groups), len(points)))
    means = np.empty((len(groups), *points.shape), dtype=np.float32)
    for number, (rows, size) in enumerate(zip(groups, sizes, strict=True)):
        distance, found = NearestNeighbors(n_neighbors=size).fit(points[rows]).kneighbors(points)
        last[number] = distance[:, -1]
        for start in range(0, len(points), _CELLS_PER_BLOCK):
            block = slice(start, start + _CELLS_PER_BLOCK)
            means[number, block] = points[rows[found[block]]].mean(axis=1)
    # Of a small batch the last distance is that to one of few cells, and may be 0 for its own: it is no measure for the others.
    nearest = last[sizes == sizes.max()].min(axis=0)
    weight = sizes[:, None] * (np.minimum(nearest / np.maximum(last, 1e-12), 1.0) ** _POWER + 1e-12)  # (b, n_cells)
    weight /= weight.sum(axis=0)
    return np.einsum("bn,bnk->nk", weight.astype(np.float32), means)
