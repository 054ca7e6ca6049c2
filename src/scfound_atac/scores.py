"""Scores of predicted labels and predicted expression, and the temperature that calibrates probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from ._labels import label_array, label_texts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = "NDArray[np.float64]"

# Bounds of log(T). They are far beyond what a network needs, and only keep T finite if all labels are predicted correctly.
_LOG_TEMPERATURES = (-5.0, 5.0)

_CLUSTERINGS = {"kmeans": "KMeans", "leiden_k": "Leiden (k)", "leiden_best": "best Leiden"}
EMBEDDING_SCORES: tuple[str, ...] = (
    *(f"{clustering}_{metric}" for clustering in ("kmeans", "leiden_best") for metric in ("ari", "nmi", "ami", "fmi")),
    "knn",
)
"""Scores of `scfound_atac.bench.compare` that reports and plots show."""


def score_title(score: str) -> str:
    """Name of a score of `scfound_atac.bench.compare` for people: ``"KMeans NMI"``."""
    if score == "knn":
        return "kNN accuracy"
    clustering, _, metric = score.rpartition("_")
    return f"{_CLUSTERINGS.get(clustering, clustering)} {metric.upper()}"


def annotation_scores(
    truth: ArrayLike | pd.Series,
    predicted: ArrayLike | pd.Series,
    probabilities: pd.DataFrame | None = None,
    *,
    unknown: str = "unknown",
) -> pd.Series:
    """Agreement of predicted labels with known ones.

    Cells whose true label is missing, empty or `unknown` are left out. A prediction counts as wrong if it is `unknown`, missing, or a label
    that no cell has. If the true label of a cell does not occur in the reference, every prediction for it counts as wrong.

    Parameters
    ----------
    truth
        Known label of each cell, shape (n_cells,).
    predicted
        Predicted label of each cell. If this and `truth` are Series with the same cells, they are matched by name.
    probabilities
        Cells x labels, with rows that add up to 1, in the order of `truth` or matched by name like `predicted`.
    unknown
        Name that stands for no label.

    Returns
    -------
    ``accuracy``
        Fraction of the cells with the correct label.
    ``balanced_accuracy``
        Mean over true labels of the fraction of their cells that is correct (recall).
    ``macro_f1``
        F1 of each label that occurs in `truth`, mean over labels.
    ``micro_f1``
        F1 of the decisions on all labels that occur in `truth` together. It exceeds the accuracy if some predictions are
        `unknown` or labels that do not occur, since these count as false negatives but not as false positives.
    ``auc``
        Area under the ROC curve of a label's probability, one label against the rest, mean over the labels of `probabilities` that
        some cells have and some do not. NaN without `probabilities`.
    ``ece``
        Expected calibration error of the highest probability, see `expected_calibration_error`. NaN without `probabilities`.
    ``unknown``
        Fraction of the cells whose prediction is `unknown` or missing.
    ``n_cells``, ``n_labels``
        Number of cells that were scored, and of true labels among them.

    Raises
    ------
    ValueError
        If the arguments have different cells, no cell has a label, or `probabilities` are not probabilities.
    """
    from sklearn.metrics import f1_score, recall_score, roc_auc_score

    label_array(truth, "truth"), label_array(predicted, "predicted")
    if not isinstance(unknown, str):
        msg = f"unknown= takes a text; got {type(unknown).__name__}."
        raise TypeError(msg)
    if probabilities is not None and not isinstance(probabilities, pd.DataFrame):
        msg = f"probabilities= takes a DataFrame, cells x labels; got {type(probabilities).__name__}."
        raise TypeError(msg)
    true = _labels(truth, unknown)
    guess = _labels(_in_order(predicted, truth, "predicted"), unknown)
    kept = (true != unknown).to_numpy()
    if not kept.any():
        msg = f"None of the {len(true)} cells has a true label: nothing can be scored."
        raise ValueError(msg)
    y, p = true[kept].to_numpy(dtype=str), guess[kept].to_numpy(dtype=str)
    labels = np.unique(y)
    of_truth: dict[str, Any] = {"labels": labels, "zero_division": 0}
    auc = ece = np.nan
    if probabilities is not None:
        table = _probabilities(_in_order(probabilities, truth, "probabilities"))[kept]
        curves = [roc_auc_score(y == name, table[name]) for name in table if 0 < (y == name).sum() < len(y)]
        auc = float(np.mean(curves)) if curves else np.nan
        top = table.columns.to_numpy(dtype=str)[table.to_numpy().argmax(axis=1)]
        ece = expected_calibration_error(table.max(axis=1), top == y)
    return pd.Series(
        {
            "accuracy": float((y == p).mean()),
            "balanced_accuracy": float(recall_score(y, p, average="macro", **of_truth)),
            "macro_f1": float(f1_score(y, p, average="macro", **of_truth)),
            "micro_f1": float(f1_score(y, p, average="micro", **of_truth)),
            "auc": auc,
            "ece": ece,
            "unknown": float((p == unknown).mean()),
            "n_cells": float(len(y)),
            "n_labels": float(len(labels)),
        }
    )


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, n_bins: int = 15) -> float:
    """Mean difference between the confidence of predictions and how often they are correct (Guo et al. 2017, section 2).

    Predictions are divided into bins of equal width by their confidence. The result is the mean over bins, weighted by the number n_b of
    their predictions::

        ECE = sum over b of n_b / n * |accuracy of bin b - mean confidence of bin b|

    0 is the best value, 1 the worst.

    Parameters
    ----------
    confidence
        Probability of the predicted label, in [0, 1], shape (n,).
    correct
        Whether the prediction is correct, shape (n,).
    n_bins
        Number of bins, ``(0, 1/n_bins], (1/n_bins, 2/n_bins], ...``; a confidence of 0 is in the first.

    Raises
    ------
    ValueError
        If the shapes differ, there are no predictions or no bins, or a confidence is not in [0, 1].
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        msg = f"confidence has shape {sure.shape}, correct {right.shape}: one of each per prediction is needed, for at least one."
        raise ValueError(msg)
    if n_bins < 1:
        msg = f"n_bins={n_bins} must be at least 1."
        raise ValueError(msg)
    outside = sure[~((sure >= 0) & (sure <= 1 + 1e-6))]
    if len(outside):
        msg = f"{len(outside)} confidences are not in [0, 1]: {outside[:3].tolist()}."
        raise ValueError(msg)
    place = np.clip(np.ceil(sure * n_bins).astype(int) - 1, 0, n_bins - 1)  # bin of each prediction, (n,)
    # n_b * (accuracy - mean confidence) is the sum of (correct - confidence) over the bin
    gap = np.bincount(place, right - np.minimum(sure, 1.0), minlength=n_bins)
    return float(np.abs(gap).sum() / len(sure))


def temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T for which ``softmax(logits / T)`` has the lowest negative log-likelihood (Guo et al. 2017, section 4.2).

    Parameters
    ----------
    logits
        Logits of cells that were not used in training, shape (n_cells, n_labels).
    labels
        Column of the true label of each cell, shape (n_cells,).

    Returns
    -------
    T, between ``exp(-5)`` and ``exp(5)``. If T is above 1, the network was overconfident. T does not change which label is the most likely
    one.

    Raises
    ------
    ValueError
        If the shapes do not match, there are no cells, logits are not finite, or labels are not column numbers.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    scores, columns = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or columns.shape != (len(scores),) or not scores.size:
        msg = f"logits have shape {scores.shape}, labels {columns.shape}: (n_cells, n_labels) and (n_cells,) are needed, n_cells > 0."
        raise ValueError(msg)
    if columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= scores.shape[1]:
        msg = f"labels must be whole numbers from 0 to {scores.shape[1] - 1}, the columns of logits."
        raise ValueError(msg)
    if not np.isfinite(scores).all():
        msg = f"{(~np.isfinite(scores)).sum()} of {scores.size} logits are not finite."
        raise ValueError(msg)
    true = scores[np.arange(len(scores)), columns]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(logsumexp(scores * inverse, axis=1) - true * inverse))

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def expression_scores(measured: Any, predicted: Any) -> pd.Series:
    """Agreement of predicted with measured expression.

    Scores per gene compare cells within a gene, and show whether a prediction captures differences between cells. Flat scores compare all
    entries of the two tables at once; they are high even if a prediction only captures which genes are expressed more than others.

    Parameters
    ----------
    measured
        Cells x genes: DataFrame, NumPy array or SciPy sparse matrix.
    predicted
        Predictions of the same shape. Two DataFrames are matched by the names of cells and genes.

    Returns
    -------
    ``gene_pearson``, ``gene_pearson_median``, ``gene_spearman``, ``gene_ccc``
        Mean and median over genes of the Pearson correlation across cells; mean of the Spearman correlation (equal values get the mean
        of their ranks), and of the concordance correlation of Lin (1989), ``2 cov / (var_m + var_p + (mean_m - mean_p)^2)``, which
        requires equal values and not just a linear relation. Genes that are constant in `measured` have no correlation and are left
        out; the scores are NaN if all genes are. A constant prediction counts as 0.
    ``flat_pearson``, ``flat_spearman``, ``flat_ccc``
        The same three over all n_cells * n_genes entries, including those of constant genes.
    ``mse``
        Mean squared error of all entries.
    ``n_genes``, ``n_genes_constant``, ``n_cells``
        Number of genes, of constant genes, and of cells.

    Raises
    ------
    ValueError
        If the tables do not have the same cells and genes, there are fewer than two cells, or values are not finite.
    """
    m, p, _ = _expression(measured, predicted)
    per_gene = _column_scores(m, p)
    varies = ~np.isnan(per_gene["pearson"])
    mean = {name: float(values[varies].mean()) if varies.any() else np.nan for name, values in per_gene.items()}
    flat = {name: float(values[0]) for name, values in _column_scores(m.reshape(-1, 1), p.reshape(-1, 1)).items()}
    return pd.Series(
        {
            "gene_pearson": mean["pearson"],
            "gene_pearson_median": float(np.median(per_gene["pearson"][varies])) if varies.any() else np.nan,
            "gene_spearman": mean["spearman"],
            "gene_ccc": mean["ccc"],
            "flat_pearson": flat["pearson"],
            "flat_spearman": flat["spearman"],
            "flat_ccc": flat["ccc"],
            "mse": flat["mse"],
            "n_genes": float(m.shape[1]),
            "n_genes_constant": float((~varies).sum()),
            "n_cells": float(m.shape[0]),
        }
    )


