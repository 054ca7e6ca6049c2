"""`embed`: cells to vectors with a pretrained network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import __version__
from .._anndata import NotFoundError, get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments
from .._keys import embedding_keys
from .._logging import logger
from .._settings import settings
from ..data import Cells
from ..data.cells import read_columns
from ..data.fit_rows import N_FIT_CELLS
from ..genome.build import declared_genome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from .._keys import EmbeddingKeys
    from ..hub import Checkpoint
    from ..inference.kind import Basis, Embedded, Request
    from ..inference.options import Precision

DEFAULT_MODEL = "region-set"


def embed(
    adata: AnnData | MuData,
    *,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    layer: str | None = None,
    recipe: Literal["auto", "chromfound"] | Mapping[str, Any] | None = "auto",
    pooling: Literal["auto", "cls", "hidden_mean", "mixture", "profile", "reconstruction"] = "auto",
    n_components: int | Literal["auto"] | None = "auto",
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
    """Embed cells with a pretrained model, without labels or training.

    What happens depends on the kind of `model`:

    ``"region-set"``, the default
        A network reads each cell's open OCRs, each known by the tissues it is open in, and gives a cell vector; beside it stand the
        spectral components of the cell's own counts. Both are rotated to common principal components. See the models page.
    ``"biosample-prior"``, ``"biosample-mix"``
        The same knowledge without a network: the mean of the open regions' factors; TF-IDF plus the profile imputed from them.
    ChromFound (``"chromfound-bmmc"``, ``"chromfound"``, a folder)
        *All* OCRs go through the network in genome order; the hidden state of every OCR is averaged over the hidden dimensions, and the
        resulting vector, one number per OCR, is reduced by PCA (arXiv 2505.12638, section A.1; the paper keeps 50 components).
    EpiFoundation (a folder of its weights and vocabularies)
        The open OCRs that its vocabulary of peaks holds go through a transformer as a set; the vector of the cell token is the
        embedding (bioRxiv 2025.02.05.636688, section 3.3.2). An OCR stands for the peak it shares most bases with. Of a cell with more
        peaks than the network reads, a part chosen by `seed` and the cell's name is read.

    Column order, chromosome naming, batch size, sparse format and cell order do not change a cell's result beyond rounding. OCRs on
    chromosomes the model does not know (chrM, scaffolds) are left out, with a warning.

    Parameters
    ----------
    adata
        Cells by OCRs with coordinates in ``var`` or in the names (GRCh38, 0-based half-open). Dense, CSR, CSC, backed, zarr or dask.
        A MuData is taken by its ``atac`` modality.
    model
        A name from `scfound_atac.hub.list_models`, a folder (ours, or the authors' released form), or a loaded checkpoint. The default
        is in the package; nothing is downloaded for it.
    layer
        Layer to read; ``X`` if None.
    recipe
        How counts are prepared, cell by cell, before the model sees them. ``"auto"``: as the model was trained. For ChromFound that is
        ``"chromfound"``, total-count normalisation and log1p as in the paper (Appendix C); the other models take counts. A mapping with
        ``target_sum`` and/or ``log1p`` changes it; None feeds the matrix as it is, whatever it holds.
        The authors' summing of neighbouring cells is a step of its own: `scfound_atac.pp.recipe_chromfound`.
    pooling
        What is read from the model. ChromFound: ``"hidden_mean"`` (the paper's) or ``"reconstruction"``, the decoder's accessibility.
        Region-set: ``"mixture"``, or ``"reconstruction"``, the predicted log fold change of each OCR over the mean cell. The linear
        models: ``"profile"``. EpiFoundation: ``"cls"``. ``"auto"`` is the first of each.
    n_components
        Number of principal components, or None for the whole vector of length ``n_vars`` in the data's own column order (dense: 4 bytes x
        cells x OCRs; OCRs that were left out are 0). Of a mixture, which has no such vector, None gives the reconstruction. ``"auto"`` is
        50; of EpiFoundation it is None, the network's own vector.
    basis
        AnnData embedded before with the same model and the same OCRs (in any order): its components are used instead of fitting new
        ones, so both land in the same space. Give `key_added` as it was given there. EpiFoundation needs none: it has one space for all.
    n_fit_cells
        PCA, and what else depends on the cells together, is fitted to at most this many, chosen by `seed` and cell name.
    genome
        Genome build, if it cannot be recognised: ``"GRCh38"``. Also read from ``adata.uns["genome"]``.
    modality
        Modality of a MuData, ``"atac"`` if None.
    batch_size
        Cells per forward pass; ``"auto"`` goes by the device's memory. This and the next two matter to ChromFound and EpiFoundation alone:
        for the other models a CPU is enough.
    device
        ``"auto"`` (CUDA if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    precision
        ``"fp32"``, ``"bf16"``, or ``"auto"``: bf16 on a GPU that has it, if it agrees with fp32 on the first batch; EpiFoundation: fp32.
    seed
        Chooses the cells PCA is fitted to when there are more than `n_fit_cells`, and the peaks of cells that have too many.
    key_added
        Key in ``obsm`` and ``uns`` instead of ``X_sfa`` and ``sfa``.
    copy
        Return a copy instead of writing in place.

    Returns
    -------
    None, or the copy. Sets:

    `adata.obsm['X_sfa' | key_added]` : ndarray (n_obs, n_components), float32
        The embedding. The key is the same for every model, so that a notebook runs on with another one; ``uns`` says which it was.
    `adata.varm['sfa_pcs' | key_added + '_pcs']` : ndarray (n_vars, n_components)
        Principal axes, unless `n_components` is None; of a mixture the spectral axes.
    `adata.varm['sfa_mean' | key_added + '_mean']` : ndarray (n_vars, 1)
        What is subtracted before projecting; of a mixture zero.
    `adata.uns['sfa' | key_added]['params']` : dict
        Model name and checksum, package version, recipe, layer, seed and so on. Beside it stands what `basis` needs again.

    EpiFoundation has no axes in ``varm``; principal axes, if asked for, stand in ``uns``. It sets besides:

    `adata.uns['sfa' | key_added]['coverage']` : dict
        ``share_vocabulary`` (peaks that some OCR reaches), ``share_ocrs`` and ``share_open`` (OCRs, and open OCRs over all cells, with a
        peak in the vocabulary), ``n_vocabulary``, ``max_tokens``, ``n_cells_subsampled``.
    `adata.obs['sfa_n_tokens' | key_added + '_n_tokens']` : int
        Peaks by which the cell was read.
    `adata.obs['sfa_open_kept']`, ``..._open_lost``, ``..._open_ambiguous`` : float
        Share of the cell's open OCRs with a peak, without one, and with several to choose from; NaN for an empty cell.

    Raises
    ------
    ValueError
        For coordinates that are missing, unparsable, duplicated or not GRCh38; negative, NaN or infinite values; values that look
        normalised while a `recipe` is set; zero cells; one cell with PCA; a `basis` of another model or OCR set; hardly any open OCR in the
        vocabulary of the model. `adata` is then as it was.
    KeyError
        For a layer, modality, model or basis that does not exist.

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
    check_arguments(n_fit_cells=n_fit_cells, seed=seed)
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
        msg = f"Model {checkpoint.name!r} needs no basis: all cells that it embeds land in one space. Leave basis and n_components out."
        raise ValueError(msg)
    earlier = None if basis is None else _read_basis(basis, modality, keys, checkpoint, request)
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
    cells.warn_of_empty("all get the same vector; remove them with sfa.pp.filter_cells")

    result = kind.embed(cells, request, earlier)

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
    if copy:
        adata = adata.copy()
    _write(get_atac(adata, modality), cells, result, keys, params)
    logger.info("added obsm[%r], uns[%r] (model %r)", keys.obsm, keys.uns, checkpoint.name)
    return adata if copy else None


def _read_basis(
    basis: AnnData | MuData, modality: str | None, keys: EmbeddingKeys, checkpoint: Checkpoint, request: Request
) -> Basis:
    """The axes that an earlier call left in `basis`, after checking that they belong to this model and these options."""
    from ..inference.kind import Basis

    reference, role = get_atac(basis, modality, "basis"), role_of(basis, modality, "basis")
    if keys.pcs not in reference.varm or keys.mean not in reference.varm or keys.uns not in reference.uns:
        msg = f"basis has no varm[{keys.pcs!r}]: run sfa.tl.embed(basis) first, with the same key_added and n_components not None."
        raise NotFoundError(msg)
    record = reference.uns[keys.uns]
    ours = {"weights_sha256": checkpoint.sha256, "pooling": request.pooling, "recipe": json.dumps(request.recipe)}
    for name, value in ours.items():
        if (theirs := record["params"][name]) != value:
            msg = f"basis was embedded with {name}={theirs!r}, this call has {value!r}; use the same model, pooling and recipe."
            raise ValueError(msg)
    # It was checked when it was embedded, perhaps with a build that was declared then.
    columns, ocrs = read_columns(reference, role, declared_genome(reference.uns.get("genome")) or "GRCh38")
    components, mean = (np.asarray(reference.varm[key])[columns] for key in (keys.pcs, keys.mean))
    return Basis(ocrs, components, mean[:, 0], record)


def _write(adata: AnnData, cells: Cells, result: Embedded, keys: EmbeddingKeys, params: dict[str, Any]) -> None:
    record: dict[str, Any] = {"params": params, **result.tables}
    if result.variance_ratio is not None:
        record["variance_ratio"] = result.variance_ratio
    for stale in (keys.pcs, keys.mean):  # of an earlier call with this key: they no longer belong to obsm
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
