"""`links`: arcs from OCRs to the gene that they are linked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._anndata import NotFoundError, get_atac, role_of
from .._docs import shared_docs
from .._keys import LINKS
from ._figure import (
    BLUE,
    FAINT,
    INK,
    SMALL,
    bare,
    check_at_least,
    check_output,
    choose,
    finish,
    group_colors,
    in_order,
    read_params,
    read_table,
    shown,
    size_of,
    text_width,
)
from ._gene_track import ROW_HEIGHT, draw_genes, genome_axis, load_genes, pack_genes, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

    from ..datasets.gene_table import Genes

_COLUMNS = ("gene", "gene_id", "ocr", "chrom", "start", "end", "group", "accessibility", "score", "probability")
_WIDTH = 8.0  # inches, by default
_MARGIN = 0.06  # of the stretch between the outermost links, on either side of it
_MIN_REACH = 5_000
_MIN_BAR = 0.003  # of the width: OCRs are narrower than a pixel if the stretch is long


@shared_docs
def links(
    adata: AnnData | MuData,
    gene: str,
    *,
    groups: str | Sequence[str] | None = None,
    value: str | None = None,
    min_value: float = 0.0,
    window: int | None = None,
    genes: Genes = None,
    key: str = LINKS,
    modality: str | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> dict[str, Axes] | None:
    """Draw which OCRs are linked to a gene: arcs to its TSS, the accessibility of each group of cells, and the genes around.

    Each group has two panels. The height, the strength and the width of an arc say how strong the link is; below it, a bar for each OCR
    says how accessible it is, also for OCRs that are linked to other genes. Panels of all groups have the same scales. An OCR that holds
    the TSS has a bar, but no arc. Links with a negative value hang below the line; if no value is above zero, as with the method
    ``"distance"``, arcs begin at the lowest one instead.

    Parameters
    ----------
    adata
        Cells with the table of `scfound_atac.tl.link_enhancers` in ``uns["sfa_links"]``; or a MuData, of which the modality `modality` is
        used. It is not changed.
    gene
        Symbol or Ensembl id of the gene.
    groups
        Groups of cells to draw, in this order; all groups by default.
    value
        Column of the table with the strength of a link. By default ``"probability"``, or ``"score"`` if the method gives no probabilities.
    min_value
        Links whose value is closer to zero than this have no arc.
    window
        Number of bases to show on either side of the TSS. By default all links to the gene are shown.
    genes
        Table of genes, as for `scfound_atac.genome.read_genes`; that of the package if None.
    key
        Name of the table in ``uns``.
    modality
        {modality}
    title
        Title of the figure; the gene by default.
    figsize
        {figsize}
    show
        {show}
    save
        {save}

    Returns
    -------
    If the figure is not shown, its axes: ``"links <group>"`` and ``"accessibility <group>"`` for each group, and ``"genes"``.

    Raises
    ------
    KeyError
        If there is no table of links, or it does not have the gene, the group or the column.
    ValueError
        If the table has no rows, or no link of the gene has a value.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> sfa.tl.link_enhancers(mdata)
    >>> sfa.pl.links(mdata, "CD79A", min_value=0.2)
    """
    check_output(show, save)
    if window is not None:
        check_at_least("window", window, 1)
    atac, role = get_atac(adata, modality), f"{role_of(adata, modality)}.uns[{key!r}]"
    table = read_table(adata, modality, key, _COLUMNS, "sfa.tl.link_enhancers(adata)")
    own = _of_gene(table, gene, role)
    groups = choose(groups, in_order(own["group"]), "group", "groups", role)
    own = own[own["group"].isin(groups)]
    name = _value_column(own, value, role)
    known = load_genes(genes)
    symbol = str(own["gene"].iloc[0])
    chrom, tss, _ = place_of(known, symbol, str(own["gene_id"].iloc[0]))

    middle = (own["start"].to_numpy(np.float64) + own["end"].to_numpy(np.float64)) / 2
    strength = own[name].to_numpy(np.float64)
    drawn = np.isfinite(strength) & (np.abs(strength) >= min_value) & (strength != 0)
    height = strength - _floor(strength)
    start, end = _stretch(middle[drawn] if drawn.any() else middle, tss, window)
    drawn &= (middle >= start) & (middle <= end)
    drawn &= ~((own["start"].to_numpy() <= tss) & (tss < own["end"].to_numpy()))
    near = (table["chrom"].astype(str) == chrom) & (table["end"] > start) & (table["start"] < end)
    bars = table[near & table["group"].isin(groups)].drop_duplicates(["ocr", "group"])

    labels = [""] if groups == ["all"] else groups
    colors = (
        {"all": BLUE}
        if groups == ["all"]
        else group_colors(adata, atac, str(read_params(adata, modality, key).get("groupby", "")), groups)
    )
    layout = _Layout(groups, labels, figsize, known, chrom, start, end)
    from matplotlib.collections import LineCollection

    largest = float(np.abs(height[drawn]).max()) if drawn.any() else 1.0
    has_negative = bool((height[drawn] < 0).any())
    open_most = float(np.nanmax(bars["accessibility"].to_numpy(np.float64), initial=0.0)) or 1.0
    for label, group in zip(labels, groups, strict=True):
        arcs, track = layout.axes[f"links {group}"], layout.axes[f"accessibility {group}"]
        rows = np.flatnonzero(drawn & (own["group"] == group).to_numpy())
        rows = rows[np.argsort(np.abs(height[rows]), kind="stable")]  # the strongest on top
        part = np.abs(height[rows]) / largest
        arcs.add_collection(
            LineCollection(
                [_arc(middle[i], tss, height[i]) for i in rows],
                colors=[colors[group]] * len(rows),
                alpha=list(0.25 + 0.75 * part) if len(rows) else None,
                linewidths=0.6 + 1.4 * part,
            )
        )
        arcs.axhline(0, color=FAINT, linewidth=0.6)
        arcs.set(xlim=(start, end), ylim=(-1.08 * largest if has_negative else 0, 1.08 * largest), xticks=[])
        _one_tick(arcs, largest, signed=has_negative, floor=_floor(strength))
        _draw_bars(track, bars[bars["group"] == group], colors[group], start, end)
        track.set(xlim=(start, end), ylim=(0, 1.1 * open_most), xticks=[])
        _one_tick(track, open_most)
        for ax in (arcs, track):
            bare(ax, "left")
            ax.tick_params(labelsize=SMALL - 1)
        if not len(rows):
            arcs.text(
                0.5, 0.5, "no links", transform=arcs.transAxes, ha="center", va="center", color=FAINT, fontsize=SMALL
            )
        layout.label(arcs, track, label)
    for ax in layout.axes.values():
        ax.axvline(tss, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
    draw_genes(layout.axes["genes"], layout.placed, start, end, layout.width, symbol)
    genome_axis(layout.axes["genes"], chrom)
    layout.head(f"Links to {symbol}" if title is None else title, f"arcs: {name}, bars: accessibility")
    return finish(layout.axes, layout.figure, "links", show=show, save=save)


def _of_gene(table: pd.DataFrame, gene: Any, role: str) -> pd.DataFrame:
    if not isinstance(gene, str):
        msg = f"gene= takes the symbol or the Ensembl id of one gene, as text; got {type(gene).__name__}."
        raise TypeError(msg)
    for column in ("gene", "gene_id"):
        own = table[(table[column] == gene).to_numpy()]
        if len(own):
            return own
    there = in_order(table["gene"])
    msg = f"{role} has no link to {gene!r}. It has links to {shown(there)}."
    raise NotFoundError(msg)


def _value_column(own: pd.DataFrame, value: Any, role: str) -> str:
    """The column with the strength of links."""
    if value is None:
        name = "probability" if np.isfinite(own["probability"].to_numpy(np.float64)).any() else "score"
    elif isinstance(value, str) and value in own and pd.api.types.is_numeric_dtype(own[value]):
        name = value
    else:
        numbers = [str(column) for column in own if pd.api.types.is_numeric_dtype(own[column])]
        msg = f"value={value!r} is no column with numbers in {role}; those are {', '.join(map(repr, numbers))}."
        raise NotFoundError(msg)
    if not np.isfinite(own[name].to_numpy(np.float64)).any():
        msg = f"No link to {own['gene'].iloc[0]} has a {name} in {role}: all are missing. Pass value= another column."
        raise ValueError(msg)
    return name


def _stretch(middle: NDArray[np.float64], tss: int, window: int | None) -> tuple[float, float]:
    """First and last base to show: `window` on either side of the TSS, or all OCRs and something around them."""
    if window is not None:
        return max(0.0, float(tss - window)), float(tss + window)
    left, right = min(middle.min(), tss), max(middle.max(), tss)
    margin = max(_MARGIN * (right - left), _MIN_REACH)
    return max(0.0, float(left - margin)), float(right + margin)


def _floor(strength: NDArray[np.float64]) -> float:
    """Where arcs begin: at 0, or below the lowest value of a scale that has no values above 0, such as that of distance."""
    finite = strength[np.isfinite(strength)]
    return float(finite.min() - 0.1 * (np.ptp(finite) or 1.0)) if finite.max() < 0 else 0.0


def _one_tick(ax: Axes, largest: float, *, signed: bool = False, floor: float = 0.0) -> None:
    """One round number below `largest`: enough to read a scale by, and labels of panels do not meet."""
    if floor:
        ax.set_yticks([largest], [f"{largest + floor:.2g}".replace("-", "−")])
        return
    step = 10.0 ** np.floor(np.log10(largest))
    tick = float(step * np.floor(largest / step + 1e-9))
    ax.set_yticks([-tick, tick] if signed else [tick], [f"−{tick:g}", f"{tick:g}"] if signed else [f"{tick:g}"])


def _arc(ocr: float, tss: int, height: float) -> NDArray[np.float64]:
    """Half an ellipse from the OCR to the TSS, (61, 2)."""
    angle = np.linspace(0, np.pi, 61)
    return np.column_stack([(ocr + tss) / 2 + (ocr - tss) / 2 * np.cos(angle), height * np.sin(angle)])


def _draw_bars(ax: Axes, bars: pd.DataFrame, color: Any, start: float, end: float) -> None:
    left, right = bars["start"].to_numpy(np.float64), bars["end"].to_numpy(np.float64)
    width = np.maximum(right - left, _MIN_BAR * (end - start))
    ax.bar((left + right) / 2, bars["accessibility"].to_numpy(np.float64), width, color=color, linewidth=0)
    ax.axhline(0, color=FAINT, linewidth=0.6)


class _Layout:
    """The axes of the figure. Sizes are given in inches, so that labels fit whatever their length and number."""

    def __init__(
        self,
        groups: Sequence[str],
        labels: Sequence[str],
        figsize: tuple[float, float] | None,
        genes: pd.DataFrame,
        chrom: str,
        start: float,
        end: float,
    ) -> None:
        from matplotlib import pyplot as plt

        alone = len(groups) == 1
        arc, track, gap = (1.3, 0.45, 0.12) if alone else (0.55, 0.28, 0.13)
        top, bottom, right, ticks = 0.55, 0.5, 0.2, 0.5
        left = max(text_width(label, SMALL + 1) for label in labels) + ticks + 0.15
        total = size_of(figsize, (_WIDTH, 0.0))
        self.width = max(total[0] - left - right, 0.5)
        self.left = ticks
        self.placed = pack_genes(genes, chrom, start, end, self.width)
        below = ROW_HEIGHT * (max((gene.row for gene in self.placed), default=0) + 1.1)
        height = top + len(groups) * (arc + track + gap) + below + bottom
        stretch = total[1] / height if figsize else 1.0
        self.figure = plt.figure(figsize=(total[0], height * stretch))
        self.axes: dict[str, Axes] = {}
        y = height - top
        parts = [
            (f"{what} {group}", size) for group in groups for what, size in (("links", arc), ("accessibility", track))
        ]
        for name, size in [*parts, ("genes", below)]:
            y -= size
            self.axes[name] = self.figure.add_axes((left / total[0], y / height, self.width / total[0], size / height))
            y -= gap if name.startswith("accessibility") else 0.03
        self.at = left / total[0]

    def label(self, arcs: Axes, track: Axes, text: str) -> None:
        """The name of a group, left of its two panels."""
        above, below = arcs.get_position(), track.get_position()
        x = self.at - self.left / self.figure.get_figwidth()
        middle = (above.y1 + below.y0) / 2
        self.figure.text(x, middle, text, ha="right", va="center", fontsize=SMALL + 1, color=INK)

    def head(self, title: str, legend: str) -> None:
        """Title, and what arcs and bars mean, above the first panel."""
        first = next(iter(self.axes.values())).get_position()
        line = 1 / self.figure.get_figheight()
        self.figure.text(self.at, first.y1 + 0.26 * line, title, fontsize=SMALL + 3, fontweight="bold", va="bottom")
        self.figure.text(self.at, first.y1 + 0.08 * line, legend, fontsize=SMALL, color=FAINT, va="bottom")
