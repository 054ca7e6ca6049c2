"""Batches of cells with accessibility and expression; each batch only depends on the seed and its number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .set_batches import pad
from .vocabularies import CLS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse
    from torch import Tensor

    from .vocabularies import Vocabularies

_VALIDATION = 1  # seed of a separate stream of random numbers
# Number of batches among whose cells those of similar length are put together. With all cells, every epoch would have the same batches.
_POOL = 32


@dataclass(frozen=True)
class PairedCells:
    """Cells for training.

    Attributes
    ----------
    tokens
        Ids of the open peaks of each cell, without [CLS].
    levels
        Levels of expression of `genes`, shape (n_cells, n_genes), uint8, without stored zeros.
    genes, gene_chromosomes
        Ids of the genes and of their chromosomes, shape (n_genes,).
    batch
        Ids of the experimental batches of the cells, shape (n_cells,), for a network that reads them.
    """

    tokens: list[NDArray[np.int32]]
    levels: sparse.csr_matrix
    genes: NDArray[np.int64]
    gene_chromosomes: NDArray[np.int64]
    batch: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: NDArray[np.integer]) -> PairedCells:
        batch = None if self.batch is None else self.batch[rows]
        return PairedCells(
            [self.tokens[row] for row in rows], self.levels[rows], self.genes, self.gene_chromosomes, batch
        )

    def checksum(self) -> str:
        """SHA-256 of all arrays, as 64 hex digits."""
        arrays = [np.array([len(tokens) for tokens in self.tokens]), *self.tokens, self.levels.indptr]
        arrays += [self.levels.indices, self.levels.data, self.genes, self.gene_chromosomes]
        digest = hashlib.sha256()
        for array in arrays if self.batch is None else [*arrays, self.batch]:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class PairedBatches(Dataset):
    """Batch `i` of an endless sequence, as a map-style data set.

    An epoch contains every cell, in a random order; its batches hold cells of similar length, so that there is little padding. Some cells
    occur twice, to fill the last batch.

    Parameters
    ----------
    cells
        The cells, at least `world_size`.
    vocabularies
        Vocabularies of the network.
    n_cells
        Number of cells per batch over all processes; at most the number of cells.
    max_tokens
        Maximum number of peaks of a cell; cells with more are subsampled anew each time.
    max_genes
        Maximum number of genes per cell, half of them expressed and half not.
    seed
        Random seed of all draws.
    validation
        Every cell once, always in the same batches and with the same draws, which do not depend on `seed`. Cells that fill the last batch
        have weight 0.
    rank, world_size
        Number of this process, and of all processes; each gets an equal part of every batch.

    Attributes
    ----------
    n_batches
        Number of batches in an epoch.

    Raises
    ------
    ValueError
        If the cells of a batch cannot be divided evenly.
    """

    def __init__(
        self,
        cells: PairedCells,
        vocabularies: Vocabularies,
        *,
        n_cells: int,
        max_tokens: int,
        max_genes: int,
        seed: int = 0,
        validation: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if n_cells % world_size:
            msg = f"batch_size ({n_cells}) must be a multiple of the number of processes ({world_size})."
            raise ValueError(msg)
        if len(cells) < world_size:
            msg = f"There are {len(cells)} cells for {world_size} processes: use fewer devices, or more cells."
            raise ValueError(msg)
        self.cells, self.validation = cells, validation
        self.n_cells = min(n_cells, len(cells) // world_size * world_size)
        self.n_batches = -(-len(cells) // self.n_cells)
        self.max_tokens, self.max_genes = max_tokens, max_genes
        self.rank, self.world_size = rank, world_size
        self._stream = [0, _VALIDATION] if validation else [seed]
        self._lengths = np.array([min(len(tokens), max_tokens) for tokens in cells.tokens])
        self._cls, self._peak_chromosomes = vocabularies.peaks[CLS], vocabularies.peak_chromosomes
        self._last: tuple[int, NDArray[np.int64]] = (-1, np.empty((0, 0), dtype=np.int64))

    def rows(self, i: int) -> NDArray[np.int64]:
        """Row numbers of the cells of batch `i` over all processes."""
        epoch, number = divmod(i, self.n_batches)
        epoch = 0 if self.validation else epoch
        if self._last[0] != epoch:
            self._last = epoch, self._epoch(epoch)
        return self._last[1][number]

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """Row numbers of the cells in each batch of an epoch, (n_batches, n_cells)."""
        shape = (self.n_batches, self.n_cells)
        if self.validation:
            return np.resize(np.argsort(self._lengths, kind="stable"), shape)
        rng = np.random.default_rng([*self._stream, epoch])
        order = np.resize(rng.permutation(len(self.cells)), shape[0] * shape[1])
        pools = [order[i : i + _POOL * self.n_cells] for i in range(0, len(order), _POOL * self.n_cells)]
        by_length = [pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools]
        return rng.permutation(np.concatenate(by_length).reshape(shape))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The part of batch `i` for this process.

        ``peaks`` and ``peak_chromosomes`` (B, L), [CLS] first, and ``is_peak`` if there is padding; ``genes``, ``gene_chromosomes``,
        ``is_gene`` and their ``level`` (B, G); ``weight`` (B,); ``batch`` (B,) for a network that reads it; ``n_tokens``, the number
        of peaks of the batch over all processes.
        """
        rows, number = self.rows(i), i % self.n_batches
        part = slice(
            self.rank, None, self.world_size
        )  # as the batch is sorted by length, every process gets cells of all lengths
        # One seed per cell, so that its draws do not depend on the process that has it.
        seeds = np.random.SeedSequence([*self._stream, number if self.validation else i, 1])
        drawn = [
            self._draw(row, np.random.default_rng(seed))
            for row, seed in zip(rows[part], seeds.generate_state(len(rows), np.uint64)[part], strict=True)
        ]
        peaks, is_peak = pad([tokens for tokens, _, _ in drawn], self._cls)
        columns, is_gene = pad([columns for _, columns, _ in drawn], 0)
        level, _ = pad([level for _, _, level in drawn], 0)
        weight = np.ones(len(rows), dtype=np.float32)
        if self.validation:  # the mean over all batches must be the mean over the cells
            is_first = np.arange(len(rows)) + number * self.n_cells < len(self.cells)
            weight = (is_first * (self.n_batches * self.n_cells / len(self.cells))).astype(np.float32)
        batch: dict[str, Tensor] = {
            "peaks": torch.from_numpy(peaks),
            "peak_chromosomes": torch.from_numpy(self._peak_chromosomes[peaks]),
            "genes": torch.from_numpy(self.cells.genes[columns]),
            "gene_chromosomes": torch.from_numpy(self.cells.gene_chromosomes[columns]),
            "is_gene": torch.from_numpy(is_gene),
            "level": torch.from_numpy(level),
            "weight": torch.from_numpy(weight[part]),
        }
        if not is_peak.all():
            batch["is_peak"] = torch.from_numpy(is_peak)
        if self.cells.batch is not None:
            batch["batch"] = torch.from_numpy(self.cells.batch[rows[part]])
        return batch | {"n_tokens": int(self._lengths[rows].sum())}

    def _draw(
        self, row: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """For one cell: [CLS] and its peaks; column numbers of genes, expressed and not; and their levels."""
        tokens, cells = self.cells.tokens[row], self.cells.levels
        if len(tokens) > self.max_tokens:
            tokens = tokens[rng.choice(len(tokens), self.max_tokens, replace=False)]
        stored = slice(cells.indptr[row], cells.indptr[row + 1])
        expressed, level = cells.indices[stored], cells.data[stored]
        silent = np.ones(cells.shape[1], dtype=bool)
        silent[expressed] = False
        n = min(max(1, self.max_genes // 2), len(expressed), cells.shape[1] - len(expressed))
        some = rng.choice(len(expressed), n, replace=False)
        others = rng.choice(np.flatnonzero(silent), n, replace=False)
        return (
            np.append(self._cls, tokens),
            np.concatenate([expressed[some], others]).astype(np.int64),
            np.append(level[some], np.zeros(n)).astype(np.int64),
        )
