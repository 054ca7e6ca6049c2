"""Denoised accessibility: what the cells of a group have open, with what is known of the regions where they tell little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data import iter_rows
from ..data._fit_rows import N_FIT_CELLS
from ._profiles import only

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ._profiles import CellReader

# Chosen on thinned bone marrow, see benchmarks/imputation.py.
_MOST_GROUPS = 50
_CELLS_PER_GROUP = 30
_TEMPERATURE = 0.1  # of the softmax over cosines by which a cell belongs to groups
_KNOWLEDGE_CELLS = 30.0  # what is known of the regions counts as much as this many cells of a group
_MEAN_CELLS = 0.5  # the same for the mean over all OCRs in the openness of one OCR


@dataclass(frozen=True)
class GroupProfiles:
    """Groups of similar cells and how open each OCR is in them.

    Attributes
    ----------
    centres
        Directions of the groups in the space of cell vectors, (k, d).
    profiles
        Expected part of the group's cells in which an OCR is open, (k, L); 0 for OCRs that take no part.
    """

    centres: NDArray[np.float32]
    profiles: NDArray[np.float32]

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Expected openness of cells by their vectors: (cells, d) -> (cells, L)."""
        return _memberships(vectors, self.centres) @ self.profiles


def n_groups(n_cells: int) -> int:
    """How many groups so many cells are divided into."""
    return int(np.clip(n_cells // _CELLS_PER_GROUP, 1, _MOST_GROUPS))


def group_profiles(
    matrix: Any,
    vectors: NDArray[np.float32],
    reader: CellReader | None,
    *,
    kept: NDArray[np.bool_],
    fit_order: NDArray[np.int64],
    seed: int = 0,
) -> GroupProfiles:
    """Divide cells into groups by their vectors and find the openness of OCRs in each.

    The openness of OCR j in group k is ``(c_kj + s e_kj) / (w_k + s)``: c the cells of the group that have it open, each cell by its
    membership, w the sum of memberships, s 30. The expectation e is the OCR's openness over all cells, times the fold change that the
    reader predicts for the group's mean cell vector, so that a group of few cells goes by what is known of the regions, and a large
    one by its cells.

    Parameters
    ----------
    matrix
        Counts, shape (n_cells, n_columns), in any form that `scfound_atac.data.iter_rows` reads. Any count is open.
    vectors
        Embedding of the cells, (n_cells, d), compared by direction.
    reader
        Gives cell vectors whose products with its keys are log fold changes; None if nothing is known of the regions.
    kept
        Columns that take part, shape (n_columns,).
    fit_order
        Row numbers of the cells from which groups are found, in the order that the search starts from; at most 20,000 are used.
    seed
        Start of the search.
    """
    n_cells, k = len(vectors), n_groups(len(vectors))
    centres = _centres(vectors[fit_order[:N_FIT_CELLS]], k, seed)
    n_open = np.zeros((k, len(kept)), dtype=np.float32)
    weight = np.zeros(k)
    knowledge = np.zeros((k, 0 if reader is None else reader.keys.shape[1]))
    for rows, chunk in iter_rows(matrix):
        counts = only(chunk, kept)
        member = _memberships(vectors[rows], centres)
        weight += member.sum(axis=0)
        if reader is not None:
            knowledge += member.T @ reader(counts, counts, np.ones(len(kept), dtype=np.float32))
        counts.data[:] = 1
        n_open += (counts.T @ member).T
    total = n_open.sum(axis=0, dtype=np.float64)
    openness = (total + _MEAN_CELLS * total.sum() / (n_cells * kept.sum())) / (n_cells + _MEAN_CELLS) * kept
    for i in range(k):
        expected = openness
        if reader is not None:
            expected = openness * np.exp(reader.keys @ (knowledge[i] / weight[i]))
            expected *= openness.sum() / expected.sum()
        n_open[i] = (n_open[i] + _KNOWLEDGE_CELLS * expected) / (weight[i] + _KNOWLEDGE_CELLS)
    return GroupProfiles(centres, n_open)


def to_depth(expected: NDArray[np.float32], n_open: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scale expected openness (cells, L) so that each cell's adds up to its number of open OCRs (cells,), then cut at 1; in place."""
    total = expected.sum(axis=1, dtype=np.float64)
    scale = np.divide(n_open, total, out=np.zeros_like(total), where=total > 0)
    expected *= scale[:, None].astype(np.float32)
    return np.minimum(expected, 1, out=expected)


def largest(values: NDArray[np.float32], n_kept: int, threshold: float, order: NDArray[np.int64]) -> csr_matrix:
    """Each row's `n_kept` largest values that are positive and not below a threshold, as CSR.

    Parameters
    ----------
    values
        Shape (cells, L).
    n_kept
        Most entries of a row. Of equal values at the end, those that come first in `order` are taken.
    threshold
        Least value.
    order
        Columns that are looked at, in an order that does not depend on that of `values`.
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


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _memberships(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each cell belongs to each group, (cells, k); rows add up to 1."""
    weight = np.exp((_unit(vectors) @ centres.T - 1) / _TEMPERATURE)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def _centres(vectors: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    if k == 1:
        return _unit(vectors.mean(axis=0, keepdims=True)).astype(np.float32)
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=1, random_state=seed).fit(_unit(vectors)).cluster_centers_
    return _unit(found).astype(np.float32)
