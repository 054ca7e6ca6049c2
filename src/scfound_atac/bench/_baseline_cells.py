"""Checks of the methods and OCRs that are given to baselines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .._arguments import settable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..data import Cells


def chosen_methods(methods: Iterable[str], known: Sequence[str]) -> list[str]:
    """Names of methods without repeats; raises ValueError if one is not `known`."""
    if not isinstance(methods, Iterable):
        msg = f"methods= takes names of methods, some of {list(known)}; got {type(methods).__name__}."
        raise TypeError(msg)
    names = list(dict.fromkeys(map(str, [methods] if isinstance(methods, str) else methods)))
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        msg = (
            f"Unknown methods {wrong}: methods are {list(known)}."
            if wrong
            else f"methods is empty: choose from {list(known)}."
        )
        raise ValueError(msg)
    return names


def same_ocrs(train: Cells, test: Cells) -> NDArray[np.intp]:
    """Column numbers in `test` of the OCRs of `train`, by name; raises ValueError if one is missing."""
    for cells, name in ((train, "training"), (test, "test")):
        ocrs = cells.ocrs.index
        if not ocrs.is_unique:
            repeated = ocrs[ocrs.duplicated()]
            msg = f"Names of OCRs of the {name} cells repeat in {cells.role}: {list(repeated[:3])}. Keep one of each."
            raise ValueError(msg)
    order = test.ocrs.index.get_indexer(train.ocrs.index)
    if (order < 0).any():
        absent = train.ocrs.index[order < 0]
        msg = (
            f"{len(absent)} of the {train.n_ocrs} OCRs of the training cells ({train.role}) are not among those of the cells to predict "
            f"for ({test.role}): {list(absent[:3])}. Bring them onto one set first: {settable(test.role)} = sfa.pp.map_ocrs({test.role}, "
            f"{train.role})."
        )
        raise ValueError(msg)
    return order
