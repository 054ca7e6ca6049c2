"""`aggregate_neighbors`: sum the counts of each cell and its nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments
from .._docs import shared_docs
from .._keys import check_key
from ..data import Cells
from ._lsi import tfidf_lsi

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@shared_docs
def aggregate_neighbors(
    adata: AnnData | MuData,
    *,
    n_neighbors: int = 10,
    n_components: int = 50,
    layer: str | None = None,
    key_added: str = "neighbor_sum",
    seed: int = 0,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Sum the counts of each cell and of its nearest neighbours in LSI space.

    ChromFound's released tutorial calls this step "deepen"; the paper (arXiv 2505.12638) does not mention it. The tutorial makes the
    matrix dense and draws without a seed; here everything is sparse, neighbours are exact and the same seed gives the same result.
    Give the same smoothing to any baseline, because the neighbours already contain the information of LSI.

    Parameters
    ----------
    adata
        {adata_counts}
    n_neighbors
        Number of neighbours that are added to each cell, without the cell itself: a sum has ``n_neighbors + 1`` terms, or as many as there
        are cells if these are fewer.
    n_components
        Number of components of the LSI space.
    layer
        {layer}
    key_added
        Key in ``layers``.
    seed
        Random seed of the LSI.
    modality
        {modality}
    copy
        {copy}

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``layers[key_added]``, CSR float32 with the shape of X; columns that are not OCRs, such
    as the genes of a 10x multiome object, are 0.

    Raises
    ------
    ValueError
        If `n_neighbors` is negative, there are several cells but only one OCR, or values are negative or not finite.
    """
    target = get_target(adata, modality, copy=copy)
    check_key(key_added)
    check_arguments(layer=layer, n_neighbors=n_neighbors, n_components=n_components, seed=seed)
    refuse_lost(target, key_added, slot="layers", layer=layer, default="neighbor_sum", role=role_of(adata, modality))
    cells = Cells.read(adata, layer=layer, modality=modality, values="any", coordinates=False)
    total = neighbor_sum(cells.to_memory(), n_neighbors=n_neighbors, n_components=n_components, seed=seed)
    data = adata.copy() if copy else adata
    get_atac(data, modality).layers[key_added] = cells.widen(total)
    return data if copy else None


def neighbor_sum(counts: sparse.csr_matrix, *, n_neighbors: int, n_components: int, seed: int) -> sparse.csr_matrix:
    """The sums of `aggregate_neighbors` for a CSR matrix of counts."""
    from sklearn.neighbors import NearestNeighbors

    n_cells = counts.shape[0]
    if n_neighbors < 0:
        msg = f"n_neighbors={n_neighbors} must not be negative."
        raise ValueError(msg)
    n_neighbors = min(n_neighbors, n_cells - 1)
    if n_neighbors < 1:
        return counts.copy()
    space = tfidf_lsi(counts, n_components, seed)
    # Without query points, scikit-learn does not count a cell as its own neighbour.
    graph = NearestNeighbors(n_neighbors=n_neighbors).fit(space).kneighbors_graph(mode="connectivity")
    graph = sparse.csr_matrix(graph, dtype=np.float32) + sparse.identity(n_cells, dtype=np.float32, format="csr")
    total = sparse.csr_matrix(graph @ counts)
    total.sort_indices()
    return total
