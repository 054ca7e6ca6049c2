"""The null of links: OCRs that are matched and lie far away, and p values that hold whatever the null looks like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scfound_atac.inference.matched_null import FAR, MatchedNull, Places, matched_null, p_values


def places(n: int, n_chromosomes: int, rng: np.random.Generator) -> Places:
    return Places(np.sort(rng.integers(1, n_chromosomes + 1, n)), rng.integers(0, 100_000_000, n))


def test_strata_are_alike_and_of_equal_size() -> None:
    rng = np.random.default_rng(0)
    accessibility, breadth = rng.lognormal(size=8000), rng.random(8000)
    usable = rng.random(8000) > 0.1
    null = matched_null(accessibility, breadth, places(8000, 22, rng), n_null=100, usable=usable, seed=1)
    sizes = np.bincount(null.stratum[usable])
    assert len(sizes) == 50
    assert np.ptp(sizes) <= 2
    assert (null.stratum[~usable] == -1).all()
    assert (np.bincount(null.stratum[null.pool]) == 100).all()
    assert len(np.unique(null.pool)) == len(null.pool) == 5000
    for values, limit in ((np.log(accessibility), 0.25), (breadth, 0.1)):
        within = np.mean([values[null.stratum == k].var() for k in range(50)])
        assert within < limit * values.var()
    again = matched_null(
        accessibility, breadth, places(8000, 22, np.random.default_rng(0)), n_null=100, usable=usable, seed=1
    )
    np.testing.assert_array_equal(again.stratum, null.stratum)
    np.testing.assert_array_equal(again.pool, null.pool)


def test_ties_are_not_broken_by_the_order_of_the_genome() -> None:
    """Half of the OCRs are open in no biosample, as those of a rare cell type."""
    n = 4000
    chromosome = np.repeat(np.arange(1, 21), n // 20)
    null = matched_null(np.ones(n), np.zeros(n), Places(chromosome, np.zeros(n, dtype=int)), n_null=200)
    table = np.array(
        [np.bincount(chromosome[null.stratum == k], minlength=21)[1:] for k in range(null.stratum.max() + 1)]
    )
    assert len(table) > 5
    assert (table > 0).all()


def test_null_ocrs_lie_on_other_chromosomes() -> None:
    rng = np.random.default_rng(0)
    ocrs = places(500, 3, rng)
    null = matched_null(rng.random(500), rng.random(500), ocrs)
    genes = Places(np.array([1, 3, 9]), np.array([5, 6, 7]))
    expected = ocrs.chromosome[null.pool][:, None] != genes.chromosome
    np.testing.assert_array_equal(null.is_null(genes), expected)
    assert not null.needs_own(genes).any()
    # on one chromosome alone those far away stand in; on two, those of both
    single = matched_null(rng.random(500), rng.random(500), Places(np.ones(500, dtype=int), ocrs.position))
    position = np.array([50_000_000])
    distance = np.abs(ocrs.position[single.pool] - position)
    assert single.needs_own(Places(np.array([1]), position)).all()
    np.testing.assert_array_equal(single.is_null(Places(np.array([1]), position))[:, 0], distance > FAR)


def compared(scores: np.ndarray, n_null: int, stratum: np.ndarray | None = None) -> np.ndarray:
    """p of the scores (n_genes, n) beyond the first `n_null`, which are the null of their gene."""
    n_genes, n = scores.shape
    of_null = np.zeros(n, dtype=np.int64) if stratum is None else stratum
    pool = np.argsort(of_null[:n_null], kind="stable")
    null = MatchedNull(of_null, pool, Places(np.zeros(n_null, dtype=int), np.zeros(n_null, dtype=int)))
    gene, ocr = np.divmod(np.arange(n_genes * (n - n_null)), n - n_null)
    found = null.compare(scores[:, n_null:].ravel(), ocr + n_null, gene, scores[:, pool].T)
    return p_values(*found[1:])


@pytest.mark.parametrize("kind", ["normal", "heavy", "rare", "skewed", "shifted"])
@pytest.mark.parametrize(("n_null", "n_genes"), [(1000, 200), (300, 600)])
def test_p_values_hold_for_nulls_of_any_shape(kind: str, n_null: int, n_genes: int) -> None:
    rng = np.random.default_rng(0)
    shape = (n_genes, n_null + 500)
    scores = rng.normal(size=shape)
    if kind == "heavy":
        scores = rng.standard_t(3, size=shape)
    elif kind == "rare":  # 1 in 500 OCRs is of the type of the gene
        scores += 8 * (rng.random(shape) < 0.002)
    elif kind == "skewed":
        scores = rng.exponential(size=shape) ** 2
    elif kind == "shifted":  # each gene has a mean and a scale of its own
        scores = rng.normal(size=(n_genes, 1)) * 3 + rng.lognormal(size=(n_genes, 1)) * scores
    p = compared(scores, n_null)
    assert stats.kstest(p, "uniform").statistic < 0.05
    for level, limit in ((0.05, 1.15), (0.01, 1.2), (1e-3, 1.4), (1e-4, 2)):
        assert np.mean(p < level) < limit * level
    assert 0.03 < np.mean(p < 0.05) < 0.07


def test_strata_have_means_and_scales_of_their_own() -> None:
    rng = np.random.default_rng(0)
    stratum = np.tile(np.arange(4), 400)
    scores = rng.normal(size=(100, 1600)) * (1 + stratum) + 10 * stratum
    p = compared(scores, 1200, stratum)
    for k in range(4):
        assert 0.03 < np.mean(p.reshape(100, 400)[:, stratum[1200:] == k] < 0.05) < 0.07


def test_strong_scores_have_small_p_values() -> None:
    """Far beyond all null scores p falls below what counting can say, also with one gene."""
    rng = np.random.default_rng(0)
    for n_genes in (1, 50):
        scores = rng.normal(size=(n_genes, 503))
        scores[0, 500:] = 5, 7, 10
        p = compared(scores, 500)[:3]
        assert (np.diff(p) < 0).all()
        assert p[2] < 1e-6
    scores[0, 500] = np.nan
    assert np.isnan(compared(scores, 500)[0])


@pytest.mark.parametrize("n_null", [0, 29])
def test_too_few_null_ocrs(n_null: int) -> None:
    assert np.isnan(compared(np.random.default_rng(0).normal(size=(3, n_null + 4)), n_null)).all()


def test_genes_without_null_beside_others() -> None:
    rng = np.random.default_rng(0)
    null = matched_null(rng.random(400), rng.random(400), places(400, 2, rng))
    scores = rng.normal(size=(len(null.pool), 2))
    scores[20:, 0] = np.nan
    found = null.compare(np.array([1.0, 1.0]), np.array([0, 1]), np.array([0, 1]), scores)
    assert np.isnan(found.counted).tolist() == [True, False]
    assert np.isnan(found.of_genes).tolist() == [True, False]


def test_null_scores_that_are_all_equal() -> None:
    """As effects of a model may be on genes far away: 0. One that differs is no reason for a small p of what is smaller."""
    scores = np.zeros((2, 104))
    scores[0, 7] = 1.0
    scores[:, 100:] = 0.0, 0.5, 1.0, -1.0
    p = compared(scores, 100).reshape(2, 4)
    assert (p[0] > 0.01).all()
    assert np.isnan(p[1]).all()


@settings(max_examples=40, deadline=None)
@given(n_null=st.integers(30, 80), seed=st.integers(0, 1000), coarse=st.booleans())
def test_p_values_fall_with_the_score(n_null: int, seed: int, coarse: bool) -> None:
    """Also where null scores repeat; p is always above 0 and not above 1."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, n_null + 20)) * 3
    if coarse:
        scores = np.round(scores)
    p = compared(scores, n_null).reshape(3, 20)
    given_scores = scores[:, n_null:]
    is_test = np.isfinite(p)
    assert ((p[is_test] > 0) & (p[is_test] <= 1)).all()
    for row, values in zip(p, given_scores, strict=True):
        if np.isfinite(row).all():
            assert (np.diff(row[np.argsort(values, kind="stable")]) <= 1e-12).all()
