"""What the plots share: tables and columns to draw, colours of groups, and what happens to a finished picture."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pandas as pd

from .._anndata import NotFoundError, get_atac, get_column, role_of
from .._labels import label_texts
from .._paths import as_path

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

# The colours of Okabe and Ito (2008), which people with any kind of colour vision can tell apart; the lightest and the darkest come last.
BLUE, VERMILION = "#0072B2", "#D55E00"
_OKABE_ITO = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#333333")
NO_GROUP = "#D3D3D3"  # the light grey of scanpy
INK, FAINT = "#262626", "#7F7F7F"
SMALL = 8  # points: text beside axes


# ---------------------------------------------------------------- what is drawn


def read_table(data: Any, modality: str | None, key: str, columns: Sequence[str], made_by: str) -> pd.DataFrame:
    """The table ``uns[key]`` of the accessibility, with at least `columns`.

    Raises
    ------
    KeyError
        If there is no such table.
    ValueError
        If it has no rows, or lacks a column.
    """
    atac, role = get_atac(data, modality), role_of(data, modality)
    if key not in atac.uns:
        msg = f"{role}.uns has no table {key!r}: run {made_by} first."
        raise NotFoundError(msg)
    table = atac.uns[key]
    if not isinstance(table, pd.DataFrame):
        msg = f"{role}.uns[{key!r}] is a {type(table).__name__}, not the table that {made_by} writes. Run it again."
        raise TypeError(msg)
    if missing := [name for name in columns if name not in table]:
        msg = f"{role}.uns[{key!r}] lacks the column(s) {', '.join(missing)}. Run {made_by} again."
        raise ValueError(msg)
    if table.empty:
        msg = f"{role}.uns[{key!r}] has no rows, so there is nothing to draw. Run {made_by} with wider limits."
        raise ValueError(msg)
    return table


def read_params(data: Any, modality: str | None, key: str) -> Mapping[str, Any]:
    """The arguments with which a table was made, empty if they are not there."""
    params = get_atac(data, modality).uns.get(f"{key}_params")
    return params if isinstance(params, Mapping) else {}


def in_order(column: pd.Series) -> list[str]:
    """The values of a column as text: categories in their order, others as they first occur."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        there = set(column.dropna().unique())
        return [str(value) for value in column.cat.categories if value in there]
    return [str(value) for value in pd.unique(column.dropna())]


def choose(wanted: Any, there: Sequence[str], what: str, argument: str, where: str) -> list[str]:
    """Those of `there` that the user wants, in the user's order; all of them for None.

    Raises
    ------
    KeyError
        If one is not there.
    TypeError
        If `wanted` is no name and no list of names.
    """
    if wanted is None:
        return list(there)
    names = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(names, Mapping | pd.DataFrame) or not hasattr(names, "__iter__"):
        msg = f"{argument}= takes a name, or a list of names; got {type(wanted).__name__}."
        raise TypeError(msg)
    names = list(dict.fromkeys(str(name) for name in names))
    if missing := [name for name in names if name not in there]:
        msg = f"There is no {what} {missing[0]!r} in {where}. It has {shown(there)}."
        raise NotFoundError(msg)
    if not names:
        msg = f"{argument}= is empty: name at least one {what}, or leave it out for all of them."
        raise ValueError(msg)
    return names


def shown(names: Sequence[str], n: int = 5) -> str:
    """The first names, for a message."""
    more = f", ... ({len(names)} in all)" if len(names) > n else ""
    return ", ".join(map(repr, names[:n])) + more


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a word that is none of `choices`."""
    if value not in choices:
        msg = f"{name}={value!r} is not known: use one of {', '.join(map(repr, choices))}."
        raise ValueError(msg)


def check_at_least(name: str, value: Any, minimum: int) -> None:
    """Refuse what is no whole number, and whole numbers that are too small."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        msg = f"{name}= takes a whole number; got {type(value).__name__}."
        raise TypeError(msg)
    if value < minimum:
        msg = f"{name}={value} must be at least {minimum}."
        raise ValueError(msg)


# ---------------------------------------------------------------- colours


