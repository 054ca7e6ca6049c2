"""Train on one AnnData with Lightning: objectives as a module, cells and crops of the genome as a data module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from ..nn.objectives import MASK_FRACTION, Objectives
from .schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from torch import Tensor
    from torch.optim.lr_scheduler import LambdaLR

    from ..nn import ChromFoundNet

_VALIDATION_SEED = 20_240_607


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
    n_warmup_steps
        Number of steps of linear warm-up, which a cosine to zero follows.
    seed
        Random seed of masks and thinning. In validation they are always the same.
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
        n_warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.module = module
        self.objectives = Objectives(module.net, objectives, mask_fraction=mask_fraction, **preparation)
        self.register_buffer("fraction_open", torch.from_numpy(fraction_open), persistent=False)
        self.lr, self.weight_decay, self.n_warmup_steps, self.seed = lr, weight_decay, n_warmup_steps, seed

    def _loss(self, batch: dict[str, Any], seed: int) -> Tensor:
        value: Tensor = batch["value"]
        crop = slice(batch["first"], batch["first"] + value.shape[1])
        cells = {
            "counts": value,
            "total": batch["total"],
            "label": torch.full((len(value),), -1, device=value.device),
            "seed": torch.tensor(seed),  # one generator for the batch, from which its cells draw in turn
        }
        return self.objectives(self.module.ocrs(crop) | {"fraction_open": self.fraction_open[crop]} | cells)[0]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch; masks and thinning depend on the seed and the step."""
        loss = self._loss(batch, seed=self.seed * 1_000_003 + self.global_step)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["value"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Loss of one held-out batch, with the same masks and thinning each time."""
        loss = self._loss(batch, seed=_VALIDATION_SEED + batch_idx)
        self.log("validation_loss", loss, on_epoch=True, prog_bar=True, batch_size=len(batch["value"]))

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with warm-up and cosine decay over the whole run."""
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=self.lr, weight_decay=self.weight_decay)
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
    """Divides cells into training and validation cells, and provides batches of crops; see `CellCrops` for the parameters.

    Attributes
    ----------
    fraction_open
        Fraction of the training cells in which each OCR is open, shape (OCRs,), float32.
    """

    def __init__(
        self,
        values: csr_matrix,
        total: NDArray[np.float32],
        *,
        batch_size: int,
        crop_size: int | None = None,
        train_size: float = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__()
        order = np.random.default_rng(seed).permutation(values.shape[0])
        n_train = max(1, round(train_size * len(order)))
        self.train_idx: NDArray[np.int64] = np.sort(order[:n_train])
        self.val_idx: NDArray[np.int64] = np.sort(order[n_train:])
        self.test_idx: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        self.batch_size = batch_size
        self.seed = seed
        self.fraction_open = (values[self.train_idx].getnnz(axis=0) / max(1, self.n_train)).astype(np.float32)
        self._train = CellCrops(values[self.train_idx], total[self.train_idx], crop_size, seed)
        self._validation = CellCrops(values[self.val_idx], total[self.val_idx], crop_size, seed + 1)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the order depends on the seed and the number of the epoch."""
        self._train.epoch = epoch = self.trainer.current_epoch if self.trainer else 0
        generator = torch.Generator().manual_seed(self.seed + 7919 * epoch)
        return self._loader(self._train, RandomSampler(self._train, generator=generator))

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """The same batches in each epoch; none if no cell is held out."""
        return self._loader(self._validation, SequentialSampler(self._validation)) if self.n_val else []

    def _loader(self, cells: CellCrops, sampler: Any) -> DataLoader:
        return DataLoader(cells, sampler=BatchSampler(sampler, self.batch_size, drop_last=False), batch_size=None)
