"""`embed`: vectors of cells from a pretrained model."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .. import __version__
from .._anndata import NotFoundError, get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, settable
from .._docs import shared_docs
from .._keys import embedding_keys
from .._labels import label_texts
from .._logging import logger
from .._settings import settings
from ..data import Cells
from ..data.cells import read_columns
from ..data.fit_rows import N_FIT_CELLS
from ..data.onto import onto
from ..genome.build import declared_genome
from ..hub.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from .._keys import EmbeddingKeys
    from ..hub import Checkpoint
    from ..inference.kind import Basis, Embedded, Request
    from ..inference.options import Precision

# Below this fraction of open OCRs that overlap, or of OCRs that are covered, cells hardly lie where they would with the OCRs of the basis.
_LOW_COVERAGE = 0.5


@shared_docs
def embed(
    adata: AnnData | MuData,
    *,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    layer: str | None = None,
    recipe: Literal["auto", "chromfound"] | Mapping[str, Any] | None = "auto",
    pooling: Literal["auto", "cls", "hidden_mean", "mixture", "profile", "reconstruction"] = "auto",
    n_components: int | Literal["auto"] | None = "auto",
    batch_key: str | None = None,
    basis: AnnData | MuData | None = None,
    n_fit_cells: int = N_FIT_CELLS,
    genome: str | None = None,
    modality: str | None = None,
    batch_size: int | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    seed: int = 0,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Embed cells with a pretrained model, without labels and without training.

    The computation depends on the kind of `model`. The models page describes each of them.

    - ``"region-set"``, the default: combines two views of a cell. A network reads the open OCRs, each described by the tissues in which it
      is open, and gives a cell vector; spectral components describe the cell's own counts. Principal components of both together are
      the embedding.
    - ``"biosample-prior"``, ``"biosample-mix"``: linear models on the same description of OCRs. The first averages it over the open OCRs;
      the second adds the profile imputed from it to TF-IDF.
    - ChromFound (``"chromfound-bmmc"``, ``"chromfound"``, or a folder): *all* OCRs go through the network in genome order. The hidden state
      of each OCR is averaged, which gives one number per OCR, and PCA reduces this vector (arXiv 2505.12638, section A.1).
    - EpiFoundation (a folder with weights and vocabularies): the open OCRs go through a transformer as a set of peaks of its vocabulary.
      The state of the cell token is the embedding (bioRxiv 2025.02.05.636688, section 3.3.2). Cells with more peaks than the network reads
      are subsampled, reproducibly by `seed` and the name of the cell.

    The embedding of a cell does not depend on the order of columns or cells, chromosome naming, batch size or sparse format, except for
    rounding. OCRs on chromosomes that the model does not know (chrM, scaffolds) are left out, with a warning.

    Parameters
    ----------
    adata
        {adata_grch38}
    model
        {model}
    layer
        {layer}
    recipe
        How the values of each cell are prepared for the model.

        - ``"auto"``: as in the training of the model. For ChromFound this is ``"chromfound"``, for the other models the counts themselves.
        - ``"chromfound"``: scale the counts of each cell to the same total and take log1p (Appendix C of the paper). A mapping with
          ``target_sum`` and/or ``log1p`` changes these two steps.
        - None: use the matrix as it is.

        The sum over neighbouring cells in the authors' tutorial is a separate step: `scfound_atac.pp.recipe_chromfound`.
    pooling
        Which output of the model is used. ``"auto"`` is the first of each list:

        - region-set: ``"mixture"`` (both views), ``"reconstruction"`` (predicted log fold change of each OCR over the mean cell)
        - linear models: ``"profile"``
        - ChromFound: ``"hidden_mean"`` (as in the paper), ``"reconstruction"`` (the accessibility from the decoder)
        - EpiFoundation: ``"cls"`` (the cell token)
    n_components
        Number of principal components. ``"auto"`` is 50; for EpiFoundation it is None, which gives the vector of the network itself.
        For the other models None gives one number per OCR in the column order of `adata` (dense, 4 bytes x cells x OCRs, 0 for OCRs that
        were left out); since ``"mixture"`` has no such numbers, it is then replaced by ``"reconstruction"``.
    batch_key
        Column of ``obs`` with the batch of each cell (donor, sample, laboratory), if the embedding is to be free of batches; of a MuData
        the modality's, or else its own. The default model has this option. It works in three steps. The counts of each OCR are divided by
        a factor of the batch, which is estimated within clusters of cells, so that batches may differ in their composition. A shift of
        the batch, read from mutual nearest neighbours, is subtracted from the vectors of its cells. Each vector is averaged over the 10
        nearest cells of every batch, with less weight for batches without like cells; differences between single cells of one type are
        lost. Batches may have peak sets of their own, as in ``anndata.concat([a, b], join="outer", label="lab")``: which OCRs a batch
        measured is read from the counts, and regions of overlapping OCRs tie batches together. With `basis`, batches are brought to its
        cells. Cells without a batch are refused, and a column with one batch is like no `batch_key`.
    basis
        AnnData that was embedded before with the same model and the same `key_added`. Its components are used, and no new ones are
        fitted, so that both data sets lie in the same space. If the OCRs are not the same, counts are first brought to those of `basis`
        by overlap, as by `scfound_atac.pp.map_ocrs`, and no axes are written. EpiFoundation needs no basis, as all its embeddings lie in
        one space.
    n_fit_cells
        Maximum number of cells to which PCA and other steps that depend on several cells are fitted. They are chosen by `seed` and name.
    genome
        {genome}
    modality
        {modality}
    batch_size
        Cells per forward pass; ``"auto"`` chooses it by the memory of the device. Only ChromFound and EpiFoundation use `batch_size`,
        `device` and `precision`; a CPU is enough for the other models.
    device
        {device}
    precision
        {precision}
    seed
        Random seed. It chooses the cells for PCA if there are more than `n_fit_cells`, and the peaks of cells that have too many.
    key_added
        Key in ``obsm`` and ``uns`` instead of ``X_sfa`` and ``sfa``.
    copy
        {copy}

    Returns
    -------
    None, or the copy. Sets:

    `adata.obsm['X_sfa' | key_added]` : ndarray (n_obs, n_components), float32
        The embedding. The key is the same for every model, so that code for one model also works for another.
    `adata.uns['sfa' | key_added]['params']` : dict
        Name and checksum of the model, package version, recipe, layer, seed and other parameters. Other entries of ``uns`` are for `basis`.
    `adata.varm['sfa_pcs' | key_added + '_pcs']` : ndarray (n_vars, n_components)
        Principal axes, unless `n_components` is None; for ``"mixture"`` the axes of the spectral view.
    `adata.varm['sfa_mean' | key_added + '_mean']` : ndarray (n_vars, 1)
        The mean that is subtracted before projecting; 0 for ``"mixture"``.

    With `batch_key` and the default model:

    `adata.uns['sfa' | key_added]['batches']` : DataFrame
        For each batch ``n_cells``, ``n_ocrs_measured``, and ``fraction_shared``, the fraction of its counts in regions that all batches
        measured (80 % of them, if there are more than four). ``params["n_shared_regions"]`` is the number of these regions, if batches
        have peak sets of their own; with 0, cells are compared only by what is known of their regions.

    With a `basis` that has other OCRs:

    `adata.uns['sfa' | key_added]['coverage']` : dict
        ``fraction_basis``, the fraction of the OCRs of `basis` that OCRs of `adata` overlap, and ``fraction_ocrs`` and ``fraction_open``,
        the fractions of the OCRs, and of the open OCRs over all cells, that overlap one of `basis`.

    EpiFoundation stores principal axes, if there are any, in ``uns`` instead of ``varm``. It also sets:

    `adata.uns['sfa' | key_added]['coverage']` : dict
        - ``fraction_vocabulary``: fraction of the peaks of the vocabulary that overlap an OCR
        - ``fraction_ocrs``, ``fraction_open``: fraction of the OCRs, and of the open OCRs over all cells, that overlap a peak
        - ``n_vocabulary``, ``max_tokens``, ``n_cells_subsampled``
    `adata.obs['sfa_n_tokens' | key_added + '_n_tokens']` : int
        Number of peaks that were read for the cell.
    `adata.obs['sfa_open_kept']`, ``..._open_lost``, ``..._open_ambiguous`` : float
        Fraction of the cell's open OCRs that overlap a peak, overlap none, and overlap several; NaN for an empty cell.

    Raises
    ------
    ValueError
        If coordinates are missing, unreadable, repeated or not on GRCh38; values are negative, NaN or infinite, or look normalised while a
        recipe is set; there are no cells, or one cell with PCA; `basis` belongs to another model, or no OCR overlaps its OCRs; a cell has
        no batch, or the model no `batch_key`; or hardly any open OCR overlaps the vocabulary of the model. `adata` is unchanged then.
    KeyError
        If a layer, modality, model or basis does not exist.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.embed(mdata)
    >>> mdata["atac"].obsm["X_sfa"].shape
    (3000, 50)
    """
    from ..hub.loading import as_checkpoint
    from ..inference.kind import Request
    from ..inference.kinds import kind_of

    target = get_target(adata, modality, copy=copy)
    keys = embedding_keys(key_added)
    check_arguments(n_fit_cells=n_fit_cells, seed=seed, batch_key=batch_key)
    if key_added is not None:
        refuse_lost(target, key_added, slot="obsm", default="", role=role_of(adata, modality))
    checkpoint = as_checkpoint(model)
    kind = kind_of(checkpoint)
    request = kind.settle(
        Request(
            pooling=pooling,
            n_components=n_components,
            recipe=recipe,
            n_fit_cells=n_fit_cells,
            device=device,
            precision=precision,
            batch_size=batch_size,
            seed=seed,
            progress=settings.progress_bar,
        )
    )
    if basis is not None and not kind.has_basis:
        msg = f"Model {checkpoint.name!r} needs no basis: all cells that it embeds lie in one space. Leave out basis= and n_components=."
        raise ValueError(msg)
    if batch_key is not None and request.pooling not in kind.batch_poolings:
        msg = (
            f"Model {checkpoint.name!r} with pooling={request.pooling!r} has no option batch_key={batch_key!r}. Leave it out, or use the "
            "default model; sfa.bench.integration compares how well embeddings mix batches."
        )
        raise ValueError(msg)
    earlier = None if basis is None else _read_basis(basis, modality, keys, checkpoint, request)
    if batch_key is not None and earlier is not None and earlier.vectors is None:
        msg = (
            f"basis.obsm[{keys.obsm!r}] is not the embedding that its axes belong to, and batches are brought to it. Run "
            "sfa.tl.embed(basis) again, or leave out batch_key=."
        )
        raise NotFoundError(msg)
    cells = Cells.read(
        adata,
        layer=layer,
        genome=genome,
        modality=modality,
        values="any" if request.recipe is None else "counts",
        or_else=", or pass recipe=None to feed the matrix as it is" if kind.has_recipe else "",
    )
    if request.n_components is not None and basis is None and len(cells) < 2:
        msg = "PCA needs at least two cells. Pass n_components=None for the whole vector, or basis= a reference that is already embedded."
        raise ValueError(msg)
    if batch_key is not None:
        request = replace(request, batches=_read_batches(cells, batch_key, alone=earlier is None))
    own, coverage = cells, None
    if earlier is not None and request.n_components is not None and _has_other_ocrs(cells, earlier, checkpoint):
        cells, coverage = onto(cells, earlier.ocrs, role_of(basis, modality, "basis"))
        _say_coverage(coverage, own.role)
    cells.warn_of_empty("all get the same vector; remove them with sfa.pp.filter_cells")

    result = kind.embed(cells, request, earlier)
    if coverage is not None:  # the axes belong to the OCRs of the basis
        result = replace(result, axes=None, tables={"coverage": coverage})

    params = {
        "model": checkpoint.name,
        "weights_sha256": checkpoint.sha256,
        "version": __version__,
        "recipe": json.dumps(request.recipe),
        "layer": layer or "X",
        "pooling": request.pooling,
        "n_components": 0 if request.n_components is None else result.vectors.shape[1],
        "seed": seed,
        "n_ocrs_used": len(result.order),
        **result.params,
    }
    if batch_key is not None:
        params["batch_key"] = batch_key
    if copy:
        adata = adata.copy()
    _write(get_atac(adata, modality), own, result, keys, params)
    logger.info("added obsm[%r], uns[%r] (model %r)", keys.obsm, keys.uns, checkpoint.name)
    return adata if copy else None


