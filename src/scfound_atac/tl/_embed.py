"""`embed`: cells to vectors with a pretrained network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .. import __version__
from .._anndata import check_values, count_kind, get_atac, get_matrix
from .._keys import embedding_keys
from .._logging import logger
from .._settings import settings
from ..data import iter_rows, prepare_rows
from ..genome import check_genome, get_ocrs, ocr_names
from ..genome._ocrs import refuse_duplicates
from ..hub._checkpoint import DEFAULT_PREPARATION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from .._keys import EmbeddingKeys
    from ..hub import Checkpoint
    from ..inference import Basis, Embedding
    from ..inference._runner import Precision

DEFAULT_MODEL = "region-set"
_METHOD = "chromfound"


def embed(
    adata: AnnData | MuData,
    *,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    layer: str | None = None,
    recipe: Literal["auto", "chromfound"] | Mapping[str, Any] | None = "auto",
    pooling: Literal["auto", "hidden_mean", "mixture", "profile", "reconstruction"] = "auto",
    n_components: int | None = 50,
    basis: AnnData | MuData | None = None,
    n_fit_cells: int = 20_000,
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
        models: ``"profile"``. ``"auto"`` is the first of each.
    n_components
        Number of principal components, or None for the whole vector of length ``n_vars`` in the data's own column order (dense: 4 bytes x
        cells x OCRs; OCRs that were left out are 0). Of a mixture, which has no such vector, None gives the reconstruction.
    basis
        AnnData embedded before with the same model and the same OCRs (in any order): its components are used instead of fitting new
        ones, so both land in the same space. Give `key_added` as it was given there.
    n_fit_cells
        PCA, and what else depends on the cells together, is fitted to at most this many, chosen by `seed` and cell name.
    genome
        Genome build, if it cannot be recognised: ``"GRCh38"``. Also read from ``adata.uns["genome"]``.
    modality
        Modality of a MuData, ``"atac"`` if None.
    batch_size
        Cells per forward pass; ``"auto"`` goes by the device's memory. This and the next two matter to ChromFound alone: for the other
        models a CPU is enough.
    device
        ``"auto"`` (CUDA if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    precision
        ``"fp32"``, ``"bf16"``, or ``"auto"``: bf16 on a GPU that has it, if it agrees with fp32 on the first batch.
    seed
        Chooses the cells PCA is fitted to when there are more than `n_fit_cells`.
    key_added
        Key in ``obsm`` and ``uns`` instead of ``X_chromfound`` and ``chromfound``.
    copy
        Return a copy instead of writing in place.

    Returns
    -------
    None, or the copy. Sets:

    `adata.obsm['X_chromfound' | key_added]` : ndarray (n_obs, n_components), float32
        The embedding. The key is the same for all models, so that a notebook runs on with another one; ``uns`` says which it was.
    `adata.varm['chromfound_pcs' | key_added + '_pcs']` : ndarray (n_vars, n_components)
        Principal axes, unless `n_components` is None; of a mixture the spectral axes.
    `adata.varm['chromfound_mean' | key_added + '_mean']` : ndarray (n_vars, 1)
        What is subtracted before projecting; of a mixture zero.
    `adata.uns['chromfound' | key_added]['params']` : dict
        Model name and checksum, package version, recipe, layer, seed and so on. Beside it stands what `basis` needs again.

    Raises
    ------
    ValueError
        For coordinates that are missing, unparsable, duplicated or not GRCh38; negative, NaN or infinite values; values that look
        normalised while a `recipe` is set; zero cells; one cell with PCA; a `basis` of another model or OCR set. `adata` is then as it was.
    KeyError
        For a layer, modality, model or basis that does not exist.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.embed(mdata)
    >>> mdata["atac"].obsm["X_chromfound"].shape
    (3000, 50)
    """
    keys = embedding_keys(_METHOD, key_added)
    source = get_atac(adata, modality)
    matrix = get_matrix(source, layer)
    if n_components is not None and n_components < 1:
        msg = f"n_components must be at least 1, or None for the whole vector; got {n_components}."
        raise ValueError(msg)
    if source.n_obs == 0 or source.n_vars == 0:
        msg = f"Nothing to embed: adata has {source.n_obs} cells and {source.n_vars} OCRs."
        raise ValueError(msg)
    if n_components is not None and basis is None and source.n_obs < 2:
        msg = "PCA needs at least two cells. Pass n_components=None for the whole vector, or basis= a reference that is already embedded."
        raise ValueError(msg)
    if copy and source.isbacked:
        msg = "A backed AnnData cannot be copied in memory. Use copy=False, or adata.to_memory() first."
        raise ValueError(msg)
    ocrs = _checked_ocrs(source, genome)
    checkpoint = _checkpoint(model)
    preparation = _preparation(recipe, checkpoint)
    where = f"layers[{layer!r}]" if layer else "X"
    _check_all_values(matrix, where)
    if recipe is not None:
        _refuse_normalised(matrix, where)

    task = _Task(
        matrix=matrix,
        checkpoint=checkpoint,
        ocrs=ocrs,
        pooling=_pooling(pooling, checkpoint, n_components),
        preparation=preparation,
        n_components=n_components,
        fit_rows=_fit_rows(source.obs_names, n_fit_cells, seed),
        basis=None if basis is None else get_atac(basis, modality),
        keys=keys,
        seed=seed,
    )
    run = {"hidden_mean": _run_network, "mixture": _run_mixture}.get(task.pooling, _run_profiles)
    if checkpoint.model_class == "ChromFound":
        run = _run_network
    outcome = run(task, device=device, precision=precision, batch_size=batch_size)

    params = {
        "model": checkpoint.name,
        "weights_sha256": checkpoint.sha256,
        "version": __version__,
        "recipe": json.dumps(preparation),
        "layer": layer or "X",
        "pooling": task.pooling,
        "n_components": 0 if n_components is None else outcome.embedding.vectors.shape[1],
        "seed": seed,
        "n_ocrs_used": len(outcome.order),
        **outcome.params,
    }
    if copy:
        adata = adata.copy()
    _write(get_atac(adata, modality), outcome, keys, params)
    logger.info("added obsm[%r], uns[%r]", keys.obsm, keys.uns)
    return adata if copy else None


