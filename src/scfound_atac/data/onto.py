"""Counts of cells on the OCRs of another data set, by overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..genome import best_overlaps
from .cells import Cells

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


def transfer_matrix(best: pd.DataFrame, n_source: int, n_target: int) -> csr_matrix:
    """1 for each OCR and its target, (n_source, n_target), by a table of `scfound_atac.genome.best_overlaps`."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(best), dtype=np.float32)
    return csr_matrix((ones, (best["a"], best["b"])), shape=(n_source, n_target), dtype=np.float32)


def onto(cells: Cells, target: pd.DataFrame, role: str) -> tuple[Cells, dict[str, float]]:
    """Cells with their counts on other OCRs, in memory, and how many are kept.

    Each OCR is assigned to the target with which it has most bases in common, as in `scfound_atac.pp.map_ocrs`.

    Parameters
    ----------
    cells
        Cells to map.
    target
        ``chrom``, ``start`` and ``end`` of the OCRs to map to.
    role
        Name of the object with the target OCRs, for messages.

    Returns
    -------
    The cells, and a dict: ``fraction_basis``, the fraction of the target OCRs that an OCR of the cells is assigned to, and
    ``fraction_ocrs`` and ``fraction_open``, the fractions of the OCRs, and of the open OCRs over all cells, that have a target.

    Raises
    ------
    ValueError
        If nothing overlaps.
    """
    from scipy.sparse import vstack

    best = best_overlaps(cells.ocrs, target)
    if best.empty:
        msg = (
            f"No OCR of {cells.role} overlaps one of {role} ({cells.n_ocrs} and {len(target)} OCRs). Check that both are on GRCh38 "
            "(sfa.pp.liftover_ocrs), or take another basis."
        )
        raise ValueError(msg)
    transfer = transfer_matrix(best, cells.n_ocrs, len(target))
    is_kept = np.diff(transfer.indptr) > 0
    chunks, n_open, n_kept = [], 0, 0
    for _, chunk in cells.iter_rows():
        chunks.append(chunk @ transfer)
        n_open += chunk.nnz
        n_kept += int(is_kept[chunk.indices].sum())
    matrix = vstack(chunks, format="csr")
    is_empty: NDArray[np.bool_] = np.diff(matrix.indptr) == 0
    coverage = {
        "fraction_basis": float(best["b"].nunique() / len(target)),
        "fraction_ocrs": float(is_kept.mean()),
        "fraction_open": n_kept / n_open if n_open else float("nan"),
    }
    return Cells(matrix, None, target, cells.names, is_empty, cells.role, cells.source), coverage
