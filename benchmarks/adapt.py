"""Neighbours of the same type before and after `model.RegionSet` is adapted to the cells of one donor, and the time that it takes.

    python benchmarks/adapt.py --data DIR [--n-cells 10000] [--seeds 3] [--epochs 30] [--sets ...] [--out benchmarks/logs/adapt.md]

The model learns from all cells of a set, without labels; neighbours are then looked for among the same cells. Scores are means over five
folds of a 15-nearest-neighbour classifier; the seed chooses the cells, the folds and the draws of training. PeakVI and PoissonVI of
scvi-tools are trained by their defaults on the OCRs that are open in at least 5 % of the cells, with `--peers`.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import time
import warnings
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier

import scfound_atac as sfa

METRICS = {"accuracy": "test_accuracy", "balanced accuracy": "test_balanced_accuracy"}


def read(name: str, data: Path) -> ad.AnnData:
    if name.startswith("BMMC_"):
        marrow = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
        return marrow[marrow.obs["donor"] == name].copy()
    if name == "pbmc":
        return sfa.datasets.pbmc_multiome_sample()["atac"]
    return md.read_h5mu(data / f"{name}.h5mu")["atac"]


def scores(vectors: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    found = cross_validate(
        KNeighborsClassifier(15), vectors, labels, cv=folds, scoring=["accuracy", "balanced_accuracy"]
    )
    return {name: found[key].mean() for name, key in METRICS.items()}


def methods(adata: ad.AnnData, args: argparse.Namespace, seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """Vectors of each method, and the seconds that they took."""
    found = {}
    start = time.perf_counter()
    sfa.tl.embed(adata, seed=seed)
    found["default"] = adata.obsm["X_sfa"], time.perf_counter() - start
    start = time.perf_counter()
    sfa.model.RegionSet.setup_anndata(adata)
    model = sfa.model.RegionSet(adata)
    model.train(args.epochs, seed=seed, accelerator="cpu")
    found["adapted"] = model.get_latent_representation(), time.perf_counter() - start
    for name in args.peers:
        start = time.perf_counter()
        table = adata.copy()
        table.obs["batch"] = "one"
        found[name] = peer(name, table, seed), time.perf_counter() - start
    return found


def peer(name: str, adata: ad.AnnData, seed: int) -> np.ndarray:
    import scvi

    scvi.settings.seed = seed
    cls = {"peakvi": scvi.model.PEAKVI, "poissonvi": scvi.external.POISSONVI}[name]
    adata = adata[:, np.asarray((adata.X > 0).mean(axis=0)).ravel() >= 0.05].copy()
    cls.setup_anndata(adata)
    model = cls(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model.get_latent_representation()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=["BMMC_D6T1", "BMMC_D5T1", "pbmc", "bmmc_multiome_1"])
    parser.add_argument("--n-cells", type=int, default=10_000, help="maximum number of cells")
    parser.add_argument("--min-cells", type=int, default=10, help="types with fewer cells are left out of the scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--peers", nargs="*", default=[], choices=["peakvi", "poissonvi"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "logs" / "adapt.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sfa.settings.progress_bar = False

    rows = []
    for name in args.sets:
        whole = read(name, args.data)
        for seed in range(args.seeds):
            n = min(args.n_cells, whole.n_obs)
            chosen = np.sort(np.random.default_rng(seed).choice(whole.n_obs, n, replace=False))
            adata = whole[chosen].copy()
            labels = adata.obs["cell_type"].astype(str).to_numpy()
            counts = pd.Series(labels).value_counts()
            kept = np.isin(labels, counts.index[counts >= args.min_cells])
            for method, (vectors, seconds) in methods(adata, args, seed).items():
                row = {"cells": name, "n_cells": n, "n_ocrs": adata.n_vars, "seed": seed, "method": method}
                rows.append(row | {"seconds": seconds, **scores(vectors[kept], labels[kept], seed)})
                print(rows[-1], flush=True)
            write(pd.DataFrame(rows), args)


def write(table: pd.DataFrame, args: argparse.Namespace) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    command = (
        f"python benchmarks/adapt.py --data DIR --n-cells {args.n_cells} --seeds {args.seeds} --epochs {args.epochs}"
    )
    lines = [
        "# The default model, adapted to cells",
        "",
        f"`{command} --sets {' '.join(args.sets)}{' --peers ' + ' '.join(args.peers) if args.peers else ''}` on {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} of them used by torch; peak memory {peak:.1f} GiB. Neighbours of the same type: mean ± standard "
        f"deviation over {table['seed'].nunique()} seeds. Seconds are those of a machine that did other things too.",
        "",
        f"| cells | number | OCRs | method | {' | '.join(METRICS)} | seconds |",
        f"|{' --- |' * (len(METRICS) + 5)}",
    ]
    for keys, group in table.groupby(["cells", "n_cells", "n_ocrs", "method"], sort=False):
        shown = (f"{group[name].mean():.3f} ± {group[name].std(ddof=0):.3f}" for name in METRICS)
        name, n_cells, n_ocrs, method = keys
        lines.append(
            f"| {name} | {n_cells:,} | {n_ocrs:,} | {method} | {' | '.join(shown)} | {group['seconds'].mean():.0f} |"
        )
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
