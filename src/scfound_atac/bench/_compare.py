"""`compare`: scores of several embeddings of the same cells at several depths."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from .._arguments import check_arguments
from .._docs import shared_docs
from .._labels import read_labels
from .._logging import logger
from .._paths import as_path
from ..data import Cells
from ..pp import aggregate_neighbors
from ._finished import FinishedRows
from ._methods import Method, find_methods
from ._scores import clustering_scores, knn_accuracy
from ._thin_counts import thin_counts

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from ..hub import Checkpoint

Embed: TypeAlias = "Callable[[AnnData], NDArray[Any]]"

_SMOOTHING_NEIGHBORS = 10


@shared_docs
def compare(
    adata: AnnData | MuData,
    labels_key: str,
    *,
    methods: Sequence[str | Path] | Mapping[str, str | Path | Checkpoint | Embed] = (
        "lsi",
        "spectral",
        "biosample-prior",
        "biosample-mix",
        "default",
    ),
    fractions: Iterable[float] = (1.0, 0.5, 0.2, 0.1),
    smooth: Iterable[bool] = (False, True),
    n_cells: int | None = 3000,
    n_components: int = 30,
    n_seeds: int = 5,
    seed: int = 0,
    layer: str | None = None,
    modality: str | None = None,
    name: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Compare embeddings of the same cells by known labels, with the same protocol for all methods.

    1. A random subset of the cells that have a label is thinned to each depth (`scfound_atac.bench.thin_counts`).
    2. With smoothing, the counts of the ten nearest neighbours of each cell in LSI space are added
       (`scfound_atac.pp.aggregate_neighbors`).
    3. Every method gets a copy of these counts, without the labels, and returns at most `n_components` components.
    4. The components are scored by `scfound_atac.bench.clustering_scores` and `scfound_atac.bench.knn_accuracy`. Standard deviations are
       over seeds of clustering and of folds, not over cells or thinning.

    Parameters
    ----------
    adata
        Cells x OCRs with whole counts, and with coordinates if a pretrained model is among the methods. It is not changed.
    labels_key
        Column of ``obs`` with the labels. Cells whose label is missing or empty are left out.
    methods
        ``"lsi"``, ``"spectral"``, ``"random"`` (ChromFound with random weights), ``"default"`` (the default model of
        `scfound_atac.tl.embed`), or the name or folder of any other model. A mapping gives names to these, to loaded checkpoints, or to
        functions of an AnnData that return an array of shape (n_cells, n_components).
    fractions
        Fractions of the counts to keep, each in (0, 1].
    smooth
        Whether to add the counts of neighbours; both by default.
    n_cells
        Maximum number of cells; None for all.
    n_components
        Number of components of every method.
    n_seeds
        Number of repeats of clustering and cross-validation.
    seed
        Random seed of the subset, of thinning and of the methods, and the first seed of clustering and cross-validation.
    layer
        {layer}
    modality
        {modality}
    name
        Name of the data set for the column ``data``.
    out
        CSV file to which each row is appended when it is finished. A row of the file with the same data set, method, weights, options and
        mean count is used instead of being computed again, so that an interrupted run can continue. Functions have no checksum: remove
        their rows when they have changed.

    Returns
    -------
    One row per fraction, smoothing and method: ``data`` (if `name` is given), ``method``, ``weights`` (checksum of a model's weights, or
    empty), ``fraction``, ``smooth``, ``labels`` (the column), ``n_labels``, ``n_cells``, ``n_ocrs``, ``counts_per_cell`` (mean after
    thinning, before smoothing), ``n_components``, ``n_seeds``, ``seed``, the scores with their standard deviations (``kmeans_nmi``,
    ``kmeans_nmi_sd``, ... ``knn``, ``knn_sd``), and ``seconds`` for the embedding.

    Raises
    ------
    KeyError
        If the column, layer, modality or model does not exist.
    ValueError
        If there are fewer than two labels, counts are not whole numbers, options are out of range, `out` holds another kind of table, or a
        method does not return finite values for every cell.
    ImportError
        If igraph is not installed.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> adata = sfa.datasets.pbmc_multiome_sample()["atac"]
    >>> table = sfa.bench.compare(adata, "cell_type", methods=["lsi", "spectral"], fractions=[1.0, 0.1])
    >>> print(sfa.bench.report(table))
    """
    check_arguments(n_cells=n_cells, n_components=n_components, n_seeds=n_seeds, seed=seed, name=name)
    fractions, smooth = _listed("fractions", fractions), _listed("smooth", smooth)
    if wrong := [value for value in smooth if not isinstance(value, bool | np.bool_)]:
        msg = f"smooth= takes True, False or both, got {wrong[0]!r:.40}."
        raise TypeError(msg)
    wrong = [fraction for fraction in fractions if not _is_fraction(fraction)]
    if wrong:
        msg = f"fractions must be above 0 and at most 1, got {wrong[:3]}."
        raise ValueError(msg)
    found = find_methods(methods, n_components, seed)
    target = None if out is None else as_path(out, "out")
    cells, labels = _labelled_cells(adata, labels_key, n_cells, layer, modality, seed)
    finished = FinishedRows(target)
    rows = []
    for fraction in fractions:
        thinned = thin_counts(cells, fraction, seed=seed)
        for smoothed in smooth:
            counts: AnnData | None = (
                None  # computed when first needed: smoothing takes time, and all rows may be finished
            )
            for method_name, method in found.items():
                run = {
                    "data": name or "",
                    "method": method_name,
                    "weights": method.weights,
                    "fraction": float(fraction),
                    "smooth": bool(smoothed),
                    "labels": labels_key,
                    "n_labels": len(np.unique(labels)),
                    "n_cells": cells.n_obs,
                    "n_ocrs": cells.n_vars,
                    "counts_per_cell": float(thinned.X.sum(dtype=np.float64)) / cells.n_obs,
                    "n_components": n_components,
                    "n_seeds": n_seeds,
                    "seed": seed,
                }
                row = finished.find(run)
                if row is None:
                    if counts is None:
                        counts = _smoothed(thinned, seed) if smoothed else thinned
                    row = run | _scored(method_name, method, counts.copy(), labels, n_seeds, seed)
                    finished.add(row)
                    _log(row)
                rows.append(row)
    table = pd.DataFrame(rows)
    return table if name else table.drop(columns="data", errors="ignore")


