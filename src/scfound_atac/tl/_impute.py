"""`impute`: denoised accessibility, as a sparse layer or on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm.auto import tqdm

from .. import __version__
from .._anndata import get_atac
from .._keys import IMPUTED, check_key, embedding_keys
from .._logging import logger
from .._settings import settings
from ..data import iter_rows, prepare_rows
from ..data._fit_rows import N_FIT_CELLS, fit_rows
from ..hub._checkpoint import PEAK_SET_MODELS
from ..inference._cells import read_cells
from ..inference._runner import check_options
from ._embed import DEFAULT_MODEL, N_COMPONENTS
from ._embed_runs import Task, run_mixture, run_profiles
from ._write_cells import check_path, write_cells

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..hub import Checkpoint
    from ..inference._cells import Cells
    from ..inference._runner import Precision

    # Counts of some cells (cells, L) and their row numbers -> expected openness up to a factor per cell, (cells, L).
    Expect = Callable[[csr_matrix, slice | NDArray[np.int64]], NDArray[np.float32]]

_TIMES_OPEN = 3
_BLOCK_BYTES = 64 * 2**20


def impute(
    adata: AnnData | MuData,
    *,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    layer: str | None = None,
    n_kept: int | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    out: str | os.PathLike[str] | None = None,
    genome: str | None = None,
    modality: str | None = None,
    batch_size: int | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    seed: int = 0,
    key_added: str = IMPUTED,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Expected accessibility of every OCR in every cell: which of the many closed ones were likely just not sampled.

    What happens depends on the kind of `model`:

    ``"region-set"``, the default
        Cells are embedded as by `scfound_atac.tl.embed` and divided into up to 50 groups. Within a group an OCR is as open as the group's
        cells say, with the network's prediction (mean openness times fold change) added as if it were 30 more cells. A cell is the mean
        of the groups, weighted by how much it belongs to them.
    ``"biosample-prior"``, ``"biosample-mix"``
        The same with their embedding, and the mean openness in place of a prediction.
    ChromFound
        The decoder's reconstruction of each cell, with the logarithm of the preparation undone. It is as good as the training of the
        weights: those in the package (``"chromfound-bmmc"``, a few minutes of training) rank OCRs hardly better than chance.

    All are scaled so that a cell's expected values add up to the number of OCRs it has open, and cut at 1: a value is the probability
    that the OCR would be seen open at this cell's depth. Divide by ``layer.sum(axis=1)`` to compare cells of different depth. Values of
    cells alike are pulled together, so tests between groups of imputed cells find far too much; use the counts for them.

    A full matrix would be dense. Each cell keeps its `n_kept` largest values instead; cells are worked on in blocks, so that no table of
    cells x OCRs comes to be.

    Parameters
    ----------
    adata
        Cells by OCRs on GRCh38, with counts or 0/1. Dense, CSR, CSC, backed, zarr or dask. A MuData is taken by its ``atac`` modality.
    model
        A name from `scfound_atac.hub.list_models`, a folder, or a loaded checkpoint. EpiFoundation has no output per OCR.
    layer
        Layer to read; ``X`` if None.
    n_kept
        Most OCRs that are kept per cell. ``"auto"``: three times the median cell's number of open OCRs, so that the layer takes about
        three times the memory of the counts. None keeps all that `threshold` lets pass: without one, the result is dense.
    threshold
        Values below are left out, from 0 to 1.
    out
        Path of a new ``.h5ad`` or ``.zarr`` to write instead of a layer, block by block: an AnnData with the result in ``X``, with
        ``obs``, ``var`` and the parameters in ``uns``. `adata` is not touched.
    genome
        Genome build, if it cannot be recognised: ``"GRCh38"``. Also read from ``adata.uns["genome"]``.
    modality
        Modality of a MuData, ``"atac"`` if None.
    batch_size, device, precision
        As in `scfound_atac.tl.embed`; they matter to ChromFound alone.
    seed
        Start of the embedding and of the search for groups.
    key_added
        Name in ``layers`` and ``uns``.
    copy
        Return a copy instead of writing in place.

    Returns
    -------
    None, or the copy. Unless `out` is given, sets:

    `adata.layers['sfa_imputed' | key_added]` : csr_matrix (n_obs, n_vars), float32
        Expected openness, 0 to 1. Cells without an open OCR are empty, OCRs on chromosomes that the model does not know are 0.
    `adata.uns['sfa_imputed' | key_added]['params']` : dict
        Model name and checksum, package version, ``n_kept``, ``threshold``, ``n_groups`` and so on.

    Raises
    ------
    ValueError
        For coordinates that are missing, unparsable, duplicated or not GRCh38; negative, NaN or infinite values; values that look
        normalised; no cells; an impossible `threshold` or `n_kept`; an EpiFoundation model. `adata` is then as it was, and no file is left.
    KeyError
        For a layer, modality or model that does not exist.
    FileExistsError, FileNotFoundError
        If `out` exists, or its folder does not.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> mdata = sfa.datasets.pbmc_multiome_sample()
    >>> sfa.tl.impute(mdata, n_kept=300)
    >>> mdata["atac"].layers["sfa_imputed"].shape
    (3000, 662)
    """
    from ..hub._load import as_checkpoint

    source = get_atac(adata, modality)
    check_key(key_added)
    check_options(precision, batch_size)
    _check_sizes(n_kept, threshold)
    target = None if out is None else check_path(out)
    if copy and (target is not None or source.isbacked):
        msg = "copy=True needs a result in memory: leave out= away, and use adata.to_memory() if adata is backed."
        raise ValueError(msg)
    checkpoint = as_checkpoint(model)
    if checkpoint.model_class in PEAK_SET_MODELS:
        msg = (
            f"Model {checkpoint.name!r} ({checkpoint.model_class}) reads which peaks are open and has no output per OCR. Impute with "
            "sfa.tl.impute(adata, model='region-set') or a ChromFound model."
        )
        raise ValueError(msg)
    cells = read_cells(source, layer=layer, genome=genome)
    if n_empty := int(cells.is_empty.sum()):
        logger.warning("%d of %d cells have no open OCR and stay empty", n_empty, len(cells))

    options = {"device": device, "precision": precision, "batch_size": batch_size}
    if checkpoint.model_class == "ChromFound":
        expect, order, params = _decoder(checkpoint, cells.ocrs, options)
    else:
        expect, order, params = _groups(checkpoint, cells, options, seed)
    if n_kept == "auto":
        n_kept = _TIMES_OPEN * _median_open(cells)
    n_kept = len(order) if n_kept is None else min(n_kept, len(order))
    params = {
        "model": checkpoint.name,
        "weights_sha256": checkpoint.sha256,
        "version": __version__,
        "layer": layer or "X",
        "n_kept": n_kept,
        "threshold": float(threshold),
        "seed": seed,
        "n_ocrs_used": len(order),
        **params,
    }
    blocks = _blocks(cells.matrix, expect, order, n_kept, threshold)
    if target is not None:
        write_cells(target, blocks, source.obs, source.var, {key_added: {"params": params}})
        logger.info("wrote %s", target)
        return None
    from scipy.sparse import vstack

    imputed = vstack(list(blocks), format="csr")
    if copy:
        adata = adata.copy()
        source = get_atac(adata, modality)
    source.layers[key_added] = imputed
    source.uns[key_added] = {"params": params}
    logger.info("added layers[%r], uns[%r] (model %r)", key_added, key_added, checkpoint.name)
    return adata if copy else None


