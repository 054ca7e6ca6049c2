"""`spectral`: the embedding of SnapATAC2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac, get_target
from .._arguments import check_arguments
from .._keys import check_key
from ..inference.spectral import spectral_fit
from ._counts import read_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


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

    The stronger of this package's two linear baselines; `lsi` is the other.

    Counts are weighted by ``log(n_cells / n_cells_open)`` of their OCR and each cell is scaled to unit length. The similarity matrix S
    of these vectors, with its diagonal set to 0, is normalised by its row sums d: ``S[i, j] / sqrt(d[i] * d[j])``. The embedding is its
    eigenvectors of largest positive eigenvalue, each times the square root of that value. S is never formed: products with
    it cost two products with the counts.

    SnapATAC2 2.10 asks its solver for the eigenvalues of largest *magnitude* and then drops the negative ones, so that it may return fewer
    components; those it returns are the same. It has no answer for cells without counts, which must be filtered out before.

    Parameters
    ----------
    adata
        Cells x OCRs, counts.
    n_components
        Most components kept; fewer if fewer eigenvalues are positive.
    layer
        Layer with the counts; X by default.
    key_added
        Name in ``obsm``.
    seed
        Seed of the solver's first vector.
    modality
        Modality of a MuData; ``"atac"`` by default.
    copy
        Leave `adata` as it is and return the result.

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``obsm[key_added]``, float32 of shape (n_cells, <= n_components). Cells that share no OCR
    of any weight with another cell are zero. The sign of a component, which eigenvectors leave open, is such that its largest weight
    on an OCR is positive.

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
