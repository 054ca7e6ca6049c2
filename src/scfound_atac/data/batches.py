"""Batches of a corpus; each batch only depends on the seed and its number.

An interrupted run continues with the next number. No sampler state has to be stored, and batch 70,000 does not depend on the number of
processes or workers that read the batches before it. annbatch is not used here: it reads zarr stores with one OCR set (Python 3.12) from
an iterator that cannot start at a given position. As the rows of a corpus are shuffled when it is written, a batch is one contiguous read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy import sparse
from torch.utils.data import Dataset

from ..genome import chromosome_ids, load_region_table
from .factors import region_factors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from .corpus import Corpus, Study

    Crop = Literal["neighbours", "random"]

_VALIDATION = 1  # seed of a separate stream of random numbers


@dataclass(frozen=True)
class _Place:
    """The content of a batch: cells of one file of one study, and some of its OCRs."""

    study: int
    rows: NDArray[np.int64]  # within the study
    columns: NDArray[np.int64]


class CorpusBatches(Dataset):
    """Batch `i` of an endless sequence, as a map-style data set.

    A batch holds a contiguous block of shuffled cells from one study, which is drawn by weight, and a crop of the OCRs. A study with fewer
    OCRs than `crop_size` gives complete cells, and correspondingly more of them, so that batches have similar numbers of tokens.

    Parameters
    ----------
    corpus
        The corpus.
    n_cells
        Number of cells per batch over all processes.
    crop_size
        Number of OCRs per batch; all OCRs of the study if None.
    crop
        ``"neighbours"``: a stretch of the genome. ``"random"``: any OCRs, in genome order.
    seed
        Random seed of all draws.
    validation_fraction
        Fraction of the cells, at the end of each file, that are only used for validation.
    validation
        Draw from the validation cells, with a fixed seed that does not depend on `seed`.
    n_factors
        Number of features per region that the network reads; 0 for none.
    region_table
        File of the region table with these features; that of the package if None.
    with_labels
        Use the number of the biosample as the label of a simulated cell; if False, all labels are -1.
    rank, world_size
        Number of this process, and of all processes; each gets an equal part of every batch.

    Raises
    ------
    ValueError
        If the cells of a batch cannot be divided evenly, or a file has too few cells for training and validation.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        n_cells: int,
        crop_size: int | None = None,
        crop: Crop = "neighbours",
        seed: int = 0,
        validation_fraction: float = 0.02,
        validation: bool = False,
        n_factors: int = 0,
        region_table: Path | None = None,
        with_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if n_cells % world_size:
            msg = f"n_cells ({n_cells}) must be a multiple of the number of processes ({world_size})."
            raise ValueError(msg)
        self.corpus = corpus
        self.n_cells, self.crop_size, self.crop = n_cells, crop_size, crop
        self.n_factors, self.region_table, self.with_labels = n_factors, region_table, with_labels
        self.rank, self.world_size = rank, world_size
        self._stream = [0, _VALIDATION] if validation else [seed]
        weights = np.array([study.weight for study in corpus.studies])
        self._study_fractions = weights / weights.sum()
        self._bounds = [_file_bounds(study, validation_fraction, validation=validation) for study in corpus.studies]
        self._tokens: dict[int, dict[str, Tensor]] = {}

    def place(self, i: int) -> _Place:
        """The cells and OCRs of batch `i` over all processes."""
        rng = np.random.default_rng([*self._stream, i])
        number = int(rng.choice(len(self._study_fractions), p=self._study_fractions))
        study, bounds = self.corpus.studies[number], self._bounds[number]
        sizes = bounds[:, 1] - bounds[:, 0]
        low, high = bounds[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        crop_size = min(self.crop_size or study.n_ocrs, study.n_ocrs)
        n_cells = self.n_cells * max(1, (self.crop_size or 0) // crop_size)
        # A block that exceeds the end of the file continues at its beginning, so that all cells are equally likely.
        rows = low + (rng.integers(high - low) + np.arange(n_cells)) % (high - low)
        if self.crop == "random":
            columns = np.sort(rng.choice(study.n_ocrs, crop_size, replace=False))
        else:
            columns = rng.integers(study.n_ocrs - crop_size + 1) + np.arange(crop_size)
        return _Place(number, rows, columns)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        """The part of batch `i` for this process, as input of `scfound_atac.nn.objectives.Objectives`."""
        place = self.place(i)
        study = self.corpus.studies[place.study]
        n_local = len(place.rows) // self.world_size
        part = slice(self.rank * n_local, (self.rank + 1) * n_local)
        rows = place.rows[part]
        cells = sparse.vstack([study.read(first, n) for first, n in _runs(rows)], format="csr")
        label = self.corpus.labels[place.study][rows] if self.with_labels else np.full(len(rows), -1)
        # One seed per cell, so that its draws do not depend on the process that has it.
        seeds = np.random.SeedSequence([*self._stream, i, 1]).generate_state(len(place.rows), np.uint64)[part]
        columns = torch.from_numpy(place.columns)
        return {
            **{name: tensor[columns] for name, tensor in self._study_tokens(place.study).items()},
            "counts": torch.from_numpy(cells[:, place.columns].astype(np.int32).toarray()),
            "total": torch.from_numpy(np.asarray(cells.sum(axis=1), dtype=np.int64).ravel()),
            "label": torch.from_numpy(label),
            "seed": torch.from_numpy((seeds >> np.uint64(1)).astype(np.int64)),
        }

    def _study_tokens(self, number: int) -> dict[str, Tensor]:
        if number not in self._tokens:
            ocrs = self.corpus.studies[number].ocrs
            tokens = {
                "chromosome": torch.from_numpy(chromosome_ids(ocrs["chrom"])),
                "start": torch.from_numpy(ocrs["start"].to_numpy(dtype=np.int64, copy=True)),
                "end": torch.from_numpy(ocrs["end"].to_numpy(dtype=np.int64, copy=True)),
                "fraction_open": torch.from_numpy(ocrs["fraction_open"].to_numpy(dtype=np.float32, copy=True)),
            }
            if self.n_factors:
                table = load_region_table(self.region_table)
                tokens["factors"] = torch.from_numpy(region_factors(ocrs, self.n_factors, table))
            self._tokens[number] = tokens
        return self._tokens[number]


def _file_bounds(study: Study, validation_fraction: float, *, validation: bool) -> NDArray[np.int64]:
    """First row, and row after the last, of the training or validation cells of each file, (n_files, 2)."""
    bounds = []
    for file, size in enumerate(study.file_sizes):
        first, n_held_out = study.first_row(file), round(validation_fraction * size)
        middle = first + size - n_held_out
        bounds.append((middle, first + size) if validation else (first, middle))
    kept = [(low, high) for low, high in bounds if high > low]
    if not kept:
        what = "validation" if validation else "training"
        msg = (
            f"Study {study.name!r} has no cells for {what} at validation_fraction={validation_fraction}: "
            f"its files hold {study.file_sizes}."
        )
        raise ValueError(msg)
    return np.array(kept, dtype=np.int64)


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Row numbers as (first, length) of runs of consecutive rows."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [(int(part[0]), len(part)) for part in parts]
