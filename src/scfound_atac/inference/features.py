"""Features of cells for heads: the vector of the backbone, and spectral components of the counts on the OCRs of the reference.

The vector only depends on the open OCRs of the cell, for any OCR set. The axes of the spectral components are fitted to the reference or,
if the query is known by then, to both together, on the OCRs that both have. A query with other OCRs is mapped to those of the reference by
overlap: OCRs of the reference that the query lacks count as closed, and OCRs that the reference lacks are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ..data.fit_rows import N_FIT_CELLS, fit_rows
from ..genome import best_overlaps
from .kinds import kind_of
from .spectral import spectral_fit, unit_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from ..hub import Checkpoint

# Number of spectral components.
N_MEASURED = 50
# Minimum fraction of the reference's OCRs that a query overlaps; with fewer, its spectral components are mostly noise.
MIN_SHARED_OCRS = 0.05
_TOLERANCE = 1e-4  # relative error of the eigenvalues, far below the noise of cells


@dataclass(frozen=True)
class MeasuredView:
    """Spectral axes of a reference.

    Attributes
    ----------
    ocrs
        OCRs of the reference: ``chrom``, ``start``, ``end``.
    idf
        Weight of each OCR, shape (L,).
    axes
        Axes, shape (L, k), without the first component, which reflects depth.
    """

    ocrs: pd.DataFrame
    idf: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        cells: Cells,
        rows: NDArray[np.int64],
        *,
        n_components: int,
        seed: int = 0,
        query: tuple[Cells, NDArray[np.int64]] | None = None,
    ) -> MeasuredView:
        """Fit at most `n_components` axes to the cells `rows` and, if given, to those of the query on the OCRs that both have.

        A query that overlaps hardly any OCR is left out.
        """
        from scipy.sparse import diags, vstack

        ocrs = cells.ocrs[["chrom", "start", "end"]].reset_index(drop=True)
        counts, shared = cells.to_memory(rows), np.ones(len(ocrs), dtype=np.float32)
        if query is not None:
            others, other_rows = query
            transfer = overlap_transfer(others.ocrs, ocrs)
            is_shared = transfer.getnnz(axis=0) > 0
            if is_shared.mean() >= MIN_SHARED_OCRS:
                shared = is_shared.astype(np.float32)
                both = vstack([counts, others.to_memory(other_rows) @ transfer])
                counts = (both @ diags(shared)).tocsr()
                counts.eliminate_zeros()
        fit = spectral_fit(counts, n_components + 1, seed, tolerance=_TOLERANCE)
        return cls(ocrs, fit.idf * shared, fit.axes[:, 1:])

    def __call__(self, cells: Cells) -> NDArray[np.float32]:
        """Coordinates of cells along the axes, scaled to length 1, (n_cells, k); 0 for cells without a common OCR."""
        view = np.empty((len(cells), self.axes.shape[1]), dtype=np.float32)
        for rows, counts in self.counts(cells):
            view[rows] = unit_rows(counts, self.idf) @ self.axes
        return view / np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-12)

    def axes_of(self, ocrs: pd.DataFrame) -> NDArray[np.float64]:
        """What a count of each of `ocrs` adds along the axes, up to a factor per cell, (n_ocrs, k)."""
        return overlap_transfer(ocrs, self.ocrs) @ (self.idf[:, None] * self.axes).astype(np.float64)

    def coverage(self, ocrs: pd.DataFrame) -> float:
        """Fraction of the OCRs of the reference that overlap one of `ocrs`."""
        return best_overlaps(self.ocrs, ocrs)["a"].nunique() / len(self.ocrs)

    def counts(self, cells: Cells) -> Iterator[tuple[slice | NDArray[np.int64], csr_matrix]]:
        """Rows of cells and their counts on the OCRs of the reference, in chunks."""
        transfer = overlap_transfer(cells.ocrs, self.ocrs)
        for rows, chunk in cells.iter_rows():
            yield rows, (chunk @ transfer).tocsr()


def overlap_transfer(ocrs: pd.DataFrame, reference: pd.DataFrame) -> csr_matrix:
    """Matrix (n_ocrs, L) that maps OCRs to those of the reference, each to the one with most common bases."""
    from scipy.sparse import csr_matrix

    best = best_overlaps(ocrs, reference)
    ones = np.ones(len(best), dtype=np.float32)
    return csr_matrix((ones, (best["a"], best["b"])), shape=(len(ocrs), len(reference)))


class Features(NamedTuple):
    """Features of cells: `known` from the backbone (n_cells, d), `measured` from the counts (n_cells, k) or None.

    `fraction_ocrs` is the fraction of the reference's OCRs on which the cells were measured.
    """

    known: NDArray[np.float32]
    measured: NDArray[np.float32] | None
    fraction_ocrs: float

    def all(self) -> NDArray[np.float32]:
        """Both side by side, (n_cells, d + k)."""
        return self.known if self.measured is None else np.hstack([self.known, self.measured])


@dataclass(frozen=True)
class CellFeatures:
    """A backbone, and the measured view of the reference on which heads were trained, or None."""

    checkpoint: Checkpoint
    view: MeasuredView | None

    @classmethod
    def fit(
        cls,
        checkpoint: Checkpoint,
        cells: Cells,
        *,
        measured: bool = True,
        n_components: int = N_MEASURED,
        n_fit_cells: int = N_FIT_CELLS,
        seed: int = 0,
        query: Cells | None = None,
    ) -> CellFeatures:
        """Fit the measured view to a reference and, if given, to the query: to at most `n_fit_cells` cells, each having a claim to half."""
        if not measured:
            return cls(checkpoint, None)
        of_query = 0 if query is None else min(len(query), max(n_fit_cells // 2, n_fit_cells - len(cells)))
        rows = fit_rows(cells.names, n_fit_cells - of_query, seed)
        others = None if query is None else (query, fit_rows(query.names, of_query, seed))
        view = MeasuredView.fit(cells, rows, n_components=n_components, seed=seed, query=others)
        return cls(checkpoint, view)

    def __call__(
        self,
        cells: Cells,
        *,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        seed: int = 0,
        progress: bool = True,
    ) -> Features:
        """Features of cells with any OCR set; without the measured view if they overlap hardly any OCR of the reference."""
        kind = kind_of(self.checkpoint)
        known = kind.cell_vectors(cells, device=device, batch_size=batch_size, seed=seed, progress=progress)
        if self.view is None:
            return Features(known, None, 0.0)
        fraction = self.view.coverage(cells.ocrs)
        return Features(known, self.view(cells) if fraction >= MIN_SHARED_OCRS else None, fraction)
