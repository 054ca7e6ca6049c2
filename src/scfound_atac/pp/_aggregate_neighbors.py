"""`aggregate_neighbors`: add up each cell and its nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments
from .._keys import check_key
from ..data import Cells
from ._lsi import tfidf_lsi

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


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

    The step that ChromFound's released tutorial calls "deepen"; the paper (arXiv 2505.12638) does not mention it. The tutorial
    densifies the matrix and draws without a seed; here everything is sparse, neighbours are exact and the same seed gives the
    same result. Give the same smoothing to any baseline: the neighbours already carry what LSI knows.

    Parameters
    ----------
    adata
        Cells x OCRs, counts.
    n_neighbors
        Neighbours added to each cell, the cell itself not among them: a sum has ``n_neighbors + 1`` terms, or one per cell if there
        are fewer.
    n_components
        Components of the LSI space.
    layer
        Layer with the counts; X by default.
    key_added
        Name in ``layers``.
    seed
        Seed of the LSI.
    modality
        Modality of a MuData; ``"atac"`` by default.
    copy
        Leave `adata` as it is and return the result.

    Returns
    -------
    None, or the changed copy if `copy`. Sets ``layers[key_added]``, CSR float32 of the shape of X; columns that are no OCRs, such as the
    genes of a 10x multiome object, are 0.

    Raises
    ------
    ValueError
        If `n_neighbors` is negative, there is more than one cell but one OCR, or values are negative or not finite.
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
    """The sums of `aggregate_neighbors` from a CSR matrix of counts."""
    from sklearn.neighbors import NearestNeighbors

    n_cells = counts.shape[0]
    if n_neighbors < 0:
        msg = f"n_neighbors={n_neighbors} must not be negative."
        raise ValueError(msg)
    n_neighbors = min(n_neighbors, n_cells - 1)
    if n_neighbors < 1:
        return counts.copy()
    space = tfidf_lsi(counts, n_components, seed)
    # without a query, a cell is not its own neighbour
    graph = NearestNeighbors(n_neighbors=n_neighbors).fit(space).kneighbors_graph(mode="connectivity")
    graph = sparse.csr_matrix(graph, dtype=np.float32) + sparse.identity(n_cells, dtype=np.float32, format="csr")
    total = sparse.csr_matrix(graph @ counts)
    total.sort_indices()
    return total
