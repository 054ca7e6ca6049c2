"""`link_enhancers`: which OCRs regulate which genes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._keys import EMBEDDING, LINKS, check_key
from .._logging import logger
from .._settings import settings
from ..data import Cells
from ..genome.line import along_genome
from ._groups import groups_of
from ._links_by_correlation import Correlations
from ._links_by_perturbation import Perturbations
from ._links_table import as_table, links_of_group, nearest_starts

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from ..inference.links import Scored
    from ..model import RNAPredictor

METHODS = ("knowledge", "correlation", "perturbation", "abc", "distance")
# For all genes only links of at least this probability, times that of the gene's expression, are kept by default: twice the mean over the
# pairs that were tested.
_MIN_PROBABILITY = 0.1
_TABLES = (".bed", ".gtf", ".gff", ".gff3", ".tsv", ".txt", ".csv", ".gz", ".bgz", ".bz2", ".xz")


@shared_docs
def link_enhancers(
    adata: AnnData | MuData,
    *,
    genes: str | Sequence[str] | pd.DataFrame | os.PathLike[str] | None = None,
    groupby: str | None = None,
    window: int = 500_000,
    method: Literal["knowledge", "correlation", "perturbation", "abc", "distance"] = "knowledge",
    predictor: RNAPredictor | str | Path | None = None,
    min_probability: float | None = None,
    n_cells: int = 1,
    use_rep: str = f"X_{EMBEDDING}",
    layer: str | None = None,
    rna_layer: str | None = None,
    modality: str | None = None,
    rna_modality: str = "rna",
    genome: str | None = None,
    seed: int = 0,
    key_added: str = LINKS,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Find the OCRs that regulate each gene, in all cells or in each group of cells.

    Every OCR whose middle lies within `window` bases of the start of transcription of a gene gets a score and, by the methods that were
    compared with experiments, a probability. The default needs neither expression nor training.

    - ``"knowledge"``: the probability that silencing the OCR lowers the expression of the gene. A logistic model of seven features: the
      signal of the OCR in the group and that of its neighbours, how many tissues it is open in, how strongly the promoter is open in
      tissues, the gene's fraction of the contacts of the OCR, regions between both that are open everywhere, and whether OCR and promoter
      are active in the same cell types. It was fitted to 10,356 pairs that were tested by CRISPRi in K562 cells. Only
      expressed genes were tested, so the probability of a gene that the cells do not express is that which it would have if they did.
    - ``"abc"``: the fraction that the OCR has of the activity times contact of all open regions within 5 Mb of the gene, with
      accessibility as activity and a power of the distance as contact (Fulco et al. 2019; Nasser et al. 2021).
    - ``"distance"``: minus the logarithm to base 10 of the distance. What other methods have to beat.
    - ``"correlation"``: the correlation of accessibility and expression over cells, or over sums of like cells, compared with that of OCRs
      of other chromosomes that are as often open; for cells with both modalities. A correlation does not show which of several OCRs that
      open together is the cause.
    - ``"perturbation"``: the size of the mean change of the gene that a trained `predictor` expects when the OCR is closed (arXiv
      2505.12638, section A.4), compared with that of OCRs of other chromosomes. It tells what the predictor has learned from correlations.
      Train it with ``local=``, as many bases as the links that you look for may span: OCRs up to there get weights of their own for the
      gene, and are compared with OCRs of other chromosomes that got weights in the same fit. In 20 sets of 600 simulated cells in which one
      of 200 OCRs drives a gene, it was first with q below 0.05 in all 20 with ``local=500_000``; without `local` it was first in 3, and q
      was never below 0.05.

    Signals are compared as ranks on bins of the genome, so that called peaks, 500-bp bins and 5-kb tiles of the same cells give nearly the
    same links.

    Parameters
    ----------
    adata
        {adata_grch38}
    genes
        Genes to link: symbols or Ensembl ids, with or without version; or a table of starts of transcription as a DataFrame or the path of
        a BED, GTF or GFF3 file. None takes all genes of `scfound_atac.datasets.genes`. Where a gene has several starts, the one nearest to
        the OCR counts.
    groupby
        Column of ``obs`` with groups of cells, such as clusters. Each group has links of its own. Cells without a label are left out.
    window
        Maximum number of bases between the middle of the OCR and the start of transcription.
    method
        One of those above.
    predictor
        A trained `scfound_atac.model.RNAPredictor`, or the folder of one; only for ``method="perturbation"``, which needs it. Genes that it
        was not trained on get no links. The cells need counts, but no expression.
    min_probability
        Leave out links of a lower probability. None keeps every link of genes that are named. Of all genes it keeps those of at least 0.1,
        because the table of all pairs is several times as large, and with the default method also asks whether the gene is expressed: the
        probability is multiplied by how often genes with such a promoter were expressed enough to be tested.
    n_cells
        Number of like cells that are put together before accessibility and expression are correlated. More than 1 saves time; on the cells
        that were tried it found no more links.
    use_rep
        Key of ``obsm`` with the space in which cells are alike, if `n_cells` is more than 1.
    layer
        {layer}
    rna_layer
        Layer with the expression; ``X`` if None.
    modality
        {modality}
    rna_modality
        Name of the modality with expression.
    genome
        {genome}
    seed
        {seed}
    key_added
        Name of the table in ``uns``.
    copy
        {copy}

    Returns
    -------
    None, or the copy. Sets in the AnnData, or in the accessibility modality of a MuData:

    `adata.uns['sfa_links' | key_added]` : DataFrame
        One row per link, by group, gene and OCR; `scfound_atac.get.links` reads it. Columns: ``gene``, ``gene_id``; ``ocr`` (its name),
        ``chrom``, ``start``, ``end``; ``group`` (``"all"`` without `groupby`); ``distance`` in bases from the middle of the OCR to the
        start of transcription; ``accessibility``, counts of the OCR per 10,000 counts of the group; ``abc``, the ABC share; ``score``,
        larger for a stronger link (``"knowledge"``: log-odds); ``probability``, from CRISPRi, NaN for ``"correlation"`` and
        ``"perturbation"``, which have ``p`` and ``q`` (Benjamini-Hochberg over all links of the group). By ``"perturbation"`` the score
        grows with the fraction of cells of the group in which the OCR is open, and ``p`` compares changes in cells in which it is open;
        ``p`` is NaN for an OCR that is closed in the whole group.
    `adata.uns['sfa_links_params' | key_added + '_params']` : dict
        Arguments and package version.

    Raises
    ------
    KeyError
        If no gene is known, or a column, layer or modality does not exist.
    RuntimeError
        If the predictor is not trained.
    ValueError
        If coordinates are missing, unreadable or not on GRCh38, values are negative, NaN or infinite, a method lacks what it needs, or
        something else is stored as `key_added`. `adata` is unchanged then.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.link_enhancers(mdata, groupby="cell_type", genes=["CCL4", "MS4A1"])
    >>> links = sfa.get.links(mdata, gene="CCL4", group="NK")
    >>> list(links.columns[:3])
    ['gene', 'gene_id', 'ocr']
    """
    from ..inference.link_features import describe_pairs, features_of, pairs_within
    from ..inference.links import load_expression_model

    target = get_target(adata, modality, copy=copy)
    role = role_of(adata, modality)
    check_key(key_added)
    check_single(method=method)
    check_arguments(
        groupby=groupby,
        window=window,
        seed=seed,
        n_cells=n_cells,
        use_rep=use_rep,
        rna_layer=rna_layer,
        rna_modality=rna_modality,
    )
    _check_method(method, predictor, min_probability)
    refuse_lost(target, key_added, slot="uns", default=LINKS, role=role)
    promoters = _promoters(genes)
    scorer: Perturbations | Correlations | None = None
    if predictor is not None:
        scorer = Perturbations(predictor, promoters, seed=seed)
    elif method == "correlation":
        options: dict[str, Any] = {"rna_modality": rna_modality, "rna_layer": rna_layer, "use_rep": use_rep}
        scorer = Correlations(adata, target, promoters, n_cells=n_cells, seed=seed, **options)
    promoters = promoters if scorer is None else scorer.promoters
    values: Literal["counts", "any"] = "any" if predictor is None else "counts"
    cells = Cells.read(adata, layer=layer, genome=genome, modality=modality, values=values)
    codes, groups = groups_of(cells, groupby)
    sums = _sums(cells, codes, len(groups))

    tss = along_genome(promoters["chrom"], promoters["tss"])
    pairs = nearest_starts(pairs_within(cells.ocrs, tss, window), promoters["gene"].to_numpy())
    _tell_what_is_left_out(cells.ocrs, promoters, pairs[1], role, window, is_chosen=genes is not None)
    described = describe_pairs(cells.ocrs, tss, pairs)
    by_default = min_probability is None and genes is None and method in ("knowledge", "abc", "distance")
    threshold = _MIN_PROBABILITY if by_default else min_probability
    if by_default:
        logger.info(
            "Links of all genes: those of a probability below %g are left out (min_probability=0 keeps all)", threshold
        )
    of_groups = None if scorer is None else scorer(cells, described, codes, sums)
    parts = []
    bar = tqdm(groups, unit="groups", desc="linking", disable=not settings.progress_bar or len(groups) < 2)
    for number, _ in enumerate(bar):
        features, abc, promoter = features_of(described, sums[number])
        scored = of_groups[number] if of_groups else _score(method, features, abc, described.distance)
        kept: NDArray[np.bool_] | slice = slice(None)
        if threshold:
            probability = scored.probability
            if by_default and method == "knowledge":
                probability = probability * load_expression_model().relative(promoter)[described.start]
            kept = probability >= threshold
        parts.append(links_of_group(described, number, sums[number], abc, scored, kept))
    table = as_table(parts, cells.ocrs, promoters, groups)

    params = {
        "method": method,
        "groupby": groupby or "none",
        "window": window,
        "min_probability": float(threshold or 0),
        "genes": "all" if genes is None else "given",
        "layer": layer or "X",
        "seed": seed,
        "version": __version__,
    }
    if copy:
        adata = adata.copy()
        target = get_atac(adata, modality)
    target.uns[key_added] = table
    target.uns[f"{key_added}_params"] = params
    logger.info("added uns[%r]: %d links of %d genes", key_added, len(table), table["gene"].nunique())
    return adata if copy else None


