"""The vocabularies of a peak-set model, which map peaks, genes and chromosomes to ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..genome import normalize_chromosomes, parse_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

PAD, CLS = "<pad>", "<cls>"


@dataclass(frozen=True)
class Vocabularies:
    """Maps of token to id as released by the authors: ids are 0, 1, ... and include special tokens such as ``<cls>``.

    Attributes
    ----------
    peaks
        Peaks, named by coordinates (``chr1-1000-1500``).
    chromosomes
        Chromosomes; empty for a network that does not read them.
    genes, gene_chromosomes
        Genes, and the chromosome of each; empty for a network without gene queries.
    cell_types, batches
        Labels, without special tokens; empty if the network has no such part.
    """

    peaks: Mapping[str, int]
    chromosomes: Mapping[str, int] = field(default_factory=dict)
    genes: Mapping[str, int] = field(default_factory=dict)
    gene_chromosomes: Mapping[str, str] = field(default_factory=dict)
    cell_types: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def ocrs(self) -> pd.DataFrame:
        """The peaks in the order of their ids: ``chrom``, ``start``, ``end``, and ``id``.

        Raises
        ------
        ValueError
            If a name has no coordinates.
        """
        names = [name for name in sorted(self.peaks, key=self.peaks.__getitem__) if not is_special(name)]
        return parse_names(names).assign(id=[self.peaks[name] for name in names])

    @cached_property
    def peak_chromosomes(self) -> NDArray[np.int64]:
        """Chromosome id of every row of the peak table, shape (n_peaks,); a special token has the id of the same token.

        Raises
        ------
        ValueError
            If the chromosome vocabulary lacks one.
        """
        ids = np.zeros(len(self.peaks), dtype=np.int64)
        if not self.chromosomes:
            return ids
        ids[self.ocrs["id"]] = self._chromosome_ids(self.ocrs["chrom"].to_numpy())
        for name, place in self.peaks.items():
            if is_special(name):
                ids[place] = self.chromosomes.get(name, 0)
        return ids

    @cached_property
    def known_genes(self) -> frozenset[str]:
        """Genes that the network can predict: those in `genes` and, if the network reads chromosomes, with a known chromosome."""
        genes = {gene for gene in self.genes if not is_special(gene)}
        return frozenset(genes & set(self.gene_chromosomes) if self.chromosomes else genes)

    def gene_ids(self, genes: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of genes and of their chromosomes, both of the length of `genes`.

        Raises
        ------
        KeyError
            If a gene is not in the vocabulary, or its chromosome is unknown.
        """
        unknown = [gene for gene in genes if gene not in self.known_genes]
        if unknown:
            msg = (
                f"{len(unknown)} of {len(genes)} genes are not in the vocabulary, among them {', '.join(unknown[:3])}."
            )
            raise KeyError(msg)
        ids = np.array([self.genes[gene] for gene in genes], dtype=np.int64)
        if not self.chromosomes:
            return ids, np.zeros_like(ids)
        return ids, self._chromosome_ids(normalize_chromosomes([self.gene_chromosomes[gene] for gene in genes]))

    def _chromosome_ids(self, chrom: NDArray[np.object_]) -> NDArray[np.int64]:
        names = list(self.chromosomes)
        spelled = np.where([is_special(name) for name in names], names, normalize_chromosomes(names))
        known = dict(zip(spelled, self.chromosomes.values(), strict=True))
        codes, unique = pd.factorize(chrom)
        if missing := [name for name in unique if name not in known]:
            msg = f"The chromosome vocabulary lacks {', '.join(missing[:3])}, on which there are peaks or genes."
            raise ValueError(msg)
        return np.array([known[name] for name in unique], dtype=np.int64)[codes]


def is_special(name: str) -> bool:
    """Whether a token stands for no peak, gene or chromosome: ``<pad>``, ``<cls>``, ..."""
    return name.startswith("<") and name.endswith(">")
