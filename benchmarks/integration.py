"""Scores of scib-metrics for embeddings of both bone-marrow donors, each also after Harmony, and of the default with `batch_key`.

    python benchmarks/integration.py --data DIR [--n-cells 2000] [--seeds 5] [--held-out] [--out benchmarks/logs/integration.md]

`batch_key` was developed on simulated batches of donor D6T1 and on a random half of the cells of both donors; `--held-out` takes the
other half.

Seeds choose the cells of each donor; embeddings are made without labels. Each figure is the mean over seeds, with the standard deviation.
"""

from __future__ import annotations

import argparse
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import scfound_atac as sfa

SHOWN = {
    "isolated_labels": "isolated labels",
    "nmi_ari_cluster_labels_kmeans_nmi": "k-means NMI",
    "nmi_ari_cluster_labels_kmeans_ari": "k-means ARI",
    "silhouette_label": "silhouette label",
    "clisi_knn": "cLISI",
    "bras": "BRAS",
    "ilisi_knn": "iLISI",
    "kbet_per_label": "kBET",
    "graph_connectivity": "graph connectivity",
    "pcr_comparison": "PCR",
    "bio": "bio",
    "batch": "batch",
    "total": "total",
    "avg_bio": "AvgBIO",
    "avg_batch": "AvgBATCH",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with bone_marrow_atac.h5ad")
    parser.add_argument("--n-cells", type=int, default=2000, help="maximum number of cells per donor")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--held-out", action="store_true", help="only cells on which nothing was developed")
    parser.add_argument("--before", help="what pcr_comparison compares with, such as lsi; left out by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "logs" / "integration.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sfa.settings.progress_bar = False

    marrow = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
    if args.held_out:
        marrow = marrow[np.random.default_rng(123).random(marrow.n_obs) >= 0.5].copy()
    runs = []
    for seed in range(args.seeds):
        options = {"n_cells": args.n_cells, "before": args.before, "seed": seed}
        runs.append(sfa.bench.integration(marrow, "cell_type", "donor", methods=methods(marrow, seed), **options))
        write(pd.concat(runs), args)
        print(f"seed {seed} done", flush=True)


def methods(marrow: ad.AnnData, seed: int) -> dict[str, Any]:
    """Baselines, the default, and the default with `batch_key`, which has to look the batches of the chosen cells up."""

    def with_batches(adata: ad.AnnData) -> np.ndarray:
        adata.obs["donor"] = marrow.obs["donor"].loc[adata.obs_names]
        sfa.tl.embed(adata, batch_key="donor", seed=seed)
        return adata.obsm["X_sfa"]

    names = [f"{name}{ending}" for name in ("lsi", "spectral", "default") for ending in ("", "+harmony")]
    return {name: name for name in names} | {"default, batch_key": with_batches}


def write(table: pd.DataFrame, args: argparse.Namespace) -> None:
    shown = {key: name for key, name in SHOWN.items() if key in table}
    groups = table.groupby("method", sort=False)[list(shown)]
    mean, spread = groups.mean(), groups.std(ddof=0)
    lines = [
        "# Integration of two bone-marrow donors",
        "",
        f"`python benchmarks/integration.py --data DIR --n-cells {args.n_cells} --seeds {args.seeds}{' --held-out' * args.held_out}`: "
        f"scib-metrics "
        f"{version('scib-metrics')}, harmonypy {version('harmonypy')}; at most {args.n_cells:,} cells per donor "
        f"({table['n_cells'].iloc[0]:,} in all), {table['seed'].nunique()} seeds so far, mean ± standard deviation over them.",
        "",
        f"| embedding | {' | '.join(shown.values())} |",
        f"|{' --- |' * (len(shown) + 1)}",
    ]
    for method in mean.index:
        cells = (f"{mean.loc[method, key]:.3f} ± {spread.loc[method, key]:.3f}" for key in shown)
        lines.append(f"| {method} | {' | '.join(cells)} |")
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
