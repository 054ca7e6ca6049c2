"""Links between OCRs and genes by correlation over cells or metacells, as users of LinkPeaks in Signac know them.

With c the counts of accessibility and y the expression of n cells::

    x_i = log(1 + c_i / depth of the cell * median depth)     (n,) for OCR i
    score_ig = correlation of x_i and y_g over the cells      from -1 to 1

Its null is the correlation of gene g with OCRs of other chromosomes, see `matched_null`; q is that of Benjamini and Hochberg, over all
pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._logging import logger
from ..data import prepare_rows
from .matched_null import FAR, MIN_NULL, Places, matched_null, p_values

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_GENES_PER_BLOCK = 256  # of neighbouring genes, which have candidates in common
_BLOCK_ENTRIES = 8_000_000  # of a dense block of OCRs x cells: 32 MB
_DENSE = 0.1  # fraction of entries from which a dense product is faster than a sparse one
_NO_VARIANCE = 1e-12  # what rounding leaves of the variance of equal values, as a fraction of their mean square


@dataclass(frozen=True)
class CorrelationLinks:
    """What correlation says of pairs of an OCR and a gene.

    Attributes
    ----------
    score
        Correlation, (n_pairs,), float32; NaN where the OCR or the gene is the same in all cells.
    z
        Its difference from the mean of the null, in standard deviations of the null, (n_pairs,).
    p, q
        One-sided p against the null, and that of Benjamini and Hochberg over all pairs, both (n_pairs,). NaN without a score, and for genes
        with fewer than 30 null OCRs.
    """

    score: NDArray[np.float32]
    z: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]


def correlation_links(
    counts: csr_matrix,
    expression: NDArray[np.float32],
    ocr: NDArray[np.int64],
    gene: NDArray[np.int64],
    *,
    ocrs: Places,
    genes: Places,
    breadth: NDArray,
    n_null: int = 200,
    seed: int = 0,
) -> CorrelationLinks:
    """Correlate accessibility and expression, and compare with OCRs of other chromosomes.

    Time is that of n_genes x (n_pool + candidates near a block of genes) correlations over the cells, in blocks. Memory is that of two
    copies of the counts and a few hundred MB. Of many cells, sums over `metacells` take less time.

    Parameters
    ----------
    counts
        Accessibility, (n_cells, n_ocrs): counts of cells, or their sums over metacells.
    expression
        Expression on a logarithmic scale, (n_cells, n_genes).
    ocr, gene
        Numbers of the OCR and the gene of each pair, both (n_pairs,).
    ocrs, genes
        Where OCRs and genes lie.
    breadth
        Fraction of biosamples in which each OCR is open, (n_ocrs,); see `matched_null`.
    n_null
        Number of null OCRs per stratum.
    seed
        Random seed of the null OCRs.
    """
    n_pairs = len(ocr)
    # 1. OCRs as rows, scaled so that a product with a standardised gene is a correlation.
    x, varies = _standardised_ocrs(counts)
    accessibility = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    null = matched_null(accessibility, breadth, ocrs, n_null=n_null, usable=varies, seed=seed)
    of_pool = x[null.pool]
    score = np.full(n_pairs, np.nan, dtype=np.float32)
    z, counted, beyond = (np.full(n_pairs, np.nan) for _ in range(3))
    of_genes = []

    # 2. Blocks of neighbouring genes, and the pairs of each.
    tested, column = np.unique(gene, return_inverse=True)
    along = np.lexsort((genes.position[tested], genes.chromosome[tested]))
    rank = np.empty(len(tested), dtype=np.int64)
    rank[along] = np.arange(len(tested))
    of_pair = rank[column]
    by_gene = np.argsort(of_pair, kind="stable")
    starts = np.arange(0, len(tested), _GENES_PER_BLOCK)
    bounds = np.searchsorted(of_pair[by_gene], np.append(starts, len(tested)))
    n_without, n_own = 0, int(null.needs_own(Places(genes.chromosome[tested], genes.position[tested])).sum())
    if n_own:
        logger.info(
            "%d of %d genes have few OCRs on other chromosomes to compare with; those of their own beyond %d Mb are added",
            n_own,
            len(tested),
            FAR // 1_000_000,
        )
    for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=True):
        block = tested[along[start : start + _GENES_PER_BLOCK]]
        pairs = by_gene[first:last]
        y = _standardised_genes(expression[:, block])  # (n_cells, genes of the block), NaN for constant genes
        # 3. Scores of the pairs: all candidates of the block with all its genes, of which the pairs are taken.
        candidates, row = np.unique(ocr[pairs], return_inverse=True)
        local = of_pair[pairs] - start
        score[pairs] = np.where(varies[ocr[pairs]], _products(x[candidates], y)[row, local], np.nan)
        # 4. Scores of the null OCRs, and the comparison.
        places = Places(genes.chromosome[block], genes.position[block])
        is_null = null.is_null(places)
        of_null = np.where(is_null, _products(of_pool, y), np.nan)
        z[pairs], counted[pairs], beyond[pairs], of_block = null.compare(score[pairs], ocr[pairs], local, of_null)
        of_genes.append(of_block)
        n_without += int((is_null.sum(axis=0) < MIN_NULL).sum())
    if n_without:
        logger.warning("%d of %d genes have fewer than %d null OCRs, and no p", n_without, len(tested), MIN_NULL)
    p = p_values(counted, beyond, np.concatenate(of_genes)) if of_genes else counted
    return CorrelationLinks(score, z, p, false_discovery(p))


def false_discovery(p: NDArray) -> NDArray[np.float64]:
    """q of Benjamini and Hochberg of each p (n,); NaN stays NaN and is no test."""
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    is_test = np.isfinite(p)
    if is_test.any():
        q[is_test] = false_discovery_control(p[is_test])
    return q


def _standardised_ocrs(counts: csr_matrix) -> tuple[csr_matrix, NDArray[np.bool_]]:
    """Values of each OCR (n_ocrs, n_cells), divided by n_cells times their sd, not centred, so that they stay sparse; and which vary."""
    from scipy.sparse import csr_matrix

    depth = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    is_deep = depth > 0
    x = prepare_rows(counts, target_sum=float(np.median(depth[is_deep])) if is_deep.any() else None, log1p=True)
    x = x.T.tocsr()  # the one in the order of the cells is given up here
    n_cells = x.shape[1]
    mean = np.asarray(x.sum(axis=1, dtype=np.float64)).ravel() / n_cells
    squares = csr_matrix((x.data**2, x.indices, x.indptr), shape=x.shape)
    square = np.asarray(squares.sum(axis=1, dtype=np.float64)).ravel() / n_cells
    variance = square - mean**2
    varies = variance > _NO_VARIANCE * square
    scale = np.zeros(len(mean))
    scale[varies] = 1 / (n_cells * np.sqrt(variance[varies]))
    x.data *= np.repeat(scale, np.diff(x.indptr)).astype(np.float32)
    return x, varies


def _standardised_genes(expression: NDArray) -> NDArray[np.float32]:
    """Each gene with mean 0 and variance 1, (n_cells, n_genes); NaN for genes that are the same in all cells."""
    y = np.asarray(expression, dtype=np.float64)
    y = y - y.mean(axis=0)
    variance, square = y.var(axis=0), (np.asarray(expression, dtype=np.float64) ** 2).mean(axis=0)
    sd = np.sqrt(np.where(variance > _NO_VARIANCE * square, variance, np.nan))
    return (y / sd).astype(np.float32)


def _products(x: csr_matrix, y: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product x y, (n_ocrs, n_genes), by dense blocks of OCRs where x is not sparse."""
    n_rows, n_cells = x.shape
    if x.nnz < _DENSE * n_rows * n_cells:
        return np.asarray(x @ y)
    step = max(_BLOCK_ENTRIES // n_cells, 1)
    return np.concatenate([x[first : first + step].toarray() @ y for first in range(0, n_rows, step)])