@dataclass(frozen=True)
class _Task:
    """What is to be embedded, checked."""

    matrix: Any
    checkpoint: Checkpoint
    ocrs: pd.DataFrame
    pooling: str
    preparation: dict[str, Any] | None
    n_components: int | None
    fit_rows: NDArray[np.int64]
    basis: AnnData | None
    keys: EmbeddingKeys
    seed: int

    def prepare(self, rows: csr_matrix) -> csr_matrix:
        return rows if self.preparation is None else prepare_rows(rows, **self.preparation)


@dataclass(frozen=True)
class _Outcome:
    """What is to be written: axes refer to the columns `order`."""

    embedding: Embedding
    order: NDArray[np.int64]
    params: dict[str, Any]
    tables: dict[str, Any] = field(default_factory=dict)


def _run_network(task: _Task, *, device: str, precision: Precision, batch_size: int | Literal["auto"]) -> _Outcome:
    """Every OCR of a cell through a network, one vector entry per OCR."""
    from ..inference import Runner, embed_matrix

    runner = Runner(
        task.checkpoint,
        task.ocrs,
        pooling=task.pooling,  # type: ignore[arg-type]
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    basis = None if task.basis is None else _read_basis(task, task.basis, runner.order)
    embedding = embed_matrix(
        task.matrix,
        runner,
        prepare=task.prepare,
        n_components=task.n_components,
        fit_rows=task.fit_rows,
        basis=basis,
        progress=settings.progress_bar,
    )
    params = {"device": str(runner.device), "precision": "bf16" if runner.bf16 else "fp32"}
    return _Outcome(embedding, runner.order, params)


def _regions_only(task: _Task, device: str, precision: str, batch_size: object) -> tuple[NDArray, NDArray[np.bool_]]:
    """Columns in genome order and which take part, for models of region knowledge.

    A CPU is enough for them: device, precision and batch size are checked and have no say.
    """
    from ..inference._runner import check_options, known_in_genome_order, resolve_device

    check_options(precision, batch_size)
    resolve_device(device)
    order = known_in_genome_order(task.ocrs, task.checkpoint.chromosome_ids(task.ocrs["chrom"].to_numpy()))
    kept = np.zeros(len(task.ocrs), dtype=bool)
    kept[order] = True
    return order, kept


def _run_mixture(task: _Task, *, device: str, precision: Precision, batch_size: int | Literal["auto"]) -> _Outcome:
    """Spectral components of the counts beside the cell vectors of a network that reads the open regions."""
    from ..inference import Basis, Embedding, MixtureBasis, cell_reader, embed_mixture
    from ..inference._mixture import DEFAULT_MIX

    order, kept = _regions_only(task, device, precision, batch_size)
    basis = None
    if task.basis is not None:
        axes = _read_basis(task, task.basis, order)
        saved = task.basis.uns[task.keys.uns]
        basis = MixtureBasis(
            _read_idf(saved, task.ocrs), _whole(axes.components, order, len(kept)), saved["rotation"], saved["shift"]
        )
    vectors, basis, variance_ratio = embed_mixture(
        task.matrix,
        cell_reader(task.checkpoint, task.ocrs),
        prepare=task.prepare,
        mix=DEFAULT_MIX if task.checkpoint.mix is None else task.checkpoint.mix,
        kept=kept,
        n_components=task.n_components or 0,
        fit_rows=task.fit_rows,
        basis=basis,
        seed=task.seed,
        progress=settings.progress_bar,
    )
    axes = Basis(basis.axes[order], np.zeros(len(order), dtype=np.float32))
    tables = {"idf": _idf_table(basis.idf, task.ocrs), "rotation": basis.rotation, "shift": basis.shift}
    params = {"device": "cpu", "precision": "fp32", "share_known": _share_known(task, order)}
    return _Outcome(Embedding(vectors, axes, variance_ratio), order, params, tables)


def _run_profiles(task: _Task, *, device: str, precision: Precision, batch_size: int | Literal["auto"]) -> _Outcome:
    """TF-IDF and what is known of the open regions as one profile over the OCRs."""
    from ..inference import Basis, ProfileSpace, cell_reader, embed_profiles

    order, kept = _regions_only(task, device, precision, batch_size)
    is_reconstruction = task.pooling == "reconstruction"
    basis = space = None
    if task.basis is not None:
        axes = _read_basis(task, task.basis, order)
        basis = Basis(_whole(axes.components, order, len(kept)), _whole(axes.mean, order, len(kept)))
        saved = task.basis.uns[task.keys.uns]
        weights = (float(saved["params"][name]) for name in ("signal", "knowledge"))
        space = ProfileSpace(_read_idf(saved, task.ocrs), *weights)
    embedding, space = embed_profiles(
        task.matrix,
        cell_reader(task.checkpoint, task.ocrs, reconstruction=is_reconstruction),
        prepare=task.prepare,
        mix=None if is_reconstruction else task.checkpoint.mix,
        kept=kept,
        n_components=task.n_components,
        fit_rows=task.fit_rows,
        basis=basis,
        space=space,
        seed=task.seed,
        progress=settings.progress_bar,
    )
    if embedding.basis is not None:
        fitted = embedding.basis
        embedding = replace(embedding, basis=Basis(fitted.components[order], fitted.mean[order]))
    else:
        embedding = replace(embedding, vectors=embedding.vectors[:, order])
    params = {"device": "cpu", "precision": "fp32", "share_known": _share_known(task, order)}
    params |= {"signal": space.signal, "knowledge": space.knowledge}
    return _Outcome(embedding, order, params, {"idf": _idf_table(space.idf, task.ocrs)})


def _share_known(task: _Task, order: NDArray[np.int64]) -> float:
    """Share of the OCRs that overlap a region of the table."""
    return float(task.checkpoint.region_table().lookup(task.ocrs.iloc[order]).found.mean())


def _idf_table(idf: NDArray[np.float32], ocrs: pd.DataFrame) -> pd.DataFrame:
    """Weights by the names of their OCRs, so that they can lie in ``uns``, which is not sorted with ``var``."""
    return pd.DataFrame({"idf": idf}, index=ocr_names(ocrs))


def _read_idf(saved: Mapping[str, Any], ocrs: pd.DataFrame) -> NDArray[np.float32]:
    return saved["idf"]["idf"].reindex(ocr_names(ocrs)).fillna(0).to_numpy(dtype=np.float32)


def _checked_ocrs(adata: AnnData, genome: str | None) -> pd.DataFrame:
    ocrs = get_ocrs(adata.var)
    refuse_duplicates(ocrs)
    check_genome(ocrs, genome if genome is not None else adata.uns.get("genome"))
    return ocrs


def _checkpoint(model: str | Path | Checkpoint) -> Checkpoint:
    from ..hub import Checkpoint, load

    return model if isinstance(model, Checkpoint) else load(model)


def _preparation(recipe: str | Mapping[str, Any] | None, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Arguments for `prepare_rows`, or None to feed the matrix as it is."""
    is_network = checkpoint.model_class == "ChromFound"
    if recipe is None or (recipe == "auto" and not is_network):
        return None
    if recipe in ("auto", "chromfound"):
        return dict(checkpoint.preparation if is_network else DEFAULT_PREPARATION)
    if isinstance(recipe, str) or not set(recipe) <= {"target_sum", "log1p"}:
        msg = f"recipe={recipe!r} is not known: use 'auto', 'chromfound', a mapping with 'target_sum' and/or 'log1p', or None."
        raise ValueError(msg)
    return {**(checkpoint.preparation if is_network else {"target_sum": None, "log1p": False}), **recipe}


def _pooling(pooling: str, checkpoint: Checkpoint, n_components: int | None) -> str:
    """What is read from the model; each kind of model has its own."""
    by_class = {"ChromFound": ("hidden_mean", "reconstruction"), "RegionSet": ("mixture", "reconstruction")}
    known = by_class.get(checkpoint.model_class, ("profile",))
    if pooling == "auto":
        return known[0] if n_components is not None or known[0] != "mixture" else "reconstruction"
    if pooling not in known:
        msg = f"Unknown pooling {pooling!r} for model {checkpoint.name!r}; use 'auto' or one of {known}."
        raise ValueError(msg)
    if pooling == "mixture" and n_components is None:
        msg = "A mixture has no vector of one number per OCR. Set n_components, or pooling='reconstruction' for the predicted profile."
        raise ValueError(msg)
    return pooling


def _refuse_normalised(matrix: Any, where: str) -> None:
    if count_kind(matrix) == "normalised":
        msg = (
            f"{where} holds values that are not whole numbers, so it is already normalised, and this model prepares counts by itself. "
            "Pass recipe=None to feed it as it is, or layer= a layer with counts."
        )
        raise ValueError(msg)


def _check_all_values(matrix: Any, where: str) -> None:
    """One pass over the matrix before the network starts, so that a bad value late in a long run is found at once."""
    n_empty, n_cells = 0, 0
    for rows, chunk in iter_rows(matrix):
        check_values(chunk, where, rows=rows)
        n_empty += int((np.diff(chunk.indptr) == 0).sum())
        n_cells += chunk.shape[0]
    if n_empty:
        logger.warning(
            "%d of %d cells have no open OCR and all get the same vector; remove them with sfa.pp.filter_cells",
            n_empty,
            n_cells,
        )


def _fit_rows(names: pd.Index, n: int, seed: int) -> NDArray[np.int64]:
    """Cells that PCA is fitted to: those whose seeded hash of the name is smallest, so that cell order plays no part."""
    if len(names) <= n:
        return np.arange(len(names))
    hashed = pd.util.hash_array(names.to_numpy(dtype=object), hash_key=f"{seed:016d}"[:16])
    return np.sort(np.argsort(hashed, kind="stable")[:n])


def _read_basis(task: _Task, reference: AnnData, order: NDArray[np.int64]) -> Basis:
    """The reference's axes in the task's genome order, after checking that they belong to this model and these OCRs."""
    from ..inference import Basis

    pcs, mean, key = task.keys.pcs, task.keys.mean, task.keys.uns
    if pcs not in reference.varm or mean not in reference.varm or key not in reference.uns:
        msg = f"basis has no varm[{pcs!r}]: run sfa.tl.embed(basis) first, with the same key_added and n_components not None."
        raise KeyError(msg)
    theirs = reference.uns[key]["params"]
    ours = {
        "weights_sha256": task.checkpoint.sha256,
        "pooling": task.pooling,
        "recipe": json.dumps(task.preparation),
    }
    for name, value in ours.items():
        if theirs[name] != value:
            msg = f"basis was embedded with {name}={theirs[name]!r}, this call has {value!r}; use the same model, pooling and recipe."
            raise ValueError(msg)
    place = _place_in_basis(task, reference, order)
    return Basis(components=np.asarray(reference.varm[pcs])[place], mean=np.asarray(reference.varm[mean])[place, 0])


def _place_in_basis(task: _Task, reference: AnnData, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the reference's OCRs that are the task's OCRs `order`; a ValueError if the sets differ."""
    here = pd.MultiIndex.from_frame(task.ocrs[["chrom", "start", "end"]].iloc[order])
    there = pd.MultiIndex.from_frame(get_ocrs(reference.var)[["chrom", "start", "end"]])
    place = there.get_indexer(here)
    n_used = int(reference.uns[task.keys.uns]["params"]["n_ocrs_used"])
    if (place < 0).any() or len(here) != n_used:
        missing = ", ".join(f"{c}:{s}-{e}" for c, s, e in here[place < 0][:3])
        msg = (
            f"basis has other OCRs ({n_used} there, {len(here)} here, {int((place < 0).sum())} of these unknown there"
            f"{': ' + missing if missing else ''}). Bring the query to the reference's OCRs with sfa.pp.map_ocrs(adata, basis)."
        )
        raise ValueError(msg)
    return place


def _whole(values: NDArray[np.float32], order: NDArray[np.int64], n_vars: int) -> NDArray[np.float32]:
    """Values of the OCRs `order` (len(order), ...) as rows of all OCRs, zero elsewhere."""
    whole = np.zeros((n_vars, *values.shape[1:]), dtype=np.float32)
    whole[order] = values
    return whole


def _write(adata: AnnData, outcome: _Outcome, keys: EmbeddingKeys, params: dict[str, Any]) -> None:
    result, order = outcome.embedding, outcome.order
    record: dict[str, Any] = {"params": params}
    for stale in (keys.pcs, keys.mean):  # of an earlier call with this key: they no longer belong to obsm
        adata.varm.pop(stale, None)
    if result.basis is None:
        whole = np.zeros((adata.n_obs, adata.n_vars), dtype=np.float32)
        whole[:, order] = result.vectors
        adata.obsm[keys.obsm] = whole
        adata.uns[keys.uns] = record
        return
    if result.variance_ratio is not None:
        record["variance_ratio"] = result.variance_ratio
    adata.obsm[keys.obsm] = result.vectors
    adata.varm[keys.pcs] = _whole(result.basis.components, order, adata.n_vars)
    adata.varm[keys.mean] = _whole(result.basis.mean[:, None], order, adata.n_vars)
    record |= outcome.tables
    adata.uns[keys.uns] = record
