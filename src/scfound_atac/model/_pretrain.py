"""Pretraining over a corpus: one process or many, exact resume.

The loop is written out over `lightning.fabric.Fabric`, which brings devices, precision and DistributedDataParallel. A trainer that
counts epochs would have to be told where in an epoch it stopped; here step `s` reads batches ``s * accumulate`` onwards, and weights,
optimizer and step are all the state there is.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from .. import __version__
from .._logging import logger
from .._settings import settings
from ..data._batches import CorpusBatches
from ..data._corpus import Corpus
from ..hub import Checkpoint, load, save
from ..nn.networks import build_network
from ..nn.objectives import Objectives
from ._pretrain_config import PretrainConfig, read_config
from ._run_folder import CHECKPOINT, RunLog, load_checkpoint, save_checkpoint
from ._schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

BEST, FINAL = "best", "final"
# What may differ when a run goes on: where and how fast it runs, and how long.
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

    Writes into the folder `output`: ``log.csv`` (a row per step: loss, its parts, learning rate, tokens, seconds, validation loss),
    ``last.ckpt`` (the run's state, replaced as a whole), ``best`` and ``final`` (the networks with the lowest validation loss and
    after the last step, in the form that `scfound_atac.hub.load` opens), and ``tensorboard`` if that is installed.

    A run that was killed goes on from ``last.ckpt`` and repeats the steps after it: batches, masks and dropout depend on the seed and
    the number of the step alone, so that on the same hardware the curve is that of a run that was never killed.

    Parameters
    ----------
    config
        See `PretrainConfig`; a mapping or a YAML file.
    resume
        Go on from ``last.ckpt`` if there is one; start over if False.

    Returns
    -------
    The folder with the best network.

    Raises
    ------
    ValueError
        If the configuration or the corpus is not usable, or `output` holds a run with another configuration.
    FloatingPointError
        If the loss is no longer a number.
    """
    settled = read_config(config)
    fabric = _fabric(settled)
    fabric.launch()
    # Other code's random numbers are left as they were.
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        _Run(settled, fabric, resume=resume).train()
    return Path(settled.output) / BEST


def _fabric(config: PretrainConfig) -> Fabric:
    devices = config.devices
    if devices == "auto" and not (config.accelerator != "cpu" and torch.cuda.is_available()):
        devices = 1  # torch uses all cores in one process
    return Fabric(
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
    )


