"""Genes along a stretch of the genome: which, in which rows, and how they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._anndata import NotFoundError
from ..datasets.gene_table import given_or_bundled
from ..genome import read_genes, transcription_starts
from ._figure import FAINT, INK, SMALL, VERMILION, bare, text_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ..datasets.gene_table import Genes

ROW_HEIGHT = 0.23  # inches: a label of 8 points and room for the arrow of the TSS
_GAP = 0.1  # inches between two genes in a row, and between a gene and its label


class Place(NamedTuple):
    """Where a gene is transcribed."""

    chrom: str
    tss: int
    strand: str


class PlacedGene(NamedTuple):
    """A gene on the page: its body and label in bases, and its row."""

    name: str
    start: int
    end: int
    tss: int
    strand: str
    label_at: float
    align: str
    row: int


def load_genes(genes: Genes) -> pd.DataFrame:
    """The given table of genes, or that of the package, with a column ``tss``."""
    table = read_genes(given_or_bundled(genes))
    return table.assign(tss=transcription_starts(table))


def place_of(table: pd.DataFrame, gene: str, gene_id: str = "") -> Place:
    """Where a gene is transcribed, by its id or its name.

    Raises
    ------
    KeyError
        If the table does not have it.
    """
    found = table.index[:0]
    if gene_id and "id" in table:
        found = table.index[table["id"].astype(str).str.partition(".")[0] == gene_id.partition(".")[0]]
    if not len(found):
        found = table.index[table["name"] == gene]
    if not len(found):
        msg = f"The table of genes has no {gene!r}, so that its TSS is not known. Pass as genes= the table with which the links were made."
        raise NotFoundError(msg)
    row = table.loc[found[0]]
    return Place(str(row["chrom"]), int(row["tss"]), str(row["strand"]))


def pack_genes(table: pd.DataFrame, chrom: str, start: float, end: float, width: float) -> list[PlacedGene]:
    """The genes between `start` and `end`, each in the first row where it and its label touch no other.

    Parameters
    ----------
    table
        Genes, from `load_genes`.
    chrom, start, end
        The stretch that is shown.
    width
        Its width on the page in inches.
    """
    bases = (end - start) / width  # per inch
    inside = table[(table["chrom"] == chrom) & (table["end"] > start) & (table["start"] < end)].sort_values("start")
    reached: list[float] = []  # right end of each row
    placed = []
    for gene in inside.itertuples():
        label = (text_width(str(gene.name), SMALL, bold=True) + _GAP) * bases
        first, last = max(float(gene.start), start), min(float(gene.end), end)
        left, right, at, align = first - label, last, first - _GAP / 2 * bases, "right"
        if left < start:
            left, right, at, align = first, last + label, last + _GAP / 2 * bases, "left"
        if right > end:  # no room on either side: on the gene itself
            middle = np.clip((first + last) / 2, start + label / 2, end - label / 2)
            left, right, at, align = min(first, middle - label / 2), max(last, middle + label / 2), middle, "center"
        row = next((i for i, end_of_row in enumerate(reached) if left > end_of_row + _GAP * bases), len(reached))
        reached[row : row + 1] = [right]
        placed.append(
            PlacedGene(
                str(gene.name), int(gene.start), int(gene.end), int(gene.tss), str(gene.strand), float(at), align, row
            )
        )
    return placed


def draw_genes(ax: Axes, placed: list[PlacedGene], start: float, end: float, width: float, marked: str) -> None:
    """Bodies as lines with chevrons along the strand, a bent arrow at each TSS, and names; the gene `marked` stands out."""
    bases = (end - start) / width
    n_rows = max((gene.row for gene in placed), default=0) + 1
    for gene in placed:
        color, y, ahead = (VERMILION if gene.name == marked else INK), -gene.row, 1 if gene.strand == "+" else -1
        first, last = max(float(gene.start), start), min(float(gene.end), end)
        last = max(last, first + 0.02 * bases)
        ax.plot([first, last], [y, y], color=color, linewidth=3.5, solid_capstyle="butt", zorder=2)
        chevrons = np.arange(first + 0.15 * bases, last - 0.05 * bases, 0.3 * bases)
        ax.plot(chevrons, np.full(len(chevrons), y), ">" if ahead > 0 else "<", color="white", markersize=2.2, zorder=3)
        if start <= gene.tss <= end:
            tip = gene.tss + ahead * 0.11 * bases
            ax.plot([gene.tss, gene.tss, tip], [y, y + 0.42, y + 0.42], color=color, linewidth=0.9, zorder=2)
            ax.plot(tip, y + 0.42, ">" if ahead > 0 else "<", color=color, markersize=3, zorder=2)
        ax.text(
            gene.label_at,
            y,
            gene.name,
            ha=gene.align,
            va="center",
            color=color,
            fontsize=SMALL,
            fontweight="bold" if gene.name == marked else "normal",
            fontstyle="italic",
            clip_on=True,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8} if gene.align == "center" else None,
        )
    if not placed:
        ax.text(
            0.5, 0.5, "no genes here", transform=ax.transAxes, ha="center", va="center", color=FAINT, fontsize=SMALL
        )
    ax.set(xlim=(start, end), ylim=(-n_rows + 0.45, 0.65), yticks=[])
    bare(ax, "bottom")


def genome_axis(ax: Axes, chrom: str) -> None:
    """Positions in millions of bases, with as many digits as the steps between them need."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    locator = MaxNLocator(nbins=6, min_n_ticks=2)
    ax.xaxis.set_major_locator(locator)
    ticks = locator.tick_values(*ax.get_xlim())
    step = float(ticks[1] - ticks[0]) / 1e6
    digits = max(0, int(np.ceil(-np.log10(step) - 1e-9))) if step else 3
    digits += round(step * 10**digits, 6) != round(step * 10**digits)  # steps of 2.5
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1e6:.{digits}f}"))
    ax.set_xlabel(f"Position on {chrom} (Mb)", fontsize=SMALL + 1)
    ax.tick_params(axis="x", bottom=True, labelbottom=True)


def distance_text(bases: Any) -> str:
    """A signed distance for a label: ``"−12 kb"``."""
    sign = "+" if bases > 0 else "−" if bases < 0 else ""
    size = abs(float(bases))
    if size < 1e3:
        return f"{sign}{size:.0f} bp"
    number, unit = (size / 1e6, "Mb") if size >= 1e6 else (size / 1e3, "kb")
    return f"{sign}{number:.1f} {unit}" if number < 10 else f"{sign}{number:.0f} {unit}"
