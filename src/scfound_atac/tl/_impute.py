"""`impute`: denoised accessibility, as a sparse layer or in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._keys import IMPUTED, check_key
from .._logging import logger
from .._settings import settings
from ..data import Cells
from ..data.fit_rows import N_FIT_CELLS
from ..hub.registry import DEFAULT_MODEL
from ._write_cells import check_path, check_tables, write_cells

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint
    from ..inference.options import Precision

_TIMES_OPEN = 3  # n_kept="auto", in numbers of open OCRs of the median cell


@shared_docs
def impute(
    adata: AnnData | MuData,
    *,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    layer: str | None = None,
    n_kept: int | Literal["auto"] | None = "auto",
    threshold: float = 0.0,
    n_fit_cells: int = N_FIT_CELLS,
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
    """Expected accessibility of every OCR in every cell: which of the many closed OCRs were probably just not sampled.

    The computation depends on the kind of `model`:

    - ``"region-set"``, the default: cells are embedded as by `scfound_atac.tl.embed` and divided into up to 50 groups. The openness of an
      OCR in a group is the fraction of its cells in which the OCR is open, with the prediction of the network (mean openness times fold
      change) added as if it were 30 more cells. A cell gets the mean over groups, weighted by how well it fits each of them.
    - ``"biosample-prior"``, ``"biosample-mix"``: the same with their embeddings, and with the mean openness instead of a prediction.
    - ChromFound: the reconstruction of each cell by the decoder, with log1p undone. It is only as good as the training of the weights:
      those in the package (``"chromfound-bmmc"``, a few minutes of training) rank OCRs hardly better than chance.

    The values of a cell are scaled so that they add up to its number of open OCRs, and are limited to 1: a value is the probability of
    observing the OCR as open at the depth of this cell. Divide by ``layer.sum(axis=1)`` to compare cells of different depth. Imputation
    makes similar cells more similar, so tests between groups of imputed cells report far too many differences; use the counts for tests.

    The full matrix would be dense. Therefore only the `n_kept` largest values of each cell are stored, and cells are processed in blocks.

    Parameters
    ----------
    adata
        {adata_grch38}
    model
        Name of a model from `scfound_atac.hub.list_models`, folder of a model, or a loaded checkpoint. EpiFoundation cannot be used, as it
        has no output per OCR.
    layer
        {layer}
    n_kept
        Maximum number of OCRs that are stored per cell. ``"auto"`` is three times the median number of open OCRs, so that the layer takes
        about three times the memory of the counts. None stores all values from `threshold` on, which is a dense result if that is 0.
    threshold
        Values below it, from 0 to 1, are left out.
    n_fit_cells
        Maximum number of cells from which the embedding and the groups are found. All cells have a say in the openness of the groups.
    out
        Path of a new ``.h5ad`` or ``.zarr`` file to write block by block, instead of a layer. It holds an AnnData with the result in ``X``,
        and with ``obs``, ``var`` and the parameters in ``uns``. `adata` is then unchanged.
    genome
        {genome}
    modality
        {modality}
    batch_size
        {batch_size}
    device
        {device}
    precision
        {precision}
    seed
        Random seed of the embedding and of the groups.
    key_added
        Key in ``layers`` and ``uns``.
    copy
        {copy}

    Returns
    -------
    None, or the copy. Unless `out` is given, sets:

    `adata.layers['sfa_imputed' | key_added]` : csr_matrix (n_obs, n_vars), float32
        Expected openness, 0 to 1. Cells without an open OCR are empty; OCRs on chromosomes that the model does not know are 0.
    `adata.uns['sfa_imputed' | key_added]['params']` : dict
        Name and checksum of the model, package version, ``n_kept``, ``threshold``, ``n_groups`` and other parameters.

    Raises
    ------
    ValueError
        If coordinates are missing, unreadable, repeated or not on GRCh38; values are negative, NaN or infinite, or look normalised; there
        are no cells; `threshold` or `n_kept` is out of range; or `model` is EpiFoundation. `adata` is unchanged then, and no file is left.
    KeyError
        If a layer, modality or model does not exist.
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
    from ..hub.loading import as_checkpoint
    from ..inference.impute import imputed_blocks
    from ..inference.kind import Request
    from ..inference.kinds import kind_of

    source = get_target(adata, modality, copy=copy) if out is None else get_atac(adata, modality)
    check_key(key_added)
    check_single(n_kept=n_kept)
    check_arguments(copy=copy, layer=layer, threshold=threshold, n_fit_cells=n_fit_cells, seed=seed)
    role = role_of(adata, modality)
    _check_sizes(n_kept, threshold)
    target = None if out is None else check_path(out)
    if copy and target is not None:
        msg = "copy=True needs a result in memory: leave out the argument out=."
        raise ValueError(msg)
    if target is None:
        refuse_lost(source, key_added, slot="layers", layer=layer, default=IMPUTED, role=role)
    else:
        check_tables(target, source.obs, source.var, role)
    checkpoint = as_checkpoint(model)
    kind = kind_of(checkpoint)
    options = Request(
        n_fit_cells=n_fit_cells,
        device=device,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
        progress=settings.progress_bar,
    )
    request = kind.settle(options)
    kind.check_openness()
    cells = Cells.read(adata, layer=layer, genome=genome, modality=modality)
    cells.warn_of_empty("stay empty")

    openness = kind.openness(cells, request)

    n_used = len(openness.order)
    if n_kept == "auto":
        n_kept = _TIMES_OPEN * _median_open(cells)
    n_kept = n_used if n_kept is None else min(n_kept, n_used)
    params = {
        "model": checkpoint.name,
        "weights_sha256": checkpoint.sha256,
        "version": __version__,
        "layer": layer or "X",
        "n_kept": n_kept,
        "threshold": float(threshold),
        "seed": seed,
        "n_ocrs_used": n_used,
        **openness.params,
    }
    blocks = imputed_blocks(cells, openness, n_kept, threshold, progress=settings.progress_bar)
    if target is not None:
        write_cells(target, blocks, source.obs, source.var, {key_added: {"params": params}})
        logger.info("wrote %s (model %r)", target, checkpoint.name)
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
        msg = f"threshold={threshold!r} must lie between 0 and 1, as values are probabilities."
        raise ValueError(msg)


def _median_open(cells: Cells) -> int:
    """Median number of open OCRs of the cells that have any; at least 1."""
    n_open = np.concatenate([np.diff(chunk.indptr) for _, chunk in cells.iter_rows()])
    return max(1, int(np.median(n_open[n_open > 0]))) if n_open.any() else 1
