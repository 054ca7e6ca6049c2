"""Checks of the methods and OCRs that are given to baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray


def chosen_methods(methods: Iterable[str], known: Sequence[str]) -> list[str]:
    """Names of methods without repeats; raises ValueError if one is not `known`."""
    names = list(dict.fromkeys([methods] if isinstance(methods, str) else methods))
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        msg = (
            f"Unknown methods {wrong}: methods are {list(known)}."
            if wrong
            else f"methods is empty: choose from {list(known)}."
        )
        raise ValueError(msg)
    return names


def same_ocrs(train: AnnData, test: AnnData) -> NDArray[np.intp]:
    """Column numbers in `test` of the OCRs of `train`; raises ValueError if one is missing or `test` has no cells."""
    for adata, name in ((train, "training"), (test, "test")):
        if not adata.var_names.is_unique:
            repeated = adata.var_names[adata.var_names.duplicated()]
            msg = f"Names of OCRs of the {name} cells repeat: {list(repeated[:3])}. Keep one of each."
            raise ValueError(msg)
    if not test.n_obs:
        msg = "There are no cells to predict for."
        raise ValueError(msg)
    order = test.var_names.get_indexer(train.var_names)
    if (order < 0).any():
        absent = train.var_names[order < 0]
        msg = (
            f"{len(absent)} of the {train.n_vars} OCRs of the training cells are not among those of the cells to predict for "
            f"({list(absent[:3])}). Bring them onto one set first: query = sfa.pp.map_ocrs(query, reference)."
        )
        raise ValueError(msg)
    return order