def palette(n: int) -> list[Any]:
    """`n` colours: up to eight that all can tell apart, then darker and lighter ones of them."""
    from matplotlib.colors import to_rgb

    steps = (0.0, -0.4, 0.5, -0.65, 0.75)  # towards black and towards white
    found = []
    for i in range(n):
        base, step = np.array(to_rgb(_OKABE_ITO[i % len(_OKABE_ITO)])), steps[i // len(_OKABE_ITO) % len(steps)]
        found.append(tuple(base + step * (1 - base) if step >= 0 else base * (1 + step)))
    return found


def group_colors(data: Any, atac: AnnData, key: str | None, groups: Sequence[str]) -> dict[str, Any]:
    """A colour for each group: that of scanpy in ``uns``, if it is there for the column `key`, or one of `palette`."""
    default = dict(zip(groups, palette(len(groups)), strict=True))
    if not key:
        return default
    own = key.rpartition(":")[2]
    for holder in (atac, data):
        for name in (key, own):
            column, colors = holder.obs.get(name), holder.uns.get(f"{name}_colors")
            if colors is None or column is None or not isinstance(column.dtype, pd.CategoricalDtype):
                continue
            known = dict(zip(map(str, column.cat.categories), colors, strict=False))
            if set(groups) <= set(known) and all(_is_color(known[group]) for group in groups):
                return {group: known[group] for group in groups}
    return default


def _is_color(value: Any) -> bool:
    from matplotlib.colors import is_color_like

    return bool(is_color_like(value))


def ink_on(color: Any) -> str:
    """Black or white, whichever can be read on `color`."""
    red, green, blue = color[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else INK


# ---------------------------------------------------------------- columns of obs


def read_names(data: Any, atac: AnnData, key: str, role: str, argument: str) -> pd.Series:
    """The column `key` of ``obs`` as text, a missing value where a cell has no label; categories keep their order."""
    column = get_column(data, atac, key, role, argument)
    texts = label_texts(column)
    if isinstance(column.dtype, pd.CategoricalDtype):
        order = list(dict.fromkeys(label_texts(pd.Series(column.cat.categories.astype(object))).dropna()))
    else:
        order = sorted(set(texts.dropna()), key=_natural)  # cluster 2 before cluster 10
    return pd.Series(pd.Categorical(texts, categories=order), index=texts.index)


def _natural(text: str) -> list[Any]:
    """A key by which numbers within names count as numbers."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


# ---------------------------------------------------------------- figures


def new_axes(ax: Any, figsize: tuple[float, float]) -> tuple[Axes, bool]:
    """`ax`, or the axes of a new figure; and whether it is the user's."""
    from matplotlib import pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        return plt.figure(figsize=figsize, layout="constrained").subplots(), False
    if not isinstance(ax, Axes):
        msg = (
            f"ax= takes the axes to draw into, such as those of matplotlib.pyplot.subplots(); got {type(ax).__name__}."
        )
        raise TypeError(msg)
    return ax, True


def figure_of(ax: Axes) -> Figure:
    """The figure of some axes, also of those in a part of a figure."""
    return cast("Figure", cast("Any", ax).figure.figure)


def size_of(figsize: Any, default: tuple[float, float]) -> tuple[float, float]:
    """The size of a figure in inches."""
    if figsize is None:
        return default
    if len(figsize) != 2 or not all(side > 0 for side in figsize):
        msg = f"figsize={figsize!r} must be two numbers above 0: width and height in inches."
        raise ValueError(msg)
    return float(figsize[0]), float(figsize[1])


def bare(ax: Axes, *sides: str) -> None:
    """Take away the frame, but for `sides`."""
    for side, spine in ax.spines.items():
        spine.set_visible(side in sides)
        spine.set_color(FAINT)
    ax.tick_params(labelsize=SMALL, color=FAINT)


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    font = FontProperties(weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().width) / 72


def check_output(show: Any, save: Any) -> None:
    """Refuse values of `show` and `save` that mean nothing, before anything is drawn."""
    if show is not None and not isinstance(show, bool | np.bool_):
        msg = f"show= takes True, False or None; got {type(show).__name__}."
        raise TypeError(msg)
    if save is not None and not isinstance(save, bool | np.bool_):
        as_path(save, "save")


def finish(axes: T, figure: Figure, name: str, *, show: bool | None, save: Any, given: bool = False) -> T | None:
    """Save and show a picture as scanpy does, and return its axes unless it was shown.

    Parameters
    ----------
    axes
        What is returned.
    figure
        The figure of the axes.
    name
        Name of the function, with which the name of a file begins.
    show, save
        As the user gave them.
    given
        Whether the axes are the user's; they are not shown then unless `show` is True.
    """
    from matplotlib import pyplot as plt

    if show is None and given:
        show = False
    if show is None or isinstance(save, str) or save is True or save is None:
        from scanpy import settings

        show = bool(settings.autoshow) if show is None else show
        save = bool(settings.autosave) if save is None else save
        if save is True or isinstance(save, str):
            ending = "" if save is True else save
            if Path(ending).suffix.lower() not in (".pdf", ".png", ".svg", ".jpg", ".jpeg", ".tif", ".tiff", ".eps"):
                ending += f".{settings.file_format_figs}"
            save = Path(settings.figdir) / f"{name}{ending}"
    if save:
        target = as_path(save, "save")
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, bbox_inches="tight")
    if show:
        with warnings.catch_warnings():
            # Without a screen there is nothing to show, and nothing that the user could mend.
            warnings.filterwarnings("ignore", message=".*non-interactive.*", category=UserWarning)
            plt.show()
    if save and not given:
        plt.close(figure)
    return None if show else axes
