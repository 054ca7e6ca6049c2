"""`recipe_chromfound`: the whole preparation of ChromFound in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from .._anndata import get_atac, get_target
from .._arguments import check_arguments, check_single, is_whole
from .._docs import shared_docs
from .._labels import read_labels
from ..data import Cells, prepare_rows
from ._aggregate_neighbors import neighbor_sum
from ._counts import subset
from ._filter_cells import cells_to_keep
from ._filter_ocrs import ocrs_to_keep

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_LAYER = "chromfound_input"
_N_NEIGHBORS, _N_COMPONENTS = 10, 50


@shared_docs
def recipe_chromfound(
    adata: AnnData | MuData,
    *,
    layer: str | None = None,
    min_ocrs: int | None = 1000,
    max_ocrs: int | None = 60_000,
    min_cells: int | None = 5,
    min_fraction: float = 0.05,
    groupby: str | None = None,
    aggregate: bool | int = True,
    target_sum: float | None = 1e4,
    log1p: bool = True,
    seed: int = 0,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Filter cells and OCRs, sum neighbouring cells, scale cells to the same total and take logarithms.

    These are the steps of ChromFound (arXiv 2505.12638, appendix C) and of its released tutorial, which adds the sum over neighbours. The
    paper does not state to which total cells are scaled; this package uses 1e4, which does not depend on the other cells. ``X`` keeps its
    values and only loses the cells and OCRs that do not pass the filters.

    Parameters
    ----------
    adata
        Cells x OCRs with counts. It is subset in place by the filters.
    layer
        {layer}
    min_ocrs, max_ocrs
        Minimum and maximum number of open OCRs of a cell, as in `filter_cells`; None for no bound.
    min_cells, min_fraction, groupby
        Rule by which OCRs are kept, as in `filter_ocrs`; ``min_cells=None`` without `groupby` keeps all OCRs.
    aggregate
        Sum each cell with its neighbours as in `aggregate_neighbors`: True for 10 neighbours, a number, or False for no sum.
    target_sum
        Total to which every cell is scaled; None for no scaling.
    log1p
        Take ``log(1 + x)``.
    seed
        Random seed of the neighbour search.
    modality
        {modality}
    copy
        {copy}

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``layers["chromfound_input"]`` (CSR float32), ``obs["n_ocrs"]`` and
    ``uns["recipe_chromfound"]`` with the steps. On any error `adata` is unchanged.

    Raises
    ------
    KeyError
        If the layer or column does not exist.
    ValueError
        If the values are not counts, a filter leaves nothing, or `adata` is backed.
    """
    get_target(adata, modality, copy=copy, in_place=True)
    check_arguments(
        min_ocrs=min_ocrs,
        max_ocrs=max_ocrs,
        min_cells=min_cells,
        min_fraction=min_fraction,
        groupby=groupby,
        target_sum=target_sum,
        log1p=log1p,
        seed=seed,
    )
    check_single(aggregate=aggregate)
    if not isinstance(aggregate, bool | np.bool_) and not (is_whole(aggregate) and aggregate >= 0):
        msg = f"aggregate={aggregate!r} must be True, False or a number of neighbours."
        raise TypeError(msg)
    given = Cells.read(adata, layer=layer, modality=modality, coordinates=False)
    if layer is None and "log1p" in get_atac(adata, modality).uns:
        msg = (
            f"{given.role}.X is already normalised, as {given.role}.uns['log1p'] shows, and the recipe needs counts. Pass a layer with "
            "counts as layer=."
        )
        raise ValueError(msg)
    groups = None if groupby is None else read_labels(given.column(groupby, "groupby"), groupby, role=given.role)[0]

    counts = given.to_memory()
    n_ocrs = np.diff(counts.indptr).astype(np.int64)
    cells = cells_to_keep(n_ocrs, min_ocrs, max_ocrs)
    counts = counts[cells]
    keep = np.ones(given.n_vars, dtype=bool)
    if groups is not None or min_cells is not None:
        kept_groups = None if groups is None else groups[cells]
        passes = ocrs_to_keep(counts, kept_groups, min_cells=min_cells, min_fraction=min_fraction)
        keep[given.var_columns(np.arange(given.n_ocrs))] = passes
        counts = counts[:, passes]
    n_neighbors = _N_NEIGHBORS if aggregate is True else int(aggregate)
    counts = neighbor_sum(counts, n_neighbors=n_neighbors, n_components=_N_COMPONENTS, seed=seed)
    values = prepare_rows(counts, target_sum=target_sum, log1p=log1p)

    steps = {
        "layer": layer,
        "min_ocrs": min_ocrs,
        "max_ocrs": max_ocrs,
        "min_cells": min_cells if groupby is None else None,
        "min_fraction": None if groupby is None else min_fraction,
        "groupby": groupby,
        "n_neighbors": n_neighbors,
        "target_sum": target_sum,
        "log1p": log1p,
        "seed": seed,
    }
    data = adata.copy() if copy else adata
    atac = get_atac(data, modality)
    is_ocr = np.zeros(given.n_vars, dtype=bool)
    is_ocr[given.var_columns(np.arange(given.n_ocrs))] = True
    subset(data, atac, cells=cells, ocrs=keep)
    columns = np.flatnonzero(is_ocr[keep])  # other columns, such as genes, are kept and are 0 in the layer
    values = csr_matrix(
        (values.data, columns[values.indices], values.indptr), shape=(len(values.indptr) - 1, int(keep.sum()))
    )
    atac.obs["n_ocrs"] = n_ocrs[cells]
    atac.layers[_LAYER] = values
    # Steps that were left out are not listed, because h5ad files cannot store None.
    atac.uns["recipe_chromfound"] = {name: value for name, value in steps.items() if value is not None}
    return data if copy else None
