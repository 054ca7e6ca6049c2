"""Links between OCRs and genes by perturbation: what a predictor of expression expects when an OCR is closed.

With d_icg the change of the prediction of gene g in cell c when OCR i is closed, which is 0 in cells in which it is closed already::

    score_ig = |mean of d_icg over the cells of a group|
    u_ig     = |mean of d_icg over those in which OCR i is open|
    p_ig     : u_ig against u_jg of null OCRs j, see `matched_null`

The null compares u and not the score: the score also says how often the OCR is open in the group, and near a gene of a cell type more OCRs
are open in that type than elsewhere, whether they act on the gene or not. Which OCRs serve as null depends on what the predictor knows of a
pair. Each pair has one of two nulls:

- Most pairs are known by the vector of the cell alone, and so are those of OCRs of other chromosomes with this gene, which are their null:
  OCRs that are alike in accessibility and in breadth.
- OCRs near a gene can have weights of their own (`local`), and the null above, without such weights, would make each of them significant.
  Their null are *decoys* of other chromosomes, which got weights for the gene in the same fit (`scfound_atac.train.local_ridge`).

All p of a group are computed together, and q is that of Benjamini and Hochberg over all pairs of the group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._logging import logger
from .correlation_links import false_discovery
from .matched_null import FAR, MIN_NULL, MatchedNull, Places, matched_null, p_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix, csr_matrix

    from .perturbation import Effects

    Perturb = Callable[[csr_matrix, NDArray[np.int64]], Effects]

# Null OCRs without weights: every one is perturbed for all genes, so that there are fewer than for correlations, 10 strata of 100.
_N_NULL, _MAX_STRATA = 100, 10
# Strata of decoys, by accessibility alone. A gene has 300 decoys, and needs 30 in a stratum that is to stand for itself.
_DECOY_STRATA = 3
# OCRs that are perturbed at a time. Their neighbours on the genome have genes in common, and with more there are more genes for each.
_OCRS_PER_BLOCK = 512
# Numbers of changes (null OCRs x groups x genes) that are held in memory at a time: 256 MB.
_CHANGES = 32_000_000


class PerturbationLinks(NamedTuple):
    """What perturbations say of pairs of an OCR and a gene in a group of cells.

    Attributes
    ----------
    score
        Absolute value of the mean change over the cells of the group, (n_pairs,).
    p, q
        One-sided p against the null, and that of Benjamini and Hochberg over all pairs, both (n_pairs,). NaN for OCRs that are closed in
        the whole group, and where there are fewer than 30 null OCRs.
    """

    score: NDArray[np.float32]
    p: NDArray[np.float64]
    q: NDArray[np.float64]


def perturbation_links(
    perturb: Perturb,
    weights: csc_matrix | None,
    accessibility: NDArray[np.float64],
    ocr: NDArray[np.int64],
    gene: NDArray[np.int64],
    *,
    ocrs: Places,
    genes: Places,
    breadth: NDArray,
    n_groups: int,
    seed: int = 0,
) -> list[PerturbationLinks]:
    """Close OCRs one at a time, and compare the changes with those of null OCRs, for each group of cells.

    Parameters
    ----------
    perturb
        Function from OCRs (n, n_ocrs), a 1 in each row, and numbers of genes (k,) to their effects in each group.
    weights
        Weights of OCRs near genes and of their decoys, (n_ocrs, n_genes); None if the predictor has none.
    accessibility
        Sum of the values of each OCR over the cells, (n_ocrs,); OCRs with 0 are not perturbed.
    ocr, gene
        Numbers of the OCR and the gene of each pair, both (n_pairs,).
    ocrs, genes
        Where OCRs and genes lie.
    breadth
        Fraction of biosamples in which each OCR is open, (n_ocrs,); see `matched_null`.
    n_groups
        Number of groups.
    seed
        Random seed of the null OCRs.
    """
    # 1. Scores of the pairs.
    score, size = _of_pairs(perturb, accessibility, ocr, gene, ocrs, n_groups)
    # 2. Which null each pair has.
    tested, column = np.unique(gene, return_inverse=True)
    has_weight = np.zeros(len(ocr), dtype=bool)
    if weights is not None and len(ocr):
        has_weight = np.asarray(weights.astype(bool)[ocr, gene]).ravel()
    nulls = []
    has_none = ~has_weight & (accessibility[ocr] > 0)
    if has_none.any():
        plain = matched_null(
            accessibility,
            breadth,
            ocrs,
            n_null=_N_NULL,
            max_strata=_MAX_STRATA,
            usable=accessibility > 0,
            seed=seed,
        )
        nulls.append(_Null(plain, np.flatnonzero(has_none), of_weights=False))
    if weights is not None and has_weight.any():
        decoys = _decoys(weights[:, tested], accessibility, ocrs, _at(genes, tested))
        nulls.append(_Null(decoys, np.flatnonzero(has_weight), of_weights=True))
    pool = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(null.matched.pool for null in nulls)]))

    # 3. Changes of blocks of genes by all null OCRs, and the comparisons.
    counted, beyond = (np.full((n_groups, len(ocr)), np.nan) for _ in range(2))
    of_genes: list[list[NDArray[np.float64]]] = [[np.empty(0)] for _ in range(n_groups)]
    step = max(1, _CHANGES // max(1, len(pool) * n_groups))
    for first in range(0, len(tested) if len(pool) else 0, step):
        block = tested[first : first + step]
        of_pool = _per_open_cell(perturb(_one_by_one(pool, len(accessibility)), block))  # (n_pool, n_groups, k)
        for null in nulls:
            pairs = null.pairs[(column[null.pairs] >= first) & (column[null.pairs] < first + len(block))]
            rows = np.searchsorted(pool, null.matched.pool)
            is_null = null.is_null(weights, block, genes)
            for group in range(n_groups):
                scores = np.where(is_null, of_pool[rows, group], np.nan)
                found = null.matched.compare(size[group, pairs], ocr[pairs], column[pairs] - first, scores)
                counted[group, pairs], beyond[group, pairs] = found.counted, found.beyond
                of_genes[group].append(found.of_genes)
    _tell_genes_without_null(counted, size, column)
    # 4. p and q of each group.
    p = [p_values(counted[group], beyond[group], np.concatenate(of_genes[group])) for group in range(n_groups)]
    return [PerturbationLinks(score[group], p[group], false_discovery(p[group])) for group in range(n_groups)]


class _Null(NamedTuple):
    """A null, and the pairs that are compared with it."""

    matched: MatchedNull
    pairs: NDArray[np.int64]
    of_weights: bool
    """Whether it consists of OCRs that have a weight for the gene, or of those that have none."""

    def is_null(self, weights: csc_matrix | None, block: NDArray[np.int64], genes: Places) -> NDArray[np.bool_]:
        """Which OCRs of the pool serve as null for the genes of a block, (n_pool, k)."""
        has_weight = np.zeros((len(self.matched.pool), len(block)), dtype=bool)
        if weights is not None:
            has_weight = weights[:, block][self.matched.pool].astype(bool).toarray()
        if not self.of_weights:
            return self.matched.is_null(_at(genes, block)) & ~has_weight
        of_gene, places = _at(genes, block), self.matched.places
        is_near = places.chromosome[:, None] == of_gene.chromosome[None, :]
        is_near &= np.abs(places.position[:, None] - of_gene.position[None, :]) <= FAR
        return has_weight & ~is_near


def _of_pairs(
    perturb: Perturb,
    accessibility: NDArray[np.float64],
    ocr: NDArray[np.int64],
    gene: NDArray[np.int64],
    ocrs: Places,
    n_groups: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score and change per open cell of each pair, both (n_groups, n_pairs); 0 and NaN where the OCR is closed."""
    score = np.zeros((n_groups, len(ocr)), dtype=np.float32)
    size = np.full((n_groups, len(ocr)), np.nan, dtype=np.float32)
    candidates = np.unique(ocr[accessibility[ocr] > 0])
    candidates = candidates[np.lexsort((ocrs.position[candidates], ocrs.chromosome[candidates]))]
    place = np.full(len(accessibility), -1)
    place[candidates] = np.arange(len(candidates))
    by_place = np.argsort(place[ocr], kind="stable")
    starts = np.arange(0, len(candidates), _OCRS_PER_BLOCK)
    bounds = np.searchsorted(place[ocr][by_place], np.append(starts, len(candidates)))
    for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=True):
        pairs = by_place[first:last]
        block, column = np.unique(gene[pairs], return_inverse=True)
        some = candidates[start : start + _OCRS_PER_BLOCK]
        effects = perturb(_one_by_one(some, len(accessibility)), block)
        row = place[ocr[pairs]] - start
        score[:, pairs] = np.abs(effects.change[row, :, column]).T
        size[:, pairs] = _per_open_cell(effects)[row, :, column].T
    return score, size


