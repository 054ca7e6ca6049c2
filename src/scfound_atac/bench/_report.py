"""Tables of `compare` as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CLUSTERINGS = {"kmeans": "KMeans", "leiden_k": "Leiden (k)", "leiden_best": "best Leiden"}
SCORES: tuple[str, ...] = (
    *(f"{clustering}_{metric}" for clustering in ("kmeans", "leiden_best") for metric in ("ari", "nmi", "ami", "fmi")),
    "knn",
)
_BASELINE = "lsi"


def report(table: pd.DataFrame, *, scores: Sequence[str] = SCORES) -> str:
    """Write a table of `scfound_atac.bench.compare` as markdown.

    For each data set (column ``data``, if there is one) a table with mean ± standard deviation, in which the best mean of the methods at
    the same depth and smoothing is bold, and a sentence that says at which depths LSI beats all others.

    Parameters
    ----------
    table
        From `scfound_atac.bench.compare`, or several of them joined by `pandas.concat`. Scores without a column ``<score>_sd`` stand alone.
    scores
        Columns to show.

    Returns
    -------
    Markdown.

    Raises
    ------
    KeyError
        If the table has no such column, or is not of `compare`.
    """
    table = _complete(table, scores)
    return "\n\n".join(_section(str(name), part, scores) for name, part in table.groupby("data", sort=False))


def verdict(table: pd.DataFrame, candidate: str, *, scores: Sequence[str] = ("kmeans_nmi", "knn")) -> str:
    """Say in markdown whether one method is good enough to be the default.

    Two questions, for each score: is the method best, or within one standard deviation of the best method (that method's own
    deviation), at every depth of every data set; and is its mean over all of them strictly the best? They are asked without smoothing
    and with it, and then of each way against all methods in either way. Methods that lack some of the settings are left out and named.

    Parameters
    ----------
    table
        From `scfound_atac.bench.compare`, or several of them joined.
    candidate
        The method in question.
    scores
        Columns to go by.

    Returns
    -------
    Markdown, with every setting that was missed.

    Raises
    ------
    KeyError
        If the table has no such column or method.
    """
    table = _complete(table, scores)
    if candidate not in set(table["method"]):
        msg = f"There is no method {candidate!r} in the table. Methods: {sorted(set(table['method']))}."
        raise KeyError(msg)
    ways = sorted(set(table["smooth"]))
    lines = []
    for smooth in ways:
        part = table[table["smooth"] == smooth]
        lines += _judged(part, candidate, scores, f"{candidate}, {_way(smooth)}, against methods {_way(smooth)}")
    if len(ways) > 1:
        either = table.assign(method=table["method"] + np.where(table["smooth"], ", smoothed", ""))
        for smooth in ways:
            name = candidate + (", smoothed" if smooth else "")
            rivals = either[(table["method"] != candidate) | (table["smooth"] == smooth)]
            lines += _judged(rivals, name, scores, f"{candidate}, {_way(smooth)}, against methods in either way")
    return "\n".join(lines)


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


def _judged(table: pd.DataFrame, candidate: str, scores: Sequence[str], title: str) -> list[str]:
    lines = [f"**{title}**", ""]
    for score in scores:
        means = _by_setting(table, score)
        lacking = sorted(means.columns[means.isna().any()])
        means = means.dropna(axis="columns")
        if candidate not in means:
            lines.append(f"- {_title(score)}: {candidate} has not been run in every setting.")
            continue
        deviations = _by_setting(table, f"{score}_sd").fillna(0.0)
        best = means.idxmax(axis="columns")
        missed = []
        for at in means.index:
            value = means.at[at, candidate]
            top, deviation = means.at[at, best[at]], deviations.at[at, best[at]]
            if value < top - deviation:
                missed.append(f"  - {_setting_name(at)}: {value:.3f}, {best[at]} {_number(top, deviation)}")
        overall = means.mean().drop(candidate).sort_values(ascending=False, kind="stable")
        own = means[candidate].mean()
        passed = f"{len(means) - len(missed)} of {len(means)}"
        sentence = f"- {_title(score)}: best or within one sd of the best in {passed} settings; mean {own:.3f}"
        if len(overall):
            word = "strictly best" if own > overall.iloc[0] else "not the best"
            sentence += f", {word} ({overall.index[0]}: {overall.iloc[0]:.3f})"
        if lacking:
            sentence += f"; not in every setting, left out: {', '.join(lacking)}"
        lines += [sentence + ".", *missed]
    return [*lines, ""]


def _by_setting(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Data set and depth by method."""
    return table.pivot_table(index=["data", "fraction"], columns="method", values=column, sort=False, dropna=False)


def _setting_name(setting: tuple[str, float]) -> str:
    name, fraction = setting
    return f"{name} at {_percent(fraction)}" if name else _percent(fraction)


def _way(smooth: object) -> str:
    return "with smoothing" if smooth else "without smoothing"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _number(mean: float, deviation: float) -> str:
    return f"{mean:.3f}" if pd.isna(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def _title(score: str) -> str:
    if score == "knn":
        return "kNN accuracy"
    clustering, _, metric = score.rpartition("_")
    return f"{_CLUSTERINGS.get(clustering, clustering)} {metric.upper()}"
