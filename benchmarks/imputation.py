"""Whether the OCRs that imputation expects to be open are those that deeper sequencing finds open.

    python benchmarks/imputation.py --data DIR

Bone-marrow cells are thinned to 30 % of their counts, `sfa.tl.impute` and the baselines see what is left, and for each of --n-scored cells
the OCRs that are not open in the thinned counts are ranked. Hits are those that are open in all counts. AUROC and average precision are
means over cells. Settings were chosen on donor BMMC_D6T1; donor BMMC_D5T1 was looked at afterwards. "mean" ranks by the openness over all
cells, "kNN" adds up the nearest cells and 20 mean cells, "cell-type mean" knows the labels, and "mean x fold change" is the network's
prediction without groups.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

import scfound_atac as sfa
from scfound_atac.genome import get_ocrs
from scfound_atac.inference.region_set import NetworkVectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRACTION = 0.3
MODELS = ("region-set", "biosample-mix", "biosample-prior")
LARGE = 5000  # cells from which the default model alone is run: the whole ranking of all cells is dense


def binary(adata: ad.AnnData) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(adata.X).astype(np.float32)
    matrix.data[:] = 1
    return matrix


def scores(ranking: np.ndarray, seen: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Means over cells of AUROC and average precision; all (cells, L)."""
    both = [
        (roc_auc_score(hit[~old], rank[~old]), average_precision_score(hit[~old], rank[~old]))
        for rank, old, hit in zip(ranking, seen, truth, strict=True)
        if hit[~old].any()
    ]
    auroc, precision = np.mean(both, axis=0)
    return float(auroc), float(precision)


def neighbours(open_: sparse.csr_matrix, space: np.ndarray, cells: np.ndarray, k: int, mean: np.ndarray) -> np.ndarray:
    graph = NearestNeighbors(n_neighbors=min(k, len(space) - 1)).fit(space).kneighbors_graph(space[cells])
    return (graph @ open_).toarray() + 20 * mean


def imputed(thin: ad.AnnData, model: str, cells: np.ndarray) -> np.ndarray:
    adata = thin[cells].copy() if model.startswith("chromfound") else thin.copy()
    sfa.tl.impute(adata, model=model, n_kept=None)
    whole = adata.layers["sfa_imputed"]
    return (whole if model.startswith("chromfound") else whole[cells]).toarray()


def fold_changes(thin: ad.AnnData, cells: np.ndarray) -> np.ndarray:
    checkpoint = sfa.hub.load("region-set")
    reader = NetworkVectors(checkpoint, checkpoint.region_table().lookup(get_ocrs(thin.var)), reconstruction=True)
    counts = sparse.csr_matrix(thin.X)[cells]
    return reader(counts) @ reader.keys.T


def methods(
    thin: ad.AnnData, cells: np.ndarray, n_chromfound: int
) -> Iterator[tuple[str, int, Callable[[], np.ndarray]]]:
    """Name, number of `cells` that are ranked, and what ranks them."""
    open_, n = binary(thin), len(cells)
    mean = (open_.sum(axis=0).A1 + 0.5 * open_.mean()) / (thin.n_obs + 0.5)
    yield "mean", n, lambda: np.tile(mean, (n, 1))
    for key in ("X_lsi", "X_sfa"):
        for k in (15, 100, 400):
            yield f"kNN, {key}, k={k}", n, lambda key=key, k=k: neighbours(open_, thin.obsm[key], cells, k, mean)
    labels = thin.obs["cell_type"].to_numpy().astype(str)
    by_type = {label: open_[labels == label].mean(axis=0).A1 for label in set(labels)}
    yield "cell-type mean (labels)", n, lambda: np.array([by_type[label] for label in labels[cells]]) + 0.05 * mean
    yield "mean x fold change", n, lambda: mean * np.exp(fold_changes(thin, cells))
    for model in MODELS if thin.n_obs < LARGE else MODELS[:1]:
        yield f"impute, {model}", n, lambda model=model: imputed(thin, model, cells)
    if n_chromfound:
        some = cells[:n_chromfound]
        yield "mean", len(some), lambda: np.tile(mean, (len(some), 1))
        yield "impute, chromfound-bmmc", len(some), lambda: imputed(thin, "chromfound-bmmc", some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n-scored", type=int, default=300)
    parser.add_argument("--n-chromfound", type=int, default=40, help="cells for ChromFound, which is slow on a CPU")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sfa.settings.progress_bar = False

    marrow = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
    sets = (("BMMC_D6T1", 100), ("BMMC_D6T1", 1000), ("BMMC_D6T1", None), ("BMMC_D5T1", None))
    rows = []
    for donor, size in sets:
        whole = marrow[marrow.obs["donor"] == donor]
        rng = np.random.default_rng(args.seed)
        if size is not None:
            whole = whole[np.sort(rng.choice(whole.n_obs, size, replace=False))]
        whole = whole.copy()
        thin = sfa.bench.thin_counts(whole, FRACTION, seed=args.seed)
        cells = rng.choice(thin.n_obs, min(args.n_scored, thin.n_obs), replace=False)
        start = time.perf_counter()
        sfa.tl.impute(thin)
        print(
            f"{donor}, {thin.n_obs} cells: impute with default settings {time.perf_counter() - start:.1f} s", flush=True
        )
        seen, truth = (binary(x)[cells].toarray() > 0 for x in (thin, whole))
        sfa.pp.lsi(thin, n_components=30)
        sfa.tl.embed(thin, n_components=30)
        n_chromfound = args.n_chromfound if (donor, size) == sets[-1] else 0
        for name, n, rank in methods(thin, cells, n_chromfound):
            start = time.perf_counter()
            auroc, precision = scores(rank(), seen[:n], truth[:n])
            seconds = time.perf_counter() - start
            rows.append((f"{donor}, {thin.n_obs} cells", name, n, auroc, precision, seconds))
    columns = ["data", "method", "cells scored", "AUROC", "average precision", "seconds"]
    table = pd.DataFrame(rows, columns=columns)
    table["seconds"] = table["seconds"].map("{:.1f}".format)
    print("\n" + table.to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
