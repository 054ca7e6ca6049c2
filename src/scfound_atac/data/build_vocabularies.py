"""Build the vocabularies of a new peak-set model from its training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._logging import logger
from ..genome import CHROMOSOMES, chromosome_ids, genome_order, normalize_chromosomes
from .vocabularies import CLS, PAD, Vocabularies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

# In the order of the released vocabularies.
SPECIAL = (PAD, "<mask>", CLS, "<eos>")
UNKNOWN = "<unk>"
"""Token for genes whose chromosome is unknown or has no token (chrM, scaffolds). The released vocabularies do not have it."""


def build_vocabularies(
    ocrs: pd.DataFrame,
    genes: Iterable[str],
    gene_chromosomes: Mapping[str, object] | pd.Series,
    batches: Iterable[str] = (),
) -> Vocabularies:
    """Vocabularies in the form of the authors: special tokens first, then OCRs in genome order, chromosomes, and genes in given order.

    Parameters
    ----------
    ocrs
        Table with ``chrom``, ``start``, ``end``; OCRs on chrM and scaffolds get no token.
    genes
        Names of genes, without repeats.
    gene_chromosomes
        Chromosome of each gene, in any spelling. Genes without one, or on a chromosome that is not in the vocabulary, get ``<unk>``, with a
        warning.
    batches
        Names of experimental batches, without repeats; they have no special tokens.

    Raises
    ------
    ValueError
        If no OCR is on a known chromosome.
    """
    known = ocrs[chromosome_ids(ocrs["chrom"]) > 0]
    if known.empty:
        msg = f"None of the {len(ocrs)} OCRs lies on chr1 to chr22, chrX or chrY, so no peak is left."
        raise ValueError(msg)
    if len(known) < len(ocrs):
        logger.warning("%d OCRs on other chromosomes than chr1-22, X, Y are left out", len(ocrs) - len(known))
    known = known.iloc[genome_order(known)]
    rows = known[["chrom", "start", "end"]].itertuples(index=False)
    names = [str(gene) for gene in genes]
    return Vocabularies(
        peaks=_numbered(SPECIAL, (f"{chrom}-{start}-{end}" for chrom, start, end in rows)),
        chromosomes=_numbered(SPECIAL, (*CHROMOSOMES, UNKNOWN)),
        genes=_numbered(SPECIAL, names),
        gene_chromosomes=dict(zip(names, _chromosomes_of(names, gene_chromosomes), strict=True)),
        batches=_numbered((), batches),
    )


def _numbered(special: Iterable[str], names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate((*special, *names))}


def _chromosomes_of(genes: list[str], table: Mapping[str, object] | pd.Series) -> NDArray[np.object_]:
    given = pd.Series([table.get(gene) for gene in genes], dtype=object)
    chrom = normalize_chromosomes(given.where(given.notna(), UNKNOWN))
    is_known = chromosome_ids(chrom) > 0
    if not is_known.all():
        some = [gene for gene, there in zip(genes, is_known, strict=True) if not there][:3]
        logger.warning(
            "%d of %d genes have no chromosome among chr1-22, X, Y, for example %s; they get the token %s. "
            "Name chromosomes in var['chrom'] of the genes, or pass gene_chromosomes=.",
            int((~is_known).sum()),
            len(genes),
            ", ".join(some),
            UNKNOWN,
        )
    return np.where(is_known, chrom, UNKNOWN)
