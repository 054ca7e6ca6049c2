"""What turns cells into the vectors that heads read, in two steps: the values that a network is given, and the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_COPIES = 512  # changed copies of cells that are held in memory at a time


@dataclass(frozen=True)
class Changes:
    """Copies of cells in which the values of some OCRs are changed; only copies in which something does change.

    Attributes
    ----------
    cell, perturbation
        Number of the cell and of the perturbation of each copy, (m,), sorted by cell.
    added
        What is added to the values of the cell, (m, n_ocrs).
    factor
        Factor of the changed values.
    """

    cell: NDArray[np.int64]
    perturbation: NDArray[np.int64]
    added: csr_matrix
    factor: float

    def __len__(self) -> int:
        return len(self.cell)

    def added_to(self, values: csr_matrix) -> csr_matrix:
        """`added` for other values of the same cells."""
        from scipy.sparse import csr_matrix

        cell = np.repeat(self.cell, np.diff(self.added.indptr))
        if len(cell) == 0:  # of no entries scipy gives no array
            return self.added
        changed = np.asarray(values[cell, self.added.indices]).ravel()
        data = ((self.factor - 1) * changed).astype(np.float32)
        return csr_matrix((data, self.added.indices, self.added.indptr), shape=self.added.shape)


def changes(values: csr_matrix, sets: csr_matrix, factor: float) -> Changes:
    """Multiply the values of sets of OCRs by a factor, one set at a time.

    An OCR that is closed in a cell has the value 0, which no factor changes.

    Parameters
    ----------
    values
        Values of the cells, (n_cells, n_ocrs).
    sets
        1 for each OCR of each set, (n_perturbations, n_ocrs).
    factor
        The factor.
    """
    from scipy.sparse import csr_matrix

    by_ocr, pairs = values.tocsc(), sets.tocoo()
    # 1. For every OCR of every set, the stretch of `by_ocr` with the cells in which it is open.
    n = np.diff(by_ocr.indptr)[pairs.col] if factor != 1 else np.zeros(len(pairs.col), dtype=np.int64)
    first = np.repeat(by_ocr.indptr[pairs.col] - np.append(0, np.cumsum(n)[:-1]), n)
    entry = (first + np.arange(len(first))).astype(np.int64)
    entry_perturbation, entry_ocr = np.repeat(pairs.row, n), np.repeat(pairs.col, n)
    value = by_ocr.data[entry]
    entry, entry_perturbation, entry_ocr, value = (x[value != 0] for x in (entry, entry_perturbation, entry_ocr, value))
    # 2. A copy for each pair of a cell and a set.
    key = by_ocr.indices[entry].astype(np.int64) * sets.shape[0] + entry_perturbation
    copies, copy = np.unique(key, return_inverse=True)
    added = csr_matrix(
        (((factor - 1) * value).astype(np.float32), (copy, entry_ocr)), shape=(len(copies), values.shape[1])
    )
    cell, perturbation = np.divmod(copies, sets.shape[0])
    return Changes(cell, perturbation, added, factor)


class CellReader(ABC):
    """A kind of model that is bound to the OCRs of some cells and reads their vectors."""

    chunk_size: int = 256
    """Number of cells that are read at a time."""

    @abstractmethod
    def prepare(self, counts: csr_matrix) -> csr_matrix:
        """The values that the network is given of each OCR, for counts (cells, n_ocrs), as a new matrix; 0 for closed OCRs."""

    @abstractmethod
    def vectors(self, values: csr_matrix, names: NDArray[np.object_]) -> NDArray[np.float32]:
        """Vectors (cells, d) of values (cells, n_ocrs) that `prepare` made, and of the names of the cells."""

    def changed(
        self, values: csr_matrix, names: NDArray[np.object_], copies: Changes
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors of the cells (cells, d), and of their changed copies (m, d).

        This method runs every copy anew, which is right for every kind of model and defines the result. A kind that can share work between
        a cell and its copies has a faster one.
        """
        before = self.vectors(values, names)
        after = np.empty((len(copies), before.shape[1]), dtype=np.float32)
        for first in range(0, len(copies), _COPIES):
            part = slice(first, first + _COPIES)
            rows = (values[copies.cell[part]] + copies.added[part]).tocsr()
            rows.eliminate_zeros()  # an OCR without a value is closed
            after[part] = self.vectors(rows, names[copies.cell[part]])
        return before, after
