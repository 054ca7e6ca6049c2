"""`perturbation`: the table of predicted effects of OCRs on genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._docs import shared_docs
from .._keys import PERTURBATION
from ._table import rows_of, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


@shared_docs
def perturbation(
    adata: AnnData | MuData,
    *,
    ocr: str | Sequence[str] | None = None,
    gene: str | Sequence[str] | None = None,
    group: str | Sequence[str] | None = None,
    key: str = PERTURBATION,
    modality: str | None = None,
) -> pd.DataFrame:
    """Read the table that `scfound_atac.tl.perturb_ocrs` wrote, or some rows of it.

    Parameters
    ----------
    adata
        What `scfound_atac.tl.perturb_ocrs` wrote into: an AnnData, or a MuData, of which the modality `modality` is read.
    ocr, gene, group
        Name, or names, of OCRs or sets, of genes and of groups whose rows are wanted; by default all.
    key
        Name of the table in ``uns``.
    modality
        {modality}

    Returns
    -------
    A copy of the rows, with the columns ``ocr``, ``gene``, ``group``, ``n_cells``, ``before``, ``after``, ``change`` and
    ``relative_change``.

    Raises
    ------
    KeyError
        If there is no such table, or it has no row with a name.
    TypeError
        If a name is no text.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> predictor = sfa.model.RNAPredictor().train(mdata, max_epochs=5)
    >>> ocrs = list(mdata["atac"].var_names[:20])
    >>> sfa.tl.perturb_ocrs(mdata, predictor=predictor, ocrs=ocrs, groupby="cell_type")
    >>> table = sfa.get.perturbation(mdata, ocr=ocrs[0], gene=["CCL4", "MS4A1"])
    >>> strongest = table.reindex(table["change"].abs().sort_values(ascending=False).index)
    """
    table, where = rows_of(adata, key, "tl.perturb_ocrs", modality)
    return select(table, {"ocr": (ocr, ("ocr",)), "gene": (gene, ("gene",)), "group": (group, ("group",))}, where)
