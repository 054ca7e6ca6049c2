"""The linear head: labels, calibration, and what is like none of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from scfound_atac.bench import expected_calibration_error
from scfound_atac.train.linear_head import LinearHead, fit_head, hold_out, softmax


def planted(n: int = 1000, n_classes: int = 4, d: int = 12, apart: float = 3.0, seed: int = 0):
    """Cells of classes that scatter alike around means that differ in the first `n_classes` features."""
    means = apart * np.eye(n_classes, d)
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % n_classes)
    scatter = np.linspace(0.5, 2, d)
    return ((means[codes] + rng.standard_normal((n, d))) * scatter).astype(np.float32), codes


def fit(x, codes, n_classes, *, seed=0, **kwargs):
    held_out, _ = hold_out(codes, 0.2, np.random.default_rng(seed))
    return fit_head(x, codes, n_classes, held_out, seed=seed, **kwargs)


def test_agrees_with_discriminant_analysis_of_another_library():
    (x, codes), (query, truth) = planted(apart=2), planted(apart=2, seed=1)
    head, report = fit(x, codes, 4)
    other = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(x / x.std(0), codes).predict(query / x.std(0))
    told = head.probabilities(query).argmax(1)
    assert (told == other).mean() > 0.97
    assert (told == truth).mean() > 0.7
    rows, _ = hold_out(codes, 0.2, np.random.default_rng(0))
    assert (report.held_out.argmax(1) == codes[rows]).mean() == pytest.approx((told == truth).mean(), abs=0.1)


def test_probabilities_are_calibrated():
    (x, codes), (query, truth) = planted(2000, apart=1.5), planted(2000, apart=1.5, seed=1)
    x, query = (np.hstack([z, z + 0.1]) for z in (x, query))  # the same evidence twice makes a head too sure
    head, _ = fit(x, codes, 4)
    p = head.probabilities(query)
    np.testing.assert_allclose(p.sum(1), 1)
    assert 0.5 < (p.argmax(1) == truth).mean() < 0.9
    assert expected_calibration_error(p.max(1), p.argmax(1) == truth) < 0.04


def test_held_out_cells_that_are_all_right_do_not_make_it_sure_beyond_measure():
    head, report = fit(*planted(60, apart=30.0), 4)
    assert report.held_out.max(axis=1).min() > 0.99
    assert float(head.temperature) >= 0.5


@pytest.mark.parametrize("n_neighbors", [0, 15])
def test_class_left_out_is_found(n_neighbors):
    (x, codes), (query, truth) = planted(apart=8), planted(apart=8, seed=1)
    known = codes != 3
    head, report = fit(x[known], codes[known], 3, n_neighbors=n_neighbors)
    novelty, is_unknown = head.judge(query, n_neighbors)
    np.testing.assert_array_equal(novelty, head.novelty(query, n_neighbors=n_neighbors))
    is_new = truth == 3
    assert roc_auc_score(is_new, novelty) > 0.99
    assert is_unknown[is_new].mean() > 0.9
    assert is_unknown[~is_new].mean() < 0.15
    assert np.nanmin(report.auroc) > 0.9
    assert report.fraction_known_lost <= 0.06
    assert report.fraction_unknown_found > 0.8


def test_a_cell_alone_is_judged_by_itself():
    x, codes = planted()
    head, _ = fit(x, codes, 4)
    assert head.novelty(x[:1]) == pytest.approx(head.novelty(x, n_neighbors=0)[:1], rel=1e-4)
    assert head.novelty(x[:5], n_neighbors=30).shape == (5,)


def test_few_cells_are_judged_one_by_one():
    x, codes = planted(2000)
    head, _ = fit(x, codes, 4)
    query, _ = planted(2000, seed=1)
    one_by_one = np.concatenate([head.judge(query[[i]])[1] for i in range(300)])
    np.testing.assert_array_equal(head.judge(query[:149])[1], one_by_one[:149])
    assert one_by_one.mean() < 0.12
    assert head.judge(query)[1].mean() < 0.15
    assert (head.thresholds[0] > head.thresholds[1]).all()


def test_order_of_cells_does_not_matter_to_novelty():
    x, codes = planted()
    head, _ = fit(x, codes, 4)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_allclose(head.novelty(x[order]), head.novelty(x)[order], rtol=1e-3)


def test_features_that_say_nothing_and_constant_ones():
    x, codes = planted()
    x = np.hstack([x, np.ones((len(x), 3), np.float32)])
    head, _ = fit(x, codes, 4)
    assert (head.probabilities(x).argmax(1) == codes).mean() > 0.8
    head, report = fit(np.ones((40, 5), np.float32), np.arange(40) % 2, 2)
    np.testing.assert_allclose(head.probabilities(np.ones((3, 5), np.float32)), 0.5, atol=1e-3)
    assert np.isfinite(report.held_out).all()


@pytest.mark.parametrize(
    "codes",
    [
        [0, 1],
        [0, 0, 1],
        [0] * 30 + [1] * 30 + [2],
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2],
        [0, 1, 2, 3, 4],
        list(range(8)) * 2,
    ],
    ids=["two cells", "three cells", "class of one", "two classes of one", "all classes of one", "classes of two"],
)
def test_few_cells(codes):
    codes = np.array(codes)
    n_classes = codes.max() + 1
    rng = np.random.default_rng(0)
    x = (np.eye(n_classes, 9)[codes] * 5 + rng.standard_normal((len(codes), 9))).astype(np.float32)
    head, report = fit(x, codes, n_classes)
    p = head.probabilities(x)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p.argmax(1) == codes).mean() > 0.9
    assert np.isfinite(head.thresholds).all()
    assert report.held_out.shape[1] == n_classes
    assert report.auroc.shape == (n_classes,)


def test_a_class_of_one_cell_is_still_known():
    x, codes = planted(400)
    lonely = np.full((1, 12), 9, np.float32)
    head, _ = fit(np.vstack([x, lonely]), np.r_[codes, 4], 5)
    assert head.probabilities(lonely).argmax() == 4


def test_held_out_cells_decide_on_temperature_and_threshold():
    """Cells that scatter more than those the head was fitted to."""
    x, codes = planted(400)
    rows = np.arange(0, 400, 4)
    tight, _ = fit_head(x, codes, 4, rows)
    means = np.stack([x[codes == c].mean(0) for c in range(4)])[codes]
    x[rows] = means[rows] + 3 * (x[rows] - means[rows])
    loose, report = fit_head(x, codes, 4, rows)
    assert report.held_out.shape == (100, 4)
    assert loose.temperature > 1.5 * tight.temperature
    assert (loose.thresholds > 1.5 * tight.thresholds).all()


def test_threshold_obeys_the_share_that_may_be_lost():
    x, codes = planted(800, apart=8)
    loose, _ = fit(x, codes, 4, max_known_lost=0.3)
    strict, report = fit(x, codes, 4, max_known_lost=0.01)
    assert (strict.thresholds >= loose.thresholds).all()
    assert report.fraction_known_lost <= 0.02


def test_two_classes_have_a_threshold_though_none_can_be_left_out():
    x, codes = planted(200, 2)
    head, report = fit(x, codes, 2)
    assert np.isnan(report.auroc).all()
    assert np.isnan(report.fraction_unknown_found)
    far = np.full((1, 12), 50, np.float32)
    assert head.judge(far)[1].all()
    assert head.judge(x)[1].mean() < 0.2


def test_arrays_hold_all_and_the_seed_decides():
    x, codes = planted()
    head, _ = fit(x, codes, 4, seed=3)
    again, _ = fit(x, codes, 4, seed=3)
    stored = LinearHead.from_arrays(head.arrays())
    for name, array in head.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
        assert array.dtype == np.float32
    np.testing.assert_array_equal(stored.probabilities(x), head.probabilities(x))
    np.testing.assert_array_equal(stored.novelty(x), head.novelty(x))


def test_hold_out_takes_of_every_class_that_can_spare_a_cell():
    codes = np.repeat(np.arange(4), [100, 12, 2, 1])
    out, others = hold_out(codes, 0.1, np.random.default_rng(0))
    assert np.bincount(codes[out], minlength=4).tolist() == [10, 1, 1, 0]
    np.testing.assert_array_equal(np.sort(np.r_[out, others]), np.arange(115))
    assert len(hold_out(np.arange(5), 0.2, np.random.default_rng(0))[0]) == 0


def test_softmax_of_large_logits():
    np.testing.assert_allclose(softmax(np.array([[1e6, 1e6, -1e9]])), [[0.5, 0.5, 0]])


def test_cells_of_a_loose_class_are_not_news():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [1000, 1000, 60])
    centers = np.array([[0, 0, 0], [12, 0, 0], [0, 30, 0]])
    spread = np.array([1.0, 1.0, 4.0])
    draw = lambda: (centers[codes] + spread[codes, None] * rng.standard_normal((len(codes), 3))).astype(np.float32)  # noqa: E731
    head, _ = fit(draw(), codes, 3)
    _, is_unknown = head.judge(draw())
    assert is_unknown[codes == 2].mean() < 0.3
    assert head.thresholds[1, 2] > head.thresholds[1, 0]


def test_a_handful_of_loose_cells_does_not_take_in_what_is_new():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [500, 500, 6])
    centers = np.array([[0, 0, 0], [12, 0, 0], [0, 12, 0]])
    x = (centers[codes] + np.array([1, 1, 4])[codes, None] * rng.standard_normal((len(codes), 3))).astype(np.float32)
    head, _ = fit(x, codes, 3)
    new = (np.array([0, 20, 8]) + rng.standard_normal((200, 3))).astype(np.float32)
    assert (head.nearest(new) == 2).mean() > 0.9
    assert head.judge(new)[1].mean() > 0.9


def test_neighbors_among_some_cells_whatever_their_order(monkeypatch):
    monkeypatch.setattr("scfound_atac.train.linear_head._NEIGHBOR_CELLS", 100)
    x, codes = planted(600)
    head, _ = fit(x, codes, 4)
    query, _ = planted(400, seed=1)
    order = np.random.default_rng(0).permutation(len(query))
    np.testing.assert_allclose(head.novelty(query[order]), head.novelty(query)[order], rtol=1e-4)


@pytest.mark.parametrize("n_query", [400, 20])
def test_other_ocrs_move_the_threshold(n_query):
    x, codes = planted(600)
    head, _ = fit(x, codes, 4)
    query, _ = planted(n_query, seed=1)
    rng = np.random.default_rng(0)
    moved = query + 2 * rng.standard_normal(query.shape).astype(np.float32)
    strict, lenient = (head.judge(moved, same_ocrs=same)[1].mean() for same in (True, False))
    assert lenient < strict
    new = moved[: n_query // 10] + 30
    assert head.judge(np.concatenate([moved, new]), same_ocrs=False)[1][n_query:].mean() > 0.8


def test_a_query_of_new_cells_alone_is_still_found_and_a_shifted_one_is_not():
    x, codes = planted(1000, apart=8)
    head, _ = fit(x[codes != 3], codes[codes != 3], 3)
    query, truth = planted(2000, apart=8, seed=1)
    assert head.judge(query[truth == 3])[1].mean() > 0.9
    known = query[truth != 3]
    farther = head.means[truth[truth != 3]] @ np.linalg.pinv(head.projection) + head.center
    farther = (farther + 1.06 * (known - farther)).astype(np.float32)
    assert head.judge(farther)[1].mean() < 0.1


def test_novelty_is_relative_to_how_far_apart_a_class_is():
    x, codes = planted(1000, apart=8)
    spread = np.where(codes == 1, 3.0, 1.0)[:, None]
    means = np.stack([x[codes == c].mean(0) for c in range(4)])[codes]
    head, _ = fit((means + spread * (x - means)).astype(np.float32), codes, 4)
    assert head.apart[1] > 1.3 * head.apart[[0, 2, 3]].max()
    old = LinearHead.from_arrays({name: array for name, array in head.arrays().items() if name != "apart"})
    np.testing.assert_array_equal(old.novelty(x, n_neighbors=0), head.distance(x))
