"""`report`: a table of `compare` as readable text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..scores import EMBEDDING_SCORES as SCORES
from ..scores import score_title as _title

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_BASELINE = "lsi"


def report(table: pd.DataFrame, *, scores: Sequence[str] = SCORES) -> str:
    """Write a table of `scfound_atac.bench.compare` as markdown.

    For each data set (column ``data``, if there is one), the text has a table of mean ± standard deviation, in which the best mean of the
    methods at the same depth and smoothing is bold, and a sentence with the depths at which LSI is better than all others.

    Parameters
    ----------
    table
        Table from `scfound_atac.bench.compare`, or several of them joined by `pandas.concat`. Scores without a column ``<score>_sd`` are
        shown without a standard deviation.
    scores
        Columns to show.

    Returns
    -------
    The text in markdown.

    Raises
    ------
    KeyError
        If the table lacks one of the columns, or was not written by `compare`.
    """
    table = _complete(table, scores)
    return "\n\n".join(_section(str(name), part, scores) for name, part in table.groupby("data", sort=False))


def _complete(table: pd.DataFrame, scores: Iterable[str]) -> pd.DataFrame:
    missing = [column for column in ("method", "fraction", "smooth", *scores) if column not in table]
    if missing:
        msg = f"The table has no columns {missing[:3]}; it should come from sfa.bench.compare."
        raise KeyError(msg)
    absent: dict[str, Any] = {f"{score}_sd": np.nan for score in scores if f"{score}_sd" not in table}
    if "data" not in table:
        absent["data"] = ""
    return table.assign(**absent).reset_index(drop=True)


def _section(name: str, table: pd.DataFrame, scores: Sequence[str]) -> str:
    columns = ["counts", "smoothing", "method", *map(_title, scores)]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    best = {score: table.groupby(["fraction", "smooth"])[score].transform("max") for score in scores}
    for i, row in table.iterrows():
        cells = [_percent(row["fraction"]), "yes" if row["smooth"] else "no", str(row["method"])]
        for score in scores:
            text = _number(row[score], row[f"{score}_sd"])
            cells.append(f"**{text}**" if row[score] == best[score][i] else text)
        lines.append(f"| {' | '.join(cells)} |")
    parts = [_heading(name, table)] if name else []
    parts.append("\n".join(lines))
    if _BASELINE in set(table["method"]) and table["method"].nunique() > 1:
        parts.append(_where_lsi_wins(table, [s for s in ("kmeans_nmi", "knn") if s in scores] or scores))
    return "\n\n".join(parts)


def _heading(name: str, table: pd.DataFrame) -> str:
    row = table.iloc[0]
    if {"n_cells", "n_ocrs", "n_labels"} <= set(table) and row[["n_cells", "n_ocrs", "n_labels"]].notna().all():
        return f"### {name} ({row['n_cells']} cells x {row['n_ocrs']} OCRs, {row['n_labels']} labels)"
    return f"### {name}"


def _where_lsi_wins(table: pd.DataFrame, scores: Sequence[str]) -> str:
    said = []
    for score in scores:
        wins = []
        for (fraction, smooth), group in table.groupby(["fraction", "smooth"], sort=False):
            own, others = group["method"] == _BASELINE, group["method"] != _BASELINE
            if own.any() and others.any() and group.loc[own, score].max() > group.loc[others, score].max():
                wins.append(_percent(fraction) + (" smoothed" if smooth else ""))
        said.append(f"in {_title(score)} at {', '.join(wins)}" if wins else f"nowhere in {_title(score)}")
    return f"LSI beats all other methods {'; '.join(said)}."


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _number(mean: float, deviation: float) -> str:
    return f"{mean:.3f}" if pd.isna(deviation) else f"{mean:.3f} ± {deviation:.3f}"
