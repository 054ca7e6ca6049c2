"""`benchmark`: a table of `bench.compare` as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._anndata import NotFoundError
from .._docs import shared_docs
from ..scores import EMBEDDING_SCORES, score_title
from ._figure import (
    BLUE,
    INK,
    SMALL,
    VERMILION,
    bare,
    check_choice,
    check_output,
    choose,
    figure_of,
    finish,
    ink_on,
    size_of,
    text_width,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_CONDITION = ("data", "fraction", "smooth")
_MAIN = ("kmeans_nmi", "knn")


@shared_docs
def benchmark(
    table: pd.DataFrame,
    *,
    scores: str | Sequence[str] | None = None,
    kind: Literal["heatmap", "dots"] = "heatmap",
    color_map: str = "Blues",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> Axes | list[Axes] | None:
    """Draw the scores of several methods, for each data set, depth and smoothing, with their spread.

    Parameters
    ----------
    table
        Table from `scfound_atac.bench.compare`, or several of them joined by `pandas.concat`. If a method has several rows with the same
        data set, depth and smoothing, their mean and standard deviation are drawn; otherwise the spread is in the columns ``<score>_sd``.
    scores
        Columns to draw. By default those of `scfound_atac.bench.report` that the table has; for dots k-means NMI and kNN accuracy.
    kind
        - ``"heatmap"``: methods x scores, with numbers, and the best method in bold.
        - ``"dots"``: a dot with its spread for each method, and the best method in another colour.
    color_map
        Name of a colour map of matplotlib for the heat map, from low to high.
    title
        Title of the figure; none by default.
    figsize
        {figsize}
    show
        {show}
    save
        {save}

    Returns
    -------
    If the figure is not shown, its axes: one for each data set, depth and smoothing, and for dots also for each score; the axes themselves
    if there are no others.

    Raises
    ------
    KeyError
        If the table lacks a column, or was not written by `scfound_atac.bench.compare`.
    ValueError
        If it has no rows, or no finite scores.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> adata = sfa.datasets.pbmc_multiome_sample()["atac"]
    >>> table = sfa.bench.compare(adata, "cell_type", methods=["lsi", "spectral"], fractions=[1.0, 0.1])
    >>> sfa.pl.benchmark(table)
    """
    check_output(show, save)
    check_choice("kind", kind, ("heatmap", "dots"))
    if not isinstance(table, pd.DataFrame):
        msg = f"table= takes the table that sfa.bench.compare returns; got {type(table).__name__}."
        raise TypeError(msg)
    if missing := [name for name in ("method", "fraction", "smooth") if name not in table]:
        msg = f"The table has no column(s) {', '.join(missing)}; it should come from sfa.bench.compare."
        raise NotFoundError(msg)
    if not len(table):
        msg = "The table has no rows, so there is nothing to draw."
        raise ValueError(msg)
    there = [str(name) for name in table if pd.api.types.is_numeric_dtype(table[name])]
    default = [name for name in (EMBEDDING_SCORES if kind == "heatmap" else _MAIN) if name in there]
    wanted = choose(default if scores is None and default else scores, there, "score", "scores", "the table")
    if scores is None and not default:
        msg = f"The table has none of the scores {', '.join(EMBEDDING_SCORES)}. Name columns to draw as scores=."
        raise NotFoundError(msg)
    means, spread = _summary(table, wanted)
    if not np.isfinite(means.to_numpy(np.float64)).any():
        msg = f"The table has no finite values of {', '.join(wanted[:5])}, so there is nothing to draw."
        raise ValueError(msg)
    methods = list(dict.fromkeys(table["method"].astype(str)))
    conditions = list(dict.fromkeys(means.index.droplevel("method")))
    draw = _heatmaps if kind == "heatmap" else _dots
    axes = draw(means, spread, methods, conditions, wanted, color_map, title, figsize)
    return finish(axes[0] if len(axes) == 1 else axes, figure_of(axes[0]), "benchmark", show=show, save=save)


def _summary(table: pd.DataFrame, scores: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation of each score, by data set, depth, smoothing and method, in the order of the table."""
    keyed = table.assign(data=table["data"].astype(str) if "data" in table else "", method=table["method"].astype(str))
    by = keyed.groupby([*_CONDITION, "method"], sort=False)
    means = by[scores].mean()
    own = keyed.assign(**{score: keyed.get(f"{score}_sd", np.nan) for score in scores})
    single = np.repeat((by.size() == 1).to_numpy()[:, None], len(scores), axis=1)
    spread = by[scores].std(ddof=0).where(~single, own.groupby([*_CONDITION, "method"], sort=False)[scores].mean())
    return means, spread


def _name(condition: tuple[Any, ...], conditions: list[tuple[Any, ...]]) -> str:
    """What sets a condition apart from the others."""
    data, fraction, smooth = condition
    parts = [str(data)] if data else []
    if len({c[1] for c in conditions}) > 1 or fraction != 1:
        parts.append(f"{100 * fraction:g} % of the counts")
    if smooth or len({c[2] for c in conditions}) > 1:
        parts.append("smoothed" if smooth else "not smoothed")
    return ", ".join(parts)


