"""The head that reads counts: what it computes, its calibration, and what it is mixed with."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scfound_atac.train.count_head import CountHead, calibrated, fit_count_head


def planted(n: int = 300, n_ocrs: int = 60, n_classes: int = 3, seed: int = 0):
    """Cells whose classes each have twenty OCRs that are open more often."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    often = np.repeat(np.eye(n_classes), n_ocrs // n_classes, axis=1)[codes]
    return sp.csr_matrix((rng.random((n, n_ocrs)) < 0.1 + 0.3 * often).astype(np.float32)), codes


def chunks(counts: sp.csr_matrix, size: int = 70):
    return [(slice(i, i + size), counts[i : i + size]) for i in range(0, counts.shape[0], size)]


def test_weights_are_those_of_the_formula():
    counts, codes = planted()
    head = fit_count_head(chunks(counts), codes, 3)
    dense = counts.toarray()
    s = np.stack([dense[codes == k].sum(0) for k in range(3)])
    b = s.sum(0) / s.sum()
    a = 20 * s.sum() / len(codes)
    np.testing.assert_allclose(head.weights.T, np.log((s + a * b) / (s.sum(1, keepdims=True) + a) / b), rtol=1e-4)
    np.testing.assert_allclose(head.logits(chunks(counts), 300), dense @ head.weights + np.log(1 / 3), rtol=1e-4)


def test_only_what_is_open_counts():
    counts, codes = planted()
    more = counts.copy()
    more.data *= 7
    np.testing.assert_array_equal(
        fit_count_head(chunks(more), codes, 3).weights, fit_count_head(chunks(counts), codes, 3).weights
    )
    head = fit_count_head(chunks(counts), codes, 3)
    np.testing.assert_array_equal(head.logits(chunks(more), 300), head.logits(chunks(counts), 300))


def test_cells_that_are_held_out_are_not_learnt_from():
    counts, codes = planted()
    some = np.where(np.arange(300) < 200, codes, -1)
    np.testing.assert_array_equal(
        fit_count_head(chunks(counts), some, 3).weights, fit_count_head(chunks(counts[:200]), codes[:200], 3).weights
    )


def test_mixture_is_better_than_a_linear_head_that_knows_little_and_is_calibrated():
    (counts, codes), (query, truth) = planted(), planted(3000, seed=1)
    head = fit_count_head(chunks(counts), codes, 3)
    rng = np.random.default_rng(0)
    linear = 0.6 * rng.dirichlet(np.ones(3), 3000) + 0.4 * np.eye(3)[truth]
    logits = head.logits(chunks(query), 3000)
    head = calibrated(head, logits[:1000], linear[:1000], truth[:1000])
    mixed = head.mixed(linear[1000:], logits[1000:])
    np.testing.assert_allclose(mixed.sum(1), 1)
    right = mixed.argmax(1) == truth[1000:]
    assert right.mean() > (linear[1000:].argmax(1) == truth[1000:]).mean() + 0.05
    assert mixed.max(1).mean() == pytest.approx(right.mean(), abs=0.03)
    assert calibrated(head, logits[:0], linear[:0], truth[:0]) is head


def test_an_absent_class_and_closed_ocrs():
    counts, codes = planted()
    counts = sp.hstack([counts, sp.csr_matrix((300, 4), dtype=np.float32)], format="csr")
    head = fit_count_head(chunks(counts), codes, 4)
    assert np.isfinite(head.weights).all()
    assert (head.weights[60:] == 0).all()
    assert (head.mixed(np.full((300, 4), 0.25), head.logits(chunks(counts), 300))[:, 3] < 1e-9).all()
    again = CountHead.from_arrays(head.arrays())
    np.testing.assert_array_equal(again.weights, head.weights)
