"""Convert cells into sets of peaks of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from .._logging import logger
from ..genome import best_overlaps
from .prepare import is_open

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .vocabularies import Vocabularies


# Below this fraction of a data set's open OCRs in its vocabulary, a model has next to nothing to read.
MIN_COVERAGE = 0.05


@dataclass(frozen=True)
class Coverage:
    """How much of a data set a vocabulary covers.

    Attributes
    ----------
    n_tokens
        Number of peaks of the vocabulary that are open in each cell, shape (n_cells,), before subsampling.
    n_open, n_lost, n_ambiguous
        Number of open OCRs of each cell, of those without a peak in the vocabulary, and of those that overlap several peaks, of which the
        one with most common bases is used.
    fraction_vocabulary
        Fraction of the peaks of the vocabulary that overlap an OCR of the data.
    fraction_ocrs
        Fraction of the OCRs of the data with a peak in the vocabulary.
    """

    n_tokens: NDArray[np.int64]
    n_open: NDArray[np.int64]
    n_lost: NDArray[np.int64]
    n_ambiguous: NDArray[np.int64]
    fraction_vocabulary: float
    fraction_ocrs: float

    @property
    def fraction_open(self) -> float:
        """Fraction of all open OCRs of all cells that have a peak in the vocabulary; NaN if no OCR is open."""
        n_open = int(self.n_open.sum())
        return 1 - int(self.n_lost.sum()) / n_open if n_open else float("nan")

    def check(self, name: str, n_ocrs: int) -> None:
        """Refuse data of `n_ocrs` OCRs that the vocabulary of model `name` hardly knows, and warn of cells left without a token.

        Raises
        ------
        ValueError
            If fewer than 5 % of the open OCRs have a peak in the vocabulary.
        """
        if self.fraction_open < MIN_COVERAGE:  # NaN, and so no error, if no OCR is open at all
            msg = (
                f"Only {self.fraction_open:.1%} of the open OCRs ({self.fraction_ocrs:.1%} of the {n_ocrs} OCRs) overlap a peak of the "
                f"vocabulary of model {name!r}, which reads nothing else; at least {MIN_COVERAGE:.0%} are needed. Check that coordinates "
                "are GRCh38 (hg19: sfa.pp.liftover_ocrs), or use a model without a vocabulary: sfa.tl.embed(adata, model='region-set')."
            )
            raise ValueError(msg)
        if n_empty := int((self.n_tokens == 0).sum()):
            logger.warning(
                "%d of %d cells have no open OCR in the vocabulary of model %r and all get the vector of the empty cell",
                n_empty,
                len(self.n_tokens),
                name,
            )


class Tokenizer:
    """Converts the open OCRs of cells into ids of a peak vocabulary.

    An OCR stands for the peak with which it has most bases in common, by the rule of `scfound_atac.genome.best_overlaps`. Several OCRs
    of the same peak are one token.

    Parameters
    ----------
    vocabularies
        Vocabularies of the model.
    ocrs
        OCRs of the data: ``chrom``, ``start``, ``end``.
    max_tokens
        Maximum number of peaks of a cell. Cells with more are subsampled at random, depending only on name, peaks and seed.
    seed
        Random seed of this subsampling.

    Attributes
    ----------
    is_known
        Whether an OCR has a peak in the vocabulary, shape (n_ocrs,).
    """

    def __init__(self, vocabularies: Vocabularies, ocrs: pd.DataFrame, *, max_tokens: int, seed: int = 0) -> None:
        best = best_overlaps(ocrs, vocabularies.ocrs)
        self.max_tokens, self.seed = max_tokens, seed
        self._fraction_vocabulary = best["b"].nunique() / max(len(vocabularies.ocrs), 1)
        self.is_known, self._is_ambiguous = np.zeros((2, len(ocrs)), dtype=bool)
        self.is_known[best["a"]] = True
        self._is_ambiguous[best["a"]] = best["n_targets"] > 1
        token = vocabularies.ocrs["id"].to_numpy()[best["b"]]
        self._transfer = sparse.csr_matrix(
            (np.ones(len(best), dtype=np.float32), (best["a"], token)), shape=(len(ocrs), len(vocabularies.peaks))
        )

    def _tokens(self, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        """Tokens of cells as the columns that are set: (cells, n_peaks)."""
        tokens = is_open(rows) @ self._transfer
        tokens.sort_indices()  # so that the order of columns does not matter
        return tokens

    def coverage(self, chunks: Iterable[sparse.csr_matrix]) -> Coverage:
        """How much of the cells the vocabulary covers; `chunks` are their counts, each (cells, n_ocrs)."""
        columns = np.column_stack([np.ones(len(self.is_known)), ~self.is_known, self._is_ambiguous])
        n_tokens, counts = [], []
        for chunk in chunks:
            n_tokens.append(np.diff(self._tokens(chunk).indptr))
            counts.append(is_open(chunk) @ columns)
        n_open, n_lost, n_ambiguous = np.concatenate(counts).astype(np.int64).T
        return Coverage(
            np.concatenate(n_tokens).astype(np.int64),
            n_open,
            n_lost,
            n_ambiguous,
            self._fraction_vocabulary,
            float(self.is_known.mean()),
        )

    def __call__(self, rows: sparse.csr_matrix, names: NDArray[np.object_]) -> list[NDArray[np.int64]]:
        """Sorted token ids of each cell, at most `max_tokens`, from counts (cells, n_ocrs) and the names of the cells, (cells,)."""
        tokens = self._tokens(rows)
        cells = np.split(tokens.indices.astype(np.int64), tokens.indptr[1:-1])
        for i in np.flatnonzero(np.diff(tokens.indptr) > self.max_tokens):
            cells[i] = self._sample(cells[i], names[i])
        return cells

    def _sample(self, tokens: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        hashed = pd.util.hash_array(np.array([name], dtype=object), hash_key=f"{self.seed:016d}"[:16])
        chosen = np.random.default_rng(hashed).choice(len(tokens), self.max_tokens, replace=False)
        return tokens[np.sort(chosen)]
