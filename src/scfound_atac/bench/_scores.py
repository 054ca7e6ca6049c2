"""How well an embedding agrees with known labels, by clusters and by nearest neighbours."""

from __future__ import annotations

import random
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from .._arguments import check_arguments
from .._labels import is_label, label_array, read_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

METRICS = ("ari", "nmi", "ami", "fmi")
KMEANS_RESTARTS = 10
LEIDEN_NEIGHBORS = 15  # the default of scanpy.pp.neighbors
LEIDEN_RESOLUTIONS = tuple(round(0.1 * i, 1) for i in range(1, 21))  # from few, large clusters to many small ones
LEIDEN_ITERATIONS = 2  # as scanpy recommends for igraph


def clustering_scores(embedding: ArrayLike, labels: ArrayLike, *, n_seeds: int = 5, seed: int = 0) -> pd.Series:
    """Agreement of clusters of the embedding with known labels.

    Agreement is measured by the adjusted Rand index (``ari``), normalised and adjusted mutual information (``nmi``, ``ami``; arithmetic
    mean of the entropies) and the Fowlkes-Mallows index (``fmi``). Three clusterings are compared with the labels:

    - ``kmeans``: k-means with as many clusters as labels, the best of ten random starts.
    - ``leiden_k``: Leiden on the graph of 15 neighbours (UMAP weights by scanpy; igraph, two iterations) at the resolution
      among 0.1, 0.2, ..., 2.0 whose number of clusters is closest to the number of labels; the lowest among equals.
    - ``leiden_best``: Leiden at the resolution of the same grid with the highest NMI. As the labels are used to choose it, it is an upper
      bound.

    Resolutions are chosen with the first seed and used for all seeds.

    Parameters
    ----------
    embedding
        Cells, shape (n_cells, n_components).
    labels
        One label per cell; leave out cells without one.
    n_seeds
        Number of repeats of each clustering, with seeds `seed`, `seed` + 1, ...
    seed
        First random seed.

    Returns
    -------
    Mean and standard deviation over seeds, as ``kmeans_ari``, ``kmeans_ari_sd``, ``kmeans_nmi``, ... ``leiden_best_fmi_sd``, and the chosen
    ``leiden_k_resolution`` and ``leiden_best_resolution``.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, labels are missing, or there are fewer than two labels or more labels than cells.
    ImportError
        If igraph is not installed.
    """
    check_arguments(seed=seed)
    points, truth = _checked(embedding, labels)
    _require("n_seeds", n_seeds)
    seeds = range(seed, seed + n_seeds)
    leiden = _Leiden(points, seed)
    resolutions = leiden.resolutions(truth, seed)
    clusterings = {"kmeans": _kmeans(points, truth, seeds)}
    clusterings |= {name: [leiden.clusters(r, s) for s in seeds] for name, r in resolutions.items()}
    scores: dict[str, float] = {}
    for name, clusters in clusterings.items():
        per_seed = np.array([_agreement(truth, found) for found in clusters])
        for metric, values in zip(METRICS, per_seed.T, strict=True):
            scores[f"{name}_{metric}"] = float(values.mean())
            scores[f"{name}_{metric}_sd"] = float(values.std())
    scores |= {f"{name}_resolution": r for name, r in resolutions.items()}
    return pd.Series(scores)


def knn_accuracy(
    embedding: ArrayLike, labels: ArrayLike, *, n_neighbors: int = 15, n_folds: int = 5, n_seeds: int = 5, seed: int = 0
) -> tuple[float, float]:
    """Fraction of the cells whose label is the most frequent one among their nearest neighbours, in cross-validation.

    Cells are divided into folds, stratified by label. The label of a cell is predicted from the `n_neighbors` nearest cells (Euclidean
    distance) of the other folds. A label with fewer cells than folds is only in some of the folds.

    Parameters
    ----------
    embedding
        Cells, shape (n_cells, n_components).
    labels
        One label per cell; leave out cells without one.
    n_neighbors
        Number of cells that vote; if there are fewer in the other folds, all of them vote.
    n_folds
        Number of folds; at most the number of cells of the most frequent label.
    n_seeds
        Number of random divisions into folds, with seeds `seed`, `seed` + 1, ...
    seed
        First random seed.

    Returns
    -------
    Mean and standard deviation of the accuracy over divisions into folds. The accuracy of a division is that over all cells.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, labels are missing, there are fewer than two labels, or no label has two cells.
    """
    from sklearn.neighbors import KNeighborsClassifier

    check_arguments(seed=seed)
    points, truth = _checked(embedding, labels)
    _require("n_neighbors", n_neighbors)
    _require("n_folds", n_folds, min_value=2)
    _require("n_seeds", n_seeds)
    n_folds = min(n_folds, int(np.bincount(truth).max()))
    if n_folds < 2:
        msg = "Every label has only one cell, so no neighbour can have the same label. Use coarser labels."
        raise ValueError(msg)
    accuracy = []
    for s in range(seed, seed + n_seeds):
        fold = stratified_folds(truth, n_folds, s)
        right = 0
        for i in range(n_folds):
            train, test = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
            voters = KNeighborsClassifier(min(n_neighbors, len(train))).fit(points[train], truth[train])
            right += int((voters.predict(points[test]) == truth[test]).sum())
        accuracy.append(right / len(truth))
    return float(np.mean(accuracy)), float(np.std(accuracy))


