"""Run batches of cells through a network on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .._logging import logger
from ..data._factors import region_factors
from ..genome import genome_order

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..hub import Checkpoint

    Pooling = Literal["hidden_mean", "reconstruction", "cell_vector"]
    Precision = Literal["auto", "fp32", "bf16"]

POOLINGS = ("hidden_mean", "reconstruction", "cell_vector")
PRECISIONS = ("auto", "fp32", "bf16")

# On CPU a batch of about this many tokens keeps all cores busy; more only costs memory.
_CPU_TOKENS = 65_536
# Activations alive at once in a forward pass, in bytes per token and unit of model width (fp32; measured, rounded up).
_GPU_BYTES_PER_WIDTH = 64
_MAX_BATCH = 256
# bf16 is used if every cell's vector correlates this well with the fp32 one, after the mean over cells is taken off.
_BF16_AGREEMENT = 0.999


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is CUDA if there is one, else CPU.

    Raises
    ------
    ValueError
        If the device does not exist here.
    """
    import torch

    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        msg = f"Unknown device {device!r}; use 'auto', 'cpu' or 'cuda'."
        raise ValueError(msg) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        msg = f"device={device!r}, but torch sees no CUDA GPU. Use device='auto' or 'cpu', or install a CUDA build of torch."
        raise ValueError(msg)
    return resolved


def check_options(precision: str, batch_size: object) -> None:
    """Refuse an unknown precision or an impossible batch size.

    Raises
    ------
    ValueError
        If one of them is that.
    """
    if precision not in PRECISIONS:
        msg = f"Unknown precision {precision!r}; use one of {PRECISIONS}."
        raise ValueError(msg)
    if batch_size != "auto" and (not isinstance(batch_size, int | np.integer) or batch_size < 1):
        msg = f"batch_size must be a positive integer or 'auto', got {batch_size!r}."
        raise ValueError(msg)


