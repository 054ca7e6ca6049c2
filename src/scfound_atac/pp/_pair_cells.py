"""`pair_cells`: the same names for the same cells of two modalities."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._anndata import get_atac, role_of, without_pulling
from .._arguments import check_arguments
from .._docs import shared_docs
from .._logging import logger
from ..data.pairing import match_names

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@shared_docs
def pair_cells(mdata: MuData, *, modality: str | None = None, rna_modality: str = "rna") -> MuData:
    """Give cells of two modalities the same names where their names differ by more than the barcode.

    A MuData, and every function that learns from accessibility and expression together, pairs cells by equal ``obs_names``. Files of the
    two assays often name the same cell differently: ``AAACAGCC-1`` and ``AAACAGCC-1_rna``, or ``sample#AAACAGCC-1``. Names are the same
    here if they consist of the same words, letters and digits between other characters, in any order. Words that several cells of one
    modality have and no cell of the other, such as the name of the assay or the sample, do not count; barcodes always do. Names that
    cannot be told apart in this way, for example barcodes that several samples have while only one modality says which sample it is, are
    left as they are. Barcodes that are spelled in another way (the reverse complement, or another list of the vendor) are not found.

    Parameters
    ----------
    mdata
        MuData with both modalities. It is not changed.
    modality
        {modality}
    rna_modality
        Name of the other modality, whose cells are renamed.

    Returns
    -------
    A new MuData with copies of all modalities. Paired cells of `rna_modality` have the names of the accessibility modality, and the order
    of cells in every modality stays as it was. Columns of ``obs`` that belong to the MuData itself are taken over, those of accessibility
    first; so is ``uns``. What depends on the old set of cells (``obsm``, ``obsp``) is left out. The log says how many cells are paired.

    Raises
    ------
    KeyError
        If a modality does not exist.
    TypeError
        If `mdata` is not a MuData.
    ValueError
        If names repeat within a modality, no cells can be paired, or a renamed cell would get the name of another one.

    Examples
    --------
    >>> import mudata
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> rna = mdata["rna"].copy()
    >>> rna.obs_names = "sample#" + rna.obs_names + "_rna"
    >>> apart = mudata.MuData({"atac": mdata["atac"], "rna": rna})
    >>> sfa.pp.pair_cells(apart).n_obs
    3000
    """
    from mudata import MuData

    check_arguments(modality=modality, rna_modality=rna_modality)
    if not isinstance(mdata, MuData):
        get_atac(mdata, None, "mdata")
        msg = "Expected MuData with both modalities as mdata, got AnnData: mdata = mudata.MuData({'atac': atac, 'rna': rna})."
        raise TypeError(msg)
    atac = get_atac(mdata, modality, "mdata")
    rna = get_atac(mdata, rna_modality, "mdata", modality_argument="rna_modality", holds="expression")
    for one, name in ((atac, modality), (rna, rna_modality)):
        if not one.obs_names.is_unique:
            role = role_of(mdata, name, "mdata")
            msg = f"Names of cells repeat in {role}: call {role}.obs_names_make_unique() first."
            raise ValueError(msg)
    of_atac, of_rna = match_names(atac.obs_names, rna.obs_names)
    if not len(of_atac):
        msg = (
            f"No cells can be paired: {role_of(mdata, modality, 'mdata')} has names such as {atac.obs_names[0]!r}, and "
            f"{role_of(mdata, rna_modality, 'mdata')} such as {rna.obs_names[0]!r}. Give the same cells the same obs_names."
        )
        raise ValueError(msg)
    old = rna.obs_names.to_numpy(dtype=object)
    names = old.copy()
    names[of_rna] = atac.obs_names.to_numpy(dtype=object)[of_atac]
    renamed = pd.Index(names, name=rna.obs_names.name)
    if not renamed.is_unique:
        taken = renamed[renamed.duplicated()][0]
        msg = f"A paired cell of modality {rna_modality!r} would be named {taken!r}, as another cell of it is. Rename that one first."
        raise ValueError(msg)
    logger.info(
        "paired %d cells, %d of them renamed; %d of accessibility and %d of %r are alone",
        *(len(of_atac), int((names != old).sum()), atac.n_obs - len(of_atac), rna.n_obs - len(of_rna), rna_modality),
    )
    modalities = {name: one.copy() for name, one in mdata.mod.items()}
    modalities[rna_modality].obs_names = renamed
    return _rebuilt(mdata, modalities, dict(zip(names, old, strict=True)))


def _rebuilt(mdata: MuData, modalities: dict[str, AnnData], old_names: dict[str, str]) -> MuData:
    """A MuData of `modalities`, with the columns of ``obs`` that `mdata` itself has, and its ``uns``."""
    import mudata

    with without_pulling():
        paired = mudata.MuData(modalities)
    first = mdata.obs_names.get_indexer(paired.obs_names)
    second = mdata.obs_names.get_indexer([old_names.get(name, name) for name in paired.obs_names])
    for column, values in mdata.obs.items():
        if str(column).partition(":")[0] in mdata.mod:  # a copy of a modality's column, or the map of its rows
            continue
        ours, others = (values.take(np.where(rows < 0, 0, rows)).set_axis(paired.obs_names) for rows in (first, second))
        paired.obs[column] = ours.where((first >= 0) & ours.notna(), others)
    paired.uns.update(deepcopy(dict(mdata.uns)))
    return paired
