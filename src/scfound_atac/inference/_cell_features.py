"""What heads read of a cell: the backbone's vector, and beside it what was measured on the reference's OCRs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ..data._fit_rows import N_FIT_CELLS, fit_rows
from ._cell_vectors import cell_vectors
from ._measured_view import MeasuredView

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..hub import Checkpoint
    from ._cells import Cells

N_MEASURED = 50
# Of the reference's OCRs, the share that a query must overlap for what it measured there to say more than noise.
LEAST_SHARED_OCRS = 0.05


class Features(NamedTuple):
    """Of cells: `known` (n_cells, d), `measured` (n_cells, k) or None, and the share of the reference's OCRs that were measured."""

    known: NDArray[np.float32]
    measured: NDArray[np.float32] | None
    share_ocrs: float

    def all(self) -> NDArray[np.float32]:
        """Side by side."""
        return self.known if self.measured is None else np.hstack([self.known, self.measured])


@dataclass(frozen=True)
class CellFeatures:
    """A backbone, and the measured view of the reference that heads were trained on, None to do without."""

    checkpoint: Checkpoint
    view: MeasuredView | None

    @classmethod
    def fit(cls, checkpoint: Checkpoint, cells: Cells, *, measured: bool = True, seed: int = 0) -> CellFeatures:
        """Fit the measured view to a reference."""
        if not measured:
            return cls(checkpoint, None)
        rows = fit_rows(cells.names, N_FIT_CELLS, seed)
        return cls(checkpoint, MeasuredView.fit(cells, rows, n_components=N_MEASURED, seed=seed))

    def __call__(
        self,
        cells: Cells,
        *,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        seed: int = 0,
        progress: bool = True,
    ) -> Features:
        """Features of cells of any OCR set; without the measured view if hardly any OCR of the reference is there."""
        known = cell_vectors(self.checkpoint, cells, device=device, batch_size=batch_size, seed=seed, progress=progress)
        if self.view is None:
            return Features(known, None, 0.0)
        share = self.view.coverage(cells.ocrs)
        return Features(known, self.view(cells) if share >= LEAST_SHARED_OCRS else None, share)