def _read_batches(cells: Cells, batch_key: str, *, alone: bool) -> NDArray[np.str_] | None:
    """The name of the batch of each cell; None if there is only one and no basis, which leaves nothing to correct."""
    batches = label_texts(cells.column(batch_key, "batch_key"))
    missing = batches.isna().to_numpy()
    if missing.any():
        shown = ", ".join(map(repr, cells.names[missing][:3]))
        msg = (
            f"{cells.role}.obs[{batch_key!r}] names no batch for {missing.sum()} of {len(batches)} cells (first: {shown}). Give them one, "
            f"such as {settable(cells.role)}.obs[{batch_key!r}] = {cells.role}.obs[{batch_key!r}].astype(object).fillna('other'), or "
            "leave them out."
        )
        raise ValueError(msg)
    if batches.nunique() == len(batches) > 1:
        msg = f"{cells.role}.obs[{batch_key!r}] has another batch for every cell, so that no two cells can be compared within one."
        raise ValueError(msg)
    if alone and batches.nunique() < 2:
        logger.warning("%s.obs[%r] names one batch only, so that there is nothing to correct", cells.role, batch_key)
        return None
    return batches.to_numpy(dtype=str)


def _has_other_ocrs(cells: Cells, basis: Basis, checkpoint: Checkpoint) -> bool:
    """Whether the OCRs of cells differ from those of a basis, on the chromosomes that the model knows."""
    here, there = (
        pd.MultiIndex.from_frame(
            ocrs.loc[checkpoint.chromosome_ids(ocrs["chrom"].to_numpy()) > 0, ["chrom", "start", "end"]]
        )
        for ocrs in (cells.ocrs, basis.ocrs)
    )
    return len(here) != len(there) or not here.isin(there).all()


