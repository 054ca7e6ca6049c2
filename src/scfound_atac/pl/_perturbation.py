"""`perturbation`: what happens to genes when OCRs are silenced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd

from .._anndata import get_atac, role_of
from .._docs import shared_docs
from .._keys import PERTURBATION
from ..genome import get_ocrs, parse_names
from ._figure import (
    BLUE,
    FAINT,
    INK,
    NO_GROUP,
    SMALL,
    VERMILION,
    bare,
    check_at_least,
    check_choice,
    check_output,
    choose,
    figure_of,
    finish,
    in_order,
    ink_on,
    new_axes,
    read_table,
    size_of,
    text_width,
)
from ._gene_track import ROW_HEIGHT, Place, distance_text, draw_genes, genome_axis, load_genes, pack_genes, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from ..datasets.gene_table import Genes

_COLUMNS = ("ocr", "gene", "group", "change", "relative_change")
_LABELS = {"relative_change": "Change of predicted expression (%)", "change": "Change of predicted expression"}
_MAX_NUMBERS = 12  # columns up to which a heat map shows its numbers


@shared_docs
def perturbation(
    adata: AnnData | MuData,
    genes: str | Sequence[str] | None = None,
    *,
    groups: str | Sequence[str] | None = None,
    ocrs: str | Sequence[str] | None = None,
    kind: Literal["auto", "bars", "genome", "heatmap"] = "auto",
    value: Literal["relative_change", "change"] = "relative_change",
    n_top: int = 20,
    gene_table: Genes = None,
    key: str = PERTURBATION,
    modality: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> Axes | list[Axes] | None:
    """Draw how the predicted expression of genes changes when OCRs are silenced, weakened or strengthened.

    Blue is less expression, which is what silencing an enhancer gives; orange, in a heat map red, is more.

    Parameters
    ----------
    adata
        Cells with the table of `scfound_atac.tl.perturb_ocrs` in ``uns["sfa_perturbation"]``; or a MuData, of which the modality
        `modality` is used. It is not changed.
    genes
        Genes to draw; all genes of the table by default.
    groups
        Groups of cells to draw; all groups by default.
    ocrs
        OCRs or sets of OCRs to draw; by default those with the largest effect.
    kind
        - ``"bars"``: OCRs as bars, the largest effect on top, with their distance to the TSS; for one gene in one group.
        - ``"genome"``: effects along the genome, with the genes around; for one gene in one group.
        - ``"heatmap"``: OCRs x genes, one panel per group, or OCRs x groups for one gene; grey is what is not in the table.
        - ``"auto"``: bars for one gene in one group, otherwise a heat map.
    value
        ``"relative_change"`` in percent, or ``"change"`` on the scale of the prediction.
    n_top
        Maximum number of OCRs, of those with the largest effect on any of the genes, in bars and in a heat map. Along the genome all
        OCRs are drawn, and the `n_top` // 4 with the largest effect have a name.
    gene_table
        Table of genes, as for `scfound_atac.genome.read_genes`; that of the package if None.
    key
        Name of the table in ``uns``.
    modality
        {modality}
    title
        Title of the picture; gene and group by default.
    ax
        {ax}
        A heat map of several genes in several groups needs a figure of its own.
    figsize
        {figsize}
    show
        {show}
    save
        {save}

    Returns
    -------
    If the figure is not shown, its axes; a list of them for a heat map of several genes in several groups.

    Raises
    ------
    KeyError
        If there is no table, or it does not have a gene, a group or an OCR.
    ValueError
        If the table has no rows or no finite values for what was asked for, `kind` needs one gene in one group, or no OCR has a place on
        the genome.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> predictor = sfa.model.RNAPredictor().train(mdata, max_epochs=5)
    >>> sfa.tl.perturb_ocrs(mdata, predictor=predictor, ocrs=list(mdata["atac"].var_names[:20]), genes=["CCL4"])
    >>> sfa.pl.perturbation(mdata, "CCL4")
    """
    check_output(show, save)
    check_choice("kind", kind, ("auto", "bars", "genome", "heatmap"))
    check_choice("value", value, tuple(_LABELS))
    check_at_least("n_top", n_top, 1)
    atac, role = get_atac(adata, modality), f"{role_of(adata, modality)}.uns[{key!r}]"
    table = read_table(adata, modality, key, _COLUMNS, "sfa.tl.perturb_ocrs(adata, ...)")
    wanted = choose(genes, in_order(table["gene"]), "gene", "genes", role)
    table = table[table["gene"].isin(wanted)]
    in_groups = choose(groups, in_order(table["group"]), "group", "groups", role)
    table = table[table["group"].isin(in_groups)]
    names = choose(ocrs, in_order(table["ocr"]), "OCR", "ocrs", role)
    table = table[table["ocr"].isin(names)]
    size = table[value].to_numpy(np.float64) * (100 if value == "relative_change" else 1)
    table = pd.DataFrame(
        {name: table[name].astype(str).to_numpy() for name in ("ocr", "gene", "group")} | {"size": size}
    )
    table = table[np.isfinite(table["size"])].drop_duplicates(["ocr", "gene", "group"])
    if table.empty:
        msg = f"{role} has no finite {value} for {', '.join(wanted[:3])}: genes that are not expressed have none. Pass value='change'."
        raise ValueError(msg)
    single = len(wanted) == 1 and len(in_groups) == 1
    if kind == "auto":
        kind = "bars" if single else "heatmap"
    if kind != "heatmap" and not single:
        several = (
            f"genes= one of {', '.join(wanted[:5])}"
            if len(wanted) > 1
            else f"groups= one of {', '.join(in_groups[:5])}"
        )
        msg = f"kind={kind!r} draws one gene in one group. Pass {several}, or kind='heatmap'."
        raise ValueError(msg)
    places = _places(atac, list(dict.fromkeys(table["ocr"])))
    default = " in ".join([", ".join(wanted[:3]), *(in_groups if in_groups != ["all"] and len(in_groups) == 1 else [])])
    if kind == "heatmap":
        return _heatmap(table, wanted, in_groups, places, value, n_top, title, ax, figsize, show=show, save=save)
    known = load_genes(gene_table)
    drawn, given = new_axes(ax, size_of(figsize, _default_size(kind, len(table), n_top)))
    if kind == "bars":
        place = place_of(known, wanted[0]) if wanted[0] in set(known["name"]) else None
        _bars(drawn, table, places, place, n_top)
        drawn.set_xlabel(_LABELS[value], fontsize=SMALL + 1)
    else:
        _along_genome(drawn, table, places, known, wanted[0], n_top, role)
        drawn.set_ylabel(_LABELS[value].replace(" of predicted", " of\npredicted"), fontsize=SMALL + 1)
    drawn.set_title(default if title is None else title, fontsize=SMALL + 3, fontweight="bold", loc="left")
    return finish(drawn, figure_of(drawn), "perturbation", show=show, save=save, given=given)


def _default_size(kind: str, n: int, n_top: int) -> tuple[float, float]:
    return (6.0, 1.1 + 0.24 * min(n, n_top)) if kind == "bars" else (8.0, 3.6)


def _places(atac: AnnData, names: list[str]) -> pd.DataFrame:
    """Chromosome and middle of the OCRs that have a place; sets of OCRs have none."""
    found = []
    own = [name for name in names if name in atac.var_names]
    for part, read in ((own, lambda part: get_ocrs(atac.var.loc[part])), (names, parse_names)):
        try:
            places = read(part).set_axis(part, axis=0) if part else pd.DataFrame()
        except ValueError:  # no coordinates, or names of sets among those of OCRs
            continue
        if len(places):
            found.append(places[["chrom", "start", "end"]])
            break
    if not found:
        return pd.DataFrame({"chrom": [], "start": [], "end": [], "middle": []}, index=pd.Index([], dtype=object))
    places = found[0].dropna()
    places = places[~places.index.duplicated()]
    return places.assign(chrom=places["chrom"].astype(str), middle=(places["start"] + places["end"]) / 2)


def _color(size: Any) -> list[str]:
    return [BLUE if x < 0 else VERMILION if x > 0 else FAINT for x in size]


def _with_distance(ocr: str, places: pd.DataFrame, place: Place | None) -> str:
    if place is None or ocr not in places.index or places.at[ocr, "chrom"] != place.chrom:
        return ocr
    if places.at[ocr, "start"] <= place.tss < places.at[ocr, "end"]:
        return f"{ocr}  (TSS)"
    away = (places.at[ocr, "middle"] - place.tss) * (1 if place.strand == "+" else -1)
    return f"{ocr}  ({distance_text(away)})"


def _bars(ax: Axes, table: pd.DataFrame, places: pd.DataFrame, place: Place | None, n_top: int) -> None:
    order = np.argsort(-np.abs(table["size"].to_numpy()), kind="stable")[:n_top]
    top = table.iloc[order]
    ax.barh(np.arange(len(top)), top["size"], color=_color(top["size"]), height=0.7)
    ax.set_yticks(np.arange(len(top)), [_with_distance(name, places, place) for name in top["ocr"]])
    ax.set_ylim(len(top) - 0.4, -0.6)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.margins(x=0.05)
    bare(ax, "bottom")
    ax.tick_params(axis="y", length=0)
    if not top["size"].any():
        ax.set_xlim(-1, 1)


def _along_genome(
    ax: Axes, table: pd.DataFrame, places: pd.DataFrame, known: pd.DataFrame, gene: str, n_top: int, role: str
) -> None:
    place = place_of(known, gene)
    table = table[table["ocr"].isin(places.index[places["chrom"] == place.chrom])]
    if table.empty:
        msg = f"None of the OCRs in {role} has a place on {place.chrom}, where {gene} lies. Use kind='bars'."
        raise ValueError(msg)
    x, y = places.loc[table["ocr"], "middle"].to_numpy(np.float64), table["size"].to_numpy()
    left, right = min(x.min(), place.tss), max(x.max(), place.tss)
    margin = max(0.08 * (right - left), 5_000.0)
    start, end = max(0.0, left - margin), right + margin
    ax.vlines(x, 0, y, colors=_color(y), linewidth=1.2)
    ax.scatter(x, y, s=18, c=_color(y), zorder=3)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.axvline(place.tss, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
    ax.set(xlim=(start, end), xticks=[])
    ax.margins(y=0.18)
    if not y.any():
        ax.set_ylim(-1, 1)
    bare(ax, "left")
    _name_points(ax, x, y, [distance_text((m - place.tss) * (1 if place.strand == "+" else -1)) for m in x], n_top // 4)
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    figure = figure_of(ax)
    width = max(0.9 * ax.get_position().width * figure.get_figwidth(), 1.0)  # labels of the axis will take some of it
    placed = pack_genes(known, place.chrom, start, end, width)
    below = ROW_HEIGHT * (max((gene.row for gene in placed), default=0) + 1.1)
    # As wide as the axes, and as many inches below them as the rows of genes need.
    inches = figure.dpi_scale_trans + ScaledTranslation(0, 0, cast("Any", ax.transAxes))
    bounds = (0.0, -below - 0.08, 1.0, below)
    track = ax.inset_axes(bounds, transform=blended_transform_factory(ax.transAxes, inches))
    draw_genes(track, placed, start, end, width, gene)
    track.axvline(place.tss, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
    genome_axis(track, place.chrom)


def _name_points(ax: Axes, x: Any, y: Any, names: list[str], n: int) -> None:
    """Names at the largest effects, but none where it would touch another."""
    taken: list[tuple[float, bool]] = []
    room = 0.09 * (ax.get_xlim()[1] - ax.get_xlim()[0])
    for i in np.argsort(-np.abs(y), kind="stable")[:n]:
        is_down = bool(y[i] < 0)
        if y[i] == 0 or any(abs(x[i] - at) < room and down == is_down for at, down in taken):
            continue
        taken.append((float(x[i]), is_down))
        ax.annotate(
            names[i],
            (x[i], y[i]),
            xytext=(0, -5 if is_down else 5),
            textcoords="offset points",
            ha="center",
            va="top" if is_down else "bottom",
            fontsize=SMALL - 1,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


def _heatmap(
    table: pd.DataFrame,
    genes: list[str],
    groups: list[str],
    places: pd.DataFrame,
    value: str,
    n_top: int,
    title: str | None,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
    *,
    show: bool | None,
    save: Any,
) -> Axes | list[Axes] | None:
    """OCRs x genes for each group, or OCRs x groups for one gene."""
    from matplotlib import pyplot as plt

    by_group = len(genes) == 1
    columns, panels = (groups, [genes[0]]) if by_group else (genes, groups)
    largest = table.assign(size=table["size"].abs()).groupby("ocr", sort=False)["size"].max()
    rows = list(largest.sort_values(ascending=False, kind="stable").index[:n_top])
    rows = [
        *(name for name in _in_genome_order(places) if name in rows),
        *(name for name in rows if name not in places.index),
    ]
    limit = float(table.loc[table["ocr"].isin(rows), "size"].abs().max()) or 1.0
    if ax is not None and len(panels) > 1:
        msg = f"{len(panels)} groups and {len(genes)} genes need a panel per group: leave out ax=, or choose one group by groups=."
        raise ValueError(msg)
    # Titles of panels stand side by side, and must not meet.
    width = max(0.3 + 0.42 * len(columns), *(text_width(panel, SMALL + 2, bold=True) + 0.25 for panel in panels))
    size = (2.8 + len(panels) * width, 1.6 + 0.25 * len(rows))
    given = ax is not None
    if given:
        drawn = [new_axes(ax, size)[0]]
    else:
        figure = plt.figure(figsize=size_of(figsize, size), layout="constrained")
        drawn = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
    color_map = plt.get_cmap("RdBu_r").with_extremes(bad=NO_GROUP)
    for panel, one in zip(panels, drawn, strict=True):
        part = table if by_group else table[table["group"] == panel]
        matrix = part.pivot(index="ocr", columns="group" if by_group else "gene", values="size").reindex(
            rows, columns=columns
        )
        values = matrix.to_numpy(np.float64)
        image = one.imshow(np.ma.masked_invalid(values), cmap=color_map, vmin=-limit, vmax=limit, aspect="auto")
        one.set_xticks(np.arange(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
        if one is drawn[0]:
            one.set_yticks(np.arange(len(rows)), rows)
        bare(one)
        one.tick_params(length=0)
        if len(columns) <= _MAX_NUMBERS:
            for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
                ink = ink_on(color_map(0.5 + 0.5 * values[i, j] / limit))
                one.text(
                    j,
                    i,
                    f"{values[i, j]:.2g}".replace("-", "−"),
                    ha="center",
                    va="center",
                    fontsize=SMALL - 2,
                    color=ink,
                )
        heading = (title or panel) if len(panels) == 1 else panel
        one.set_title("" if heading == "all" else heading, fontsize=SMALL + 2, fontweight="bold")
    figure = figure_of(drawn[0])
    if title and len(panels) > 1:
        figure.suptitle(title, fontsize=SMALL + 3, fontweight="bold")
    bar = figure.colorbar(image, ax=drawn, shrink=min(1.0, 6 / max(len(rows), 1)), aspect=15)
    bar.set_label(_LABELS[value].replace(" expression", "\nexpression"), fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    return finish(drawn[0] if len(drawn) == 1 else drawn, figure, "perturbation", show=show, save=save, given=given)


def _in_genome_order(places: pd.DataFrame) -> list[str]:
    from ..genome import chromosome_ids

    if not len(places):
        return []
    order = np.lexsort((places["middle"].to_numpy(), chromosome_ids(places["chrom"])))
    return [str(name) for name in places.index[order]]
