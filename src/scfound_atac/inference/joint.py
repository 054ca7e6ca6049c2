"""One space of cells from two views of them, such as accessibility and expression.

Each view is centred over the cells, and each cell scaled to length 1, so that a view says in which direction a cell differs from the mean
and not how far. Squared distances of both views are then added, each with the weight of its view, and the sum is rotated to principal
components.

The weight of a view is the mean over cells of the modality weights of weighted nearest neighbours (Hao et al. 2021, Cell 184:3573). With
``v`` the position of a cell in a view, ``m`` the mean of its nearest neighbours as found in this view or in the other one, ``d`` the
distance to the nearest cell and ``s`` that to cells somewhat farther away::

    theta = exp(-max(|v - m| - d, 0) / (s - d))

says how well neighbours predict the cell, between 0 and 1. The ratio of theta of the view's own neighbours to theta of the other view's
neighbours is high where this view knows something that the other does not; the softmax of both ratios are the weights of the cell. One
weight for all cells, unlike one for each, leaves a space with ordinary distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .pca import signs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_NEIGHBORS = 15
"""Number of neighbours whose mean predicts a cell; as in `scanpy.pp.neighbors`."""
# The bandwidth is the mean distance to the last 20 of 60 neighbours: far enough to be outside of the cell's own neighbours.
_N_WIDE, _N_BANDWIDTH = 60, 20
_EPSILON = 1e-4  # of Hao et al.: keeps the ratio finite where the other view's neighbours say nothing
# A view in which all cells are equal up to this root mean square per cell only contains rounding errors, and gets no part.
_NO_SPREAD = 1e-6


class Joint(NamedTuple):
    """The joint space: vectors (n_cells, n_components), the weights of both views (2,), and the variance along each component."""

    vectors: NDArray[np.float32]
    weights: Floats
    variance_ratio: Floats


def join_views(first: Floats, second: Floats, *, fit_rows: NDArray[np.int64], n_components: int) -> Joint:
    """Join two views of the same cells as the module says.

    Parameters
    ----------
    first, second
        Views of the cells, (n_cells, d1) and (n_cells, d2). A row of NaN stands for a cell that lacks the view: it gets the mean of the
        cells that are nearest to it in the other view and have both.
    fit_rows
        Row numbers of cells with both views to which means, weights and components are fitted.
    n_components
        Maximum number of components.

    Raises
    ------
    ValueError
        If all fitted cells are equal in both views.
    """
    # 1. Directions from the mean of the fitted cells, and what is missing from the nearest cells that have both.
    views = [_directions(view, fit_rows) for view in (first, second)]
    views = [_completed(views[i], views[1 - i]) for i in (0, 1)]

    # 2. Weights.
    fitted = [view[fit_rows] for view in views]
    weights = view_weights(*fitted)

    # 3. Squared distances have the same mean in both views, times the weight.
    parts = []
    for view, of_fit, weight in zip(views, fitted, weights, strict=True):
        mean = of_fit.mean(axis=0)
        size = np.linalg.norm(of_fit - mean) / np.sqrt(len(of_fit))
        parts.append((view - mean) * (np.sqrt(weight) / size if size > _NO_SPREAD else 0.0))
    both = np.hstack(parts)  # (n_cells, d1 + d2)

    # 4. Principal components; the largest entry of each axis is positive.
    values, axes = np.linalg.eigh(both[fit_rows].T @ both[fit_rows])
    total = values.sum()
    if not total > 0:
        msg = "All cells have the same vector in both modalities, so there is no joint space. Check that they are not constant."
        raise ValueError(msg)
    order = np.argsort(-values)[:n_components]
    order = order[values[order] > 1e-10 * total]  # smaller values are due to rounding
    axes = axes[:, order] * signs(axes[:, order])
    return Joint((both @ axes).astype(np.float32), weights, values[order] / total)


def view_weights(first: Floats, second: Floats) -> Floats:
    """Weights of two views of the same cells, each (n_cells, d), which sum to 1; the module has the formula."""
    views = (first, second)
    near = [_neighbors(view, view, _N_WIDE, itself=True) for view in views]
    ratios = []
    for a, view in enumerate(views):
        distances, _ = near[a]
        closest, bandwidth = distances[:, 0], distances[:, -_N_BANDWIDTH:].mean(axis=1)
        width = np.maximum(bandwidth - closest, 1e-9)
        theta = []
        for _, rows in near:
            predicted = view[rows[:, :N_NEIGHBORS]].mean(axis=1)
            theta.append(np.exp(-np.maximum(np.linalg.norm(view - predicted, axis=1) - closest, 0) / width))
        ratios.append(theta[a] / (theta[1 - a] + _EPSILON))
    ratio = np.stack(ratios, axis=1)  # (n_cells, 2)
    odds = np.exp(ratio - ratio.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)


def _directions(view: Floats, fit_rows: NDArray[np.int64]) -> Floats:
    centred = view - view[fit_rows].mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def _completed(view: Floats, other: Floats) -> Floats:
    """`view` with rows for the cells that lack it, from the nearest cells by `other`."""
    lacks = np.isnan(view).any(axis=1)
    if not lacks.any():
        return view
    known = np.flatnonzero(~lacks & ~np.isnan(other).any(axis=1))
    _, rows = _neighbors(other[known], other[lacks], N_NEIGHBORS)
    completed = view.copy()
    completed[lacks] = view[known[rows]].mean(axis=1)
    return completed


def _neighbors(
    points: Floats, queries: Floats, n_neighbors: int, *, itself: bool = False
) -> tuple[Floats, NDArray[np.int64]]:
    """Distances and row numbers of the nearest points, (n_queries, k), the nearest first; without a query `itself` if it is a point."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(n_neighbors, len(points) - itself)).fit(points)
    return found.kneighbors(None if itself else queries)
