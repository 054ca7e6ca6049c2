"""Folders saved by an earlier version still open, and say what they said then; `tests/fixtures/make_format_1.py` made them."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from anndata import AnnData
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.model import CellAnnotator, ChromFound, EpiFoundation, RNAPredictor, pretrain

SAVED = Path(__file__).parents[1] / "fixtures" / "format_1"
# What single precision, summed in another order, does to values around 1.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[str], Path]:
    def unpack(name: str) -> Path:
        with tarfile.open(SAVED / f"{name}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
        return tmp_path / name

    return unpack


@pytest.fixture(scope="module")
def predictions() -> dict[str, np.ndarray]:
    with np.load(SAVED / "predictions.npz") as file:
        return dict(file)


def cells(name: str) -> AnnData:
    with np.load(SAVED / f"{name}.npz") as file:
        saved = dict(file)
    var = pd.DataFrame({column: saved[column] for column in ("chrom", "start", "end")})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    obs = pd.DataFrame({"cell_type": saved["cell_types"]}, index=saved["cells"])
    return AnnData(sparse.csr_matrix(saved["counts"].astype(np.float32)), obs=obs, var=var, uns={"genome": "GRCh38"})


@pytest.mark.parametrize("name", ["region_set", "chromfound", "epifoundation"])
def test_networks(name: str, unpack, predictions) -> None:
    query = cells("query")
    sfa.tl.embed(query, model=unpack(name), device="cpu", n_components=None)
    np.testing.assert_allclose(query.obsm["X_sfa"], predictions[f"{name}/vectors"], **CLOSE)


@pytest.mark.parametrize("name", ["probe", "finetune", "paper_chromfound", "paper_epifoundation"])
def test_annotators(name: str, unpack, predictions) -> None:
    folder = unpack(f"annotator_{name}")
    expected = {key: predictions[f"annotator_{name}/{key}"] for key in ("labels", "probabilities", "novelty")}
    annotator = CellAnnotator.load(folder)
    found = annotator.predict(cells("query"), device="cpu")
    np.testing.assert_array_equal(found.labels.to_numpy(str), expected["labels"])
    np.testing.assert_allclose(found.probabilities, expected["probabilities"], **CLOSE)
    np.testing.assert_allclose(found.novelty, expected["novelty"], rtol=1e-3)
    assert annotator.mode == name.partition("_")[0]
    assert 0 <= annotator.report["fraction_unknown_found"] <= 1  # had another name
    # what is saved again is in today's form
    again = CellAnnotator.load(annotator.save(folder.with_name("again"))).predict(cells("query"), device="cpu")
    np.testing.assert_array_equal(again.probabilities, found.probabilities)


@pytest.mark.parametrize("name", ["gene_query", "mlp"])
def test_predictors(name: str, unpack, predictions) -> None:
    predictor = RNAPredictor.load(unpack(f"predictor_{name}"))
    found = predictor.predict(cells("query"), device="cpu")
    assert list(found.columns) == [f"GENE{i}" for i in range(6)]
    np.testing.assert_allclose(found, predictions[f"predictor_{name}/expression"], rtol=1e-3, atol=1e-4)


def test_chromfound(unpack, predictions) -> None:
    reference = cells("reference")[:, ::-1].copy()
    ChromFound.setup_anndata(reference)
    model = ChromFound.load(unpack("model_chromfound"), reference)
    vectors = model.get_latent_representation(n_components=None)
    np.testing.assert_allclose(vectors[:, ::-1], predictions["model_chromfound/vectors"], **CLOSE)
    others = reference[:, 1:].copy()
    ChromFound.setup_anndata(others)
    with pytest.raises(ValueError, match="other OCRs"):
        ChromFound.load(unpack("model_chromfound"), others)


def test_epifoundation(unpack, predictions) -> None:
    model = EpiFoundation.load(unpack("model_epifoundation"))
    vectors = model.get_latent_representation(cells("query"), device="cpu")
    np.testing.assert_allclose(vectors, predictions["model_epifoundation/vectors"], **CLOSE)
    expression = model.predict_expression(cells("query"), device="cpu")
    np.testing.assert_allclose(expression, predictions["model_epifoundation/expression"], **CLOSE)


def test_pretraining_goes_on(unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the checkpoint of step four, the last two steps are those that the earlier version took."""
    folder = unpack("pretraining")
    monkeypatch.chdir(folder)
    pretrain(yaml.safe_load((folder / "config.yaml").read_text()))
    logs = []
    for path in (folder / "run" / "log.csv", folder / "log_of_all_steps.csv"):
        with path.open(newline="") as file:
            logs.append({int(row["step"]): row for row in csv.DictReader(file)})
    ours, theirs = logs
    assert sorted(ours) == [5, 6]
    for step, row in ours.items():
        for name in ("loss", "denoise", "identity", "lr", "gradient_norm", "tokens"):
            assert float(row[name]) == pytest.approx(float(theirs[step][name]), rel=1e-3), (step, name)
    # other batches would have had another loss
    assert float(theirs[5]["loss"]) != pytest.approx(float(theirs[6]["loss"]), rel=1e-3)


def test_a_newer_version_is_named(unpack) -> None:
    folder = unpack("annotator_probe")
    facts = folder / "head.json"
    facts.write_text(facts.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(ValueError, match="newer version"):
        CellAnnotator.load(folder)
