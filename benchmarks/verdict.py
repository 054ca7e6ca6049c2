"""Say of a table of scores whether one method is good enough to be this package's default.

:mod:`zero_shot` prints it after its tables (``--candidate``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scfound_atac.bench._report import _complete, _number, _percent, _title

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


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
