"""`EpiFoundation` on small paired cells: it learns, goes on after a kill, survives files, and refuses what it cannot use."""

from __future__ import annotations

import csv
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import torch
from anndata.tests.helpers import assert_equal
from scipy import sparse
from sklearn.metrics import roc_auc_score

import scfound_atac as sfa
from scfound_atac.model import EpiFoundation
from scfound_atac.train.peak_to_gene import PeakToGeneRun
from scfound_atac.train.run_folder import load_checkpoint

TINY = {"d_model": 32, "n_layers": 1, "n_heads": 2, "d_feed_forward": 32, "d_query": 32, "dropout": 0.0}
N_CELLS, N_OCRS, N_GENES = 160, 120, 40
CHROMOSOMES = ("chr1", "chr2", "chrX")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")


def paired(n_cells: int = N_CELLS, seed: int = 0) -> md.MuData:
    """Two kinds of cells; every other OCR is open, and every other gene expressed, in one of them."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n_cells)
    counts = rng.poisson(np.where(np.arange(N_OCRS) % 2 == kind[:, None], 0.5, 0.03))
    expression = rng.poisson(np.where(np.arange(N_GENES) % 2 == kind[:, None], 1.0, 0.1))
    names = [f"cell{i}" for i in range(n_cells)]
    obs = pd.DataFrame({"donor": np.array(["ann", "bob"])[rng.integers(2, size=n_cells)]}, index=names)
    atac = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs.copy(), uns={"genome": "GRCh38"})
    atac.var_names = [f"{CHROMOSOMES[i % 3]}:{100_000 + 1000 * i}-{100_500 + 1000 * i}" for i in range(N_OCRS)]
    rna = ad.AnnData(sparse.csr_matrix(expression.astype(np.float32)), obs=obs.copy())
    rna.var = pd.DataFrame(
        {"chrom": [CHROMOSOMES[i % 3] for i in range(N_GENES)]}, index=[f"G{i}" for i in range(N_GENES)]
    )
    return md.MuData({"atac": atac, "rna": rna})


def with_modalities(mdata: md.MuData, **changes: ad.AnnData) -> md.MuData:
    return md.MuData({name: changes.get(name, adata.copy()) for name, adata in mdata.mod.items()})


def set_up(mdata: md.MuData | None = None, **kwargs: Any) -> md.MuData:
    mdata = paired() if mdata is None else mdata
    EpiFoundation.setup_mudata(mdata, **kwargs)
    return mdata


def make(mdata: md.MuData | None = None, *, setup: dict[str, Any] | None = None, **config: Any) -> EpiFoundation:
    return EpiFoundation(set_up(mdata, **(setup or {})), config=TINY | config)


SHORT = {"max_steps": 8, "accumulate": 2, "batch_size": 8, "n_warmup_steps": 2, "lr": 3e-3, "max_genes": 20}
SHORT |= {"accelerator": "cpu", "validate_every": 3, "checkpoint_every": 3}


def train(model: EpiFoundation, **changes: Any) -> EpiFoundation:
    model.train(**(SHORT | changes))
    return model


def state(model: EpiFoundation) -> dict[str, torch.Tensor]:
    return model.checkpoint.net.state_dict()


def assert_same_weights(a: EpiFoundation, b: EpiFoundation, **tolerance: float) -> None:
    for name, tensor in state(a).items():
        torch.testing.assert_close(tensor, state(b)[name], **(tolerance or {"atol": 0, "rtol": 0}))


def vectors(model: EpiFoundation, *args: Any, **kwargs: Any) -> np.ndarray:
    return model.get_latent_representation(*args, device="cpu", **kwargs)


def mean_auc(predicted: pd.DataFrame, rna: ad.AnnData) -> float:
    """Mean over genes of how well cells that express a gene are told from those that do not."""
    found = (rna[predicted.index, predicted.columns].X > 0).toarray()
    return float(np.mean([roc_auc_score(found[:, j], predicted.iloc[:, j]) for j in range(found.shape[1])]))


@pytest.fixture(scope="module")
def trained() -> EpiFoundation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")
        model = make(value_decoder=True)
        model.train(
            max_steps=400, accumulate=1, batch_size=16, lr=1e-2, n_warmup_steps=5, train_size=0.75, accelerator="cpu"
        )
    return model


# Training


def test_learns(trained: EpiFoundation) -> None:
    """On cells that were held out, and gene by gene, so that knowing which genes are common is worth nothing."""
    log = pd.concat(trained.history.values(), axis=1)
    assert {"expression", "values", "validation_expression", "validation_values"} < set(log)
    np.testing.assert_allclose(log["loss"], log["expression"] + log["values"], rtol=1e-5)
    validation = log["validation_expression"].dropna().to_numpy()
    assert validation[0] > 0.68  # coin tosses: log(2)
    assert validation.min() < 0.6
    assert len(trained.validation_names) == N_CELLS // 4
    held_out = trained.mdata["atac"][trained.validation_names].copy()
    probability = trained.predict_expression(held_out, device="cpu")
    assert probability.shape == (N_CELLS // 4, N_GENES)
    assert probability.to_numpy().min() >= 0
    assert probability.to_numpy().max() <= 1
    assert mean_auc(probability, trained.mdata["rna"]) > 0.7
    level = trained.predict_expression(held_out, kind="level", device="cpu")
    assert mean_auc(level, trained.mdata["rna"]) > 0.7
    assert level.to_numpy().max() > 1
    assert repr(trained).startswith("EpiFoundation of 120 peaks and 40 genes")


def assert_same_history(a: EpiFoundation, b: EpiFoundation) -> None:
    assert set(a.history) == set(b.history)
    for name, table in a.history.items():
        if name != "seconds":
            pd.testing.assert_frame_equal(table, b.history[name])


def test_best_weights_are_kept() -> None:
    """Not those after steps that made it worse."""
    mdata = set_up()
    short, long = (train(EpiFoundation(mdata, config=TINY), max_steps=n, lr=1.0, validate_every=1) for n in (1, 6))
    assert long.history["validation_loss"]["validation_loss"].idxmin() == 1
    assert long.checkpoint.training["n_steps"] == 1
    assert_same_weights(short, long)


def test_same_seed_same_weights() -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first, second = train(make(dropout=0.1)), train(make(dropout=0.1))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(first, second)
    assert_same_history(first, second)
    other = train(make(dropout=0.1), seed=1)
    assert (other.history["loss"] != first.history["loss"]).all(axis=None)
    assert list(other.validation_names) != list(first.validation_names)


def test_user_data_stay_as_they_are() -> None:
    mdata = paired()
    before = {name: adata.copy() for name, adata in mdata.mod.items()}
    model = train(make(mdata))
    model.get_latent_representation(device="cpu")
    for name, adata in before.items():
        assert_equal(mdata[name], adata)
    assert set(mdata.uns) == {
        "epifoundation_setup",
        "_scvi_uuid",
        "_scvi_manager_uuid",
    }  # scvi-tools knows it by the last two
    assert set(mdata.obs) - set(before["atac"].obs) <= {"_scvi_batch", "_scvi_labels", "atac:donor", "rna:donor"}


def test_order_of_ocrs_does_not_matter_to_training() -> None:
    mdata = paired()
    columns = np.random.default_rng(0).permutation(N_OCRS)
    other = with_modalities(mdata, atac=mdata["atac"][:, columns].copy())
    assert_same_weights(train(make(mdata)), train(make(other)))


def test_batches_are_told() -> None:
    mdata = paired()
    model = train(make(mdata, setup={"batch_key": "donor"}))
    assert dict(model.checkpoint.vocabularies.batches) == {"ann": 0, "bob": 1}
    own = model.predict_expression(device="cpu")
    as_ann = model.predict_expression(batch="ann", device="cpu")
    is_ann = (mdata["atac"].obs["donor"] == "ann").to_numpy()
    np.testing.assert_allclose(own[is_ann], as_ann[is_ann], atol=1e-6)
    assert np.abs(own - as_ann)[~is_ann].to_numpy().max() > 1e-4
    with pytest.raises(ValueError, match="not trained with batch 'eve'. It knows ann, bob"):
        model.predict_expression(batch="eve", device="cpu")
    with pytest.raises(ValueError, match="trained with batches, and the data are set up without batch_key"):
        EpiFoundation(set_up(), checkpoint=model.checkpoint)
    with pytest.raises(ValueError, match="trained without batches"):
        make().predict_expression(batch="ann", device="cpu")


def test_held_out_cells_and_none() -> None:
    model = train(make(), train_size=1.0)
    assert len(model.validation_names) == 0
    assert "validation_loss" not in model.history
    assert model.checkpoint.training["n_steps"] == 8


def test_bf16() -> None:
    exact, rounded = train(make()), train(make(), precision="bf16-mixed")
    assert (rounded.history["loss"] != exact.history["loss"]).any(axis=None)
    np.testing.assert_allclose(rounded.history["loss"], exact.history["loss"], rtol=0.02)


def test_batches_made_by_workers() -> None:
    assert_same_weights(train(make(), n_workers=1), train(make()))


def test_going_on_from_a_trained_model(trained: EpiFoundation, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    model = EpiFoundation.load(tmp_path / "model", set_up())
    train(model, max_steps=2, lr=1e-3, validate_every=1)
    assert model.history["validation_expression"].iloc[0, 0] < 0.62  # not from the start
    assert model.history["loss"].iloc[0, 0] < trained.history["loss"].iloc[0, 0]


def test_depth_of_cells_and_limits() -> None:
    """Cells above the limit are read in part, another one each time they come."""
    model = train(make(max_tokens=10, value_decoder=True), max_genes=2)
    assert (model.history["tokens"]["tokens"].diff().dropna() <= 10 * 16).all()
    deep = vectors(model)
    assert np.abs(deep - vectors(model, seed=1)).max() > 1e-4
    np.testing.assert_array_equal(deep, vectors(model))


# Going on


class Interrupted(Exception):
    pass


def interrupt_after(patch: pytest.MonkeyPatch, n_steps: int) -> None:
    step = PeakToGeneRun._step

    def interrupted(run: Any, batches: Any) -> dict[str, float]:
        if run.step == n_steps:
            raise Interrupted
        return step(run, batches)

    patch.setattr(PeakToGeneRun, "_step", interrupted)


@pytest.mark.parametrize("after", [2, 3, 7])
def test_resume_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    whole = train(make(dropout=0.1))
    with monkeypatch.context() as patch:
        interrupt_after(patch, after)
        model = make(dropout=0.1)
        untouched = {name: tensor.clone() for name, tensor in state(model).items()}
        with pytest.raises(Interrupted):
            train(model, output=tmp_path / "run")
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in state(model).items())
    train(model, output=tmp_path / "run")
    assert_same_weights(model, whole)
    assert_same_history(model, whole)
    assert {"best", "final", "last.ckpt", "log.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_what_is_resumed(tmp_path: Path) -> None:
    model = train(make(), output=tmp_path / "run")
    before = (tmp_path / "run" / "log.csv").read_text()
    again = train(make(), output=tmp_path / "run")
    assert (tmp_path / "run" / "log.csv").read_text() == before
    assert_same_weights(model, again)
    with pytest.raises(ValueError, match=r"another configuration \(lr was 0.003, is 0.1\).*resume=False\."):
        train(make(), output=tmp_path / "run", lr=0.1)
    with pytest.raises(ValueError, match=r"another configuration \(.*data was"):
        train(make(paired(seed=3)), output=tmp_path / "run")
    train(make(), output=tmp_path / "run", lr=0.1, resume=False)
    assert (tmp_path / "run" / "log.csv").read_text() != before


SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import mudata
from scfound_atac.model import EpiFoundation
if __name__ == "__main__":
    mdata = mudata.read_h5mu({data!r})
    model = EpiFoundation(mdata, config={config!r})
    model.train(output={output!r}, **{options!r})
"""

