"""Pretraining on a small corpus: what it writes, going on after a kill, two processes against one."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import scfound_atac as sfa
from scfound_atac.model import pretrain
from scfound_atac.train import pretrain as pretraining
from scfound_atac.train.config import PretrainConfig, read_config
from scfound_atac.train.run_folder import load_checkpoint, save_checkpoint
from scfound_atac.train.schedule import warmup_cosine

TINY = {
    "kind": "chromfound",
    "d_model": 16,
    "n_layers": 1,
    "n_heads": 2,
    "window_size": 64,
    "shift_size": 32,
    "d_mlp": 16,
    "d_low": 8,
    "d_state": 4,
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")


def settings_of(corpus: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "corpus": str(corpus),
        "output": str(output),
        "network": TINY,
        "objectives": {"denoise": 1.0, "identity": 0.1},
        "optimizer": {"lr": 3e-3, "n_warmup_steps": 2},
        "batch": {"n_cells": 8, "crop_size": 60, "validation_fraction": 0.2},
        "n_steps": 12,
        "checkpoint_every": 4,
        "validate_every": 6,
        "n_validation_batches": 2,
        "accelerator": "cpu",
        "devices": 1,
        **changes,
    }


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def curve(folder: Path) -> list[dict[str, str]]:
    """The log without what the clock says."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_log(folder)]


def assert_same_curve(first: Path, second: Path) -> None:
    """Row by row, up to what threads may round differently."""
    rows = curve(first), curve(second)
    assert len(rows[0]) == len(rows[1])
    for a, b in zip(*rows, strict=True):
        for name, value in a.items():
            assert value == b[name] or float(value) == pytest.approx(float(b[name]), rel=1e-5, abs=1e-7), (
                a["step"],
                name,
            )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return sfa.hub.load(folder).net.state_dict()


def assert_same_weights(a: Path, b: Path, **tolerance: float) -> None:
    for name, tensor in weights(a).items():
        torch.testing.assert_close(tensor, weights(b)[name], **(tolerance or {"atol": 0, "rtol": 0}))


