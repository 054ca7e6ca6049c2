from __future__ import annotations

import random
import sys

import numpy as np
import pandas as pd
import pytest

import scfound_atac as sfa
from scfound_atac.bench._scores import METRICS, stratified_folds

CLUSTERINGS = ("kmeans", "leiden_k", "leiden_best")


def separate(n_labels: int = 4, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % n_labels
    return 20 * np.eye(n_labels)[labels] + rng.normal(size=(n, n_labels)), labels.astype(str)


def test_perfect_clusters() -> None:
    scores = sfa.bench.clustering_scores(*separate(), n_seeds=2)
    for clustering in CLUSTERINGS:
        for metric in METRICS:
            assert scores[f"{clustering}_{metric}"] == pytest.approx(1), (clustering, metric)
            assert scores[f"{clustering}_{metric}_sd"] == pytest.approx(0)
    assert 0.1 <= scores["leiden_k_resolution"] <= 2


def test_labels_that_have_nothing_to_do_with_the_clusters() -> None:
    points, labels = separate()
    shuffled = np.random.default_rng(1).permutation(labels)
    scores = sfa.bench.clustering_scores(points, shuffled, n_seeds=2)
    for clustering in CLUSTERINGS:
        assert abs(scores[f"{clustering}_ari"]) < 0.1
        assert abs(scores[f"{clustering}_ami"]) < 0.1
    accuracy, sd = sfa.bench.knn_accuracy(points, shuffled)
    assert abs(accuracy - 0.25) < 0.15
    assert 0 < sd < 0.1


def test_known_values() -> None:
    """Two clusters found where there are two labels, one of them cut in half by the labels' third."""
    points = np.repeat([[0.0], [10.0]], 10, axis=0) + np.linspace(0, 0.1, 20)[:, None]
    labels = ["a"] * 10 + ["b"] * 10
    assert sfa.bench.clustering_scores(points, labels, n_seeds=1)["kmeans_nmi"] == pytest.approx(1)
    crossed = ["a", "b"] * 10
    scores = sfa.bench.clustering_scores(points, crossed, n_seeds=1)
    assert scores["kmeans_nmi"] == pytest.approx(0, abs=1e-9)
    assert scores["kmeans_fmi"] == pytest.approx(40 / 90)  # pairs of equal label among pairs of equal cluster


def test_same_seed_same_scores_and_global_state_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(150, 5)), rng.integers(0, 4, 150)
    random.seed(5)
    expected = random.Random(5).random()
    first = sfa.bench.clustering_scores(points, labels, n_seeds=2)
    assert random.random() == expected
    pd.testing.assert_series_equal(first, sfa.bench.clustering_scores(points, labels, n_seeds=2))
    assert sfa.bench.knn_accuracy(points, labels) == sfa.bench.knn_accuracy(points, labels)
    other = sfa.bench.clustering_scores(points, labels, n_seeds=2, seed=9)
    assert other["kmeans_ari"] != first["kmeans_ari"]


def test_leiden_is_that_of_scanpy() -> None:
    import scanpy as sc
    from anndata import AnnData
    from sklearn.metrics import adjusted_rand_score

    from scfound_atac.bench._scores import _Leiden

    points, _ = separate()
    cells = AnnData(obs=pd.DataFrame(index=np.arange(len(points)).astype(str)), obsm={"points": points})
    sc.pp.neighbors(cells, n_neighbors=15, use_rep="points", random_state=0)
    sc.tl.leiden(cells, resolution=0.5, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    assert adjusted_rand_score(cells.obs["leiden"], _Leiden(points, 0).clusters(0.5, 0)) == 1


def test_knn_by_hand() -> None:
    """One neighbour, two folds: the cell beyond the other label is the only one that is told wrong."""
    points = np.array([[0.0], [0.1], [0.2], [0.3], [10.0], [10.1], [10.2], [10.3], [30.0]])
    labels = np.array(list("aaaabbbba"))
    accuracy, sd = sfa.bench.knn_accuracy(points, labels, n_neighbors=1, n_folds=4, n_seeds=3)
    assert accuracy == pytest.approx(8 / 9)
    assert sd == pytest.approx(0)


def test_rare_labels() -> None:
    points, labels = separate()
    labels[:3] = "rare"
    labels[3] = "alone"
    accuracy, _ = sfa.bench.knn_accuracy(points, labels)
    assert 0.9 < accuracy < 1
    assert np.isfinite(sfa.bench.clustering_scores(points, labels, n_seeds=1)).all()


def test_folds_have_their_share_of_each_label() -> None:
    labels = np.repeat([0, 1, 2], [50, 13, 3])
    fold = stratified_folds(labels, 5, seed=0)
    for label in range(3):
        size = np.bincount(fold[labels == label], minlength=5)
        assert size.max() - size.min() <= 1
    assert np.ptp(np.bincount(fold)) <= 1
    assert (fold != stratified_folds(labels, 5, seed=1)).any()


def test_few_cells() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.1]])
    labels = list("aabb")
    assert sfa.bench.knn_accuracy(points, labels, n_neighbors=1)[0] == 1.0
    assert sfa.bench.clustering_scores(points, labels, n_seeds=1)["kmeans_ari"] == 1.0


def test_cells_at_the_same_point() -> None:
    points, labels = np.zeros((60, 3)), np.arange(60) % 3
    scores = sfa.bench.clustering_scores(points, labels, n_seeds=1)
    assert scores["kmeans_ari"] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("function", [sfa.bench.clustering_scores, sfa.bench.knn_accuracy])
def test_errors(function) -> None:
    points, labels = separate()
    with pytest.raises(ValueError, match="one row per label"):
        function(points[:-1], labels)
    with pytest.raises(ValueError, match="2 cells have no label .first: cell 3"):
        function(points, [None if i == 3 else "" if i == 5 else label for i, label in enumerate(labels)])
    with pytest.raises(ValueError, match="At least two labels"):
        function(points, np.full(len(points), "a"))
    broken = points.copy()
    broken[4] = np.nan
    with pytest.raises(ValueError, match="1 cells is not finite .cells 4"):
        function(broken, labels)
    with pytest.raises(ValueError, match="n_seeds=0 must be at least 1"):
        function(points, labels, n_seeds=0)


def test_knn_errors() -> None:
    points, labels = separate()
    with pytest.raises(ValueError, match="n_folds=1 must be at least 2"):
        sfa.bench.knn_accuracy(points, labels, n_folds=1)
    with pytest.raises(ValueError, match="only one cell"):
        sfa.bench.knn_accuracy(points[:4], ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="labels holds no labels but measurements"):
        sfa.bench.knn_accuracy(points, np.arange(len(points)))


def test_missing_igraph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scfound_atac.bench._scores.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'scfound-atac\[bench\]'"):
        sfa.bench.clustering_scores(*separate())
    assert "scfound_atac.bench" in sys.modules