ENVIRONMENT = {
    **os.environ,
    "SCFOUND_ATAC_PROGRESS_BAR": "0",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(sfa.__file__).parents[1]),
}


def script(folder: Path, name: str, config: dict[str, Any], **changes: Any) -> list[str]:
    """A command that trains in a process of its own; the data were set up before they were written."""
    data = folder / "data.h5mu"
    if not data.exists():
        set_up(batch_key="donor").write_h5mu(data)
    path = folder / f"{name}.py"
    options = SHORT | changes
    path.write_text(SCRIPT.format(data=str(data), config=config, output=str(folder / name), options=options))
    return [sys.executable, str(path)]


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_sigkill_and_resume(tmp_path: Path, kill_after_checkpoint: Callable[..., None]) -> None:
    changes = {"max_steps": 250, "checkpoint_every": 20, "validate_every": 50}
    config = TINY | {"dropout": 0.1}
    command = script(tmp_path, "killed", config, **changes)
    checkpoint = tmp_path / "killed" / "last.ckpt"
    kill_after_checkpoint(command, ENVIRONMENT, checkpoint)
    assert load_checkpoint(checkpoint)["step"] <= len(read_log(tmp_path / "killed")) < 250
    for arguments in (command, script(tmp_path, "whole", config, **changes)):
        subprocess.run(arguments, env=ENVIRONMENT, check=True, capture_output=True)
    one, other = (sfa.hub.load(tmp_path / name / "final").net.state_dict() for name in ("killed", "whole"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-5)
    for a, b in zip(read_log(tmp_path / "killed"), read_log(tmp_path / "whole"), strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-5)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """Two gloo processes, half of each batch each: the statistics of the BatchNorm are of both. Dropout alone would differ."""
    config = TINY | {"value_decoder": True, "max_tokens": 12}
    subprocess.run(script(tmp_path, "one", config, lr=1e-3), env=ENVIRONMENT, check=True, capture_output=True)
    command = script(tmp_path, "two", config, lr=1e-3, devices=2, strategy="ddp")
    result = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert "2 processes" in result.stdout + result.stderr
    one, two = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "expression", "values", "gradient_norm", "tokens"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-5)
        assert a["validation_loss"] == b["validation_loss"] or float(a["validation_loss"]) == pytest.approx(
            float(b["validation_loss"]), rel=1e-4
        )
    first, second = (EpiFoundation.load(tmp_path / name / "final") for name in ("one", "two"))
    # Not all weights themselves: what is added before a BatchNorm has no gradient but rounding, which Adam blows up.
    torch.testing.assert_close(
        state(first)["gene_norm.running_var"], state(second)["gene_norm.running_var"], atol=1e-4, rtol=0
    )
    np.testing.assert_allclose(vectors(first, paired()), vectors(second, paired()), atol=5e-3)
    assert second.checkpoint.training["n_processes"] == 2


