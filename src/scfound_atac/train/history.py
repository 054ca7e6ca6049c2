"""The history of a model that is trained more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping


def joined_history(
    before: Mapping[str, pd.DataFrame] | None, now: Mapping[str, pd.DataFrame], *, resumed: bool, first: int = 0
) -> dict[str, pd.DataFrame]:
    """The history of a model after a further run.

    Parameters
    ----------
    before
        The history so far, with a table per value.
    now
        The history of the run.
    resumed
        The run went on from a checkpoint and counts epochs or steps as before; those that it repeated replace those of the history.
        Otherwise it counts anew, and is appended.
    first
        With which number a run begins to count.

    Returns
    -------
    A table with one column per value, whose index counts the epochs or steps.
    """
    joined = dict(before or {})
    n_before = max((int(table.index[-1]) + 1 - first for table in joined.values() if len(table)), default=0)
    for name, found in now.items():
        table = found.astype(float)
        index_name = table.index.name
        if not resumed:
            table.index = table.index + n_before
        elif name in joined and len(table):
            joined[name] = joined[name][joined[name].index < table.index[0]]
        table = pd.concat([joined[name], table]) if name in joined and len(joined[name]) else table
        table.index.name = index_name
        joined[name] = table
    return joined
