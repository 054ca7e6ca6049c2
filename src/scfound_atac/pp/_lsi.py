"""`lsi`: TF-IDF and truncated SVD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac, get_target
from .._arguments import check_arguments
from .._docs import shared_docs
from .._keys import check_key
from ..data.tfidf import inverse_document_frequency, tfidf, without_depth
from ._counts import read_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


@shared_docs
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

    Counts are weighted by TF-IDF and decomposed by a truncated SVD (Stuart et al. 2021, Signac)::

        x[i, j] = log(1 + 1e4 * tf[i, j] * idf[j])
        tf[i, j] = counts[i, j] / sum of the counts of cell i
        idf[j] = n_cells / (1 + number of cells in which OCR j is open)

    Components whose absolute correlation with the log total count exceeds 0.75 reflect sequencing depth and are left out (Granja et
    al. 2021, ArchR).

    Parameters
    ----------
    adata
        {adata_counts}
    n_components
        Maximum number of components; small data have fewer.
    layer
        {layer}
    key_added
        Key in ``obsm``.
    seed
        Random seed of the SVD.
    modality
        {modality}
    copy
        {copy}

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``obsm[key_added]``, float32 of shape (n_cells, <= n_components): left singular
    vectors times singular values.

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
    """The embedding of `lsi` for a CSR matrix of counts, shape (n_cells, <= n_components); empty cells are zero."""
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
    # 1. TF-IDF, as sparse as the counts.
    weighted = tfidf(counts, inverse_document_frequency(counts))  # (n_cells, n_ocrs)
    # 2. One component more than requested, because the first one usually reflects depth.
    svd = TruncatedSVD(min(n_components + 1, n_cells - 1, n_ocrs - 1), random_state=seed)
    embedding = svd.fit_transform(weighted).astype(np.float32)  # (n_cells, n_components + 1)
    # 3. Without the components that follow depth.
    return embedding[:, without_depth(embedding, np.log1p(total))[:n_components]]