def _say_coverage(coverage: dict[str, float], role: str) -> None:
    found = tuple(100 * coverage[name] for name in ("fraction_open", "fraction_basis"))
    low = min(coverage["fraction_open"], coverage["fraction_basis"]) < _LOW_COVERAGE
    logger.log(
        logging.WARNING if low else logging.INFO,
        "%s has other OCRs than basis: %.0f %% of its open OCRs overlap one of basis, and %.0f %% of the OCRs of basis are covered%s",
        role,
        *found,
        ", so that cells may lie apart from those of basis by what was not measured" if low else "",
    )


def _read_basis(
    basis: AnnData | MuData, modality: str | None, keys: EmbeddingKeys, checkpoint: Checkpoint, request: Request
) -> Basis:
    """The axes that an earlier call stored in `basis`, after a check that they belong to this model and these options."""
    from ..inference.kind import Basis

    reference, role = get_atac(basis, modality, "basis"), role_of(basis, modality, "basis")
    if keys.pcs not in reference.varm or keys.mean not in reference.varm or keys.uns not in reference.uns:
        msg = f"basis has no varm[{keys.pcs!r}]: run sfa.tl.embed(basis) first, with the same key_added and n_components not None."
        if "coverage" in reference.uns.get(keys.uns, {}):
            msg = f"basis has no varm[{keys.pcs!r}]: it was itself brought to a basis with other OCRs. Use that one."
        raise NotFoundError(msg)
    record = reference.uns[keys.uns]
    ours = {"weights_sha256": checkpoint.sha256, "pooling": request.pooling, "recipe": json.dumps(request.recipe)}
    for name, value in ours.items():
        if (theirs := record["params"][name]) != value:
            msg = f"basis was embedded with {name}={theirs!r}, this call has {value!r}; use the same model, pooling and recipe."
            raise ValueError(msg)
    # The build was checked when `basis` was embedded, possibly because the caller declared it then.
    columns, ocrs = read_columns(reference, role, declared_genome(reference.uns.get("genome")) or "GRCh38")
    components, mean = (np.asarray(reference.varm[key])[columns] for key in (keys.pcs, keys.mean))
    vectors = reference.obsm.get(keys.obsm)
    if vectors is not None:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.shape != (reference.n_obs, int(record["params"]["n_components"])):
            vectors = None
    return Basis(ocrs, components, mean[:, 0], record, vectors)


def _write(adata: AnnData, cells: Cells, result: Embedded, keys: EmbeddingKeys, params: dict[str, Any]) -> None:
    record: dict[str, Any] = {"params": params, **result.tables}
    if result.variance_ratio is not None:
        record["variance_ratio"] = result.variance_ratio
    for stale in (keys.pcs, keys.mean):  # axes of an earlier call with this key do not belong to the new embedding
        adata.varm.pop(stale, None)
    for name, values in result.columns.items():
        adata.obs[f"{keys.uns}_{name}"] = values
    if result.is_profile:
        vectors = np.zeros((len(cells), cells.n_vars), dtype=np.float32)
        vectors[:, cells.var_columns(result.order)] = result.vectors
        adata.obsm[keys.obsm] = vectors
    else:
        adata.obsm[keys.obsm] = result.vectors
    if result.axes is not None:
        adata.varm[keys.pcs] = cells.to_var(result.axes.components, result.order)
        adata.varm[keys.mean] = cells.to_var(result.axes.mean[:, None], result.order)
    adata.uns[keys.uns] = record