@pytest.fixture(scope="module")
def finished(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps that nothing disturbed."""
    output = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")
        assert pretrain(settings_of(corpus_folder, output)) == output / "best"
    return output


# What a run leaves behind


def test_log(finished: Path) -> None:
    log = read_log(finished)
    assert [int(row["step"]) for row in log] == list(range(1, 13))
    assert [bool(row["validation_loss"]) for row in log] == [step in (6, 12) for step in range(1, 13)]
    for row in log:
        total = float(row["denoise"]) + 0.1 * float(row["identity"])
        assert float(row["loss"]) == pytest.approx(total, rel=1e-6)
    assert [int(row["tokens"]) for row in log] == [8 * 60 * step for step in range(1, 13)]
    lr = [float(row["lr"]) for row in log]
    assert lr == pytest.approx([3e-3 * warmup_cosine(step, 2, 12) for step in range(12)])


def test_networks_are_those_that_hub_opens(finished: Path) -> None:
    best, final = sfa.hub.load(finished / "best"), sfa.hub.load(finished / "final")
    validation = [float(row["validation_loss"]) for row in read_log(finished) if row["validation_loss"]]
    assert best.training["validation_loss"] == pytest.approx(min(validation))
    assert final.training["n_steps"] == 12
    assert final.training["studies"] == ["simulated", "real"]
    assert final.training["config"]["objectives"] == {"denoise": 1.0, "identity": 0.1}
    assert not any("head" in name for name in final.net.state_dict())


def test_saved_network_embeds(finished: Path) -> None:
    """With the weights that the run ended with, which are not those it began with."""
    parameters = load_checkpoint(finished / "last.ckpt")["parameters"]
    for name, tensor in weights(finished / "final").items():
        assert torch.equal(tensor, parameters[f"net.{name}"]), name
    vectors = {}
    final = sfa.hub.load(finished / "final")
    torch.manual_seed(0)
    untrained = replace(final, net=type(final.net)(final.net.config).eval())
    for name, model in (("final", finished / "final"), ("loaded", final), ("untrained", untrained)):
        adata = sfa.datasets.pbmc_multiome_sample()["atac"][:30].copy()
        sfa.tl.embed(adata, model=model, n_components=None, device="cpu")
        vectors[name] = adata.obsm["X_sfa"]
    np.testing.assert_array_equal(vectors["final"], vectors["loaded"])
    assert np.abs(vectors["final"] - vectors["untrained"]).max() > 1e-3
    assert vectors["final"].std(axis=0).max() > 1e-4  # cells differ


def test_training_lowers_the_loss(corpus_folder: Path, tmp_path: Path) -> None:
    pretrain(settings_of(corpus_folder, tmp_path / "run", n_steps=60, validate_every=5))
    losses = [float(row["validation_loss"]) for row in read_log(tmp_path / "run") if row["validation_loss"]]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chromfound", "region-set"])
def test_networks_that_know_regions(corpus_folder: Path, tmp_path: Path, kind: str) -> None:
    """The table that a run was given goes with its weights."""
    table = sfa.genome.load_region_table()
    half = replace(table, quantised=table.quantised[:20], step=table.step[:20])
    half.save(tmp_path / "table.npz")
    sizes = {**(TINY if kind == "chromfound" else {"kind": kind}), "n_factors": 22}
    changes = {
        "network": sizes,
        "objectives": {"profile": 1.0},
        "n_steps": 2,
        "region_table": str(tmp_path / "table.npz"),
    }
    best = sfa.hub.load(pretrain(settings_of(corpus_folder, tmp_path / "run", **changes)))
    assert best.net.config.n_factors == 22
    assert best.region_table().n_factors == 20
    changes["network"] = {**sizes, "n_factors": 50}
    with pytest.raises(ValueError, match="expects n_factors=50 features per region, the region table gives 22"):
        pretrain(settings_of(corpus_folder, tmp_path / "other", **changes))


def test_same_seed_same_run(finished: Path, corpus_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    pretrain(settings_of(corpus_folder, tmp_path / "again"))
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_curve(tmp_path / "again", finished)
    pretrain(settings_of(corpus_folder, tmp_path / "other", seed=1))
    assert curve(tmp_path / "other") != curve(finished)


def test_accumulated_batches_are_read_in_turn(corpus_folder: Path, tmp_path: Path) -> None:
    """Without dropout and warm-up, one step over two batches has the mean of their losses."""
    still = {"network": {**TINY, "dropout": 0.0}, "validate_every": 1, "checkpoint_every": 1}
    pretrain(settings_of(corpus_folder, tmp_path / "two", accumulate=2, n_steps=1, **still))
    # a learning rate of almost nothing leaves the weights where they were
    slow = {"optimizer": {"lr": 1e-12, "weight_decay": 0.0}}
    pretrain(settings_of(corpus_folder, tmp_path / "one", n_steps=2, **slow, **still))
    one, two = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert len(two) == 1
    expected = np.mean([float(row["loss"]) for row in one])
    assert float(two[0]["loss"]) == pytest.approx(expected, rel=1e-5)
    assert two[0]["tokens"] == one[1]["tokens"]


def test_start_from_a_network(finished: Path, corpus_folder: Path, tmp_path: Path) -> None:
    changes = {"n_steps": 1, "optimizer": {"lr": 1e-12}}
    pretrain(settings_of(corpus_folder, tmp_path / "raw", **changes, preparation={"target_sum": None, "log1p": False}))
    changes |= {"network": {}, "init_from": str(tmp_path / "raw" / "final")}
    pretrain(settings_of(corpus_folder, tmp_path / "second", **changes))
    assert sfa.hub.load(tmp_path / "second" / "final").preparation == {"target_sum": None, "log1p": False}
    changes["init_from"] = str(finished / "final")
    pretrain(settings_of(corpus_folder, tmp_path / "run", **changes))
    assert_same_weights(tmp_path / "run" / "final", finished / "final", atol=1e-6, rtol=0)


def test_bf16_with_activations_computed_again(finished: Path, corpus_folder: Path, tmp_path: Path) -> None:
    changes = {"precision": "bf16-mixed", "checkpoint_activations": True, "n_steps": 3}
    pretrain(settings_of(corpus_folder, tmp_path / "run", **changes))
    found = [float(row["loss"]) for row in read_log(tmp_path / "run")]
    expected = [float(row["loss"]) for row in read_log(finished)[:3]]
    assert found[0] != expected[0]
    assert found == pytest.approx(expected, rel=0.02)


def test_networks_that_cannot_be_trained(corpus_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no network to train; it is BiosamplePrior"):
        pretrain(settings_of(corpus_folder, tmp_path / "run", network={}, init_from="biosample-prior"))
    changes = {"network": {"kind": "region-set"}, "checkpoint_activations": True}
    with pytest.raises(ValueError, match="RegionSetNet does not checkpoint activations"):
        pretrain(settings_of(corpus_folder, tmp_path / "run", **changes))


def test_a_loss_that_is_no_number_stops_the_run(corpus_folder: Path, tmp_path: Path) -> None:
    changes = {"optimizer": {"lr": 1e30, "clip": 1e30, "n_warmup_steps": 0}}
    with pytest.raises(FloatingPointError, match=r"Step \d+: the loss is"):
        pretrain(settings_of(corpus_folder, tmp_path / "run", **changes))


# Going on


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [2, 4, 7, 11])
def test_resume_after_an_interruption(
    finished: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    config = settings_of(corpus_folder, tmp_path / "run")
    step = pretraining._Run._step

    def interrupted(run: Any, batches: Any) -> dict[str, float]:
        if run.step == after:
            raise Interrupted
        return step(run, batches)

    monkeypatch.setattr(pretraining._Run, "_step", interrupted)
    with pytest.raises(Interrupted):
        pretrain(config)
    assert len(read_log(tmp_path / "run")) == after
    monkeypatch.undo()
    pretrain(config)
    assert_same_curve(tmp_path / "run", finished)
    assert_same_weights(tmp_path / "run" / "best", finished / "best")
    assert_same_weights(tmp_path / "run" / "final", finished / "final")


def test_another_configuration_is_not_resumed(finished: Path, corpus_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"another configuration \(seed was 0, is 5\).*--no-resume"):
        pretrain(settings_of(corpus_folder, finished, seed=5))


def test_start_over(finished: Path, corpus_folder: Path, tmp_path: Path) -> None:
    config = settings_of(corpus_folder, tmp_path / "run", n_steps=3)
    pretrain({**config, "seed": 5})
    pretrain(config, resume=False)
    rows = read_log(tmp_path / "run")
    assert len(rows) == 3
    assert rows[0]["loss"] == read_log(finished)[0]["loss"]


def test_a_finished_run_stays(finished: Path, corpus_folder: Path) -> None:
    before = (finished / "log.csv").read_text()
    pretrain(settings_of(corpus_folder, finished))
    assert (finished / "log.csv").read_text() == before


def test_checkpoint_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"step": 1})

    def broken(state: Any, file: Any) -> None:
        file.write(b"half")
        raise Interrupted

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(Interrupted):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}


def command(config: dict[str, Any], folder: Path) -> list[str]:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "scfound_atac.cli", "pretrain", str(path)]


ENVIRONMENT = {
    **os.environ,
    "SCFOUND_ATAC_PROGRESS_BAR": "0",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(sfa.__file__).parents[1]),
}


@pytest.mark.slow
def test_sigkill_and_resume(corpus_folder: Path, tmp_path: Path, kill_after_checkpoint: Callable[..., None]) -> None:
    """Killed without warning after some checkpoint, the run ends with the log and the weights of one that was not."""
    changes = {"n_steps": 150, "checkpoint_every": 20, "validate_every": 50}
    config = settings_of(corpus_folder, tmp_path / "killed", **changes)
    arguments = command(config, tmp_path)
    checkpoint = tmp_path / "killed" / "last.ckpt"
    kill_after_checkpoint(arguments, ENVIRONMENT, checkpoint)
    n_logged = len(read_log(tmp_path / "killed"))
    assert load_checkpoint(checkpoint)["step"] <= n_logged < 150
    # in processes of their own too: another number of threads would round differently
    subprocess.run(arguments, env=ENVIRONMENT, check=True, capture_output=True)
    whole = command({**config, "output": str(tmp_path / "whole")}, tmp_path)
    subprocess.run(whole, env=ENVIRONMENT, check=True, capture_output=True)
    assert_same_curve(tmp_path / "killed", tmp_path / "whole")
    assert_same_weights(tmp_path / "killed" / "final", tmp_path / "whole" / "final", atol=1e-6, rtol=1e-5)
    assert_same_weights(tmp_path / "killed" / "best", tmp_path / "whole" / "best", atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_two_processes_are_one(corpus_folder: Path, tmp_path: Path) -> None:
    """Two gloo processes, half of each batch each. Dropout alone would differ."""
    changes = {"network": {**TINY, "dropout": 0.0}, "accumulate": 2, "n_steps": 6}
    pretrain(settings_of(corpus_folder, tmp_path / "one", **changes))
    config = settings_of(corpus_folder, tmp_path / "two", **changes, devices=2, strategy="ddp")
    result = subprocess.run(command(config, tmp_path), env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert "2 processes" in result.stdout + result.stderr
    one, two = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "denoise", "identity", "gradient_norm", "tokens", "validation_loss"):
            assert a[name] == b[name] or float(a[name]) == pytest.approx(float(b[name]), rel=1e-4)
    assert_same_weights(tmp_path / "one" / "final", tmp_path / "two" / "final", atol=1e-5, rtol=1e-4)
    record = json.loads((tmp_path / "two" / "final" / "config.json").read_text())["training"]
    assert record["n_processes"] == 2


# Configuration


def test_configuration_from_yaml(tmp_path: Path) -> None:
    """Numbers as YAML reads them: 1e-4 is text, 1 is no float."""
    text = "corpus: a\noutput: b\nnetwork: {kind: chromfound}\noptimizer: {lr: 1e-4, clip: 1, betas: [0.9, 0.95]}\nprecision: 32\n"
    (tmp_path / "run.yaml").write_text(text + "objectives: {denoise: 1}\nbatch: {crop_size: null}\n")
    config = read_config(tmp_path / "run.yaml")
    assert config.optimizer.lr == 1e-4
    assert isinstance(config.optimizer.clip, float)
    assert config.optimizer.betas == (0.9, 0.95)
    assert config.precision == "32"
    assert config.batch.crop_size is None
    assert config.batch.n_cells == 32
    assert read_config(config.to_dict()) == config
    assert isinstance(config, PretrainConfig)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nsteps": 3}, "the configuration: unknown key nsteps; known are corpus, output, study_weights, network"),
        ({"optimizer": {"learning_rate": 1}}, "unknown key optimizer.learning_rate; known are lr, weight_decay"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr: Input should be a valid number.*got 'fast'"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas.1 is missing"),
        ({"optimizer": 3}, "optimizer: Input should be a dictionary.*got 3"),
        ({"n_steps": 2.5}, "n_steps: Input should be a valid integer, got 2.5"),
        ({"n_steps": True}, "n_steps: Input should be a valid integer, got True"),
        ({"n_steps": 0}, "n_steps: Input should be greater than 0, got 0"),
        ({"checkpoint_activations": 1}, "checkpoint_activations: Input should be a valid boolean, got 1"),
        ({"precision": "16"}, "precision: Input should be 'auto', '32' or 'bf16-mixed', got '16'"),
        ({"objectives": {"dream": 1.0}}, "Unknown objectives: 'dream'"),
        ({"objectives": {"denoise": "much"}}, "objectives.denoise: Input should be a valid number"),
        ({"batch": {"crop": "left"}}, "batch.crop: Input should be 'neighbours' or 'random'"),
        ({"batch": {"validation_fraction": 1.0}}, "validation_fraction: Input should be less than 1"),
        ({"network": {}}, "Give either network"),
        ({"init_from": "chromfound"}, "Give either network"),
        ({"network": {"d_model": 8}}, "network lacks its kind"),
        ({"accelerator": 3}, "accelerator: Input should be a valid string, got 3"),
    ],
    ids=str,
)
def test_configurations_that_are_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(settings_of(Path("a"), Path("b"), **changes))


def test_what_a_configuration_must_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="corpus is missing; output is missing"):
        read_config({"network": TINY})
    with pytest.raises(FileNotFoundError, match="No such configuration"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match=r"list\.yaml: Input should be a dictionary"):
        read_config(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="is not YAML"):
        read_config(tmp_path / "broken.yaml")


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0), (500, 0.0)])
def test_learning_rate(step: int, factor: float) -> None:
    assert warmup_cosine(step, 10, 100) == pytest.approx(factor)
    assert warmup_cosine(0, 1000, 100) == 0.1  # warm-up takes a tenth at most
