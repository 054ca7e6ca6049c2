"""`training`: curves of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._docs import shared_docs
from .._paths import as_path
from ._figure import BLUE, FAINT, SMALL, VERMILION, bare, check_output, choose, finish, size_of

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

_LOG = "log.csv"  # as in train.run_folder, which needs torch
_STEPS = ("step", "epoch")
_NOT_DRAWN = ("tokens", "seconds")
_HELD_OUT = ("validation", "val", "test")
# Of these the lowest value is the best, or the highest.
_LOWEST, _HIGHEST = ("loss", "elbo", "mse"), ("pearson", "spearman", "f1", "accuracy", "auc", "correlation")
_WINDOW = 50  # a curve of more points is also drawn smoothed, over a fiftieth of it
_TITLES = {"lr": "learning rate", "kl_weight": "KL weight"}


@shared_docs
def training(
    run: Any,
    *,
    keys: str | Sequence[str] | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> Axes | list[Axes] | None:
    """Draw the curves of a training run, one panel for each quantity, with training and validation together.

    Curves of many steps are drawn pale, and a running mean over a fiftieth of the run on top. The best value on held-out cells is marked
    for losses and for scores of which it is known whether high is good.

    Parameters
    ----------
    run
        A trained `scfound_atac.model.RNAPredictor`, `scfound_atac.model.CellAnnotator` (after ``mode="finetune"``),
        `scfound_atac.model.ChromFound`, `scfound_atac.model.EpiFoundation` or another model of scvi-tools; the folder of a pretraining run
        (`scfound_atac.model.pretrain`), or its ``log.csv``; or a history itself: a table with a row per step, a mapping from names to
        values, or a list of mappings, one per epoch.
    keys
        Names of the values to draw, as in the history; by default all but tokens and seconds.
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
    If the figure is not shown, the axes of its panel, or a list of them.

    Raises
    ------
    FileNotFoundError
        If the folder has no log.
    KeyError
        If there are no such values.
    ValueError
        If there is no history, because the model is not trained or was trained without steps, or if it has no finite values.
    TypeError
        If `run` is nothing with a history.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> predictor = sfa.model.RNAPredictor().train(mdata, max_epochs=5)
    >>> sfa.pl.training(predictor)
    """
    check_output(show, save)
    curves, steps = _curves(run)
    if keys is None:
        names = [
            name
            for name in curves
            if name not in _NOT_DRAWN and not (name.endswith("_step") and f"{name[:-5]}_epoch" in curves)
        ]
    else:
        names = choose(keys, list(curves), "value", "keys", "the history")
    finite = {name: curves[name][np.isfinite(curves[name].to_numpy(np.float64))] for name in names}
    panels: dict[str, list[str]] = {}
    for name in names:
        if len(finite[name]):
            panels.setdefault(_quantity(name), []).append(name)
    if not panels:
        msg = f"The history has no finite values of {', '.join(map(repr, names[:5])) or 'anything'}, so there is nothing to draw."
        raise ValueError(msg)

    from matplotlib import pyplot as plt

    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = plt.figure(figsize=size_of(figsize, (3.6 * n_columns + 0.3, 2.7 * n_rows)), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).ravel())
    for unused in axes[len(panels) :]:
        unused.remove()
    axes = axes[: len(panels)]
    for ax, (quantity, members) in zip(axes, panels.items(), strict=True):
        for name in members:
            _curve(ax, finite[name], "validation" if _is_held_out(name) else "training", quantity)
        ax.set_title(_TITLES.get(quantity, quantity.replace("_", " ")), fontsize=SMALL + 2, loc="left")
        ax.set_xlabel(steps, fontsize=SMALL)
        ax.margins(x=0.03)
        bare(ax, "left", "bottom")
        ax.locator_params(axis="x", integer=True, nbins=5)
        if all(len(finite[name]) == 1 for name in members):
            ax.set_xticks([line.get_xdata()[0] for line in ax.lines[:1]])
        if any(map(_is_held_out, members)):
            ax.legend(frameon=False, fontsize=SMALL, handlelength=1.2)
    if title:
        figure.suptitle(title, fontsize=SMALL + 3, fontweight="bold")
    return finish(axes[0] if len(axes) == 1 else axes, figure, "training", show=show, save=save)


def _curves(run: Any) -> tuple[dict[str, pd.Series], str]:
    """The values by their names, each over its steps, and what a step is."""
    history = _history(run)
    if isinstance(history, pd.DataFrame):
        table = history
    elif isinstance(history, Mapping):
        found = {str(name): _series(values) for name, values in history.items()}
        length = {len(values) for values in found.values()}
        step = next((name for name in _STEPS if name in found), None)
        if step is None or len(length) > 1:
            by_step = [isinstance(x, pd.DataFrame | pd.Series) and x.index.name == "step" for x in history.values()]
            curves = {name: values for name, values in found.items() if name not in _STEPS}
            return curves, "step" if all(by_step) else "epoch"
        table = pd.DataFrame({name: values.to_numpy() for name, values in found.items()})
    else:
        table = pd.DataFrame(list(history))
    if not len(table):
        msg = "The history has no rows: nothing was trained yet."
        raise ValueError(msg)
    step = next((name for name in _STEPS if name in table), None)
    if step is not None:
        table = table.set_index(step)
    numbers = {str(name): pd.to_numeric(table[name], errors="coerce") for name in table if str(name) not in _STEPS}
    return numbers, step or (str(table.index.name) if table.index.name in _STEPS else "epoch")


def _series(values: Any) -> pd.Series:
    """A curve of a mapping: a table with one column, as in scvi-tools, or a list."""
    if isinstance(values, pd.DataFrame):
        values = values.iloc[:, 0]
    if not isinstance(values, pd.Series):
        values = pd.Series(np.atleast_1d(np.asarray(values)))
        values.index += 1
    return pd.to_numeric(values, errors="coerce")


def _history(run: Any) -> Any:
    """The history of a model or of a run, in the form in which it is kept."""
    if isinstance(run, str | os.PathLike):
        return _read_log(as_path(run, "run"))
    if isinstance(run, pd.DataFrame):
        return run
    report = getattr(run, "report", None)
    if isinstance(run, Mapping):
        history = run.get("history", run)  # the report of a model has a history among its scores
    elif isinstance(report, Mapping):
        history = report.get("history")
    elif hasattr(run, "history"):
        history = run.history
    elif isinstance(run, Sequence) and all(isinstance(row, Mapping) for row in run):
        history = run
    else:
        msg = (
            "run= takes a trained model, the folder of a pretraining run, or a history (a table, a mapping from names to values, or a list "
            f"of mappings); got {type(run).__name__}."
        )
        raise TypeError(msg)
    if history is None or not len(history):
        what = (
            "The history is empty"
            if isinstance(run, Mapping | list | tuple)
            else f"This {type(run).__name__} has no history"
        )
        msg = f"{what}: it is not trained yet, or it was fitted without steps, as CellAnnotator is with mode='probe'."
        raise ValueError(msg)
    return history


def _read_log(path: Path) -> pd.DataFrame:
    file = path / _LOG if path.is_dir() else path
    if not file.is_file():
        what = (
            f"The folder {str(path)!r} has no {_LOG}" if path.is_dir() else f"There is no file or folder {str(path)!r}"
        )
        msg = f"{what}. Pass the folder that was the output of the pretraining run."
        raise FileNotFoundError(msg)
    return pd.read_csv(file)


def _words(name: str) -> list[str]:
    return [word for word in name.split("_") if word]


def _is_held_out(name: str) -> bool:
    words = _words(name)
    return words[0] in _HELD_OUT or words[-1] in _HELD_OUT if words else False


def _quantity(name: str) -> str:
    """What was measured, without where: ``"loss"`` of ``"validation_loss"``, ``"elbo"`` of ``"elbo_train"``."""
    words = _words(name)
    if len(words) > 1 and words[-1] in ("epoch", "step"):
        words = words[:-1]
    for place in (0, -1):
        if len(words) > 1 and words[place] in (*_HELD_OUT, "train", "training"):
            del words[place]
    return "_".join(words)


def _curve(ax: Axes, values: pd.Series, label: str, quantity: str) -> None:
    from pandas.api.types import is_numeric_dtype

    x = values.index.to_numpy() if is_numeric_dtype(values.index) else np.arange(1, len(values) + 1)
    y = values.to_numpy(np.float64)
    held_out = label == "validation"
    color = VERMILION if held_out else BLUE
    window = len(y) // _WINDOW
    marker = "o" if len(y) == 1 or (held_out and len(y) <= 100) else ""
    if window > 1 and not held_out:
        ax.plot(x, y, color=color, linewidth=0.6, alpha=0.3)
        smooth = pd.Series(y).rolling(window, center=True, min_periods=1).mean()
        ax.plot(x, smooth, color=color, linewidth=1.5, label=label)
    else:
        ax.plot(x, y, color=color, linewidth=1.3, marker=marker, markersize=3, label=label)
    if not held_out or len(y) < 2:
        return
    lowest, highest = (any(word in quantity for word in words) for words in (_LOWEST, _HIGHEST))
    if lowest or highest:
        best = int(y.argmin() if lowest else y.argmax())
        ax.plot(x[best], y[best], "o", markersize=8, markerfacecolor="none", color=color, label=f"best: {y[best]:.3g}")
        ax.axvline(x[best], color=FAINT, linewidth=0.6, linestyle=(0, (3, 3)), zorder=0)
