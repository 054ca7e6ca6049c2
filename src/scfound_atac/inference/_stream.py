"""Cells in, low-dimensional vectors out, one chunk of rows at a time."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ..data import iter_rows
from ._pca import PCA

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ._runner import Runner

# Vectors of the fitted cells stay in memory up to this size and go to a temporary file beyond it.
_IN_MEMORY_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Basis:
    """Axes found earlier, in genome order: `components` (n_ocrs, k) and `mean` (n_ocrs,)."""

    components: NDArray[np.float32]
    mean: NDArray[np.float32]


@dataclass(frozen=True)
class Embedding:
    """Result of `embed_matrix`: `vectors` (cells, k) or (cells, n_ocrs), and the axes if any were used."""

    vectors: NDArray[np.float32]
    basis: Basis | None = None
    variance_ratio: NDArray[np.float64] | None = None


def embed_matrix(
    matrix: Any,
    runner: Runner,
    *,
    prepare: Callable[[csr_matrix], csr_matrix],
    n_components: int | None,
    fit_rows: NDArray[np.int64] | None = None,
    basis: Basis | None = None,
    progress: bool = True,
) -> Embedding:
    """Stream a matrix through a network and reduce each cell's per-OCR vector.

    Without a `basis`, the vectors of `fit_rows` are kept (on disk if large), PCA is fitted to them, and all other cells are projected
    as they come. No cell passes through the network twice, and no dense cells x OCRs table is held in memory unless
    `n_components` is None.

    Parameters
    ----------
    matrix
        Counts, shape (n_cells, n_columns), in any form that `scfound_atac.data.iter_rows` reads.
    runner
        Network bound to a device and OCR set.
    prepare
        Turns a chunk of counts into the values the network sees.
    n_components
        Number of principal components, or None for the whole vector in genome order.
    fit_rows
        Row numbers of the cells that PCA is fitted to.
    basis
        Axes to project on instead of fitting.
    progress
        Show a progress bar.
    """
    n_cells, n_ocrs = matrix.shape[0], runner.n_ocrs

    with tqdm(total=n_cells, unit="cells", disable=not progress, desc="embedding") as bar:

        def vectors(rows: NDArray[np.int64] | None) -> Any:
            for index, chunk in iter_rows(matrix, chunk_size=max(runner.batch_size, 16), rows=rows):
                yield index, runner(prepare(chunk))
                bar.update(chunk.shape[0])

        if n_components is None:
            whole = np.empty((n_cells, n_ocrs), dtype=np.float32)
            for index, chunk in vectors(None):
                whole[index] = chunk
            return Embedding(whole)

        if basis is not None:
            projected = np.empty((n_cells, basis.components.shape[1]), dtype=np.float32)
            for index, chunk in vectors(None):
                projected[index] = (chunk - basis.mean) @ basis.components
            return Embedding(projected, basis)

        fit_rows = np.arange(n_cells) if fit_rows is None else np.sort(fit_rows)
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
        rest = np.setdiff1d(np.arange(n_cells), fit_rows, assume_unique=True)
        if len(rest):
            for index, chunk in vectors(rest):
                projected[index] = pca.project(chunk)
    return Embedding(projected, Basis(pca.components, pca.mean), pca.variance_ratio)


def _table(shape: tuple[int, int], folder: Path) -> NDArray[np.float32]:
    if 4 * shape[0] * shape[1] <= _IN_MEMORY_BYTES:
        return np.empty(shape, dtype=np.float32)
    return np.memmap(folder / "vectors.f32", dtype=np.float32, mode="w+", shape=shape)
