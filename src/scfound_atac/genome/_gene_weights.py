"""Weights of OCRs for the activity of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ._intervals import overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# Both as in ArchR: bases over which the weight falls to 1 / e, and the largest distance.
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
    """Weight of each OCR for the activity of each gene.

    The region of a gene is its body, extended by `upstream` bases before the start of transcription and `downstream` bases beyond its end.

    Parameters
    ----------
    ocrs
        Table with ``chrom``, ``start``, ``end``, as from `get_ocrs`, in any order.
    genes
        Table of genes, as from `read_genes`.
    upstream, downstream
        Number of bases by which the body is extended; upstream is before the start of transcription on either strand.
    weights
        - ``"none"``: 1 for an OCR that overlaps the region, as in GeneActivity of Signac (Stuart et al. 2021), which counts fragments.
        - ``"distance"``: ``exp(-d / 5000) + exp(-1)`` for an OCR at a distance of d bases (0 inside the region) up to 100 kb, the decay
          of the gene score of ArchR (Granja et al. 2021, model 42). ArchR also stops at neighbouring genes and weights genes by their
          size; this function does not.

    Returns
    -------
    CSR float32 (n_ocrs, n_genes), in the order of `ocrs` and `genes`.

    Raises
    ------
    ValueError
        If `weights` is unknown or an extension is negative.
    """
    from scipy.sparse import csr_matrix

    if weights not in ("none", "distance"):
        msg = f"Unknown weights {weights!r}; use 'none' or 'distance'."
        raise ValueError(msg)
    for name, value in (("upstream", upstream), ("downstream", downstream)):
        if value < 0:
            msg = f"{name}={value} must not be negative."
            raise ValueError(msg)
    # 1. The region of each gene; upstream is on the left for the plus strand and on the right for the minus strand.
    is_plus = (genes["strand"] == "+").to_numpy()
    left, right = np.where(is_plus, upstream, downstream), np.where(is_plus, downstream, upstream)
    region = pd.DataFrame(
        {"chrom": genes["chrom"], "start": genes["start"] - left, "end": genes["end"] + right}
    ).reset_index(drop=True)
    # 2. Pairs of an OCR and a gene within reach.
    reach = _REACH if weights == "distance" else 0
    pairs = overlaps(ocrs, region.assign(start=region["start"] - reach, end=region["end"] + reach))
    ocr, gene = pairs["a"].to_numpy(), pairs["b"].to_numpy()  # both (n_pairs,)
    # 3. Their weights.
    if weights == "none":
        values = np.ones(len(pairs), dtype=np.float32)
    else:
        values = np.exp(-_distances(ocrs, region, ocr, gene) / _DECAY) + np.exp(-1)
    return csr_matrix((values.astype(np.float32), (ocr, gene)), shape=(len(ocrs), len(genes)))


def _distances(
    ocrs: pd.DataFrame, region: pd.DataFrame, ocr: NDArray[np.int64], gene: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number of bases between the intervals of each pair, (n_pairs,); 0 if they overlap or touch."""
    before = region["start"].to_numpy()[gene] - ocrs["end"].to_numpy()[ocr]
    behind = ocrs["start"].to_numpy()[ocr] - region["end"].to_numpy()[gene]
    return np.maximum(np.maximum(before, behind), 0)