def _check_sizes(n_kept: int | str | None, threshold: float) -> None:
    is_number = isinstance(n_kept, int | np.integer) and not isinstance(n_kept, bool)
    if n_kept not in ("auto", None) and not (is_number and n_kept > 0):  # type: ignore[operator]
        msg = f"n_kept={n_kept!r} must be a positive integer, 'auto', or None for all OCRs."
        raise ValueError(msg)
    if not 0 <= threshold <= 1:
        msg = f"threshold={threshold!r} must be from 0 to 1: values are probabilities."
        raise ValueError(msg)


def _median_open(cells: Cells) -> int:
    """Open OCRs of the median cell that has any; at least 1."""
    n_open = np.concatenate([np.diff(chunk.indptr) for _, chunk in iter_rows(cells.matrix)])
    return max(1, int(np.median(n_open[n_open > 0]))) if n_open.any() else 1


def _groups(
    checkpoint: Checkpoint, cells: Cells, options: dict[str, Any], seed: int
) -> tuple[Expect, NDArray[np.int64], dict[str, Any]]:
    """Cells by the groups they belong to; with the OCRs that take part, in genome order, and what is to be recorded."""
    from ..inference import cell_reader
    from ..inference._imputation import group_profiles, n_groups
    from ..inference._runner import known_in_genome_order

    ocrs, names = cells.ocrs, cells.names
    if n_groups(len(cells)) == 1:  # nothing to tell cells apart by
        vectors = np.ones((len(cells), 1), dtype=np.float32)
        order = known_in_genome_order(ocrs, checkpoint.chromosome_ids(ocrs["chrom"].to_numpy()))
    else:
        is_network = checkpoint.model_class == "RegionSet"
        task = Task(
            matrix=cells.matrix,
            checkpoint=checkpoint,
            ocrs=ocrs,
            pooling="mixture" if is_network else "profile",
            preparation=None,
            n_components=N_COMPONENTS,
            fit_rows=fit_rows(names, N_FIT_CELLS, seed),
            basis=None,
            keys=embedding_keys(),
            names=names,
            seed=seed,
        )
        outcome = (run_mixture if is_network else run_profiles)(task, **options)
        vectors, order = outcome.embedding.vectors, outcome.order
    kept = np.zeros(len(ocrs), dtype=bool)
    kept[order] = True
    reader = None
    if checkpoint.model_class == "RegionSet":
        known = checkpoint.region_table().lookup(ocrs)
        reader = cell_reader(checkpoint, known, reconstruction=True) if known.found.any() else None
    # by name, so that the order of cells plays no part
    by_name = np.random.default_rng(seed).permutation(np.argsort(names.astype(str), kind="stable"))
    groups = group_profiles(cells.matrix, vectors, reader, kept=kept, fit_order=by_name, seed=seed)
    return lambda _, rows: groups(vectors[rows]), order, {"n_groups": len(groups.centres)}


