"""Cells and genome crops for training: a Lightning data module over a sparse matrix in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


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
