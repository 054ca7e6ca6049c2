"""Groups of cells that a column of ``obs`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._labels import read_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..data import Cells

EVERYONE = "all"
"""Name of the group of all cells."""


def groups_of(cells: Cells, groupby: str | None) -> tuple[NDArray[np.int64], list[str]]:
    """Number of the group of each cell, -1 for none, (n_cells,), and the names of the groups; one group of all cells without `groupby`."""
    if groupby is None:
        return np.zeros(len(cells), dtype=np.int64), [EVERYONE]
    return read_labels(cells.column(groupby, "groupby"), groupby, role=cells.role, n_min=1)
