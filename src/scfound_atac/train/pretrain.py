"""Pretrain a network on a corpus: network, objectives and data of a run; the loop is in `loop.py`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import __version__
from ..data.batches import CorpusBatches
from ..data.corpus import Corpus
from ..hub import Checkpoint, load, save
from ..nn.networks import build_network
from ..nn.objectives import Objectives
from .config import PretrainConfig, read_config
from .loop import BEST, LoopOptions, TrainingLoop, make_fabric, own_randomness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.fabric import Fabric

# Keys that may differ when a run is resumed: where, how fast and how long it runs.
_MAY_CHANGE = (
    "corpus",
    "output",
    "n_steps",
    "precision",
    "checkpoint_activations",
    "checkpoint_every",
    "validate_every",
    "n_validation_batches",
    "n_workers",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
)


def pretrain(config: Mapping[str, Any] | str | Path, *, resume: bool = True) -> Path:
    """Pretrain a network on a corpus.

    The folder `output` gets these files:

    - ``log.csv``: a row per step with loss, its parts, learning rate, tokens, seconds and validation loss
    - ``last.ckpt``: the state of the run
    - ``best`` and ``final``: the networks with the lowest validation loss and after the last step, for `scfound_atac.hub.load`
    - ``tensorboard``: the same curves, if TensorBoard is installed

    An interrupted run continues from ``last.ckpt`` and repeats the steps after it. Batches, masks and dropout only depend on the seed and
    the number of the step, so that on the same hardware the result is that of a run without interruption.

    Parameters
    ----------
    config
        The configuration as a mapping or a YAML file; the training page of the documentation lists its keys.
    resume
        Continue from ``last.ckpt`` if there is one; start over if False.

    Returns
    -------
    The folder with the best network.

    Raises
    ------
    ValueError
        If the configuration or the corpus is invalid, or `output` holds a run with another configuration.
    FloatingPointError
        If the loss becomes infinite or NaN.
    """
    settled = read_config(config)
    fabric = make_fabric(settled.accelerator, settled.devices, settled.num_nodes, settled.strategy)
    fabric.launch()
    with own_randomness(fabric):
        _Run(settled, fabric, resume=resume).train()
    return Path(settled.output) / BEST


class _Run(TrainingLoop):
    """One pretraining run on one process."""

    start_over = "resume=False (--no-resume)"

    def __init__(self, config: PretrainConfig, fabric: Fabric, *, resume: bool) -> None:
        self.config = config
        self.corpus = Corpus(config.corpus, config.study_weights)
        torch.manual_seed(config.seed)
        self.start = _start(config)
        net = self.start.net
        with_labels = config.objectives.get("identity", 0) > 0
        plan = Objectives(
            net,
            config.objectives,
            n_labels=len(self.corpus.biosamples) if with_labels else 0,
            **self.start.preparation,
        )
        options: dict[str, Any] = {
            "n_cells": config.batch.n_cells,
            "crop_size": config.batch.crop_size,
            "crop": config.batch.crop,
            "validation_fraction": config.batch.validation_fraction,
            "n_factors": net.config.n_factors,
            "region_table": self.start.regions,
            "with_labels": with_labels,
            "rank": fabric.global_rank,
            "world_size": fabric.world_size,
        }
        optimizer = torch.optim.AdamW(
            plan.parameters(),
            lr=config.optimizer.lr,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
        )
        super().__init__(
            fabric,
            plan,
            optimizer,
            CorpusBatches(self.corpus, seed=config.seed, **options),
            CorpusBatches(self.corpus, validation=True, **options),
            _loop_options(config),
            config=config.to_dict(),
            may_change=_MAY_CHANGE,
            resume=resume,
        )

    def count_tokens(self, batch: dict[str, Any]) -> int:
        return batch["counts"].numel() * self.fabric.world_size

    def save_network(self, name: str, **facts: float) -> None:
        training = {
            **facts,
            "objectives": self.config.objectives,
            "n_steps": self.step,
            "tokens": self.tokens,
            "hours": round(self.seconds / 3600, 4),
            "n_processes": self.fabric.world_size,
            "device": str(self.fabric.device),
            "studies": [study.name for study in self.corpus.studies],
            "n_corpus_cells": self.corpus.n_cells,
            "version": __version__,
            "config": self.config.to_dict(),
        }
        save(
            self.start.net,
            self.options.folder / name,
            preparation=self.start.preparation,
            training=training,
            regions=self.start.regions,
            overwrite=True,
        )


def _loop_options(config: PretrainConfig) -> LoopOptions:
    return LoopOptions(
        folder=Path(config.output),
        n_steps=config.n_steps,
        lr=config.optimizer.lr,
        n_warmup_steps=config.optimizer.n_warmup_steps,
        clip=config.optimizer.clip,
        seed=config.seed,
        n_validation_batches=config.n_validation_batches,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
        accumulate=config.accumulate,
        n_workers=config.n_workers,
        precision=config.precision,
    )


def _start(config: PretrainConfig) -> Checkpoint:
    """The network to train, with its preparation and region table."""
    if config.init_from:
        start = load(config.init_from)
        if not hasattr(start.net, "embed_ocrs"):
            msg = f"{config.init_from} has no network to train; it is {start.model_class}."
            raise ValueError(msg)
    else:
        sizes = {name: value for name, value in config.network.items() if name != "kind"}
        start = Checkpoint(net=build_network(config.network["kind"], sizes), name="untrained", sha256="")
    if config.preparation is not None:
        start = replace(start, preparation=asdict(config.preparation))
    if config.region_table is not None:
        start = replace(start, regions=Path(config.region_table))
    if config.checkpoint_activations:
        if not hasattr(start.net, "checkpoint_activations"):
            msg = f"{type(start.net).__name__} does not checkpoint activations; leave out checkpoint_activations."
            raise ValueError(msg)
        start.net.checkpoint_activations = True
    return start
