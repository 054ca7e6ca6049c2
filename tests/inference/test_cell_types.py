from __future__ import annotations

import numpy as np
import pytest

from scfound_atac.data import Cells
from scfound_atac.genome.elements import load_element_table
from scfound_atac.inference.cell_types import (
    Evidence,
    Signals,
    TypeWeights,
    load_type_weights,
    neighborhoods,
    read_signals,
    weigh_evidence,
)


def signals_of(adata) -> tuple[Signals, Signals]:
    table = load_element_table()
    cells = Cells.read(adata)
    signals = read_signals(cells, table.lookup(cells.ocrs), table.n_strata, progress=False)
    return signals, Signals(*(x.mean(axis=0, keepdims=True) for x in signals))


def test_signals_are_sums_over_open_ocrs(typed_cells) -> None:
    adata = typed_cells({"hepatocyte": 3}, n_open=50)
    table = load_element_table()
    signals, _ = signals_of(adata)
    known = table.lookup(adata.var)
    p = np.asarray((adata.X > 0).todense(), dtype=float)
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(signals.types, p @ known.types.toarray(), atol=1e-6)
    np.testing.assert_allclose(signals.classes.sum(axis=1), (p * known.found).sum(axis=1), atol=1e-6)


def test_noise_is_that_of_random_signs(typed_cells) -> None:
    # The mean of the squared sums of signs estimates N, here over many draws.
    adata = typed_cells({"hepatocyte": 2}, n_open=200)
    cells, table = Cells.read(adata), load_element_table()
    known = table.lookup(cells.ocrs)
    drawn = [read_signals(cells, known, table.n_strata, seed=s, progress=False).signs for s in range(40)]
    estimated = np.mean(np.concatenate(drawn, axis=1) ** 2, axis=1)
    domain = cells.ocrs["chrom"].astype(str) + ":" + (cells.ocrs["start"] // 100_000).astype(str)
    p = np.asarray((adata.X > 0).todense(), dtype=float)
    p /= p.sum(axis=1, keepdims=True)
    exact = np.array([(np.bincount(domain.astype("category").cat.codes, weights=row) ** 2).sum() for row in p])
    np.testing.assert_allclose(estimated, exact, rtol=0.1)  # 1,280 draws: 4 % standard error


def test_the_true_type_has_the_strongest_evidence(typed_cells) -> None:
    types = ("hepatocyte", "astrocyte", "classical monocyte")
    adata = typed_cells(dict.fromkeys(types, 20), n_open=400)
    signals, mean = signals_of(adata)
    evidence = weigh_evidence(signals, mean, load_element_table().expected())
    names = np.array(load_element_table().type_names)
    for column in (0, 1):  # against chance, and against the other cells
        best = names[evidence.features[:, :144, column].argmax(axis=1)]
        assert (best == adata.obs["truth"]).mean() > 0.9


def test_evidence_against_the_other_cells_is_zero_for_equal_cells(typed_cells) -> None:
    signals, _ = signals_of(typed_cells({"hepatocyte": 1}, n_open=100))
    evidence = weigh_evidence(signals, signals, load_element_table().expected())
    assert np.isfinite(evidence.features).all()
    assert not evidence.features[:, :, [1, 3]].any()


def test_probabilities() -> None:
    weights = load_type_weights()
    rng = np.random.default_rng(0)
    evidence = Evidence(rng.normal(size=(5, 150, 4)).astype(np.float32), np.full(5, 3.0, np.float32))
    p = weights.probabilities(evidence, n_added=6)
    assert p.shape == (5, 151)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    allowed = np.zeros(150, dtype=bool)
    allowed[:3] = True
    assert not weights.probabilities(evidence, n_added=6, allowed=allowed)[:, 3:150].any()


def test_more_information_makes_probabilities_sharper() -> None:
    weights = TypeWeights(np.array([1.0, 0, 0, 0]), added=0.0, none=0.0, sharpness=0.5)
    features = np.zeros((2, 3, 4), np.float32)
    features[:, 0, 0] = 2
    p = weights.probabilities(Evidence(features, np.array([2.5, 4.0], np.float32)), n_added=0)
    assert p[0, 0] == pytest.approx(np.exp(2) / (np.exp(2) + 3))
    assert p[1, 0] > p[0, 0]


def test_neighborhoods() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 1, (100, 3)), rng.normal(50, 1, (100, 3))]).astype(np.float32)
    weights = neighborhoods(vectors, 200, 10)
    np.testing.assert_allclose(np.asarray(weights.sum(axis=1)).ravel(), 1)
    assert (weights.diagonal() > 0).all()
    assert (np.diff(weights.indptr) == 10).all()
    assert weights[:100, 100:].nnz == 0
    doubled = neighborhoods(np.repeat(vectors[:40], 3, axis=0), 120, 10)  # equal cells: each is its own neighbour once
    assert all(len(set(doubled[i].indices)) == 10 for i in range(120))
    assert neighborhoods(vectors[:5], 5, 10).nnz == 5  # too few cells
    assert neighborhoods(vectors, 200, 0).nnz == 200
