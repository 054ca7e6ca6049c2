"""`thin_counts`: the same cells at a lower sequencing depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._docs import shared_docs
from ..pp._counts import read_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


@shared_docs
def thin_counts(adata: AnnData, fraction: float, *, seed: int = 0, layer: str | None = None) -> AnnData:
    """Keep each count with the same probability, as if the cells had been sequenced less deeply.

    A count n becomes a draw from Binomial(n, `fraction`), so that a binary matrix loses each of its ones with probability
    1 - `fraction`. If both ends of a fragment are counted, each end is kept or dropped on its own.

    Parameters
    ----------
    adata
        Cells x OCRs with counts, which must be whole numbers.
    fraction
        Expected fraction of the counts that is kept, above 0 and at most 1.
    seed
        Random seed. The same cells, OCRs and seed give the same result in any matrix format.
    layer
        {layer}

    Returns
    -------
    A new AnnData with the thinned counts in X, CSR float32, and copies of ``obs``, ``var`` and ``uns``. Everything that was
    computed from all counts (other layers, ``obsm``, ``varm``, ``obsp``, ``varp``) is left out.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If `fraction` is not in (0, 1], or values are negative, not finite or not whole numbers.
    """
    from anndata import AnnData

    if not 0 < fraction <= 1:
        msg = f"fraction={fraction} must be above 0 and at most 1."
        raise ValueError(msg)
    counts = whole_counts(adata, layer)
    counts.data = _thinned(counts.data, fraction, seed)
    counts.eliminate_zeros()
    return AnnData(counts, obs=adata.obs.copy(), var=adata.var.copy(), uns=dict(adata.uns))


def whole_counts(adata: AnnData, layer: str | None = None, rows: NDArray[np.int64] | None = None) -> csr_matrix:
    """Counts of some cells as CSR float32 in canonical form; raises ValueError if they are not whole numbers."""
    counts = read_counts(adata if rows is None else adata[rows], layer)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    wrong = np.flatnonzero(counts.data != np.round(counts.data))
    if len(wrong):
        where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        shown = ", ".join(f"{value:g}" for value in counts.data[wrong[:3]])
        msg = (
            f"{where} has {len(wrong)} values that are not whole numbers ({shown}), so there are no counts to thin. "
            "Pass the raw counts, or binarise: adata.X = (adata.X > 0).astype('float32')."
        )
        raise ValueError(msg)
    return counts


def _thinned(data: NDArray[np.float32], fraction: float, seed: int) -> NDArray[np.float32]:
    if fraction == 1:
        return data
    return np.random.default_rng(seed).binomial(data.astype(np.int64), fraction).astype(np.float32)
