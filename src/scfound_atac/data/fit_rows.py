"""Choose the cells to which PCA and other steps are fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FIT_CELLS = 20_000
"""Maximum number of cells to which PCA is fitted. PCA needs 8 bytes for each pair of them: 3.2 GB for any number of cells."""


def fit_rows(names: pd.Index | NDArray[np.object_], n: int, seed: int) -> NDArray[np.int64]:
    """Sorted numbers of at most `n` rows: those with the smallest seeded hash of the name, so that cell order does not matter."""
    if len(names) <= n:
        return np.arange(len(names))
    hashed = pd.util.hash_array(np.asarray(names, dtype=object), hash_key=f"{seed:016d}"[:16])
    return np.sort(np.argsort(hashed, kind="stable")[:n])
