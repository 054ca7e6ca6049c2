"""Cells as sets of peaks through a network, in batches of cells with about as many peaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm.auto import tqdm

from ..data import iter_rows
from ..data._vocabularies import CLS
from ._runner import check_options, resolve_device

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from ..data import Tokenizer
    from ..hub import Checkpoint
    from ._runner import Precision

# A batch holds cells that are at least this long, as a share of its longest.
_LEAST_FILL = 0.9
# Tokens of a batch, padding included; more bring no speed, only memory.
_CPU_TOKENS = 8_192
_GPU_TOKENS = 262_144
# Activations alive at once, in bytes per token and unit of model width (fp32, rounded up).
_GPU_BYTES_PER_WIDTH = 96
_MAX_BATCH = 1_024


def buckets(lengths: NDArray[np.int64], max_cells: int, max_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Cells of like length, the longest first.

    Parameters
    ----------
    lengths
        Tokens of each cell, at least 1, shape (n_cells,).
    max_cells, max_tokens
        Most cells of a bucket, and most tokens, padding included; a cell that is longer by itself is a bucket of its own.

    Yields
    ------
    Row numbers. Every cell is in one bucket.
    """
    order = np.argsort(-lengths, kind="stable")
    falling = lengths[order]
    first = 0
    while first < len(order):
        longest = int(falling[first])
        like = int(np.searchsorted(-falling, -_LEAST_FILL * longest, side="right")) - first
        n = max(1, min(like, max_cells, max_tokens // longest))
        yield order[first : first + n]
        first += n


class PeakSetRunner:
    """A peak-set network bound to a device.

    A cell's vector depends on that cell alone: padding is masked, and there is nothing else that cells of a batch share.

    Parameters
    ----------
    checkpoint
        The network and its vocabularies.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    precision
        ``"fp32"`` or ``"bf16"``; ``"auto"`` is fp32.
    batch_size
        Most cells per forward pass; ``"auto"`` goes by the number of tokens, and on a GPU by the memory that is free.

    Raises
    ------
    ValueError
        For an unknown option or device.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        batch_size: int | Literal["auto"] = "auto",
    ) -> None:
        check_options(precision, batch_size)
        if checkpoint.vocabularies is None:
            msg = f"Model {checkpoint.name!r} has no vocabularies: it is no peak-set model."
            raise ValueError(msg)
        self.vocabularies = checkpoint.vocabularies
        self.device = resolve_device(device)
        self.precision: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"
        self.net = checkpoint.net.to(self.device).eval()
        self.max_cells = _MAX_BATCH if batch_size == "auto" else int(batch_size)
        self.max_tokens = self._most_tokens()
        self._cls, self._chromosomes = self.vocabularies.peaks[CLS], self.vocabularies.peak_chromosomes

    def _most_tokens(self) -> int:
        import torch

        if self.device.type != "cuda":
            return _CPU_TOKENS
        free, _ = torch.cuda.mem_get_info(self.device)
        return min(_GPU_TOKENS, int(0.6 * free) // (self.net.config.d_model * _GPU_BYTES_PER_WIDTH))

    def __call__(self, cells: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Cell vectors of sets of token ids, without [CLS]: (len(cells), D) in the order of `cells`."""
        lengths = np.array([len(tokens) for tokens in cells], dtype=np.int64)
        vectors = np.empty((len(cells), self.net.config.d_model), dtype=np.float32)
        for rows in buckets(lengths + 1, self.max_cells, self.max_tokens):
            vectors[rows] = self._forward([cells[row] for row in rows])
        return vectors

    def _forward(self, cells: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """One batch: padded to its longest, and with a mask only if there is something to mask."""
        import torch

        lengths = np.array([1 + len(tokens) for tokens in cells])
        is_token = np.arange(lengths.max()) < lengths[:, None]  # (B, L)
        peaks = np.full(is_token.shape, self._cls)
        peaks[:, 1:][is_token[:, 1:]] = np.concatenate(cells)
        inputs = [torch.from_numpy(x).to(self.device) for x in (peaks, self._chromosomes[peaks])]
        if not is_token.all():
            inputs.append(torch.from_numpy(is_token).to(self.device))
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.net(*inputs).float().cpu().numpy()


def embed_peak_sets(
    matrix: Any, tokenizer: Tokenizer, runner: PeakSetRunner, names: NDArray[np.object_], *, progress: bool = True
) -> NDArray[np.float32]:
    """Stream a matrix through a peak-set network.

    Parameters
    ----------
    matrix
        Counts, shape (n_cells, n_ocrs), in any form that `scfound_atac.data.iter_rows` reads.
    tokenizer
        Bound to the vocabularies and to the matrix's columns.
    runner
        The network.
    names
        Of the cells, shape (n_cells,); they choose the part of a cell that has more peaks than the network reads.
    progress
        Show a progress bar.

    Returns
    -------
    Cell vectors, shape (n_cells, D).
    """
    n_cells = matrix.shape[0]
    vectors = np.empty((n_cells, runner.net.config.d_model), dtype=np.float32)
    with tqdm(total=n_cells, unit="cells", disable=not progress, desc="embedding") as bar:
        for index, chunk in iter_rows(matrix):
            vectors[index] = runner(tokenizer(chunk, names[index]))
            bar.update(chunk.shape[0])
    return vectors