# Files, and other data


def test_save_load_embed(trained: EpiFoundation, tmp_path: Path) -> None:
    expected = vectors(trained)
    trained.save(tmp_path / "model")
    with pytest.raises(FileExistsError):
        trained.save(tmp_path / "model")
    for model in (EpiFoundation.load(tmp_path / "model", set_up()), EpiFoundation.load(tmp_path / "model")):
        np.testing.assert_allclose(vectors(model, trained.mdata), expected, atol=1e-5)
        pd.testing.assert_frame_equal(
            model.predict_expression(trained.mdata, device="cpu"), trained.predict_expression(device="cpu"), atol=1e-5
        )
    adata = trained.mdata["atac"].copy()
    sfa.tl.embed(adata, model=tmp_path / "model", device="cpu")
    np.testing.assert_allclose(adata.obsm["X_sfa"], expected, atol=1e-5)
    record = sfa.hub.load(tmp_path / "model").training
    assert record["objective"] == "peak-to-gene alignment"
    assert (record["n_cells"], record["n_validation_cells"]) == (120, 40)
    with pytest.raises(FileNotFoundError, match="No such folder"):
        EpiFoundation.load(tmp_path / "none")


def test_mudata_round_trip(tmp_path: Path) -> None:
    mdata = set_up(batch_key="donor")
    mdata.write_h5mu(tmp_path / "a.h5mu")
    again = md.read_h5mu(tmp_path / "a.h5mu")
    assert dict(again.uns["epifoundation_setup"]) == dict(mdata.uns["epifoundation_setup"])
    assert_same_weights(train(EpiFoundation(again, config=TINY)), train(EpiFoundation(mdata, config=TINY)))


