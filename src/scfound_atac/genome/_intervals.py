"""Overlap of interval sets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ._chromosomes import normalize_chromosomes


def _plain(ocrs: pd.DataFrame) -> pd.DataFrame:
    chrom = normalize_chromosomes(ocrs["chrom"])
    return pd.DataFrame({"chrom": chrom, "start": ocrs["start"].to_numpy(), "end": ocrs["end"].to_numpy()})


def overlaps(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """All pairs of overlapping intervals.

    Intervals are 0-based and half-open: those that only touch do not overlap.

    Parameters
    ----------
    a, b
        Columns ``chrom``, ``start``, ``end``, in any order.

    Returns
    -------
    One row per pair: row numbers ``a`` and ``b`` and the shared bases ``n_bases`` (all int64), sorted by ``a``, then ``b``.
    """
    if a.empty or b.empty:
        return pd.DataFrame({name: np.array([], dtype=np.int64) for name in ("a", "b", "n_bases")})
    import bioframe

    pairs = bioframe.overlap(
        _plain(a), _plain(b), how="inner", return_input=False, return_index=True, return_overlap=True
    )
    first, second = pairs["index"].to_numpy(np.int64), pairs["index_"].to_numpy(np.int64)
    n_bases = (pairs["overlap_end"] - pairs["overlap_start"]).to_numpy(np.int64)
    order = np.lexsort((second, first))
    return pd.DataFrame({"a": first[order], "b": second[order], "n_bases": n_bases[order]})
