"""`filter_cells`: drop cells with too few or too many open OCRs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac, get_target
from .._arguments import check_arguments
from .._docs import shared_docs
from .._logging import logger
from ._counts import read_counts, subset

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray


@shared_docs
def filter_cells(
    adata: AnnData | MuData,
    *,
    min_ocrs: int | None = 1000,
    max_ocrs: int | None = 60_000,
    layer: str | None = None,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Keep cells whose number of open (non-zero) OCRs lies within bounds.

    The defaults are those of ChromFound (arXiv 2505.12638, appendix C), which are meant for whole-genome peak sets.

    Of a MuData the cells of the accessibility modality are filtered, and the others stay as they are: afterwards some cells have expression
    alone. Filter each modality first, keep the cells that all of them have next (``muon.pp.intersect_obs(mdata)``), and only then compute
    embeddings, neighbours and clusters, which would belong to other cells otherwise. The log says how many cells are left in each.

    Parameters
    ----------
    adata
        Cells x OCRs with counts. It is subset in place, as by `scanpy.pp.filter_cells`.
    min_ocrs, max_ocrs
        Minimum and maximum number of open OCRs, both included; None for no bound.
    layer
        {layer}
    modality
        {modality}
    copy
        {copy}

    Returns
    -------
    None, or the filtered copy if `copy`. Sets ``obs["n_ocrs"]``, the number of open OCRs.

    Raises
    ------
    ValueError
        If no cell would be left, values are negative or not finite, or `adata` is backed.
    """
    get_target(adata, modality, copy=copy, in_place=True)
    check_arguments(min_ocrs=min_ocrs, max_ocrs=max_ocrs)
    n_ocrs = np.diff(read_counts(adata, layer, modality).indptr).astype(np.int64)
    keep = cells_to_keep(n_ocrs, min_ocrs, max_ocrs)
    data = adata.copy() if copy else adata
    atac = get_atac(data, modality)
    atac.obs["n_ocrs"] = n_ocrs
    subset(data, atac, cells=keep)
    logger.info("kept %d of %d cells", atac.n_obs, len(keep))
    if data is not atac and (others := {name: mod.n_obs for name, mod in data.mod.items() if mod is not atac}):
        logger.info(
            "other modalities still have all their cells (%s): keep those of all with muon.pp.intersect_obs, before embedding",
            ", ".join(f"{name}: {n}" for name, n in others.items()),
        )
    return data if copy else None


def cells_to_keep(n_ocrs: NDArray[np.int64], min_ocrs: int | None, max_ocrs: int | None) -> NDArray[np.bool_]:
    """Mask of the cells within the bounds; raises ValueError if there are none."""
    low, high = min_ocrs or 0, np.inf if max_ocrs is None else max_ocrs
    keep = (n_ocrs >= low) & (n_ocrs <= high)
    if not keep.any():
        median = int(np.median(n_ocrs)) if len(n_ocrs) else 0
        msg = (
            f"No cell has between {low} and {high} open OCRs; the median is {median}. Use bounds that fit, for example "
            f"sfa.pp.filter_cells(adata, min_ocrs={median // 4}, max_ocrs=None)."
        )
        raise ValueError(msg)
    return keep