def test_other_ocrs_in_the_query(trained: EpiFoundation) -> None:
    atac = trained.mdata["atac"].copy()
    ocrs = sfa.genome.get_ocrs(atac.var)
    atac.var_names = sfa.genome.ocr_names(ocrs.assign(start=ocrs["start"] + 70, end=ocrs["end"] + 90))
    np.testing.assert_allclose(vectors(trained, atac[:, ::-1].copy()), vectors(trained), atol=1e-5)
    some = vectors(trained, atac[:, 20:].copy())
    assert np.isfinite(some).all()
    assert np.abs(some - vectors(trained)).max() > 1e-3
    atac.var_names = [f"chr9:{1000 * i}-{1000 * i + 500}" for i in range(N_OCRS)]
    with pytest.raises(ValueError, match="Only 0.0% of the open OCRs"):
        vectors(trained, atac)


def test_one_cell_and_accessibility_alone(trained: EpiFoundation) -> None:
    cell = trained.mdata["atac"][7].copy()
    np.testing.assert_allclose(vectors(trained, cell)[0], vectors(trained)[7], atol=1e-5)
    np.testing.assert_allclose(vectors(trained, md.MuData({"atac": cell})), vectors(trained, cell), atol=1e-6)
    found = trained.predict_expression(cell, genes=["G3", "G0"], device="cpu")
    assert list(found.columns) == ["G3", "G0"]
    whole = trained.predict_expression(device="cpu")
    np.testing.assert_allclose(found, whole.loc[["cell7"], ["G3", "G0"]], atol=1e-5)


