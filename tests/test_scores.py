from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats
from scipy.special import softmax
from sklearn import metrics

from scfound_atac.scores import (
    annotation_scores,
    expected_calibration_error,
    expression_scores,
    gene_scores,
    temperature,
)

LABELS = ["b", "mono", "nk", "t"]


def annotation(n: int = 300) -> tuple[pd.Series, pd.Series, pd.DataFrame]:
    rng = np.random.default_rng(0)
    cells = [f"cell{i}" for i in range(n)]
    truth = pd.Series(rng.choice(LABELS, n, p=[0.5, 0.3, 0.15, 0.05]), cells)
    logits = rng.normal(size=(n, 4)) + 1.5 * (truth.to_numpy()[:, None] == np.array(LABELS))
    probabilities = pd.DataFrame(softmax(logits, axis=1), cells, LABELS)
    return truth, probabilities.idxmax(axis=1), probabilities


def test_annotation_scores_are_those_of_sklearn() -> None:
    truth, predicted, probabilities = annotation()
    scores = annotation_scores(truth, predicted, probabilities)
    assert scores["accuracy"] == metrics.accuracy_score(truth, predicted)
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert scores["micro_f1"] == pytest.approx(scores["accuracy"])
    auc = metrics.roc_auc_score(truth, probabilities, multi_class="ovr", labels=LABELS)
    assert scores["auc"] == pytest.approx(auc)
    assert 0 < scores["ece"] < 0.5
    assert (scores["n_cells"], scores["n_labels"], scores["unknown"]) == (300, 4, 0)
    assert (scores.drop(["n_cells", "n_labels", "unknown"]) < 1).all()


