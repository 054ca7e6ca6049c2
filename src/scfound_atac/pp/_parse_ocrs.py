"""`parse_ocrs`: write the coordinates of OCRs into ``var``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._anndata import get_atac, get_target, role_of
from .._docs import shared_docs
from .._logging import logger
from ..data.cells import read_columns
from ..genome import chromosome_ids

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray


@shared_docs
def parse_ocrs(
    adata: AnnData | MuData, *, genome: str | None = None, modality: str | None = None, copy: bool = False
) -> AnnData | MuData | None:
    """Write the coordinates of OCRs into ``var``, and make sure that they are on GRCh38.

    Coordinates are read from columns of ``var``, or else from the names, see :func:`scfound_atac.genome.get_ocrs`. The genome build is
    the one that `genome` or ``uns["genome"]`` declares, or else it is recognised, see :func:`scfound_atac.genome.check_genome`. On an
    error nothing is written.

    Parameters
    ----------
    adata
        Cells x OCRs.
    genome
        {genome}
    modality
        {modality}
    copy
        {copy}

    Returns
    -------
    None, or the copy. Sets

    `.var["chrom"]`
        Chromosome, ``"chr1"`` to ``"chr22"``, ``"chrX"``, ``"chrY"``. Other contigs keep their name; models leave them out.
    `.var["start"]`, `.var["end"]`
        Position of the first base, and of the base after the last one, 0-based, int64.
    `.uns["genome"]`
        ``"GRCh38"``.

    Raises
    ------
    ValueError
        If names cannot be read, coordinates are invalid or repeated, or OCRs are not on GRCh38.
    """
    atac = get_target(adata, modality, copy=copy)
    columns, ocrs = read_columns(atac, role_of(adata, modality), genome)

    result = adata.copy() if copy else adata
    atac = get_atac(result, modality)
    # A single assignment, so that existing columns keep their place and a view becomes a copy only once.
    atac.var = _with_coordinates(atac.var, columns, ocrs)
    atac.uns["genome"] = "GRCh38"
    outside = chromosome_ids(ocrs["chrom"]) == 0
    if outside.any():
        contigs = ", ".join(pd.unique(ocrs["chrom"][outside])[:3])
        logger.info(
            "%d of %d OCRs lie outside chr1-22, X and Y (%s); models leave them out.", outside.sum(), len(ocrs), contigs
        )
    return result if copy else None


def _with_coordinates(var: pd.DataFrame, columns: NDArray[np.int64], ocrs: pd.DataFrame) -> pd.DataFrame:
    """`var` with the coordinates of OCRs in their rows; other rows, such as those of genes, keep their values."""
    if len(columns) == len(var):
        return var.assign(**{name: ocrs[name].to_numpy() for name in ocrs})
    var = var.copy()
    for name in ocrs:
        values = var[name].astype(object).to_numpy(copy=True) if name in var else np.full(len(var), None, dtype=object)
        values[columns] = ocrs[name].to_numpy()
        var[name] = values if name == "chrom" else pd.to_numeric(pd.Series(values, index=var.index), errors="coerce")
    return var