def test_predictions_do_not_depend_on_how_they_are_cut(trained: EpiFoundation, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained.predict_expression(device="cpu")
    monkeypatch.setattr("scfound_atac.model._epifoundation._QUERIES", 3 * N_GENES)
    pd.testing.assert_frame_equal(trained.predict_expression(device="cpu", batch_size=5), whole, atol=1e-5)


def test_cells_without_a_pair(caplog: pytest.LogCaptureFixture) -> None:
    """They are left out of training, counted, and embedded like the others."""
    mdata = paired()
    whole = train(make(with_modalities(mdata, atac=mdata["atac"][:120].copy(), rna=mdata["rna"][:120].copy())))
    rna = mdata["rna"][np.random.default_rng(0).permutation(120)].copy()
    other = ad.concat([rna, ad.AnnData(rna.X[:3], obs=pd.DataFrame(index=["x", "y", "z"]), var=rna.var)], merge="same")
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        model = train(make(with_modalities(mdata, rna=other)))
    assert "43 cells that have only one modality are left out of training" in caplog.text
    assert_same_weights(model, whole)
    assert model.checkpoint.training["n_unpaired_cells"] == 43
    assert vectors(model).shape == (N_CELLS, 32)


def test_cells_that_teach_nothing(caplog: pytest.LogCaptureFixture) -> None:
    mdata = paired()
    mdata["atac"].X = sparse.vstack([sparse.csr_matrix((1, N_OCRS)), mdata["atac"].X[1:]], format="csr")
    rows = [sparse.csr_matrix((1, N_GENES)), sparse.csr_matrix(np.ones((1, N_GENES)))]
    mdata["rna"].X = sparse.vstack([mdata["rna"].X[:1], *rows, mdata["rna"].X[3:]], format="csr")
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        model = train(make(mdata), max_steps=1)
    assert "3 of 160 paired cells are left out of training" in caplog.text
    training = model.checkpoint.training
    assert training["n_cells"] + training["n_validation_cells"] == 157
    assert np.isfinite(vectors(model)).all()


def test_expression_of_any_scale_and_storage() -> None:
    """Levels count, so log1p changes nothing; nor do layers, CSC and dense tables."""
    expected = train(make(value_decoder=True))
    mdata = paired()
    rna, atac = mdata["rna"], mdata["atac"]
    rna.layers["log"] = sparse.csc_matrix(rna.X.log1p())
    atac.layers["counts"] = atac.X.toarray()
    rna.X, atac.X = sparse.csr_matrix(rna.shape), sparse.csr_matrix(atac.shape)
    mdata = md.MuData({"peaks": atac, "genes": rna})
    setup = {"rna_layer": "log", "layer": "counts", "modalities": {"atac": "peaks", "rna": "genes"}}
    found = train(make(mdata, setup=setup, value_decoder=True))
    assert_same_weights(found, expected)
    np.testing.assert_array_equal(vectors(found), vectors(expected))


def test_setup_of_version_0_1_can_be_read() -> None:
    """What is `layer` now was called `atac_layer` in ``mdata.uns`` and in saved models."""
    mdata = paired()
    mdata["atac"].layers["counts"] = mdata["atac"].X.copy()
    expected = vectors(make(mdata, setup={"layer": "counts"}))
    setup = mdata.uns["epifoundation_setup"]
    setup["atac_layer"] = setup.pop("layer")
    mdata["atac"].X = sparse.csr_matrix(mdata["atac"].shape)
    np.testing.assert_array_equal(vectors(EpiFoundation(mdata, config=TINY)), expected)


@pytest.mark.parametrize("n_bins", [0, 10])
def test_other_decoders(n_bins: int) -> None:
    """Levels alone; and levels as classes, as in the authors' value fine-tuning."""
    model = train(make(n_bins=n_bins, value_decoder=True), max_steps=2)
    assert ("expression" in model.history) == bool(n_bins)
    assert np.isfinite(model.history["loss"]).all(axis=None)
    assert model.predict_expression(device="cpu").shape == (N_CELLS, N_GENES)
    if not n_bins:
        with pytest.raises(ValueError, match="no decoder for kind='probability'"):
            model.predict_expression(kind="probability", device="cpu")


def test_checkpoint_in_the_authors_form(make_epifoundation) -> None:
    """Its vocabulary has other OCRs, other genes, batches and a cell-type head, which stays as it is."""
    net, vocabularies = make_epifoundation(n_batches=2, dropout=0.0)
    checkpoint = sfa.hub.Checkpoint(net, "tiny", "", model_class="EpiFoundation", vocabularies=vocabularies)
    mdata = paired()
    mdata["atac"].var_names = sfa.genome.ocr_names(vocabularies.ocrs.iloc[:N_OCRS].assign(end=lambda x: x["end"] + 9))
    mdata["rna"].var_names = [f"GENE{i}" for i in range(N_GENES)]  # of which it knows 12
    donors = mdata["atac"].obs["donor"].map({"ann": "one", "bob": "two"})
    mdata["atac"].obs["donor"] = donors
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    model = train(EpiFoundation(set_up(mdata, batch_key="donor"), checkpoint=checkpoint), max_steps=3)
    changed = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("cell_type_head") for name in changed)
    assert {"peak_embedding.table.weight", "gene_norm.running_mean", "batch_embedding.table.weight"} < changed
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert list(model.predict_expression(device="cpu")) == [f"GENE{i}" for i in range(12)]


