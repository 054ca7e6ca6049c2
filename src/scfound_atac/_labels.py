"""Read labels of cells: distinguish labels from missing values and from measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._logging import logger

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_LABELS = frozenset(
    (
        "",
        "nan",
        "none",
        "na",
        "n/a",
        "<na>",
        "null",
        "nat",
        "unknown",
        "unassigned",
        "unlabeled",
        "unlabelled",
        "not assigned",
    )
)
"""Texts in lower case that mean that there is no label."""

# Clusters have many cells, are numbered without large gaps, and are not thousands. Numeric columns beyond these bounds are measurements.
_LARGEST_SHARE = 0.5
_MAX_CODES_WITH_GAPS = 100
_MAX_CODES = 1000
_FEW_CELLS = 20
_TOO_FEW_TO_TELL = 6


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    elif isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # a cluster number that missing values turned into a float: 3.0
    return str(value).strip()


def _is_missing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _unique_texts(values: pd.Series) -> tuple[NDArray[np.int64], list[str | None]]:
    """The number of the text of each cell, and the texts; a missing value is None."""
    codes, unique = pd.factorize(pd.Series(values).astype(object), use_na_sentinel=True)
    # A missing value has code -1 and therefore gets the last entry.
    return codes.astype(np.int64), [*(None if _is_missing(value) else _as_text(value) for value in unique), None]


def _stands_for_none(text: str | None) -> bool:
    return text is None or " ".join(text.lower().replace("_", " ").split()) in NO_LABELS


def is_label(values: pd.Series) -> NDArray[np.bool_]:
    """Which cells have a label, shape (n_cells,).

    Missing values, and texts such as ``"nan"``, ``"NA"``, ``"Unknown"``, ``"unassigned"`` or ``""``, are not labels.
    """
    codes, texts = _unique_texts(values)
    return np.array([not _stands_for_none(text) for text in texts], dtype=bool)[codes]


def label_array(values: Any, argument: str) -> NDArray[np.object_]:
    """The labels that were given as `argument`, one per cell.

    Raises
    ------
    TypeError
        If it is no list, array or column.
    """
    is_list = isinstance(values, list | tuple | np.ndarray | pd.Series | pd.Index | pd.Categorical) or (
        hasattr(values, "__array__") and not hasattr(values, "obs_names")
    )
    found = np.asarray(values, dtype=object) if is_list else None
    if found is None or found.ndim != 1:
        msg = f"{argument}= takes one label per cell, such as adata.obs['cell_type']; got {type(values).__name__}."
        raise TypeError(msg)
    return found


def label_texts(values: Any) -> pd.Series:
    """Labels as text, missing where a cell has none, with the index of `values` if it has one."""
    column = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values, dtype=object))
    codes, texts = _unique_texts(column)
    found = np.array([None if _stands_for_none(text) else text for text in texts], dtype=object)
    return pd.Series(found[codes], index=column.index, dtype=object)


def read_labels(
    column: pd.Series, key: str, *, role: str = "adata", n_min: int = 2, where: str | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """Convert the labels of cells to numbers.

    Parameters
    ----------
    column
        Labels of n cells: text, categories, or numbers of clusters, which become text (``3.0`` becomes ``"3"``).
    key
        Name of the column, for messages.
    role
        Name of the object with the column, for messages.
    n_min
        Minimum number of different labels.
    where
        Name of the labels in messages, if they are not a column of an object.

    Returns
    -------
    The number of the label of each cell, shape (n,), or -1 for none; and the sorted labels in the order of these numbers. Texts that were
    taken for no label are logged.

    Raises
    ------
    ValueError
        If the column holds measurements, a different value for each cell, or fewer than `n_min` labels.
    """
    told_by = (
        f"cells of {role} have no label by {role}.obs[{key!r}]" if where is None else f"cells have no label by {where}"
    )
    where = where or f"{role}.obs[{key!r}]"
    codes, texts = _unique_texts(column)
    none = np.array([_stands_for_none(text) for text in texts], dtype=bool)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    taken = {text: int(n) for text, n, is_none in zip(texts, counts, none, strict=True) if is_none and text and n}
    if taken:
        shown = ", ".join(f"{text!r}: {n}" for text, n in taken.items())
        logger.warning("%d of %d %s (%s)", sum(taken.values()), len(codes), told_by, shown)
    labelled = ~none[codes]
    _refuse_measurements(pd.Series(column).astype(object)[labelled], where)

    labels = sorted({text for text, is_none in zip(texts, none, strict=True) if text is not None and not is_none})
    numbers = {label: number for number, label in enumerate(labels)}
    found = np.array([-1 if is_none else numbers[str(text)] for text, is_none in zip(texts, none, strict=True)])[codes]
    _refuse_names(found[found >= 0], labels, where)
    if len(labels) < n_min:
        msg = (
            f"{where} has {len(labels)} label(s) ({', '.join(map(repr, labels)) or 'all values stand for none'}), and at least {n_min} are "
            "needed. Give the column that holds the labels of cells."
        )
        raise ValueError(msg)
    return found.astype(np.int64), labels


_FIX = (
    "A column of labels holds a name or a cluster number for each cell, such as 'B cell' or 3, and many cells have the same: give the "
    "name of such a column"
)


def _refuse_measurements(values: pd.Series, where: str) -> None:
    """Raise ValueError if numbers are not numbers of clusters."""
    kinds = {type(value) for value in values}
    if not kinds or not all(
        issubclass(kind, int | float | np.integer | np.floating) and kind is not bool for kind in kinds
    ):
        return
    numbers = values.to_numpy(dtype=np.float64)
    shown = ", ".join(f"{value:g}" for value in numbers[:3])
    broken = int((numbers != np.round(numbers)).sum())
    if broken:
        msg = (
            f"{where} holds no labels but measurements: {broken} of {len(numbers)} values are not whole numbers ({shown}, ...). {_FIX}, or "
            "cut the measurement into classes (pandas.cut)."
        )
        raise ValueError(msg)
    n_different = len(np.unique(numbers))
    nearly_all = len(numbers) >= _FEW_CELLS and n_different > _LARGEST_SHARE * len(numbers)
    with_gaps = n_different > _MAX_CODES_WITH_GAPS and np.ptp(numbers) + 1 > 2 * n_different
    if nearly_all or with_gaps or n_different > _MAX_CODES:
        msg = (
            f"{where} holds no labels but measurements: {n_different} different numbers in {len(numbers)} cells ({shown}, ...). {_FIX}, or "
            "cut the measurement into classes (pandas.cut)."
        )
        raise ValueError(msg)


def _refuse_names(codes: NDArray[np.int64], labels: list[str], where: str) -> None:
    """Raise ValueError for a column with a different value for each cell, such as names of cells."""
    n_cells, n_labels = len(codes), len(labels)
    all_differ = n_labels == n_cells and n_cells >= _TOO_FEW_TO_TELL
    if all_differ or (n_cells >= _FEW_CELLS and n_labels > 0.9 * n_cells):
        shown = ", ".join(map(repr, labels[:3]))
        what = "values all differ" if all_differ else "values nearly all differ"
        msg = f"{where} holds no labels: its {what} ({n_labels} in {n_cells} cells: {shown}, ...), as names of cells do. {_FIX}."
        raise ValueError(msg)
