"""`lsi`: TF-IDF and truncated SVD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac, get_target
from .._arguments import check_arguments
from .._keys import check_key
from ..data.tfidf import inverse_document_frequency, tfidf
from ._counts import read_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_DEPTH_CORRELATION = 0.75


def lsi(
    adata: AnnData | MuData,
    *,
    n_components: int = 50,
    layer: str | None = None,
    key_added: str = "X_lsi",
    seed: int = 0,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Latent semantic indexing, the usual linear embedding of scATAC-seq cells and the baseline of this package.

    Values are ``log(1 + 1e4 * tf * idf)`` (Stuart et al. 2021, Signac), with tf the part of the cell's counts and idf the number of
    cells over one plus the number of cells the OCR is open in. Components whose correlation with the log total count is above 0.75
    in size show sequencing depth and are left out (Granja et al. 2021, ArchR).

    Parameters
    ----------
    adata
        Cells x OCRs, counts.
    n_components
        Most components kept; fewer for small data.
    layer
        Layer with the counts; X by default.
    key_added
        Name in ``obsm``.
    seed
        Seed of the randomised SVD.
    modality
        Modality of a MuData; ``"atac"`` by default.
    copy
        Leave `adata` as it is and return the result.

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``obsm[key_added]``, float32 of shape (n_cells, <= n_components), left singular vectors
    times singular values.

    Raises
    ------
    ValueError
        If there are fewer than two cells or OCRs, or values are negative or not finite.
    """
    get_target(adata, modality, copy=copy)
    check_key(key_added)
    check_arguments(n_components=n_components, seed=seed)
    embedding = tfidf_lsi(read_counts(adata, layer, modality), n_components, seed)
    data = adata.copy() if copy else adata
    get_atac(data, modality).obsm[key_added] = embedding
    return data if copy else None


def tfidf_lsi(counts: csr_matrix, n_components: int, seed: int) -> NDArray[np.float32]:
    """The embedding of `lsi` from a CSR matrix of counts, shape (n_cells, <= n_components); empty cells are zero."""
    from sklearn.decomposition import TruncatedSVD

    n_cells, n_ocrs = counts.shape
    if min(n_cells, n_ocrs) < 2:
        msg = f"LSI needs at least 2 cells and 2 OCRs, got {n_cells} x {n_ocrs}."
        raise ValueError(msg)
    if n_components < 1:
        msg = f"n_components={n_components} must be at least 1."
        raise ValueError(msg)
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if not total.any():
        return np.zeros((n_cells, 1), dtype=np.float32)
    weighted = tfidf(counts, inverse_document_frequency(counts))
    # one more than asked for: usually the first shows depth
    svd = TruncatedSVD(min(n_components + 1, n_cells - 1, n_ocrs - 1), random_state=seed)
    embedding = svd.fit_transform(weighted).astype(np.float32)
    return embedding[:, without_depth(embedding, np.log1p(total))[:n_components]]


def without_depth(embedding: NDArray[np.float32], depth: NDArray[np.float64]) -> NDArray[np.intp]:
    """Numbers of the components that do not go along with the cells' depth, the log total count; of all if there are no others."""
    x, y = embedding - embedding.mean(axis=0, dtype=np.float64), depth - depth.mean()
    norm = np.linalg.norm(x, axis=0) * np.linalg.norm(y)
    correlation = np.divide(y @ x, norm, out=np.zeros(x.shape[1]), where=norm > 1e-12)
    keep = np.abs(correlation) <= _DEPTH_CORRELATION
    return np.flatnonzero(keep if keep.any() else ~keep)
