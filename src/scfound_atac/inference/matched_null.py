"""Null distributions of the link between an OCR and a gene: the same score for like OCRs that cannot act on the gene in cis.

Cells differ in type and in depth, so that a gene correlates with OCRs all over the genome, more with those that are open in few tissues.
A score is therefore compared with those of OCRs of other chromosomes. With s the score of OCR i and gene g, and N(i, g) the OCRs of other
chromosomes in the stratum of i, which are alike in accessibility and in breadth::

    z_ig = (s_ig - mean of s_jg over N(i, g)) / sd of s_jg over N(i, g)
    p_ig = (1 + number of null z of gene g that are >= z_ig) / (1 + number of null z of gene g)

The null z of a gene are those of its null OCRs in all strata, each with the mean and sd of the others of its stratum. They are counted,
and the normal distribution is not used, because it is far from right where types of cells differ: the few OCRs of a type correlate strongly
with all genes of that type, wherever they lie. A count cannot give a p below 1 / (1 + number), which is too coarse for the many pairs of a
genome. How far a score is likely to lie beyond the largest null z of its gene is therefore learned from all genes together::

    v_ig = (z_ig - z1_g) / e_g                     z1: largest null z; e: mean excess of the k largest over the next one
    w_g  = (z1_g - z2_g) / e'_g                    the same of the largest null z beyond the second, e' without the largest
    p_ig = 1 / (1 + number) * (1 + number of genes with w_g >= v_ig) / (1 + number of genes)

and beyond all w, which are near exponential, an exponential tail with their mean excess follows. p is one-sided: an enhancer raises the
expression of its gene.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As many strata as have n_null OCRs each, but not more than 50: finer ones would not be more alike, and all genes are scored against all
# null OCRs. At most 5 classes are by breadth; accessibility, on which the variance of a score depends most, has the more.
_MAX_STRATA = 50
_MAX_BREADTHS = 5
MIN_NULL = 30
"""Minimum number of null OCRs of a gene, without which p is NaN; and of a stratum, without which all strata of the gene are taken."""
# With fewer null OCRs on other chromosomes, those of the gene's own chromosome beyond `FAR` are taken as well.
_FEW_NULL = 100
FAR = 5_000_000
"""Bases from a gene beyond which OCRs of its own chromosome may serve as null: far beyond the enhancers that are known."""
# The tail of a gene is 5 % of its null z, of which 10 are needed for a mean that is exact to a third, and 100 are enough. That of all genes
# is a tenth of them: the genes of rare types are to be seen in it.
_TAIL, _MIN_TAIL, _MAX_TAIL = 0.05, 10, 100
_TAIL_OF_GENES, _MIN_GENES = 0.1, 5


class Places(NamedTuple):
    """Where OCRs or genes lie.

    Attributes
    ----------
    chromosome
        Numbers of chromosomes, as `scfound_atac.genome.chromosome_ids` gives them, (n,).
    position
        Middle of the OCR, or start of transcription, (n,).
    """

    chromosome: NDArray[np.int64]
    position: NDArray[np.int64]


@dataclass(frozen=True)
class MatchedNull:
    """OCRs that serve as null for others, from `matched_null`.

    Attributes
    ----------
    stratum
        Stratum of each OCR, -1 for those that cannot be tested, (n_ocrs,).
    pool
        Numbers of the OCRs that serve as null, by stratum, (n_pool,).
    places
        Where these lie.
    """

    stratum: NDArray[np.int64]
    pool: NDArray[np.int64]
    places: Places

    def needs_own(self, genes: Places) -> NDArray[np.bool_]:
        """Which genes have fewer than 100 null OCRs on other chromosomes, (n_genes,)."""
        highest = max(self.places.chromosome.max(initial=0), genes.chromosome.max(initial=0))
        n_own = np.bincount(self.places.chromosome, minlength=highest + 1)[genes.chromosome]
        return len(self.pool) - n_own < _FEW_NULL

    def is_null(self, genes: Places) -> NDArray[np.bool_]:
        """Which OCRs of the pool serve as null for each gene, (n_pool, n_genes).

        They are those of other chromosomes, and if these are fewer than 100, those of the same chromosome beyond 5 Mb as well.
        """
        found = self.places.chromosome[:, None] != genes.chromosome[None, :]
        own = np.flatnonzero(self.needs_own(genes))
        if len(own) > 0:
            found[:, own] |= np.abs(self.places.position[:, None] - genes.position[None, own]) > FAR
        return found

    def compare(self, score: NDArray, ocr: NDArray[np.int64], gene: NDArray[np.int64], null: NDArray) -> Comparison:
        """Compare scores of pairs of an OCR and a gene with those of null OCRs; `p_values` takes all comparisons together.

        Parameters
        ----------
        score
            Score of each pair, (n_pairs,); higher means a stronger link.
        ocr, gene
            Number of the OCR, and of the gene among the columns of `null`, of each pair, both (n_pairs,).
        null
            Scores of the OCRs `pool` with each gene, (n_pool, n_genes); NaN for those that are not null for the gene, see `is_null`.
        """
        counted, beyond = np.full(len(score), np.nan), np.full(len(score), np.nan)
        of_genes = np.full(null.shape[1], np.nan)
        if len(null) < MIN_NULL:
            return Comparison(counted.copy(), counted, beyond, of_genes)
        null_z, mean, sd = _standardised(np.asarray(null, dtype=np.float64), self.stratum[self.pool])
        stratum = self.stratum[ocr]
        z = (score - mean[stratum, gene]) / sd[stratum, gene]
        z[stratum < 0] = np.nan
        order = np.argsort(gene, kind="stable")
        bounds = np.searchsorted(gene[order], np.arange(len(of_genes) + 1))
        for column, (first, last) in enumerate(pairwise(bounds)):
            rising = np.sort(null_z[~np.isnan(null_z[:, column]), column])
            n, rows = len(rising), order[first:last]
            if n < MIN_NULL:
                continue
            counted[rows] = (1.0 + n - np.searchsorted(rising, z[rows], side="left")) / (1.0 + n)
            with np.errstate(invalid="ignore"):  # a null z is infinite where all others of a stratum are equal
                beyond[rows] = (z[rows] - rising[-1]) / _mean_excess(rising)
                of_genes[column] = (rising[-1] - rising[-2]) / _mean_excess(rising[:-1])
        counted[np.isnan(z)] = np.nan
        return Comparison(z, counted, beyond, of_genes)


class Comparison(NamedTuple):
    """Scores beside those of null OCRs.

    Attributes
    ----------
    z
        Score of each pair, less the mean and in units of the sd of its null, (n_pairs,).
    counted
        (1 + number of null z of the gene that are at least as large) / (1 + their number), (n_pairs,).
    beyond
        How far z lies beyond the largest null z, in units of their mean excess; negative if it does not, (n_pairs,).
    of_genes
        The same for the largest null z of each gene beyond the second, (n_genes,).

    All are NaN where the score is NaN or the gene has fewer than 30 null OCRs.
    """

    z: NDArray[np.float64]
    counted: NDArray[np.float64]
    beyond: NDArray[np.float64]
    of_genes: NDArray[np.float64]


def p_values(counted: NDArray, beyond: NDArray, of_genes: NDArray) -> NDArray[np.float64]:
    """One-sided p of each pair (n_pairs,), from the fields of one `Comparison`, or of several, one after the other."""
    w = np.sort(of_genes[np.isfinite(of_genes)])
    is_beyond = beyond > 0  # not for NaN
    v = beyond[is_beyond]
    # 1. The fraction of genes whose largest null z lies as far beyond the second.
    fraction = (1.0 + len(w) - np.searchsorted(w, v, side="left")) / (1.0 + len(w))
    # 2. Beyond all genes, an exponential tail, not thinner than it would be if e were right, which is too large for a normal null.
    far = v > w[-1] if len(w) > 0 else np.zeros(len(v), dtype=bool)
    if far.any():
        k = min(max(int(_TAIL_OF_GENES * len(w)), _MIN_GENES), len(w))
        start = w[-k - 1] if k < len(w) else 0.0
        fraction[far] *= np.exp(-(v[far] - w[-1]) / max(float(np.mean(w[-k:]) - start), 1.0))
    p = counted.copy()
    p[is_beyond] *= fraction
    return p


def _mean_excess(rising: NDArray) -> float:
    """Mean of the largest values beyond the next one."""
    k = int(np.clip(_TAIL * len(rising), _MIN_TAIL, _MAX_TAIL))
    return float(np.mean(rising[-k:]) - rising[-k - 1]) or np.inf


def matched_null(
    accessibility: NDArray,
    breadth: NDArray,
    ocrs: Places,
    *,
    n_null: int = 200,
    max_strata: int = _MAX_STRATA,
    usable: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> MatchedNull:
    """Divide OCRs into strata of like accessibility and breadth, and draw from each those that serve as null.

    The strata are shared by all genes, so that the null of a whole genome takes n_genes x n_pool scores and not n_pairs x n_null.

    Parameters
    ----------
    accessibility
        Mean accessibility of each OCR over the cells, (n_ocrs,); only the order counts.
    breadth
        Fraction of biosamples in which it is open, ``openness`` of `scfound_atac.genome.RegionTable.lookup`, (n_ocrs,). NaN counts as 0.
    ocrs
        Where the OCRs lie.
    n_null
        Number of OCRs that are drawn from each stratum.
    max_strata
        Maximum number of strata. `n_null` times this number is the maximum size of the pool; lower it where a score is expensive.
    usable
        Which OCRs have scores, (n_ocrs,); all if None. The others are in no stratum.
    seed
        Random seed.
    """
    rng = np.random.default_rng(seed)
    members = np.arange(len(accessibility)) if usable is None else np.flatnonzero(usable)
    # 1. Numbers of classes: 50 strata are 10 by accessibility, each with 5 by breadth.
    n_strata = int(np.clip(len(members) // max(n_null, 1), 1, max(max_strata, 1)))
    n_breadths = min(max(round(np.sqrt(n_strata / 2)), 1), _MAX_BREADTHS)
    # 2. Strata of equal size. Ties, such as OCRs that are open in no biosample, are broken at random and not by the order of the genome.
    luck = rng.random(len(accessibility))
    breadth = np.nan_to_num(breadth)
    stratum = np.full(len(accessibility), -1, dtype=np.int64)
    chosen, n_before = [], 0
    for alike in np.array_split(members[np.lexsort((luck[members], accessibility[members]))], n_strata // n_breadths):
        for part in np.array_split(alike[np.lexsort((luck[alike], breadth[alike]))], n_breadths):
            stratum[part] = n_before
            n_before += 1
            # 3. The null OCRs of the stratum.
            chosen.append(np.sort(rng.choice(part, n_null, replace=False)) if len(part) > n_null else np.sort(part))
    pool = np.concatenate(chosen)
    return MatchedNull(stratum, pool, Places(ocrs.chromosome[pool], ocrs.position[pool]))


def _standardised(
    null: NDArray[np.float64], stratum: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The null z (n_pool, n_genes), and mean and sd of each stratum and gene, both (n_strata, n_genes)."""
    # 1. Numbers, means and sums of squares per stratum and gene.
    is_null = np.isfinite(null)
    first = np.flatnonzero(np.diff(stratum, prepend=-1))  # the pool is sorted by stratum, and no stratum is empty
    filled = np.where(is_null, null, 0.0)
    n = np.add.reduceat(is_null, first, axis=0, dtype=np.float64)  # (n_strata, n_genes)
    total = np.add.reduceat(filled, first, axis=0)
    mean = total / np.maximum(n, 1)
    square = np.add.reduceat(np.where(is_null, null - mean[stratum], 0.0) ** 2, first, axis=0)
    # 2. Where a stratum has too few, such as one of OCRs of one chromosome, those of all strata of the gene stand in.
    few = n < MIN_NULL
    whole_n = n.sum(axis=0)
    whole_mean = total.sum(axis=0) / np.maximum(whole_n, 1)
    whole_square = (np.where(is_null, null - whole_mean, 0.0) ** 2).sum(axis=0)
    n, mean, square = (
        np.where(few, whole, own) for whole, own in ((whole_n, n), (whole_mean, mean), (whole_square, square))
    )
    # 3. Each null score with mean and sd of the others, as if it were a candidate: without n, d = score - mean changes the mean by
    #    d / (n - 1) and the sum of squares by d^2 n / (n - 1).
    with np.errstate(divide="ignore", invalid="ignore"):
        d, m = null - mean[stratum], n[stratum]
        others = np.maximum(square[stratum] - d**2 * m / (m - 1), 0)
        z = d * m / (m - 1) / np.sqrt(others / (m - 2))
        sd = np.sqrt(square / (n - 1))
    return np.where(is_null, z, np.nan), mean, np.where(sd > 0, sd, np.nan)
