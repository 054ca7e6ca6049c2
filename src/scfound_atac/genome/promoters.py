"""The promoter that lies nearest to each OCR."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._genes import transcription_starts
from .gene_table import load_gene_table
from .line import along_genome, same_chromosome

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class Promoters(NamedTuple):
    """Starts of transcription along the genome.

    Attributes
    ----------
    place
        Position on a single line along the genome, which rises, (n_genes,).
    is_plus
        Whether the gene lies on the plus strand, (n_genes,).
    names
        Symbols, (n_genes,).
    """

    place: NDArray[np.int64]
    is_plus: NDArray[np.bool_]
    names: NDArray[np.object_]

    def nearest(self, ocrs: pd.DataFrame) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
        """Symbol and distance of the nearest promoter of each OCR, both (n_ocrs,).

        The distance is the number of bases between the start of transcription and the nearest base of the OCR: 0 if it lies in the OCR,
        negative if the OCR lies upstream of the gene. On chromosomes without a gene it is NaN, and the symbol is ``""``.
        """
        first, last = along_genome(ocrs["chrom"], ocrs["start"]), along_genome(ocrs["chrom"], ocrs["end"]) - 1
        # 1. The candidates are the last start before the OCR's end, and the first one from there on.
        after = np.searchsorted(self.place, last, side="right")
        candidates = np.clip(np.stack([after - 1, after]), 0, len(self.place) - 1)  # (2, n_ocrs)
        place = self.place[candidates]
        # 2. Distance of each, with the sign of the genome: negative before the OCR.
        distance = np.where(place < first, place - first, np.maximum(place - last, 0))
        same = same_chromosome(place, first)
        best = np.where(same, np.abs(distance), np.iinfo(np.int64).max).argmin(axis=0)
        row = np.arange(len(ocrs))
        gene, there = candidates[best, row], same[best, row]
        # 3. A promoter before the OCR leaves it downstream of a gene on the plus strand.
        signed = np.where(self.is_plus[gene], -distance[best, row], distance[best, row]).astype(np.float64)
        return np.where(there, self.names[gene], ""), np.where(there, signed, np.nan)


@cache
def load_promoters() -> Promoters:
    """The promoters of the genes in the package, which are read only once."""
    genes = load_gene_table()
    place = along_genome(genes["chrom"], transcription_starts(genes))
    order = np.argsort(place, kind="stable")
    names = genes["name"].to_numpy(dtype=object)
    return Promoters(place[order], (genes["strand"] == "+").to_numpy()[order], names[order])
