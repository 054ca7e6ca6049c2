"""A linear head for labels: which class mean is nearest, and how far is the nearest known cell.

Linear discriminant analysis with one covariance for all classes, shrunk towards that of independent features. Features are turned and
scaled such that cells of a class scatter evenly in all directions, and only the directions in which class means differ are kept. There:

- the logit of a class is minus half the squared distance to its mean, plus the log of its fraction of the reference;
- the novelty of a cell is the mean distance to its nearest reference cells, divided by the square root of how far apart cells of its class
  are, and averaged over the cell's neighbours in the query, because a single cell is sparse and cells of a type that the reference lacks
  come in groups.

Probabilities are calibrated by one temperature (Guo et al. 2017) on cells that were held out. The threshold of novelty is found by leaving
out each class of the reference in turn; it is higher for classes whose own cells are far apart. It also moves with the median novelty of
the query, within bounds, because all cells of another donor are somewhat farther from the reference.
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

# These numbers were chosen while looking at the bone-marrow donors D5T1 and D6T1 and at PBMC: scores on those are optimistic by that much.
# Bounds on time and memory change no result of small data.

# Shrinkage, in (0, 1): the fraction of the covariance within classes that is replaced by independent features of its mean variance. Small
# references estimate a (d, d) covariance badly, and whitening divides by its smallest eigenvalues.
_SHRINKAGE = 0.3
# Added to that mean variance, so that there is something to divide by where cells of a class do not scatter at all.
_MIN_VARIANCE = 1e-6
# Number of nearest reference cells whose mean distance is the novelty: more are more stable, but a rare class has few cells.
_N_NEAREST = 5
# Number of neighbouring cells of the query over which novelty is averaged, because one cell is sparse.
_N_NEIGHBORS = 15
# Minimum number of query cells per neighbour: with fewer, the neighbours of a cell are of other types.
_CELLS_PER_NEIGHBOR = 10
# Time and memory: reference cells that novelty is measured to, query cells among which neighbours are sought, rows of a distance table.
_REFERENCE_CELLS, _NEIGHBOR_CELLS, _ROWS = 5_000, 20_000, 4_096
# Minimum temperature. If all held-out cells are predicted correctly, the likelihood alone would make all other predictions certain.
_MIN_TEMPERATURE = 0.5
# Minimum number of cells of a class for an estimate of its looseness, and the maximum factor by which its threshold is raised, because a
# class with an unlimited threshold accepts every new type.
_MIN_LOOSE_CELLS, _MAX_LOOSENESS = 10, 1.5
# Minimum number of query cells whose median estimates how much farther from the reference all of them are, and the maximum factor by which
# that moves the threshold if the OCRs are the same, so that a query of new types alone is still found.
_MIN_TYPICAL_CELLS, _MAX_SHIFT = 50, 1.25
# Maximum number of classes that are left out in turn, the largest ones, which bounds the number of fitted heads; maximum and minimum
# number of cells of such a class, as fewer cells give no usable fraction.
_MAX_CLASSES, _MAX_CELLS, _MIN_CELLS = 50, 500, 5
# Names of arrays in folders written before version 0.2.
_OLD_NAMES = {"log_share": "log_prior"}


@dataclass(frozen=True)
class LinearHead:
    """A fitted head; plain arrays, so that it can be stored.

    Attributes
    ----------
    center, projection
        ``(features - center) @ projection`` are coordinates: (d,), (d, m).
    means, log_prior
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
    apart
        Square root of how far apart cells of each class are, relative to cells in general; (n_classes,).
    """

    center: NDArray[np.float32]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    log_prior: NDArray[np.float32]
    reference: NDArray[np.float32]
    temperature: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    typical: NDArray[np.float32]
    apart: NDArray[np.float32]

    def coordinates(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (n, d) -> coordinates (n, m)."""
        return ((features - self.center) @ self.projection).astype(np.float32)

    def logits(self, coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
        """Coordinates (n, m) -> logits before the temperature, (n, n_classes)."""
        x, means = coordinates.astype(np.float64), self.means.astype(np.float64)
        # |x|^2 is the same for all classes
        return x @ means.T - 0.5 * (means**2).sum(1) + self.log_prior

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated probabilities of the classes, (n, n_classes)."""
        return softmax(self.logits(self.coordinates(features)) / float(self.temperature), axis=1)

    def nearest(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """The most likely class of each cell, (n,)."""
        return self.logits(self.coordinates(features)).argmax(axis=1)

    def distance(self, features: NDArray[np.float32], *, skip: int = 0) -> NDArray[np.float64]:
        """Mean distance of each cell to its nearest reference cells, (n,); the first `skip` (a reference cell itself) are left out."""
        from sklearn.neighbors import NearestNeighbors

        n_nearest = min(_N_NEAREST + skip, len(self.reference))
        nearest = NearestNeighbors(n_neighbors=n_nearest, algorithm="brute").fit(self.reference)
        blocks = _blocks(self.coordinates(features))
        return np.concatenate([nearest.kneighbors(x)[0][:, skip:].mean(axis=1, dtype=np.float64) for x in blocks])

    def novelty(self, features: NDArray[np.float32], *, n_neighbors: int = _N_NEIGHBORS) -> NDArray[np.float64]:
        """Relative distance to the nearest reference cells, (n,), averaged over each cell and `n_neighbors` others of these cells.

        With 0 neighbours each cell is judged by itself.
        """
        from sklearn.neighbors import NearestNeighbors

        own = self.distance(features) / self.apart[self.nearest(features)]
        if not n_neighbors or len(own) < 2:
            return own
        # Neighbours are found by all features, because a type that the reference lacks may differ in other directions than known types.
        scaled = features - features.mean(axis=0)
        scaled = scaled / np.maximum(scaled.std(axis=0), 1e-6)
        scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
        some = np.linspace(0, len(own) - 1, min(len(own), _NEIGHBOR_CELLS)).astype(np.int64)
        among = np.argsort(own, kind="stable")[some]  # from low to high novelty, independent of the order of cells
        beside = NearestNeighbors(n_neighbors=min(n_neighbors + 1, len(among)), algorithm="brute").fit(scaled[among])
        neighbors = np.concatenate([beside.kneighbors(block, return_distance=False) for block in _blocks(scaled)])
        return own[among][neighbors].mean(axis=1)

    def judge(
        self,
        features: NDArray[np.float32],
        n_neighbors: int = _N_NEIGHBORS,
        *,
        codes: NDArray[np.int64] | None = None,
        same_ocrs: bool = True,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Novelty, and whether it exceeds the threshold of the cell's class `codes` (the nearest if None), both (n,).

        If there are too few cells for neighbours, each is judged by itself. Among others, most cells are assumed to be of known types, and
        the threshold is raised with their median, within bounds. If the query has other OCRs than the reference, all its cells are farther
        from it: the threshold is then raised without bounds or, for few cells, by the factor of the loosest class.
        """
        is_averaged = _is_averaged(len(features), n_neighbors)
        novelty = self.novelty(features, n_neighbors=n_neighbors if is_averaged else 0)
        thresholds = self.thresholds[int(is_averaged)]
        if len(novelty) >= _MIN_TYPICAL_CELLS and (is_averaged or not same_ocrs):
            shift = max(float(np.median(novelty) - self.typical[int(is_averaged)]), 0)
            bound = (_MAX_SHIFT - 1) * thresholds if same_ocrs else np.inf
            thresholds = thresholds + np.minimum(shift, bound)
        elif not same_ocrs:
            thresholds = thresholds * _MAX_LOOSENESS
        return novelty, novelty > thresholds[self.nearest(features) if codes is None else codes]

    def arrays(self) -> dict[str, NDArray]:
        """The fields by name."""
        return {field.name: np.asarray(getattr(self, field.name), dtype=np.float32) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> LinearHead:
        """The head whose `arrays` these are."""
        known = {_OLD_NAMES.get(name, name): x for name, x in arrays.items()}
        known.setdefault(
            "apart", np.ones(len(known["means"]), dtype=np.float32)
        )  # earlier versions did not divide by it
        return cls(**{field.name: known[field.name] for field in fields(cls)})


def _is_averaged(n_cells: int, n_neighbors: int) -> bool:
    """Whether there are enough cells for the neighbours of a cell to be of its type."""
    return 0 < n_neighbors <= n_cells // _CELLS_PER_NEIGHBOR


def _blocks(x: NDArray) -> list[NDArray]:
    return [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]


def _fit(features: NDArray[np.float32], codes: NDArray[np.int64], n_classes: int, seed: int) -> LinearHead:
    """A head without calibration; classes that are absent from `codes` are never predicted.

    With ``x`` the standardised features of n cells, ``mu_k`` the mean and ``n_k`` the number of cells of class k, and ``l`` the shrinkage::

        W = mean over cells of (x - mu_k)(x - mu_k)^T          covariance within classes
        S = (1 - l) W + l (tr(W) / d) I                        the same, shrunk
        A with A^T S A = I                                     whitening
        V = right singular vectors of the rows sqrt(n_k / n) mu_k A
        P = A V                                                coordinates are x P
        logit_k = -|x P - mu_k P|^2 / 2 + log(n_k / n)         of a cell; see `LinearHead.logits`

    Parameters
    ----------
    features
        Features of n cells, shape (n, d).
    codes
        Class of each cell, shape (n,).
    n_classes
        Number of classes, K.
    seed
        Random seed; it chooses the reference cells.
    """
    # 1. Standardise, so that the unit of a feature does not matter. 1e-6 keeps constant features finite.
    x = features.astype(np.float64)  # (n, d)
    center = x.mean(axis=0)  # (d,)
    scale = np.maximum(x.std(axis=0), 1e-6)  # (d,)
    x = (x - center) / scale

    # 2. Mean of each class; zero for those that are absent.
    n_cells = np.bincount(codes, minlength=n_classes)  # (K,)
    is_there = n_cells > 0
    means = np.zeros((n_classes, x.shape[1]))  # (K, d)
    np.add.at(means, codes, x)
    means[is_there] /= n_cells[is_there, None]

    # 3. Whiten by the shrunk covariance within classes. It has the eigenvectors of W, so only eigenvalues are added.
    deviation = x - means[codes]
    within = deviation.T @ deviation / len(x)  # (d, d)
    independent = np.trace(within) / len(within) + _MIN_VARIANCE
    values, vectors = np.linalg.eigh((1 - _SHRINKAGE) * within)  # (d,), (d, d)
    whiten = vectors / np.sqrt(values + _SHRINKAGE * independent)  # (d, d)

    # 4. Keep the directions in which class means differ: at most K - 1, as the mean over all cells is zero.
    spread = (means @ whiten)[is_there] * np.sqrt(n_cells[is_there] / len(x))[:, None]  # (K there, d)
    _, size, axes = np.linalg.svd(spread, full_matrices=False)
    projection = whiten @ axes[size > 1e-9 * size.max()].T if size.max() > 0 else whiten[:, -1:]  # (d, m)
    coordinates = x @ projection  # (n, m)

    # 5. Reference cells for novelty, and the prior, which is practically 0 for absent classes.
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:_REFERENCE_CELLS])
    log_prior = np.where(is_there, np.log(np.maximum(n_cells, 1) / len(x)), -1e9)  # (K,)
    return LinearHead(
        center=center.astype(np.float32),
        projection=(projection / scale[:, None]).astype(np.float32),
        means=(means @ projection).astype(np.float32),
        log_prior=log_prior.astype(np.float32),
        reference=coordinates[rows].astype(np.float32),
        temperature=np.array(1, dtype=np.float32),
        thresholds=np.full((2, n_classes), np.inf, dtype=np.float32),
        typical=np.full(2, np.inf, dtype=np.float32),
        apart=_apart(coordinates, codes, rows, n_classes),
    )


