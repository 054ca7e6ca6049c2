"""The model of links: its file, and what it finds of the pairs that were tested by CRISPRi."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

from scfound_atac.inference import links
from scfound_atac.inference.link_features import FEATURES

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_models_of_the_package() -> None:
    models = links.load_link_models()
    assert set(models) == {"knowledge", "abc", "distance"}
    for model in models.values():
        assert model.log_odds(model.mean[None, :]) == pytest.approx([model.intercept], abs=1e-5)
        assert (model.scale > 0).all()


def test_the_card_has_intervals_and_held_out_scores() -> None:
    content = json.loads((Path(links.__file__).with_name("links.json")).read_text(encoding="utf-8"))
    record = content["models"]["knowledge"]
    assert [row["feature"] for row in record["features"]] == list(FEATURES)
    for row in record["features"]:
        assert row["interval"][0] <= row["coefficient"] <= row["interval"][1]
    for signal, auprc in (("called peaks", 0.63), ("reads", 0.70)):
        assert record["by_chromosome_folds"][signal]["auprc"] > auprc
        assert record["by_chromosome_folds"][signal]["auroc"] > 0.935
    assert "MIT" in content["about"]["source"]


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    content = json.loads((Path(links.__file__).with_name("links.json")).read_text(encoding="utf-8"))
    content["models"]["knowledge"]["features"].pop()
    (tmp_path / "links.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(links, "_FILE", tmp_path / "links.json")
    links.load_link_models.cache_clear()
    with pytest.raises(ValueError, match="its features for 'knowledge' are not signal"):
        links.load_link_models()
    links.load_link_models.cache_clear()


def test_scores_and_probabilities() -> None:
    x = np.zeros((3, len(FEATURES)), dtype=np.float32)
    x[:, FEATURES.index("log_gene_share")] = [-6, -3, 0]
    scored = links.by_knowledge(x)
    assert (np.diff(scored.score) > 0).all()
    assert scored.probability == pytest.approx(expit(scored.score), rel=1e-5)
    near = links.by_distance(np.array([0, 1, 10_000, 1_000_000]))
    assert near.score.tolist() == pytest.approx([0, 0, -4, -6])
    assert (np.diff(near.probability) <= 0).all()
    share = links.by_abc(np.array([0, 0.01, 0.5], dtype=np.float32))
    assert (np.diff(share.probability) > 0).all()


@pytest.fixture(scope="module")
def tested(data_dir: Path):
    sys.path.insert(0, str(SCRIPTS))
    import fit_links

    return fit_links, fit_links.read_tested(data_dir)


def test_held_out_chromosomes(tested) -> None:
    """What the issue asks: AUPRC and AUROC by folds, better than distance in every bin of distance, and calibrated."""
    fit_links, pairs = tested
    y, chrom = pairs.is_regulated, pairs.pairs["chrom"]
    score, of_reads = fit_links.by_folds(pairs.seen, y, chrom, of=[pairs.features, pairs.measured])
    assert average_precision_score(y, score) > 0.63
    assert average_precision_score(y, of_reads) > 0.70
    assert roc_auc_score(y, score) > 0.935
    kb = pairs.pairs["distanceToTSS"].to_numpy() / 1e3
    for low, high in ((0, 10), (10, 50), (50, 100), (100, 500), (500, 5000)):
        here = (kb >= low) & (kb < high)
        assert average_precision_score(y[here], score[here]) > average_precision_score(y[here], -pairs.distance[here])
    p = expit(of_reads)  # with called peaks probabilities are too low
    for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 1)):
        here = (p >= low) & (p < high)
        assert y[here].mean() == pytest.approx(p[here].mean(), abs=0.06)


def test_the_file_is_that_of_the_script(tested) -> None:
    fit_links, pairs = tested
    model = links.load_link_models()["knowledge"]
    n = len(pairs.seen)
    mean, scale, coefficients, intercept = fit_links.fit(np.concatenate(pairs.seen), np.tile(pairs.is_regulated, n))
    assert model.mean == pytest.approx(mean, abs=2e-4)
    assert model.scale == pytest.approx(scale, abs=2e-4)
    assert model.coefficients == pytest.approx(coefficients, abs=2e-3)
    assert model.intercept == pytest.approx(intercept, abs=2e-3)
    assert logit(links.by_knowledge(pairs.features).probability.astype(float)) == pytest.approx(
        (pairs.features - mean) / scale @ coefficients + intercept, abs=0.02
    )


def test_expression_rises_with_the_promoter() -> None:
    found = links.load_expression_model().relative(np.array([0, 0.5, 0.8, 0.95, 1, np.nan]))
    assert (np.diff(found[:5]) > 0).all()
    assert found[0] < 0.1
    assert found[4:].tolist() == pytest.approx([1, 1])


def test_the_expression_model_is_that_of_the_script(tested) -> None:
    fit_links, pairs = tested
    model = links.load_expression_model()
    assert fit_links._expressed(pairs) == pytest.approx({"rate": model.rate, "middle": model.middle}, abs=2e-3)
