"""What `embed` does with each kind of model, from a checked task to what is to be written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._settings import settings
from ..data import prepare_rows
from ..genome import get_ocrs, ocr_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from .._keys import EmbeddingKeys
    from ..data import Coverage
    from ..hub import Checkpoint
    from ..inference import Basis, Embedding
    from ..inference._runner import Precision


@dataclass(frozen=True)
class Task:
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
    names: NDArray[np.object_]
    seed: int

    def prepare(self, rows: csr_matrix) -> csr_matrix:
        return rows if self.preparation is None else prepare_rows(rows, **self.preparation)


@dataclass(frozen=True)
class Outcome:
    """What is to be written: the OCRs that were used, by number, to which axes refer; `tables` go to ``uns``, `columns` to ``obs``.

    A model whose cell vectors are not one number per OCR has no axes that refer to OCRs: `is_per_ocr` is False.
    """

    embedding: Embedding
    order: NDArray[np.int64]
    params: dict[str, Any]
    tables: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    is_per_ocr: bool = True


def run_network(task: Task, *, device: str, precision: Precision, batch_size: int | Literal["auto"]) -> Outcome:
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
    return Outcome(embedding, runner.order, params)


def _regions_only(task: Task, device: str, precision: str, batch_size: object) -> tuple[NDArray, NDArray[np.bool_]]:
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


def run_mixture(task: Task, *, device: str, precision: Precision, batch_size: int | Literal["auto"]) -> Outcome:
    """Spectral components of the counts beside the cell vectors of a network that reads the open regions."""
    from ..inference import Basis, Embedding, MixtureBasis, cell_reader, embed_mixture
    from ..inference._mixture import DEFAULT_MIX

    order, kept = _regions_only(task, device, precision, batch_size)
    known = task.checkpoint.region_table().lookup(task.ocrs)
    basis = None
    if task.basis is not None:
        axes = _read_basis(task, task.basis, order)
        saved = task.basis.uns[task.keys.uns]
        basis = MixtureBasis(
            _read_idf(saved, task.ocrs), whole(axes.components, order, len(kept)), saved["rotation"], saved["shift"]
        )
    vectors, basis, variance_ratio = embed_mixture(
        task.matrix,
        cell_reader(task.checkpoint, known),
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
    params = {"device": "cpu", "precision": "fp32", "share_known": float(known.found[order].mean())}
    return Outcome(Embedding(vectors, axes, variance_ratio), order, params, tables)


def run_profiles(task: Task, *, device: str, precision: Precision, batch_size: int | Literal["auto"]) -> Outcome:
    """TF-IDF and what is known of the open regions as one profile over the OCRs."""
    from ..inference import Basis, ProfileSpace, cell_reader, embed_profiles

    order, kept = _regions_only(task, device, precision, batch_size)
    known = task.checkpoint.region_table().lookup(task.ocrs)
    is_reconstruction = task.pooling == "reconstruction"
    basis = space = None
    if task.basis is not None:
        axes = _read_basis(task, task.basis, order)
        basis = Basis(whole(axes.components, order, len(kept)), whole(axes.mean, order, len(kept)))
        saved = task.basis.uns[task.keys.uns]
        weights = (float(saved["params"][name]) for name in ("signal", "knowledge"))
        space = ProfileSpace(_read_idf(saved, task.ocrs), *weights)
    embedding, space = embed_profiles(
        task.matrix,
        cell_reader(task.checkpoint, known, reconstruction=is_reconstruction),
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
    params = {"device": "cpu", "precision": "fp32", "share_known": float(known.found[order].mean())}
    params |= {"signal": space.signal, "knowledge": space.knowledge}
    return Outcome(embedding, order, params, {"idf": _idf_table(space.idf, task.ocrs)})


def run_peak_sets(task: Task, *, device: str, precision: Precision, batch_size: int | Literal["auto"]) -> Outcome:
    """The open OCRs of a cell that a vocabulary holds, through a network; the vector is the network's own."""
    from ..data import Tokenizer
    from ..inference import PCA, Embedding, PeakSetRunner, embed_peak_sets
    from ..inference._peak_sets import check_coverage

    if task.basis is not None:
        msg = "This model needs no basis: all cells that it embeds land in one space. Leave basis and n_components out."
        raise ValueError(msg)
    runner = PeakSetRunner(task.checkpoint, device=device, precision=precision, batch_size=batch_size)
    vocabularies, max_tokens = runner.vocabularies, runner.net.config.max_tokens
    tokenizer = Tokenizer(vocabularies, task.ocrs, max_tokens=max_tokens, seed=task.seed)
    coverage = tokenizer.coverage(task.matrix)
    check_coverage(coverage, task.checkpoint.name, len(task.ocrs))
    vectors = embed_peak_sets(task.matrix, tokenizer, runner, task.names, progress=settings.progress_bar)
    tables: dict[str, Any] = {"coverage": _coverage_table(coverage, len(vocabularies.ocrs), max_tokens)}
    variance_ratio = None
    if task.n_components is not None:
        pca = PCA.fit(vectors[task.fit_rows], task.n_components)
        vectors, variance_ratio = pca.project(vectors), pca.variance_ratio
        tables |= {"pcs": pca.components, "mean": pca.mean}
    params = {"device": str(runner.device), "precision": runner.precision}
    columns = _coverage_columns(coverage, max_tokens, task.keys.uns)
    order = np.flatnonzero(tokenizer.is_known)
    return Outcome(Embedding(vectors, None, variance_ratio), order, params, tables, columns, is_per_ocr=False)


