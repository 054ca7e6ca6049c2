"""Train on one AnnData with Lightning: objectives as a module, cells and crops of the genome as a data module, and a run of scvi-tools.

What scvi-tools calls a value, it is called here: ``train_loss``, ``validation_loss``, and for each part of the loss ``<part>_train`` and
``<part>_validation``. The squared error of the masked objectives is also called ``reconstruction_loss``, which early stopping of scvi-tools
may monitor. There is no ``elbo``, because the networks have no likelihood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from scvi.train import SaveCheckpoint, TrainRunner
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from ..nn.objectives import MASK_FRACTION, Objectives
from .history import joined_history
from .loggers import Loggers
from .parts import divide, given_parts
from .schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from torch import Tensor
    from torch.optim.lr_scheduler import LambdaLR

    from ..nn import ChromFoundNet

_VALIDATION_SEED = 20_240_607
# Objectives whose loss is the squared error of a reconstruction.
_RECONSTRUCTIONS = ("masked", "all")


class BoundNet(nn.Module):
    """A network with the coordinates of one OCR set in genome order, and with the factors of regions if the network uses them.

    scvi-tools requires `device` of the module of a model.
    """

    def __init__(
        self, net: ChromFoundNet, chromosome: Tensor, start: Tensor, end: Tensor, factors: Tensor | None = None
    ) -> None:
        super().__init__()
        self.net = net
        for name, tensor in (("chromosome", chromosome), ("start", start), ("end", end), ("factors", factors)):
            self.register_buffer(name, tensor, persistent=False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.net.parameters()).device

    def ocrs(self, crop: slice) -> dict[str, Tensor]:
        """The columns of a stretch of OCRs that `scfound_atac.nn.objectives.Objectives` needs, by name."""
        return {name: column[crop] for name, column in self.named_buffers(recurse=False)}


class TrainingPlan(pl.LightningModule):
    """A weighted sum of the objectives of `scfound_atac.nn.objectives`, trained by AdamW with warm-up and cosine.

    Parameters
    ----------
    module
        Network with the OCRs of the training set.
    objectives
        Weight of each objective by name; `identity` needs simulated cells and is refused.
    fraction_open
        Fraction of the cells in which each OCR is open, shape (L,).
    preparation
        How counts are prepared for the network: ``target_sum`` and ``log1p``.
    mask_fraction
        Fraction of zeros and of non-zeros that the masked objectives replace.
    lr
        Maximum learning rate of AdamW.
    weight_decay
        Weight decay of AdamW.
    eps
        Number that AdamW adds to the denominator of a step.
    n_warmup_steps
        Number of steps of linear warm-up, which a cosine to zero follows.
    seed
        Random seed of masks, thinning and dropout. In validation the first two are always the same.
    """

    def __init__(
        self,
        module: BoundNet,
        objectives: Mapping[str, float],
        fraction_open: NDArray[np.float32],
        preparation: Mapping[str, Any],
        *,
        mask_fraction: float = MASK_FRACTION,
        lr: float = 5e-5,
        weight_decay: float = 0.01,
        eps: float = 1e-8,
        n_warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.module = module
        self.objectives = Objectives(module.net, objectives, mask_fraction=mask_fraction, **preparation)
        self.register_buffer("fraction_open", torch.from_numpy(fraction_open), persistent=False)
        self.lr, self.weight_decay, self.eps = lr, weight_decay, eps
        self.n_warmup_steps, self.seed = n_warmup_steps, seed

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Seed dropout by epoch and batch, so that a run that goes on from a checkpoint takes the steps it would have taken."""
        state = np.random.SeedSequence([self.seed, self.current_epoch, batch_idx]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))

    def _loss(self, batch: dict[str, Any], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        value: Tensor = batch["value"]
        crop = slice(batch["first"], batch["first"] + value.shape[1])
        cells = {
            "counts": value,
            "total": batch["total"],
            "label": torch.full((len(value),), -1, device=value.device),
            "seed": torch.tensor(seed),  # one generator for the batch, from which its cells draw in turn
        }
        return self.objectives(self.module.ocrs(crop) | {"fraction_open": self.fraction_open[crop]} | cells)

    def _log(self, batch: dict[str, Any], loss: Tensor, parts: dict[str, Tensor], mode: str) -> None:
        n_cells = len(batch["value"])
        first = "train_loss" if mode == "train" else "validation_loss"
        self.log(first, loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=n_cells)
        values = {f"{name}_{mode}": value for name, value in parts.items()}
        for name in _RECONSTRUCTIONS:
            if name in parts:
                values[f"reconstruction_loss_{mode}"] = parts[name]
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=n_cells)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch; masks and thinning depend on the seed and the step."""
        loss, parts = self._loss(batch, seed=self.seed * 1_000_003 + self.global_step)
        self._log(batch, loss, parts, "train")
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Loss of one held-out batch, with the same masks and thinning each time."""
        self._log(batch, *self._loss(batch, seed=_VALIDATION_SEED + batch_idx), "validation")

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with warm-up and cosine decay over the whole run."""
        trained = [p for p in self.module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay, eps=self.eps)
        n_steps = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            return warmup_cosine(step, self.n_warmup_steps, n_steps)

        scheduler: LambdaLR = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class CellCrops(Dataset):
    """Batches of cells over a stretch of neighbouring OCRs.

    Parameters
    ----------
    values
        Counts, or prepared accessibility, with columns in genome order, shape (n_cells, n_ocrs).
    total
        Total count of each cell, by which its crops are normalised, shape (n_cells,). It may include OCRs that are not in `values`, such as
        those on chromosomes that the network does not know.
    crop_size
        Number of neighbouring OCRs per batch; all OCRs if None or larger. The position of a crop only depends on the cells of the batch and
        the seed, so that a run can be repeated.
    seed
        Random seed of the crops.
    """

    def __init__(
        self, values: csr_matrix, total: NDArray[np.float32], crop_size: int | None = None, seed: int = 0
    ) -> None:
        self.values = values
        self.total = torch.from_numpy(total)
        self.crop_size = min(crop_size or values.shape[1], values.shape[1])
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.values.shape[0]

    def __getitem__(self, rows: list[int]) -> dict[str, Any]:
        """Values (B, crop_size) of cells `rows`, their totals (B,), and the number of the crop's first OCR."""
        rng = np.random.default_rng([self.seed, self.epoch, *rows])
        first = int(rng.integers(self.values.shape[1] - self.crop_size + 1))
        block = self.values[rows][:, first : first + self.crop_size]
        return {"value": torch.from_numpy(block.toarray()), "total": self.total[rows], "first": first}


