"""Perturb OCRs: what heads read of cells before and after some values are changed, and the mean change of a prediction.

The value that is changed is the one that the network is given: a count after scaling to the cell's total and ``log(1 + x)``, if the model
has these steps. All other values stay. (With counts changed before these steps, the scaling would raise every other OCR of the cell.) The
product of values and factor defines all perturbations: 0 is a knock-out, and no factor opens an OCR that is closed.

With v_i the values of cell i, S_p the OCRs of perturbation p, f the features of a cell and h the head::

    v_ip = v_i, but factor * v_ij for j in S_p
    change of gene g in a group = mean over its cells i of h_g(f(v_ip)) - h_g(f(v_i))

Only pairs (i, p) in which an OCR of S_p is open are computed; in all others the difference is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .features import MIN_SHARED_OCRS
from .kinds import kind_of
from .reader import CellReader, changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from .features import CellFeatures
    from .local import LocalReader
    from .options import BatchSize

# Number of changed copies of cells that are held in memory at a time, if this fraction of the OCRs is open in a cell.
_COPIES, _OPEN = 200_000, 0.1
# Numbers of predicted values that are held in memory at a time.
_PREDICTED = 4_000_000
# What rounding may leave of a sum all of whose terms are taken away.
_NOTHING = 1e-9


class ChangedFeatures(NamedTuple):
    """Features of some cells and of their changed copies."""

    rows: NDArray[np.int64]
    """Row numbers of the cells, (n,)."""
    before: NDArray[np.float32]
    """Features of the cells, (n, d)."""
    cell: NDArray[np.int64]
    """The cell of each copy, counted among `rows`, (m,)."""
    perturbation: NDArray[np.int64]
    """The perturbation of each copy, (m,)."""
    after: NDArray[np.float32]
    """Features of the copies, (m, d)."""
    local: csr_matrix | None
    """Values of the cells for the local part of a prediction, (n, n_ocrs); None without one."""
    local_added: csr_matrix | None
    """What is added to them in the copies, (m, n_ocrs)."""


@dataclass(frozen=True)
class Effects:
    """Predicted expression before a perturbation, and its mean change.

    Attributes
    ----------
    n_cells
        Number of cells of each group, (n_groups,).
    n_changed
        Number of cells in which an OCR of the perturbation is open, so that anything changes, (n_perturbations, n_groups).
    before
        Mean prediction of each group, (n_groups, n_genes); NaN for a group without cells.
    change
        Mean over all cells of the group of the prediction after minus before, (n_perturbations, n_groups, n_genes).
    """

    n_cells: NDArray[np.int64]
    n_changed: NDArray[np.int64]
    before: NDArray[np.float64]
    change: NDArray[np.float64]


def changed_features(
    features: CellFeatures,
    cells: Cells,
    sets: csr_matrix,
    factor: float,
    local: LocalReader | None = None,
    *,
    device: str = "auto",
    batch_size: BatchSize = "auto",
    seed: int = 0,
    progress: bool = True,
    share: bool = True,
) -> Iterator[ChangedFeatures]:
    """Features of cells and of their changed copies, chunk by chunk.

    Parameters
    ----------
    features
        What heads read.
    cells
        The cells.
    sets
        1 for each OCR of each perturbation, (n_perturbations, n_ocrs).
    factor
        Factor of the values of these OCRs.
    local
        What reads the values for the local part of a prediction, if it has one.
    device, batch_size, seed
        Options of the network, as in `CellFeatures`.
    progress
        Show a progress bar.
    share
        Whether a cell and its copies may share work. Without it every copy is run anew, which is slow and defines the result.
    """
    reader = kind_of(features.checkpoint).reader(cells, device=device, batch_size=batch_size, seed=seed, exact=True)
    read = reader.changed if share else CellReader.changed.__get__(reader)
    axes = None
    if features.view is not None and features.view.coverage(cells.ocrs) >= MIN_SHARED_OCRS:
        axes = features.view.axes_of(cells.ocrs)  # (n_ocrs, k)
    with tqdm(total=len(cells), unit="cells", disable=not progress, desc="perturbing") as bar:
        chunk_size = min(reader.chunk_size, max(1, int(_COPIES / _OPEN / max(1, sets.shape[0]))))
        for rows, counts in cells.iter_rows(chunk_size=chunk_size):
            numbers = np.arange(len(cells))[rows]
            values = reader.prepare(counts)
            copies = changes(values, sets, factor)
            before, after = read(values, cells.names[rows], copies)
            near = None if local is None else local.prepare(counts)
            near_added = None if near is None else copies.added_to(near)
            if axes is not None:
                # The measured view is linear in the counts and then scaled to length 1, so that its scaling before does not matter.
                of_cells, of_copies = _measured(counts, copies.added_to(counts), copies.cell, axes)
                before, after = np.hstack([before, of_cells]), np.hstack([after, of_copies])
            yield ChangedFeatures(numbers, before, copies.cell, copies.perturbation, after, near, near_added)
            bar.update(len(numbers))


def _measured(
    counts: csr_matrix, added: csr_matrix, cell: NDArray[np.int64], axes: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Spectral components of cells (n, k) and of copies (m, k), scaled to length 1."""
    total = counts.astype(np.float64) @ axes
    changed = total[cell] + added.astype(np.float64) @ axes
    size, size_changed = (np.linalg.norm(x, axis=1, keepdims=True) for x in (total, changed))
    changed[size_changed[:, 0] <= _NOTHING * size[cell][:, 0]] = 0  # the only OCR that counts was closed
    scaled = (x / np.maximum(n, 1e-12) for x, n in ((total, size), (changed, size_changed)))
    before, after = (x.astype(np.float32) for x in scaled)
    return before, after


