"""`bin_expression`: expression as levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._anndata import check_values, get_atac, get_matrix, get_target, refuse_lost, role_of
from .._arguments import check_arguments
from .._docs import shared_docs
from .._keys import check_key
from ..data import iter_rows
from ..data.expression_levels import bin_rows

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@shared_docs
def bin_expression(
    adata: AnnData | MuData,
    *,
    n_bins: int = 10,
    layer: str | None = None,
    key_added: str = "binned",
    modality: str = "rna",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Bin the expression of each cell into levels by quantile, as EpiFoundation predicts it.

    The levels of section 3.4 of the paper (bioRxiv 2025.02.05.636688), ``0`` to ``n_bins - 1``: zero stays 0, and the other values of a
    cell get levels from 1 on, by their quantile among themselves. Only their order matters, so raw counts, counts scaled per cell and log1p
    of these have the same levels. Equal values get the level of the lowest of their quantiles; the paper does not define this case.

    Parameters
    ----------
    adata
        Cells x genes with values of at least 0, or a MuData with such a modality.
    n_bins
        Number of levels including 0; at most 256.
    layer
        Layer with the values; ``X`` if None.
    key_added
        Key in ``layers``.
    modality
        Name of the modality of a MuData with the expression.
    copy
        {copy}

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``layers[key_added]``, uint8 with the shape of X: dense, CSR or CSC like the values.

    Raises
    ------
    ValueError
        If `n_bins` does not lie between 2 and 256, or values are negative, infinite or NaN. `adata` is unchanged then.
    KeyError
        If the layer or modality does not exist.
    """
    rna = get_target(adata, modality, copy=copy, holds="expression")
    check_key(key_added)
    check_arguments(layer=layer, n_bins=n_bins)
    role = role_of(adata, modality)
    refuse_lost(rna, key_added, slot="layers", layer=layer, default="binned", role=role)
    matrix = get_matrix(rna, layer, role)
    where = f"{role}.X" if layer is None else f"{role}.layers[{layer!r}]"
    chunks = [sparse.csr_matrix((0, rna.n_vars), dtype=np.float32)]
    for rows, chunk in iter_rows(matrix):
        check_values(chunk, where, rows=rows, column="gene")
        chunks.append(chunk)
    levels = bin_rows(sparse.vstack(chunks, format="csr"), n_bins)
    data = adata.copy() if copy else adata
    rna = get_atac(data, modality)
    if isinstance(matrix, np.ndarray):
        rna.layers[key_added] = levels.toarray()
    else:
        is_by_column = sparse.issparse(matrix) and matrix.format == "csc"
        rna.layers[key_added] = levels.tocsc() if is_by_column else levels
    return data if copy else None
