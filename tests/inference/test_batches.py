from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scfound_atac.inference.batches import balanced_mean, batch_factors, centred, cluster, divide, without_shift

N_OCRS = 400


def counts_of(types: np.ndarray, factor: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Counts of cells by their type, with a factor per OCR."""
    rate = np.where(np.arange(N_OCRS)[None] % 3 == types[:, None], 1.0, 0.1)
    return sparse.csr_matrix(np.random.default_rng(seed).poisson(rate * factor).astype(np.float32))


@pytest.fixture(scope="module")
def planted() -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Two batches of other composition; the OCRs of the second have factors of their own."""
    factor = np.exp(np.random.default_rng(0).normal(scale=0.5, size=N_OCRS))
    a, b = np.repeat([0, 1, 2], [300, 50, 100]), np.repeat([0, 1, 2], [50, 300, 100])
    counts = sparse.vstack([counts_of(a, np.ones(N_OCRS), 1), counts_of(b, factor, 2)], format="csr")
    return counts, np.concatenate([a, b]), np.repeat([0, 1], 450), factor


def test_factors_are_found_in_spite_of_composition(planted) -> None:
    counts, types, batches, factor = planted
    found = batch_factors(counts, types, batches, 2)
    assert found.shape == (2, N_OCRS)
    np.testing.assert_allclose(found.prod(axis=0), 1, rtol=1e-5)
    log_ratio = np.log(found[1] / found[0])
    assert np.corrcoef(log_ratio, np.log(factor))[0, 1] > 0.9
    # not explained by what differs in composition
    by_type = [
        log_ratio[np.arange(N_OCRS) % 3 == t].mean() - np.log(factor)[np.arange(N_OCRS) % 3 == t].mean()
        for t in range(3)
    ]
    assert np.ptp(by_type) < 0.15
    without_types = batch_factors(counts, np.zeros_like(types), batches, 2)
    assert (
        np.abs(np.log(without_types[1] / without_types[0]) - np.log(factor)).mean()
        > 2 * np.abs(log_ratio - np.log(factor) - np.mean(by_type)).mean()
    )


def test_equal_batches_have_factors_close_to_one(planted) -> None:
    counts, types, _, _ = planted
    rows = np.flatnonzero(np.arange(len(types)) < 450)
    found = batch_factors(counts[rows], types[rows], np.arange(450) % 2, 2)
    assert np.abs(np.log(found)).max() < 0.1


def test_batches_that_cannot_be_compared(planted) -> None:
    counts, types, batches, _ = planted
    np.testing.assert_array_equal(batch_factors(counts, batches, batches, 2), 1)  # each cluster holds one batch
    one = np.where(np.arange(len(types)) == 5, 2, batches)  # a batch of one cell
    found = batch_factors(counts, types, one, 4)  # and one without any
    assert np.isfinite(found).all()
    two = batch_factors(counts, types, batches, 2)
    np.testing.assert_allclose(found[1] / found[0], two[1] / two[0], rtol=0.2)


def test_blocks_of_ocrs_do_not_matter(planted, monkeypatch) -> None:
    counts, types, batches, _ = planted
    whole = batch_factors(counts, types, batches, 2)
    monkeypatch.setattr("scfound_atac.inference.batches._OCRS_PER_BLOCK", 33)
    np.testing.assert_allclose(batch_factors(counts, types, batches, 2), whole, rtol=1e-5)


def test_divide() -> None:
    counts = sparse.csr_matrix(np.array([[2, 0, 4], [3, 3, 0], [1, 0, 1]], dtype=np.float32))
    factors = np.array([[1, 2, 4], [0.5, 3, 1]], dtype=np.float32)
    found = divide(counts, factors, np.array([0, 1, -1])).toarray()
    np.testing.assert_array_equal(found, [[2, 0, 1], [6, 1, 0], [1, 0, 1]])
    assert counts[0, 2] == 4


def test_clusters_do_not_depend_on_the_order_of_cells() -> None:
    rng = np.random.default_rng(0)
    points = (np.eye(4)[rng.integers(4, size=200)] + rng.normal(scale=0.05, size=(200, 4))).astype(np.float32)
    order = rng.permutation(200)
    first, second = cluster(points, 0), cluster(points[order], 0)
    same = first[order][:, None] == first[order][None]
    np.testing.assert_array_equal(same, second[:, None] == second[None])
    assert len(np.unique(cluster(points[:3], 0))) == 1


def test_mean_of_neighbours_is_of_all_batches_but_not_of_other_types() -> None:
    rng = np.random.default_rng(0)
    types, batches = np.repeat([0, 1, 2], 80), np.arange(240) % 2
    batches[types == 2] = 0  # only in the first batch
    place = 10 * np.eye(20)[types] + np.where(batches[:, None] == 1, 0.2, 0.0)
    points = (place + rng.normal(scale=0.5, size=(240, 20))).astype(np.float32)
    found = balanced_mean(points, np.arange(240), batches)
    for t in (0, 1):
        gap = [
            np.linalg.norm(x[(types == t) & (batches == 0)].mean(0) - x[(types == t) & (batches == 1)].mean(0))
            for x in (points, found)
        ]
        assert gap[1] < 0.5 * gap[0]
    alone = types == 2
    np.testing.assert_allclose(found[alone].mean(axis=0), points[alone].mean(axis=0), atol=0.2)


def test_mean_with_a_batch_of_one_cell() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    batches = np.zeros(60, dtype=np.int64)
    batches[7] = 1
    found = balanced_mean(points, np.arange(60), batches)
    assert np.isfinite(found).all()
    # the single cell is one of 11 neighbours, for itself as for others
    nearest = np.sort(np.linalg.norm(points - points[7], axis=1))
    assert np.linalg.norm(found[7] - points[7]) < nearest[16]
    assert np.linalg.norm(found[7] - points[7]) > 0.05


def test_centred() -> None:
    points = np.array([[1, 2], [3, 4], [10, 10]], dtype=np.float32)
    np.testing.assert_array_equal(centred(points, np.array([0, 0, 1])), [[-1, -1], [1, 1], [0, 0]])
    assert points[0, 0] == 1


def two_batches(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Three types, of which the third is only in the first batch; the types are in other proportions, and the second batch is shifted."""
    rng = np.random.default_rng(seed)
    types = np.concatenate([np.repeat([0, 1, 2], [200, 50, 60]), np.repeat([0, 1], [50, 250])])
    batches = np.repeat([0, 1], [310, 300])
    shift = np.array([0.7, -0.5, 0.3, 0.0, 0.4], dtype=np.float32)
    points = 3 * np.eye(5)[types] + rng.normal(scale=0.4, size=(610, 5)) + np.where(batches[:, None] == 1, shift, 0)
    return points.astype(np.float32), types, batches, shift


def gaps(points: np.ndarray, types: np.ndarray, batches: np.ndarray) -> list[float]:
    """Distance between the means of both batches in each common type."""
    means = [[points[(types == t) & (batches == b)].mean(axis=0) for b in (0, 1)] for t in (0, 1)]
    return [float(np.linalg.norm(a - b)) for a, b in means]


def test_shift_of_a_batch_is_removed_in_spite_of_composition() -> None:
    points, types, batches, shift = two_batches()
    found = without_shift(points, np.arange(610), batches)
    before, after = gaps(points, types, batches), gaps(found, types, batches)
    assert max(after) < 0.4 * min(before)
    moved = found - points
    for b in (0, 1):  # all cells of a batch alike
        np.testing.assert_allclose(
            moved[batches == b], np.tile(moved[batches == b][0], (300 + 10 * (b == 0), 1)), atol=1e-5
        )
    np.testing.assert_allclose(moved[0] - moved[-1], shift, atol=0.3)


def test_a_fixed_batch_stays() -> None:
    points, types, batches, _ = two_batches()
    found = without_shift(points, np.arange(610), batches, fixed=0)
    np.testing.assert_array_equal(found[batches == 0], points[batches == 0])
    assert max(gaps(found, types, batches)) < 0.4 * min(gaps(points, types, batches))


def test_shifts_of_some_cells_and_of_small_batches() -> None:
    points, types, batches, _ = two_batches()
    fitted = np.flatnonzero(np.arange(610) % 2 == 0)
    found = without_shift(points, fitted, batches)
    assert max(gaps(found, types, batches)) < 0.4 * min(gaps(points, types, batches))
    one = batches.copy()
    one[3] = 2  # a batch of one cell, which hardly moves
    found = without_shift(points, np.arange(610), one)
    assert np.linalg.norm((found - points)[3]) < 1
    unseen = without_shift(points, np.setdiff1d(fitted, [4]), np.where(np.arange(610) == 4, 7, batches))
    np.testing.assert_array_equal(unseen[4], points[4])  # no cell of this batch was fitted
    order = np.random.default_rng(1).permutation(610)
    np.testing.assert_allclose(
        without_shift(points[order], np.arange(610), batches[order]),
        without_shift(points, np.arange(610), batches)[order],
        atol=1e-3,
    )
