"""EpiFoundation: the open peaks of a cell that are in a vocabulary go through a transformer as a set.

Cells with similar numbers of peaks are put into one batch, so that there is little padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm.auto import tqdm

from ..data import Tokenizer
from ..data.set_batches import buckets, pad
from ..data.vocabularies import CLS
from .kind import Basis, Embedded, Kind, Request
from .options import check_options, resolve_device
from .pca import PCA
from .reader import CellReader

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells, Coverage
    from ..hub import Checkpoint
    from .options import BatchSize, Precision

# Number of tokens of a batch including padding; larger batches are not faster and need more memory.
_CPU_TOKENS = 8_192
_GPU_TOKENS = 262_144
# Memory of a forward pass in bytes per token and unit of model width (fp32, rounded up).
_GPU_BYTES_PER_WIDTH = 96
_MAX_BATCH = 1_024


class EpiFoundation(Kind):
    """The network of bioRxiv 2025.02.05.636688, with the weights of the authors or others."""

    poolings = ("cls",)
    n_components = None
    has_basis = has_openness = False
    runs_on_devices = is_backbone = has_paper_head = True

    def settle(self, request: Request) -> Request:
        """See `Kind.settle`."""
        request = super().settle(request)
        check_options(request.precision, request.batch_size)
        resolve_device(request.device)
        return request

    def _tokenizer(self, cells: Cells, runner: PeakSetRunner, seed: int) -> tuple[Tokenizer, Coverage]:
        tokenizer = Tokenizer(runner.vocabularies, cells.ocrs, max_tokens=runner.net.config.max_tokens, seed=seed)
        coverage = tokenizer.coverage(chunk for _, chunk in cells.iter_rows())
        coverage.check(self.name, cells.n_ocrs)
        return tokenizer, coverage

    def embed(self, cells: Cells, request: Request, basis: Basis | None = None) -> Embedded:
        """The vector of the cell token (section 3.3.2), and how much of each cell the vocabulary covers."""
        runner = PeakSetRunner(
            self.checkpoint, device=request.device, precision=request.precision, batch_size=request.batch_size
        )
        tokenizer, coverage = self._tokenizer(cells, runner, request.seed)
        max_tokens = runner.net.config.max_tokens
        vectors = embed_peak_sets(cells, tokenizer, runner, progress=request.progress)
        tables: dict[str, Any] = {"coverage": _coverage_table(coverage, len(runner.vocabularies.ocrs), max_tokens)}
        variance_ratio = None
        if request.n_components is not None:
            pca = PCA.fit(vectors[request.fit_rows(cells)], request.n_components)  # type: ignore[arg-type]
            vectors, variance_ratio = pca.project(vectors), pca.variance_ratio
            tables |= {"pcs": pca.components, "mean": pca.mean}
        return Embedded(
            vectors,
            np.flatnonzero(tokenizer.is_known),
            variance_ratio=variance_ratio,
            params={"device": str(runner.device), "precision": runner.precision},
            tables=tables,
            columns=_coverage_columns(coverage, max_tokens),
        )

    def reader(
        self, cells: Cells, *, device: str = "auto", batch_size: BatchSize = "auto", seed: int = 0, exact: bool = False
    ) -> CellReader:
        """The vector of the cell token."""
        runner = PeakSetRunner(self.checkpoint, device=device, batch_size=batch_size)
        tokenizer, _ = self._tokenizer(cells, runner, seed)
        return PeakSetReader(tokenizer, runner)

    def classifier(self, cells: Cells, n_classes: int, *, paper: bool, crop_size: int | None, seed: int) -> Any:
        """See `Kind.classifier`."""
        from .classifier import SetClassifier

        return SetClassifier(self.checkpoint, cells, n_classes, paper=paper, seed=seed)


def _coverage_table(coverage: Coverage, n_vocabulary: int, max_tokens: int) -> dict[str, Any]:
    return {
        "n_vocabulary": n_vocabulary,
        "fraction_vocabulary": coverage.fraction_vocabulary,
        "fraction_ocrs": coverage.fraction_ocrs,
        "fraction_open": coverage.fraction_open,
        "max_tokens": max_tokens,
        "n_cells_subsampled": int((coverage.n_tokens > max_tokens).sum()),
    }


def _coverage_columns(coverage: Coverage, max_tokens: int) -> dict[str, NDArray[Any]]:
    def fraction(n: NDArray[np.int64]) -> NDArray[np.float64]:
        empty = np.full(len(n), np.nan)
        return np.divide(n, coverage.n_open, out=empty, where=coverage.n_open > 0)

    return {
        "n_tokens": np.minimum(coverage.n_tokens, max_tokens),
        "open_kept": fraction(coverage.n_open - coverage.n_lost),
        "open_lost": fraction(coverage.n_lost),
        "open_ambiguous": fraction(coverage.n_ambiguous),
    }


class PeakSetRunner:
    """A peak-set network bound to a device.

    The vector of a cell does not depend on the other cells of a batch, because padding is masked.

    Parameters
    ----------
    checkpoint
        The network and its vocabularies.
    device
        ``"cpu"``, ``"cuda"``, ...; ``"auto"`` uses CUDA if there is a GPU.
    precision
        ``"fp32"`` or ``"bf16"``; ``"auto"`` is fp32.
    batch_size
        Maximum number of cells per forward pass; ``"auto"`` chooses it by the number of tokens and by free GPU memory.

    Raises
    ------
    ValueError
        If an option or device is unknown.
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
            msg = f"Model {checkpoint.name!r} has no vocabularies, so it is not a peak-set model."
            raise ValueError(msg)
        self.vocabularies = checkpoint.vocabularies
        self.device = resolve_device(device)
        self.precision: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"
        self.net = checkpoint.net.to(self.device).eval()
        self.max_cells = _MAX_BATCH if batch_size == "auto" else int(batch_size)
        self.max_tokens = self._max_tokens()
        self._cls, self._chromosomes = self.vocabularies.peaks[CLS], self.vocabularies.peak_chromosomes

    def _max_tokens(self) -> int:
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
        """Vectors of one batch, which is padded to its longest cell and masked if there is padding."""
        import torch

        peaks, is_token = pad([np.append(self._cls, tokens) for tokens in cells], self._cls)  # (B, L)
        inputs = [torch.from_numpy(x).to(self.device) for x in (peaks, self._chromosomes[peaks])]
        if not is_token.all():
            inputs.append(torch.from_numpy(is_token).to(self.device))
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.net(*inputs).float().cpu().numpy()


