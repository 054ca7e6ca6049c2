"""How probable it is that an OCR regulates a gene, from the accessibility of a group of cells and what is known of the genome.

A logistic model of few features, fitted to pairs that were tested by CRISPRi in K562 cells; ``scripts/fit_links.py`` fits it and writes
``links.json``, with intervals of the coefficients and the scores by chromosome folds. Distance and the ABC share have probabilities of
their own from the same pairs, so that all methods can be compared.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from .link_features import FEATURES, contact, log_rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = Path(__file__).with_name("links.json")
# Shares below this are as good as none; it keeps logarithms finite.
_MIN_SHARE = 1e-5


class LinkModel(NamedTuple):
    """A logistic model: ``logit(p) = intercept + sum over f of coefficients[f] * (x[f] - mean[f]) / scale[f]``.

    Attributes
    ----------
    mean, scale
        Mean and standard deviation of each feature over the pairs of the fit, both (n_features,).
    coefficients
        Change of the log-odds per standard deviation, (n_features,).
    intercept
        Log-odds of the mean pair.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: float

    def log_odds(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """Log-odds of pairs with features x, (n_pairs, n_features) -> (n_pairs,)."""
        weight = self.coefficients / self.scale
        return (x @ weight + (self.intercept - self.mean @ weight)).astype(np.float32)


class ExpressionModel(NamedTuple):
    """How probable it is that a gene is expressed enough to be tested, relative to one with the strongest promoter.

    With x the `log_rank` of the signal of the promoter, and x1 that of the strongest: ``expit(rate * (x - middle)) / expit(rate * (x1 -
    middle))``. Fitted to which genes were tested by CRISPRi in K562 cells, where they had to be expressed.
    """

    rate: float
    middle: float

    def relative(self, signal: NDArray[np.floating]) -> NDArray[np.float64]:
        """The value for signals of promoters from 0 to 1, (n,); 1 for NaN, a promoter that was not measured."""
        x, strongest = log_rank(np.nan_to_num(signal, nan=1.0)), log_rank(np.ones(1))
        return expit(self.rate * (x - self.middle)) / expit(self.rate * (strongest - self.middle))


class Scored(NamedTuple):
    """Score of each pair, larger for a stronger link, probability, and p and q where there is a null, each (n_pairs,)."""

    score: NDArray[np.floating]
    probability: NDArray[np.floating]
    p: NDArray[np.floating] | None = None
    q: NDArray[np.floating] | None = None


@cache
def load_link_models() -> dict[str, LinkModel]:
    """The models of the package: ``"knowledge"``, ``"abc"`` and ``"distance"``.

    Raises
    ------
    ValueError
        If the file was fitted to other features.
    """
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    found = {}
    for method, names in (("knowledge", FEATURES), ("abc", ("log_abc",)), ("distance", ("log_contact",))):
        rows = content["models"][method]
        if tuple(row["feature"] for row in rows["features"]) != names:
            wanted = ", ".join(names)
            msg = f"{_FILE.name} does not fit this version: its features for {method!r} are not {wanted}. Run scripts/fit_links.py."
            raise ValueError(msg)
        mean, scale, coefficients = (
            np.array([row[name] for row in rows["features"]]) for name in ("mean", "scale", "coefficient")
        )
        found[method] = LinkModel(mean, scale, coefficients, rows["intercept"])
    return found


@cache
def load_expression_model() -> ExpressionModel:
    """The model of the package."""
    return ExpressionModel(**json.loads(_FILE.read_text(encoding="utf-8"))["expressed"])


def by_knowledge(features: NDArray[np.float32]) -> Scored:
    """Score pairs by the model of all features; the score is the log-odds."""
    score = load_link_models()["knowledge"].log_odds(features)
    return Scored(score, expit(score))


def by_abc(abc: NDArray[np.float32]) -> Scored:
    """Score pairs by the ABC share, which is the score."""
    return Scored(abc, expit(load_link_models()["abc"].log_odds(log_abc(abc)[:, None])))


def by_distance(distance: NDArray[np.int64]) -> Scored:
    """Score pairs by their distance; the score is minus its logarithm to base 10."""
    score = -np.log10(np.maximum(distance, 1)).astype(np.float32)
    return Scored(score, expit(load_link_models()["distance"].log_odds(log_contact(distance)[:, None])))


def log_abc(abc: NDArray[np.float32]) -> NDArray[np.float32]:
    """Feature of the ABC share, (n_pairs,)."""
    return np.log(abc + np.float32(_MIN_SHARE))


def log_contact(distance: NDArray[np.int64]) -> NDArray[np.float64]:
    """Feature of the distance, (n_pairs,): its logarithm, flat below 5 kb, where few pairs were tested."""
    return np.log(contact(distance))
