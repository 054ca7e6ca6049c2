"""The training loop, for one process or many, which can be resumed exactly.

`lightning.fabric.Fabric` provides devices, precision and DistributedDataParallel. Batches are numbered: step `s` reads the batches from
``s * accumulate`` on. The state of a run is therefore only weights, optimizer and step, whereas a loop over epochs would also have to
store its position in the epoch.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from .._logging import logger
from .._settings import settings
from .freezing import training_mode
from .loggers import Loggers
from .run_folder import CHECKPOINT, RunLog, load_checkpoint, save_checkpoint
from .schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor, nn

BEST, FINAL = "best", "final"


class NumberedBatches(Protocol):
    """An endless sequence of batches. Batch `i` is the part of it for this process, and only depends on `i`."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The `i`-th batch."""


@dataclass(frozen=True)
class LoopOptions:
    """Options of a run.

    Attributes
    ----------
    folder
        Folder for ``log.csv``, ``last.ckpt``, ``best``, ``final``, and ``tensorboard`` if that is installed.
    n_steps
        Number of updates of the weights.
    lr, n_warmup_steps
        Maximum learning rate, and number of steps of linear warm-up; the rate then falls to zero along a cosine.
    clip
        Maximum norm of the gradient.
    seed
        Random seed of dropout.
    n_validation_batches
        Number of validation batches; with 0 there is no validation, and the best network is the last one.
    validate_every
        Number of steps between two validations.
    checkpoint_every
        Number of steps between two checkpoints.
    accumulate
        Number of batches per update.
    patience
        Number of validations without a lower value of `monitor` after which the run stops; None for all steps.
    monitor, min_delta
        The value of a validation that `patience` is about, and by how much it must fall.
    n_workers
        Number of processes that read batches in advance.
    precision
        ``"32"``, ``"bf16-mixed"``, or ``"auto"``: bf16 on a GPU that supports it.
    """

    folder: Path
    n_steps: int
    lr: float
    n_warmup_steps: int
    clip: float
    seed: int
    n_validation_batches: int
    validate_every: int
    checkpoint_every: int
    accumulate: int = 1
    n_workers: int = 0
    precision: Literal["auto", "32", "bf16-mixed"] = "auto"
    patience: int | None = None
    monitor: str = "validation_loss"
    min_delta: float = 0.0


def make_fabric(accelerator: str, devices: int | list[int] | str, num_nodes: int = 1, strategy: str = "auto") -> Fabric:
    """Fabric for a run, not yet launched. On a CPU, `devices` "auto" is one process, in which torch uses all cores."""
    if devices == "auto" and not (accelerator != "cpu" and torch.cuda.is_available()):
        devices = 1
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)


def own_randomness(fabric: Fabric) -> AbstractContextManager[None]:
    """A context that restores the state of the global random generators at its end."""
    return torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else [])