def test_perfect_annotation() -> None:
    truth, _, _ = annotation()
    certain = pd.get_dummies(truth).astype(float)
    scores = annotation_scores(truth, truth, certain)
    assert (scores[["accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "auc"]] == 1).all()
    assert scores["ece"] == 0


def test_tables_of_the_same_cells_are_aligned_by_name() -> None:
    truth, predicted, probabilities = annotation()
    order = np.random.default_rng(1).permutation(len(truth))
    shuffled = annotation_scores(truth, predicted.iloc[order], probabilities.iloc[order])
    pd.testing.assert_series_equal(shuffled, annotation_scores(truth, predicted, probabilities))
    plain = annotation_scores(truth.to_numpy(), predicted.tolist(), probabilities)
    pd.testing.assert_series_equal(shuffled, plain)


@pytest.mark.parametrize("missing", [None, np.nan, "", "  ", "unknown"])
def test_cells_without_a_true_label_are_left_out(missing: object) -> None:
    truth, predicted, probabilities = annotation()
    expected = annotation_scores(truth.iloc[10:], predicted.iloc[10:], probabilities.iloc[10:])
    truth = truth.astype(object)
    truth.iloc[:10] = missing
    pd.testing.assert_series_equal(annotation_scores(truth, predicted, probabilities), expected)
    categories = truth.replace({"": None}).astype("category")
    pd.testing.assert_series_equal(annotation_scores(categories, predicted, probabilities), expected)


def test_a_label_that_no_column_has_is_wrong() -> None:
    truth, _, probabilities = annotation()
    truth.iloc[:30] = "new"
    scores = annotation_scores(truth, probabilities.idxmax(axis=1), probabilities)
    kept = annotation_scores(truth.iloc[30:], probabilities.idxmax(axis=1).iloc[30:], probabilities.iloc[30:])
    assert scores["accuracy"] == pytest.approx(kept["accuracy"] * 270 / 300)
    assert scores["n_labels"] == 5
    assert scores["macro_f1"] < kept["macro_f1"] * 4 / 5 + 1e-9
    assert np.isfinite(scores["auc"])


def test_unknown_predictions_are_misses_but_no_false_alarms() -> None:
    truth = ["a", "a", "b", "b"]
    scores = annotation_scores(truth, ["a", "unknown", "b", None])
    assert scores["accuracy"] == 0.5
    assert scores["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert scores["macro_f1"] == pytest.approx(2 / 3)
    assert scores["unknown"] == 0.5
    assert np.isnan(scores[["auc", "ece"]].to_numpy(dtype=float)).all()
    assert annotation_scores(truth, ["a", "?", "b", "?"], unknown="?")["unknown"] == 0.5


def test_one_label_has_no_curve() -> None:
    probabilities = pd.DataFrame({"a": [0.9, 0.8], "b": [0.1, 0.2]})
    scores = annotation_scores(["a", "a"], ["a", "a"], probabilities)
    assert np.isnan(scores["auc"])
    assert scores["ece"] == pytest.approx(0.15)
    assert annotation_scores(["a"], ["a"], probabilities.iloc[:1])["accuracy"] == 1


def test_annotation_that_cannot_be_scored() -> None:
    truth, predicted, probabilities = annotation()
    with pytest.raises(ValueError, match="None of the 2 cells has a true label"):
        annotation_scores([None, ""], ["a", "b"])
    with pytest.raises(ValueError, match="predicted has 299 cells, truth 300"):
        annotation_scores(truth, predicted.iloc[1:])
    with pytest.raises(ValueError, match=r"same cells: 300 are missing \(\['cell0'"):
        annotation_scores(truth, predicted.reset_index(drop=True))
    with pytest.raises(ValueError, match="repeat names"):
        annotation_scores(truth, predicted.set_axis(["x"] * 300))
    with pytest.raises(ValueError, match="sum of 1"):
        annotation_scores(truth, predicted, probabilities * 2)
    with pytest.raises(ValueError, match="sum of 1"):
        annotation_scores(truth, predicted, probabilities * np.nan)
    with pytest.raises(ValueError, match="one column per label"):
        annotation_scores(truth, predicted, probabilities.iloc[:, :0])


def test_calibration_error_of_known_values() -> None:
    confidence = [0.95, 0.95, 0.95, 0.95, 0.55, 0.55]
    correct = [True, True, True, False, True, False]
    expected = 4 / 6 * abs(0.75 - 0.95) + 2 / 6 * abs(0.5 - 0.55)
    assert expected_calibration_error(confidence, correct, n_bins=10) == pytest.approx(expected)
    assert expected_calibration_error(confidence, correct, n_bins=1) == pytest.approx(abs(4 / 6 - np.mean(confidence)))
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1


@given(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1)),
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
)
def test_calibration_error_is_a_part_of_one(confidence: np.ndarray, n_bins: int, seed: int) -> None:
    correct = np.random.default_rng(seed).random(len(confidence)) < confidence
    error = expected_calibration_error(confidence, correct, n_bins)
    assert 0 <= error <= 1
    assert error >= abs(confidence.mean() - correct.mean()) - 1e-9  # one bin hides most


def test_calibration_error_that_cannot_be_computed() -> None:
    with pytest.raises(ValueError, match="at least one"):
        expected_calibration_error([], [])
    with pytest.raises(ValueError, match="one of each"):
        expected_calibration_error([0.5, 0.6], [True])
    with pytest.raises(ValueError, match=r"not in \[0, 1\]: \[1.2"):
        expected_calibration_error([0.5, 1.2], [True, False])
    with pytest.raises(ValueError, match=r"1 confidences are not"):
        expected_calibration_error([0.5, np.nan], [True, False])
    with pytest.raises(ValueError, match="n_bins=0"):
        expected_calibration_error([0.5], [True], n_bins=0)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_temperature_undoes_a_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 2
    labels = np.array([rng.choice(5, p=p) for p in softmax(logits, axis=1)])
    found = temperature(logits * scale, labels)
    assert found == pytest.approx(scale, rel=0.03)
    before, after = (
        metrics.log_loss(labels, softmax(logits * scale / t, axis=1).astype(np.float64)) for t in (1, found)
    )
    assert after <= before + 1e-9


def test_temperature_at_its_bounds_and_without_meaning() -> None:
    assert 0 < temperature([[5.0, 0.0]], [0]) < 0.1
    assert temperature([[5.0, 0.0]], [1]) > 100
    with pytest.raises(ValueError, match="from 0 to 1"):
        temperature([[5.0, 0.0]], [2])
    with pytest.raises(ValueError, match="from 0 to 1"):
        temperature([[5.0, 0.0]], ["a"])
    with pytest.raises(ValueError, match="n_cells > 0"):
        temperature(np.zeros((0, 2)), np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="1 of 2 logits are not finite"):
        temperature([[5.0, -np.inf]], [0])


def expression(n_cells: int = 80, n_genes: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    cells, genes = [f"cell{i}" for i in range(n_cells)], [f"G{i}" for i in range(n_genes)]
    measured = rng.poisson(1.0, (n_cells, n_genes)) * rng.random(n_genes)
    predicted = 0.5 * measured + rng.normal(size=measured.shape)
    return pd.DataFrame(measured, cells, genes), pd.DataFrame(predicted, cells, genes)


def lin(x: np.ndarray, y: np.ndarray) -> float:
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_expression_scores_are_those_of_scipy() -> None:
    measured, predicted = expression()
    per_gene, scores = gene_scores(measured, predicted), expression_scores(measured, predicted)
    for gene in measured:
        m, p = measured[gene].to_numpy(), predicted[gene].to_numpy()
        assert per_gene.at[gene, "pearson"] == pytest.approx(stats.pearsonr(m, p)[0])
        assert per_gene.at[gene, "spearman"] == pytest.approx(stats.spearmanr(m, p)[0])
        assert per_gene.at[gene, "ccc"] == pytest.approx(lin(m, p))
        assert per_gene.at[gene, "mse"] == pytest.approx(metrics.mean_squared_error(m, p))
    for name in ("pearson", "spearman", "ccc"):
        assert scores[f"gene_{name}"] == pytest.approx(per_gene[name].mean())
    assert scores["gene_pearson_median"] == pytest.approx(per_gene["pearson"].median())
    m, p = measured.to_numpy().ravel(), predicted.to_numpy().ravel()
    assert scores["flat_pearson"] == pytest.approx(stats.pearsonr(m, p)[0])
    assert scores["flat_spearman"] == pytest.approx(stats.spearmanr(m, p)[0])
    assert scores["flat_ccc"] == pytest.approx(lin(m, p))
    assert scores["mse"] == pytest.approx(metrics.mean_squared_error(m, p))
    assert (scores["n_genes"], scores["n_genes_constant"], scores["n_cells"]) == (12, 0, 80)


def test_tables_are_aligned_by_name_and_arrays_are_not() -> None:
    measured, predicted = expression()
    expected = expression_scores(measured, predicted)
    shuffled = predicted.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=0)
    pd.testing.assert_series_equal(expression_scores(measured, shuffled), expected)
    pd.testing.assert_frame_equal(gene_scores(measured, shuffled), gene_scores(measured, predicted))
    for kind in (np.asarray, sparse.csr_matrix, lambda table: table.to_numpy(dtype=np.float32)):
        pd.testing.assert_series_equal(expression_scores(kind(measured), kind(predicted)), expected, rtol=1e-5)
    assert gene_scores(measured.to_numpy(), predicted).index.tolist() == list(range(12))
    assert abs(expression_scores(measured.to_numpy(), shuffled)["gene_pearson"]) < 0.2


def test_genes_without_variation() -> None:
    measured, predicted = expression()
    measured["G0"], predicted["G1"] = 0.1, 7.7  # binary fractions: their mean over cells is not exactly they
    scores, per_gene = expression_scores(measured, predicted), gene_scores(measured, predicted)
    assert scores["n_genes_constant"] == 1
    assert per_gene.loc["G0", ["pearson", "spearman", "ccc"]].isna().all()
    assert per_gene.at["G0", "mse"] > 0
    assert (per_gene.loc["G1", ["pearson", "spearman", "ccc"]] == 0).all()
    assert scores["gene_pearson"] == pytest.approx(per_gene["pearson"].iloc[1:].mean())
    nothing = expression_scores(np.ones((3, 2)), np.ones((3, 2)))
    assert nothing[["gene_pearson", "gene_pearson_median", "gene_ccc", "flat_pearson"]].isna().all()
    assert (nothing["mse"], nothing["n_genes_constant"]) == (0, 2)


def test_perfect_expression_and_its_opposite() -> None:
    measured, _ = expression()
    scores = expression_scores(measured, measured)
    assert scores.filter(regex="gene_|flat_").to_numpy() == pytest.approx(1)
    opposite = expression_scores(measured, -measured)
    assert opposite[["gene_pearson", "gene_spearman", "flat_pearson"]].to_numpy() == pytest.approx(-1)
    line = expression_scores(measured, 2 * measured + 1)
    assert line["gene_pearson"] == pytest.approx(1)
    assert line["gene_ccc"] < 0.8


@settings(max_examples=50)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.01, 10))
def test_concordance_is_at_most_the_correlation(n_cells: int, seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    measured = rng.normal(size=(n_cells, 5))
    scores = gene_scores(measured, rng.normal(size=(n_cells, 5)) * scale + shift + rng.normal() * measured)
    assert (scores["ccc"].abs() <= scores["pearson"].abs() + 1e-9).all()
    assert (scores[["pearson", "spearman"]].abs() <= 1 + 1e-9).all(axis=None)


def test_expression_that_cannot_be_scored() -> None:
    measured, predicted = expression()
    with pytest.raises(ValueError, match=r"same genes: 1 are missing \(\['G3'\]\), 0 are not expected"):
        expression_scores(measured, predicted.drop(columns="G3"))
    with pytest.raises(ValueError, match="same cells: 2 are missing.*'cell0', 'cell1'"):
        expression_scores(measured, predicted.iloc[2:])
    with pytest.raises(ValueError, match=r"1 are not expected \(\['extra'\]\)"):
        expression_scores(measured, predicted.assign(extra=1))
    with pytest.raises(ValueError, match="the measured genes repeat names: \\['G0'\\]"):
        expression_scores(pd.concat([measured, measured[["G0"]]], axis=1), predicted)
    with pytest.raises(ValueError, match=r"shape \(80, 12\), predicted \(79, 12\)"):
        expression_scores(measured, predicted.to_numpy()[1:])
    with pytest.raises(ValueError, match="at least two cells"):
        expression_scores(measured.iloc[:1], predicted.iloc[:1])
    with pytest.raises(ValueError, match=r"predicted has values that are NaN or infinite in 1 genes: \['G2'\]"):
        expression_scores(measured, predicted.assign(G2=np.nan))
    with pytest.raises(ValueError, match="measured has values"):
        expression_scores(measured.replace(0, np.inf), predicted)


def test_metrics_need_no_torch() -> None:
    code = (
        "import sys, scfound_atac.scores; print(sorted({'torch', 'scvi', 'sklearn', 'lightning'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