def _check_method(method: str, predictor: Any, min_probability: float | None) -> None:
    if method not in METHODS:
        msg = f"Unknown method={method!r}; use one of {METHODS}."
        raise ValueError(msg)
    if method == "perturbation" and predictor is None:
        msg = (
            "method='perturbation' needs a trained predictor=: sfa.model.RNAPredictor().train(mdata). "
            "Without expression use method='knowledge'."
        )
        raise ValueError(msg)
    if method != "perturbation" and predictor is not None:
        msg = f"predictor= is for method='perturbation', and method={method!r} does not use it. Leave it out."
        raise ValueError(msg)
    if min_probability is None:
        return
    check_arguments(min_probability=min_probability)
    if not 0 <= min_probability <= 1:
        msg = f"min_probability={min_probability} must be from 0 to 1."
        raise ValueError(msg)
    if method in ("correlation", "perturbation") and min_probability > 0:
        msg = f"method={method!r} has no probabilities: leave out min_probability= and select by the column q."
        raise ValueError(msg)


def _promoters(genes: Any) -> pd.DataFrame:
    """Starts of transcription of the genes that are asked for, as from `scfound_atac.genome.read_promoters`."""
    from ..datasets import genes as bundled
    from ..genome import read_promoters, select_genes
    from ..train.expression import gene_names

    if genes is None:
        return read_promoters(bundled())
    is_path = hasattr(genes, "__fspath__") or (isinstance(genes, str) and Path(genes).suffix.lower() in _TABLES)
    if is_path or isinstance(genes, pd.DataFrame):
        return read_promoters(genes)
    names = [genes] if isinstance(genes, str) else gene_names(genes)
    if not names:
        msg = "genes=[] names no gene. Pass symbols or Ensembl ids, or leave out genes= for all genes."
        raise ValueError(msg)
    promoters = read_promoters(bundled())
    rows, _ = select_genes(promoters, names)
    return promoters.iloc[np.sort(rows)].reset_index(drop=True)