# What is refused


def test_setup_refuses() -> None:
    mdata = paired()
    with pytest.raises(TypeError, match="Expected MuData, got AnnData"):
        EpiFoundation.setup_mudata(mdata["atac"])
    for kwargs, error, says in (
        ({"modalities": {"rna": "gex"}}, KeyError, "no modality 'gex'"),
        ({"modalities": {"gex": "rna"}}, ValueError, "gex is neither"),
        ({"rna_layer": "raw"}, KeyError, "no layer 'raw'"),
        ({"batch_key": "lane"}, KeyError, "no column 'lane'"),
        ({"genome": "hg19"}, ValueError, "hg19"),
    ):
        with pytest.raises(error, match=says):
            EpiFoundation.setup_mudata(mdata, **kwargs)
    assert not mdata.uns
    with pytest.raises(ValueError, match="not set up"):
        EpiFoundation(mdata)
    mdata["atac"].obs.loc["cell3", "donor"] = None
    with pytest.raises(ValueError, match="1 cells have no batch .* cell3"):
        EpiFoundation.setup_mudata(mdata, batch_key="donor")


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize(("axis", "modality"), [("var", "rna"), ("obs", "rna"), ("obs", "atac")])
def test_repeated_names(axis: str, modality: str) -> None:
    mdata = paired()
    names = list(getattr(mdata[modality], f"{axis}_names"))
    names[1] = names[0]
    setattr(mdata[modality], f"{axis}_names", names)
    with pytest.raises(ValueError, match=f"1 (genes|cells) of modality '{modality}' repeat an earlier name"):
        EpiFoundation.setup_mudata(mdata)


def test_repeated_ocrs() -> None:
    mdata = paired()
    mdata["atac"].var_names = [*mdata["atac"].var_names[:-1], mdata["atac"].var_names[0].replace(":", "-")]
    with pytest.raises(ValueError, match="repeat the coordinates"):
        EpiFoundation.setup_mudata(mdata)


@pytest.mark.parametrize("modality", ["atac", "rna"])
@pytest.mark.parametrize("bad", [np.nan, -1])
def test_values_that_are_none(modality: str, bad: float) -> None:
    mdata = paired()
    mdata[modality].X.data[5] = bad
    model = make(mdata)
    with pytest.raises(ValueError, match=rf"{modality}.*X has 1 values that are negative, infinite or NaN"):
        train(model)


