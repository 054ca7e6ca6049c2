"""`confusion`: labels against predicted labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._anndata import get_atac, role_of
from .._docs import shared_docs
from ._figure import SMALL, bare, check_output, figure_of, finish, ink_on, new_axes, read_names, size_of

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_NONE = "unknown"
_MAX_NUMBERS = 25  # columns up to which numbers can be read


@shared_docs
def confusion(
    adata: AnnData | MuData,
    labels_key: str,
    predicted_key: str | None = None,
    *,
    normalize: bool = True,
    numbers: bool | None = None,
    modality: str | None = None,
    color_map: str = "Blues",
    title: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> Axes | None:
    """Draw how many cells of each label got each predicted label.

    Rows are labels, with their number of cells; columns are predictions, in the order of the rows where names agree. Predictions by other
    names, such as those of the Cell Ontology, stand where most of their cells are, and ``"unknown"`` is last.

    Parameters
    ----------
    adata
        Cells with both columns, for example after `scfound_atac.tl.annotate`. It is not changed.
    labels_key
        Column of ``obs`` with the labels. Cells without a label are left out.
    predicted_key
        Column of ``obs`` with the predictions; ``"<labels_key>_pred"`` by default. Cells without a prediction are ``"unknown"``.
    normalize
        Show percentages of the cells of each label, instead of numbers of cells.
    numbers
        Write the numbers into the cells of the table; by default if there are at most 25 predicted labels.
    modality
        {modality}
    color_map
        Name of a colour map of matplotlib, from few to many cells.
    title
        Title of the picture; by default the fraction of the cells whose prediction is their label, if any names agree.
    ax
        {ax}
    figsize
        {figsize}
    show
        {show}
    save
        {save}

    Returns
    -------
    If the figure is not shown, its axes.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If no cell has a label.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> sfa.tl.annotate(query, reference=reference, labels_key="cell_type")
    >>> sfa.pl.confusion(query, "cell_type")
    """
    check_output(show, save)
    atac, role = get_atac(adata, modality), role_of(adata, modality)
    true = read_names(adata, atac, labels_key, role, "labels_key")
    key = f"{labels_key}_pred" if predicted_key is None else predicted_key
    guess = read_names(adata, atac, key, role, "predicted_key")
    is_labelled = true.notna().to_numpy()
    if not is_labelled.any():
        msg = f"None of the {len(true)} cells has a label in {role}.obs[{labels_key!r}], so there is nothing to draw."
        raise ValueError(msg)
    rows = [name for name in true.cat.categories if (true == name).any()]
    names = guess.astype(object).where(guess.notna(), _NONE).to_numpy()[is_labelled]
    counts = pd.crosstab(true.astype(object).to_numpy()[is_labelled], names).reindex(rows)
    columns = _column_order(counts)
    counts = counts[columns]
    table, of_row = counts.to_numpy(), counts.sum(axis=1).to_numpy()
    values = 100 * table / of_row[:, None] if normalize else table

    size = (2.6 + 0.42 * len(columns), 1.9 + 0.36 * len(rows))
    drawn, given = new_axes(ax, size_of(figsize, size))
    from matplotlib import pyplot as plt

    colors = plt.get_cmap(color_map)
    top = 100.0 if normalize else float(max(values.max(), 1))
    image = drawn.imshow(values, cmap=colors, vmin=0, vmax=top, aspect="auto")
    drawn.set_xticks(np.arange(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    drawn.set_yticks(np.arange(len(rows)), [f"{name} ({n:,})" for name, n in zip(rows, of_row, strict=True)])
    drawn.set_xlabel(f"Predicted ({key})", fontsize=SMALL + 1)
    drawn.set_ylabel(f"Label ({labels_key})", fontsize=SMALL + 1)
    bare(drawn)
    drawn.tick_params(length=0)
    if numbers or (numbers is None and len(columns) <= _MAX_NUMBERS):
        for i, j in zip(*np.nonzero(table), strict=True):
            text = f"{values[i, j]:.0f}" if values[i, j] >= 0.5 else "<1"
            ink = ink_on(colors(values[i, j] / top))
            drawn.text(j, i, text, ha="center", va="center", fontsize=SMALL - 1, color=ink)
    bar = figure_of(drawn).colorbar(image, ax=drawn, aspect=20, shrink=min(1.0, 8 / len(rows)))
    bar.set_label("Cells of the label (%)" if normalize else "Cells", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    shared = [name for name in rows if name in columns]
    if title is None and shared:
        right = sum(int(counts.at[name, name]) for name in shared)
        title = f"{100 * right / of_row.sum():.0f} % of {of_row.sum():,} cells as labelled"
    drawn.set_title(title or "", fontsize=SMALL + 2, fontweight="bold")
    return finish(drawn, figure_of(drawn), "confusion", show=show, save=save, given=given)


def _column_order(counts: pd.DataFrame) -> list[str]:
    """Predictions, each beside the label that most of its cells have; a label's own name before others."""
    rows = list(counts.index)
    home = {name: rows.index(name) if name in rows else int(counts[name].to_numpy().argmax()) for name in counts}
    return sorted(
        map(str, counts), key=lambda name: (name == _NONE, home[name], name not in rows, -int(counts[name].sum()), name)
    )
