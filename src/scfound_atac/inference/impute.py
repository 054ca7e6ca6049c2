"""Denoised accessibility: the openness of OCRs in groups of similar cells, combined with what is known of the regions.

Cells belong to K groups with weights m (n_cells, K), rows adding up to 1. The openness of OCR j in group k is

    p_kj = (c_kj + s e_kj) / (w_k + s)

with c_kj the sum of the weights of cells of the group in which j is open; w_k the sum of all weights of the group; e_kj the prior
expectation; and s the number of cells that it counts as. The expectation for a cell is the weighted mean over groups, ``m p``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from sklearn.preprocessing import normalize
from tqdm.auto import tqdm

from .kind import Openness, is_known
from .profiles import only

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from .kind import Kind, Request
    from .region_set import NetworkVectors

# All of these were chosen by the AUROC of hidden open OCRs on thinned bone marrow (donor D6T1), see benchmarks/imputation.py.
_MAX_GROUPS = 50  # more make groups of too few cells in common data sets
_CELLS_PER_GROUP = 30
_TEMPERATURE = (
    0.1  # of the softmax over cosines by which a cell belongs to groups: near 0 each cell would belong to one
)
_KNOWLEDGE_CELLS = 30.0  # s: what is expected counts as much as this many cells of a group
_MEAN_CELLS = (
    0.5  # the same for the mean over all OCRs in the openness of one OCR: keeps an OCR that no cell has open above 0
)
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class GroupProfiles:
    """Groups of similar cells and how open each OCR is in them.

    Attributes
    ----------
    centres
        Directions of the groups in the space of cell vectors, (k, d).
    profiles
        Expected fraction of the group's cells in which an OCR is open, (k, L); 0 for OCRs that take no part.
    """

    centres: NDArray[np.float32]
    profiles: NDArray[np.float32]

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Expected openness of cells by their vectors: (cells, d) -> (cells, L)."""
        return _memberships(vectors, self.centres) @ self.profiles