def test_no_pairs(trained: EpiFoundation) -> None:
    mdata = paired()
    mdata["rna"].obs_names = [f"other{i}" for i in range(N_CELLS)]
    mdata = with_modalities(mdata)
    with pytest.raises(ValueError, match=r"No cell has both modalities: 160 cells .*\(cell0, cell1, ...\).*\(other0"):
        make(mdata)
    model = EpiFoundation(mdata, checkpoint=trained.checkpoint)
    assert vectors(model).shape == (N_CELLS, 32)
    with pytest.raises(ValueError, match="No cell has both modalities"):
        train(model)
    silent = paired()
    silent["rna"].X = sparse.csr_matrix(silent["rna"].shape, dtype=np.float32)
    with pytest.raises(ValueError, match="There are no cells to train on"):
        train(make(silent))


def test_no_genes_in_common(trained: EpiFoundation) -> None:
    mdata = paired()
    mdata["rna"].var_names = [f"ENSG{i}" for i in range(N_GENES)]
    with pytest.raises(ValueError, match=r"None of the 40 genes \(ENSG0, ENSG1, ENSG2, ...\).*\(G0, G1, G2, ...\)"):
        EpiFoundation(set_up(mdata), checkpoint=trained.checkpoint)


def test_genes_that_are_asked_for(trained: EpiFoundation) -> None:
    with pytest.raises(KeyError, match="1 of 2 genes are not in the vocabulary, among them NONE"):
        trained.predict_expression(genes=["G1", "NONE"], device="cpu")
    with pytest.raises(ValueError, match="1 genes repeat an earlier name, among them G1"):
        trained.predict_expression(genes=["G1", "G1"], device="cpu")
    with pytest.raises(ValueError, match="kind='counts' is not known"):
        trained.predict_expression(kind="counts", device="cpu")
    with pytest.raises(ValueError, match="no decoder for kind='level'"):
        make().predict_expression(kind="level", device="cpu")


