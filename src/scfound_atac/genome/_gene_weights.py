"""Which OCRs speak of which gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ._intervals import overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_DECAY = 5000
_REACH = 100_000


def gene_weights(
    ocrs: pd.DataFrame,
    genes: pd.DataFrame,
    *,
    upstream: int = 2000,
    downstream: int = 0,
    weights: Literal["none", "distance"] = "none",
) -> csr_matrix:
    """What each OCR adds to the activity of each gene.

    A gene's region is its body with its promoter: `upstream` bases before the start of transcription, `downstream` beyond its end.

    Parameters
    ----------
    ocrs
        ``chrom``, ``start``, ``end``, as from `get_ocrs`; in any order.
    genes
        As from `read_genes`.
    upstream, downstream
        Bases by which the body is extended; upstream is before the start of transcription, on either strand.
    weights
        ``"none"``: 1 for an OCR that overlaps the region, as in Signac's GeneActivity (Stuart et al. 2021), which counts fragments
        there. ``"distance"``: ``exp(-d / 5000) + exp(-1)`` for an OCR d bases from the region (0 within) and up to 100 kb, the decay of
        ArchR's gene score (Granja et al. 2021, model 42). ArchR ends a gene's reach at its neighbours and weighs genes by their size
        besides; neither is done here.

    Returns
    -------
    CSR float32 (n_ocrs, n_genes), rows and columns as given.

    Raises
    ------
    ValueError
        For an unknown `weights` or a negative extension.
    """
    from scipy.sparse import csr_matrix

    if weights not in ("none", "distance"):
        msg = f"Unknown weights {weights!r}; use 'none' or 'distance'."
        raise ValueError(msg)
    for name, value in (("upstream", upstream), ("downstream", downstream)):
        if value < 0:
            msg = f"{name}={value} must not be negative."
            raise ValueError(msg)
    is_plus = (genes["strand"] == "+").to_numpy()
    left, right = np.where(is_plus, upstream, downstream), np.where(is_plus, downstream, upstream)
    region = pd.DataFrame(
        {"chrom": genes["chrom"], "start": genes["start"] - left, "end": genes["end"] + right}
    ).reset_index(drop=True)
    reach = _REACH if weights == "distance" else 0
    pairs = overlaps(ocrs, region.assign(start=region["start"] - reach, end=region["end"] + reach))
    ocr, gene = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    if weights == "none":
        values = np.ones(len(pairs), dtype=np.float32)
    else:
        values = np.exp(-_distances(ocrs, region, ocr, gene) / _DECAY) + np.exp(-1)
    return csr_matrix((values.astype(np.float32), (ocr, gene)), shape=(len(ocrs), len(genes)))


def _distances(
    ocrs: pd.DataFrame, region: pd.DataFrame, ocr: NDArray[np.int64], gene: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Bases between pairs of intervals; 0 where they overlap or touch."""
    before = region["start"].to_numpy()[gene] - ocrs["end"].to_numpy()[ocr]
    behind = ocrs["start"].to_numpy()[ocr] - region["end"].to_numpy()[gene]
    return np.maximum(np.maximum(before, behind), 0)
