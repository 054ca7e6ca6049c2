"""Model classes take what `scvi.model.PEAKVI` takes, under the same names and with the same effect, or say why not."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from mudata import MuData
from scipy import sparse
from scvi.model import MULTIVI, PEAKVI
from scvi.train import SaveCheckpoint

import scfound_atac as sfa
from scfound_atac.model import ChromFound, EpiFoundation, RegionSet

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
TINY = {
    "d_model": 8,
    "n_layers": 1,
    "n_heads": 2,
    "window_size": 16,
    "shift_size": 8,
    "d_mlp": 8,
    "d_low": 4,
    "d_state": 16,
}
TINY_EPIFOUNDATION = {"d_model": 8, "n_layers": 2, "n_heads": 2, "d_feed_forward": 8, "d_query": 8}
N_CELLS, N_OCRS, N_GENES = 40, 64, 12


@dataclass(frozen=True)
class Contract:
    """What a class is to be compared in."""

    cls: type
    methods: tuple[str, ...]
    of_mudata: bool = False
    """Its `setup_mudata` stands for `setup_anndata`, and takes `mdata` where PEAKVI takes `adata`."""

    def arguments(self, method: str) -> list[str]:
        return [{"mdata": "adata"}.get(name, name) for name in arguments(self.method(method))]

    def method(self, name: str) -> Callable:
        return getattr(self.cls, "setup_mudata" if self.of_mudata and name == "setup_anndata" else name)

    @property
    def not_taken(self) -> dict[str, dict[str, str]]:
        return inspect.getmodule(self.cls).NOT_TAKEN


METHODS = (
    "__init__",
    "setup_anndata",
    "train",
    "get_latent_representation",
    "save",
    "load",
    "load_registry",
    "view_anndata_setup",
    "load_query_data",
    "prepare_query_anndata",
)
# A class more is a line more, and a column more in the table of docs/training.md.
CONTRACTS = {
    "ChromFound": Contract(ChromFound, METHODS),
    "EpiFoundation": Contract(EpiFoundation, METHODS, of_mudata=True),
    "RegionSet": Contract(
        RegionSet, (*METHODS, "get_normalized_accessibility", "differential_accessibility", "get_elbo")
    ),
}


def arguments(function: Callable) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = [p.name for p in inspect.signature(function).parameters.values() if p.kind not in kinds]
    return [name for name in named if name not in ("self", "cls")]


def public_methods(cls: type) -> set[str]:
    return {name for name, x in inspect.getmembers(cls, callable) if not name.startswith("_")}


CASES = [pytest.param(x, method, id=f"{name}.{method}") for name, x in CONTRACTS.items() for method in x.methods]


@pytest.mark.parametrize(("contract", "method"), CASES)
def test_every_argument_is_taken_or_has_a_reason(contract: Contract, method: str) -> None:
    theirs, ours = arguments(getattr(PEAKVI, method)), contract.arguments(method)
    reasons = contract.not_taken.get(method, {})
    # the early stopping of PEAKVI has arguments of the trainer, which all classes pass on
    assert [name for name in theirs if name not in ours and name not in reasons] == []
    assert [name for name in reasons if name in ours] == []
    assert all(reason and not reason.endswith(".") for reason in reasons.values())


@pytest.mark.parametrize(("contract", "method"), CASES)
def test_positions_are_the_same(contract: Contract, method: str) -> None:
    """What may be given without a name comes in the order of scvi-tools, as far as both have it."""
    parameters = inspect.signature(contract.method(method)).parameters.values()
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    by_place = [name for name in contract.arguments(method) if name not in named]
    shared = [name for name in arguments(getattr(PEAKVI, method)) if name in by_place]
    assert by_place[: len(shared)] == shared


@pytest.mark.parametrize("contract", [x for x in CONTRACTS.values() if x.of_mudata], ids=lambda x: x.cls.__name__)
def test_setup_of_mudata_is_that_of_multivi(contract: Contract) -> None:
    ours, reasons = arguments(contract.cls.setup_mudata), contract.not_taken["setup_mudata"]
    assert [name for name in arguments(MULTIVI.setup_mudata) if name not in ours and name not in reasons] == []
    assert set(reasons).isdisjoint(ours)


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_every_method_is_there_or_has_a_reason(contract: Contract) -> None:
    reasons = contract.not_taken["methods"]
    # a class derived from scvi-tools' base has what that has; what the base only refuses is refused here, too
    missing = {name for name in public_methods(PEAKVI) if not hasattr(contract.cls, name) and name not in reasons}
    assert missing == set()
    ours = {name for name, x in vars(contract.cls).items() if not name.startswith("_") and callable(x)}
    assert ours.isdisjoint(reasons)


def rows_of_the_page() -> dict[str, set[tuple[str, str, str]]]:
    """For each class the rows of its table on the training page: method, argument and reason."""
    found = {}
    text = DOCS.read_text(encoding="utf-8")
    for name in CONTRACTS:
        block = re.search(rf"<!-- not taken: {name} -->\n(.*?)<!-- end -->", text, flags=re.DOTALL)
        assert block, f"no table for {name}"
        found[name] = {
            (cells[0].strip("` "), argument.strip("` "), cells[2])
            for line in block[1].splitlines()[2:]
            if (cells := [cell.strip() for cell in line.strip("| ").split(" | ")]) and len(cells) == 3
            for argument in cells[1].split(", ")
        }
    return found


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_page_lists_what_is_not_taken(name: str) -> None:
    table = CONTRACTS[name].not_taken
    expected = {(method, argument, why) for method, rows in table.items() for argument, why in rows.items()}
    assert rows_of_the_page()[name] == expected


# What the arguments do, on cells of two made-up kinds


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")
    monkeypatch.setattr(
        scvi.settings, "logging_dir", tmp_path / "scvi_log"
    )  # by default in the folder of the first import
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(autouse=True)
def no_global_seed() -> Any:
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def make_adata(seed: int = 0, donors: str = "AB") -> AnnData:
    rng = np.random.default_rng(seed)
    kind = np.arange(N_CELLS) % 2
    place = np.arange(N_OCRS)
    counts = rng.poisson(np.where((place[None, :] // 16) % 2 == kind[:, None], 0.9, 0.1)).astype(np.float32)
    counts[:, 0] += 1
    var = pd.DataFrame({"chrom": "chr2", "start": 10_000 * place, "end": 10_000 * place + 500})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    obs = pd.DataFrame(
        {"kind": kind.astype(str), "donor": rng.choice(list(donors), N_CELLS)}, index=[f"c{i}" for i in range(N_CELLS)]
    )
    return AnnData(sparse.csr_matrix(counts), obs=obs, var=var, uns={"genome": "GRCh38"})


TRAIN = {"batch_size": 12, "accelerator": "cpu", "devices": 1, "lr": 3e-3}


def make_chromfound(adata: AnnData | None = None, **init: Any) -> ChromFound:
    adata = make_adata() if adata is None else adata
    ChromFound.setup_anndata(adata, batch_key="donor", labels_key="kind")
    return ChromFound(adata, config=TINY, **init)


def make_mdata(seed: int = 0, donors: str = "AB") -> MuData:
    """Every gene is expressed in one of the two kinds of cells."""
    atac = make_adata(seed, donors)
    rng = np.random.default_rng(seed + 100)
    kind = atac.obs["kind"].astype(int).to_numpy()
    counts = rng.poisson(np.where(np.arange(N_GENES) % 2 == kind[:, None], 1.5, 0.1)).astype(np.float32)
    counts[:, 0], counts[:, 1] = 0, 1
    var = pd.DataFrame({"chrom": "chr2"}, index=[f"G{i}" for i in range(N_GENES)])
    return MuData({"atac": atac, "rna": AnnData(sparse.csr_matrix(counts), obs=atac.obs[[]].copy(), var=var)})


def make_epifoundation(mdata: MuData | None = None, **init: Any) -> EpiFoundation:
    mdata = make_mdata() if mdata is None else mdata
    EpiFoundation.setup_mudata(mdata, batch_key="donor", labels_key="kind")
    return EpiFoundation(mdata, config=TINY_EPIFOUNDATION, **init)


# Classes that Lightning trains, and all classes.
def make_region_set(adata: AnnData | None = None, seed: int | None = None) -> RegionSet:
    adata = make_adata() if adata is None else adata
    RegionSet.setup_anndata(adata, batch_key="donor", labels_key="kind")
    before, scvi.settings.seed = scvi.settings.seed, seed if seed is not None else scvi.settings.seed
    model = RegionSet(adata, n_latent=3, n_hidden=8)
    scvi.settings.seed = before
    return model


MAKERS = {"ChromFound": make_chromfound, "RegionSet": make_region_set}
every_class = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
ALL_MAKERS = {**MAKERS, "EpiFoundation": make_epifoundation}
every_model = pytest.mark.parametrize("make", ALL_MAKERS.values(), ids=ALL_MAKERS)
# Those whose network reads any OCR set, and that pass on nothing of PEAKVI.
NETS = {name: make for name, make in ALL_MAKERS.items() if name != "RegionSet"}
every_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


def data_of(make: Callable) -> Callable[..., Any]:
    return make_mdata if make is make_epifoundation else make_adata


def options_of(make: Callable) -> dict[str, Any]:
    """Options of `train` with which an epoch takes a moment."""
    if make is make_region_set:
        return TRAIN | {"lr": 1e-2}
    return TRAIN | ({"accumulate": 1, "n_warmup_steps": 1, "max_genes": 6} if make is make_epifoundation else {})


def latent(model: Any, *args: Any, **options: Any) -> np.ndarray:
    pca = {"n_components": 3} if "n_components" in arguments(type(model).get_latent_representation) else {}
    return model.get_latent_representation(*args, **pca | options)


def weights(model: Any) -> dict[str, torch.Tensor]:
    net = model.module.net if isinstance(model, RegionSet) else model.checkpoint.net
    return {name: x.clone() for name, x in net.state_dict().items()}


def same(a: Any, b: Any) -> bool:
    a, b = weights(a), weights(b)
    return all(torch.equal(x, b[name]) for name, x in a.items())


def assert_history(history: Any, n_epochs: int, name: str = "validation_loss") -> None:
    assert isinstance(history, dict)
    for key, table in history.items():
        assert isinstance(table, pd.DataFrame)
        assert list(table.columns) == [key]
        assert table.index.name == "epoch"
        assert np.isfinite(table.to_numpy(float)).all()
    assert list(history[name].index) == list(range(n_epochs))


class Fall(Exception):
    """What an interrupted run raises."""


class Interrupt(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Any, plan: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise Fall


UNTRAINED = "ignore:Trying to query inferred values from an untrained model"


@pytest.mark.filterwarnings(UNTRAINED)
@every_model
def test_registry(make: Callable) -> None:
    model = make()
    stats = dict(model.summary_stats)
    assert stats | {"n_batch": 2, "n_labels": 2, "n_cells": N_CELLS} == stats
    assert stats.get("n_atac", stats["n_vars"]) == N_OCRS
    assert model.registry["setup_args"]["batch_key"] == "donor"
    assert list(model.get_state_registry("batch").categorical_mapping) == ["A", "B"]
    assert model.registry["model_name"] == type(model).__name__
    assert model.adata_manager is model.get_anndata_manager(model.adata, required=True)
    assert model.get_from_registry(model.adata, "X").shape == (N_CELLS, stats["n_vars"])
    assert len(model.get_var_names()) in (N_OCRS, 2)  # names, or names by modality
    model.deregister_manager()
    latent(model)
    model.to_device("cpu")
    assert model.device == torch.device("cpu")


@pytest.mark.filterwarnings(UNTRAINED)
@every_model
def test_a_copy_is_registered_by_itself(make: Callable) -> None:
    model = make()
    copy = model.adata.copy()
    assert latent(make(copy)).shape[0] == N_CELLS
    model.train(1, **options_of(make))
    assert model.get_anndata_manager(model.adata).adata is model.adata


@every_model
def test_view_anndata_setup(make: Callable, capsys: pytest.CaptureFixture) -> None:
    make().view_anndata_setup()
    shown = capsys.readouterr().out
    assert "donor" in shown
    assert "batch_key" in shown


@every_class
def test_history_grows(make: Callable) -> None:
    model = make()
    assert model.history is None
    model.train(2, **TRAIN)
    assert_history(model.history, 2)
    assert {"train_loss", "validation_loss", "reconstruction_loss_train", "reconstruction_loss_validation"} <= set(
        model.history
    )
    first = model.history["train_loss"].copy()
    model.train(1, **TRAIN)
    assert_history(model.history, 3)
    pd.testing.assert_frame_equal(model.history["train_loss"].iloc[:2], first)
    if make is make_region_set:
        return
    model.train(1, **TRAIN, objectives={"denoise": 1.0})  # another value from here on
    assert list(model.history["denoise_train"].index) == [3]
    assert list(model.history["reconstruction_loss_train"].index) == [0, 1, 2]


def test_fine_tuning_leaves_a_history(tmp_path: Path) -> None:
    make_chromfound().save(tmp_path / "model")
    adata = make_adata(1)
    ChromFound.setup_anndata(adata)
    model = ChromFound.from_pretrained(tmp_path / "model", adata)
    assert model.is_trained
    assert model.history is None
    model.train(2, **TRAIN)
    assert_history(model.history, 2)
    sfa.pl.training(model, show=False)


@every_model
def test_parts(make: Callable) -> None:
    model, options = make(), options_of(make)
    model.train(1, **options, train_size=0.5, validation_size=0.25)
    parts = [model.train_indices, model.validation_indices, model.test_indices]
    assert [len(part) for part in parts] == [20, 10, 10]
    assert sorted(np.concatenate(parts)) == list(range(N_CELLS))
    model.train(1, **options, train_size=0.5, validation_size=0.25, shuffle_set_split=False)
    assert list(model.validation_indices) == list(range(10))
    assert list(model.train_indices) == list(range(10, 30))
    mine = [np.arange(30), np.arange(30, 36), np.arange(36, 40)]
    model.train(1, **options, datasplitter_kwargs={"external_indexing": mine})
    assert list(model.test_indices) == [36, 37, 38, 39]
    for sizes in ({"train_size": 0.9, "validation_size": 0.2}, {"validation_size": 1.0}, {"train_size": 0.0}):
        with pytest.raises(ValueError, match="_size must"):
            model.train(1, **options, **sizes)
    with pytest.raises(ValueError, match="each cell once"):
        model.train(1, **options, datasplitter_kwargs={"external_indexing": [np.arange(30), np.arange(29, 40)]})


@every_model
def test_options_of_the_plan(make: Callable) -> None:
    """They count unless the argument of `train` is given, too."""
    options = options_of(make)
    fast = {name: value for name, value in options.items() if name != "lr"}
    direct, by_plan, neither = make(), make(), make()
    direct.train(1, **options)
    by_plan.train(1, **fast, plan_kwargs={"lr": options["lr"]})
    neither.train(1, **fast)
    assert same(direct, by_plan)
    assert not same(direct, neither)
    by_name = make()
    by_name.train(1, **options, plan_kwargs={"lr": 1.0})
    assert same(direct, by_name)
    with pytest.raises(TypeError, match="plan_kwargs has no option 'n_epochs'; it takes lr"):
        neither.train(1, plan_kwargs={"n_epochs": 3})
    with pytest.raises(TypeError, match="datasplitter_kwargs has no option 'sparse'"):
        neither.train(1, datasplitter_kwargs={"sparse": True})
    decayed = make()
    decayed.train(1, **options, weight_decay=0.5, eps=1e-3)
    assert not same(decayed, direct)


@every_net
def test_what_has_no_meaning_is_refused_with_a_reason(make: Callable, tmp_path: Path) -> None:
    model = make()
    with pytest.raises(TypeError, match=r"takes no n_epochs_kl_warmup=: the loss has no KL term\."):
        model.train(1, n_epochs_kl_warmup=50)
    with pytest.raises(TypeError, match="covariate"):
        CONTRACTS[type(model).__name__].method("setup_anndata")(data_of(make)(), continuous_covariate_keys=["depth"])
    with pytest.raises(TypeError, match="takes no save_kwargs="):
        model.save(tmp_path / "model", save_kwargs={})
    with pytest.raises(TypeError, match="takes no freeze_classifier=: parts of another network"):
        type(model).load_query_data(data_of(make)(), model, freeze_classifier=False)
    with pytest.raises(TypeError, match="takes no inplace=: nothing is padded"):
        type(model).prepare_query_anndata(data_of(make)(), model, inplace=False)
    assert not hasattr(model, "get_normalized_accessibility")
    assert not hasattr(model, "minify_adata")


@every_class
@pytest.mark.parametrize("monitor", [None, "reconstruction_loss_validation", "validation_loss"])
def test_early_stopping(make: Callable, monitor: str | None) -> None:
    model = make()
    options = {} if monitor is None else {"early_stopping_monitor": monitor}
    # nothing is learned, so the first validation stays the best
    options |= TRAIN | {"lr": 0.0, "weight_decay": 0.0}
    model.train(20, **options, early_stopping=True, early_stopping_patience=2, early_stopping_min_delta=1e-3)
    assert_history(model.history, 3)
    with pytest.raises(ValueError, match="early_stopping needs cells to validate on"):
        model.train(2, **TRAIN, early_stopping=True, train_size=1.0)
    assert_history(model.history, 3)


@every_class
def test_every_second_epoch_is_validated(make: Callable) -> None:
    model = make()
    model.train(4, **TRAIN, check_val_every_n_epoch=2)
    assert list(model.history["validation_loss"].index) == [1, 3]
    assert list(model.history["train_loss"].index) == [0, 1, 2, 3]


@every_model
def test_the_seed_of_scvi_tools_is_obeyed(make: Callable) -> None:
    def run(**options: Any) -> Any:
        model = make()
        model.train(1, **options_of(make), **options)
        return model

    scvi.settings.seed = 3
    first, again = run(), run()
    if make is not make_region_set:  # which keeps no record of its training
        assert first.checkpoint.training["seed"] == 3
    assert same(first, again)
    assert same(first, run(seed=3))
    scvi.settings.seed = 4
    other = run()
    assert not same(first, other)
    assert list(first.train_indices) != list(other.train_indices)
    scvi.settings.seed = None
    assert same(run(), make_and_train_with_seed_0(make))


def make_and_train_with_seed_0(make: Callable) -> Any:
    model = make(seed=0)
    model.train(1, **options_of(make), seed=0)
    return model


@every_model
def test_loggers(make: Callable, tmp_path: Path) -> None:
    model = make()
    model.train(2, **options_of(make), logger=CSVLogger(tmp_path, name="log"))
    table = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    for name in ("loss" if make is make_epifoundation else "train_loss", "validation_loss"):
        np.testing.assert_allclose(table[name].dropna(), model.history[name][name], rtol=1e-5)


@every_class
def test_an_interrupted_run_goes_on(make: Callable, tmp_path: Path) -> None:
    """From the checkpoint of Lightning it takes the steps that it would have taken, and the history has each epoch once."""
    whole = make()
    whole.train(4, **TRAIN)
    model = make()
    state = torch.get_rng_state()
    keep = ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(Fall):
        model.train(4, **TRAIN, callbacks=[keep, Interrupt(2)])
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.is_trained
    assert not model.module.training
    assert_history(model.history, 2)
    model.train(4, **TRAIN, ckpt_path=tmp_path / "last.ckpt")
    assert same(model, whole)
    assert_history(model.history, 4)
    for name, table in whole.history.items():
        pd.testing.assert_frame_equal(model.history[name], table)
    if make is not make_region_set:
        assert model.checkpoint.training == whole.checkpoint.training
    fresh = make()  # in another session, too
    fresh.train(4, **TRAIN, ckpt_path=tmp_path / "last.ckpt")
    assert same(fresh, whole)


@every_class
def test_checkpoints_of_scvi_tools(make: Callable, tmp_path: Path) -> None:
    model = make()
    with pytest.raises(Fall):
        model.train(4, **TRAIN, callbacks=[SaveCheckpoint(tmp_path, filename="{epoch}"), Interrupt(2)])
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    saved = type(model).load(folder, make_adata())
    assert saved.is_trained
    saved.train(1, **TRAIN)
    assert_history(saved.history, 1)
    # the best weights come back at the end: of the first epoch, as the second one ruins them
    best = make()
    saver = SaveCheckpoint(tmp_path / "best", load_best_on_end=True)
    options = TRAIN | {"lr": 0.5}
    best.train(3, **options, callbacks=[saver])
    assert saver.load_best_on_end
    assert same(best, type(best).load(saver.best_model_path, make_adata()))
    best.train(1, **TRAIN, enable_checkpointing=True)


@pytest.mark.parametrize("make", [make_chromfound])
def test_indices(make: Callable) -> None:
    model = make()
    model.train(1, **TRAIN)
    for options in ({"n_components": 4}, {"n_components": None}, {"n_components": 4, "n_fit_cells": 10}):
        every = model.get_latent_representation(**options)
        for indices in ([5, 3, 3, -1], np.arange(N_CELLS) % 3 == 0, np.array([7])):
            found = model.get_latent_representation(None, indices, batch_size=None, **options)
            np.testing.assert_allclose(found, every[indices], atol=1e-5 * np.abs(every).max())
    every = model.get_reconstruction()
    np.testing.assert_allclose(model.get_reconstruction(indices=[2, 1]), every[[2, 1]], atol=1e-6)
    with pytest.raises(ValueError, match=f"there are {N_CELLS} cells"):
        model.get_latent_representation(indices=[True, False])
    with pytest.raises(IndexError):
        model.get_latent_representation(indices=[N_CELLS])


@every_net
def test_cells_of_a_new_batch(make: Callable) -> None:
    model = make()
    model.train(1, **options_of(make))
    other = data_of(make)(2, donors="BC")
    assert latent(model, other).shape[0] == N_CELLS
    assert latent(model, adata=other, indices=[3, 1], batch_size=2).shape[0] == 2
    fewer = other_ocrs(make)
    (fewer["atac"] if make is make_epifoundation else fewer).obs["kind"] = "0"
    assert np.isfinite(latent(model, fewer)).all()


@every_model
def test_folder_with_prefixes(make: Callable, tmp_path: Path) -> None:
    models = {}
    for prefix, seed in (("a_", 0), ("b_", 1)):
        models[prefix] = make(seed=seed)
        models[prefix].train(1, **options_of(make), seed=seed)
        models[prefix].save(tmp_path / "models", prefix)
    assert all(path.name.startswith(("a_", "b_")) for path in (tmp_path / "models").iterdir())
    cls, data = type(models["a_"]), data_of(make)
    for prefix, model in models.items():
        assert same(cls.load(tmp_path / "models", data(), prefix=prefix), model)
        if make is make_region_set:
            continue
        assert sfa.hub.load(tmp_path / "models", prefix=prefix).training["seed"] == model.checkpoint.training["seed"]
    with pytest.raises(FileNotFoundError, match="no c_model.safetensors"):
        cls.load(tmp_path / "models", data(), prefix="c_")
    with pytest.raises(FileExistsError, match="a_model.safetensors exists"):
        models["a_"].save(tmp_path / "models", "a_")
    models["b_"].save(tmp_path / "models", "a_", overwrite=True)


@pytest.mark.parametrize("make", [make_chromfound])
def test_load_without_data(make: Callable, tmp_path: Path) -> None:
    """`adata=None` takes the saved cells; without them, and with False, the model is opened without data."""
    model = make()
    model.train(1, **TRAIN)
    expected = model.get_latent_representation(n_components=3)
    model.save(tmp_path / "with", save_anndata=True, compression="gzip")
    model.save(tmp_path / "without")
    loaded = type(model).load(tmp_path / "with")
    assert loaded.adata.obs_names.equals(model.adata.obs_names)
    np.testing.assert_allclose(loaded.get_latent_representation(n_components=3), expected, atol=1e-5)
    assert loaded.registry["setup_args"] == model.registry["setup_args"]
    loaded.train(1, **TRAIN)
    model.get_latent_representation(n_components=3)  # its cells are still registered
    for adata in (None, False):
        bare = type(model).load(tmp_path / "without", adata)
        assert bare.adata is None
        for call in (bare.get_latent_representation, lambda bare=bare: bare.train(1, **TRAIN)):
            with pytest.raises(ValueError, match="opened without data"):
                call()
        bare.save(tmp_path / "again", overwrite=True)
        columns = np.random.default_rng(0).permutation(N_OCRS)
        shuffled = make_adata()[:, columns].copy()
        np.testing.assert_allclose(
            np.abs(bare.get_latent_representation(shuffled, n_components=3)), np.abs(expected), atol=1e-4
        )
        bare.train(1, **TRAIN)
        assert same(type(model).load(tmp_path / "again", make_adata()), model)


@every_model
def test_load_registers_the_cells(make: Callable, tmp_path: Path) -> None:
    """Cells need no setup: they are registered as those of the saved model; what the user has set up stays."""
    model, data = make(), data_of(make)
    model.save(tmp_path / "model")
    cls, setup = type(model), CONTRACTS[type(model).__name__].method("setup_anndata")
    loaded = cls.load(tmp_path / "model", data(1), "cpu", "auto")
    assert loaded.registry["setup_args"] == model.registry["setup_args"]
    copy = model.adata.copy()
    assert cls.load(tmp_path / "model", copy).adata is copy
    own = data(1)
    setup(own, batch_key="donor")
    assert cls.load(tmp_path / "model", own).registry["setup_args"]["labels_key"] is None


@every_model
def test_load_with_the_saved_cells_or_with_none(make: Callable, tmp_path: Path) -> None:
    model = make()
    model.train(1, **options_of(make))
    model.save(tmp_path / "with", save_anndata=True, compression="gzip")
    model.save(tmp_path / "without")
    loaded = type(model).load(tmp_path / "with", None, "cpu")
    assert list(loaded.adata.obs_names) == list(model.adata.obs_names)
    np.testing.assert_allclose(latent(loaded), latent(model), atol=1e-5)
    loaded.train(1, **options_of(make))
    for folder, adata in (("without", None), ("with", False)):
        bare = type(model).load(tmp_path / folder, adata)
        assert bare.adata is None
        assert bare.is_trained
        for call in (bare.get_latent_representation, lambda bare=bare: bare.train(1, **options_of(make))):
            with pytest.raises(ValueError, match="opened without data"):
                call()
        assert bare.registry["setup_args"] == model.registry["setup_args"]
        assert bare.summary_stats == model.summary_stats
    with pytest.raises(ValueError, match="opened without data: leave save_anndata out"):
        bare.save(tmp_path / "again", save_anndata=True)


@every_model
def test_registry_of_a_folder(make: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = make()
    model.save(tmp_path / "model", "x_")
    found = type(model).load_registry(tmp_path / "model", "x_")
    assert found["setup_args"] == model.registry["setup_args"]
    fields = model.registry["field_registries"]
    assert found["field_registries"].keys() == fields.keys()
    for name, field in fields.items():
        for part in ("data_registry", "summary_stats"):
            assert found["field_registries"][name][part] == dict(field[part])
        for key, value in field["state_registry"].items():
            assert np.array_equal(found["field_registries"][name]["state_registry"][key], value)
    type(model).view_setup_args(tmp_path / "model", "x_")
    assert "donor" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError):
        type(model).load_registry(tmp_path / "model")


@every_model
def test_nothing_is_pickled(make: Callable, tmp_path: Path) -> None:
    make().save(tmp_path / "model", save_anndata=True)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "registry.json"} <= names
    assert {path.rpartition(".")[2] for path in names} <= {"json", "safetensors", "h5ad", "h5mu", "gz"}
    saved = names & {"adata.h5ad", "mdata.h5mu"}
    assert len(saved) == 1


# What is EpiFoundation's own way


def test_history_of_steps(tmp_path: Path) -> None:
    """A further run is appended; a run that went on replaces what it wrote before."""
    model, options = make_epifoundation(), options_of(make_epifoundation)
    model.train(2, **options, output=tmp_path / "run")
    n_steps = len(model.history["loss"])
    first = model.history["loss"].copy()
    model.train(4, **options, output=tmp_path / "run", max_steps=n_steps + 2)
    assert list(model.history["loss"].index) == list(range(1, n_steps + 3))
    pd.testing.assert_frame_equal(model.history["loss"].iloc[:n_steps], first)
    model.train(1, **options, max_steps=3)
    assert list(model.history["loss"].index) == list(range(1, n_steps + 6))
    assert model.history["validation_loss"].index.name == "step"


class FallAt(CSVLogger):
    """A logger that ends the run from within."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder)
        self.last = step

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if step == self.last:
            raise Fall


