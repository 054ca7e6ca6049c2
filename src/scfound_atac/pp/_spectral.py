"""`spectral`: the embedding of SnapATAC2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac, get_target
from .._arguments import check_arguments
from .._docs import shared_docs
from .._keys import check_key
from ..inference.spectral import spectral_fit
from ._counts import read_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


@shared_docs
def spectral(
    adata: AnnData | MuData,
    *,
    n_components: int = 50,
    layer: str | None = None,
    key_added: str = "X_spectral",
    seed: int = 0,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Laplacian eigenmaps of the cosine similarity between cells (SnapATAC2; Zhang et al. 2024, Nature Methods 21:217).

    This is the stronger of the two linear baselines of this package; the other one is `lsi`.

    Counts are weighted by ``log(n_cells / n_cells_open)`` of their OCR, and each cell is scaled to unit length. The similarity matrix S
    of these vectors, with its diagonal set to 0, is normalised by its row sums d: ``S[i, j] / sqrt(d[i] * d[j])``. The embedding consists
    of the eigenvectors with the largest positive eigenvalues, each times the square root of its eigenvalue. S is never computed, because
    a product with S only needs two products with the counts.

    SnapATAC2 2.10 asks its solver for the eigenvalues of largest *magnitude* and then drops the negative ones. It may therefore return
    fewer components; those that it returns are the same. It cannot handle cells without counts, which must be filtered out first.

    Parameters
    ----------
    adata
        {adata_counts}
    n_components
        Maximum number of components; there are fewer if fewer eigenvalues are positive.
    layer
        {layer}
    key_added
        Key in ``obsm``.
    seed
        Random seed of the start vector of the solver.
    modality
        {modality}
    copy
        {copy}

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``obsm[key_added]``, float32 of shape (n_cells, <= n_components). Cells that have no
    weighted OCR in common with another cell are zero. The sign of an eigenvector is arbitrary; it is chosen such that the largest weight
    of a component on an OCR is positive.

    Raises
    ------
    ValueError
        If there are fewer than three cells, `n_components` is below 1, or values are negative or not finite.
    """
    get_target(adata, modality, copy=copy)
    check_key(key_added)
    check_arguments(n_components=n_components, seed=seed)
    embedding = _embedding(read_counts(adata, layer, modality), n_components, seed)
    data = adata.copy() if copy else adata
    get_atac(data, modality).obsm[key_added] = embedding
    return data if copy else None


def _embedding(counts: csr_matrix, n_components: int, seed: int) -> NDArray[np.float32]:
    n_cells = counts.shape[0]
    if n_cells < 3:
        msg = f"The spectral embedding needs at least 3 cells, got {n_cells}."
        raise ValueError(msg)
    if n_components < 1:
        msg = f"n_components={n_components} must be at least 1."
        raise ValueError(msg)
    fit = spectral_fit(counts, n_components, seed)
    return fit.embedding if len(fit.values) else np.zeros((n_cells, 1), dtype=np.float32)
