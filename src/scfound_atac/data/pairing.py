"""Which names of two modalities belong to the same cell, although they are spelled differently: ``AAAC-1`` and ``s1#AAAC-1_rna``."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"[A-Za-z0-9]+")
_BARCODE = re.compile(r"[ACGTN]{6,}")


def match_names(first: pd.Index, second: pd.Index) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the cells whose names mean the same, in the order of `first`.

    Equal names belong together. Of the other names, those belong together that consist of the same words (letters and digits between
    other characters) in any order. Words do not count that several cells of one modality have and no cell of the other, such as the name
    of the assay or of the sample; barcodes always count. Names that cannot be told apart so belong to none.

    Parameters
    ----------
    first, second
        Names of cells, each without repeats.

    Returns
    -------
    Row numbers in `first` and in `second`, both of shape (n_pairs,).
    """
    rows = second.get_indexer(first)
    alone, others = np.flatnonzero(rows < 0), np.setdiff1d(np.arange(len(second)), rows)
    if len(alone) and len(others):
        words = [[_WORD.findall(str(name)) for name in names] for names in (first, second)]
        counts = [Counter(word for name in names for word in set(name)) for names in words]
        keys = []
        for names, own, other, left in zip(words, counts, reversed(counts), (alone, others), strict=True):
            dropped = {word for word, n in own.items() if n > 1 and word not in other and not _BARCODE.fullmatch(word)}
            keys.append(pd.Index([" ".join(sorted(word for word in names[i] if word not in dropped)) for i in left]))
        is_single = [~key.duplicated(keep=False) & (key != "") for key in keys]
        found = keys[1][is_single[1]].get_indexer(keys[0])
        found[~is_single[0]] = -1
        rows[alone] = np.where(found >= 0, others[is_single[1]][found] if is_single[1].any() else -1, -1)
    kept = np.flatnonzero(rows >= 0)
    return kept.astype(np.int64), rows[kept].astype(np.int64)
