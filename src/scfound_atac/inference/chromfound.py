"""ChromFound: all OCRs of a cell go through the network, which gives one number per OCR; PCA reduces them to a cell vector."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm.auto import tqdm

from .._logging import logger
from ..data import prepare_rows
from .kind import Basis, Embedded, Kind, Openness, Request, known_in_genome_order, ocr_columns
from .options import check_options, resolve_device
from .pca import PCA
from .reader import CellReader

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from ..hub import Checkpoint
    from ..nn.incremental import CellRun
    from .options import BatchSize, Precision
    from .reader import Changes

    Pooling = Literal["hidden_mean", "reconstruction", "cell_vector"]

POOLINGS = ("hidden_mean", "reconstruction", "cell_vector")
# Number of tokens of a batch that keeps all CPU cores busy; larger batches only need more memory.
_CPU_TOKENS = 65_536
# Memory of a forward pass in bytes per token and unit of model width (fp32; measured, rounded up).
_GPU_BYTES_PER_WIDTH = 64
_MAX_BATCH = 256
# Minimum cosine between the bf16 and fp32 vectors of every cell, after subtracting the mean over cells, for bf16 to be used.
_BF16_AGREEMENT = 0.999
# Changed copies of a cell that go through the network at a time; each holds some 20 windows in memory, 3 MB at the released size.
_COPIES = 64
# Vectors of the fitted cells are kept in memory up to this size, and in a temporary file beyond it.
_IN_MEMORY_BYTES = 512 * 2**20


class ChromFound(Kind):
    """The network of arXiv 2505.12638, with the weights of the authors or others."""

    poolings = ("hidden_mean", "reconstruction")
    has_recipe = runs_on_devices = is_backbone = takes_crops = True
    has_paper_head = paper_head_is_tied = True

    def settle(self, request: Request) -> Request:
        """See `Kind.settle`; the recipe becomes the arguments of `prepare_rows`, or None to use the matrix as it is."""
        request = super().settle(request)
        check_options(request.precision, request.batch_size)
        resolve_device(request.device)
        recipe = request.recipe
        if recipe is None:
            return request
        if recipe in ("auto", "chromfound"):
            return replace(request, recipe=dict(self.checkpoint.preparation))
        if isinstance(recipe, str) or not set(recipe) <= {"target_sum", "log1p"}:
            msg = f"recipe={recipe!r} is not known: use 'auto', 'chromfound', a mapping with 'target_sum' and/or 'log1p', or None."
            raise ValueError(msg)
        return replace(request, recipe={**self.checkpoint.preparation, **recipe})

    def _runner(self, cells: Cells, request: Request, pooling: Any) -> Runner:
        return Runner(
            self.checkpoint,
            cells.ocrs,
            pooling=pooling,
            device=request.device,
            precision=request.precision,
            batch_size=request.batch_size,
        )

    def embed(self, cells: Cells, request: Request, basis: Basis | None = None) -> Embedded:
        """Vectors with one number per OCR from the network, then PCA (section A.1)."""
        runner = self._runner(cells, request, request.pooling)
        axes = None
        if basis is not None:
            components, mean = basis.axes(cells.ocrs, runner.order)
            axes = PCA(mean, components)
        recipe: Any = request.recipe
        vectors, axes = embed_cells(
            cells,
            runner,
            prepare=lambda rows: rows if recipe is None else prepare_rows(rows, **recipe),
            n_components=request.n_components,  # type: ignore[arg-type]
            fit_rows=request.fit_rows(cells),
            axes=axes,
            progress=request.progress,
        )
        params = {"device": str(runner.device), "precision": "bf16" if runner.bf16 else "fp32"}
        variance_ratio = None if axes is None else axes.variance_ratio
        return Embedded(vectors, runner.order, axes, variance_ratio, is_profile=axes is None, params=params)

    def openness(self, cells: Cells, request: Request) -> Openness:
        """The reconstruction of each cell by the decoder, with log1p undone."""
        runner = self._runner(cells, request, "reconstruction")
        preparation = dict(self.checkpoint.preparation)

        def of(counts: csr_matrix, _: object) -> NDArray[np.float32]:
            values = np.maximum(runner(prepare_rows(counts, **preparation)), 0)
            expected = np.zeros(counts.shape, dtype=np.float32)
            expected[:, runner.order] = np.expm1(values) if preparation["log1p"] else values
            return expected

        params = {"device": str(runner.device), "recipe_target_sum": preparation["target_sum"] or 0.0}
        return Openness(of, runner.order, params)

    def reader(
        self, cells: Cells, *, device: str = "auto", batch_size: BatchSize = "auto", seed: int = 0, exact: bool = False
    ) -> CellReader:
        """The mean hidden state of the open OCRs of a cell, weighted by their values."""
        request = Request(device=device, batch_size=batch_size, precision="fp32" if exact else "auto")
        return ChromFoundReader(self._runner(cells, request, "cell_vector"), dict(self.checkpoint.preparation))

    def classifier(self, cells: Cells, n_classes: int, *, paper: bool, crop_size: int | None, seed: int) -> Any:
        """See `Kind.classifier`; the head of the paper is tied to the OCRs of `cells`."""
        from .classifier import ChromFoundClassifier

        return ChromFoundClassifier(self.checkpoint, cells, n_classes, paper=paper, crop_size=crop_size)


class Runner:
    """A network bound to a device and an OCR set.

    Embeddings of positions and chromosomes are computed once, at construction. The non-zero values of each cell are written into genome
    order; the input matrix itself is never reordered.

    Parameters
    ----------
    checkpoint
        The network and its chromosome vocabulary.
    ocrs
        Columns of the input: ``chrom``, ``start``, ``end``, in any order.
    pooling
        Output of the network: the mean over hidden dimensions or the reconstruction, both (cells, n_ocrs); or one vector per cell,
        (cells, d_model).
    device
        ``"cpu"``, ``"cuda"``, ...; ``"auto"`` uses CUDA if there is a GPU.
    precision
        ``"fp32"``, ``"bf16"``, or ``"auto"``: bf16 on a GPU that supports it, if its result agrees with fp32 on the first
        batch.
    batch_size
        Cells per forward pass; ``"auto"`` chooses it by the memory of the device.

    Attributes
    ----------
    order
        Column numbers in genome order, without chromosomes that the network does not know, shape (n_ocrs,).

    Raises
    ------
    ValueError
        If an option or device is unknown, or no OCR lies on a chromosome that the network knows.
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
        self.order = known_in_genome_order(ocrs, checkpoint.chromosome_ids(ocrs["chrom"].to_numpy()))
        self.n_ocrs = len(self.order)
        self._rank = np.full(len(ocrs), -1, dtype=np.int64)  # column of the input -> position in genome order
        self._rank[self.order] = np.arange(self.n_ocrs)
        self.net = checkpoint.net.to(self.device).eval()
        columns = ocr_columns(checkpoint, ocrs, self.order)
        with torch.inference_mode():
            self._ocrs = self.net.embed_ocrs(*(torch.from_numpy(x).to(self.device) for x in columns.values()))
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

    def cell_run(self, row: csr_matrix) -> CellRun:
        """One prepared cell (1, n_columns), kept so that changes of a few of its values cost little."""
        from ..nn.incremental import CellRun

        return CellRun(self.net, self._ocrs, self._scatter(row)[0].to(self.device))

    def place(self, columns: NDArray[np.integer]) -> NDArray[np.int64]:
        """Positions of columns in genome order, -1 for chromosomes that the network does not know."""
        return self._rank[columns]

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
                logger.info("Not enough GPU memory: using %d cells per batch from here on", self.batch_size)
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
        if len(values) > 1:  # PCA only uses differences between cells
            exact, rounded = exact - exact.mean(0), rounded - rounded.mean(0)
        agreement = float(torch.nn.functional.cosine_similarity(exact, rounded, dim=1).min())
        logger.debug("bf16 agrees with fp32 to %.5f (needed: %.3f)", agreement, _BF16_AGREEMENT)
        return agreement >= _BF16_AGREEMENT


