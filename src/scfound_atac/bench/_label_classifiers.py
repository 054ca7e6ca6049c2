"""Classifiers of cells whose settings are chosen, and whose probabilities are calibrated, in cross-validation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._logging import logger
from ..scores import temperature
from ._lsi_space import nearest
from ._scores import stratified_folds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ._lsi_space import Floats, LSISpace

    Labels: TypeAlias = NDArray[np.int64]
    Predict: TypeAlias = Callable[[Any], NDArray[Any]]

# Settings among which cross-validation chooses: C of logistic regression, and the number of neighbours.
LSI_PENALTIES = (0.01, 0.1, 1.0)
TFIDF_PENALTIES = (0.1, 1.0, 10.0)
LABEL_NEIGHBORS = (5, 15, 30)
FOLDS = 3
# A label that no training cell of a fold has gets probability 0, and the likelihood needs its logarithm.
MIN_PROBABILITY = 1e-9


def label_probabilities(
    method: str, space: LSISpace, y: Labels, seed: int, *, rows: Any = slice(None)
) -> NDArray[np.float64]:
    """Probability of each label for the test cells, (n_test, n_labels); settings are chosen on the training cells `rows`, labelled `y`."""
    train, test = {"lsi-knn": space.lsi, "tfidf-logistic": space.unit_rows}.get(method) or space.standardised
    train = train[rows]
    options: list[dict[str, Any]]
    if method == "lsi-knn":
        fit: Callable[..., Predict] = _fit_neighbors
        options = [{"n_neighbors": k} for k in LABEL_NEIGHBORS]
    else:
        fit = _fit_logistic
        penalties = LSI_PENALTIES if method == "lsi-logistic" else TFIDF_PENALTIES
        options = [{"C": c, "class_weight": weight} for weight in (None, "balanced") for c in penalties]
    n_labels = int(y.max()) + 1
    best, scale = _best_option(fit, options, train, y, seed)
    logger.info("%s: %s, temperature %.2f", method, ", ".join(f"{key}={value}" for key, value in best.items()), scale)
    return _softened(fit(train, y, n_labels, **best)(test), scale)


def _best_option(
    fit: Callable[..., Predict], options: list[dict[str, Any]], x: Any, y: Labels, seed: int
) -> tuple[dict[str, Any], float]:
    """The option with the highest macro-F1 over the cells of all folds, the first among equals, and its temperature on these cells.

    The score is computed over all folds together, because a rare label may only be in some of them. If all cells of a label are in one
    fold, they count as missed there.
    """
    from sklearn.metrics import f1_score

    folds = list(_folds(y, seed))
    if not folds:
        return options[0], 1.0
    held_out = np.concatenate([test for _, test in folds])
    n_labels, best, best_score, best_guess = int(y.max()) + 1, options[0], -1.0, np.empty(0)
    for option in options:
        guess = np.concatenate([fit(x[train], y[train], n_labels, **option)(x[test]) for train, test in folds])
        score = f1_score(y[held_out], guess.argmax(axis=1), average="macro", zero_division=0)
        if score > best_score:
            best, best_score, best_guess = option, score, guess
    return best, temperature(np.log(np.maximum(best_guess, MIN_PROBABILITY)), y[held_out])


def _softened(probabilities: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """``softmax(log(probabilities) / scale)``."""
    powers = np.maximum(probabilities, MIN_PROBABILITY) ** (1 / scale)
    return powers / powers.sum(axis=1, keepdims=True)


def _folds(y: Labels, seed: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Training cells and held-out cells of each fold that has at least two labels to learn."""
    fold = stratified_folds(y, FOLDS, seed)
    for i in range(FOLDS):
        train, test = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
        if len(test) and len(np.unique(y[train])) > 1:
            yield train, test


def _fit_logistic(x: Any, y: Labels, n_labels: int, *, C: float, class_weight: str | None) -> Predict:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, class_weight=class_weight, tol=1e-3, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # for separable classes the weights keep growing, but labels stay the same
        model.fit(x, y)

    def predict(cells: Any) -> NDArray[np.float64]:
        probabilities = np.zeros((cells.shape[0], n_labels))
        probabilities[:, model.classes_] = model.predict_proba(cells)
        return probabilities

    return predict


def _fit_neighbors(x: Floats, y: Labels, n_labels: int, *, n_neighbors: int) -> Predict:
    votes = np.eye(n_labels)[y]

    def predict(cells: Floats) -> NDArray[np.float64]:
        neighbors = nearest(x, cells, n_neighbors)
        # One more vote is divided among all labels, so that a label without a neighbour is unlikely but not impossible.
        return (votes[neighbors].sum(axis=1) + 1 / n_labels) / (neighbors.shape[1] + 1)

    return predict
