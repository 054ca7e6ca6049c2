"""How well an embedding keeps known labels: clusters and nearest neighbours."""

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
LEIDEN_NEIGHBORS = 15
LEIDEN_RESOLUTIONS = tuple(round(0.1 * i, 1) for i in range(1, 21))
LEIDEN_ITERATIONS = 2


def clustering_scores(embedding: ArrayLike, labels: ArrayLike, *, n_seeds: int = 5, seed: int = 0) -> pd.Series:
    """Agreement of clusters of the embedding with known labels.

    Agreement is measured by the adjusted Rand index (``ari``), normalised and adjusted mutual information (``nmi``, ``ami``; arithmetic
    mean of the entropies) and the Fowlkes-Mallows index (``fmi``). Three clusterings are compared with the labels:

    - ``kmeans``: k-means with as many clusters as labels, the best of ten starts.
    - ``leiden_k``: Leiden on the graph of 15 neighbours (UMAP weights by scanpy; igraph, two iterations) at the resolution
      of 0.1, 0.2 ... 2.0 whose number of clusters is nearest to the number of labels; the lowest of equals.
    - ``leiden_best``: Leiden at the resolution of the same grid with the highest NMI. The labels choose here: it is an upper bound.

    Resolutions are chosen with the first seed and kept for the others.

    Parameters
    ----------
    embedding
        Cells, shape (n_cells, n_components).
    labels
        One label per cell; leave out cells without one.
    n_seeds
        How often everything is clustered, with seeds `seed`, `seed` + 1, ...
    seed
        First seed.

    Returns
    -------
    Mean and standard deviation over seeds, as ``kmeans_ari``, ``kmeans_ari_sd``, ``kmeans_nmi``, ... ``leiden_best_fmi_sd``, and the chosen
    ``leiden_k_resolution`` and ``leiden_best_resolution``.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, labels are missing, or there are fewer than two labels or more labels than cells.
    ImportError
        Without igraph.
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
    """Part of the cells whose label is that of most of their nearest neighbours, cross-validated.

    Cells are split into folds in which each label has its share. The label of a cell is told from the `n_neighbors` nearest cells
    (Euclidean) of the other folds. A label with fewer cells than folds is in some folds only.

    Parameters
    ----------
    embedding
        Cells, shape (n_cells, n_components).
    labels
        One label per cell; leave out cells without one.
    n_neighbors
        Cells that vote; all of the other folds if there are fewer.
    n_folds
        Number of folds; at most as many as the commonest label has cells.
    n_seeds
        How often the folds are drawn, with seeds `seed`, `seed` + 1, ...
    seed
        First seed.

    Returns
    -------
    Mean and standard deviation of the accuracy over draws of folds; a draw's accuracy is that over all cells.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, labels are missing, there are fewer than two labels, or no label has two cells.
    """
    from sklearn.neighbors import KNeighborsClassifier

    check_arguments(seed=seed)
    points, truth = _checked(embedding, labels)
    _require("n_neighbors", n_neighbors)
    _require("n_folds", n_folds, least=2)
    _require("n_seeds", n_seeds)
    n_folds = min(n_folds, int(np.bincount(truth).max()))
    if n_folds < 2:
        msg = "Every label has one cell only, so that no neighbour can tell it. Use coarser labels."
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
    """The points, and labels as numbers from 0."""
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
        msg = f"There is nothing to tell apart: labels are {list(names.unique())}."
        raise ValueError(msg)
    codes, _ = read_labels(names, "labels", where="labels")
    return points, codes


def _require(name: str, value: int, *, least: int = 1) -> None:
    check_arguments(**{name: value})
    if value < least:
        msg = f"{name}={value} must be at least {least}."
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
        # fewer distinct points than clusters, as when many cells have no counts left, is a result like another
        warnings.simplefilter("ignore", ConvergenceWarning)
        k = int(truth.max()) + 1
        return [KMeans(k, n_init=KMEANS_RESTARTS, random_state=s).fit_predict(points) for s in seeds]


class _Leiden:
    """Clusters of one neighbour graph at any resolution and seed.

    The same as ``scanpy.tl.leiden(flavor="igraph", directed=False)``, but igraph's graph is made once instead of at each resolution.
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
            # cells at the same point, as those without counts: scanpy stores a distance of 0
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
        """The resolution with about as many clusters as labels, and the one with the best NMI."""
        from sklearn.metrics import normalized_mutual_info_score

        found = {resolution: self.clusters(resolution, seed) for resolution in LEIDEN_RESOLUTIONS}
        n_labels = truth.max() + 1
        return {
            "leiden_k": min(found, key=lambda r: abs(found[r].max() + 1 - n_labels)),
            "leiden_best": max(found, key=lambda r: normalized_mutual_info_score(truth, found[r])),
        }


def stratified_folds(truth: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Number of the fold of each cell; each label, in random order, is dealt to the folds in turn."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(truth))
    by_label = shuffled[np.argsort(truth[shuffled], kind="stable")]
    fold = np.empty(len(truth), dtype=np.int64)
    # one deal through all labels: a label begins where the last one ended, so that folds are equally large too
    fold[by_label] = np.arange(len(truth)) % n_folds
    return fold