class ChromFoundReader(CellReader):
    """Cell vectors by a `Runner`. Of a changed copy of a cell, only the windows that the change reaches are computed."""

    def __init__(self, runner: Runner, preparation: dict[str, Any]) -> None:
        self._runner, self._preparation = runner, preparation
        self.chunk_size = max(runner.batch_size, 16)

    def prepare(self, counts: csr_matrix) -> csr_matrix:
        """See `CellReader.prepare`."""
        return prepare_rows(counts, **self._preparation)

    def vectors(self, values: csr_matrix, names: NDArray[np.object_]) -> NDArray[np.float32]:
        """See `CellReader.vectors`."""
        return self._runner(values)

    def changed(
        self, values: csr_matrix, names: NDArray[np.object_], copies: Changes
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `CellReader.changed`."""
        # 1. Cells without a changed copy need no more than their vector.
        width = self._runner.net.config.d_model
        before = np.empty((values.shape[0], width), dtype=np.float32)
        after = np.empty((len(copies), width), dtype=np.float32)
        cells, n_copies = np.unique(copies.cell, return_counts=True)
        others = np.setdiff1d(np.arange(len(before)), cells)
        before[others] = self._runner(values[others])
        # 2. Of all others one run is kept, and the copies are compared with it.
        last = np.cumsum(n_copies)
        for cell, first, end in zip(cells, last - n_copies, last, strict=True):
            row = values[[cell]]
            run = self._runner.cell_run(row)
            before[cell] = run.vector.cpu().numpy()
            for i in range(first, end, _COPIES):
                part = slice(i, min(i + _COPIES, end))
                after[part] = self._changed(run, row, copies.added[part])
        return before, after

    def _changed(self, run: CellRun, row: csr_matrix, added: csr_matrix) -> NDArray[np.float32]:
        """Vectors of copies of one cell."""
        import torch

        entries = added.tocoo()
        place = self._runner.place(entries.col)
        value = np.asarray(row[0, entries.col].todense())[0] + entries.data
        kept = place >= 0
        vectors = np.tile(run.vector.cpu().numpy(), (added.shape[0], 1))
        if kept.any():
            which, copy = np.unique(entries.row[kept], return_inverse=True)
            inputs = (torch.from_numpy(x).to(self._runner.device) for x in (copy, place[kept], value[kept]))
            vectors[which] = run.changed(*inputs).cpu().numpy()
        return vectors


def embed_cells(
    cells: Cells,
    runner: Runner,
    *,
    prepare: Callable[[csr_matrix], csr_matrix],
    n_components: int | None,
    fit_rows: NDArray[np.int64],
    axes: PCA | None = None,
    rows: NDArray[np.int64] | None = None,
    progress: bool = True,
) -> tuple[NDArray[np.float32], PCA | None]:
    """Stream cells through a network and reduce the vector of each cell, which has one number per OCR.

    Without `axes`, the vectors of `fit_rows` are stored (on disk if they are large), PCA is fitted to them, and the other cells are
    projected chunk by chunk. Each cell passes through the network once, and no dense table of cells x OCRs is in memory unless
    `n_components` is None.

    Parameters
    ----------
    cells
        Cells to embed.
    runner
        The network, bound to a device and an OCR set.
    prepare
        Function that prepares a chunk of counts for the network.
    n_components
        Number of principal components, or None for the vectors in genome order.
    fit_rows
        Row numbers of the cells to which PCA is fitted.
    axes
        Axes to use instead of fitting.
    rows
        Row numbers of the cells to return, each once; all in order if None. Others pass through the network only to fit the axes.
    progress
        Show a progress bar.

    Returns
    -------
    Components (n_cells, k) and their axes; or vectors (n_cells, n_ocrs) in genome order, and None; with `rows`, those of these cells.
    """
    n_cells, n_ocrs = len(cells), runner.n_ocrs
    wanted = None if rows is None else np.sort(rows)
    order = slice(None) if rows is None else rows
    n_wanted = n_cells if rows is None else len(rows)
    if rows is not None and n_components is not None and axes is None:
        n_wanted = len(np.union1d(rows, fit_rows))

    with tqdm(total=n_wanted, unit="cells", disable=not progress, desc="embedding") as bar:

        def vectors(part: NDArray[np.int64] | None) -> Any:
            for index, chunk in cells.iter_rows(chunk_size=max(runner.batch_size, 16), rows=part):
                yield index, runner(prepare(chunk))
                bar.update(chunk.shape[0])

        if n_components is None:
            whole = np.empty((n_wanted, n_ocrs), dtype=np.float32)
            place = np.arange(n_cells)
            place[order] = np.arange(n_wanted)
            for index, chunk in vectors(wanted):
                whole[place[index]] = chunk
            return whole, None

        if axes is not None:
            projected = np.empty((n_cells, axes.components.shape[1]), dtype=np.float32)
            for index, chunk in vectors(wanted):
                projected[index] = axes.project(chunk)
            return projected[order], axes

        fit_rows = np.sort(fit_rows)
        with tempfile.TemporaryDirectory(prefix="scfound_atac_") as folder:
            table = _table((len(fit_rows), n_ocrs), Path(folder))
            first = 0
            for _, chunk in vectors(fit_rows):
                table[first : first + len(chunk)] = chunk
                first += len(chunk)
            pca = PCA.fit(table, n_components)
            projected = np.empty((n_cells, pca.components.shape[1]), dtype=np.float32)
            step = max(1, _IN_MEMORY_BYTES // (4 * n_ocrs))
            for i in range(0, len(fit_rows), step):
                projected[fit_rows[i : i + step]] = pca.project(table[i : i + step])
            del table
        rest = np.setdiff1d(np.arange(n_cells) if wanted is None else wanted, fit_rows, assume_unique=True)
        if len(rest):
            for index, chunk in vectors(rest):
                projected[index] = pca.project(chunk)
    return projected[order], pca


def _table(shape: tuple[int, int], folder: Path) -> NDArray[np.float32]:
    if 4 * shape[0] * shape[1] <= _IN_MEMORY_BYTES:
        return np.empty(shape, dtype=np.float32)
    return np.memmap(folder / "vectors.f32", dtype=np.float32, mode="w+", shape=shape)