def test_chromosomes_of_genes(caplog: pytest.LogCaptureFixture) -> None:
    mdata = paired()
    table = pd.Series({"G0": "3", "G1": "chrX"})
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        model = EpiFoundation(set_up(mdata), config=TINY, gene_chromosomes=table)
    assert "38 of 40 genes have no chromosome" in caplog.text
    found = model.checkpoint.vocabularies.gene_chromosomes
    assert (found["G0"], found["G1"], found["G2"]) == ("chr3", "chrX", "<unk>")
    assert make(mdata).checkpoint.vocabularies.gene_chromosomes["G2"] == "chrX"
    train(model, max_steps=1)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"config": {"n_peaks": 5}}, "has no option n_peaks; its sizes are"),
        ({"config": {"width": 5}}, "has no option width"),
        ({"config": {"d_model": 30, "n_heads": 4}}, "divisible"),
        ({"config": {"n_bins": 0}}, "there is nothing to train"),
    ],
    ids=str,
)
def test_networks_that_cannot_be(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EpiFoundation(set_up(), **kwargs)


def test_checkpoints_that_do_not_fit(trained: EpiFoundation) -> None:
    with pytest.raises(ValueError, match="not both"):
        EpiFoundation(set_up(), config={}, checkpoint=trained.checkpoint)
    with pytest.raises(ValueError, match="RegionSet model, not EpiFoundation"):
        EpiFoundation.from_pretrained("region-set", set_up())
    with pytest.raises(ValueError, match="Pass a MuData for a new network"):
        EpiFoundation()
    model = EpiFoundation(checkpoint=trained.checkpoint)
    with pytest.raises(ValueError, match="pass adata= to load"):
        model.train()
    with pytest.raises(ValueError, match="pass the cells"):
        model.get_latent_representation()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train_size": 0}, "train_size must lie in"),
        ({"train_size": 1.2}, "train_size must lie in"),
        ({"batch_size": 0, "lr": -1.0}, "above zero: batch_size = 0, lr = -1.0"),
        ({"max_steps": 0}, "above zero: max_steps = 0"),
    ],
    ids=str,
)
def test_options_that_make_no_run(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        train(make(), **changes)


def test_untrained_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        vectors(make())
    assert "not trained" in caplog.text


# Real cells


@pytest.mark.slow
def test_real_cells(data_dir: Path) -> None:
    """Bone marrow, 450 cells and 40 open OCRs per cell: enough to learn which genes are commoner, and little of the cells."""
    mdata = md.read_h5mu(data_dir / "bmmc_multiome_1.h5mu")
    EpiFoundation.setup_mudata(mdata, batch_key="batch")
    model = EpiFoundation(mdata, config=TINY | {"dropout": 0.1})
    model.train(max_epochs=8, accumulate=1, batch_size=16, lr=1e-2, max_genes=200, accelerator="cpu")
    validation = model.history["validation_loss"].to_numpy()
    assert model.history["loss"].iloc[0, 0] > 0.68
    assert validation.min() < 0.62
    held_out = mdata["atac"][model.validation_names].copy()
    predicted = model.predict_expression(held_out, device="cpu")
    found = (mdata["rna"][predicted.index].X > 0).toarray()
    assert roc_auc_score(found.ravel(), predicted.to_numpy().ravel()) > 0.7
    sfa.tl.embed(held_out, model=model.checkpoint, device="cpu")
    np.testing.assert_allclose(held_out.obsm["X_sfa"], vectors(model, held_out), atol=1e-5)


# The contract of scvi-tools; `test_scvi_contract.py` compares the arguments


def test_early_stopping(tmp_path: Path) -> None:
    """Steps that make it worse are not taken to the end, and the best weights are kept; a stopped run stays stopped."""
    options = {"max_steps": 30, "lr": 1.0, "validate_every": 1, "early_stopping": True, "early_stopping_patience": 2}
    model = train(make(), **options, output=tmp_path / "run")
    n_steps = len(model.history["loss"])
    losses = model.history["validation_loss"]["validation_loss"]
    assert n_steps < 30
    assert losses.idxmin() == n_steps - 2
    again = train(make(), **options, output=tmp_path / "run")
    assert len(again.history["loss"]) == n_steps
    with pytest.raises(ValueError, match="early_stopping needs cells"):
        train(make(), early_stopping=True, train_size=1)


def test_history_is_a_table_per_value(trained: EpiFoundation) -> None:
    for name, table in trained.history.items():
        assert list(table.columns) == [name]
        assert table.index.name == "step"
        assert np.isfinite(table.to_numpy()).all()
    assert len(trained.history["validation_loss"]) < len(trained.history["loss"]) == 400
    assert sfa.pl.training(trained, show=False)[0].get_xlabel().lower().startswith("step")


def test_indices(trained: EpiFoundation) -> None:
    every = trained.get_latent_representation(device="cpu")
    for indices in ([3, 1, 1, -1], np.arange(len(every)) % 2 == 0):
        found = trained.get_latent_representation(None, indices, batch_size=None, device="cpu")
        np.testing.assert_allclose(found, every[indices], atol=1e-5)


def test_prefix_registry_and_saved_data(tmp_path: Path) -> None:
    mdata = paired()
    EpiFoundation.setup_mudata(mdata)
    models = {prefix: EpiFoundation(mdata, config=TINY, seed=i) for i, prefix in enumerate(("a_", "b_"))}
    models["a_"].save(tmp_path, "a_", save_anndata=True)
    models["b_"].save(tmp_path, "b_")
    for prefix, model in models.items():
        assert_same_weights(EpiFoundation.load(tmp_path, prefix=prefix), model)
    loaded = EpiFoundation.load(tmp_path, prefix="a_")
    assert list(loaded.mdata.obs_names) == list(mdata.obs_names)
    assert EpiFoundation.load(tmp_path, False, prefix="a_").mdata is None
    assert EpiFoundation.load(tmp_path, prefix="b_").mdata is None
    train(EpiFoundation.load(tmp_path, mdata=paired(), prefix="b_"), max_steps=1)  # set up as the saved model was
    registry = EpiFoundation.load_registry(tmp_path, "b_")
    assert registry["model_name"] == "EpiFoundation"
    given = {name: value for name, value in registry["setup_args"].items() if value is not None}
    assert given == {"modalities": {"atac": "atac", "rna": "rna"}}
    assert registry["field_registries"]["X"]["summary_stats"] == {"n_vars": N_GENES, "n_cells": N_CELLS}
    with pytest.raises(TypeError, match="takes no save_kwargs="):
        models["a_"].save(tmp_path, save_kwargs={})
    with pytest.raises(TypeError, match="takes no n_steps_kl_warmup="):
        models["a_"].train(n_steps_kl_warmup=1)


def test_the_seed_of_scvi_tools() -> None:
    import scvi

    before = scvi.settings.seed
    try:
        scvi.settings.seed = 5
        first, again = (train(make(), max_steps=1) for _ in range(2))
        assert_same_weights(first, again)
        assert first.checkpoint.training["seed"] == 5
    finally:
        scvi.settings.seed = before
