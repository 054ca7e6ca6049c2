"""Classifiers of cells by their label, with settings chosen and probabilities calibrated in cross-validation."""

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

# Of logistic regression (C).
LSI_PENALTIES = (0.01, 0.1, 1.0)
TFIDF_PENALTIES = (0.1, 1.0, 10.0)
LABEL_NEIGHBORS = (5, 15, 30)
FOLDS = 3
MIN_PROBABILITY = 1e-9  # of a label that no training cell of a fold has


def label_probabilities(
    method: str, space: LSISpace, y: Labels, seed: int, *, rows: Any = slice(None)
) -> NDArray[np.float64]:
    """Of each label for the test cells, settings chosen on the training cells; `rows` of these have the labels `y`."""
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
    """The option with the highest macro-F1 over the cells of all folds, the first of equals; and its temperature there.

    All folds together, since a rare label is in some folds only. A label that is only in the fold held out counts as missed there.
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
    """Cells to learn from and cells held out, where there are two labels to learn."""
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # where classes are separable weights grow on, labels stay
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
        # one vote more, shared by all labels: without a neighbour of its kind a label is unlikely, not impossible
        return (votes[neighbors].sum(axis=1) + 1 / n_labels) / (neighbors.shape[1] + 1)

    return predict
