from __future__ import annotations

import numpy as np
import pytest

from scfound_atac.inference.joint import join_views, view_weights

N = 300


@pytest.fixture
def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four types; the first view tells only types 0, 1 and the rest apart, the second all but 0 and 1."""
    rng = np.random.default_rng(0)
    kind = np.arange(N) % 4
    first = np.eye(3)[np.minimum(kind, 2)] + rng.normal(scale=0.1, size=(N, 3))
    second = np.eye(3)[np.maximum(kind - 1, 0)] + rng.normal(scale=0.1, size=(N, 3))
    return first, second, kind


def accuracy(vectors: np.ndarray, kind: np.ndarray) -> float:
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    near = np.argsort(distances, axis=1)[:, 1:8]
    return float((kind[near] == kind[:, None]).mean())


def join(first, second, **options):
    return join_views(first, second, **({"fit_rows": np.arange(len(first)), "n_components": 10} | options))


def test_types_that_neither_view_tells_apart_alone(views) -> None:
    first, second, kind = views
    joint = join(first, second)
    assert joint.vectors.shape == (N, 6)
    assert joint.vectors.dtype == np.float32
    assert accuracy(joint.vectors, kind) > max(accuracy(first, kind), accuracy(second, kind)) + 0.2
    assert joint.weights == pytest.approx([0.5, 0.5], abs=0.05)
    assert joint.variance_ratio.sum() == pytest.approx(1)
    assert (np.diff(joint.variance_ratio) <= 0).all()


def test_squared_distances_are_the_weighted_sum_of_both_views(views) -> None:
    """The definition, written down with loops over views and pairs."""
    first, second, _ = views
    joint = join(first, second)
    expected = np.zeros((5, 5))
    for view, weight in zip((first, second), joint.weights, strict=True):
        unit = view - view.mean(axis=0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        spread = np.mean([np.sum((row - unit.mean(axis=0)) ** 2) for row in unit])
        for i in range(5):
            for j in range(5):
                expected[i, j] += weight * np.sum((unit[i] - unit[j]) ** 2) / spread
    found = np.linalg.norm(joint.vectors[:5, None] - joint.vectors[None, :5], axis=-1) ** 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_noise_has_a_small_weight(views) -> None:
    first, _, kind = views
    noise = np.random.default_rng(1).normal(size=(N, 3))
    weights = view_weights(first, noise)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.6
    np.testing.assert_allclose(view_weights(noise, first), weights[::-1])
    assert accuracy(join(first, noise).vectors, np.minimum(kind, 2)) > accuracy(noise, np.minimum(kind, 2)) + 0.3


def test_order_of_cells_and_scale_do_not_matter(views) -> None:
    first, second, _ = views
    order = np.random.default_rng(2).permutation(N)
    joint = join(first, second)
    np.testing.assert_allclose(join(first[order], second[order]).vectors, joint.vectors[order], atol=1e-5)
    np.testing.assert_allclose(join(first * 100 + 3, second / 7 - 1).vectors, joint.vectors, atol=1e-5)


def test_cells_with_one_view_lie_among_their_type(views) -> None:
    first, second, kind = views
    first[:30], second[30:60] = np.nan, np.nan
    joint = join(first, second, fit_rows=np.arange(60, N))
    assert np.isfinite(joint.vectors).all()
    means = np.array([joint.vectors[60:][kind[60:] == k].mean(axis=0) for k in range(4)])
    nearest = np.linalg.norm(joint.vectors[:60, None] - means[None], axis=-1).argmin(axis=1)
    told = np.r_[kind[:30] >= 2, kind[30:60] < 2]  # what the view that they have tells
    assert (nearest == kind[:60])[told].mean() > 0.9


def test_cells_that_are_not_fitted_change_nothing_for_the_others(views) -> None:
    first, second, _ = views
    fitted = np.arange(200)
    whole = join(first, second, fit_rows=fitted)
    some = join(first[:200], second[:200])
    np.testing.assert_allclose(whole.vectors[:200], some.vectors, atol=1e-5)


def test_few_cells_and_views_without_differences(views) -> None:
    first, second, _ = views
    assert join(first[:4], second[:4]).vectors.shape[0] == 4
    flat = join(np.ones((N, 2)), second)
    assert np.isfinite(flat.vectors).all()
    with pytest.raises(ValueError, match="All cells have the same vector in both modalities"):
        join(np.ones((N, 2)), np.zeros((N, 3)))
