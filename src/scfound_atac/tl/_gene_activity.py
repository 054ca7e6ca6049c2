"""`gene_activity`: accessibility summed over genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._keys import GENE_ACTIVITY, check_key
from .._logging import logger
from ..data import Cells, prepare_rows
from ..datasets.gene_table import given_or_bundled
from ..genome import gene_weights, read_genes
from ._add_modality import add_modality, check_suffix, log_added, refuse_view, with_suffix

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import csr_matrix

    from ..datasets.gene_table import Genes

_TARGET_SUM = 1e4  # counts per cell after scaling, as is usual for expression


@shared_docs
def gene_activity(
    adata: AnnData | MuData,
    *,
    genes: Genes = None,
    upstream: int = 2000,
    downstream: int = 0,
    weights: Literal["none", "distance"] = "none",
    normalize: Literal["log1p", "total"] | None = "log1p",
    layer: str | None = None,
    genome: str | None = None,
    modality: str | None = None,
    key_added: str = GENE_ACTIVITY,
    gene_suffix: str = "",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Sum the counts of a cell over the promoter and body of each gene.

    The simplest estimate of expression from accessibility, and the baseline that `scfound_atac.tl.predict_rna` has to beat. An OCR that
    overlaps several genes counts for each of them; an OCR counts once for a gene, wherever its bases lie.

    Parameters
    ----------
    adata
        {adata_grch38}
    genes
        Path of a BED file, a DataFrame with ``chrom``, ``start``, ``end``, ``name`` and ``strand``, or None for the table
        of the package, `scfound_atac.datasets.genes`. See `scfound_atac.genome.read_genes`.
    upstream, downstream
        Number of bases by which the body of a gene is extended before the start of its transcription and beyond its end. The defaults are
        those of GeneActivity in Signac (Stuart et al. 2021).
    weights
        ``"none"``: OCRs that overlap the extended body, each with weight 1. ``"distance"``: OCRs up to 100 kb away as well, with weight
        ``exp(-d / 5000) + exp(-1)`` at a distance of d bases, as in ArchR (Granja et al. 2021).
    normalize
        - ``"log1p"``: counts are scaled to 10,000 per cell over all OCRs, summed over genes, and ``log(1 + x)`` is taken, so that cells of
          different depth can be compared.
        - ``"total"``: the same without the logarithm.
        - None: sums of counts, as in Signac.

        Depth is that of the whole cell, so the value of a gene does not depend on which other genes are in the table.
    layer
        {layer}
    genome
        {genome}
    modality
        {modality}
    key_added
        Name of what is written.
    gene_suffix
        Text behind the name of each gene in a new modality of a MuData, for example ``"_activity"``; the gene itself is then in
        ``var["gene"]``. Without it a gene has the same name where it is measured and here, and plots of the whole MuData by gene
        (``muon.pl.embedding``) fail unless the modality is named, one at a time: ``color="gene_activity:CD3E"``.
    copy
        {copy}

    Returns
    -------
    None, or the copy. Genes that no OCR reaches are left out; the others keep the order of the table. Sets in an AnnData:

    `adata.obsm['gene_activity' | key_added]` : csr_matrix (n_obs, n_genes), float32
        The activities. They are sparse because a frame of all genes would be dense: 80 kB per cell.
    `adata.uns['gene_activity' | key_added]['genes']` : DataFrame
        One row per column of this matrix, indexed by symbol: ``chrom``, ``start``, ``end``, ``strand``, and ``n_ocrs``, the number of OCRs
        that count for the gene. ``AnnData(adata.obsm["gene_activity"], obs=adata.obs, var=adata.uns["gene_activity"]["genes"])`` puts both
        together.
    `adata.uns['gene_activity' | key_added]['params']` : dict
        Arguments and package version.

    Sets in a MuData, as a new modality:

    `mdata.mod['gene_activity' | key_added]` : AnnData (n_obs, n_genes)
        ``X`` as above, ``obs`` copied from the modality that was read, ``var`` the table of genes, and ``uns["gene_activity"]["params"]``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If coordinates are missing, unreadable, repeated or not on GRCh38; `genes` is not a table of genes; values are negative, NaN or
        infinite; an option is unknown; no OCR reaches a gene; or there is a modality named `key_added` that this function did not write.
        `adata` is unchanged then.
    KeyError
        If a layer or modality does not exist.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.gene_activity(mdata)
    >>> sc.pl.violin(mdata["gene_activity"], "CCL4", groupby="cell_type")
    """
    source = get_target(adata, modality, copy=copy)
    check_key(key_added)
    check_single(weights=weights, normalize=normalize)
    check_arguments(upstream=upstream, downstream=downstream, gene_suffix=gene_suffix)
    if normalize not in ("log1p", "total", None):
        msg = f"Unknown normalize={normalize!r}; use 'log1p', 'total' or None."
        raise ValueError(msg)
    is_mudata = source is not adata
    check_suffix(gene_suffix, is_mudata=is_mudata)
    if is_mudata and not copy:
        refuse_view(adata)
    if is_mudata and key_added in adata.mod and GENE_ACTIVITY not in adata[key_added].uns:
        msg = f"The MuData has a modality {key_added!r} that is not a gene activity. Pass another key_added."
        raise ValueError(msg)
    if not is_mudata:
        refuse_lost(source, key_added, slot="obsm", default=GENE_ACTIVITY, role=role_of(adata, modality))
    gene_table = read_genes(given_or_bundled(genes))
    cells = Cells.read(adata, layer=layer, genome=genome, modality=modality, values="any")
    table, per_ocr = _reached(cells.ocrs, gene_table, upstream, downstream, weights)
    activity = _sums(cells, per_ocr, normalize)

    params = {
        "upstream": upstream,
        "downstream": downstream,
        "weights": weights,
        "normalize": normalize or "none",
        "layer": layer or "X",
        "version": __version__,
    }
    if copy:
        adata = adata.copy()
        source = get_atac(adata, modality)
    if is_mudata:
        from anndata import AnnData

        record = {GENE_ACTIVITY: {"params": params}}
        added = AnnData(activity, obs=source.obs.copy(), var=table, uns=record)
        add_modality(adata, key_added, with_suffix(added, gene_suffix))
        log_added(adata, key_added)
    else:
        source.obsm[key_added] = activity
        source.uns[key_added] = {"params": params, "genes": table}
        logger.info("added obsm[%r], uns[%r]", key_added, key_added)
    return adata if copy else None