class Runner:
    """A network bound to a device and an OCR set.

    Position and chromosome embeddings are computed once, here. Columns of the input are brought to genome order by scattering each
    cell's non-zero values; the input matrix itself is never reordered.

    Parameters
    ----------
    checkpoint
        The network and its chromosome vocabulary.
    ocrs
        The input's columns: ``chrom``, ``start``, ``end``, in any order.
    pooling
        What to read from the network: mean over hidden dimensions, or the reconstruction, both (cells, n_ocrs); or one vector per cell,
        (cells, d_model).
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    precision
        ``"fp32"``, ``"bf16"``, or ``"auto"``: bf16 on a GPU that has it if its result agrees with fp32 on the first batch.
    batch_size
        Cells per forward pass, or ``"auto"`` for what suits the device's memory.

    Attributes
    ----------
    order
        Columns in genome order, without those on chromosomes that the network does not know; shape (n_ocrs,).

    Raises
    ------
    ValueError
        For an unknown option or device, or if the network knows the chromosome of none of the OCRs.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ocrs: pd.DataFrame,
        *,
        pooling: Pooling = "hidden_mean",
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        batch_size: int | Literal["auto"] = "auto",
    ) -> None:
        import torch

        if pooling not in POOLINGS:
            msg = f"Unknown pooling {pooling!r}; use one of {POOLINGS}."
            raise ValueError(msg)
        check_options(precision, batch_size)
        self.device = resolve_device(device)
        self.pooling = pooling
        chromosome = checkpoint.chromosome_ids(ocrs["chrom"].to_numpy())
        self.order = known_in_genome_order(ocrs, chromosome)
        self.n_ocrs = len(self.order)
        self._rank = np.full(len(ocrs), -1, dtype=np.int64)  # column of the input -> place in genome order
        self._rank[self.order] = np.arange(self.n_ocrs)
        self.net = checkpoint.net.to(self.device).eval()
        columns = [chromosome, ocrs["start"].to_numpy(), ocrs["end"].to_numpy()]
        if n_factors := self.net.config.n_factors:
            columns.append(region_factors(ocrs, n_factors, checkpoint.region_table()))
        with torch.inference_mode():
            self._ocrs = self.net.embed_ocrs(*(torch.from_numpy(x[self.order]).to(self.device) for x in columns))
        self.bf16: bool | None = {"fp32": False, "bf16": True, "auto": None}[precision]
        if self.bf16 is None and not (self.device.type == "cuda" and torch.cuda.is_bf16_supported()):
            self.bf16 = False
        self.batch_size = self._auto_batch_size() if batch_size == "auto" else int(batch_size)

    def _auto_batch_size(self) -> int:
        import torch

        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            n = int(0.6 * free) // (self.n_ocrs * self.net.config.d_model * _GPU_BYTES_PER_WIDTH)
        else:
            n = _CPU_TOKENS // self.n_ocrs
        return min(max(n, 1), _MAX_BATCH)

    def __call__(self, rows: csr_matrix) -> NDArray[np.float32]:
        """Prepared cells (cells, n_columns), sparse -> (cells, n_ocrs) float32 in genome order, or (cells, d_model)."""
        import torch

        width = self.net.config.d_model if self.pooling == "cell_vector" else self.n_ocrs
        out = np.empty((rows.shape[0], width), dtype=np.float32)
        first = 0
        while first < len(out):
            batch = slice(first, min(first + self.batch_size, len(out)))
            values = self._scatter(rows[batch])
            try:
                out[batch] = self._forward(values)
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                logger.info("GPU memory is short: %d cells per batch from here on", self.batch_size)
                torch.cuda.empty_cache()
                continue
            first = batch.stop
        return out

    def _scatter(self, rows: csr_matrix) -> torch.Tensor:
        """Dense values of one batch in genome order: (B, n_ocrs)."""
        import torch

        values = torch.zeros(rows.shape[0], self.n_ocrs)
        cell = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        place = self._rank[rows.indices]
        kept = place >= 0
        values.numpy()[cell[kept], place[kept]] = rows.data[kept]
        return values

    def _forward(self, values: torch.Tensor) -> NDArray[np.float32]:
        values = values.to(self.device)
        if self.bf16 is None:
            self.bf16 = self._bf16_agrees(values)
        return self._run(values, bf16=self.bf16).cpu().numpy()

    def _run(self, values: torch.Tensor, *, bf16: bool) -> torch.Tensor:
        import torch

        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            if self.pooling == "cell_vector":
                return self.net.cell_vector(values, self._ocrs).float()
            hidden = self.net(values, self._ocrs)
            vectors = self.net.pool(hidden) if self.pooling == "hidden_mean" else self.net.reconstruct(hidden)
        return vectors.float()

    def _bf16_agrees(self, values: torch.Tensor) -> bool:
        import torch

        exact, rounded = self._run(values, bf16=False), self._run(values, bf16=True)
        if len(values) > 1:  # what PCA sees is the difference between cells
            exact, rounded = exact - exact.mean(0), rounded - rounded.mean(0)
        agreement = float(torch.nn.functional.cosine_similarity(exact, rounded, dim=1).min())
        logger.debug("bf16 agrees with fp32 to %.5f (needed: %.3f)", agreement, _BF16_AGREEMENT)
        return agreement >= _BF16_AGREEMENT


def known_in_genome_order(ocrs: pd.DataFrame, chromosome: NDArray[np.int64]) -> NDArray[np.int64]:
    """Columns in genome order without those on chromosomes that the model does not know (ids below 1), which are warned of.

    Raises
    ------
    ValueError
        If it knows none.
    """
    order = genome_order(ocrs)
    order = order[chromosome[order] > 0]
    n_left_out = len(ocrs) - len(order)
    if len(order) == 0:
        msg = f"None of the {len(ocrs)} OCRs lies on a chromosome the model knows (chr1..chr22, chrX, chrY)."
        raise ValueError(msg)
    if n_left_out:
        names = ", ".join(map(str, ocrs["chrom"][chromosome <= 0].unique()[:3]))
        logger.warning(
            "%d of %d OCRs are left out: the model does not know their chromosomes (%s)", n_left_out, len(ocrs), names
        )
    return order