class PeakSetReader(CellReader):
    """Cell vectors by a `PeakSetRunner`, which only reads which OCRs are open."""

    chunk_size = 1_024

    def __init__(self, tokenizer: Tokenizer, runner: PeakSetRunner) -> None:
        self._tokenizer, self._runner = tokenizer, runner

    def prepare(self, counts: csr_matrix) -> csr_matrix:
        """See `CellReader.prepare`; the counts, as any number above 0 means open."""
        return counts.astype(np.float32)

    def vectors(self, values: csr_matrix, names: NDArray[np.object_]) -> NDArray[np.float32]:
        """See `CellReader.vectors`."""
        return self._runner(self._tokenizer(values, names))


def embed_peak_sets(
    cells: Cells, tokenizer: Tokenizer, runner: PeakSetRunner, *, progress: bool = True
) -> NDArray[np.float32]:
    """Stream cells through a peak-set network.

    Parameters
    ----------
    cells
        Cells to embed. Their names choose the peaks of cells that have more than the network reads.
    tokenizer
        Tokenizer for the OCRs of `cells`.
    runner
        The network.
    progress
        Show a progress bar.

    Returns
    -------
    Cell vectors, shape (n_cells, D).
    """
    vectors = np.empty((len(cells), runner.net.config.d_model), dtype=np.float32)
    with tqdm(total=len(cells), unit="cells", disable=not progress, desc="embedding") as bar:
        for index, chunk in cells.iter_rows():
            vectors[index] = runner(tokenizer(chunk, cells.names[index]))
            bar.update(chunk.shape[0])
    return vectors