class _Run:
    """One pretraining run on one process."""

    def __init__(self, config: PretrainConfig, fabric: Fabric, *, resume: bool) -> None:
        self.config, self.fabric = config, fabric
        self.folder = Path(config.output)
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
        self.batches = CorpusBatches(self.corpus, seed=config.seed, **options)
        self.validation = CorpusBatches(self.corpus, validation=True, **options)
        optimizer = torch.optim.AdamW(
            plan.parameters(),
            lr=config.optimizer.lr,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
        )
        self.step, self.tokens, self.seconds, self.best = 0, 0, 0.0, float("inf")
        path = self.folder / CHECKPOINT
        if resume and path.is_file():
            self._restore(load_checkpoint(path), plan, optimizer)
        fabric.barrier()  # nobody writes before everybody has read
        self.parameters = plan.state_dict  # names without the wrapping that follows
        self.plan, self.optimizer = fabric.setup(plan, optimizer)
        self.bf16 = config.precision == "bf16-mixed"
        if config.precision == "auto":
            self.bf16 = fabric.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.columns = (
            "step",
            "loss",
            *plan.weights,
            "lr",
            "gradient_norm",
            "tokens",
            "seconds",
            "validation_loss",
            *(f"validation_{name}" for name in plan.weights),
        )

    def train(self) -> None:
        """Train to the last step."""
        config, is_first = self.config, self.fabric.is_global_zero
        log = None
        if is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            log = RunLog(self.folder, self.columns, self.step)
        batches = self._stream()
        bar = _progress_bar(self.step, config.n_steps, shown=is_first and settings.progress_bar)
        began, began_tokens = time.perf_counter() - self.seconds, self.tokens
        first_second = self.seconds
        try:
            while self.step < config.n_steps:
                row = self._step(batches)
                self.step += 1
                if self.step % config.validate_every == 0 or self.step == config.n_steps:
                    row |= self._validate()
                self.seconds = time.perf_counter() - began
                speed = (self.tokens - began_tokens) / max(self.seconds - first_second, 1e-9)
                row |= {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 3)}
                if log:
                    log.write(row)
                if "validation_loss" in row:
                    self._keep_if_best(row, speed)
                if self.step % config.checkpoint_every == 0 or self.step == config.n_steps:
                    self._save_checkpoint()
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed:,.0f} tokens/s", refresh=False)
                bar.update()
        finally:
            bar.close()
            if log:
                log.close()
        if is_first:
            self._save_network(FINAL)
            logger.info("best network, validation loss %.4f: %s", self.best, self.folder / BEST)
        self.fabric.barrier()

    def _stream(self) -> Iterator[dict[str, Tensor]]:
        """Batches from the present step on."""
        config = self.config
        numbers = range(self.step * config.accumulate, config.n_steps * config.accumulate)
        loader = DataLoader(
            self.batches,
            sampler=numbers,  # a range has a length and gives the numbers in order: all that is asked of a sampler
            batch_size=None,
            num_workers=config.n_workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        return iter(loader)

    def _step(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, float]:
        """One update of the weights; what is worth logging of it."""
        config = self.config
        lr = config.optimizer.lr * warmup_cosine(self.step, config.optimizer.n_warmup_steps, config.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.plan.train()
        total: dict[str, Tensor] = {}
        for part in range(config.accumulate):
            batch = self.fabric.to_device(next(batches))
            self._seed_dropout(self.step * config.accumulate + part)
            is_last = part == config.accumulate - 1
            with self.fabric.no_backward_sync(self.plan, enabled=not is_last):
                loss, parts = self._losses(batch)
                self.fabric.backward(loss / config.accumulate)
            for name, value in {"loss": loss.detach(), **parts}.items():
                total[name] = total.get(name, 0.0) + value / config.accumulate
            self.tokens += batch["counts"].numel() * self.fabric.world_size
        norm = self.fabric.clip_gradients(
            self.plan, self.optimizer, max_norm=config.optimizer.clip, error_if_nonfinite=False
        )
        row = self._mean_over_processes(total)
        if not np.isfinite([row["loss"], float(norm)]).all():
            msg = (
                f"Step {self.step + 1}: the loss is {row['loss']}, the norm of its gradient {float(norm)}. "
                "Lower optimizer.lr, or go on from an earlier copy of the checkpoint."
            )
            raise FloatingPointError(msg)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return row | {"lr": lr, "gradient_norm": float(norm)}

    def _losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        # Fabric's own mixed precision would round the input too, totals and coordinates of regions among it.
        with torch.autocast(self.fabric.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.plan(batch)

    def _seed_dropout(self, number: int) -> None:
        seed = np.random.SeedSequence([self.config.seed, number, self.fabric.global_rank, 2])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean losses over the same held-out batches with the same masks every time."""
        self.plan.eval()
        n_batches = self.config.n_validation_batches
        total: dict[str, Tensor] = {}
        for number in range(n_batches):
            loss, parts = self._losses(self.fabric.to_device(self.validation[number]))
            for name, value in {"loss": loss, **parts}.items():
                total[name] = total.get(name, 0.0) + value / n_batches
        return {f"validation_{name}": value for name, value in self._mean_over_processes(total).items()}

    def _mean_over_processes(self, values: dict[str, Tensor]) -> dict[str, float]:
        mean = self.fabric.all_reduce(torch.stack([value.float() for value in values.values()]), reduce_op="mean")
        return dict(zip(values, mean.tolist(), strict=True))

    def _keep_if_best(self, row: dict[str, float], speed: float) -> None:
        loss = row["validation_loss"]
        is_best, is_first = loss < self.best, self.fabric.is_global_zero
        self.best = min(loss, self.best)
        if is_first:
            told = (self.step, self.config.n_steps, row["loss"], loss, speed)
            logger.info("step %d of %d: loss %.4f, validation %.4f, %.0f tokens/s", *told)
        if is_first and is_best:
            self._save_network(BEST, validation_loss=loss)

    def _save_network(self, name: str, **facts: float) -> None:
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
            self.folder / name,
            preparation=self.start.preparation,
            training=training,
            regions=self.start.regions,
            overwrite=True,
        )

    def _save_checkpoint(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {
            "config": self.config.to_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "best": self.best,
            "parameters": self.parameters(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.folder / CHECKPOINT, state)

    def _restore(self, state: dict[str, Any], plan: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        before, now = state["config"], self.config.to_dict()
        if changed := [key for key in now if key not in _MAY_CHANGE and before.get(key) != now[key]]:
            told = "; ".join(f"{key} was {before.get(key)}, is {now[key]}" for key in changed)
            msg = (
                f"{self.folder} holds a run with another configuration ({told}). "
                "Take another output, or start over with resume=False (--no-resume)."
            )
            raise ValueError(msg)
        plan.load_state_dict(state["parameters"])
        optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens, self.seconds, self.best = (
            state[name] for name in ("step", "tokens", "seconds", "best")
        )
        if self.fabric.is_global_zero:
            logger.info("going on from step %d of %d", self.step, self.config.n_steps)


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
            msg = f"{type(start.net).__name__} does not checkpoint activations; leave checkpoint_activations out."
            raise ValueError(msg)
        start.net.checkpoint_activations = True
    return start


def _progress_bar(initial: int, total: int, *, shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(initial=initial, total=total, unit="step", disable=not shown)
