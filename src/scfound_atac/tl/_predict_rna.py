"""`predict_rna`: expression of genes from accessibility."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments
from .._docs import shared_docs
from .._keys import RNA_PREDICTED, check_key
from .._logging import logger
from ..data import Cells
from ..hub.registry import DEFAULT_MODEL
from ._add_modality import add_modality, check_suffix, log_added, refuse_view, with_suffix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint
    from ..model import RNAPredictor


@shared_docs
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
    gene_suffix: str = "",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict the expression of genes in cells with accessibility, as learned from cells with both.

    A pretrained network reads the cells; a small network learns the expression from its vectors and from spectral components of the counts
    (`scfound_atac.model.RNAPredictor`). The cells may have other OCRs than those of the reference. Scores of each gene on held-out cells
    are written with the prediction: check them before you rely on a gene.

    Parameters
    ----------
    adata
        Cells to predict for: MuData with accessibility, or AnnData; counts on GRCh38.
    reference
        MuData with both modalities to learn from. If None, the cells of `adata` that have expression are learned from, and all its cells
        are predicted.
    predictor
        A trained `scfound_atac.model.RNAPredictor`, or the folder of one, instead of `reference`.
    model
        {backbone}
    head
        ``"gene-query"`` (bioRxiv 2025.02.05.636688), or ``"mlp"`` (arXiv 2505.12638, section A.3), which is somewhat less accurate and
        several times faster for hundreds of genes.
    genes
        Genes to predict; by default all genes of the reference or of the predictor.
    split_key
        Column of ``obs`` with groups, such as donors, that are kept together when cells are held out.
    binned
        Predict ten levels of expression instead of values.
    layer, reference_layer, rna_layer
        Layers of `adata`, and of the accessibility and the expression of the reference; ``X`` if None.
    modality
        {modality}
    rna_modality
        Name of the modality with expression.
    genome
        Genome build of both, ``"GRCh38"``, if it cannot be recognised.
    max_epochs
        Maximum number of passes over the training cells; the epoch with the best mean correlation per gene on held-out cells is kept.
    device
        {device}
    batch_size
        {batch_size}
    seed
        {seed}
    key_added
        Name of the new modality of a MuData, or of the keys in ``obsm`` and ``uns`` of an AnnData.
    gene_suffix
        Text behind the name of each gene in a new modality of a MuData, for example ``"_predicted"``; the gene itself is then in
        ``var["gene"]``. Without it a gene has the same name where it is measured and where it is predicted, and plots of the whole
        MuData by gene (``muon.pl.embedding``) fail unless the modality is named, one at a time: ``color="rna_predicted:CD3E"``.
    copy
        {copy}

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
        If genes, a column, layer, modality or model do not exist.
    ValueError
        If no cell has both modalities, names repeat, counts or coordinates cannot be used, `adata` is a view of a MuData, or there is a
        modality named `key_added` that this function did not write. `adata` is unchanged then.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.predict_rna(mdata, max_epochs=5)
    >>> bool(mdata["rna_predicted"].var["pearson"].mean() > 0.5)
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
        gene_suffix=gene_suffix,
    )
    is_mudata = atac is not adata
    check_suffix(gene_suffix, is_mudata=is_mudata)
    if is_mudata and not copy:
        refuse_view(adata)
    if is_mudata and key_added in adata.mod and RNA_PREDICTED not in adata[key_added].uns:
        msg = f"The MuData has a modality {key_added!r} that is not a prediction. Pass another key_added."
        raise ValueError(msg)
    if not is_mudata:
        refuse_lost(atac, key_added, slot="obsm", default=RNA_PREDICTED, role=role_of(adata, modality))
    wanted = None if genes is None else gene_names(genes)
    if predictor is None:
        if reference is None and not is_mudata:
            msg = "An AnnData has no expression to learn from: pass a MuData with both modalities as reference=, or a trained predictor=."
            raise ValueError(msg)
        trained = RNAPredictor(model, head=head, seed=seed)
        rna = _rna_of(
            adata if reference is None else reference, rna_modality, "adata" if reference is None else "reference"
        )
        in_frame = rna.var_names if wanted is None else wanted
    else:
        if reference is not None:
            msg = "A trained predictor= needs no reference: leave out reference=."
            raise ValueError(msg)
        trained = predictor if isinstance(predictor, RNAPredictor) else RNAPredictor.load(predictor)
        in_frame = trained.genes if wanted is None else wanted
    if not is_mudata and (with_slash := [gene for gene in in_frame if "/" in gene]):
        msg = (
            f"Gene {with_slash[0]!r} cannot be a column of a frame in an h5ad file, because of its slash. Rename it in the reference, "
            "leave it out with genes=, or pass a MuData, which has no such limit."
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
    predicted = trained.predict(cells, genes=wanted, **run)

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
    table = trained.gene_report.loc[predicted.columns]
    if copy:
        adata = adata.copy()
        atac = get_atac(adata, modality)
    if is_mudata:
        from anndata import AnnData

        added = AnnData(predicted.to_numpy(np.float32), obs=atac.obs.copy(), var=table, uns={RNA_PREDICTED: record})
        add_modality(adata, key_added, with_suffix(added, gene_suffix))
        log_added(adata, key_added)
    else:
        atac.obsm[key_added] = predicted
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
