"""Which cells something is fitted to, when there are many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FIT_CELLS = 20_000
"""Cells that PCA and its like are fitted to, at most. PCA takes 8 bytes for each pair of them: 3.2 GB, whatever the number of cells."""


def fit_rows(names: pd.Index | NDArray[np.object_], n: int, seed: int) -> NDArray[np.int64]:
    """At most `n` rows, those whose seeded hash of the name is smallest, so that cell order plays no part; rising."""
    if len(names) <= n:
        return np.arange(len(names))
    hashed = pd.util.hash_array(np.asarray(names, dtype=object), hash_key=f"{seed:016d}"[:16])
    return np.sort(np.argsort(hashed, kind="stable")[:n])
