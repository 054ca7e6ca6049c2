"""`embedding_comparison`: several embeddings of the same cells side by side."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._anndata import NotFoundError, get_atac, get_column, role_of
from .._arguments import check_arguments
from .._docs import shared_docs
from ._figure import (
    FAINT,
    INK,
    NO_GROUP,
    SMALL,
    bare,
    check_at_least,
    check_output,
    choose,
    finish,
    group_colors,
    read_names,
    size_of,
    text_width,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_MIN_CELLS = 5  # for UMAP, whose start is spectral
_MAX_GROUPS_IN_COLUMN = 16
_NO_LABEL = "no label"


@shared_docs
def embedding_comparison(
    adata: AnnData | MuData,
    keys: str | Sequence[str],
    color: str,
    *,
    titles: Sequence[str] | None = None,
    n_neighbors: int = 15,
    seed: int = 0,
    n_columns: int = 4,
    point_size: float | None = None,
    color_map: str = "viridis",
    modality: str | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> Axes | list[Axes] | None:
    """Draw several embeddings of the same cells side by side, coloured alike.

    Embeddings of two components are drawn as they are. Of wider ones a UMAP is computed, with the same number of neighbours and the same
    seed for all; it is not kept. To draw the same UMAP again without computing it, compute it by `scanpy.tl.umap` and pass its key.

    Parameters
    ----------
    adata
        Cells with embeddings in ``obsm``; or a MuData, whose ``obsm`` is searched after that of the modality `modality`. It is not changed.
    keys
        Keys in ``obsm``: ``["X_sfa", "X_lsi"]``.
    color
        Column of ``obs``: groups, in the colours that scanpy keeps in ``uns["<color>_colors"]`` if it has drawn them, or numbers.
    titles
        A title for each embedding; its key by default.
    n_neighbors
        Number of neighbours in the graph of which the UMAP is computed; fewer if there are fewer cells.
    seed
        Random seed of the UMAP.
    n_columns
        Maximum number of pictures side by side.
    point_size
        Area of a dot in square points; smaller for more cells by default.
    color_map
        Name of a colour map of matplotlib for numbers.
    modality
        {modality}
    figsize
        {figsize}
    show
        {show}
    save
        {save}

    Returns
    -------
    If the figure is not shown, its axes: those of the picture, or a list.

    Raises
    ------
    KeyError
        If an embedding or the column does not exist.
    ValueError
        If an embedding is not finite, has a single component, or is to be drawn as a UMAP of fewer than five cells.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> sfa.tl.embed(adata)
    >>> sfa.pp.lsi(adata)
    >>> sfa.pl.embedding_comparison(adata, ["X_sfa", "X_lsi"], color="cell_type")
    """
    check_output(show, save)
    check_arguments(seed=seed)
    check_at_least("n_neighbors", n_neighbors, 2)
    check_at_least("n_columns", n_columns, 1)
    atac, role = get_atac(adata, modality), role_of(adata, modality)
    there = list(dict.fromkeys([*atac.obsm, *adata.obsm]))
    names = choose(keys, there, "embedding", "keys", f"{role}.obsm")
    if titles is not None and (isinstance(titles, str) or len(titles) != len(names)):
        msg = f"titles= takes a title for each of the {len(names)} embeddings; got {titles!r:.60}."
        raise ValueError(msg)
    values = get_column(adata, atac, color, role, "color")
    if atac.n_obs == 0:
        msg = f"{role} has no cells, so there is nothing to draw."
        raise ValueError(msg)
    points = {name: _points(adata, atac, name, role) for name in names}
    flat = {
        name: found if found.shape[1] == 2 else _umap(found, min(n_neighbors, len(found) - 1), seed)
        for name, found in points.items()
    }

    from matplotlib import pyplot as plt

    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    groups = None if is_number else read_names(adata, atac, color, role, "color")
    there_groups = [] if groups is None else [group for group in groups.cat.categories if (groups == group).any()]
    n_across = min(n_columns, len(names))
    n_down = -(-len(names) // n_across)
    legend = [*there_groups, *([_NO_LABEL] if groups is not None and groups.isna().any() else [])]
    n_legend = -(-len(legend) // (_MAX_GROUPS_IN_COLUMN * n_down))
    beside = n_legend * (max((text_width(name, SMALL) for name in legend), default=0.4) + 0.35)
    figure = plt.figure(figsize=size_of(figsize, (2.9 * n_across + beside + 0.2, 3.0 * n_down)), layout="constrained")
    axes = list(figure.subplots(n_down, n_across, squeeze=False).ravel())
    for unused in axes[len(names) :]:
        unused.remove()
    axes = axes[: len(names)]

    size = float(np.clip(1.2e4 / len(values), 1.0, 30.0)) if point_size is None else float(point_size)
    # In random order, so that no group covers the others; cells without a value lie below.
    order = np.random.default_rng(seed).permutation(len(values))
    if groups is None:
        shade = values.to_numpy(dtype=np.float64, na_value=np.nan)
        has_value = np.isfinite(shade)
    else:
        colors = group_colors(adata, atac, color, list(groups.cat.categories))
        has_value = groups.notna().to_numpy()
        of_cell = np.array([_rgba(colors.get(group, NO_GROUP)) for group in groups.astype(object)])
    below, above = order[~has_value[order]], order[has_value[order]]
    for i, (ax, name) in enumerate(zip(axes, names, strict=True)):
        x, y = flat[name].T
        style: dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": True}
        if len(below):
            ax.scatter(x[below], y[below], color=NO_GROUP, **style)
        if groups is None:
            span = {"vmin": shade[above].min(), "vmax": shade[above].max()} if len(above) else {}
            drawn = ax.scatter(x[above], y[above], c=shade[above], cmap=color_map, **span, **style)
        else:
            ax.scatter(x[above], y[above], c=of_cell[above], **style)
        ax.set(xticks=[], yticks=[])
        ax.set_title(name if titles is None else titles[i], fontsize=SMALL + 2)
        made = "UMAP" if points[name].shape[1] != 2 else name.removeprefix("X_").upper()
        ax.set_xlabel(f"{made} 1", fontsize=SMALL, color=FAINT, loc="left")
        ax.set_ylabel(f"{made} 2", fontsize=SMALL, color=FAINT, loc="bottom")
        ax.set_box_aspect(1)
        bare(ax, "left", "bottom")
    if groups is not None:
        _legend(figure, legend, colors, color, n_legend)
    elif len(above):
        bar = figure.colorbar(drawn, ax=axes, aspect=25, shrink=0.8)
        bar.set_label(color, fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
        bar.outline.set_visible(False)
    return finish(axes[0] if len(axes) == 1 else axes, figure, "embedding_comparison", show=show, save=save)


def _rgba(color: Any) -> Any:
    from matplotlib.colors import to_rgba

    return to_rgba(color)


def _legend(figure: Any, names: list[str], colors: dict[str, Any], title: str, n_columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=5, color=colors.get(name, NO_GROUP), label=name)
        for name in names
    ]
    found = figure.legend(
        handles=handles,
        loc="outside right center",
        ncols=max(n_columns, 1),
        frameon=False,
        fontsize=SMALL,
        title=title,
        title_fontsize=SMALL,
        handletextpad=0.2,
        columnspacing=1.0,
        alignment="left",
    )
    found.get_title().set_color(INK)


def _points(data: Any, atac: AnnData, name: str, role: str) -> NDArray[np.float64]:
    """An embedding as an array, (n_cells, n_components)."""
    if name in atac.obsm:
        found = atac.obsm[name]
    else:
        rows = data.obs_names.get_indexer(atac.obs_names)
        if (rows < 0).any():
            msg = f"Some cells of {role} are not in the MuData, whose obsm[{name!r}] was asked for. Run adata.update() first."
            raise NotFoundError(msg)
        found = np.asarray(data.obsm[name])[rows]
    try:
        points = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"{role}.obsm[{name!r}] holds no numbers, so it is no embedding. Pass other keys=."
        raise ValueError(msg) from error
    if points.ndim != 2 or points.shape[1] < 2:
        msg = f"{role}.obsm[{name!r}] has shape {points.shape}: an embedding with at least two components is needed."
        raise ValueError(msg)
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        first = atac.obs_names[bad][0]
        msg = f"{role}.obsm[{name!r}] is not finite in {int(bad.sum())} of {len(points)} cells (first: {first!r}). Leave these cells out."
        raise ValueError(msg)
    if points.shape[1] > 2 and len(points) < _MIN_CELLS:
        msg = (
            f"{role} has {len(points)} cell(s), too few for a UMAP of obsm[{name!r}] ({points.shape[1]} components); {_MIN_CELLS} are "
            "needed. An embedding with two components can be drawn as it is."
        )
        raise ValueError(msg)
    return points


def _umap(points: NDArray[np.float64], n_neighbors: int, seed: int) -> NDArray[np.float64]:
    import scanpy as sc
    from anndata import AnnData

    cells = AnnData(
        obs=pd.DataFrame(index=np.arange(len(points)).astype(str)), obsm={"points": points.astype(np.float32)}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages beneath, about threads and about points that coincide
        sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="points", random_state=seed)
        sc.tl.umap(cells, random_state=seed)
    return np.asarray(cells.obsm["X_umap"], dtype=np.float64)
