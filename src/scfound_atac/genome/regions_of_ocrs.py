"""Regions that overlapping OCRs form together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._intervals import plain

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def regions_of_ocrs(ocrs: pd.DataFrame) -> NDArray[np.int64]:
    """Number of the region of each OCR, (n_ocrs,): OCRs that overlap, directly or by way of others, have the same number.

    OCRs that only touch do not overlap. Numbers are from 0, without gaps; `ocrs` has ``chrom``, ``start`` and ``end``, in any order.
    """
    import bioframe

    found = bioframe.cluster(plain(ocrs), min_dist=None, return_cluster_intervals=False)
    return np.unique(found["cluster"].to_numpy(np.int64), return_inverse=True)[1]
