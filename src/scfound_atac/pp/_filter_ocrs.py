"""`filter_ocrs`: drop OCRs that are open in hardly any cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac, get_target
from .._arguments import check_arguments
from .._docs import shared_docs
from .._labels import read_labels
from ..data import Cells
from ._counts import subset

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


@shared_docs
def filter_ocrs(
    adata: AnnData | MuData,
    *,
    min_cells: int = 5,
    min_fraction: float = 0.05,
    groupby: str | None = None,
    layer: str | None = None,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Keep OCRs that are open (non-zero) in enough cells.

    Without `groupby` no labels are used. An OCR that is open in fewer than five cells says very little about any group of cells, whereas
    a stricter bound would remove markers of rare cell types. With `groupby`, ChromFound's rule applies (arXiv 2505.12638, appendix C):
    an OCR is kept if it is open in at least `min_fraction` of the cells of at least one group. This rule **uses the labels**: do not
    evaluate a prediction of the same labels on OCRs that were chosen by it, unless only training cells were used.

    Parameters
    ----------
    adata
        Cells x OCRs with counts. It is subset in place, as by `scanpy.pp.filter_genes`.
    min_cells
        Minimum number of cells in which an OCR is open; used without `groupby`.
    min_fraction
        Minimum fraction of the cells of a group, 0 to 1; used with `groupby`.
    groupby
        Column of ``obs`` with groups of cells; cells without a label are ignored.
    layer
        {layer}
    modality
        {modality}
    copy
        {copy}

    Returns
    -------
    None, or the filtered copy if `copy`. Sets ``var["n_cells"]``, the number of cells in which an OCR is open. Columns that are not OCRs,
    such as the genes of a 10x multiome object, are kept, with a value of 0.

    Raises
    ------
    KeyError
        If the column does not exist.
    ValueError
        If no OCR would be left, values are negative or not finite, or `adata` is backed.
    """
    get_target(adata, modality, copy=copy, in_place=True)
    check_arguments(min_cells=min_cells, min_fraction=min_fraction, groupby=groupby)
    cells = Cells.read(adata, layer=layer, modality=modality, values="any", coordinates=False)
    groups = None if groupby is None else read_labels(cells.column(groupby, "groupby"), groupby, role=cells.role)[0]
    counts = cells.to_memory()
    passes = ocrs_to_keep(counts, groups, min_cells=min_cells, min_fraction=min_fraction)
    keep, n_cells = np.ones(cells.n_vars, dtype=bool), np.zeros(cells.n_vars, dtype=np.int64)
    columns = cells.var_columns(np.arange(cells.n_ocrs))
    keep[columns], n_cells[columns] = passes, counts.getnnz(axis=0)
    data = adata.copy() if copy else adata
    atac = get_atac(data, modality)
    atac.var["n_cells"] = n_cells
    subset(data, atac, ocrs=keep)
    return data if copy else None


def ocrs_to_keep(
    counts: csr_matrix, groups: NDArray[np.int64] | None, *, min_cells: int | None, min_fraction: float
) -> NDArray[np.bool_]:
    """Mask of the OCRs that pass; raises ValueError if there are none. Groups are numbered from 0; -1 stands for no group."""
    if groups is None:
        keep = counts.getnnz(axis=0) >= (min_cells or 0)
    else:
        if not 0 <= min_fraction <= 1:
            msg = f"min_fraction={min_fraction} must lie between 0 and 1."
            raise ValueError(msg)
        keep = np.zeros(counts.shape[1], dtype=bool)
        for group in range(groups.max() + 1):
            cells = np.flatnonzero(groups == group)
            if not len(cells):
                continue
            keep |= counts[cells].getnnz(axis=0) >= min_fraction * len(cells)
    if not keep.any():
        rule = f"{min_cells} cells" if groups is None else f"{min_fraction:.1%} of the cells of any group"
        msg = f"No OCR is open in {rule}. Use a lower bound, for example sfa.pp.filter_ocrs(adata, min_cells=1)."
        raise ValueError(msg)
    return keep