def _reached(
    ocrs: pd.DataFrame, genes: pd.DataFrame, upstream: int, downstream: int, weights: Literal["none", "distance"]
) -> tuple[pd.DataFrame, csr_matrix]:
    """The genes that at least one OCR reaches, and the weights (n_ocrs, n_genes) of all OCRs for them."""
    per_ocr = gene_weights(ocrs, genes, upstream=upstream, downstream=downstream, weights=weights)
    n_ocrs = per_ocr.getnnz(axis=0)
    reached = np.flatnonzero(n_ocrs)
    if len(reached) == 0:
        msg = (
            f"None of the {len(ocrs)} OCRs reaches any of the {len(genes)} genes. Check that both are on GRCh38 "
            "(hg19: sfa.pp.liftover_ocrs), or pass genes= a table with genes near these OCRs."
        )
        raise ValueError(msg)
    logger.info("%d of %d genes are reached by an OCR", len(reached), len(genes))
    table = genes.iloc[reached].assign(n_ocrs=n_ocrs[reached]).set_index("name")
    table.index.name = None  # as in any var
    return table[["chrom", "start", "end", "strand", "n_ocrs"]], per_ocr[:, reached]


def _sums(cells: Cells, per_ocr: csr_matrix, normalize: str | None) -> csr_matrix:
    from scipy.sparse import csr_matrix, vstack

    chunks = []
    for _, chunk in cells.iter_rows():
        scaled = chunk if normalize is None else prepare_rows(chunk, target_sum=_TARGET_SUM, log1p=False)
        sums = csr_matrix(scaled @ per_ocr)
        if normalize == "log1p":
            np.log1p(sums.data, out=sums.data)
        sums.sort_indices()
        chunks.append(sums)
    return vstack(chunks, format="csr")
