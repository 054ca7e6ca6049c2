"""Prior knowledge of regions: the tissues in which each region is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ._chromosomes import CHROMOSOMES
from ._intervals import overlaps
from .line import along_genome

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUNDLED_TABLE = "region_table.npz"
# Subtracted from log1p(openness in per cent), so that this input of networks is roughly centred.
_MEAN_LOG_OPENNESS = 2.0


class KnownRegions(NamedTuple):
    """What the region table knows of a set of OCRs, one row per OCR.

    Attributes
    ----------
    factors
        Region factors (n_ocrs, n_factors); 0 for OCRs that are not in the table.
    openness
        Fraction of the bulk biosamples in which the region is open, (n_ocrs,).
    found
        Whether the OCR overlaps a bin of the table, (n_ocrs,).
    """

    factors: NDArray[np.float32]
    openness: NDArray[np.float32]
    found: NDArray[np.bool_]

    @property
    def features(self) -> NDArray[np.float32]:
        """Input of networks: the factors, the log of the openness in per cent, and `found`, (n_ocrs, n_factors + 2)."""
        openness = np.log1p(100 * self.openness) - _MEAN_LOG_OPENNESS
        return np.column_stack([self.factors, openness, self.found]).astype(np.float32)


@dataclass(frozen=True)
class RegionTable:
    """Factors of genome bins: their coordinates in a space that the accessibility of bulk biosamples spans.

    Two regions with similar factors are open in the same tissues. The table is built by ``scripts/build_region_table.py``.

    Attributes
    ----------
    bins
        ``chrom``, ``start``, ``end`` of the bins (GRCh38, 0-based half-open), in genome order.
    quantised
        Factors as int8 multiples of `step`, shape (n_factors, n_bins).
    step
        Value of one unit of each factor, shape (n_factors,).
    n_open
        Number of biosamples in which the bin is open, shape (n_bins,).
    n_biosamples
        Number of biosamples from which the table was built.
    biosamples, loadings
        Names of these, and their coordinates in the space of the factors, (n_biosamples, n_factors): a region is open in those with which
        the product of its factors is large. Empty in tables of versions before 0.2.
    strength
        Mean over the biosamples of the rank of the bin's signal among the open bins of a biosample, 0 where it is closed; one byte for 0 to
        1, (n_bins,). Empty in tables of versions before 0.2.
    """

    bins: pd.DataFrame
    quantised: NDArray[np.int8]
    step: NDArray[np.float32]
    n_open: NDArray[np.uint8]
    n_biosamples: int
    biosamples: tuple[str, ...] = ()
    loadings: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    strength: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))

    @property
    def n_factors(self) -> int:
        """Number of factors per region."""
        return len(self.step)

    @property
    def n_features(self) -> int:
        """Width of `KnownRegions.features`."""
        return self.n_factors + 2

    @cached_property
    def bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and ends of the bins on a line along the genome (`scfound_atac.genome.line`), in the order of the table."""
        chrom = self.bins["chrom"]
        return along_genome(chrom, self.bins["start"]), along_genome(chrom, self.bins["end"])

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Starts of the bins on a line along the genome, sorted; the numbers of these bins; and the width of the widest bin."""
        place, _ = self.bounds
        order = np.argsort(place, kind="stable")
        return place[order], order, int((self.bins["end"] - self.bins["start"]).max())

    def _near(self, ocrs: pd.DataFrame) -> NDArray[np.int64]:
        """Sorted numbers of the bins that may overlap an OCR. To search all bins for a few OCRs would take most of the time."""
        place, order, widest = self._places
        # Each OCR reaches bins first to last - 1; a bin is near if the running count of ranges that cover it is above 0.
        first = np.searchsorted(place, along_genome(ocrs["chrom"], ocrs["start"]) - widest)
        last = np.searchsorted(place, along_genome(ocrs["chrom"], ocrs["end"]))
        depth = np.bincount(first, minlength=len(place) + 1) - np.bincount(last, minlength=len(place) + 1)
        return np.sort(order[np.cumsum(depth[:-1]) > 0])

    def overlaps(self, ocrs: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All pairs of an OCR and a bin that overlap, by OCR: their numbers, and the bases they have in common, each (n_pairs,).

        Parameters
        ----------
        ocrs
            As in `lookup`.
        """
        near = self._near(ocrs)
        shared = overlaps(ocrs, self.bins.iloc[near])
        return shared["a"].to_numpy(), near[shared["b"].to_numpy()], shared["n_bases"].to_numpy()

    def lookup(self, ocrs: pd.DataFrame) -> KnownRegions:
        """Look up OCRs: each gets the mean over the bins that it overlaps, weighted by the number of common bases.

        With n_ij bases that OCR i and bin j have in common::

            factors[i] = sum over j of n_ij * factors[j] / sum over j of n_ij

        Parameters
        ----------
        ocrs
            Table with ``chrom``, ``start``, ``end`` on GRCh38, in any order and of any width.
        """
        # 1. Overlapping pairs of an OCR and a bin, with the bases they have in common, each (n_pairs,).
        ocr, bin_, weight = self.overlaps(ocrs)
        n = len(ocrs)
        # 2. Weights that add up to 1 for each OCR.
        total = np.bincount(ocr, weights=weight, minlength=n)  # (n_ocrs,)
        fraction = weight / total[ocr]
        # 3. Weighted means, one factor at a time, so that no array of pairs x factors is needed.
        factors = np.empty((n, self.n_factors), dtype=np.float32)
        for k, (row, step) in enumerate(zip(self.quantised, self.step, strict=True)):
            factors[:, k] = np.bincount(ocr, weights=fraction * row[bin_], minlength=n) * step
        openness = np.bincount(ocr, weights=fraction * self.n_open[bin_], minlength=n) / self.n_biosamples
        return KnownRegions(factors, openness.astype(np.float32), total > 0)

    def save(self, path: str | Path) -> None:
        """Write the table as a compressed ``npz`` file to `path`."""
        chrom = self.bins["chrom"].to_numpy()
        start, width = self.bins["start"].to_numpy(), (self.bins["end"] - self.bins["start"]).to_numpy()
        np.savez_compressed(
            path,
            bins_per_chromosome=np.array([(chrom == name).sum() for name in CHROMOSOMES]),
            start_difference=np.diff(start, prepend=0).astype(np.int32),  # small numbers compress well
            width=width.astype(np.uint16),
            quantised=self.quantised,
            step=self.step,
            n_open=self.n_open,
            n_biosamples=self.n_biosamples,
            biosamples="\n".join(self.biosamples),
            loadings=self.loadings,
            strength=self.strength,
        )

    @classmethod
    def load(cls, path: str | Path) -> RegionTable:
        """Read the table that `save` wrote to `path`.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        with np.load(path) as file:
            missing = {"bins_per_chromosome", "start_difference", "quantised", "step", "n_open"} - set(file.files)
            if missing:
                msg = f"{path} is not a region table: it has no {', '.join(sorted(missing))}."
                raise ValueError(msg)
            start = np.cumsum(file["start_difference"], dtype=np.int64)
            chrom = pd.Categorical.from_codes(
                np.repeat(np.arange(len(CHROMOSOMES)), file["bins_per_chromosome"]), categories=list(CHROMOSOMES)
            )
            bins = pd.DataFrame({"chrom": chrom.astype(object), "start": start, "end": start + file["width"]})
            table = cls(bins, file["quantised"], file["step"], file["n_open"], int(file["n_biosamples"]))
            if "loadings" in file.files:
                table = replace(table, biosamples=tuple(str(file["biosamples"]).split("\n")), loadings=file["loadings"])
            return replace(table, strength=file["strength"]) if "strength" in file.files else table


def bundled_table() -> Path:
    """Path of the region table of the package."""
    return Path(__file__).with_name(BUNDLED_TABLE)


def load_region_table(path: Path | None = None) -> RegionTable:
    """The region table of the package, or the one at `path`; each is read only once."""
    return _load(path or bundled_table())


_load = cache(RegionTable.load)  # cached by the resolved path, so that None and the path of the package are the same
