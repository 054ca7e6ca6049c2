"""A head that reads counts: which class has these OCRs open more often than the others have.

Spectral components keep what many OCRs say together. Counts also keep what single OCRs say, and are read by naive Bayes::

    s_kj = number of cells of class k in which OCR j is open
    b_j = (sum over k of s_kj) / (sum over k and j)
    p_kj = (s_kj + a b_j) / (sum over j of s_kj + a)
    logit_k = sum over the open OCRs j of a cell of log(p_kj / b_j) + log(fraction of the cells in class k)

OCRs are not independent of each other, so that the logits are too large; a temperature, fitted to held-out cells, corrects for that. The
probabilities of `LinearHead` and of this head are mixed on the logarithmic scale and calibrated once more.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, softmax

from ..data import is_open
from ..scores import temperature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells

    Chunks = Iterable[tuple[slice | NDArray[np.int64], csr_matrix]]

# a, in mean numbers of open OCRs of a cell: as if each class had this many more cells that are as all cells. 5, 20 and 60 were tried.
_PRIOR_CELLS = 20
# Weight of this head, that of the linear head being 1. 0.25, 0.5 and 0.75 were tried; like a, on cells of D6T1 alone.
_WEIGHT = 0.5
# Minimum temperature, as for the linear head.
_MIN_TEMPERATURE = 0.5


@dataclass(frozen=True)
class CountHead:
    """A fitted head; plain arrays, so that it can be stored.

    Attributes
    ----------
    weights
        ``log(p_kj / b_j)``, (L, n_classes).
    log_fraction
        Logarithm of the fraction of the cells in each class, (n_classes,).
    temperature, mixed_temperature
        Logits of this head, and the mixed ones, are divided by them; numbers.
    """

    weights: NDArray[np.float32]
    log_fraction: NDArray[np.float32]
    temperature: NDArray[np.float32]
    mixed_temperature: NDArray[np.float32]

    def logits(self, chunks: Chunks, n_cells: int) -> NDArray[np.float64]:
        """Counts on the OCRs of the reference, in chunks of rows -> logits before the temperature, (n_cells, n_classes)."""
        logits = np.empty((n_cells, len(self.log_fraction)))
        for rows, counts in chunks:
            logits[rows] = is_open(counts) @ self.weights + self.log_fraction
        return logits

    def mixed(self, probabilities: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated mixture of the `probabilities` of a linear head and the `logits` of this one, (n_cells, n_classes)."""
        return softmax(self._mixed(probabilities, logits) / float(self.mixed_temperature), axis=1)

    def _mixed(self, probabilities: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(np.maximum(probabilities, 1e-300)) + _WEIGHT * log_softmax(
            logits / float(self.temperature), axis=1
        )

    def arrays(self) -> dict[str, NDArray]:
        """The fields by name."""
        return {field.name: np.asarray(getattr(self, field.name), dtype=np.float32) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> CountHead:
        """The head whose `arrays` these are."""
        return cls(**{field.name: arrays[field.name].astype(np.float32) for field in fields(cls)})


def fit_count_head(chunks: Chunks, codes: NDArray[np.int64], n_classes: int) -> CountHead:
    """A head without calibration.

    Parameters
    ----------
    chunks
        Rows of cells, and their counts.
    codes
        Class of each cell, -1 for cells that are not to be learned from, (n,).
    n_classes
        Number of classes, K; those without cells are never predicted.
    """
    from scipy.sparse import csr_matrix

    sums: NDArray[np.float64] | float = 0.0
    for rows, counts in chunks:
        used = np.flatnonzero(codes[rows] >= 0)
        member = csr_matrix((np.ones(len(used)), (codes[rows][used], used)), shape=(n_classes, counts.shape[0]))
        sums = sums + (member @ is_open(counts)).toarray()  # (K, L)
    n_cells = np.bincount(codes[codes >= 0], minlength=n_classes)  # (K,)
    total = np.maximum(np.sum(sums), 1)
    b = np.sum(sums, axis=0) / total  # (L,)
    a = _PRIOR_CELLS * total / n_cells.sum()
    p = (sums + a * b) / (np.sum(sums, axis=1, keepdims=True) + a)
    weights = np.log(np.divide(p, b, out=np.ones_like(p), where=b > 0)).T  # (L, K); 0 for OCRs that are open in no cell
    log_fraction = np.where(n_cells > 0, np.log(np.maximum(n_cells, 1) / n_cells.sum()), -1e9)
    one = np.array(1, dtype=np.float32)
    return CountHead(np.ascontiguousarray(weights, np.float32), log_fraction.astype(np.float32), one, one)


def calibrated(
    head: CountHead, logits: NDArray[np.float64], probabilities: NDArray[np.float64], codes: NDArray[np.int64]
) -> CountHead:
    """The head with the temperatures that fit held-out cells, given the `probabilities` of the linear head; unchanged without any."""
    if not len(codes):
        return head
    head = replace(head, temperature=_temperature(logits, codes))
    return replace(head, mixed_temperature=_temperature(head._mixed(probabilities, logits), codes))


def calibrated_count_head(
    counts: Callable[[Cells], Chunks],
    cells: Cells,
    codes: NDArray[np.int64],
    n_classes: int,
    held_out: NDArray[np.int64],
    probabilities: NDArray[np.float64],
) -> tuple[CountHead, NDArray[np.float64]]:
    """A head that is learned from all cells, and the mixed probabilities of the held-out ones from a head without them.

    Parameters
    ----------
    counts
        Rows of cells and their counts on the OCRs of the reference.
    cells, codes, n_classes
        All cells, their classes (n,), and the number of classes.
    held_out
        Rows to which the temperatures are fitted; without any they are 1.
    probabilities
        Those of the linear head for the held-out cells, (n_held_out, n_classes).
    """
    # 1. A head without the held-out cells, and its logits for them.
    learnt, out = codes.copy(), cells.subset(held_out)
    learnt[held_out] = -1
    part = fit_count_head(counts(cells), learnt, n_classes)
    logits = part.logits(counts(out), len(out))
    # 2. The temperatures of this head alone and of both.
    part = calibrated(part, logits, probabilities, codes[held_out])
    # 3. The final head, with these temperatures.
    head = fit_count_head(counts(cells), codes, n_classes)
    head = replace(head, temperature=part.temperature, mixed_temperature=part.mixed_temperature)
    return head, part.mixed(probabilities, logits)


def _temperature(logits: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.array(max(temperature(logits, codes), _MIN_TEMPERATURE), dtype=np.float32)