def _sums(cells: Cells, codes: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    """Sum of the values of each OCR over the cells of each group, (n_groups, n_ocrs)."""
    from scipy.sparse import csr_matrix

    total = np.zeros((n_groups, cells.n_ocrs))
    for rows, chunk in cells.iter_rows():
        group = codes[rows]
        has = np.flatnonzero(group >= 0)
        members = csr_matrix((np.ones(len(has)), (group[has], has)), shape=(n_groups, chunk.shape[0]))
        part = (members @ chunk).tocoo()
        total[part.row, part.col] += part.data
    return total


def _tell_what_is_left_out(
    ocrs: pd.DataFrame, promoters: pd.DataFrame, starts: NDArray[np.int64], role: str, window: int, *, is_chosen: bool
) -> None:
    from ..genome import chromosome_ids

    n_elsewhere = int((chromosome_ids(ocrs["chrom"]) == 0).sum())
    if n_elsewhere:
        logger.warning("%d of %d OCRs of %s lie on chrM or scaffolds and get no links", n_elsewhere, len(ocrs), role)
    linked = promoters["gene"].iloc[np.unique(starts)].unique()
    alone = promoters[~promoters["gene"].isin(linked)].drop_duplicates("gene")
    if len(alone):
        some = ", ".join(alone["name"].iloc[:3])
        n_genes = promoters["gene"].nunique()
        level = logging.WARNING if is_chosen else logging.INFO
        logger.log(
            level, "%d of %d genes have no OCR of %s within %d bases (%s)", len(alone), n_genes, role, window, some
        )


def _score(method: str, features: NDArray[np.float32], abc: NDArray[np.float32], distance: NDArray[np.int64]) -> Scored:
    from ..inference.links import by_abc, by_distance, by_knowledge

    if method == "knowledge":
        return by_knowledge(features)
    return by_abc(abc) if method == "abc" else by_distance(distance)
