"""What the numbers of a matrix are."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from ._rows import iter_rows, shape_of

CountKind: TypeAlias = Literal["binary", "reads", "fragments", "normalised"]


def count_kind(matrix: Any, *, n_rows: int = 1000, seed: int = 0) -> CountKind:
    """Tell what a matrix holds from a sample of its cells.

    A fragment has two ends, each counted as one insertion. Where ends are counted ("reads"), even values are therefore the rule and 2
    is commoner than 1; where fragments are counted, 1 is the commonest value (Martens et al. 2023, "Modeling fragment counts improves
    single-cell ATAC-seq analysis").

    Parameters
    ----------
    matrix
        Anything that `iter_rows` reads, shape (n_cells, n_ocrs).
    n_rows
        Number of cells looked at.
    seed
        Seed of the sample.

    Returns
    -------
    ``"binary"`` if all values are 0 or 1 (so for a matrix without any values), ``"reads"`` or ``"fragments"`` for other whole numbers,
    ``"normalised"`` if any value is negative, not whole or not finite.
    """
    n_cells, _ = shape_of(matrix)
    rows = None
    if n_cells > n_rows:
        rows = np.sort(np.random.default_rng(seed).choice(n_cells, n_rows, replace=False))
    ones = twos = larger = 0
    for _, chunk in iter_rows(matrix, chunk_size=256, rows=rows):
        values = chunk.data
        if not (np.isfinite(values).all() and (values >= 0).all() and (values == np.round(values)).all()):
            return "normalised"
        n_ones, n_twos = int((values == 1).sum()), int((values == 2).sum())
        ones, twos, larger = ones + n_ones, twos + n_twos, larger + len(values) - n_ones - n_twos
    if twos + larger == 0:
        return "binary"
    return "reads" if twos > ones else "fragments"