def test_an_interrupted_run_goes_on_from_its_folder(tmp_path: Path) -> None:
    options = options_of(make_epifoundation) | {"max_steps": 9, "checkpoint_every": 2}
    whole, model = make_epifoundation(), make_epifoundation()
    whole.train(**options)
    with pytest.raises(Fall):
        model.train(**options, output=tmp_path / "run", logger=FallAt(tmp_path, 6))
    assert same(model, make_epifoundation())
    assert not model.is_trained
    assert model.history is None
    for changed in ({"weight_decay": 0.1}, {"shuffle_set_split": False}):
        with pytest.raises(ValueError, match=f"another configuration .*{next(iter(changed))}"):
            make_epifoundation().train(**options | changed, output=tmp_path / "run")
    model.train(**options, output=tmp_path / "run")
    assert same(model, whole)
    for name, table in whole.history.items():
        if name != "seconds":
            pd.testing.assert_frame_equal(model.history[name], table)


@pytest.mark.parametrize("monitor", [None, "validation_expression"])
def test_early_stopping_by_steps(monitor: str | None) -> None:
    model, options = make_epifoundation(), options_of(make_epifoundation)
    given = {} if monitor is None else {"early_stopping_monitor": monitor}
    stop = {"early_stopping": True, "early_stopping_patience": 2, "check_val_every_n_epoch": 2}
    model.train(20, **options, **given, **stop, early_stopping_min_delta=10)  # nothing falls by so much
    n_per_epoch = -(-36 // 12)
    assert list(model.history["validation_loss"].index) == [2 * n_per_epoch * (i + 1) for i in range(3)]
    for wrong in ("elbo_validation", "validation_step"):
        with pytest.raises(ValueError, match="is no value of a validation; there are validation_loss"):
            model.train(2, **options, early_stopping=True, early_stopping_monitor=wrong)
    with pytest.raises(ValueError, match="early_stopping needs cells"):
        model.train(2, **options, early_stopping=True, train_size=1.0)
    with pytest.raises(
        TypeError, match=r"takes no callbacks=: no Trainer of Lightning runs: `output` keeps checkpoints"
    ):
        model.train(2, **options, callbacks=[ModelCheckpoint()])
    with pytest.raises(TypeError, match="logger= takes loggers"):
        model.train(2, **options, logger="csv")


def test_names_of_multivi() -> None:
    mdata = make_mdata()
    mdata["atac"].layers["counts"] = mdata["atac"].X.copy()
    mdata["rna"].layers["counts"] = mdata["rna"].X.copy()
    names = {"rna_layer": "rna", "atac_layer": "atac", "batch_key": "atac"}
    EpiFoundation.setup_mudata(mdata, atac_layer="counts", rna_layer="counts", batch_key="donor", modalities=names)
    model = EpiFoundation(mdata, config=TINY_EPIFOUNDATION)
    model.train(1, **options_of(make_epifoundation))
    expected = make_epifoundation()
    expected.train(1, **options_of(make_epifoundation))
    assert same(model, expected)
    with pytest.raises(ValueError, match="two names of one argument"):
        EpiFoundation.setup_mudata(mdata, atac_layer="counts", layer="other")
    with pytest.raises(ValueError, match=r"mdata.obs\['donor'\] = mdata\['rna'\]"):
        EpiFoundation.setup_mudata(mdata, batch_key="donor", modalities={"batch_key": "rna"})
    with pytest.raises(TypeError, match="takes no protein_layer=: the network reads no proteins"):
        EpiFoundation.setup_mudata(mdata, protein_layer="counts")
    with pytest.raises(TypeError, match="setup_mudata"):
        EpiFoundation.setup_anndata(mdata["atac"])


# Queries


def other_ocrs(make: Callable, seed: int = 3, donors: str = "BC") -> Any:
    """New cells with three quarters of the OCRs, moved a little, in another order, of a batch more, and without labels."""
    data = data_of(make)(seed, donors)
    mdata = data if make is make_epifoundation else None
    atac = data if mdata is None else mdata["atac"]
    atac = atac[:, np.random.default_rng(0).permutation(N_OCRS)[: 3 * N_OCRS // 4]].copy()
    del atac.obs["kind"]
    moved = atac.var.assign(start=atac.var["start"] + 40, end=atac.var["end"] + 40)
    moved.index = [f"{c}:{s}-{e}" for c, s, e in moved.itertuples(index=False)]
    atac.var = moved
    return atac if mdata is None else MuData({"atac": atac, "rna": mdata["rna"].copy()})


@every_net
@pytest.mark.parametrize("saved", [False, True], ids=["instance", "folder"])
def test_query(make: Callable, saved: bool, tmp_path: Path) -> None:
    """Before training it is the reference; of training the frozen part keeps every bit."""
    reference, options = make(), options_of(make)
    reference.train(2, **options)
    before, vectors = weights(reference), latent(reference)
    if saved:
        reference.save(tmp_path / "reference")
    query = other_ocrs(make)
    names = list((query["atac"] if make is make_epifoundation else query).var_names)
    model = type(reference).load_query_data(query, tmp_path / "reference" if saved else reference)
    assert model.adata is query
    assert model.is_trained
    assert model.device == next(model.checkpoint.net.parameters()).device
    assert latent(model).shape[0] == N_CELLS
    np.testing.assert_allclose(latent(model, reference.adata), vectors, atol=1e-5)
    assert list(model.get_state_registry("batch").categorical_mapping) == ["A", "B", "C"]
    trained = {name for name, x in model.checkpoint.net.named_parameters() if x.requires_grad}
    assert 0 < len(trained) < len(before)
    start = weights(model)
    model.train(2, **options)
    changed = {name for name, x in weights(model).items() if not torch.equal(x, start[name])}
    assert changed
    assert changed <= trained  # also statistics of a BatchNorm, which are no parameters
    assert {name for name, x in model.checkpoint.net.named_parameters() if x.requires_grad} == trained
    assert all(torch.equal(x, before[name]) for name, x in weights(reference).items())
    assert all(x.requires_grad for x in reference.checkpoint.net.parameters())
    assert names == list((query["atac"] if make is make_epifoundation else query).var_names)
    model.save(tmp_path / "query")
    np.testing.assert_allclose(latent(type(model).load(tmp_path / "query", query)), latent(model), atol=1e-5)


@every_model
def test_query_that_is_not_frozen(make: Callable) -> None:
    reference, options = make(), options_of(make)
    reference.train(1, **options)
    model = type(reference).load_query_data(data_of(make)(3), reference, unfrozen=True)
    before = weights(model)
    model.train(2, **options)
    changed = {name for name, x in weights(model).items() if not torch.equal(x, before[name])}
    first = {make_epifoundation: "peak_embedding.table.weight", make_region_set: "rotation"}
    assert first.get(make, "value_embedding.weight") in changed


@every_net
def test_queries_that_cannot_be(make: Callable) -> None:
    reference = make()
    cls = type(reference)
    with pytest.raises(ValueError, match="needs the new cells as adata="):
        cls.load_query_data(reference_model=reference)
    with pytest.raises(ValueError, match="needs a trained model or its folder"):
        cls.load_query_data(data_of(make)())
    with pytest.raises(ValueError, match="the reference does not have batch 'C'"):
        cls.load_query_data(other_ocrs(make), reference, transfer_batch=False)
    adata = make_adata()
    PEAKVI.setup_anndata(adata)
    peakvi = PEAKVI(adata)
    with pytest.raises(TypeError, match="reference_model is a PEAKVI, not"):
        cls.load_query_data(data_of(make)(), peakvi)


@every_net
def test_what_of_a_query_is_known(make: Callable, tmp_path: Path) -> None:
    reference = make()
    reference.save(tmp_path / "reference")
    query = other_ocrs(make)
    atac = query["atac"] if make is make_epifoundation else query
    strange = atac.var.copy()
    moved = strange.index[:12]
    strange.loc[moved, "chrom"] = "chrUn_1"
    strange.index = [f"{c}:{s}-{e}" for c, s, e in strange.itertuples(index=False)]
    atac.var = strange
    is_known = np.arange(atac.n_vars) >= 12
    for model in (reference, tmp_path / "reference"):
        found = type(reference).prepare_query_anndata(atac, model)
        assert found["n_ocrs"] == atac.n_vars
        assert found["fraction_known"] == is_known.mean()
        open_ = atac.X.getnnz(axis=0)
        assert found["fraction_open_known"] == pytest.approx(open_[is_known].sum() / open_.sum())
        names = type(reference).prepare_query_anndata(atac, model, return_reference_var_names=True)
        assert len(names["atac"] if make is make_epifoundation else names) == N_OCRS


def test_what_of_a_query_of_two_modalities_is_known() -> None:
    reference = make_epifoundation()
    query = make_mdata(1)
    query["rna"].var_names = [f"G{i + 3}" for i in range(N_GENES)]
    found = EpiFoundation.prepare_query_mudata(query, reference)
    assert (found["fraction_known"], found["n_genes"], found["fraction_genes_known"]) == (1.0, N_GENES, 0.75)
    names = EpiFoundation.prepare_query_mudata(query, reference, return_reference_var_names=True)
    assert list(names["rna"]) == [f"G{i}" for i in range(N_GENES)]


def test_a_new_batch_gets_a_vector_that_is_trained() -> None:
    """It starts as the mean of those of the reference, which keep theirs."""
    reference = make_epifoundation()
    reference.train(1, **options_of(make_epifoundation))
    model = EpiFoundation.load_query_data(other_ocrs(make_epifoundation), reference)
    table, old = (weights(x)["batch_embedding.table.weight"] for x in (model, reference))
    torch.testing.assert_close(table, torch.cat([old, old.mean(0, keepdim=True)]), atol=0, rtol=0)
    assert dict(model.checkpoint.vocabularies.batches) == {"A": 0, "B": 1, "C": 2}
    model.train(2, **options_of(make_epifoundation))
    assert not torch.equal(weights(model)["batch_embedding.table.weight"][2], table[2])
    assert model.predict_expression(batch="C").shape == (N_CELLS, N_GENES)


def test_an_interrupted_query_goes_on(tmp_path: Path) -> None:
    """With the same parts frozen; another choice of parts is another run."""
    reference = make_epifoundation()
    options = options_of(make_epifoundation) | {"max_steps": 9, "checkpoint_every": 2}
    whole, model = (EpiFoundation.load_query_data(make_mdata(3), reference) for _ in range(2))
    whole.train(**options)
    with pytest.raises(Fall):
        model.train(**options, output=tmp_path / "run", logger=FallAt(tmp_path, 6))
    other = EpiFoundation.load_query_data(make_mdata(3), reference, unfrozen=True)
    with pytest.raises(ValueError, match="another configuration .*trained was"):
        other.train(**options, output=tmp_path / "run")
    model.train(**options, output=tmp_path / "run")
    assert same(model, whole)
