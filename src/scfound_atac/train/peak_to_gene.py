"""Train EpiFoundation to predict the expression of genes from the open peaks of the same cell."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import __version__
from ..data.paired_batches import PairedBatches
from ..hub import save
from .loop import LoopOptions, TrainingLoop

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor

    from ..data.paired_batches import PairedCells
    from ..hub import Checkpoint
    from ..nn import EpiFoundationNet

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

    def __post_init__(self) -> None:
        if not 0 < self.train_size <= 1:
            msg = f"train_size must lie in (0, 1], got {self.train_size}."
            raise ValueError(msg)
        free = ("precision", "n_workers", "n_warmup_steps", "seed")
        values = {name: value for name, value in asdict(self).items() if name not in free and value is not None}
        if wrong := [f"{name} = {value}" for name, value in values.items() if value <= 0]:
            msg = f"These must be above zero: {', '.join(wrong)}."
            raise ValueError(msg)

    def split(self, n_cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sorted row numbers of the cells to train on, and of those held out."""
        order = np.random.default_rng(self.seed).permutation(n_cells)
        n_train = max(1, round(self.train_size * n_cells))
        return np.sort(order[:n_train]), np.sort(order[n_train:])

    @property
    def identity(self) -> dict[str, Any]:
        """The options that identify a run."""
        names = ("batch_size", "accumulate", "lr", "n_warmup_steps", "clip", "max_genes", "train_size", "seed")
        return {name: getattr(self, name) for name in names}


class PeakToGeneRun(TrainingLoop):
    """A training run on a copy of a network.

    Parameters
    ----------
    checkpoint
        Network and vocabularies to start from.
    cells
        Cells to train on and to hold out.
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
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        cells: PairedCells,
        options: PeakToGeneOptions,
        fabric: Fabric,
        *,
        folder: Path,
        facts: dict[str, Any],
        resume: bool,
    ) -> None:
        self.start = replace(checkpoint, net=deepcopy(checkpoint.net))
        train_rows, held_out = options.split(len(cells))
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
        trained = [parameter for parameter in plan.parameters() if parameter.requires_grad]
        super().__init__(
            fabric,
            plan,
            torch.optim.Adam(trained, lr=options.lr),
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
                validate_every=options.validate_every or epoch,
                checkpoint_every=options.checkpoint_every or epoch,
                accumulate=options.accumulate,
                n_workers=options.n_workers,
                precision=options.precision,
                patience=options.patience,
            ),
            config=self.facts | {"network": checkpoint.net.config.to_dict(), "data": cells.checksum()},
            may_change=_MAY_CHANGE,
            resume=resume,
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
