"""`rna_prediction`: predicted expression beside what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._anndata import NotFoundError, get_atac, role_of
from .._docs import shared_docs
from .._keys import RNA_PREDICTED
from ._figure import (
    BLUE,
    FAINT,
    INK,
    NO_GROUP,
    SMALL,
    VERMILION,
    bare,
    check_output,
    figure_of,
    finish,
    group_colors,
    read_names,
    shown,
    size_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_MAX_DOTS = 20_000  # above it, dots hide each other
_BINS = 25


@shared_docs
def rna_prediction(
    adata: AnnData | MuData,
    gene: str | None = None,
    *,
    color: str | None = None,
    key: str = RNA_PREDICTED,
    rna_layer: str | None = None,
    modality: str | None = None,
    rna_modality: str = "rna",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> dict[str, Axes] | None:
    """Draw predicted against measured expression, and how well each gene is predicted.

    Left: one dot per cell for one gene, or, for all genes, how many pairs of a cell and a gene there are (in a colour that grows with the
    logarithm of their number). These are all cells that were measured, most of which the predictor was trained on if it learned from them.
    Right: the correlation of each gene on cells that were held out in training, as `scfound_atac.tl.predict_rna` wrote it. Genes that were
    constant there have none.

    Parameters
    ----------
    adata
        What `scfound_atac.tl.predict_rna` wrote into: a MuData, or an AnnData, which has no measured expression, so that only the
        correlations are drawn. It is not changed.
    gene
        Gene to draw, which is also marked among the correlations; all genes by default.
    color
        Column of ``obs`` with groups by which the cells of one gene are coloured.
    key
        Name of the prediction, the `key_added` of `scfound_atac.tl.predict_rna`.
    rna_layer
        Layer with the measured expression; ``X`` if None. Counts are scaled as in training.
    modality
        {modality}
    rna_modality
        Name of the modality with the measured expression.
    title
        Title of the left picture; by default the gene, or the number of genes.
    figsize
        {figsize}
    show
        {show}
    save
        {save}

    Returns
    -------
    If the figure is not shown, its axes: ``"cells"`` (with a MuData) and ``"genes"``.

    Raises
    ------
    KeyError
        If there is no prediction, no such gene, column, layer or modality.
    ValueError
        If `gene` or `color` is given for an AnnData, or `color` without `gene`.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.predict_rna(mdata, max_epochs=5)
    >>> sfa.pl.rna_prediction(mdata, "CD79A", color="cell_type")
    """
    check_output(show, save)
    atac = get_atac(adata, modality)
    is_mudata = atac is not adata
    if color is not None and gene is None:
        msg = "color= colours the cells of one gene. Pass gene= too, or leave it out."
        raise ValueError(msg)
    scores, binned = _scores(adata, atac, key, role_of(adata, modality))
    if gene is not None and gene not in scores.index:
        msg = f"Expression of {gene!r} was not predicted in {key!r}; it has {shown(list(scores.index))}."
        raise NotFoundError(msg)
    if not is_mudata and gene is not None:
        msg = (
            "An AnnData has no measured expression to draw the prediction against. Pass the MuData with both modalities, or leave out "
            "gene= for the correlations of all genes."
        )
        raise ValueError(msg)
    correlation = scores["pearson"].to_numpy(np.float64)
    groups = None if color is None else read_names(adata, atac, color, role_of(adata, modality), "color")
    measured = predicted = None
    if is_mudata:
        measured, predicted, cells = _pairs(adata, atac, key, gene, rna_layer, rna_modality, binned=binned)
        groups = None if groups is None else groups.iloc[cells]

    from matplotlib import pyplot as plt

    n = 2 if is_mudata else 1
    default = (4.4 * n + (1.6 if groups is not None else 0.0), 3.8)
    figure = plt.figure(figsize=size_of(figsize, default), layout="constrained")
    panels = figure.subplots(1, n, squeeze=False)[0]
    axes: dict[str, Axes] = dict(zip(("cells", "genes") if is_mudata else ("genes",), panels, strict=True))
    if measured is not None and predicted is not None:
        ax = axes["cells"]
        if groups is not None:
            colors = group_colors(adata, atac, color, list(groups.cat.categories))
            _dots_by_group(ax, measured[:, 0], predicted[:, 0], groups, colors)
        else:
            _density(ax, measured.ravel(), predicted.ravel())
        name = gene or f"{measured.shape[1]:,} genes"
        ax.set_title(name if title is None else title, fontsize=SMALL + 3, fontweight="bold", loc="left")
        ax.set_xlabel("Measured expression", fontsize=SMALL + 1)
        ax.set_ylabel("Predicted expression", fontsize=SMALL + 1)
        r = _pearson(measured.ravel(), predicted.ravel())
        said = "not defined: constant" if np.isnan(r) else f"{r:.2f}"
        ax.set_title(f"r = {said}, {len(measured):,} cells", fontsize=SMALL, color=FAINT, loc="right")
        bare(ax, "left", "bottom")
    _correlations(axes["genes"], correlation, None if gene is None else (gene, float(scores.at[gene, "pearson"])))
    return finish(axes, figure, "rna_prediction", show=show, save=save)


def _scores(data: Any, atac: AnnData, key: str, role: str) -> tuple[pd.DataFrame, bool]:
    """The scores of each gene, and whether levels of expression were predicted."""
    if atac is not data:
        predicted = data.mod.get(key)
        table = (
            None if predicted is None or "pearson" not in predicted.var else predicted.var.set_axis(_genes(predicted))
        )
        record = {} if predicted is None else predicted.uns.get(RNA_PREDICTED, {})
        where = f"The MuData has no predicted expression {key!r}"
    else:
        record = atac.uns.get(key, {})
        table = record.get("genes") if hasattr(record, "get") else None
        where = f"{role}.uns has no predicted expression {key!r}"
    if not isinstance(table, pd.DataFrame):
        msg = f"{where}. Run sfa.tl.predict_rna first, or pass key= the name that was its key_added."
        raise NotFoundError(msg)
    return table, record.get("report", {}).get("scale", "") == "levels"


def _pairs(
    mdata: MuData, atac: AnnData, key: str, gene: str | None, rna_layer: str | None, rna_modality: str, *, binned: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Measured and predicted expression of the cells with both, (n_cells, n_genes) each, and the rows of the cells."""
    from ..train.expression import read_expression

    predicted = mdata.mod[key]
    rna = get_atac(mdata, rna_modality, modality_argument="rna_modality", holds="expression")
    names = _genes(predicted)
    genes = [gene] if gene is not None else [name for name in names if name in set(rna.var_names)]
    found = read_expression(
        mdata, atac, modality=rna_modality, layer=rna_layer, genes=genes, binned=binned, role="adata"
    )
    cells = predicted.obs_names.get_indexer(found.names)
    values = np.asarray(predicted[:, names.get_indexer(genes)].X, dtype=np.float64)[cells]
    return found.values.astype(np.float64), values, atac.obs_names.get_indexer(found.names)


