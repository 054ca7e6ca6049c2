"""`filter_ocrs`: drop OCRs that are open in hardly any cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac
from ._counts import read_counts, refuse_backed, subset

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


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

    Without `groupby` no label is used: an OCR open in fewer than five cells tells nearly nothing about any group of cells, while
    a stricter bound would lose what marks rare cell types. With `groupby`, ChromFound's rule applies (arXiv 2505.12638, appendix C):
    an OCR stays if it is open in at least `min_fraction` of the cells of at least one group. That rule **uses the labels**: do not
    judge a prediction of the same labels on OCRs chosen so, unless only training cells were used.

    Parameters
    ----------
    adata
        Cells x OCRs, subset in place as `scanpy.pp.filter_genes` does.
    min_cells
        Fewest cells an OCR is open in; used without `groupby`.
    min_fraction
        Smallest part of a group's cells, 0 to 1; used with `groupby`.
    groupby
        Column of ``obs``; cells without a label are left out of the rule.
    layer
        Layer with the counts; X by default.
    modality
        Modality of a MuData; ``"atac"`` by default.
    copy
        Leave `adata` as it is and return the result.

    Returns
    -------
    None, or the filtered copy if `copy`. Sets ``var["n_cells"]``, the number of cells an OCR is open in.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If no OCR would be left, values are negative or not finite, or `adata` is backed.
    """
    data = adata.copy() if copy else adata
    atac = get_atac(data, modality)
    refuse_backed(atac)
    labels = get_labels(atac, groupby)
    counts = read_counts(atac, layer)
    keep = ocrs_to_keep(counts, labels, min_cells=min_cells, min_fraction=min_fraction)
    atac.var["n_cells"] = counts.getnnz(axis=0).astype(np.int64)
    subset(data, atac, ocrs=keep)
    return data if copy else None


def get_labels(adata: AnnData, groupby: str | None) -> pd.Series | None:
    """The column, or None without `groupby`; KeyError if it is missing."""
    if groupby is None:
        return None
    if groupby not in adata.obs:
        msg = f"There is no column {groupby!r} in adata.obs. Columns: {list(adata.obs.columns)}."
        raise KeyError(msg)
    return adata.obs[groupby]


def ocrs_to_keep(
    counts: csr_matrix, labels: pd.Series | None, *, min_cells: int | None, min_fraction: float
) -> NDArray[np.bool_]:
    """Mask of the OCRs that pass; ValueError if there are none."""
    if labels is None:
        keep = counts.getnnz(axis=0) >= (min_cells or 0)
    else:
        keep = np.zeros(counts.shape[1], dtype=bool)
        for group in labels.dropna().unique():
            cells = np.flatnonzero((labels == group).to_numpy(dtype=bool, na_value=False))
            keep |= counts[cells].getnnz(axis=0) >= min_fraction * len(cells)
    if not keep.any():
        rule = f"{min_cells} cells" if labels is None else f"{min_fraction:.1%} of the cells of any group"
        msg = f"No OCR is open in {rule}. Use a lower bound, for example sfa.pp.filter_ocrs(adata, min_cells=1)."
        raise ValueError(msg)
    return keep
