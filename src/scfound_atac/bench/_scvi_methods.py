"""Variational autoencoders of scvi-tools as methods of `integration`, trained by their defaults with the batch as covariate."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .._anndata import check_values, count_kind, get_atac, get_matrix, role_of, without_pulling
from .._logging import logger
from .._rows import iter_rows
from .._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells

# What scvi-tools' tutorials keep: OCRs open in a twentieth of the cells (PeakVI), genes expressed in a hundredth (MultiVI). Time and
# memory of the networks grow with their number.
_MIN_OPEN, _MIN_EXPRESSED = 0.05, 0.01


def peakvi(adata: AnnData, *, batch_key: str, seed: int, max_epochs: int | None = None) -> NDArray[np.float32]:
    """Cell vectors of PeakVI (Ashuach et al. 2022, Cell Reports Methods 2:100182), (n_cells, n_latent); the mean for cells without counts.

    Parameters
    ----------
    adata
        Cells x OCRs with counts, and the batch of each cell in ``obs``.
    batch_key
        Column of ``obs`` with the batches.
    seed
        Random seed of weights, batches and dropout.
    max_epochs
        Maximum number of passes over the cells; that of scvi-tools if None.

    Raises
    ------
    ValueError
        If fewer than two OCRs are open in 5 % of the cells.
    """
    from scvi.model import PEAKVI

    cells = _frequent(adata, _MIN_OPEN, "OCRs")
    read = _has_counts(cells)
    return _all_cells(_trained(PEAKVI, cells[read].copy(), batch_key, seed, max_epochs), read)


def poissonvi(adata: AnnData, *, batch_key: str, seed: int, max_epochs: int | None = None) -> NDArray[np.float32]:
    """Cell vectors of PoissonVI (Martens et al. 2024, Nature Methods 21:28), (n_cells, n_latent); arguments as for `peakvi`.

    It models fragments: where counts are ends of fragments, they are halved and rounded up first.
    """
    from scvi.external import POISSONVI

    cells = _frequent(adata, _MIN_OPEN, "OCRs")
    if count_kind(cells.X) == "reads":
        cells.X.data = np.ceil(cells.X.data / 2)
    read = _has_counts(cells)
    return _all_cells(_trained(POISSONVI, cells[read].copy(), batch_key, seed, max_epochs), read)


def multivi(
    adata: AnnData, *, rna: AnnData, batch_key: str, seed: int, max_epochs: int | None = None
) -> NDArray[np.float32]:
    """Cell vectors of MultiVI (Ashuach et al. 2023, Nature Methods 20:1222), (n_cells, n_latent).

    `rna` holds counts of genes for the same cells in the same order; the other arguments are those of `peakvi`.
    """
    from mudata import MuData
    from scvi.model import MULTIVI

    atac, rna = _frequent(adata, _MIN_OPEN, "OCRs"), _frequent(rna, _MIN_EXPRESSED, "genes")
    atac.var_names = [f"OCR{i}" for i in range(atac.n_vars)]  # names that no gene has
    read = _has_counts(atac) & _has_counts(rna)
    with without_pulling():
        mdata = MuData({"rna": rna[read].copy(), "atac": atac[read].copy()})
    setup = {"rna_layer": "rna", "atac_layer": "atac", "batch_key": "atac"}
    sizes = {"n_genes": rna.n_vars, "n_regions": atac.n_vars}
    return _all_cells(_trained(MULTIVI, mdata, batch_key, seed, max_epochs, modalities=setup, sizes=sizes), read)


METHODS: dict[str, Callable[..., NDArray[np.float32]]] = {"peakvi": peakvi, "poissonvi": poissonvi, "multivi": multivi}
"""Methods by name, all called as ``method(adata, batch_key=..., seed=..., max_epochs=...)``, and `multivi` with ``rna=`` too."""


def paired_rna(cells: Cells, rows: NDArray[np.int64], modality: str, layer: str | None) -> AnnData:
    """Counts of genes of the cells `rows`, found by name in a modality of the MuData around them.

    Raises
    ------
    TypeError
        If the cells are not those of a MuData.
    KeyError
        If the modality or the layer does not exist.
    ValueError
        If cells have no expression, names repeat, or values are no counts.
    """
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import vstack

    assert cells.source is not None
    data = cells.source[0]
    if not isinstance(data, MuData):
        msg = "Method 'multivi' needs expression: pass a MuData with both modalities, adata = mudata.MuData({'atac': atac, 'rna': rna})."
        raise TypeError(msg)
    rna = get_atac(data, modality, modality_argument="rna_modality", holds="expression")
    role = role_of(data, modality)
    if not rna.obs_names.is_unique:
        msg = f"Names of cells repeat in {role}: call {role}.obs_names_make_unique() first."
        raise ValueError(msg)
    found = rna.obs_names.get_indexer(pd.Index(cells.names[rows]))
    if n_missing := int((found < 0).sum()):
        msg = (
            f"{n_missing} of the {len(rows)} cells to use are not in {role}, and method 'multivi' needs their expression. Keep the cells "
            "with both modalities first: muon.pp.intersect_obs(adata)."
        )
        raise ValueError(msg)
    matrix = get_matrix(rna, layer, role, "rna_layer")
    if count_kind(matrix) == "normalised":
        msg = f"{role} holds values that are no counts, and method 'multivi' needs counts. Pass rna_layer= a layer with the counts."
        raise ValueError(msg)
    order = np.argsort(found, kind="stable")
    chunks = []
    for index, chunk in iter_rows(matrix, rows=found[order]):
        check_values(chunk, role, rows=index, column="gene")
        chunks.append(chunk)
    counts = vstack(chunks, format="csr")[np.argsort(order)]
    obs = pd.DataFrame(index=pd.Index(cells.names[rows]))
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=rna.var_names.astype(str)))


def _frequent(adata: AnnData, min_fraction: float, what: str) -> AnnData:
    """The columns that are not zero in this fraction of the cells, as a new object."""
    matrix: csr_matrix = adata.X.tocsr()
    kept = matrix.getnnz(axis=0) >= min_fraction * matrix.shape[0]
    if kept.sum() < 2:
        msg = (
            f"Only {int(kept.sum())} of {len(kept)} {what} are found in {min_fraction:.0%} of the cells, to which scvi-tools' models are "
            "restricted here: leave these methods out, or use cells with more counts."
        )
        raise ValueError(msg)
    return adata[:, kept].copy()


def _has_counts(adata: AnnData) -> NDArray[np.bool_]:
    """The cells that have counts in the columns that are kept: the likelihood of the others is not defined."""
    return adata.X.getnnz(axis=1) > 0


def _all_cells(vectors: NDArray[np.float32], read: NDArray[np.bool_]) -> NDArray[np.float32]:
    """`vectors` of the cells that were read, and their mean for the others."""
    if n_others := int((~read).sum()):
        logger.warning(
            "%d of %d cells have no counts in what scvi-tools' model reads, and get the mean vector",
            n_others,
            len(read),
        )
    every = np.tile(vectors.mean(axis=0), (len(read), 1))
    every[read] = vectors
    return every


def _trained(
    model_class: Any,
    data: Any,
    batch_key: str,
    seed: int,
    max_epochs: int | None,
    *,
    modalities: dict[str, str] | None = None,
    sizes: dict[str, int] | None = None,
) -> NDArray[np.float32]:
    """Train a model of scvi-tools and return what it makes of the cells."""
    with _seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning about workers and loggers
        if modalities is None:
            model_class.setup_anndata(data, batch_key=batch_key)
        else:
            model_class.setup_mudata(data, batch_key=batch_key, modalities=modalities)
        model = model_class(data, **(sizes or {}))
        epochs = {} if max_epochs is None else {"max_epochs": max_epochs}
        model.train(**epochs, enable_progress_bar=settings.progress_bar)
        return np.asarray(model.get_latent_representation(), dtype=np.float32)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed scvi-tools, and leave its setting and the generators of the process as they were."""
    import random

    import scvi
    import torch

    earlier, state, numpy_state = scvi.settings.seed, random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            scvi.settings.seed = seed
            try:
                yield
            finally:
                scvi.settings.seed = earlier  # seeds the generators too, unless it is None
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
