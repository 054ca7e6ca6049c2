"""A linear head for labels: which class mean is nearest, and how far is the nearest known cell.

Linear discriminant analysis with one covariance for all classes, shrunk towards that of independent features. Features are turned and
scaled such that cells of a class scatter evenly in all directions, and only the directions in which class means differ are kept. There:

- the logit of a class is minus half the squared distance to its mean, plus the log of its share of the reference;
- the novelty of a cell is the mean distance to its nearest reference cells, averaged over the cell's neighbours in the query, because a
  single cell is sparse and cells of a type that the reference lacks come in groups.

Probabilities are calibrated by one temperature (Guo et al. 2017) on cells that were held out. The threshold of novelty is found by leaving
out each class of the reference in turn; it is higher for classes whose own cells are far apart.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from ..scores import temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_N_NEAREST = 5  # reference cells that novelty is measured to: rare classes have few
_N_NEIGHBORS = 15
_CELLS_PER_NEIGHBOR = 10
_REFERENCE_CELLS = 5_000  # that novelty is measured against
_NEIGHBOR_CELLS = 20_000  # of a query among which neighbours are sought
_ROWS = 4_096
# Share of the covariance that is replaced by independent features of its mean variance.
_SHRINKAGE = 0.3
# Where all held-out cells come out right, the likelihood alone would have every other cell told with certainty.
_LEAST_TEMPERATURE = 0.5
# Cells from which a class can tell that it is loose, and how much higher its threshold may be for it.
_LEAST_LOOSE, _MOST_LOOSE = 10, 1.5
_LEAST_TYPICAL = 50  # cells whose median tells how far other OCRs move a query
_LEAST_VARIANCE = 1e-6  # of a standardised feature, where cells of a class do not scatter at all
# Classes and cells of the held-out class that the threshold is found with.
_MOST_CLASSES, _MOST_CELLS, _LEAST_CELLS = 50, 500, 5


@dataclass(frozen=True)
class LinearHead:
    """A fitted head; plain arrays, so that it can be stored.

    Attributes
    ----------
    center, projection
        ``(features - center) @ projection`` are coordinates: (d,), (d, m).
    means, log_share
        Of the classes: (n_classes, m), (n_classes,).
    reference
        Coordinates of reference cells, (r, m).
    temperature
        Logits are divided by it; a number.
    thresholds
        Cells of a higher novelty are unknown: of the cell by itself, and averaged over neighbours, for each class that a cell is nearest
        to; (2, n_classes).
    typical
        Median novelty of known cells, single and averaged; (2,).
    """

    center: NDArray[np.float32]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    log_share: NDArray[np.float32]
    reference: NDArray[np.float32]
    temperature: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    typical: NDArray[np.float32]

    def coordinates(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (n, d) -> coordinates (n, m)."""
        return ((features - self.center) @ self.projection).astype(np.float32)

    def logits(self, coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
        """Coordinates (n, m) -> logits before the temperature, (n, n_classes)."""
        x, means = coordinates.astype(np.float64), self.means.astype(np.float64)
        # |x|^2 is the same for all classes
        return x @ means.T - 0.5 * (means**2).sum(1) + self.log_share

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated probabilities of the classes, (n, n_classes)."""
        return softmax(self.logits(self.coordinates(features)) / float(self.temperature), axis=1)

    def nearest(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """The most likely class of each cell, (n,)."""
        return self.logits(self.coordinates(features)).argmax(axis=1)

    def distance(self, features: NDArray[np.float32], *, skip: int = 0) -> NDArray[np.float64]:
        """Mean distance of each cell to its nearest reference cells, (n,), without the first `skip` (the cell itself, if it is one)."""
        from sklearn.neighbors import NearestNeighbors

        n_nearest = min(_N_NEAREST + skip, len(self.reference))
        nearest = NearestNeighbors(n_neighbors=n_nearest, algorithm="brute").fit(self.reference)
        blocks = _blocks(self.coordinates(features))
        return np.concatenate([nearest.kneighbors(x)[0][:, skip:].mean(axis=1, dtype=np.float64) for x in blocks])

    def novelty(self, features: NDArray[np.float32], *, n_neighbors: int = _N_NEIGHBORS) -> NDArray[np.float64]:
        """Distance to the nearest reference cells, (n,), averaged over each cell and `n_neighbors` others of these cells.

        0 neighbours leave each cell to itself.
        """
        from sklearn.neighbors import NearestNeighbors

        own = self.distance(features)
        if not n_neighbors or len(own) < 2:
            return own
        # Neighbours by the whole of the features: a type that the reference lacks differs in other directions than known ones do.
        scaled = features - features.mean(axis=0)
        scaled = scaled / np.maximum(scaled.std(axis=0), 1e-6)
        scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
        some = np.linspace(0, len(own) - 1, min(len(own), _NEIGHBOR_CELLS)).astype(np.int64)
        among = np.argsort(own, kind="stable")[some]  # of all sorts, and whatever the order of cells
        beside = NearestNeighbors(n_neighbors=min(n_neighbors + 1, len(among)), algorithm="brute").fit(scaled[among])
        neighbors = np.concatenate([beside.kneighbors(block, return_distance=False) for block in _blocks(scaled)])
        return own[among][neighbors].mean(axis=1)

    def judge(
        self, features: NDArray[np.float32], n_neighbors: int = _N_NEIGHBORS, *, same_ocrs: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Novelty, and whether it is above the threshold, both (n,). Too few cells to have neighbours are judged one by one.

        Other OCRs than those of the reference move all cells away from it. Most cells are then taken to be of known types: the threshold
        moves with their median, or for few cells as far as that of the loosest class.
        """
        is_averaged = _is_averaged(len(features), n_neighbors)
        novelty = self.novelty(features, n_neighbors=n_neighbors if is_averaged else 0)
        thresholds = self.thresholds[int(is_averaged)]
        if not same_ocrs and len(novelty) >= _LEAST_TYPICAL:
            thresholds = thresholds + max(float(np.median(novelty) - self.typical[int(is_averaged)]), 0)
        elif not same_ocrs:
            thresholds = thresholds * _MOST_LOOSE
        return novelty, novelty > thresholds[self.nearest(features)]

    def arrays(self) -> dict[str, NDArray]:
        """The fields by name."""
        return {field.name: np.asarray(getattr(self, field.name), dtype=np.float32) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> LinearHead:
        """What `arrays` gave."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def _is_averaged(n_cells: int, n_neighbors: int) -> bool:
    """Whether there are enough cells for neighbours to be of one type."""
    return 0 < n_neighbors <= n_cells // _CELLS_PER_NEIGHBOR


def _blocks(x: NDArray) -> list[NDArray]:
    return [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]


def _fit(features: NDArray[np.float32], codes: NDArray[np.int64], n_classes: int, seed: int) -> LinearHead:
    """A head without calibration; classes that are absent from `codes` are never predicted."""
    x = features.astype(np.float64)
    center = x.mean(axis=0)
    scale = np.maximum(x.std(axis=0), 1e-6)
    x = (x - center) / scale
    n_cells = np.bincount(codes, minlength=n_classes)
    is_there = n_cells > 0
    means = np.zeros((n_classes, x.shape[1]))
    np.add.at(means, codes, x)
    means[is_there] /= n_cells[is_there, None]
    deviation = x - means[codes]
    within = deviation.T @ deviation / len(x)
    independent = np.trace(within) / len(within) + _LEAST_VARIANCE
    values, vectors = np.linalg.eigh((1 - _SHRINKAGE) * within)
    whiten = vectors / np.sqrt(values + _SHRINKAGE * independent)
    spread = (means @ whiten)[is_there] * np.sqrt(n_cells[is_there] / len(x))[:, None]
    _, size, axes = np.linalg.svd(spread, full_matrices=False)
    projection = whiten @ axes[size > 1e-9 * size.max()].T if size.max() > 0 else whiten[:, -1:]
    coordinates = x @ projection
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:_REFERENCE_CELLS])
    log_share = np.where(is_there, np.log(np.maximum(n_cells, 1) / len(x)), -1e9)
    return LinearHead(
        center=center.astype(np.float32),
        projection=(projection / scale[:, None]).astype(np.float32),
        means=(means @ projection).astype(np.float32),
        log_share=log_share.astype(np.float32),
        reference=coordinates[rows].astype(np.float32),
        temperature=np.array(1, dtype=np.float32),
        thresholds=np.full((2, n_classes), np.inf, dtype=np.float32),
        typical=np.full(2, np.inf, dtype=np.float32),
    )


def hold_out(
    codes: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to hold out, about `share` of each class, and the others, both rising; a class keeps at least one cell to learn from."""
    order = rng.permutation(len(codes))
    out = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = order[codes[order] == code]
        out[rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(out), np.flatnonzero(~out)


@dataclass(frozen=True)
class HeadReport:
    """What is known of a head from cells and classes that it was not shown.

    Attributes
    ----------
    held_out
        Calibrated probabilities of the held-out cells by a head that did not see them, (n_held_out, n_classes).
    auroc
        How well novelty tells the cells of each class, left out, from the others; NaN for classes that were not tried.
    share_known_lost, share_unknown_found
        At the threshold: held-out cells called unknown, and cells of a class left out that are; NaN if none was tried.
    """

    held_out: NDArray[np.float64]
    auroc: NDArray[np.float64]
    share_known_lost: float
    share_unknown_found: float


def fit_head(
    features: NDArray[np.float32],
    codes: NDArray[np.int64],
    n_classes: int,
    held_out: NDArray[np.int64],
    *,
    n_neighbors: int = _N_NEIGHBORS,
    most_lost: float = 0.05,
    seed: int = 0,
) -> tuple[LinearHead, HeadReport]:
    """Fit and calibrate a head.

    Parameters
    ----------
    features
        Shape (n, d).
    codes
        Class of each cell, 0 to `n_classes` - 1, shape (n,).
    n_classes
        At least 2, each with at least one cell that is not held out.
    held_out
        Rows that had no part in what the features were learnt from. Temperature and threshold are found with them; without any, labels are
        not calibrated.
    n_neighbors
        Of `LinearHead.novelty`.
    most_lost
        Largest share of known cells that the threshold may call unknown. Below it, it is where the difference of both shares is largest.
    seed
        Of samples.
    """
    out = np.zeros(len(codes), dtype=bool)
    out[held_out] = True
    part = _fit(features[~out], codes[~out], n_classes, seed)
    logits = part.logits(part.coordinates(features[out]))
    t = max(temperature(logits, codes[out]), _LEAST_TEMPERATURE) if out.any() else 1.0
    # few cells cannot tell how novelty is after averaging; the threshold of single cells is then the more careful one
    n_neighbors = n_neighbors if _is_averaged(len(held_out), n_neighbors) else 0
    level, auroc, found = _level(features, codes, n_classes, out, n_neighbors, most_lost, seed)
    known = out if out.any() else ~out
    novelty = [part.novelty(features[known], n_neighbors=n) for n in (0, n_neighbors)]
    thresholds = np.outer([np.quantile(x, level) for x in novelty], _looseness(part, features[~out], codes[~out]))
    lost = float(np.mean(novelty[1] > thresholds[1][part.nearest(features[known])]))
    head = replace(
        _fit(features, codes, n_classes, seed),
        temperature=np.array(t, dtype=np.float32),
        thresholds=thresholds.astype(np.float32),
        typical=np.array([np.median(x) for x in novelty], dtype=np.float32),
    )
    return head, HeadReport(softmax(logits / t, axis=1), auroc, lost, found)


def _looseness(part: LinearHead, features: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much farther apart cells of each class are than cells in general, from 1 to `_MOST_LOOSE`: (n_classes,).

    Cells of a loose class are far from each other, and those of a rare one from all: neither is news. But a class of a handful of
    cells says little, and one that may be ever so loose would take in whatever is new.
    """
    apart = part.distance(features, skip=1)
    looseness, general = np.ones(len(part.means)), np.median(apart)
    for code, n_cells in zip(*np.unique(codes, return_counts=True), strict=True):
        if n_cells >= _LEAST_LOOSE and general > 0:
            looseness[code] = np.clip(np.median(apart[codes == code]) / general, 1, _MOST_LOOSE)
    return looseness


def refit_head(head: LinearHead, features: NDArray[np.float32], codes: NDArray[np.int64], seed: int = 0) -> LinearHead:
    """The same temperature and thresholds for features of the same kind that were learnt from all cells."""
    kept = {name: getattr(head, name) for name in ("temperature", "thresholds", "typical")}
    return replace(_fit(features, codes, len(head.means), seed), **kept)


def _level(
    features: NDArray[np.float32],
    codes: NDArray[np.int64],
    n_classes: int,
    out: NDArray[np.bool_],
    n_neighbors: int,
    most_lost: float,
    seed: int,
) -> tuple[float, NDArray[np.float64], float]:
    """Leave out each class in turn: the share of known cells to keep below the threshold, AUROC per class, share of unknown cells found.

    It is this share that carries over from these heads to that of all classes, not a distance: with a class less there is a direction
    less to be apart in.
    """
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    n_cells = np.bincount(codes, minlength=n_classes)
    tried = [c for c in np.argsort(-n_cells, kind="stable") if n_cells[c] >= _LEAST_CELLS][:_MOST_CLASSES]
    if n_classes < 3:  # with one class left there are no directions in which classes differ
        tried = []
    levels = np.linspace(1 - most_lost, 1, 101)
    found = []
    auroc = np.full(n_classes, np.nan)
    for c in tried:
        old, rest = np.flatnonzero(out & (codes != c)), np.flatnonzero(~out & (codes != c))
        if not len(old):
            continue
        part = _fit(features[rest], codes[rest], n_classes, seed)
        new = rng.permutation(np.flatnonzero(codes == c))[:_MOST_CELLS]
        known, unknown = np.split(part.novelty(features[np.r_[old, new]], n_neighbors=n_neighbors), [len(old)])
        relative = unknown / _looseness(part, features[rest], codes[rest])[part.nearest(features[new])]
        found.append((relative > np.quantile(known, levels)[:, None]).mean(axis=1))
        auroc[c] = roc_auc_score(np.repeat([0, 1], [len(old), len(new)]), np.r_[known, unknown])
    if not found:
        return 1 - most_lost, auroc, float("nan")
    share_found = np.mean(found, axis=0)
    best = int(np.argmax(share_found + levels))
    return float(levels[best]), auroc, float(share_found[best])
