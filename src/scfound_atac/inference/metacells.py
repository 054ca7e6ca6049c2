"""Groups of like cells, whose sums are less sparse than cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


def metacells(vectors: NDArray, n_per: int = 20) -> NDArray[np.int64]:
    """Divide cells into groups of equal size that lie close to each other.

    The cells are halved along their first principal axis, and so are the halves, until there are n_cells / n_per groups. Unlike clusters,
    the groups have sizes that differ by at most one, so that their sums are equally exact; nothing is drawn.

    Parameters
    ----------
    vectors
        An embedding, (n_cells, d).
    n_per
        Number of cells per group.

    Returns
    -------
    Number of the group of each cell, from 0 to n_groups - 1, (n_cells,).
    """
    n_groups = max(round(len(vectors) / n_per), 1)
    group = np.empty(len(vectors), dtype=np.int64)
    waiting = [(np.arange(len(vectors)), 0, n_groups)]  # cells, and the numbers of their groups
    while waiting:
        cells, first, last = waiting.pop()
        if last - first == 1:
            group[cells] = first
            continue
        middle = (first + last) // 2
        here = np.asarray(vectors[cells], dtype=np.float64)
        here -= here.mean(axis=0)
        axis = np.linalg.eigh(here.T @ here)[1][
            :, -1
        ]  # its sign does not matter: groups are only numbered the other way round
        axis *= np.sign(axis[np.abs(axis).argmax()])
        order = cells[np.argsort(here @ axis, kind="stable")]
        n_left = round(len(cells) * (middle - first) / (last - first))
        waiting += [(order[:n_left], first, middle), (order[n_left:], middle, last)]
    return group


def sum_groups(rows: csr_matrix | NDArray, group: NDArray[np.int64], *, mean: bool = False) -> csr_matrix | NDArray:
    """Sums, or means, of the rows (n_cells, n) of each group, (n_groups, n): sparse if `rows` are, float32."""
    from scipy.sparse import csr_matrix

    n_cells, n_groups = len(group), int(group.max()) + 1
    weight = 1 / np.bincount(group, minlength=n_groups)[group] if mean else np.ones(n_cells)
    member = csr_matrix((weight.astype(np.float32), (group, np.arange(n_cells))), shape=(n_groups, n_cells))
    return member @ rows
