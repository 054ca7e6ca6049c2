"""`perturbation`: the table of predicted effects of OCRs on genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._anndata import NotFoundError, get_atac, role_of
from .._docs import shared_docs
from .._keys import PERTURBATION

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
    import pandas as pd

    target, role = get_atac(adata, modality), role_of(adata, modality)
    if not isinstance(key, str):
        msg = f"key= takes the name of a table in {role}.uns, as text; got {type(key).__name__}."
        raise TypeError(msg)
    table = target.uns.get(key)
    columns = {"ocr", "gene", "group", "change"}
    if not isinstance(table, pd.DataFrame) or not columns <= set(table.columns):
        what = "holds something else" if key in target.uns else "is not there"
        msg = (
            f"{role}.uns[{key!r}], the table of perturbations, {what}. Run sfa.tl.perturb_ocrs({'adata' if role == 'adata' else 'mdata'}, "
            "predictor=..., ocrs=...) first, or pass key= the name that was its key_added."
        )
        raise NotFoundError(msg)
    for column, given in (("ocr", ocr), ("gene", gene), ("group", group)):
        if given is None:
            continue
        names = (
            [given]
            if isinstance(given, str)
            else list(given)
            if isinstance(given, list | tuple | pd.Index | pd.Series)
            else None
        )
        if names is None or not all(isinstance(name, str) for name in names):
            msg = f"{column}= takes a name or a list of names, as text; got {given!r:.60}."
            raise TypeError(msg)
        there = table[column].astype(object)
        if missing := [name for name in names if not (there == name).any()]:
            known = there.unique()
            msg = (
                f"{role}.uns[{key!r}] has no {column} {missing[0]!r}; it has {len(known)}: {', '.join(map(str, known[:5]))}"
                f"{', ...' if len(known) > 5 else ''}."
            )
            raise NotFoundError(msg)
        table = table[there.isin(names)]
    return table.copy()