def _checked(embedding: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The embedding as float64, and the labels as numbers from 0."""
    try:
        points = np.asarray(embedding, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"embedding= takes an array, cells x components, such as adata.obsm['X_sfa']; got {type(embedding).__name__}."
        raise TypeError(msg) from error
    values = label_array(labels, "labels")
    names = pd.Series(values)
    if points.ndim != 2 or len(points) != len(names) or not points.shape[1]:
        msg = f"The embedding has shape {points.shape}, but there are {len(names)} labels: one row per label is needed."
        raise ValueError(msg)
    if not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
        msg = f"The embedding of {len(bad)} cells is not finite (cells {', '.join(map(str, bad[:3]))}, counted from 0)."
        raise ValueError(msg)
    missing = ~is_label(names)
    if missing.any():
        first = int(missing.argmax())
        msg = (
            f"{missing.sum()} cells have no label (first: cell {first}, counted from 0: {names.iloc[first]!r}). Leave them out of both "
            "arguments."
        )
        raise ValueError(msg)
    if names.nunique() < 2:
        msg = f"At least two labels are needed, found {list(names.unique())}."
        raise ValueError(msg)
    codes, _ = read_labels(names, "labels", where="labels")
    return points, codes


def _require(name: str, value: int, *, min_value: int = 1) -> None:
    check_arguments(**{name: value})
    if value < min_value:
        msg = f"{name}={value} must be at least {min_value}."
        raise ValueError(msg)


def _agreement(truth: NDArray[np.int64], found: NDArray[np.int64]) -> tuple[float, ...]:
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        fowlkes_mallows_score,
        normalized_mutual_info_score,
    )

    measures = (
        adjusted_rand_score,
        normalized_mutual_info_score,
        adjusted_mutual_info_score,
        fowlkes_mallows_score,
    )
    return tuple(float(measure(truth, found)) for measure in measures)


def _kmeans(points: NDArray[np.float64], truth: NDArray[np.int64], seeds: range) -> list[NDArray[np.int64]]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # There may be fewer distinct points than clusters, for example if many cells have no counts left after thinning.
        warnings.simplefilter("ignore", ConvergenceWarning)
        k = int(truth.max()) + 1
        return [KMeans(k, n_init=KMEANS_RESTARTS, random_state=s).fit_predict(points) for s in seeds]


class _Leiden:
    """Clusters of one neighbour graph at any resolution and seed.

    The result is that of ``scanpy.tl.leiden(flavor="igraph", directed=False)``, but the graph is built once and not at each resolution.
    """

    def __init__(self, points: NDArray[np.float64], seed: int) -> None:
        if find_spec("igraph") is None:
            msg = "Leiden clustering needs igraph: pip install 'scfound-atac[bench]'"
            raise ImportError(msg)
        import igraph
        import scanpy as sc
        from anndata import AnnData

        cells = AnnData(obs=pd.DataFrame(index=np.arange(len(points)).astype(str)), obsm={"points": points})
        n_neighbors = min(LEIDEN_NEIGHBORS, len(points) - 1)
        with warnings.catch_warnings():
            # scanpy stores distances of 0 between cells at the same point, such as those without counts
            warnings.simplefilter("ignore", sparse.SparseEfficiencyWarning)
            sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="points", random_state=seed)
        edges = sparse.triu(cells.obsp["connectivities"], k=1).tocoo()
        pairs = np.column_stack([edges.row, edges.col]).tolist()
        self._graph = igraph.Graph(len(points), pairs, edge_attrs={"weight": edges.data.tolist()})

    def clusters(self, resolution: float, seed: int) -> NDArray[np.int64]:
        import igraph

        igraph.set_random_number_generator(random.Random(seed))
        try:
            found = self._graph.community_leiden(
                "modularity", weights="weight", resolution=resolution, n_iterations=LEIDEN_ITERATIONS
            )
        finally:
            igraph.set_random_number_generator(random)  # igraph's own default
        return np.asarray(found.membership, dtype=np.int64)

    def resolutions(self, truth: NDArray[np.int64], seed: int) -> dict[str, float]:
        """The resolution whose number of clusters is closest to that of labels, and the one with the best NMI."""
        from sklearn.metrics import normalized_mutual_info_score

        found = {resolution: self.clusters(resolution, seed) for resolution in LEIDEN_RESOLUTIONS}
        n_labels = truth.max() + 1
        return {
            "leiden_k": min(found, key=lambda r: abs(found[r].max() + 1 - n_labels)),
            "leiden_best": max(found, key=lambda r: normalized_mutual_info_score(truth, found[r])),
        }


def stratified_folds(truth: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Fold number of each cell, (n_cells,). The cells of each label, in random order, are dealt to the folds in turn."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(truth))
    by_label = shuffled[np.argsort(truth[shuffled], kind="stable")]
    fold = np.empty(len(truth), dtype=np.int64)
    # Dealing goes on from one label to the next, so that the folds also have equal sizes.
    fold[by_label] = np.arange(len(truth)) % n_folds
    return fold
