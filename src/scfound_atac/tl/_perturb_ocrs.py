"""`perturb_ocrs`: the predicted change of expression when OCRs are closed, weakened or strengthened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, role_of
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._keys import PERTURBATION, check_key
from .._logging import logger
from ..data import Cells
from ._groups import groups_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..inference.perturbation import Effects
    from ..model import RNAPredictor

# Below this predicted mean on the scale of training no relative change is given: it would be a quotient of two small numbers. On the usual
# scale, log(1 + counts per 10,000), it is a thousandth of a count.
_MIN_BEFORE = 1e-3


@shared_docs
def perturb_ocrs(
    adata: AnnData | MuData,
    *,
    predictor: RNAPredictor | str | Path,
    ocrs: str | Sequence[str] | Mapping[str, str | Sequence[str]],
    genes: Sequence[str] | None = None,
    to: float = 0.0,
    groupby: str | None = None,
    layer: str | None = None,
    modality: str | None = None,
    genome: str | None = None,
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    key_added: str = PERTURBATION,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict how expression changes when OCRs are closed, weakened or strengthened in all cells (arXiv 2505.12638, section A.4).

    A trained predictor reads every cell twice: as it is, and with the values of an OCR multiplied by `to`; the difference of the two
    predictions is averaged over the cells. It is what the predictor has learned from cells that were not perturbed, so it ranks candidates
    for an experiment and does not replace it. A predictor that does not predict a gene on held-out cells (``predictor.gene_report``) says
    nothing about its OCRs either. Train it with ``local=250_000`` or so, which gives the OCRs around each gene weights of their own: in
    simulated cells with 20,000 OCRs of which one drives a gene, this OCR was first among its 200 neighbours for 18 of 20 genes, and for
    6 of 20 without (``benchmarks/logs/planted_links.txt``). Changes come out smaller than they are, because the weights are penalised.

    The factor applies to the value that the network reads: after scaling to the total of the cell and ``log(1 + x)``, if the network has
    these steps. All other values of the cell stay as they are. An OCR that is closed in a cell has the value 0 there, which no factor
    changes: `to` above 1 strengthens an OCR where it is open, and cannot open it. The mean is over all cells, so that the effect of an OCR
    also depends on the fraction of cells in which it is open. EpiFoundation networks only read which OCRs are open; for their vectors
    every `to` above 0 is the same as 1.

    What a cell and its perturbed copies have in common is computed once. In a region-set network, one message is taken from a sum; in a
    ChromFound network, only the windows are computed that the change reaches in genome order. EpiFoundation runs every copy anew.

    Parameters
    ----------
    adata
        {adata_grch38}
    predictor
        A trained `scfound_atac.model.RNAPredictor`, or the folder of one.
    ocrs
        OCRs that are perturbed one at a time, as names in ``var_names`` or as coordinates in any spelling (``"chr1:100-600"``); or a
        dictionary from names of sets to the OCRs that are perturbed together. An empty list gives an empty table.
    genes
        Genes whose change is predicted; by default all genes of the predictor.
    to
        Factor of the value of an OCR: 0 is a knock-out, a value between 0 and 1 a knock-down, a value above 1 an activation.
    groupby
        Column of ``obs`` with groups over which changes are averaged; by default there is one group, ``"all"``. Cells without a label are
        left out.
    layer
        {layer}
    modality
        {modality}
    genome
        {genome}
    device
        {device}
    batch_size
        {batch_size}
    key_added
        Name of the table in ``uns``.
    copy
        {copy}

    Returns
    -------
    None, or the copy. Sets in the AnnData, or in the accessibility modality of a MuData, what `scfound_atac.get.perturbation` reads:

    `adata.uns['sfa_perturbation']` : DataFrame
        A row for each OCR or set, gene and group. ``ocr``: name as given in `ocrs`; ``gene``; ``group``; ``n_cells``: number of cells of
        the group; ``before``, ``after``: mean predicted expression on the scale of training; ``change``: after minus before;
        ``relative_change``: change divided by before, NaN where before is below 0.001.
    `adata.uns['sfa_perturbation_params']` : dict
        The model and the arguments.

    Raises
    ------
    KeyError
        If an OCR is not in the data, a gene is not in the predictor, or a column, layer or modality does not exist.
    RuntimeError
        If the predictor is not trained.
    ValueError
        If `to` is negative or not finite, names repeat, a set is empty, counts or coordinates cannot be used, or something else is stored
        under `key_added`. `adata` is unchanged then.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> predictor = sfa.model.RNAPredictor().train(mdata, max_epochs=5)
    >>> ocrs = list(mdata["atac"].var_names[:20])
    >>> sfa.tl.perturb_ocrs(mdata, predictor=predictor, ocrs=ocrs, genes=["CCL4"])
    >>> table = sfa.get.perturbation(mdata, gene="CCL4")
    >>> len(table)
    20
    """
    from ..model import RNAPredictor

    target = get_target(adata, modality, copy=copy)
    check_key(key_added, PERTURBATION)
    check_single(groupby=groupby)
    check_arguments(layer=layer, groupby=groupby, to=to)
    if not (np.isfinite(to) and to >= 0):
        msg = f"to={to} must be a number of at least 0: 0 closes an OCR, 0.5 halves its value, 2 doubles it."
        raise ValueError(msg)
    _refuse_foreign(target, key_added, role_of(adata, modality))
    wanted = _wanted(ocrs)
    trained = predictor if isinstance(predictor, RNAPredictor) else RNAPredictor.load(predictor)
    genes = trained.check_genes(genes)
    cells = Cells.read(adata, layer=layer, genome=genome, modality=modality)
    sets = _as_matrix(cells, wanted)
    codes, groups = groups_of(cells, groupby)
    effects = trained.perturb(
        cells,
        sets,
        to=float(to),
        genes=genes,
        groups=codes,
        n_groups=len(groups),
        device=device,
        batch_size=batch_size,
    )
    _tell_closed([*wanted], effects, to)

    params = {
        "model": trained.checkpoint.name,
        "weights_sha256": trained.checkpoint.sha256,
        "head": trained.head,
        "scale": trained.scale,
        "to": float(to),
        "groupby": groupby or "",
        "layer": layer or "X",
        "version": __version__,
    }
    if copy:
        adata = adata.copy()
        target = get_atac(adata, modality)
    target.uns[key_added] = _table([*wanted], genes, groups, effects)
    target.uns[f"{key_added}_params"] = params
    logger.info(
        "added uns[%r]: %d OCRs or sets x %d genes x %d groups", key_added, len(wanted), len(genes), len(groups)
    )
    return adata if copy else None


