"""Training on one AnnData with Lightning: objectives as a module, cells and crops of the genome as a data module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from ..nn.masking import mask_values
from ..nn.objectives import Objectives
from .schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from torch import Tensor
    from torch.optim.lr_scheduler import LambdaLR

    from .scvi_module import ChromFoundModule

_VALIDATION_SEED = 20_240_607


class MaskedTrainingPlan(pl.LightningModule):
    """Masked reconstruction (arXiv 2505.12638, section 3.3): mean squared error at the replaced positions, averaged over cells.

    Parameters
    ----------
    module
        Network with the OCR embedding of the training set.
    lr
        Largest learning rate of AdamW.
    weight_decay
        Of AdamW.
    mask_ratio
        Share of zeros and of non-zeros replaced.
    n_warmup_steps
        Steps of linear warm-up; a cosine to zero follows.
    loss_on
        Positions the loss counts: ``"replaced"`` (the paper's) or ``"all"``.
    seed
        Seed of the masks. Validation always sees the same masks.
    """

    def __init__(
        self,
        module: ChromFoundModule,
        *,
        lr: float = 5e-5,
        weight_decay: float = 0.01,
        mask_ratio: float = 0.15,
        n_warmup_steps: int = 100,
        loss_on: Literal["replaced", "all"] = "replaced",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.module = module
        self.lr, self.weight_decay, self.mask_ratio = lr, weight_decay, mask_ratio
        self.n_warmup_steps = n_warmup_steps
        self.loss_on = loss_on
        self.seed = seed

    def _loss(self, batch: dict[str, Any], seed: int) -> Tensor:
        value: Tensor = batch["value"]
        generator = torch.Generator(value.device).manual_seed(seed)
        corrupted, mask = mask_values(value, mask_ratio=self.mask_ratio, generator=generator)
        if self.loss_on == "all":
            mask = torch.ones_like(mask)
        tensors = {"value": value, "corrupted": corrupted, "mask": mask, "first": batch["first"]}
        return self.module(tensors)[2].loss

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch; masks depend on the seed and the step."""
        loss = self._loss(batch, seed=self.seed * 1_000_003 + self.global_step)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["value"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Loss of one held-out batch under fixed masks."""
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


class ObjectivesTrainingPlan(MaskedTrainingPlan):
    """A weighted sum of the objectives of `scfound_atac.nn.objectives`, which see raw counts.

    Parameters
    ----------
    module
        Network with the OCRs of the training set.
    objectives
        Weight of each objective by name; `identity` needs simulated cells and is refused.
    fraction_open
        Share of the cells in which each OCR is open, shape (L,).
    preparation
        How counts become what the network sees: ``target_sum`` and ``log1p``.
    **options
        Of `MaskedTrainingPlan`.
    """

    def __init__(
        self,
        module: ChromFoundModule,
        objectives: Mapping[str, float],
        fraction_open: NDArray[np.float32],
        preparation: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(module, **options)
        self.objectives = Objectives(module.net, objectives, **preparation)
        self.register_buffer("fraction_open", torch.from_numpy(fraction_open), persistent=False)

    def _loss(self, batch: dict[str, Any], seed: int) -> Tensor:
        counts: Tensor = batch["value"]
        crop = slice(batch["first"], batch["first"] + counts.shape[1])
        known = {"chromosome": self.module.chromosome, "start": self.module.start, "end": self.module.end}
        known |= {"factors": self.module.factors, "fraction_open": self.fraction_open}
        cells = {
            "counts": counts,
            "total": batch["total"],
            "label": torch.full((len(counts),), -1, device=counts.device),
            "seed": seed * 10_007 + torch.arange(len(counts)),
        }
        return self.objectives({name: x[crop] for name, x in known.items() if x is not None} | cells)[0]


class CellCrops(Dataset):
    """Batches of cells over a stretch of neighbouring OCRs.

    Parameters
    ----------
    values
        Prepared accessibility, columns in genome order, shape (cells, OCRs).
    crop_size
        Neighbouring OCRs per batch; the whole genome if None or larger. Where a crop lies depends on the cells of the batch and
        the seed alone, so that a run can be repeated.
    seed
        Seed of the crops.
    """

    def __init__(self, values: csr_matrix, crop_size: int | None = None, seed: int = 0) -> None:
        self.values = values
        self.crop_size = min(crop_size or values.shape[1], values.shape[1])
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.values.shape[0]

    def __getitem__(self, rows: list[int]) -> dict[str, Any]:
        """Values (B, crop_size) of cells `rows`, their sums over all OCRs (B,), and the number of the crop's first OCR."""
        rng = np.random.default_rng([self.seed, self.epoch, *rows])
        first = int(rng.integers(self.values.shape[1] - self.crop_size + 1))
        cells = self.values[rows]
        total = torch.from_numpy(np.asarray(cells.sum(axis=1), dtype=np.float32).ravel())
        block = cells[:, first : first + self.crop_size]
        return {"value": torch.from_numpy(block.toarray()), "total": total, "first": first}


class CellDataModule(pl.LightningDataModule):
    """Splits cells into training and validation and serves batches of crops.

    Attributes
    ----------
    fraction_open
        Share of the training cells in which each OCR is open, shape (OCRs,), float32.
    """

    def __init__(
        self,
        values: csr_matrix,
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
        self._train = CellCrops(values[self.train_idx], crop_size, seed)
        self._validation = CellCrops(values[self.val_idx], crop_size, seed + 1)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the order of an epoch depends on the seed and the epoch's number."""
        self._train.epoch = epoch = self.trainer.current_epoch if self.trainer else 0
        generator = torch.Generator().manual_seed(self.seed + 7919 * epoch)
        return self._loader(self._train, RandomSampler(self._train, generator=generator))

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """The same batches each time; none if no cell is held out."""
        return self._loader(self._validation, SequentialSampler(self._validation)) if self.n_val else []

    def _loader(self, cells: CellCrops, sampler: Any) -> DataLoader:
        return DataLoader(cells, sampler=BatchSampler(sampler, self.batch_size, drop_last=False), batch_size=None)