def _genes(predicted: AnnData) -> pd.Index:
    """The genes of a modality, whose names may have a suffix."""
    return pd.Index(predicted.var["gene"]) if "gene" in predicted.var else predicted.var_names


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def _density(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Dots for few pairs, and numbers of pairs for many, with the line on which both are equal."""
    _same_line(ax, x, y)
    if len(x) <= _MAX_DOTS:
        ax.scatter(x, y, s=float(np.clip(2e4 / len(x), 4, 25)), color=BLUE, alpha=0.4, linewidths=0, rasterized=True)
        return
    drawn = ax.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="viridis", linewidths=0.1, rasterized=True)
    bar = figure_of(ax).colorbar(drawn, ax=ax, aspect=25)
    bar.set_label("Pairs of cell and gene", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def _dots_by_group(
    ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], groups: pd.Series, colors: dict[str, Any]
) -> None:
    _same_line(ax, x, y)
    order = np.random.default_rng(0).permutation(len(x))  # so that no group covers the others
    of_cell = [colors.get(name, NO_GROUP) for name in groups.astype(object)]
    ax.scatter(
        x[order],
        y[order],
        s=float(np.clip(2e4 / len(x), 4, 25)),
        c=[of_cell[i] for i in order],
        linewidths=0,
        rasterized=True,
    )
    _legend(ax, [name for name in groups.cat.categories if (groups == name).any()], colors)


def _legend(ax: Axes, names: Sequence[str], colors: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", markersize=5, color=colors[name], label=name) for name in names]
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        fontsize=SMALL,
        handletextpad=0.2,
        borderaxespad=0,
    )


def _same_line(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    ax.plot(ends, ends, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _correlations(ax: Axes, correlation: NDArray[np.float64], marked: tuple[str, float] | None) -> None:
    """Histogram over genes, with the median and, if there is one, the gene that is drawn beside it."""
    known = correlation[np.isfinite(correlation)]
    ax.set_xlabel("Correlation of a gene on held-out cells", fontsize=SMALL + 1)
    ax.set_ylabel("Genes", fontsize=SMALL + 1)
    bare(ax, "left", "bottom")
    if not len(known):
        ax.text(
            0.5, 0.5, "no gene has one", transform=ax.transAxes, ha="center", va="center", color=FAINT, fontsize=SMALL
        )
        ax.set(xlim=(0, 1), ylim=(0, 1), yticks=[])
        return
    lowest = min(0.0, float(np.floor(known.min() * 10) / 10))
    counts, edges = np.histogram(known, bins=np.linspace(lowest, 1, _BINS + 1))
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=BLUE, alpha=0.6, linewidth=0)
    ax.set_xlim(lowest, 1)
    ax.set_ylim(0, counts.max() * 1.3)
    ax.locator_params(axis="y", integer=True)
    median = float(np.median(known))
    ax.axvline(median, ymax=0.8, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    side = "left" if median < (lowest + 1) / 2 else "right"
    pad = 4 if side == "left" else -4
    lines = [(median, f"median {median:.2f}", INK, 0.8)]
    if marked is not None and np.isfinite(marked[1]):
        ax.axvline(marked[1], ymax=0.92, color=VERMILION, linewidth=1.2)
        lines.append((marked[1], f"{marked[0]} {marked[1]:.2f}", VERMILION, 0.92))
    for x, text, color, y in lines:
        ax.annotate(
            text,
            (x, y),
            xycoords=("data", "axes fraction"),
            xytext=(pad, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=SMALL,
            color=color,
        )
    n_none = len(correlation) - len(known)
    title = f"{len(known):,} genes" + (f", {n_none:,} without" if n_none else "")
    ax.set_title(title, fontsize=SMALL, color=FAINT, loc="right")
