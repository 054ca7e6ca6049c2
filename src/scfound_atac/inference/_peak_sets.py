"""Cells as sets of peaks through a network, in batches of cells with about as many peaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm.auto import tqdm

from .._logging import logger
from ..data import iter_rows
from ..data._set_batches import buckets, pad
from ..data._vocabularies import CLS
from ._runner import check_options, resolve_device

if TYPE_CHECKING:
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from ..data import Coverage, Tokenizer
    from ..hub import Checkpoint
    from ._runner import Precision

# Tokens of a batch, padding included; more bring no speed, only memory.
_CPU_TOKENS = 8_192
_GPU_TOKENS = 262_144
# Activations alive at once, in bytes per token and unit of model width (fp32, rounded up).
_GPU_BYTES_PER_WIDTH = 96
_MAX_BATCH = 1_024
# Below this share of a data set's open OCRs in its vocabulary, a model has next to nothing to read.
LEAST_COVERAGE = 0.05


def check_coverage(coverage: Coverage, name: str, n_ocrs: int) -> None:
    """Refuse data of `n_ocrs` OCRs that the vocabulary of model `name` hardly knows, and tell of cells left without a token.

    Raises
    ------
    ValueError
        If fewer than 5 % of the open OCRs have a peak in the vocabulary.
    """
    if coverage.share_open < LEAST_COVERAGE:  # not if no OCR is open at all
        msg = (
            f"Only {coverage.share_open:.1%} of the open OCRs ({coverage.share_ocrs:.1%} of the {n_ocrs} OCRs) overlap a peak of the "
            f"vocabulary of model {name!r}, which reads nothing else; at least {LEAST_COVERAGE:.0%} are needed. Check that coordinates "
            "are GRCh38 (hg19: sfa.pp.liftover_ocrs), or use a model without a vocabulary: sfa.tl.embed(adata, model='region-set')."
        )
        raise ValueError(msg)
    if n_empty := int((coverage.n_tokens == 0).sum()):
        logger.warning(
            "%d of %d cells have no open OCR in the vocabulary of model %r and all get the vector of the empty cell",
            n_empty,
            len(coverage.n_tokens),
            name,
        )


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

        peaks, is_token = pad([np.append(self._cls, tokens) for tokens in cells], self._cls)  # (B, L)
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