def _decoder(
    checkpoint: Checkpoint, ocrs: pd.DataFrame, options: dict[str, Any]
) -> tuple[Expect, NDArray[np.int64], dict[str, Any]]:
    """Cells as ChromFound's decoder gives them back."""
    from ..inference import Runner

    runner = Runner(checkpoint, ocrs, pooling="reconstruction", **options)
    preparation = dict(checkpoint.preparation)

    def expect(counts: csr_matrix, _: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        values = np.maximum(runner(prepare_rows(counts, **preparation)), 0)
        whole = np.zeros(counts.shape, dtype=np.float32)
        whole[:, runner.order] = np.expm1(values) if preparation["log1p"] else values
        return whole

    params = {"device": str(runner.device), "recipe_target_sum": preparation["target_sum"] or 0.0}
    return expect, runner.order, params


def _blocks(
    matrix: Any, expect: Expect, order: NDArray[np.int64], n_kept: int, threshold: float
) -> Iterator[csr_matrix]:
    """The result, some cells at a time."""
    from ..inference._imputation import largest, to_depth

    n_cells, n_ocrs = matrix.shape
    size = int(np.clip(_BLOCK_BYTES // (4 * n_ocrs), 1, 1024))
    with tqdm(total=n_cells, unit="cells", disable=not settings.progress_bar, desc="imputing") as bar:
        for rows, chunk in iter_rows(matrix, chunk_size=size):
            expected = to_depth(expect(chunk, rows), np.diff(chunk.indptr))
            yield largest(expected, n_kept, threshold, order)
            bar.update(chunk.shape[0])