def mean_effects(
    parts: Iterator[ChangedFeatures],
    head: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    local: Callable[[csr_matrix], NDArray[np.float32]] | None,
    *,
    n_perturbations: int,
    groups: NDArray[np.int64],
    n_groups: int,
    n_genes: int,
) -> Effects:
    """Mean predictions of groups of cells, and their mean changes.

    Parameters
    ----------
    parts
        Features, from `changed_features`.
    head
        Function from features (n, d) to predictions (n, n_genes).
    local
        Linear function from values (n, n_ocrs) to what the local part adds to them, (n, n_genes); None without one.
    n_perturbations, n_groups, n_genes
        Numbers of perturbations, groups and genes.
    groups
        Number of the group of each cell, -1 for cells that are left out, (n_cells,).
    """
    n_cells = np.bincount(groups[groups >= 0], minlength=n_groups).astype(np.int64)
    n_changed = np.zeros(n_perturbations * n_groups, dtype=np.int64)
    before = np.zeros((n_groups, n_genes))
    change = np.zeros((n_perturbations * n_groups, n_genes))
    step = max(1, _PREDICTED // max(1, n_genes))
    for part in parts:
        group = groups[part.rows]
        of_head = head(part.before)  # (n, n_genes)
        predicted = of_head if local is None or part.local is None else of_head + local(part.local)
        np.add.at(before, group[group >= 0], predicted[group >= 0])
        counted = np.flatnonzero(group[part.cell] >= 0)
        target = part.perturbation * n_groups + group[part.cell]
        n_changed += np.bincount(target[counted], minlength=len(n_changed))
        for first in range(0, len(counted), step):
            some = counted[first : first + step]
            some = some[np.argsort(target[some], kind="stable")]
            differs = head(part.after[some]).astype(np.float64) - of_head[part.cell[some]]
            if local is not None and part.local_added is not None:
                differs += local(part.local_added[some])
            # sums over the copies of one perturbation and group, which lie together
            each, start = np.unique(target[some], return_index=True)
            change[each] += np.add.reduceat(differs, start, axis=0)
    per_group = np.where(n_cells > 0, n_cells, np.nan)[:, None]
    shape = (n_perturbations, n_groups)
    return Effects(n_cells, n_changed.reshape(shape), before / per_group, change.reshape(*shape, n_genes) / per_group)
