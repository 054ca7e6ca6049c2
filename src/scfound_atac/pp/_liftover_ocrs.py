"""`liftover_ocrs`: move OCRs from another human genome build to GRCh38."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._anndata import get_atac, role_of
from .._docs import shared_docs
from .._logging import logger
from ..data.cells import peaks_of
from ..genome import CHROMOSOME_SIZES, liftover, read_chain
from ..genome.build import declared_genome
from ..genome.ocrs import read_coordinates

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..genome import Chain


def _check_chain(chain: Chain, ocrs: pd.DataFrame) -> None:
    grch38 = CHROMOSOME_SIZES["GRCh38"]
    if any(size != grch38.get(name, size) for name, size in chain.destination_sizes.items()):
        msg = "The chain does not lead to GRCh38: use one named like hg19ToHg38.over.chain.gz."
        raise ValueError(msg)
    sizes = ocrs["chrom"].map(chain.source_sizes)
    beyond = (ocrs["end"] > sizes).to_numpy()
    if beyond.any():
        some = ocrs[beyond].iloc[:3]
        first = ", ".join(f"{c}:{s}-{e}" for c, s, e in zip(some["chrom"], some["start"], some["end"], strict=True))
        msg = (
            f"{beyond.sum()} of {len(ocrs)} OCRs lie beyond the end of their chromosome in the build the chain starts at, among them "
            f"{first}. Are they on that build? If they are on GRCh38 already, call sfa.pp.parse_ocrs(adata) instead."
        )
        raise ValueError(msg)


@shared_docs
def liftover_ocrs(adata: AnnData | MuData, *, chain: str | Path, modality: str | None = None) -> AnnData:
    """Move OCRs to GRCh38.

    An OCR can be moved if both its ends lie in one chain and its length changes by at most a tenth, see
    :func:`scfound_atac.genome.liftover`. Other OCRs are dropped, and so are all OCRs that would get the same coordinates.

    Parameters
    ----------
    adata
        Cells x OCRs on the build from which the chain leads to GRCh38, such as hg19. It is not changed.
    chain
        UCSC chain file to GRCh38, plain or gzipped, such as ``hg19ToHg38.over.chain.gz`` from
        https://hgdownload.soe.ucsc.edu/goldenPath/hg19/liftOver/.
    modality
        {modality}

    Returns
    -------
    New AnnData in memory with the OCRs that were moved, in the old order, named ``chr1:100-200``, and with

    `.var["chrom"]`, `.var["start"]`, `.var["end"]`
        Coordinates on GRCh38, 0-based and half-open.
    `.var["liftover_from"]`
        Previous names of the OCRs.
    `.uns["genome"]`
        ``"GRCh38"``.
    `.uns["liftover_ocrs"]`
        ``n_ocrs``, ``n_lifted``, ``n_unmapped`` and ``n_collided``.

    Raises
    ------
    ValueError
        If OCRs are declared to be on GRCh38 already, the file is not a chain to GRCh38, OCRs lie beyond the end of their chromosome, or
        none can be moved.
    """
    atac = get_atac(adata, modality)
    role = role_of(adata, modality)
    declared = declared_genome(atac.uns.get("genome"))
    if declared is not None and declared.lower() in {"grch38", "hg38"}:
        msg = f'{role}.uns["genome"] says {declared}: there is nothing to lift. If that is wrong, del {role}.uns["genome"] first.'
        raise ValueError(msg)
    columns, var = peaks_of(atac, role)
    ocrs = read_coordinates(var, role)
    table = read_chain(chain)
    _check_chain(table, ocrs)

    lifted = liftover(ocrs, table)
    mapped = lifted["chrom"].notna().to_numpy()
    collided = lifted.duplicated(keep=False).to_numpy() & mapped
    kept = np.flatnonzero(mapped & ~collided)
    if not len(kept):
        msg = f"None of {len(ocrs)} OCRs can be moved with {chain}. Does it start at their genome build?"
        raise ValueError(msg)

    lifted = lifted.iloc[kept].astype({"start": np.int64, "end": np.int64})
    view = atac[:, kept if columns is None else columns[kept]]
    result = view.to_memory() if atac.isbacked else view.copy()
    var = result.var.assign(
        liftover_from=result.var_names.to_numpy(), **{name: lifted[name].to_numpy() for name in lifted}
    )
    var.index = pd.Index(
        lifted["chrom"] + ":" + lifted["start"].astype(str) + "-" + lifted["end"].astype(str), dtype=object
    )
    var.index.name = None
    result.var = var
    result.uns["genome"] = "GRCh38"
    summary = {
        "n_ocrs": len(ocrs),
        "n_lifted": len(kept),
        "n_unmapped": int((~mapped).sum()),
        "n_collided": int(collided.sum()),
    }
    result.uns["liftover_ocrs"] = summary
    logger.info(
        "%(n_lifted)d of %(n_ocrs)d OCRs lifted to GRCh38; %(n_unmapped)d unmapped, %(n_collided)d collided.", summary
    )
    return result
