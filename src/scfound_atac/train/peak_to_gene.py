"""Train EpiFoundation to predict the expression of genes from the open peaks of the same cell."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import __version__
from ..data.paired_batches import PairedBatches
from ..hub import save
from .freezing import trained_names
from .loop import LoopOptions, TrainingLoop
from .parts import divide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lightning.fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor

    from ..data.paired_batches import PairedCells
    from ..hub import Checkpoint
    from ..nn import EpiFoundationNet
    from .loggers import Loggers

N_LEVELS = 10
"""Number of levels of expression on which a value decoder is trained (section 3.4)."""
# Keys that may differ when a run is resumed; hardware and speed are not part of the configuration.
_MAY_CHANGE = ("n_steps",)


def n_levels(n_classes: int) -> int:
    """Number of levels into which expression is binned, for a network with `n_classes` classes; two classes are expressed or not."""
    return n_classes if n_classes > 2 else N_LEVELS


class PeakToGene(nn.Module):
    """Peak-to-gene alignment (bioRxiv 2025.02.05.636688, sections 3.3.3 and 3.4).

    ``expression`` is the cross-entropy of the classes of expression, ``values`` the squared error of the levels, if the network has a
    decoder for them. Both are averaged over the genes of a cell and then over cells; the loss is their sum.

    Attributes
    ----------
    weights
        Weight of each part in the loss.
    """

    def __init__(self, net: EpiFoundationNet) -> None:
        super().__init__()
        self.net = net
        parts = {"expression": net.config.n_bins > 0, "values": net.config.value_decoder}
        self.weights = {name: 1.0 for name, there in parts.items() if there}
        if net.config.n_cell_types:  # the head is not used here, and distributed training needs to know that
            net.cell_type_head.requires_grad_(requires_grad=False)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts for a batch of `scfound_atac.data.paired_batches.PairedBatches`."""
        cell = self.net(batch["peaks"], batch["peak_chromosomes"], batch.get("is_peak"))
        genes = self.net.embed_genes(batch["genes"], batch["gene_chromosomes"], batch["is_gene"])
        level, is_gene, known_batch = batch["level"], batch["is_gene"], batch.get("batch")
        losses = {}
        if "expression" in self.weights:
            logits = self.net.predict_expression(cell, genes, known_batch).float()
            target = level if logits.shape[-1] > 2 else (level > 0).long()
            losses["expression"] = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        if "values" in self.weights:
            losses["values"] = (self.net.predict_values(cell, genes, known_batch).float() - level).square()
        parts = {
            name: (((loss * is_gene).sum(1) / is_gene.sum(1)) * batch["weight"]).mean() for name, loss in losses.items()
        }
        return sum(parts.values()), {name: part.detach() for name, part in parts.items()}


@dataclass(frozen=True)
class PeakToGeneOptions:
    """The options of `EpiFoundation.train`, which documents them."""

    max_epochs: int
    max_steps: int | None
    batch_size: int
    accumulate: int
    lr: float
    n_warmup_steps: int
    clip: float
    max_genes: int
    train_size: float
    validate_every: int | None
    checkpoint_every: int | None
    precision: Literal["auto", "32", "bf16-mixed"]
    n_workers: int
    seed: int
    patience: int | None = None
    monitor: str = "validation_loss"
    min_delta: float = 0.0
    weight_decay: float = 0.0
    eps: float = 1e-8
    validation_size: float | None = None
    shuffle_set_split: bool = True
    check_val_every_n_epoch: int = 1

    def __post_init__(self) -> None:
        names = (
            *("max_epochs", "max_steps", "batch_size", "accumulate", "lr", "eps", "clip", "max_genes", "patience"),
            *("validate_every", "checkpoint_every", "check_val_every_n_epoch"),
        )
        values = {name: getattr(self, name) for name in names}
        if wrong := [f"{name} = {value}" for name, value in values.items() if value is not None and value <= 0]:
            msg = f"These must be above zero: {', '.join(wrong)}."
            raise ValueError(msg)
        divide(1, self.train_size, self.validation_size, None)  # refuses sizes that are out of range

    def divide(
        self, rows: NDArray[np.int64], given: Sequence[NDArray[np.int64]] | None = None
    ) -> list[NDArray[np.int64]]:
        """Divide paired cells into those to train on, those held out, and the others.

        Parameters
        ----------
        rows
            Row number of each paired cell in the data.
        given
            Row numbers of the cells of each part, instead of the options of this object.

        Returns
        -------
        Sorted numbers, among the paired cells, of the cells of each part.

        Raises
        ------
        ValueError
            If none of the cells that were given for training is paired.
        """
        if given is None:
            seed = self.seed if self.shuffle_set_split else None
            return [np.sort(part) for part in divide(len(rows), self.train_size, self.validation_size, seed)]
        parts = [np.flatnonzero(np.isin(rows, part)) for part in given]
        if not len(parts[0]):
            msg = "None of the training cells of external_indexing is a paired cell that can be trained on."
            raise ValueError(msg)
        return parts

    @property
    def identity(self) -> dict[str, Any]:
        """The options that identify a run; those that version 0.1 did not have, only where they are not at their default."""
        names = ("batch_size", "accumulate", "lr", "n_warmup_steps", "clip", "max_genes", "train_size", "seed")
        later = ("weight_decay", "eps", "validation_size", "shuffle_set_split")
        changed = [name for name in later if getattr(self, name) != type(self).__dataclass_fields__[name].default]
        return {name: getattr(self, name) for name in (*names, *changed)}


