"""`impute`: denoised accessibility, as a sparse layer or on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, check_single
from .._keys import IMPUTED, check_key
from .._logging import logger
from .._settings import settings
from ..data import Cells
from ._embed import DEFAULT_MODEL
from ._write_cells import check_path, check_tables, write_cells

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint
    from ..inference.options import Precision

_TIMES_OPEN = 3


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
    from ..hub.loading import as_checkpoint
    from ..inference.impute import imputed_blocks
    from ..inference.kind import Request
    from ..inference.kinds import kind_of

    source = get_target(adata, modality, copy=copy) if out is None else get_atac(adata, modality)
    check_key(key_added)
    check_single(n_kept=n_kept)
    check_arguments(copy=copy, layer=layer, threshold=threshold, seed=seed)
    role = role_of(adata, modality)
    _check_sizes(n_kept, threshold)
    target = None if out is None else check_path(out)
    if copy and target is not None:
        msg = "copy=True needs a result in memory: leave out= away."
        raise ValueError(msg)
    if target is None:
        refuse_lost(source, key_added, slot="layers", layer=layer, default=IMPUTED, role=role)
    else:
        check_tables(target, source.obs, source.var, role)
    checkpoint = as_checkpoint(model)
    kind = kind_of(checkpoint)
    options = Request(
        device=device, precision=precision, batch_size=batch_size, seed=seed, progress=settings.progress_bar
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
        msg = f"threshold={threshold!r} must be from 0 to 1: values are probabilities."
        raise ValueError(msg)


def _median_open(cells: Cells) -> int:
    """Open OCRs of the median cell that has any; at least 1."""
    n_open = np.concatenate([np.diff(chunk.indptr) for _, chunk in cells.iter_rows()])
    return max(1, int(np.median(n_open[n_open > 0]))) if n_open.any() else 1