def _values(frame: pd.DataFrame, condition: tuple[Any, ...], methods: list[str]) -> NDArray[np.float64]:
    return frame.xs(condition, level=_CONDITION).reindex(methods).to_numpy(np.float64)


def _heatmaps(
    means: pd.DataFrame,
    spread: pd.DataFrame,
    methods: list[str],
    conditions: list[tuple[Any, ...]],
    scores: list[str],
    color_map: str,
    title: str | None,
    figsize: tuple[float, float] | None,
) -> list[Axes]:
    from matplotlib import pyplot as plt

    left = max(text_width(name, SMALL + 1) for name in methods)
    size = (left + 1.2 + 0.62 * len(scores), 1.3 + len(conditions) * (0.32 + 0.38 * len(methods)))
    figure = plt.figure(figsize=size_of(figsize, size), layout="constrained")
    axes = list(figure.subplots(len(conditions), 1, squeeze=False, sharex=True)[:, 0])
    colors = plt.get_cmap(color_map).with_extremes(bad="#EEEEEE")
    finite = means.to_numpy(np.float64)[np.isfinite(means.to_numpy(np.float64))]
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    for ax, condition in zip(axes, conditions, strict=True):
        values, deviation = _values(means, condition, methods), _values(spread, condition, methods)
        image = ax.imshow(np.ma.masked_invalid(values), cmap=colors, vmin=low, vmax=high, aspect="auto")
        best = np.nanmax(np.where(np.isfinite(values), values, -np.inf), axis=0)
        for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
            ink = ink_on(colors((values[i, j] - low) / (high - low)))
            has_spread = bool(np.isfinite(deviation[i, j]))
            weight = "bold" if values[i, j] == best[j] and len(methods) > 1 else "normal"
            y = i - 0.14 if has_spread else i
            ax.text(j, y, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=SMALL, color=ink, fontweight=weight)
            if has_spread:
                ax.text(
                    j, i + 0.25, f"±{deviation[i, j]:.3f}", ha="center", va="center", fontsize=SMALL - 2.5, color=ink
                )
        ax.set_yticks(np.arange(len(methods)), methods)
        ax.set_title(_name(condition, conditions), fontsize=SMALL + 1, loc="left")
        bare(ax)
        ax.tick_params(length=0)
    axes[-1].set_xticks(
        np.arange(len(scores)), map(score_title, scores), rotation=45, ha="right", rotation_mode="anchor"
    )
    bar = figure.colorbar(image, ax=axes, aspect=25, shrink=min(1.0, 5 / figure.get_figheight()))
    bar.set_label("Score", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=SMALL + 3, fontweight="bold")
    return axes


def _dots(
    means: pd.DataFrame,
    spread: pd.DataFrame,
    methods: list[str],
    conditions: list[tuple[Any, ...]],
    scores: list[str],
    color_map: str,
    title: str | None,
    figsize: tuple[float, float] | None,
) -> list[Axes]:
    from matplotlib import pyplot as plt

    left = max(text_width(name, SMALL + 1) for name in methods)
    size = (left + 0.4 + 2.3 * len(scores), 0.8 + len(conditions) * (0.45 + 0.24 * len(methods)))
    figure = plt.figure(figsize=size_of(figsize, size), layout="constrained")
    grid = figure.subplots(len(conditions), len(scores), squeeze=False, sharex="col", sharey=True)
    y = np.arange(len(methods))
    for row, condition in zip(grid, conditions, strict=True):
        values, deviation = _values(means, condition, methods), _values(spread, condition, methods)
        for j, (ax, score) in enumerate(zip(row, scores, strict=True)):
            at = values[:, j]
            best = np.isfinite(at) & (at == np.nanmax(np.where(np.isfinite(at), at, -np.inf))) & (len(methods) > 1)
            ax.hlines(y, 0, 1, color="#E5E5E5", linewidth=0.6, transform=ax.get_yaxis_transform(), zorder=0)
            color = [VERMILION if first else BLUE for first in best]
            around = np.nan_to_num(deviation[:, j])
            ax.scatter(at, y, s=24, c=color, zorder=3)
            ax.hlines(y, at - around, at + around, colors=INK, linewidth=1.2, zorder=4)
            ax.margins(x=0.08)
            bare(ax, "bottom")
            ax.tick_params(axis="y", length=0)
            ax.locator_params(axis="x", nbins=4)
            if condition == conditions[-1]:
                ax.set_xlabel(score_title(score), fontsize=SMALL + 1)
        row[0].set_yticks(y, methods)
        row[0].set_title(_name(condition, conditions), fontsize=SMALL + 1, loc="left")
    grid[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    if title:
        figure.suptitle(title, fontsize=SMALL + 3, fontweight="bold")
    return list(grid.ravel())