class PeakToGeneRun(TrainingLoop):
    """A training run on a copy of a network.

    Parameters
    ----------
    checkpoint
        Network and vocabularies to start from.
    cells
        Cells to train on and to hold out.
    parts
        Row numbers of the cells to train on, and of those held out.
    options
        Options of training.
    fabric
        A launched `lightning.fabric.Fabric`.
    folder
        Folder of the run.
    facts
        Values that are stored with the weights; runs with different values are different runs.
    resume
        Continue from the checkpoint in the folder.
    loggers
        Loggers of Lightning.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        cells: PairedCells,
        parts: tuple[NDArray[np.int64], NDArray[np.int64]],
        options: PeakToGeneOptions,
        fabric: Fabric,
        *,
        folder: Path,
        facts: dict[str, Any],
        resume: bool,
        loggers: Loggers | None = None,
    ) -> None:
        self.start = replace(checkpoint, net=deepcopy(checkpoint.net))
        train_rows, held_out = parts
        shared: dict[str, Any] = {
            "vocabularies": checkpoint.vocabularies,
            "n_cells": options.batch_size,
            "max_tokens": checkpoint.net.config.max_tokens,
            "max_genes": options.max_genes,
            "rank": fabric.global_rank,
            "world_size": fabric.world_size,
        }
        batches = PairedBatches(cells[train_rows], seed=options.seed, **shared)
        validation = PairedBatches(cells[held_out], validation=True, **shared) if len(held_out) else batches
        epoch = -(-batches.n_batches // options.accumulate)
        n_steps = options.max_steps or -(-options.max_epochs * batches.n_batches // options.accumulate)
        counts = {"n_cells": len(train_rows), "n_validation_cells": len(held_out), "n_steps": n_steps}
        self.facts = {**counts, **options.identity, **facts}
        plan = PeakToGene(self.start.net)
        parameters = [parameter for parameter in plan.parameters() if parameter.requires_grad]
        super().__init__(
            fabric,
            plan,
            torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay, eps=options.eps),
            batches,
            validation,
            LoopOptions(
                folder=folder,
                n_steps=n_steps,
                lr=options.lr,
                n_warmup_steps=options.n_warmup_steps,
                clip=options.clip,
                seed=options.seed,
                n_validation_batches=validation.n_batches if len(held_out) else 0,
                validate_every=options.validate_every or epoch * options.check_val_every_n_epoch,
                checkpoint_every=options.checkpoint_every or epoch,
                accumulate=options.accumulate,
                n_workers=options.n_workers,
                precision=options.precision,
                patience=options.patience,
                monitor=options.monitor,
                min_delta=options.min_delta,
            ),
            config=self.facts
            | {"network": checkpoint.net.config.to_dict(), "data": cells.checksum()}
            | {"trained": trained_names(checkpoint.net)},
            may_change=_MAY_CHANGE,
            resume=resume,
            loggers=loggers,
        )

    def count_tokens(self, batch: dict[str, Any]) -> int:
        """Number of peaks of the batch over all processes, which is stored in the batch."""
        return batch["n_tokens"]

    def save_network(self, name: str, **facts: float) -> None:
        """Write the network with its vocabularies and the record of its training."""
        training = {
            "objective": "peak-to-gene alignment",
            **facts,
            **self.facts,
            "n_steps": self.step,
            "tokens": self.tokens,
            "hours": round(self.seconds / 3600, 4),
            "n_processes": self.fabric.world_size,
            "device": str(self.fabric.device),
            "version": __version__,
        }
        save(
            self.start.net,
            self.options.folder / name,
            chromosomes=self.start.chromosomes,
            preparation=self.start.preparation,
            training=training,
            vocabularies=self.start.vocabularies,
            overwrite=True,
        )