def _coverage_table(coverage: Coverage, n_vocabulary: int, max_tokens: int) -> dict[str, Any]:
    return {
        "n_vocabulary": n_vocabulary,
        "share_vocabulary": coverage.share_vocabulary,
        "share_ocrs": coverage.share_ocrs,
        "share_open": coverage.share_open,
        "max_tokens": max_tokens,
        "n_cells_subsampled": int((coverage.n_tokens > max_tokens).sum()),
    }


def _coverage_columns(coverage: Coverage, max_tokens: int, name: str) -> dict[str, NDArray[Any]]:
    def share(n: NDArray[np.int64]) -> NDArray[np.float64]:
        empty = np.full(len(n), np.nan)
        return np.divide(n, coverage.n_open, out=empty, where=coverage.n_open > 0)

    return {
        f"{name}_n_tokens": np.minimum(coverage.n_tokens, max_tokens),
        f"{name}_open_kept": share(coverage.n_open - coverage.n_lost),
        f"{name}_open_lost": share(coverage.n_lost),
        f"{name}_open_ambiguous": share(coverage.n_ambiguous),
    }


def _idf_table(idf: NDArray[np.float32], ocrs: pd.DataFrame) -> pd.DataFrame:
    """Weights by the names of their OCRs, so that they can lie in ``uns``, which is not sorted with ``var``."""
    return pd.DataFrame({"idf": idf}, index=ocr_names(ocrs))


def _read_idf(saved: Mapping[str, Any], ocrs: pd.DataFrame) -> NDArray[np.float32]:
    return saved["idf"]["idf"].reindex(ocr_names(ocrs)).fillna(0).to_numpy(dtype=np.float32)


def _read_basis(task: Task, reference: AnnData, order: NDArray[np.int64]) -> Basis:
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


def _place_in_basis(task: Task, reference: AnnData, order: NDArray[np.int64]) -> NDArray[np.int64]:
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


def whole(values: NDArray[np.float32], order: NDArray[np.int64], n_vars: int) -> NDArray[np.float32]:
    """Values of the OCRs `order` (len(order), ...) as rows of all OCRs, zero elsewhere."""
    whole = np.zeros((n_vars, *values.shape[1:]), dtype=np.float32)
    whole[order] = values
    return whole