class CellDataModule(pl.LightningDataModule):
    """Divides cells into training, validation and test cells, and provides batches of crops.

    Parameters
    ----------
    values, total, crop_size, seed
        See `CellCrops`. The seed also chooses the cells of each part, if they are shuffled.
    batch_size
        Number of cells per batch.
    train_size
        Fraction of the cells to train on.
    validation_size
        Fraction of the cells that are held out for validation; None for all that are not trained on. The others are test cells.
    shuffle_set_split
        Draw the cells of each part. Otherwise the first cells are those of the validation, the next are trained on, as in scvi-tools.
    external_indexing
        Row numbers of the training, validation and test cells, instead of the four options above; the last two may be left out.
    drop_last
        Leave out the last batch of an epoch if it is smaller than the others.
    pin_memory
        Copy batches into memory from which a GPU reads faster.
    num_workers
        Number of processes that prepare batches.

    Attributes
    ----------
    train_idx, val_idx, test_idx
        Sorted row numbers of the cells of each part.
    fraction_open
        Fraction of the training cells in which each OCR is open, shape (OCRs,), float32.

    Raises
    ------
    ValueError
        If a size is out of range, or row numbers are repeated, overlap, or lie outside the table.
    """

    def __init__(
        self,
        values: csr_matrix,
        total: NDArray[np.float32],
        *,
        batch_size: int,
        crop_size: int | None = None,
        train_size: float = 0.9,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        external_indexing: Sequence[NDArray[np.integer] | None] | None = None,
        drop_last: bool = False,
        pin_memory: bool = False,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if external_indexing is not None:
            split = given_parts(external_indexing, values.shape[0])
        else:
            split = divide(values.shape[0], train_size, validation_size, seed if shuffle_set_split else None)
        self.train_idx, self.val_idx, self.test_idx = (np.sort(part).astype(np.int64) for part in split)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        self.batch_size, self.drop_last = batch_size, drop_last
        self._loader_options: dict[str, Any] = {"pin_memory": pin_memory, "num_workers": num_workers}
        self.seed = seed
        self.fraction_open = (values[self.train_idx].getnnz(axis=0) / max(1, self.n_train)).astype(np.float32)
        self._train = CellCrops(values[self.train_idx], total[self.train_idx], crop_size, seed)
        self._validation = CellCrops(values[self.val_idx], total[self.val_idx], crop_size, seed + 1)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the order depends on the seed and the number of the epoch."""
        self._train.epoch = epoch = self.trainer.current_epoch if self.trainer else 0
        generator = torch.Generator().manual_seed(self.seed + 7919 * epoch)
        return self._loader(self._train, RandomSampler(self._train, generator=generator), drop_last=self.drop_last)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """The same batches in each epoch; none if no cell is held out."""
        return self._loader(self._validation, SequentialSampler(self._validation)) if self.n_val else []

    def _loader(self, cells: CellCrops, sampler: Any, *, drop_last: bool = False) -> DataLoader:
        batches = BatchSampler(sampler, self.batch_size, drop_last=drop_last and len(cells) >= self.batch_size)
        return DataLoader(cells, sampler=batches, batch_size=None, **self._loader_options)


def run_training(
    model: Any,
    plan: TrainingPlan,
    data: CellDataModule,
    read_weights: Callable[[str], Mapping[str, Tensor]],
    *,
    seed: int = 0,
    **trainer_kwargs: Any,
) -> int:
    """Train a model of scvi-tools, and leave its history, its split and its state as scvi-tools does, also after an error.

    Parameters
    ----------
    model
        The model, with `module`, a `BoundNet`.
    plan
        The plan of the training.
    data
        The cells.
    read_weights
        Function that returns the weights of the network from a folder that the model saved, by their names.
    seed
        Random seed of what the plan does not seed itself. The global random generator is left as it was.
    **trainer_kwargs
        Options of `scvi.train.TrainRunner` and `scvi.train.Trainer`; also ``ckpt_path``, a checkpoint of Lightning to go on from.

    Returns
    -------
    Number of steps of the whole run.

    Raises
    ------
    ValueError
        If early stopping is wanted and no cell is held out.
    """
    if trainer_kwargs.get("early_stopping") and not data.n_val:
        msg = "early_stopping needs cells to validate on, and none is held out: lower train_size, or raise validation_size."
        raise ValueError(msg)
    loggers = Loggers(trainer_kwargs.pop("logger", None)).all
    given = trainer_kwargs.pop("callbacks", None) or []
    callbacks = list(given) if isinstance(given, list | tuple) else [given]
    # scvi-tools takes a checkpoint of Lightning only together with one of its own, so those are added once the trainer is made.
    later = [x for x in callbacks if isinstance(x, ModelCheckpoint) and not isinstance(x, SaveCheckpoint)]
    savers = [x for x in callbacks if isinstance(x, SaveCheckpoint)]
    callbacks = [x for x in callbacks if all(x is not y for y in later)]
    runner = TrainRunner(model, plan, data, callbacks=callbacks, **trainer_kwargs)
    runner.trainer.callbacks.extend(later)
    runner.trainer.loggers = [*runner.trainer.loggers, *loggers]  # that of scvi-tools comes first: it holds the history

    was_trained, before = model.is_trained_, model.history_
    # TrainRunner adds to a history only what it already holds, so that of a pretrained model would stay empty.
    model.is_trained_, model.history_ = False, None
    completed = False
    try:
        with torch.random.fork_rng(), _OwnWeights(savers, model.module.net, read_weights):
            torch.manual_seed(seed)
            model.module.train()
            runner()
        completed = True
    finally:
        model.module.eval()
        model.is_trained_ = completed or was_trained
        resumed = runner.ckpt_path is not None
        model.history_ = joined_history(before, model.history_ or {}, resumed=resumed)
    return int(runner.trainer.global_step)


class _OwnWeights:
    """Callbacks of scvi-tools that read the best weights from its own files, which a model here does not write: this does it for them."""

    def __init__(
        self, savers: Sequence[Any], net: nn.Module, read_weights: Callable[[str], Mapping[str, Tensor]]
    ) -> None:
        self.savers, self.net, self.read_weights = savers, net, read_weights
        self.wanted = [(saver.load_best_on_end, saver.check_nan_gradients) for saver in savers]

    def __enter__(self) -> None:
        for saver in self.savers:
            saver.load_best_on_end = saver.check_nan_gradients = False

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for saver, (on_end, on_error) in zip(self.savers, self.wanted, strict=True):
            saver.load_best_on_end, saver.check_nan_gradients = on_end, on_error
            wanted = on_end if kind is None else on_error and issubclass(kind, Exception)
            if wanted and saver.best_model_path:
                self.net.load_state_dict(self.read_weights(saver.best_model_path))