def gene_scores(measured: Any, predicted: Any) -> pd.DataFrame:
    """The scores of `expression_scores` for each gene.

    Parameters
    ----------
    measured, predicted
        The two tables, as for `expression_scores`.

    Returns
    -------
    One row per gene of `measured`, in its order: ``pearson``, ``spearman``, ``ccc`` across cells, NaN for a gene whose measured
    expression is constant and 0 for one whose prediction is constant; and ``mse``.

    Raises
    ------
    ValueError
        As for `expression_scores`.
    """
    m, p, genes = _expression(measured, predicted)
    return pd.DataFrame(_column_scores(m, p), index=genes)


def _column_scores(m: Floats, p: Floats) -> dict[str, Floats]:
    """Scores of each column of `m` (measured) and `p` (predicted), both (n_rows, n_columns); each score has shape (n_columns,)."""
    from scipy.stats import rankdata

    constant, flat = np.ptp(m, axis=0) == 0, np.ptp(p, axis=0) == 0
    var_m, var_p, cov = _moments(m, p)
    rank_var_m, rank_var_p, rank_cov = _moments(rankdata(m, axis=0), rankdata(p, axis=0))
    # Denominator of the concordance correlation.
    spread = var_m + var_p + (m.mean(axis=0) - p.mean(axis=0)) ** 2
    scores = {
        "pearson": _quotient(cov, np.sqrt(var_m * var_p), flat),
        "spearman": _quotient(rank_cov, np.sqrt(rank_var_m * rank_var_p), flat),
        "ccc": _quotient(2 * cov, spread, flat),
    }
    for values in scores.values():
        values[constant] = np.nan
    return scores | {"mse": np.square(m - p).mean(axis=0)}


def _moments(m: Floats, p: Floats) -> tuple[Floats, Floats, Floats]:
    """Variance of each column of `m` and of `p`, and their covariance."""
    x, y = m - m.mean(axis=0), p - p.mean(axis=0)
    return (
        np.einsum("ij,ij->j", x, x) / len(m),
        np.einsum("ij,ij->j", y, y) / len(m),
        np.einsum("ij,ij->j", x, y) / len(m),
    )


