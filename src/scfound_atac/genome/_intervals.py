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


def best_overlaps(a: pd.DataFrame, b: pd.DataFrame, *, min_overlap: int = 1, min_coverage: float = 0.0) -> pd.DataFrame:
    """For each interval of `a` the one of `b` that it shares most bases with.

    Where several share as many, one with the same coordinates comes first, else the first in `b`.

    Parameters
    ----------
    a, b
        Columns ``chrom``, ``start``, ``end``, in any order.
    min_overlap
        Least bases that are shared.
    min_coverage
        Least share of the interval of `a` that is shared, 0 to 1.

    Returns
    -------
    One row per interval of `a` that has such a partner: row numbers ``a`` and ``b`` and, as ``n_targets``, how many of `b` would have
    done. Sorted by ``a``.
    """
    pairs = overlaps(a, b)
    (starts_a, ends_a), (starts_b, ends_b) = ((x["start"].to_numpy(), x["end"].to_numpy()) for x in (a, b))
    i, j, shared = (pairs[name].to_numpy() for name in ("a", "b", "n_bases"))
    pairs = pairs.assign(differs=(starts_a[i] != starts_b[j]) | (ends_a[i] != ends_b[j]))
    pairs = pairs[(shared >= min_overlap) & (shared >= min_coverage * (ends_a - starts_a)[i])]
    pairs = pairs.sort_values(["a", "n_bases", "differs", "b"], ascending=[True, False, True, True])
    best = pairs.drop_duplicates("a")[["a", "b"]]
    n_targets = np.bincount(pairs["a"], minlength=len(a))
    return best.assign(n_targets=n_targets[best["a"]]).reset_index(drop=True)
