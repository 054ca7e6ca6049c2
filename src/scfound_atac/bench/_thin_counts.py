"""`thin_counts`: the same cells, sequenced less deeply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..pp._counts import read_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


def thin_counts(adata: AnnData, fraction: float, *, seed: int = 0, layer: str | None = None) -> AnnData:
    """Keep each count with the same probability, as if the cells had been sequenced less deeply.

    A count n becomes a draw from Binomial(n, `fraction`), so that a binary matrix loses each of its ones with probability
    1 - `fraction`. Counts of both ends of a fragment are thinned end by end.

    Parameters
    ----------
    adata
        Cells x OCRs, whole numbers.
    fraction
        Expected part of the counts that is kept, above 0 and at most 1.
    seed
        Seed of the draws. The same cells, OCRs and seed give the same result, whatever form the matrix has.
    layer
        Layer with the counts; X by default.

    Returns
    -------
    A new AnnData with the thinned counts in X, CSR float32, and copies of ``obs``, ``var`` and ``uns``. Whatever was computed from all
    counts (other layers, ``obsm``, ``varm``, ``obsp``, ``varp``) is left out.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If `fraction` is not in (0, 1], or values are negative, not finite or not whole.
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
    """Counts of some cells as CSR float32 in canonical form; ValueError if they are not whole numbers."""
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
