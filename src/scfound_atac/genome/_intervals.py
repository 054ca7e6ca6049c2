"""Overlap of sets of intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ._chromosomes import normalize_chromosomes


def plain(ocrs: pd.DataFrame) -> pd.DataFrame:
    """Nothing but the coordinates, with chromosomes in one spelling."""
    chrom = normalize_chromosomes(ocrs["chrom"])
    return pd.DataFrame({"chrom": chrom, "start": ocrs["start"].to_numpy(), "end": ocrs["end"].to_numpy()})


def overlaps(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """All pairs of overlapping intervals.

    Intervals are 0-based and half-open; those that only touch do not overlap.

    Parameters
    ----------
    a, b
        Tables with columns ``chrom``, ``start``, ``end``, in any order.

    Returns
    -------
    One row per pair: row numbers ``a`` and ``b`` and the number of common bases ``n_bases`` (all int64), sorted by ``a``, then ``b``.
    """
    if a.empty or b.empty:
        return pd.DataFrame({name: np.array([], dtype=np.int64) for name in ("a", "b", "n_bases")})
    import bioframe

    pairs = bioframe.overlap(
        plain(a), plain(b), how="inner", return_input=False, return_index=True, return_overlap=True
    )
    first, second = pairs["index"].to_numpy(np.int64), pairs["index_"].to_numpy(np.int64)
    n_bases = (pairs["overlap_end"] - pairs["overlap_start"]).to_numpy(np.int64)
    order = np.lexsort((second, first))
    return pd.DataFrame({"a": first[order], "b": second[order], "n_bases": n_bases[order]})


def best_overlaps(a: pd.DataFrame, b: pd.DataFrame, *, min_overlap: int = 1, min_coverage: float = 0.0) -> pd.DataFrame:
    """For each interval of `a`, find the interval of `b` with which it has most bases in common.

    Among several with the same number of bases, one with the same coordinates is preferred, or else the first in `b`.

    Parameters
    ----------
    a, b
        Tables with columns ``chrom``, ``start``, ``end``, in any order.
    min_overlap
        Minimum number of common bases.
    min_coverage
        Minimum fraction of the interval of `a` that is covered, 0 to 1.

    Returns
    -------
    One row per interval of `a` that has a partner, sorted by ``a``: row numbers ``a`` and ``b``, and ``n_targets``, the number of intervals
    of `b` that meet both conditions.
    """
    # 1. All overlapping pairs: row numbers i of a and j of b, and common bases, each (n_pairs,).
    pairs = overlaps(a, b)
    (starts_a, ends_a), (starts_b, ends_b) = ((x["start"].to_numpy(), x["end"].to_numpy()) for x in (a, b))
    i, j, shared = (pairs[name].to_numpy() for name in ("a", "b", "n_bases"))
    pairs = pairs.assign(differs=(starts_a[i] != starts_b[j]) | (ends_a[i] != ends_b[j]))
    # 2. Pairs that meet both conditions.
    pairs = pairs[(shared >= min_overlap) & (shared >= min_coverage * (ends_a - starts_a)[i])]
    # 3. The best pair of each interval of a, and how many it had.
    pairs = pairs.sort_values(["a", "n_bases", "differs", "b"], ascending=[True, False, True, True])
    best = pairs.drop_duplicates("a")[["a", "b"]]
    n_targets = np.bincount(pairs["a"], minlength=len(a))
    return best.assign(n_targets=n_targets[best["a"]]).reset_index(drop=True)