class TrainingLoop(ABC):
    """One run on one process. Derived classes define the network and the batches.

    Parameters
    ----------
    fabric
        A launched `lightning.fabric.Fabric`.
    plan
        Module that returns the loss of a batch and its parts by name; ``plan.weights`` lists the names.
    optimizer
        Optimizer of the parameters of the plan.
    batches, validation
        Batches to train on, and batches whose mean loss decides which network is the best.
    options
        Options of the run.
    config
        Plain values that identify the run; they are stored in the checkpoint.
    may_change
        Keys of `config` that may differ when a run is resumed.
    resume
        Continue from ``last.ckpt`` if there is one.
    loggers
        Loggers of Lightning that get what ``log.csv`` gets.

    Attributes
    ----------
    is_continued
        Whether the run goes on from a checkpoint.

    Raises
    ------
    ValueError
        If the folder holds a run with another configuration, or a validation has no value that is called as `LoopOptions.monitor` says.
    """

    start_over = "resume=False"

    def __init__(
        self,
        fabric: Fabric,
        plan: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: NumberedBatches,
        validation: NumberedBatches,
        options: LoopOptions,
        *,
        config: Mapping[str, Any],
        may_change: tuple[str, ...],
        resume: bool,
        loggers: Loggers | None = None,
    ) -> None:
        self.fabric, self.options = fabric, options
        self.loggers, self.is_continued = loggers or Loggers(), False
        self.batches, self.validation = batches, validation
        self.state_config, self.may_change = dict(config), may_change
        self.step, self.tokens, self.seconds, self.best = 0, 0, 0.0, float("inf")
        self.watched, self.n_since_best = float("inf"), 0  # the best value of the monitor, and validations since then
        self.parameters = plan.state_dict  # before setup, which adds a prefix to the names
        names: tuple[str, ...] = tuple(plan.weights)  # type: ignore[arg-type]
        self.plan, self.optimizer = fabric.setup(plan, optimizer)
        path = options.folder / CHECKPOINT
        if resume and path.is_file():
            self._restore(
                load_checkpoint(path), plan
            )  # after setup, so that the state of the optimizer goes to the device of the parameters
        fabric.barrier()  # no process writes before all have read
        self.bf16 = options.precision == "bf16-mixed"
        if options.precision == "auto":
            self.bf16 = fabric.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.columns = (
            "step",
            "loss",
            *names,
            "lr",
            "gradient_norm",
            "tokens",
            "seconds",
            "validation_loss",
            *(f"validation_{name}" for name in names),
        )
        known = [name for name in self.columns if name.startswith("validation_")]
        if options.monitor not in known:
            msg = (
                f"early_stopping_monitor={options.monitor!r} is no value of a validation; there are {', '.join(known)}."
            )
            raise ValueError(msg)

    @abstractmethod
    def save_network(self, name: str, **facts: float) -> None:
        """Write the network into the folder `name` of the run; only called in the first process."""

    @abstractmethod
    def count_tokens(self, batch: dict[str, Any]) -> int:
        """Number of tokens of a batch over all processes, given the part of one process."""

    @property
    def _is_stopped(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.n_since_best >= patience

    def train(self) -> None:
        """Train to the last step, or until the loss of the validation has not fallen for a while."""
        options, is_first = self.options, self.fabric.is_global_zero
        log = None
        if is_first:
            options.folder.mkdir(parents=True, exist_ok=True)
            log = RunLog(options.folder, self.columns, self.step)
        with self.loggers if is_first else nullcontext():
            self._take_steps(log)
        if is_first:
            self.save_network(FINAL)
            if options.n_validation_batches:
                logger.info("best network, validation loss %.4f: %s", self.best, options.folder / BEST)
            else:
                self.save_network(BEST)
        self.fabric.barrier()

    def _take_steps(self, log: RunLog | None) -> None:
        options, is_first = self.options, self.fabric.is_global_zero
        batches = self._stream()
        bar = _progress_bar(self.step, options.n_steps, shown=is_first and settings.progress_bar)
        began, began_tokens = time.perf_counter() - self.seconds, self.tokens
        first_second = self.seconds
        try:
            while self.step < options.n_steps and not self._is_stopped:
                row = self._step(batches)
                self.step += 1
                is_last = self.step == options.n_steps
                if options.n_validation_batches and (self.step % options.validate_every == 0 or is_last):
                    row |= self._validate()
                self.seconds = time.perf_counter() - began
                speed = (self.tokens - began_tokens) / max(self.seconds - first_second, 1e-9)
                row |= {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 3)}
                if log:
                    log.write(row)
                    self.loggers.log({name: value for name, value in row.items() if name != "step"}, self.step)
                if "validation_loss" in row:
                    self._keep_if_best(row, speed)
                if self.step % options.checkpoint_every == 0 or is_last or self._is_stopped:
                    self._save_checkpoint()
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed:,.0f} tokens/s", refresh=False)
                bar.update()
        finally:
            bar.close()
            if log:
                log.close()

    def _stream(self) -> Iterator[dict[str, Any]]:
        """Batches from the current step on."""
        options = self.options
        numbers = range(self.step * options.accumulate, options.n_steps * options.accumulate)
        loader: DataLoader = DataLoader(
            self.batches,  # type: ignore[arg-type]
            sampler=numbers,  # a range has a length and yields numbers in order, which is all that a sampler needs
            batch_size=None,
            num_workers=options.n_workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        return iter(loader)

    def _step(self, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
        """Update the weights once, and return the values to log."""
        options = self.options
        lr = options.lr * warmup_cosine(self.step, options.n_warmup_steps, options.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        training_mode(self.plan)
        total: dict[str, Tensor] = {}
        for part in range(options.accumulate):
            batch = self.fabric.to_device(next(batches))
            self._seed_dropout(self.step * options.accumulate + part)
            is_last = part == options.accumulate - 1
            with self.fabric.no_backward_sync(self.plan, enabled=not is_last):
                loss, parts = self._losses(batch)
                self.fabric.backward(loss / options.accumulate)
            for name, value in {"loss": loss.detach(), **parts}.items():
                total[name] = total.get(name, 0.0) + value / options.accumulate
            self.tokens += self.count_tokens(batch)
        norm = self.fabric.clip_gradients(self.plan, self.optimizer, max_norm=options.clip, error_if_nonfinite=False)
        row = self._mean_over_processes(total)
        if not np.isfinite([row["loss"], float(norm)]).all():
            msg = (
                f"Step {self.step + 1}: the loss is {row['loss']}, the norm of its gradient {float(norm)}. "
                "Lower the learning rate, or continue from an earlier copy of the checkpoint."
            )
            raise FloatingPointError(msg)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return row | {"lr": lr, "gradient_norm": float(norm)}

    def _losses(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        # The mixed precision of Fabric would also round the input, including totals and coordinates of regions.
        with torch.autocast(self.fabric.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.plan(batch)

    def _seed_dropout(self, number: int) -> None:
        seed = np.random.SeedSequence([self.options.seed, number, self.fabric.global_rank, 2])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean losses over held-out batches, which are the same with the same masks in each validation."""
        self.plan.eval()
        n_batches = self.options.n_validation_batches
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
        watched = row[self.options.monitor]
        is_better = watched < self.watched - self.options.min_delta
        self.watched = watched if is_better else self.watched
        self.n_since_best = 0 if is_better else self.n_since_best + 1
        if is_first:
            values = (self.step, self.options.n_steps, row["loss"], loss, speed)
            logger.info("step %d of %d: loss %.4f, validation %.4f, %.0f tokens/s", *values)
        if is_first and is_best:
            self.save_network(BEST, validation_loss=loss)

    def _save_checkpoint(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {
            "config": self.state_config,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "best": self.best,
            "watched": self.watched,
            "n_since_best": self.n_since_best,
            "parameters": self.parameters(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.options.folder / CHECKPOINT, state)

    def _restore(self, state: dict[str, Any], plan: nn.Module) -> None:
        before, now = state["config"], self.state_config
        keys = [key for key in dict.fromkeys((*now, *before)) if key not in self.may_change]
        if changed := [key for key in keys if before.get(key) != now.get(key)]:
            differences = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
            msg = (
                f"{self.options.folder} holds a run with another configuration ({differences}). "
                f"Take another output, or start over with {self.start_over}."
            )
            raise ValueError(msg)
        plan.load_state_dict(state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens, self.seconds, self.best = (
            state[name] for name in ("step", "tokens", "seconds", "best")
        )
        # not in checkpoints of version 0.1
        self.watched, self.n_since_best = state.get("watched", self.best), state.get("n_since_best", 0)
        self.is_continued = True
        if self.fabric.is_global_zero:
            logger.info("Continuing from step %d of %d", self.step, self.options.n_steps)


def _progress_bar(initial: int, total: int, *, shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(initial=initial, total=total, unit="step", disable=not shown)