def _per_open_cell(effects: Effects) -> NDArray[np.float32]:
    """Absolute value of the mean change over the cells in which the OCR is open, (n_ocrs, n_groups, n_genes); NaN if there are none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(effects.n_changed > 0, effects.n_cells / effects.n_changed, np.nan)
    return (np.abs(effects.change) * factor[:, :, None]).astype(np.float32)


def _decoys(weights: csc_matrix, accessibility: NDArray[np.float64], ocrs: Places, genes: Places) -> MatchedNull:
    """The OCRs far from a gene that have a weight for it, in strata of like accessibility."""
    found = weights.tocoo()
    is_near = ocrs.chromosome[found.row] == genes.chromosome[found.col]
    is_near &= np.abs(ocrs.position[found.row] - genes.position[found.col]) <= FAR
    pool = np.unique(found.row[~is_near & (accessibility[found.row] > 0)]).astype(np.int64)
    if len(pool) == 0:
        return MatchedNull(np.full(len(accessibility), -1), pool, _at(ocrs, pool))
    # Bounds are values of decoys and not the smallest, so that no stratum is empty.
    quantiles = np.arange(1, _DECOY_STRATA) / _DECOY_STRATA
    bounds = np.unique(np.quantile(accessibility[pool], quantiles, method="higher"))
    bounds = bounds[bounds > accessibility[pool].min()]
    stratum = np.where(accessibility > 0, np.searchsorted(bounds, accessibility, side="right"), -1)
    pool = pool[np.argsort(stratum[pool], kind="stable")]
    return MatchedNull(stratum, pool, _at(ocrs, pool))


def _one_by_one(ocr: NDArray[np.int64], n_ocrs: int) -> csr_matrix:
    """Perturbations of one OCR each, (n, n_ocrs)."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(ocr), dtype=np.float32), ocr, np.arange(len(ocr) + 1)), shape=(len(ocr), n_ocrs))


def _at(places: Places, rows: NDArray[np.int64]) -> Places:
    return Places(places.chromosome[rows], places.position[rows])


def _tell_genes_without_null(counted: NDArray, size: NDArray, column: NDArray[np.int64]) -> None:
    """Log a warning about genes with changes that have nothing to be compared with."""
    is_lost = (np.isfinite(size) & np.isnan(counted)).any(axis=0)
    if is_lost.any():
        logger.warning(
            "%d of %d genes have links without p: fewer than %d OCRs of other chromosomes that are open in the group can be compared",
            len(np.unique(column[is_lost])),
            len(np.unique(column)),
            MIN_NULL,
        )