def _apart(
    coordinates: NDArray[np.float64], codes: NDArray[np.int64], rows: NDArray[np.int64], n_classes: int
) -> NDArray[np.float32]:
    """Square root of the median distance of the cells `rows` of each class to their nearest cells, over that of all; (n_classes,).

    The root was chosen, beside 0 and 1, while looking at classes that were left out of D6T1, D5T1 and PBMC: without it cells of loose
    classes rank among the new ones, and with the whole distance new cells that are taken for such a class do not.
    """
    from sklearn.neighbors import NearestNeighbors

    reference = coordinates[rows]
    nearest = NearestNeighbors(n_neighbors=min(_N_NEAREST + 1, len(rows)), algorithm="brute").fit(reference)
    distance = np.concatenate([nearest.kneighbors(x)[0][:, 1:].mean(axis=1) for x in _blocks(reference)])
    apart, general = np.ones(n_classes), np.median(distance)
    for code, n_cells in zip(*np.unique(codes[rows], return_counts=True), strict=True):
        if n_cells >= _MIN_LOOSE_CELLS and general > 0:
            apart[code] = np.sqrt(np.median(distance[codes[rows] == code]) / general)
    return np.maximum(apart, 0.1).astype(np.float32)


def hold_out(
    codes: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted rows to hold out, about `fraction` of each class, and the other rows. Each class keeps at least one cell to learn from."""
    order = rng.permutation(len(codes))
    out = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = order[codes[order] == code]
        out[rows[: min(max(round(fraction * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(out), np.flatnonzero(~out)


@dataclass(frozen=True)
class HeadReport:
    """Scores of a head on cells and classes that were held out.

    Attributes
    ----------
    held_out
        Calibrated probabilities of the held-out cells from a head that was fitted without them, (n_held_out, n_classes).
    auroc
        AUROC with which novelty separates the cells of each class, when it is left out, from the others; NaN for classes that were not
        tried.
    fraction_known_lost, fraction_unknown_found
        At the threshold, the fraction of held-out cells, and of cells of a class that was left out, that are called unknown; NaN if no
        class was tried.
    """

    held_out: NDArray[np.float64]
    auroc: NDArray[np.float64]
    fraction_known_lost: float
    fraction_unknown_found: float


def fit_head(
    features: NDArray[np.float32],
    codes: NDArray[np.int64],
    n_classes: int,
    held_out: NDArray[np.int64],
    *,
    n_neighbors: int = _N_NEIGHBORS,
    max_known_lost: float = 0.05,
    seed: int = 0,
) -> tuple[LinearHead, HeadReport]:
    """Fit and calibrate a head.

    Parameters
    ----------
    features
        Features of n cells, shape (n, d).
    codes
        Class of each cell, 0 to `n_classes` - 1, shape (n,).
    n_classes
        Number of classes, at least 2, each with at least one cell that is not held out.
    held_out
        Rows that the features were not learned from. Temperature and threshold are fitted on them; without any, probabilities are not
        calibrated.
    n_neighbors
        Number of neighbours for `LinearHead.novelty`.
    max_known_lost
        Maximum fraction of known cells that the threshold may call unknown. Up to it, the threshold maximises the fraction of unknown cells
        that are found minus the fraction of known cells that are lost.
    seed
        Random seed of samples.
    """
    out = np.zeros(len(codes), dtype=bool)  # (n,)
    out[held_out] = True

    # 1. A head fitted to the other cells, and the temperature that calibrates it on the held-out cells.
    part = _fit(features[~out], codes[~out], n_classes, seed)
    logits = part.logits(part.coordinates(features[out]))  # (n_held_out, K)
    t = max(temperature(logits, codes[out]), _MIN_TEMPERATURE) if out.any() else 1.0

    # 2. The fraction of known cells to keep, and the distance that keeps it, which is higher for loose classes. With few held-out cells the
    #    distribution of averaged novelty is unknown, and the threshold of single cells is used, which calls fewer cells unknown.
    n_neighbors = n_neighbors if _is_averaged(len(held_out), n_neighbors) else 0
    level, auroc, found = _level(features, codes, n_classes, out, n_neighbors, max_known_lost, seed)
    known = out if out.any() else ~out
    novelty = [
        part.novelty(features[known], n_neighbors=n) for n in (0, n_neighbors)
    ]  # single and averaged, each (n_known,)
    looseness = _looseness(part, features[~out], codes[~out])
    thresholds = np.outer([np.quantile(x, level) for x in novelty], looseness)  # (2, K)
    lost = float(np.mean(novelty[1] > thresholds[1][part.nearest(features[known])]))

    # 3. The head fitted to all cells uses these numbers.
    head = replace(
        _fit(features, codes, n_classes, seed),
        temperature=np.array(t, dtype=np.float32),
        thresholds=thresholds.astype(np.float32),
        typical=np.array([np.median(x) for x in novelty], dtype=np.float32),
    )
    return head, HeadReport(softmax(logits / t, axis=1), auroc, lost, found)


def _looseness(part: LinearHead, features: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much farther apart cells of each class are than cells in general, from 1 to `_MAX_LOOSENESS`: (n_classes,).

    With ``a`` the mean distance of a reference cell to its nearest others, over the root that novelty is divided by, the looseness of class
    k is ``median(a in k) / median(a)``, clipped.

    Cells of a loose class are far from each other without being new. The looseness is clipped, because a class with an unlimited threshold
    would accept every new type, and it is 1 for classes with few cells, which give no reliable estimate.
    """
    apart = (
        part.distance(features, skip=1) / part.apart[codes]
    )  # (n,); the first neighbour of a reference cell is the cell itself
    looseness, general = np.ones(len(part.means)), np.median(apart)
    for code, n_cells in zip(*np.unique(codes, return_counts=True), strict=True):
        if n_cells >= _MIN_LOOSE_CELLS and general > 0:
            looseness[code] = np.clip(np.median(apart[codes == code]) / general, 1, _MAX_LOOSENESS)
    return looseness


def refit_head(head: LinearHead, features: NDArray[np.float32], codes: NDArray[np.int64], seed: int = 0) -> LinearHead:
    """A head with the same temperature and thresholds, for features of the same kind that were learned from all cells."""
    kept = {name: getattr(head, name) for name in ("temperature", "thresholds", "typical")}
    return replace(_fit(features, codes, len(head.means), seed), **kept)


def _level(
    features: NDArray[np.float32],
    codes: NDArray[np.int64],
    n_classes: int,
    out: NDArray[np.bool_],
    n_neighbors: int,
    max_known_lost: float,
    seed: int,
) -> tuple[float, NDArray[np.float64], float]:
    """Leave out each class in turn: fraction of known cells to keep below the threshold, AUROC per class, fraction of unknown cells found.

    For a class c that is left out and a fraction q of known cells to keep::

        t_c(q) = q-quantile of the novelty of held-out cells of other classes
        found_c(q) = fraction of the cells of c whose novelty, divided by the looseness of the class they are nearest to, is above t_c(q)

    and the fraction taken is the q from ``1 - max_known_lost`` to 1 with the largest ``q + mean over c of found_c(q)``, the fraction of
    known cells that are kept plus that of unknown cells that are found. The head of all classes takes over this fraction, not a distance:
    a head with one class less has one direction less in which cells can be apart.
    """
    from sklearn.metrics import roc_auc_score

    # 1. Classes to leave out, the largest first. If only one class is left, there is no direction in which classes differ.
    rng = np.random.default_rng(seed)
    n_cells = np.bincount(codes, minlength=n_classes)  # (K,)
    tried = [c for c in np.argsort(-n_cells, kind="stable") if n_cells[c] >= _MIN_CELLS][:_MAX_CLASSES]
    if n_classes < 3:
        tried = []
    levels = np.linspace(1 - max_known_lost, 1, 101)  # (101,)
    found = []
    auroc = np.full(n_classes, np.nan)  # (K,)
    for c in tried:
        # 2. A head without the class, for which held-out cells of the other classes are known and those of the class are unknown.
        old, rest = np.flatnonzero(out & (codes != c)), np.flatnonzero(~out & (codes != c))
        if not len(old):
            continue
        part = _fit(features[rest], codes[rest], n_classes, seed)
        new = rng.permutation(np.flatnonzero(codes == c))[:_MAX_CELLS]

        # 3. Both together form the query, so that neighbours are of both kinds, as in a real query.
        novelty = part.novelty(features[np.r_[old, new]], n_neighbors=n_neighbors)  # (n_old + n_new,)
        known, unknown = np.split(novelty, [len(old)])
        relative = unknown / _looseness(part, features[rest], codes[rest])[part.nearest(features[new])]  # (n_new,)
        found.append((relative > np.quantile(known, levels)[:, None]).mean(axis=1))  # (101,)
        auroc[c] = roc_auc_score(np.repeat([0, 1], [len(old), len(new)]), novelty)
    if not found:
        return 1 - max_known_lost, auroc, float("nan")

    # 4. The level at which the sum of both fractions is largest.
    fraction_found = np.mean(found, axis=0)  # (101,)
    best = int(np.argmax(fraction_found + levels))
    return float(levels[best]), auroc, float(fraction_found[best])
