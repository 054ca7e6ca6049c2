"""Arguments of a wrong type, refused before any work. An argument means the same in every function that has it."""

from __future__ import annotations

from typing import Any

import numpy as np

_TEXTS = frozenset(
    ("modality", "labels_key", "groupby", "split_key", "batch_key", "name", "rna_modality", "use_rep", "gene_suffix")
)
_LAYERS = frozenset(("layer", "reference_layer", "rna_layer"))
_SWITCHES = frozenset(("copy", "binned", "log1p", "overwrite", "measured", "joint", "early_stopping"))
# The smallest value, or None if the function itself says what is too small.
_WHOLE: dict[str, int | None] = {
    "seed": 0,
    "n_fit_cells": 1,
    "n_seeds": None,
    "n_folds": None,
    "n_components": None,
    "n_neighbors": None,
    "n_cells": 1,
    "window": 1,
    "n_bins": None,
    "min_ocrs": 0,
    "max_ocrs": 0,
    "min_cells": 0,
    "min_overlap": None,
    "upstream": None,
    "downstream": None,
    "max_epochs": None,
    "train_batch_size": None,
    "early_stopping_patience": 1,
    "local": 1,
}
_NUMBERS = frozenset(
    (
        "fraction",
        "min_fraction",
        "min_coverage",
        "min_kept",
        "threshold",
        "target_sum",
        "lr",
        "weight_decay",
        "max_known_lost",
        "min_confidence",
        "min_probability",
        "to",
    )
)
_NONE = frozenset(
    ("modality", "labels_key", "groupby", "split_key", "batch_key", "name", "n_cells", "target_sum", "min_probability")
)
_NONE |= {"min_ocrs", "max_ocrs", "min_cells", "local"} | _LAYERS


class NotFoundError(KeyError):
    """A `KeyError` whose message is shown as it is, without quotes around it."""

    def __str__(self) -> str:
        return str(self.args[0])


def check_arguments(**given: Any) -> None:
    """Refuse arguments of a wrong type, each by its name.

    Parameters
    ----------
    given
        The arguments by their names.

    Raises
    ------
    TypeError
        If one is of a wrong type.
    ValueError
        If a number is too small to mean anything.
    """
    for name, value in given.items():
        if value is not None or name not in _NONE:
            _check(name, value)


def check_single(**given: Any) -> None:
    """Refuse tables, lists and objects for arguments that take one word, number or None.

    Raises
    ------
    TypeError
        If one is anything else.
    """
    for name, value in given.items():
        if value is not None and not isinstance(value, str | bool | int | float | np.number | np.bool_):
            msg = f"{name}= takes one value, not {type(value).__name__}."
            raise TypeError(msg)


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number by its type; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check(name: str, value: Any) -> None:
    got = f"got {value!r:.60}" if np.isscalar(value) or value is None else f"got {type(value).__name__}"
    or_none = ", or None" if name in _NONE else ""
    if name in _LAYERS:
        _refuse(not isinstance(value, str), f"{name}= takes the name of a layer, or None for X; {got}.")
    elif name in _TEXTS:
        _refuse(not isinstance(value, str), f"{name}= takes one name, as text{or_none}; {got}.")
    elif name in _SWITCHES:
        _refuse(not isinstance(value, bool | np.bool_), f"{name}= takes True or False; {got}.")
    elif name in _WHOLE:
        _refuse(not is_whole(value), f"{name}= takes a whole number{or_none}; {got}.")
        minimum = _WHOLE[name]
        if minimum is not None and value < minimum:
            msg = f"{name}={value} must be at least {minimum}."
            raise ValueError(msg)
    else:
        assert name in _NUMBERS, name
        is_number = is_whole(value) or isinstance(value, float | np.floating)
        _refuse(not is_number, f"{name}= takes a number{or_none}; {got}.")


def _refuse(bad: bool, msg: str) -> None:  # noqa: FBT001
    if bad:
        raise TypeError(msg)


def settable(role: str) -> str:
    """How the object that is called `role` is written left of an equal sign: ``adata["atac"]`` can only be read."""
    return role.replace('["', '.mod["')
