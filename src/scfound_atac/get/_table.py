"""Rows of a table in ``uns``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from .._anndata import NotFoundError, get_atac, role_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData


def rows_of(adata: AnnData | MuData, key: str, function: str, modality: str | None) -> tuple[pd.DataFrame, str]:
    """The table that `function` wrote as ``uns[key]``, and what it is called in messages.

    Raises
    ------
    KeyError
        If there is none.
    TypeError
        If `key` is no text.
    """
    target, role = get_atac(adata, modality), role_of(adata, modality)
    if not isinstance(key, str):
        msg = f"key= takes the name of a table in {role}.uns, as text; got {type(key).__name__}."
        raise TypeError(msg)
    table = target.uns.get(key)
    if not isinstance(table, pd.DataFrame):
        what = "holds something else than its table" if key in target.uns else "is not there"
        msg = f"{role}.uns[{key!r}] {what}. Run sfa.{function} first, or pass key= the name that was its key_added."
        raise NotFoundError(msg)
    return table, f"{role}.uns[{key!r}]"


def select(table: pd.DataFrame, wanted: Mapping[str, tuple[Any, tuple[str, ...]]], where: str) -> pd.DataFrame:
    """The rows of `table` with the wanted names.

    Parameters
    ----------
    table
        A table with columns of categories. A name that is a category and in no row selects nothing.
    wanted
        For each argument its value, one name, several or None for all, and the columns that may hold it.
    where
        What the table is called in messages.

    Raises
    ------
    KeyError
        If a name is not in the columns.
    TypeError
        If a name is no text.
    """
    for argument, (given, columns) in wanted.items():
        if given is None:
            continue
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list | tuple | pd.Index | pd.Series) or not all(isinstance(x, str) for x in names):
            msg = f"{argument}= takes a name or a list of names, as text; got {given!r:.60}."
            raise TypeError(msg)
        known = [_names(table[column]) for column in columns]
        if missing := [name for name in names if not any(name in found for found in known)]:
            some = known[0]
            shown = f"{', '.join(map(str, some[:5]))}{', ...' if len(some) > 5 else ''}"
            msg = f"{where} has no {argument} {missing[0]!r}; it has {len(some)}: {shown}."
            raise NotFoundError(msg)
        is_wanted = table[columns[0]].isin(names)
        for column in columns[1:]:
            is_wanted |= table[column].isin(names)
        table = table[is_wanted]
    return table.copy()


def _names(column: pd.Series) -> pd.Index:
    """The names that a column knows: its categories, or its values."""
    return column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else pd.Index(column.unique())