def _quotient(above: Any, below: Any, is_zero: Any) -> Any:
    """``above / below``, and 0 where `is_zero` or there is nothing to divide by."""
    valid = ~np.asarray(is_zero) & (np.asarray(below) > 0)
    return np.where(valid, above / np.where(valid, below, 1.0), 0.0)


def _expression(measured: Any, predicted: Any) -> tuple[Floats, Floats, pd.Index]:
    """Both tables in the order of `measured`, and the names of genes."""
    if isinstance(measured, pd.DataFrame) and isinstance(predicted, pd.DataFrame):
        cells = _places(measured.index, predicted.index, "cells", "predicted")
        genes = _places(measured.columns, predicted.columns, "genes", "predicted")
        predicted = predicted.to_numpy()[np.ix_(cells, genes)]
    m, p = _dense(measured), _dense(predicted)
    if m.ndim != 2 or m.shape != p.shape:
        msg = f"measured has shape {m.shape}, predicted {p.shape}: the same cells x genes are needed."
        raise ValueError(msg)
    if m.shape[0] < 2 or not m.shape[1]:
        msg = f"{m.shape[0]} cells x {m.shape[1]} genes cannot be scored: at least two cells and one gene are needed."
        raise ValueError(msg)
    names = measured.columns if isinstance(measured, pd.DataFrame) else pd.RangeIndex(m.shape[1])
    for name, values in (("measured", m), ("predicted", p)):
        bad = ~np.isfinite(values).all(axis=0)
        if bad.any():
            msg = f"{name} has values that are NaN or infinite in {bad.sum()} genes: {list(names[bad][:3])}. Leave these genes out of both."
            raise ValueError(msg)
    return m, p, names


def _dense(values: Any) -> Floats:
    from scipy.sparse import issparse

    return np.asarray(values.toarray() if issparse(values) else values, dtype=np.float64)


def _places(wanted: pd.Index, given: pd.Index, what: str, name: str) -> NDArray[np.intp]:
    """Position in `given` of each name of `wanted`; raises ValueError if they are not the same names."""
    for index, holder in ((wanted, "the measured"), (given, name)):
        if not index.is_unique:
            msg = f"{holder} {what} repeat names: {list(index[index.duplicated()][:3])}. Make them unique."
            raise ValueError(msg)
    places = given.get_indexer(wanted)
    if (places < 0).any() or len(given) != len(wanted):
        absent, extra = wanted.difference(given, sort=False), given.difference(wanted, sort=False)
        msg = (
            f"{name} does not have the same {what}: {len(absent)} are missing ({list(absent[:3])}), {len(extra)} are not expected "
            f"({list(extra[:3])}). Take the same {what}, or pass arrays in the same order."
        )
        raise ValueError(msg)
    return places


def _in_order(values: Any, truth: Any, name: str) -> Any:
    """`values` in the order of the cells of `truth`."""
    n_cells = len(truth)
    if len(values) != n_cells:
        msg = f"{name} has {len(values)} cells, truth {n_cells}: one row per cell is needed."
        raise ValueError(msg)
    if not (isinstance(truth, pd.Series) and isinstance(values, pd.Series | pd.DataFrame)):
        return values
    return (
        values if truth.index.equals(values.index) else values.iloc[_places(truth.index, values.index, "cells", name)]
    )


def _labels(values: Any, unknown: str) -> pd.Series:
    """Labels as text, with an index from 0 on, and `unknown` for missing ones."""
    text = label_texts(np.asarray(values, dtype=object))
    return text.where(text.notna(), unknown)


def _probabilities(table: pd.DataFrame) -> pd.DataFrame:
    table = table.set_axis(table.columns.astype(str), axis=1)
    values = table.to_numpy(dtype=np.float64)
    if not values.shape[1] or not table.columns.is_unique:
        msg = f"probabilities need one column per label, got {list(table.columns)}."
        raise ValueError(msg)
    bad = ~((values >= -1e-6) & (values <= 1 + 1e-6)).all(axis=1) | ~(np.abs(values.sum(axis=1) - 1) <= 1e-3)
    if bad.any():
        msg = f"{bad.sum()} rows of probabilities are not in [0, 1] with a sum of 1 ({list(table.index[bad][:3])}). Pass softmax(logits)."
        raise ValueError(msg)
    return table
