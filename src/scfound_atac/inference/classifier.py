"""Networks with a new head for cell types, bound to the OCRs of some cells, for fine-tuning (`scfound_atac.train`)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..data import Tokenizer, prepare_rows
from ..data.set_batches import buckets, pad
from ..data.vocabularies import CLS
from ..nn.epifoundation import EpiFoundationHead
from ..nn.heads import ChromFoundHead, VectorHead
from .kind import known_in_genome_order, ocr_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from ..data import Cells
    from ..hub import Checkpoint

# Fraction and maximum number of OCRs that a training step of region-set reads: a regulariser, and a bound on the cost of a step.
_SHOWN, _MAX_SHOWN = 0.4, 16_384
_TOKENS = 16_384  # maximum number of tokens of a forward pass of EpiFoundation
_APPLY_TOKENS = 2**20  # maximum number of cells times OCRs of a forward pass of ChromFound without training


class CellClassifier(nn.Module):
    """A network with a head for cell types.

    It is called with row numbers of its cells, and with a random generator during training. It returns logits (B, K), and vectors of the
    cells: the input of the last layer of a paper's head (B, 128), or else the cell vectors of the network (B, d).
    """

    net: Any
    head: Any

    def batches(self, rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
        """Divide `rows` into batches."""
        return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


class _OcrClassifier(CellClassifier, ABC):
    """A network that reads the coordinates of OCRs and the values of some of them."""

    start: Tensor

    def __init__(self, checkpoint: Checkpoint, cells: Cells) -> None:
        super().__init__()
        self.net = copy.deepcopy(checkpoint.net)
        self.order = known_in_genome_order(cells.ocrs, checkpoint.chromosome_ids(cells.ocrs["chrom"].to_numpy()))
        columns = ocr_columns(checkpoint, cells.ocrs, self.order)
        for name, column in columns.items():
            self.register_buffer(name, torch.from_numpy(column), persistent=False)
        self.known = tuple(columns)
        self.values = prepare_rows(cells.to_memory(), **checkpoint.preparation)[:, self.order]
        for parameter in getattr(self.net, "decoder", nn.Identity()).parameters():
            parameter.requires_grad = False

    @abstractmethod
    def _shown(self, values: csr_matrix, rng: np.random.Generator | None) -> NDArray[np.int64] | slice:
        """Columns of `values` (B, L) that a forward pass reads; during training, with `rng`, a random subset."""

    def _read(self, rows: NDArray[np.int64], rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Values (B, l) and OCR tokens (l, D) of the OCRs that the forward pass reads."""
        values = self.values[rows]
        shown = self._shown(values, rng)
        value = torch.from_numpy(values[:, shown].toarray()).to(self.start.device)
        return value, self.net.embed_ocrs(*(self.get_buffer(name)[shown] for name in self.known))

    def forward(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `CellClassifier`."""
        vectors = self.net.cell_vector(*self._read(rows, rng))
        return self.head(vectors), vectors


class RegionSetClassifier(_OcrClassifier):
    """A region-set with a linear head."""

    def __init__(self, checkpoint: Checkpoint, cells: Cells, n_classes: int) -> None:
        super().__init__(checkpoint, cells)
        self.head = VectorHead(self.net.config.d_cell, n_classes)

    def _shown(self, values: csr_matrix, rng: np.random.Generator | None) -> NDArray[np.int64] | slice:
        is_open = np.flatnonzero(values.getnnz(axis=0))  # this network ignores closed OCRs
        if rng is None:
            return is_open
        n_shown = min(int(np.ceil(_SHOWN * len(is_open))), _MAX_SHOWN)
        return np.sort(rng.choice(is_open, n_shown, replace=False))


class ChromFoundClassifier(_OcrClassifier):
    """A ChromFound with a linear head on its cell vector, or with the head of its paper, which reads all OCRs and is tied to them."""

    def __init__(
        self, checkpoint: Checkpoint, cells: Cells, n_classes: int, *, paper: bool, crop_size: int | None
    ) -> None:
        super().__init__(checkpoint, cells)
        self.paper, self.crop_size = paper, crop_size
        d_model = self.net.config.d_model
        self.head = ChromFoundHead(d_model, len(self.order), n_classes) if paper else VectorHead(d_model, n_classes)

    def _shown(self, values: csr_matrix, rng: np.random.Generator | None) -> NDArray[np.int64] | slice:
        if rng is None or self.crop_size is None:
            return slice(None)
        size = min(self.crop_size, len(self.order))
        first = int(rng.integers(len(self.order) - size + 1))
        return slice(first, first + size)

    def forward(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `CellClassifier`."""
        if not self.paper:
            return super().forward(rows, rng)
        vectors = self.head.vectors(self.net(*self._read(rows, rng)))
        return self.head.fc(vectors), vectors

    def batches(self, rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
        """See `CellClassifier`; without training, the number of cells is limited by memory."""
        if not self.training:
            batch_size = min(batch_size, max(1, _APPLY_TOKENS // len(self.order)))
        return super().batches(rows, batch_size)


class SetClassifier(CellClassifier):
    """An EpiFoundation with a linear head, or with the head of its paper."""

    chromosomes: Tensor

    def __init__(self, checkpoint: Checkpoint, cells: Cells, n_classes: int, *, paper: bool, seed: int) -> None:
        super().__init__()
        self.net, self.paper = copy.deepcopy(checkpoint.net), paper
        vocabularies = checkpoint.vocabularies
        assert vocabularies is not None
        tokenizer = Tokenizer(vocabularies, cells.ocrs, max_tokens=self.net.config.max_tokens, seed=seed)
        tokenizer.coverage(chunk for _, chunk in cells.iter_rows()).check(checkpoint.name, cells.n_ocrs)
        self.tokens = [np.append(vocabularies.peaks[CLS], x) for x in tokenizer(cells.to_memory(), cells.names)]
        self.lengths = np.array([len(x) for x in self.tokens])
        self.register_buffer("chromosomes", torch.from_numpy(vocabularies.peak_chromosomes), persistent=False)
        make_head = EpiFoundationHead if paper else VectorHead
        self.head = make_head(self.net.config.d_model, n_classes)

    def forward(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `CellClassifier`."""
        peaks, is_token = (
            torch.from_numpy(x).to(self.chromosomes.device) for x in pad([self.tokens[i] for i in rows], 0)
        )
        vectors = self.net(peaks, self.chromosomes[peaks], None if is_token.all() else is_token)
        if self.paper:
            vectors = self.head.vectors(vectors)
            return self.head.fc(vectors), vectors
        return self.head(vectors), vectors

    def batches(self, rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
        """See `CellClassifier`; cells of similar length are put together."""
        return [rows[i] for i in buckets(self.lengths[rows], batch_size, _TOKENS)]
