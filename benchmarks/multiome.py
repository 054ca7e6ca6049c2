"""Accessibility alone, expression alone, weighted nearest neighbours (muon) and the joint space, by scores of cell types.

    python benchmarks/multiome.py --data DIR [--seeds 3] [--out benchmarks/logs/multiome.md]

Every method gives a graph of 15 neighbours, and all scores are of that graph: labels of held-out cells by a vote of their neighbours
(accuracy, and its mean over types), and NMI and ARI of Leiden clusters, each the mean over three resolutions. Embeddings are made without
labels. Seeds choose the cells, and the counts that are kept where expression is thinned.
"""

from __future__ import annotations

import argparse
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import mudata as md
import muon as mu
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score, normalized_mutual_info_score

import scfound_atac as sfa

N_NEIGHBORS = 15
RESOLUTIONS = (0.5, 1.0, 2.0)
SETS = (  # name, file, number of cells, fraction of the counts of expression that is kept
    ("BMMC 1", "bmmc_multiome_1.h5mu", 450, 1.0),
    ("BMMC 1, 15 % of the RNA", "bmmc_multiome_1.h5mu", 450, 0.15),
    ("BMMC 2", "bmmc_multiome_2.h5mu", 450, 1.0),
    ("BMMC 2, 15 % of the RNA", "bmmc_multiome_2.h5mu", 450, 0.15),
    ("PBMC", "pbmc_multiome.h5mu", 1500, 1.0),  # expression is denoised there, and no counts
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files of multiome cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "logs" / "multiome.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sfa.settings.progress_bar = False
    rows = []
    for seed in range(args.seeds):
        for name, file, n_cells, fraction in SETS:
            rows += scores_of_set(name, args.data / file, n_cells, fraction, seed)
            write(pd.DataFrame(rows), args)
            print(f"seed {seed}: {name} done", flush=True)


def scores_of_set(name: str, file: Path, n_cells: int, fraction: float, seed: int) -> list[dict]:
    mdata = md.read_h5mu(file)
    rng = np.random.default_rng(seed)
    mdata = mdata[np.sort(rng.permutation(mdata.n_obs)[:n_cells])].copy()
    atac, rna = mdata["atac"], mdata["rna"]
    if fraction < 1:
        rna.X.data = rng.binomial(rna.X.data.astype(np.int64), fraction).astype(np.float32)
        rna.X.eliminate_zeros()
    sfa.tl.embed(mdata, seed=seed)
    start = time.perf_counter()
    sfa.tl.embed_joint(mdata, seed=seed)
    seconds = time.perf_counter() - start
    expression = components(rna, seed)
    labels = pd.factorize(atac.obs["cell_type"].astype(str))[0]
    graphs = {
        "accessibility": (graph(atac.obsm["X_sfa"], seed), np.nan),
        "expression": (graph(expression, seed), np.nan),
        "joint space": (graph(mdata.obsm["X_sfa_joint"], seed), seconds),
        "WNN": weighted_neighbors({"rna": expression, "atac": atac.obsm["X_sfa"]}, seed),
    }
    weight = mdata.uns["sfa_joint"]["weights"]["atac"]
    return [
        {
            "cells": name,
            "method": method,
            "seed": seed,
            "weight": weight,
            "seconds": spent,
            **scores(found, labels, seed),
        }
        for method, (found, spent) in graphs.items()
    ]


def components(rna: ad.AnnData, seed: int) -> np.ndarray:
    """Principal components of the expression, as `sfa.tl.embed_joint` computes them."""
    values = ad.AnnData(rna.X.copy())
    if (values.X.data == np.round(values.X.data)).all():
        sc.pp.normalize_total(values, target_sum=1e4)
        sc.pp.log1p(values)
    sc.pp.pca(values, n_comps=min(50, values.n_vars - 1), random_state=seed)
    return values.obsm["X_pca"]


def graph(vectors: np.ndarray, seed: int) -> ad.AnnData:
    cells = ad.AnnData(np.zeros((len(vectors), 1), dtype=np.float32), obsm={"X_used": vectors})
    sc.pp.neighbors(cells, use_rep="X_used", n_neighbors=N_NEIGHBORS, random_state=seed)
    return cells


def weighted_neighbors(views: dict[str, np.ndarray], seed: int) -> tuple[ad.AnnData, float]:
    """WNN on cells scaled to length 1, as its authors do, and its seconds, without the neighbours of each modality."""
    parts = {}
    for name, vectors in views.items():
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        parts[name] = graph(unit.astype(np.float32), seed)
        parts[name].var_names = [name]
    both = md.MuData(parts)
    start = time.perf_counter()
    mu.pp.neighbors(both, n_neighbors=N_NEIGHBORS, random_state=seed)
    seconds = time.perf_counter() - start
    cells = ad.AnnData(np.zeros((both.n_obs, 1), dtype=np.float32))
    cells.obsp["distances"], cells.obsp["connectivities"] = both.obsp["distances"], both.obsp["connectivities"]
    cells.uns["neighbors"] = both.uns["neighbors"]
    return cells, seconds


def scores(cells: ad.AnnData, labels: np.ndarray, seed: int) -> dict[str, float]:
    distances = cells.obsp["distances"].tocsr()
    predicted = np.empty_like(labels)
    for i in range(len(labels)):
        near = distances.indices[distances.indptr[i] : distances.indptr[i + 1]]
        predicted[i] = np.bincount(labels[near[near != i]], minlength=labels.max() + 1).argmax()
    nmi, ari = [], []
    for resolution in RESOLUTIONS:
        sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
        clusters = cells.obs["leiden"].to_numpy()
        nmi.append(normalized_mutual_info_score(labels, clusters))
        ari.append(adjusted_rand_score(labels, clusters))
    return {
        "kNN accuracy": float((predicted == labels).mean()),
        "kNN balanced accuracy": float(balanced_accuracy_score(labels, predicted)),
        "NMI": float(np.mean(nmi)),
        "ARI": float(np.mean(ari)),
    }


def write(table: pd.DataFrame, args: argparse.Namespace) -> None:
    shown = ["kNN accuracy", "kNN balanced accuracy", "NMI", "ARI"]
    lines = [
        "# Accessibility and expression together",
        "",
        f"`python benchmarks/multiome.py --data DIR --seeds {args.seeds}`: muon {version('muon')}, {table['seed'].nunique()} seeds so "
        "far, mean ± standard deviation over them. All scores are of graphs of 15 neighbours. `weight` is that of accessibility in the "
        "joint space; `seconds` are those of `sfa.tl.embed_joint` with the PCA of expression, and of `muon.pp.neighbors`.",
        "",
        f"| cells | method | {' | '.join(shown)} | weight | seconds |",
        f"|{' --- |' * (len(shown) + 4)}",
    ]
    groups = [(*key, part) for key, part in table.groupby(["cells", "method"], sort=False)]
    average = table.groupby(["seed", "method"], sort=False)[shown].mean().reset_index()
    groups += [("mean of all", method, part) for method, part in average.groupby("method", sort=False)]
    for cells, method, part in groups:
        values = [f"{part[key].mean():.3f} ± {part[key].std(ddof=0):.3f}" for key in shown]
        is_joint = "weight" in part and method == "joint space"
        has_time = "seconds" in part and part["seconds"].notna().all()
        values += [
            f"{part['weight'].mean():.2f}" if is_joint else "",
            f"{part['seconds'].mean():.1f}" if has_time else "",
        ]
        lines.append(f"| {cells} | {method} | {' | '.join(values)} |")
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
