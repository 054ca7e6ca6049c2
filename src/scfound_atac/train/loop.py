"""The training loop: one process or many, exact resume.

Written out over `lightning.fabric.Fabric`, which brings devices, precision and DistributedDataParallel. A trainer that counts epochs would
have to be told where in an epoch it stopped; here step `s` reads batches ``s * accumulate`` onwards, and weights, optimizer and step are
all the state there is.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from .._logging import logger
from .._settings import settings
from .run_folder import CHECKPOINT, RunLog, load_checkpoint, save_checkpoint
from .schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor, nn

BEST, FINAL = "best", "final"


class NumberedBatches(Protocol):
    """Batch `i` of an endless sequence: the process's part of it, which depends on `i` alone."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The `i`-th batch."""


@dataclass(frozen=True)
class LoopOptions:
    """How a run goes.

    Attributes
    ----------
    folder
        What the run writes: ``log.csv``, ``last.ckpt``, ``best``, ``final``, and ``tensorboard`` if that is installed.
    n_steps
        Updates of the weights.
    lr, n_warmup_steps
        Largest learning rate; it warms up linearly and falls to zero along a cosine.
    clip
        Largest norm of the gradient.
    seed
        Of dropout.
    n_validation_batches
        0 for a run without validation, whose best network is the last.
    validate_every
        Steps between two validations.
    checkpoint_every
        Steps between two checkpoints.
    accumulate
        Batches per update.
    n_workers
        Processes that read batches ahead.
    precision
        ``"32"``, ``"bf16-mixed"``, or ``"auto"``: bf16 on a GPU that has it.
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


def make_fabric(accelerator: str, devices: int | list[int] | str, num_nodes: int = 1, strategy: str = "auto") -> Fabric:
    """Fabric for a run, not yet launched; `devices` "auto" is one process on a CPU, where torch uses all cores."""
    if devices == "auto" and not (accelerator != "cpu" and torch.cuda.is_available()):
        devices = 1
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)


def own_randomness(fabric: Fabric) -> AbstractContextManager[None]:
    """A context that leaves other code's random numbers as they were."""
    return torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else [])


class TrainingLoop(ABC):
    """One run on one process; what a network and a batch are is told by the class that derives from it.

    Parameters
    ----------
    fabric
        Launched.
    plan
        Gives the loss of a batch and its parts by name, of which ``plan.weights`` lists the names.
    optimizer
        Of the plan's parameters.
    batches, validation
        What is trained on, and the batches whose mean loss decides which network is the best.
    options
        How the run goes.
    config
        What tells this run from others, as plain values; kept in the checkpoint.
    may_change
        Keys of `config` that may differ when a run goes on.
    resume
        Go on from ``last.ckpt`` if there is one.

    Raises
    ------
    ValueError
        If the folder holds a run with another configuration.
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
    ) -> None:
        self.fabric, self.options = fabric, options
        self.batches, self.validation = batches, validation
        self.state_config, self.may_change = dict(config), may_change
        self.step, self.tokens, self.seconds, self.best = 0, 0, 0.0, float("inf")
        self.parameters = plan.state_dict  # names without the wrapping that follows
        names: tuple[str, ...] = tuple(plan.weights)  # type: ignore[arg-type]
        self.plan, self.optimizer = fabric.setup(plan, optimizer)
        path = options.folder / CHECKPOINT
        if resume and path.is_file():
            self._restore(load_checkpoint(path), plan)  # now, as the optimizer's state goes where the parameters lie
        fabric.barrier()  # nobody writes before everybody has read
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

    @abstractmethod
    def save_network(self, name: str, **facts: float) -> None:
        """Write the network into this folder of the run; called on the first process alone."""

    @abstractmethod
    def count_tokens(self, batch: dict[str, Any]) -> int:
        """Tokens of a batch over all processes, from one process's part of it."""

    def train(self) -> None:
        """Train to the last step."""
        options, is_first = self.options, self.fabric.is_global_zero
        log = None
        if is_first:
            options.folder.mkdir(parents=True, exist_ok=True)
            log = RunLog(options.folder, self.columns, self.step)
        batches = self._stream()
        bar = _progress_bar(self.step, options.n_steps, shown=is_first and settings.progress_bar)
        began, began_tokens = time.perf_counter() - self.seconds, self.tokens
        first_second = self.seconds
        try:
            while self.step < options.n_steps:
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
                if "validation_loss" in row:
                    self._keep_if_best(row, speed)
                if self.step % options.checkpoint_every == 0 or is_last:
                    self._save_checkpoint()
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed:,.0f} tokens/s", refresh=False)
                bar.update()
        finally:
            bar.close()
            if log:
                log.close()
        if is_first:
            self.save_network(FINAL)
            if options.n_validation_batches:
                logger.info("best network, validation loss %.4f: %s", self.best, options.folder / BEST)
            else:
                self.save_network(BEST)
        self.fabric.barrier()

    def _stream(self) -> Iterator[dict[str, Any]]:
        """Batches from the present step on."""
        options = self.options
        numbers = range(self.step * options.accumulate, options.n_steps * options.accumulate)
        loader: DataLoader = DataLoader(
            self.batches,  # type: ignore[arg-type]
            sampler=numbers,  # a range has a length and gives the numbers in order: all that is asked of a sampler
            batch_size=None,
            num_workers=options.n_workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        return iter(loader)

    def _step(self, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
        """One update of the weights; what is worth logging of it."""
        options = self.options
        lr = options.lr * warmup_cosine(self.step, options.n_warmup_steps, options.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.plan.train()
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
                "Lower the learning rate, or go on from an earlier copy of the checkpoint."
            )
            raise FloatingPointError(msg)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return row | {"lr": lr, "gradient_norm": float(norm)}

    def _losses(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        # Fabric's own mixed precision would round the input too, totals and coordinates of regions among it.
        with torch.autocast(self.fabric.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.plan(batch)

    def _seed_dropout(self, number: int) -> None:
        seed = np.random.SeedSequence([self.options.seed, number, self.fabric.global_rank, 2])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean losses over the same held-out batches with the same masks every time."""
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
        if is_first:
            row_values = (self.step, self.options.n_steps, row["loss"], loss, speed)
            logger.info("step %d of %d: loss %.4f, validation %.4f, %.0f tokens/s", *row_values)
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
            "parameters": self.parameters(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.options.folder / CHECKPOINT, state)

    def _restore(self, state: dict[str, Any], plan: nn.Module) -> None:
        before, now = state["config"], self.state_config
        if changed := [key for key in now if key not in self.may_change and before.get(key) != now[key]]:
            differences = "; ".join(f"{key} was {before.get(key)}, is {now[key]}" for key in changed)
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
        if self.fabric.is_global_zero:
            logger.info("going on from step %d of %d", self.step, self.options.n_steps)


def _progress_bar(initial: int, total: int, *, shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(initial=initial, total=total, unit="step", disable=not shown)
