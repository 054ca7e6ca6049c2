"""`thin_counts`: the same cells at a lower sequencing depth."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac
from .._arguments import check_arguments
from .._docs import shared_docs
from ..data import Cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@shared_docs
def thin_counts(
    adata: AnnData, fraction: float, *, seed: int = 0, layer: str | None = None, modality: str | None = None
) -> AnnData:
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
    modality
        {modality}

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
    check_arguments(fraction=fraction, seed=seed)
    if not 0 < fraction <= 1:
        msg = f"fraction={fraction} must be above 0 and at most 1."
        raise ValueError(msg)
    cells = Cells.read(adata, layer=layer, modality=modality, coordinates=False)
    thinned = cells.as_anndata()
    counts, source = thinned.X, get_atac(adata, modality)
    counts.data = _thinned(counts.data, fraction, seed)
    counts.eliminate_zeros()
    thinned.obs, thinned.uns = source.obs.copy(), deepcopy(dict(source.uns))
    return thinned


def _thinned(data: NDArray[np.float32], fraction: float, seed: int) -> NDArray[np.float32]:
    if fraction == 1:
        return data
    return np.random.default_rng(seed).binomial(data.astype(np.int64), fraction).astype(np.float32)
