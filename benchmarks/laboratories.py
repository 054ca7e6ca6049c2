"""Three simulated laboratories: real cells, each laboratory with peaks, a depth and a bias of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import bioframe
import numpy as np
import pandas as pd
from scipy import sparse

import scfound_atac as sfa

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTHS = {"lab_a": 1.0, "lab_b": 0.7, "lab_c": 0.45}
"""Fraction of the counts that a laboratory keeps of an OCR without bias."""
_COMPOSITION = 0.7  # standard deviation of the log of how likely a cell type gets into a laboratory
_BIAS = 0.5  # standard deviation of the log of the factor of an OCR in a laboratory
_DROPPED, _SPLIT = 0.15, 0.10  # fractions of the OCRs that a laboratory does not call, and calls as two
_SHIFT = 60  # standard deviation of a bound, in bases
_MERGED_WITHIN = 20_000  # neighbouring OCRs that are called as one


def laboratories(adata: ad.AnnData, labels_key: str, seed: int) -> ad.AnnData:
    """Divide cells among three laboratories and concatenate what these measure, as a user would: ``ad.concat(..., join="outer")``.

    Each cell is in one laboratory, and types are not equally frequent in all. A laboratory drops some OCRs, splits some into halves that
    share the counts at random, merges some neighbours, and moves all bounds. Counts are thinned by the depth of the laboratory times a
    lognormal factor per OCR; the thinning can only remove counts, so that factors above 1 / depth are cut.

    Returns
    -------
    Cells x all OCRs of all laboratories, with counts of 0 where a laboratory does not have the OCR, ``obs["lab"]`` and the labels.
    """
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(adata.X)
    types, names = pd.factorize(adata.obs[labels_key].astype(str), sort=True)
    weight = np.exp(rng.normal(scale=_COMPOSITION, size=(len(names), len(DEPTHS))))
    weight /= weight.sum(axis=1, keepdims=True)
    lab_of = (rng.random(adata.n_obs)[:, None] > weight[types].cumsum(axis=1)).sum(axis=1)
    parts = {}
    for number, (name, depth) in enumerate(DEPTHS.items()):
        rows = np.flatnonzero(lab_of == number)
        thinned = _thinned(counts[rows], depth * np.exp(rng.normal(scale=_BIAS, size=adata.n_vars)), rng)
        columns, ocrs = _called(adata.var, rng)
        values = _assigned(thinned, columns, len(ocrs), rng)
        ocrs.index = ocrs["chrom"].astype(str) + ":" + ocrs["start"].astype(str) + "-" + ocrs["end"].astype(str)
        parts[name] = ad.AnnData(values, obs=adata.obs.iloc[rows][[labels_key]].copy(), var=ocrs)
    joined = ad.concat(parts, join="outer", label="lab", merge="first")
    joined.X = sparse.csr_matrix(joined.X)
    joined.uns["genome"] = "GRCh38"
    return joined[np.diff(joined.X.indptr) > 0].copy()


def _thinned(counts: sparse.csr_matrix, kept: NDArray[np.float64], rng: np.random.Generator) -> sparse.csr_matrix:
    """Each count of an OCR is kept with a probability."""
    out = counts.copy()
    out.data = rng.binomial(out.data.astype(int), np.minimum(kept, 1)[out.indices]).astype(np.float32)
    out.eliminate_zeros()
    return out


def _called(var: pd.DataFrame, rng: np.random.Generator) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """The one or two peaks of each OCR in a laboratory, (n_ocrs, 2), -1 for none, and the table of peaks."""
    chrom = var["chrom"].astype(str).to_numpy()
    start, end = var["start"].to_numpy(), var["end"].to_numpy()
    order = np.lexsort((start, chrom))
    fate = rng.random(len(var))
    columns = np.full((len(var), 2), -1)
    rows: list[tuple[str, int, int]] = []
    for place, i in enumerate(order):
        if fate[i] < _DROPPED:
            continue
        left, right = start[i] + int(rng.normal(scale=_SHIFT)), end[i] + int(rng.normal(scale=_SHIFT))
        left, right = max(left, 0), max(right, left + 50)
        if rows and place and rows[-1][0] == chrom[i] and left <= rows[-1][2] + _MERGED_WITHIN * (rng.random() < 0.3):
            rows[-1] = (chrom[i], rows[-1][1], max(rows[-1][2], right))
            columns[i] = len(rows) - 1
        elif fate[i] > 1 - _SPLIT:
            middle = (left + right) // 2
            rows += [(chrom[i], left, middle), (chrom[i], middle + 1, right)]
            columns[i] = len(rows) - 2, len(rows) - 1
        else:
            rows.append((chrom[i], left, right))
            columns[i] = len(rows) - 1
    return columns, pd.DataFrame(rows, columns=["chrom", "start", "end"])


def _assigned(
    counts: sparse.csr_matrix, columns: NDArray[np.int64], n: int, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Counts of OCRs as counts of peaks; those of an OCR with two peaks are divided at random."""
    coo = counts.tocoo()
    first = rng.binomial(coo.data.astype(int), 0.5)
    both = columns[coo.col]
    first = np.where(both[:, 0] == both[:, 1], coo.data, first)
    values = np.concatenate([first, coo.data - first])
    rows, cols = np.tile(coo.row, 2), both.T.ravel()
    keep = (values > 0) & (cols >= 0)
    return sparse.csr_matrix((values[keep].astype(np.float32), (rows[keep], cols[keep])), shape=(counts.shape[0], n))


def merged(joined: ad.AnnData, batch_key: str) -> ad.AnnData:
    """Counts on unions of overlapping peaks, of which those are kept that are open in a cell of every laboratory."""
    ocrs = sfa.genome.get_ocrs(joined.var).reset_index(drop=True)
    found = bioframe.cluster(ocrs, min_dist=None).drop_duplicates("cluster")
    regions = pd.DataFrame(
        {"chrom": found["chrom"].astype(str), "start": found["cluster_start"], "end": found["cluster_end"]}
    ).reset_index(drop=True)
    mapped = sfa.pp.map_ocrs(joined, regions)
    is_open = [
        np.asarray(mapped.X[(joined.obs[batch_key] == lab).to_numpy()].sum(axis=0)).ravel() > 0 for lab in DEPTHS
    ]
    mapped.obs = joined.obs.copy()
    return mapped[:, np.logical_and.reduce(is_open)].copy()
