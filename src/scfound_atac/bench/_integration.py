"""`integration`: how well embeddings keep cell types apart and batches together, by the scores of scib-metrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from .._arguments import check_arguments
from .._docs import shared_docs
from .._labels import read_labels
from .._logging import logger
from ..data import Cells
from ._methods import Method, find_methods
from ._scvi_methods import METHODS, paired_rna

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from ..hub import Checkpoint
    from ._compare import Embed

BIO = (
    "isolated_labels",
    "nmi_ari_cluster_labels_kmeans_nmi",
    "nmi_ari_cluster_labels_kmeans_ari",
    "silhouette_label",
    "clisi_knn",
)
"""Scores of cell types, by the names of scib-metrics."""
BATCH = ("bras", "ilisi_knn", "kbet_per_label", "graph_connectivity", "pcr_comparison")
"""Scores of batches, by the names of scib-metrics."""
HARMONY = "+harmony"
"""Ending of the names of methods whose embedding is corrected by Harmony."""
BATCH_AWARE = "+batch_key"
"""Ending of the names of models that embed the cells with their batches."""

_BIO_WEIGHT = 0.6  # of scib (Luecken et al. 2022, Nature Methods 19:41); the scores of batches have the rest
# Numbers of neighbours that `scib_metrics.benchmark.Benchmarker` takes, each cell being one of its own.
_LISI_NEIGHBORS, _KBET_NEIGHBORS, _GRAPH_NEIGHBORS = 90, 50, 15


@shared_docs
def integration(
    adata: AnnData | MuData,
    labels_key: str,
    batch_key: str,
    *,
    methods: Sequence[str | Path] | Mapping[str, str | Path | Checkpoint | Embed] = (
        "lsi",
        "lsi+harmony",
        "spectral",
        "spectral+harmony",
        "default",
        "default+harmony",
        "default+batch_key",
    ),
    before: str | None = None,
    n_cells: int | None = None,
    n_components: int = 50,
    max_epochs: int | None = None,
    seed: int = 0,
    layer: str | None = None,
    modality: str | None = None,
    rna_modality: str = "rna",
    rna_layer: str | None = None,
) -> pd.DataFrame:
    """Compare how well embeddings bring the batches of a data set together without mixing its cell types.

    All scores are computed by scib-metrics, with its defaults and on the neighbours by Euclidean distance (exact ones, where its
    ``Benchmarker`` searches approximately). They are between 0 and 1, and 1 is best. The function needs
    ``pip install 'scfound-atac[integration]'``.

    Parameters
    ----------
    adata
        {adata_counts}
    labels_key
        {labels_key}
    batch_key
        Column of ``obs`` with the batch of each cell: donor, sample or laboratory. Cells without a batch are left out.
    methods
        Keys of ``obsm``, whose columns are scored as they are; or ``"lsi"``, ``"spectral"``, ``"default"`` (the default model of
        `scfound_atac.tl.embed`), or the name or folder of any other model, which embed the chosen cells; or ``"peakvi"``,
        ``"poissonvi"`` and, for a MuData with expression, ``"multivi"``: these models of scvi-tools are trained on the chosen cells with
        `batch_key` as their batch, otherwise by their defaults (their number of dimensions too), on the OCRs that are open in 5 % of the
        cells and the genes that are expressed in 1 %, as in their tutorials. With ``"+harmony"`` behind a name, Harmony corrects the
        embedding (package harmonypy); with ``"+batch_key"`` behind that of a model, `scfound_atac.tl.embed` gets the batches. A mapping
        gives names to these, to loaded checkpoints, or to functions of an AnnData that return an array of shape (n_cells, n_components).
        The AnnData holds the counts of the chosen cells, and their batches in ``obs[batch_key]``.
    before
        Key of ``obsm`` or method, such as ``"lsi"``, with which ``pcr_comparison`` compares: by how much an embedding has less variance
        between batches. If None, there is no such score, because methods that start from the counts have no state before integration.
    n_cells
        Maximum number of cells of each batch, chosen at random; None for all.
    n_components
        Number of components of methods that embed the cells.
    max_epochs
        Maximum number of passes over the cells for the models of scvi-tools. None takes their own maximum, 500, at which they seldom
        arrive because they stop early: minutes to hours on a CPU.
    seed
        Random seed of the choice of cells, of the methods, and of Harmony.
    layer
        {layer}
    modality
        {modality}
    rna_modality, rna_layer
        Modality with expression, and its layer with counts (``X`` if None), for ``"multivi"``.

    Returns
    -------
    One row per method: ``method``, ``n_cells``, ``n_batches``, ``n_labels``, ``n_components``, ``seed``, and the scores:

    ``isolated_labels``, ``nmi_ari_cluster_labels_kmeans_nmi``, ``nmi_ari_cluster_labels_kmeans_ari``, ``silhouette_label``, ``clisi_knn``
        How well cell types are kept, and ``bio``, the mean of these scores.
    ``bras``, ``ilisi_knn``, ``kbet_per_label``, ``graph_connectivity``, ``pcr_comparison``
        How well batches are mixed, and ``batch``, the mean of these scores. ``bras`` has replaced the silhouette of batches in
        scib-metrics. ``pcr_comparison`` is only there with `before`.
    ``total``
        ``0.6 * bio + 0.4 * batch``.
    ``silhouette_batch``, ``avg_bio``, ``avg_batch``
        The averages of ChromFound (arXiv 2505.12638, table 2): ``avg_bio`` is the mean of the two scores of k-means and
        ``silhouette_label``, ``avg_batch`` that of ``graph_connectivity`` and ``silhouette_batch``. The table of EpiFoundation (bioRxiv
        2025.02.05.636688) has ``isolated_labels``, ``nmi_ari_cluster_labels_kmeans_nmi``, ``silhouette_label``, ``clisi_knn``,
        ``silhouette_batch`` and ``graph_connectivity``.
    ``seconds``
        Time for the embedding, or only for Harmony if the embedding was already computed for another row.

    Raises
    ------
    KeyError
        If a column, layer, modality or model does not exist.
    ValueError
        If there are fewer than two labels or two batches, a method does not return finite values for every cell, or chosen cells have no
        counts of expression for ``"multivi"``.
    ImportError
        If scib-metrics, or harmonypy for a method with ``"+harmony"``, is not installed.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> adata = sfa.datasets.pbmc_multiome_sample()["atac"]
    >>> adata.obs["sample"] = ["a", "b"] * (adata.n_obs // 2)
    >>> table = sfa.bench.integration(adata, "cell_type", "sample", n_cells=500)
    """
    check_arguments(
        labels_key=labels_key,
        batch_key=batch_key,
        n_cells=n_cells,
        n_components=n_components,
        seed=seed,
        rna_modality=rna_modality,
        rna_layer=rna_layer,
    )
    if max_epochs is not None:
        check_arguments(max_epochs=max_epochs)
    cells = Cells.read(adata, layer=layer, modality=modality, coordinates=False)
    rows, labels, batches = _choose(cells, labels_key, batch_key, n_cells, seed)
    stored = cells.source[1].obsm if cells.source is not None else {}
    trained = _scvi_methods(cells, rows, batch_key, max_epochs, seed, rna_modality, rna_layer)

    def plan(methods: Any) -> dict[str, _Planned]:
        return _plan(methods, stored, trained, rows, n_components, seed, batch_key)

    plans = plan(methods)
    first = [] if before is None else list(plan([before]).values())
    _require("scib_metrics", "scib-metrics")
    if any(planned.corrected for planned in [*plans.values(), *first]):
        _require("harmonypy", "harmonypy")
    counts = cells.as_anndata(rows)
    counts.obs[batch_key] = pd.Categorical(batches)
    known: dict[str, NDArray[np.float64]] = {}  # an embedding and its corrected form need one computation

    def embed(planned: _Planned) -> NDArray[np.float64]:
        if planned.base not in known:
            known[planned.base] = _embedded(planned, counts, len(rows))
        return _harmony(known[planned.base], batches, seed) if planned.corrected else known[planned.base]

    unintegrated = embed(first[0]) if first else None
    table = []
    for name, planned in plans.items():
        start = perf_counter()
        vectors = embed(planned)
        seconds = perf_counter() - start
        scores = integration_scores(vectors, labels, batches, unintegrated)
        table.append(
            {
                "method": name,
                "n_cells": len(rows),
                "n_batches": len(np.unique(batches)),
                "n_labels": len(np.unique(labels)),
                "n_components": vectors.shape[1],
                "seed": seed,
                **scores,
                "seconds": round(seconds, 3),
            }
        )
        logger.info("%s: bio %.3f, batch %.3f, total %.3f", name, *(scores[key] for key in ("bio", "batch", "total")))
    return pd.DataFrame(table)


def integration_scores(
    vectors: NDArray[Any],
    labels: NDArray[np.str_],
    batches: NDArray[np.str_],
    before: NDArray[Any] | None = None,
) -> dict[str, float]:
    """Scores of one embedding, (n_cells, n_components), as `integration` describes them; `before` is that without integration."""
    import scib_metrics as scib
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    points = np.ascontiguousarray(vectors, dtype=np.float32)
    n_neighbors = min(_LISI_NEIGHBORS, len(points))
    distances, nearest = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(points)

    def neighbors(n: int) -> Any:
        return NeighborsResults(indices=nearest[:, :n].copy(), distances=distances[:, :n].copy())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scib-metrics and jax about labels with a single cell and number formats
        clusters = scib.nmi_ari_cluster_labels_kmeans(points, labels)
        scores = {
            "isolated_labels": scib.isolated_labels(points, labels, batches),
            "nmi_ari_cluster_labels_kmeans_nmi": clusters["nmi"],
            "nmi_ari_cluster_labels_kmeans_ari": clusters["ari"],
            "silhouette_label": scib.silhouette_label(points, labels),
            "clisi_knn": scib.clisi_knn(neighbors(_LISI_NEIGHBORS), labels),
            "bras": scib.bras(points, labels, batches),
            "ilisi_knn": scib.ilisi_knn(neighbors(_LISI_NEIGHBORS), batches),
            "kbet_per_label": scib.kbet_per_label(neighbors(_KBET_NEIGHBORS), batches, labels),
            "graph_connectivity": scib.graph_connectivity(neighbors(_GRAPH_NEIGHBORS), labels),
        }
        if before is not None:
            earlier = np.ascontiguousarray(before, dtype=np.float32)
            scores["pcr_comparison"] = scib.pcr_comparison(earlier, points, batches, categorical=True)
        silhouette_batch = scib.silhouette_batch(points, labels, batches)
    values = {name: float(value) for name, value in scores.items()}
    return with_averages(values, float(silhouette_batch))


def with_averages(scores: Mapping[str, float], silhouette_batch: float) -> dict[str, float]:
    """Scores by the names of scib-metrics, followed by their averages; see `integration`."""
    bio = float(np.mean([scores[name] for name in BIO]))
    batch = float(np.mean([scores[name] for name in BATCH if name in scores]))
    clusters_and_silhouette = [scores[name] for name in BIO[1:4]]
    return {
        **scores,
        "bio": bio,
        "batch": batch,
        "total": _BIO_WEIGHT * bio + (1 - _BIO_WEIGHT) * batch,
        "silhouette_batch": silhouette_batch,
        "avg_bio": float(np.mean(clusters_and_silhouette)),
        "avg_batch": (scores["graph_connectivity"] + silhouette_batch) / 2,
    }


def _choose(
    cells: Cells, labels_key: str, batch_key: str, n_cells: int | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.str_]]:
    """Row numbers of the cells to score, with their labels and batches."""
    label, names = read_labels(cells.column(labels_key), labels_key, role=cells.role)
    batch, batch_names = read_labels(
        cells.column(batch_key, "batch_key"), batch_key, role=cells.role, where=f"{cells.role}.obs[{batch_key!r}]"
    )
    rng = np.random.default_rng(seed)
    chosen = []
    for number in range(len(batch_names)):
        rows = np.flatnonzero((batch == number) & (label >= 0))
        chosen.append(rng.choice(rows, n_cells, replace=False) if n_cells is not None and len(rows) > n_cells else rows)
    rows = np.sort(np.concatenate(chosen))
    for codes, key, what in ((label, labels_key, "labels"), (batch, batch_key, "batches")):
        if len(np.unique(codes[rows])) < 2:
            msg = f"The {len(rows)} cells of {cells.role} to use have fewer than two {what} by obs[{key!r}]; integration needs two."
            raise ValueError(msg)
    return rows, np.array(names, dtype=str)[label[rows]], np.array(batch_names, dtype=str)[batch[rows]]


class _Planned(NamedTuple):
    """What makes an embedding, the name under which it is computed once, and whether Harmony corrects it."""

    method: Method
    base: str
    corrected: bool


def _plan(
    methods: Any,
    stored: Mapping[str, Any],
    trained: Mapping[str, Callable[[], Method]],
    rows: NDArray[np.int64],
    n_components: int,
    seed: int,
    batch_key: str,
) -> dict[str, _Planned]:
    """Methods by name: keys of `stored`, names in `trained`, and others. What cannot be found fails here, before anything is computed."""
    if isinstance(methods, str):
        methods = [methods]
    if not isinstance(methods, Iterable):  # a function, or nothing that can be a method
        return {
            name: _Planned(one, name, corrected=False)
            for name, one in find_methods(methods, n_components, seed).items()
        }
    named = methods if isinstance(methods, Mapping) else {str(method): method for method in methods}
    found: dict[str, _Planned] = {}
    bases: dict[str, Method] = {}
    for name, method in named.items():
        corrected = isinstance(method, str) and method.endswith(HARMONY)
        wanted = method.removesuffix(HARMONY) if isinstance(method, str) else method
        base = wanted if isinstance(wanted, str) else str(name)
        if base not in bases or not isinstance(wanted, str):
            if isinstance(wanted, str) and wanted in stored:
                bases[base] = Method(partial(_stored, np.asarray(stored[wanted])[rows]))
            elif isinstance(wanted, str) and wanted in trained:
                bases[base] = trained[wanted]()
            elif isinstance(wanted, str) and wanted.endswith(BATCH_AWARE):
                model = wanted.removesuffix(BATCH_AWARE)
                (bases[base],) = find_methods({base: model}, n_components, seed, batch_key=batch_key).values()
            else:
                (bases[base],) = find_methods({base: wanted}, n_components, seed).values()
        found[str(name)] = _Planned(bases[base], base, corrected)
    return found


def _scvi_methods(
    cells: Cells,
    rows: NDArray[np.int64],
    batch_key: str,
    max_epochs: int | None,
    seed: int,
    rna_modality: str,
    rna_layer: str | None,
) -> dict[str, Callable[[], Method]]:
    """What makes each method of scvi-tools; the expression is read for the one that needs it, and only if it is asked for."""

    def make(name: str) -> Method:
        needed = {"rna": paired_rna(cells, rows, rna_modality, rna_layer)} if name == "multivi" else {}
        return Method(partial(METHODS[name], batch_key=batch_key, seed=seed, max_epochs=max_epochs, **needed))

    return {name: partial(make, name) for name in METHODS}


def _stored(values: NDArray[Any], adata: AnnData) -> NDArray[Any]:
    return values


def _embedded(plan: _Planned, counts: AnnData, n_cells: int) -> NDArray[np.float64]:
    embedding = np.asarray(plan.method.embed(counts.copy()), dtype=np.float64)
    if embedding.ndim != 2 or len(embedding) != n_cells or not np.isfinite(embedding).all():
        msg = f"Method {plan.base!r} must return one row of finite numbers for each of the {n_cells} cells; got shape {embedding.shape}."
        raise ValueError(msg)
    return embedding


def _harmony(embedding: NDArray[np.float64], batches: NDArray[np.str_], seed: int) -> NDArray[np.float64]:
    """The embedding as Harmony corrects it (Korsunsky et al. 2019, Nature Methods 16:1289), by its defaults."""
    import harmonypy

    table = pd.DataFrame({"batch": batches})
    found = harmonypy.run_harmony(embedding, table, ["batch"], verbose=False, random_state=seed)
    corrected = np.asarray(found.Z_corr)
    # harmonypy before 0.1 gives components x cells
    return corrected if corrected.shape == embedding.shape else corrected.T


def _require(module: str, package: str) -> None:
    try:
        import_module(module)
    except ImportError as error:
        msg = f"sfa.bench.integration needs {package}: pip install 'scfound-atac[integration]'"
        raise ImportError(msg) from error