def _wanted(ocrs: Any) -> dict[str, list[str]]:
    """Names of the perturbations, and the OCRs of each.

    Raises
    ------
    TypeError
        If `ocrs` is no text, list of texts or dictionary of them.
    ValueError
        If names repeat or a set is empty.
    """
    if isinstance(ocrs, Mapping):
        if wrong := [name for name in ocrs if not isinstance(name, str)]:
            msg = f"ocrs= takes a dictionary from names of sets, as text, to OCRs; got the name {wrong[0]!r:.40}."
            raise TypeError(msg)
        sets = {str(name): _texts(given, f"ocrs[{name!r}]") for name, given in ocrs.items()}
        if empty := [name for name, given in sets.items() if not given]:
            msg = f"ocrs[{empty[0]!r}] holds no OCR. Leave this set out, or give it OCRs."
            raise ValueError(msg)
        return sets
    names = _texts(ocrs, "ocrs")
    counts = Counter(names)
    if repeated := [name for name, n in counts.items() if n > 1]:
        msg = f"{len(repeated)} OCRs repeat in ocrs=, among them {repeated[0]!r}. Take each once: ocrs=list(dict.fromkeys(ocrs))."
        raise ValueError(msg)
    return {name: [name] for name in names}


def _texts(given: Any, argument: str) -> list[str]:
    """One or several names of OCRs as a list."""
    if isinstance(given, str):
        return [given]
    is_table = hasattr(given, "columns") or hasattr(given, "obs_names")
    names = list(given) if isinstance(given, Iterable) and not is_table else None
    wrong = [] if names is None else [name for name in names if not isinstance(name, str)]
    if names is None or wrong:
        got = type(given).__name__ + (f" with {wrong[0]!r:.40}" if wrong else "")
        msg = f"{argument}= takes names of OCRs as a list of texts, or a dictionary from names of sets to such lists; got {got}."
        raise TypeError(msg)
    return [str(name) for name in names]


def _as_matrix(cells: Cells, wanted: Mapping[str, Sequence[str]]) -> csr_matrix:
    """1 for each OCR of each perturbation, (n_perturbations, n_ocrs)."""
    from scipy.sparse import csr_matrix

    found = cells.find_ocrs([name for names in wanted.values() for name in names], "ocrs")
    indptr = np.append(0, np.cumsum([len(names) for names in wanted.values()]))
    sets = csr_matrix((np.ones(len(found), dtype=np.float32), found, indptr), shape=(len(wanted), cells.n_ocrs))
    sets.sum_duplicates()  # an OCR that a set holds twice, by two spellings
    sets.data[:] = 1
    return sets


def _refuse_foreign(target: AnnData, key: str, role: str) -> None:
    """Raise ValueError if something that this function did not write is stored under `key`."""
    params = target.uns.get(f"{key}_params")
    is_own = hasattr(params, "get") and "version" in params
    if key != PERTURBATION and key in target.uns and not is_own:
        msg = (
            f"{role}.uns[{key!r}] is there already and was not written by this function. Pass another key_added, or remove it first: "
            f"del {role}.uns[{key!r}]."
        )
        raise ValueError(msg)


def _tell_closed(names: list[str], effects: Effects, to: float) -> None:
    """Log a warning about perturbations that change no cell."""
    closed = np.flatnonzero(effects.n_changed.sum(axis=1) == 0)
    if len(closed) and to != 1:
        logger.warning(
            "%d of %d perturbations change nothing, because their OCRs are closed in every cell (%s); their change is 0",
            len(closed),
            len(names),
            ", ".join(names[i] for i in closed[:3]),
        )


def _table(names: list[str], genes: list[str], groups: list[str], effects: Effects) -> pd.DataFrame:
    """A row for each perturbation, gene and group, in this order."""
    import pandas as pd

    n, n_genes, n_groups = len(names), len(genes), len(groups)

    def column(codes: NDArray[np.int64], categories: list[str]) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, pd.Index(categories, dtype=object))

    before = np.tile(effects.before.T.ravel(), n)
    change = effects.change.transpose(0, 2, 1).ravel()
    relative = np.divide(change, before, out=np.full(len(change), np.nan), where=before >= _MIN_BEFORE)
    return pd.DataFrame(
        {
            "ocr": column(np.repeat(np.arange(n), n_genes * n_groups), names),
            "gene": column(np.tile(np.repeat(np.arange(n_genes), n_groups), n), genes),
            "group": column(np.tile(np.arange(n_groups), n * n_genes), groups),
            "n_cells": np.tile(effects.n_cells, n * n_genes),
            "before": before,
            "after": before + change,
            "change": change,
            "relative_change": relative,
        }
    )
