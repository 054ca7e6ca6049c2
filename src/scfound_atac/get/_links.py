"""`links`: the table of `tl.link_enhancers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._docs import shared_docs
from .._keys import LINKS
from ._table import rows_of, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


@shared_docs
def links(
    adata: AnnData | MuData,
    *,
    gene: str | Sequence[str] | None = None,
    group: str | Sequence[str] | None = None,
    key: str = LINKS,
    modality: str | None = None,
) -> pd.DataFrame:
    """Read the links of `scfound_atac.tl.link_enhancers`, the strongest of each gene and group first.

    Parameters
    ----------
    adata
        The object that was passed to `scfound_atac.tl.link_enhancers`.
    gene
        One or several genes, by symbol or Ensembl id; all if None.
    group
        One or several groups; all if None.
    key
        Name of the table in ``uns``.
    modality
        {modality}

    Returns
    -------
    A copy of the rows, numbered from 0, with the columns that `scfound_atac.tl.link_enhancers` describes. There are none for a gene without
    an OCR in the window.

    Raises
    ------
    KeyError
        If there is no such table, or it has no such gene or group.

    Examples
    --------
    >>> sfa.tl.link_enhancers(adata, genes=["CCL4"])
    >>> sfa.get.links(adata, gene="CCL4").head()
    """
    table, where = rows_of(adata, key, "tl.link_enhancers", modality)
    selected = select(table, {"gene": (gene, ("gene", "gene_id")), "group": (group, ("group",))}, where)
    selected = selected.sort_values(["group", "gene", "score"], ascending=[True, True, False], kind="stable")
    return selected.reset_index(drop=True)
