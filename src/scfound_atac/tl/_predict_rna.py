"""`predict_rna`: expression of genes from accessibility."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments
from .._keys import RNA_PREDICTED, check_key
from .._logging import logger
from ..data import Cells
from ._add_modality import add_modality, refuse_view
from ._embed import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint
    from ..model import RNAPredictor


def predict_rna(
    adata: AnnData | MuData,
    *,
    reference: MuData | None = None,
    predictor: RNAPredictor | str | Path | None = None,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    head: Literal["gene-query", "mlp"] = "gene-query",
    genes: Sequence[str] | None = None,
    split_key: str | None = None,
    binned: bool = False,
    layer: str | None = None,
    reference_layer: str | None = None,
    rna_layer: str | None = None,
    modality: str | None = None,
    rna_modality: str = "rna",
    genome: str | None = None,
    max_epochs: int = 60,
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    seed: int = 0,
    key_added: str = RNA_PREDICTED,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict the expression of genes in cells with accessibility, learned from cells with both.

    A pretrained network reads the cells; a small network on its vectors, and on the spectral components of the counts, learns the
    expression (`scfound_atac.model.RNAPredictor`). The cells may have other OCRs than those it is learned from. How good the prediction is
    on cells that were held out is written beside it, gene by gene: look at it before you believe a gene.

    Parameters
    ----------
    adata
        Cells to predict for: MuData with accessibility, or AnnData; counts on GRCh38.
    reference
        MuData with both modalities to learn from; `adata` itself if None, whose cells with expression are then learned from and whose other
        cells are predicted too.
    predictor
        A trained `scfound_atac.model.RNAPredictor`, or the folder of one, instead.
    model
        The pretrained network: ``"region-set"``, a ChromFound or an EpiFoundation model, by a name of `scfound_atac.hub.list_models`, a
        folder or a loaded checkpoint.
    head
        ``"gene-query"`` (bioRxiv 2025.02.05.636688), or ``"mlp"`` (arXiv 2505.12638, A.3), which is somewhat less accurate, and several
        times as fast for hundreds of genes.
    genes
        Genes to predict; all of the reference, or of the predictor, by default.
    split_key
        Column of ``obs`` whose groups, such as donors, are kept together when cells are held out.
    binned
        Predict ten levels of expression instead.
    layer, reference_layer, rna_layer
        Layers of `adata`, and of the accessibility and expression of the reference; ``X`` if None.
    modality, rna_modality
        Names of the modalities; ``"atac"`` if None, and ``"rna"``.
    genome
        Genome build of both, if it cannot be recognised.
    max_epochs, device, batch_size
        As in `scfound_atac.model.RNAPredictor.train`.
    seed
        Of everything that is random.
    key_added
        Name of the modality, or of the frame in ``obsm`` and the record in ``uns``.
    copy
        Return a copy instead of writing in place.

    Returns
    -------
    None, or the copy. Sets in a MuData

    `adata.mod['rna_predicted']` : AnnData (n_obs, n_genes), float32
        The prediction, on the scale of training. ``var`` holds the scores of each gene on held-out cells (``pearson``, ``spearman``,
        ``ccc``, ``mse``; NaN for genes that were constant there), ``uns['rna_predicted']`` the parameters and all scores.

    and in an AnnData

    `adata.obsm['rna_predicted']` : DataFrame (n_obs, n_genes), float32
        The prediction.
    `adata.uns['rna_predicted']` : dict
        ``params``; ``report``: scores over all genes, numbers of cells, scale; ``genes``: a table with the scores of each gene.

    Raises
    ------
    KeyError
        If genes, a column, layer, modality or model are missing.
    ValueError
        If no cell has both modalities, names repeat, counts or coordinates are not usable, `adata` is a view of a MuData, or a modality
        of that name is something else. `adata` is then as it was.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.predict_rna(mdata, max_epochs=5)
    >>> mdata["rna_predicted"].var["pearson"].mean() > 0.5
    True
    """
    from ..model import RNAPredictor
    from ..train.expression import gene_names

    atac = get_target(adata, modality, copy=copy)
    check_key(key_added)
    check_arguments(
        layer=layer,
        reference_layer=reference_layer,
        rna_layer=rna_layer,
        rna_modality=rna_modality,
        split_key=split_key,
        binned=binned,
        max_epochs=max_epochs,
        seed=seed,
    )
    is_mudata = atac is not adata
    if is_mudata and not copy:
        refuse_view(adata)
    if is_mudata and key_added in adata.mod and RNA_PREDICTED not in adata[key_added].uns:
        msg = f"The MuData has a modality {key_added!r} that is no prediction. Pass another key_added."
        raise ValueError(msg)
    if not is_mudata:
        refuse_lost(atac, key_added, slot="obsm", default=RNA_PREDICTED, role=role_of(adata, modality))
    wanted = None if genes is None else gene_names(genes)
    if predictor is None:
        if reference is None and not is_mudata:
            msg = "An AnnData has no expression to learn from: pass reference= a MuData with both modalities, or predictor=."
            raise ValueError(msg)
        trained = RNAPredictor(model, head=head, seed=seed)
        rna = _rna_of(
            adata if reference is None else reference, rna_modality, "adata" if reference is None else "reference"
        )
        in_frame = rna.var_names if wanted is None else wanted
    else:
        if reference is not None:
            msg = "A trained predictor= has learned already: leave reference= out."
            raise ValueError(msg)
        trained = predictor if isinstance(predictor, RNAPredictor) else RNAPredictor.load(predictor)
        in_frame = trained.genes if wanted is None else wanted
    if not is_mudata and (with_slash := [gene for gene in in_frame if "/" in gene]):
        msg = (
            f"Gene {with_slash[0]!r} cannot be a column of a frame in an h5ad file, for its slash. Rename it in the reference, leave it "
            "out with genes=, or pass a MuData, which has no such limit."
        )
        raise ValueError(msg)
    # Read first, so that nothing is trained for cells that cannot be read.
    cells = Cells.read(adata, layer=layer, genome=genome, modality=modality)
    run: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if predictor is None:
        learnt_from = cells
        if reference is not None:
            learnt_from = Cells.read(
                reference,
                layer=reference_layer,
                genome=genome,
                modality=modality,
                role="reference",
                layer_argument="reference_layer",
            )
        trained.train(
            learnt_from,
            genes=wanted,
            split_key=split_key,
            binned=binned,
            rna_layer=rna_layer,
            modality=modality,
            rna_modality=rna_modality,
            max_epochs=max_epochs,
            **run,
        )
    told = trained.predict(cells, genes=wanted, **run)

    record = {
        "params": {
            "model": trained.checkpoint.name,
            "weights_sha256": trained.checkpoint.sha256,
            "head": trained.head,
            "layer": layer or "X",
            "seed": trained.seed,
            "version": __version__,
        },
        "report": {name: value for name, value in trained.report.items() if name != "history"},
    }
    table = trained.gene_report.loc[told.columns]
    if copy:
        adata = adata.copy()
        atac = get_atac(adata, modality)
    if is_mudata:
        from anndata import AnnData

        added = AnnData(told.to_numpy(np.float32), obs=atac.obs.copy(), var=table, uns={RNA_PREDICTED: record})
        add_modality(adata, key_added, added)
        logger.info("added modality %r", key_added)
    else:
        atac.obsm[key_added] = told
        atac.uns[key_added] = record | {"genes": table}
        logger.info("added obsm[%r], uns[%r]", key_added, key_added)
    return adata if copy else None


def _rna_of(data: Any, modality: str, role: str) -> AnnData:
    """The expression of what is to be learned from."""
    from mudata import MuData

    if isinstance(data, MuData):
        return get_atac(data, modality, role, modality_argument="rna_modality", holds="expression")
    get_atac(data, None, role)
    msg = f"{role} must be a MuData with accessibility and expression, got AnnData: {role} = mudata.MuData({{'atac': atac, 'rna': rna}})."
    raise TypeError(msg)