def n_groups(n_cells: int) -> int:
    """Number of groups into which `n_cells` cells are divided."""
    return int(np.clip(n_cells // _CELLS_PER_GROUP, 1, _MAX_GROUPS))


def group_openness(kind: Kind, cells: Cells, request: Request, reader: NetworkVectors | None) -> Openness:
    """Openness by groups of cells from the embedding of a `kind` of model.

    Parameters
    ----------
    kind
        Kind of model that embeds the cells.
    cells
        Cells to impute.
    request
        Options of the embedding.
    reader
        Computes cell vectors whose products with its keys are log fold changes; None if no region is known.
    """
    if n_groups(len(cells)) == 1:  # without any open OCR there is only one group
        vectors, order = np.ones((len(cells), 1), dtype=np.float32), kind.genome_order(cells)
    else:
        embedded = kind.embed(cells, replace(request, pooling=kind.poolings[0]))
        vectors, order = embedded.vectors, embedded.order
    # by name, so that the order of cells does not matter
    by_name = np.random.default_rng(request.seed).permutation(np.argsort(cells.names.astype(str), kind="stable"))
    groups = group_profiles(
        cells,
        vectors,
        reader,
        kept=is_known(order, cells.n_ocrs),
        fit_order=by_name[: request.n_fit_cells],
        seed=request.seed,
    )
    return Openness(lambda _, rows: groups(vectors[rows]), order, {"n_groups": len(groups.centres)})


def group_profiles(
    cells: Cells,
    vectors: NDArray[np.float32],
    reader: NetworkVectors | None,
    *,
    kept: NDArray[np.bool_],
    fit_order: NDArray[np.int64],
    seed: int = 0,
) -> GroupProfiles:
    """Divide cells into groups by their vectors, and compute the openness of OCRs in each group; see the formula at the top of the file.

    Parameters
    ----------
    cells
        Cells with counts; OCRs with a count above 0 are open.
    vectors
        Embedding of the cells, (n_cells, d), compared by direction.
    reader
        Computes cell vectors whose products with its keys are log fold changes; None if no region is known.
    kept
        Mask of the OCRs that are used, shape (n_ocrs,).
    fit_order
        Row numbers of the cells from which groups are computed, in the order in which they are used.
    seed
        Random seed of k-means.
    """
    # 1. Groups, and how much each cell belongs to them.
    n_cells, k = len(vectors), n_groups(len(vectors))
    centres = _centres(vectors[fit_order], k, seed)  # (K, d)

    # 2. One pass over the cells: c, w, and the mean cell vector of each group.
    n_open = np.zeros((k, len(kept)), dtype=np.float32)  # c: (K, L)
    weight = np.zeros(k)  # w: (K,)
    knowledge = np.zeros((k, 0 if reader is None else reader.keys.shape[1]))  # (K, d)
    for rows, chunk in cells.iter_rows():
        counts = only(chunk, kept)
        member = _memberships(vectors[rows], centres)  # m: (cells, K)
        weight += member.sum(axis=0)
        if reader is not None:
            knowledge += member.T @ reader(counts)
        counts.data[:] = 1
        n_open += (counts.T @ member).T

    # 3. Openness over all cells, a little of the mean over OCRs with it.
    total = n_open.sum(axis=0, dtype=np.float64)
    openness = (total + _MEAN_CELLS * total.sum() / (n_cells * kept.sum())) / (n_cells + _MEAN_CELLS) * kept  # (L,)

    # 4. e_k is that openness, times the fold change that the network predicts for the group's mean cell, with the same sum over OCRs.
    for i in range(k):
        expected = openness
        if reader is not None:
            expected = openness * np.exp(reader.keys @ (knowledge[i] / weight[i]))
            expected *= openness.sum() / expected.sum()
        n_open[i] = (n_open[i] + _KNOWLEDGE_CELLS * expected) / (weight[i] + _KNOWLEDGE_CELLS)
    return GroupProfiles(centres, n_open)


def imputed_blocks(
    cells: Cells, openness: Openness, n_kept: int, threshold: float, *, progress: bool
) -> Iterator[csr_matrix]:
    """Blocks of imputed cells, with a column for each column of the object of the user."""
    size = int(np.clip(_BLOCK_BYTES // (4 * cells.n_vars), 1, 1024))
    with tqdm(total=len(cells), unit="cells", disable=not progress, desc="imputing") as bar:
        for rows, chunk in cells.iter_rows(chunk_size=size):
            expected = to_depth(openness.of(chunk, rows), np.diff(chunk.indptr))
            block = largest(expected, n_kept, threshold, openness.order)
            yield cells.widen(block)
            bar.update(chunk.shape[0])


def to_depth(expected: NDArray[np.float32], n_open: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scale expected openness (cells, L) so that each row adds up to the number of open OCRs (cells,), and limit it to 1; in place."""
    total = expected.sum(axis=1, dtype=np.float64)
    scale = np.divide(n_open, total, out=np.zeros_like(total), where=total > 0)
    expected *= scale[:, None].astype(np.float32)
    return np.minimum(expected, 1, out=expected)


def largest(values: NDArray[np.float32], n_kept: int, threshold: float, order: NDArray[np.int64]) -> csr_matrix:
    """Each row's `n_kept` largest values that are positive and not below a threshold, as CSR.

    Parameters
    ----------
    values
        Expected openness, shape (cells, L).
    n_kept
        Maximum number of entries of a row. Among equal values, those that come first in `order` are kept.
    threshold
        Minimum value.
    order
        Columns that are used, in an order that does not depend on that of `values`.
    """
    from scipy.sparse import csr_matrix

    ordered = values[:, order]
    is_kept = (ordered >= threshold) & (ordered > 0)
    if n_kept < len(order):
        cut = np.partition(ordered, -n_kept, axis=1)[:, [-n_kept]]
        above, at = ordered > cut, ordered == cut
        room = n_kept - above.sum(axis=1, keepdims=True)
        is_kept &= above | (at & (np.cumsum(at, axis=1, dtype=np.int32) <= room))
    cells, places = np.nonzero(is_kept)
    rows = csr_matrix((ordered[cells, places], (cells, order[places])), shape=values.shape)
    rows.sort_indices()
    return rows


def _memberships(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each cell belongs to each group, (cells, k); rows add up to 1."""
    weight = np.exp((normalize(vectors) @ centres.T - 1) / _TEMPERATURE)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def _centres(vectors: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    if k == 1:
        return normalize(vectors.mean(axis=0, keepdims=True)).astype(np.float32)
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=1, random_state=seed).fit(normalize(vectors)).cluster_centers_
    return normalize(found).astype(np.float32)