def _listed(name: str, values: Any) -> list[Any]:
    """The values of an argument that takes several, or one alone."""
    if isinstance(values, bool | float | int):
        return [values]
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        msg = f"{name}= takes a list of values; got {type(values).__name__}."
        raise TypeError(msg)
    return list(values)


def _is_fraction(value: Any) -> bool:
    is_number = isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)
    return is_number and 0 < value <= 1


def _labelled_cells(
    data: Any, labels_key: str, n_cells: int | None, layer: str | None, modality: str | None, seed: int
) -> tuple[AnnData, NDArray[np.str_]]:
    """A random subset of the labelled cells, only with their counts and OCRs, and their labels."""
    cells = Cells.read(data, layer=layer, modality=modality, coordinates=False)
    codes, labels = read_labels(cells.column(labels_key), labels_key, role=cells.role)
    rows = np.flatnonzero(codes >= 0)
    if n_cells is not None and len(rows) > n_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, n_cells, replace=False))
    chosen = np.array(labels, dtype=str)[codes[rows]]
    if len(np.unique(chosen)) < 2:
        found = np.unique(chosen).tolist()
        msg = f"{cells.role}.obs[{labels_key!r}] has the labels {found} in the {len(rows)} cells to use; at least two are needed."
        raise ValueError(msg)
    return cells.as_anndata(rows), chosen


def _smoothed(adata: AnnData, seed: int) -> AnnData:
    smoothed = adata.copy()
    aggregate_neighbors(smoothed, n_neighbors=_SMOOTHING_NEIGHBORS, key_added="sum", seed=seed)
    smoothed.X = smoothed.layers.pop("sum")
    return smoothed


def _scored(
    name: str, method: Method, adata: AnnData, labels: NDArray[np.str_], n_seeds: int, seed: int
) -> dict[str, float]:
    start = perf_counter()
    embedding = np.asarray(method.embed(adata))
    seconds = perf_counter() - start
    if embedding.ndim != 2 or len(embedding) != len(labels) or not np.isfinite(embedding).all():
        msg = f"Method {name!r} must return one row of finite numbers for each of the {len(labels)} cells; got shape {embedding.shape}."
        raise ValueError(msg)
    scores = clustering_scores(embedding, labels, n_seeds=n_seeds, seed=seed).to_dict()
    scores["knn"], scores["knn_sd"] = knn_accuracy(embedding, labels, n_seeds=n_seeds, seed=seed)
    return {**scores, "seconds": round(seconds, 3)}


def _log(row: dict[str, Any]) -> None:
    logger.info(
        "%s%s at %g %% of the counts%s: KMeans NMI %.3f, kNN %.3f (%.1f s)",
        f"{row['data']}: " if row["data"] else "",
        row["method"],
        100 * row["fraction"],
        ", smoothed" if row["smooth"] else "",
        row["kmeans_nmi"],
        row["knn"],
        row["seconds"],
    )
