"""The package in one run: embed real cells with the bundled weights, score the result beside LSI, draw a UMAP.

    python scripts/demo.py [--n-cells 3000] [--out demo_output]

Scores are KMeans clusters (k = number of annotated types, five seeds) and 15-nearest-neighbour accuracy against the published cell types.
Both embeddings get the same treatment, and the labels play no part in making them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def scores(embedding: np.ndarray, labels: np.ndarray) -> str:
    """KMeans ARI and NMI and cross-validated kNN accuracy (mean and standard deviation over seeds) as one line."""
    import scfound_atac as sfa

    clusters = sfa.bench.clustering_scores(embedding, labels)
    pairs = [(clusters[name], clusters[f"{name}_sd"]) for name in ("kmeans_ari", "kmeans_nmi")]
    return "   ".join(f"{mean:.3f} +- {sd:.3f}" for mean, sd in [*pairs, sfa.bench.knn_accuracy(embedding, labels)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-cells", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the picture")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")

    import scanpy as sc

    import scfound_atac as sfa

    adata = sfa.datasets.pbmc_multiome_sample()["atac"]
    adata = adata[: args.n_cells].copy()
    print(f"10x PBMC multiome sample: {adata.n_obs} cells x {adata.n_vars} OCRs, no labels used")

    start = time.perf_counter()
    sfa.tl.embed(adata)
    seconds = time.perf_counter() - start
    rate = adata.n_obs / seconds
    params = adata.uns["sfa"]["params"]
    speed = f"{rate:.0f} cells/s, {rate * adata.n_vars:.0f} tokens/s"
    print(f"sfa.tl.embed: {seconds:.1f} s, {speed} on {params['device']} ({params['model']})")
    start = time.perf_counter()
    sfa.pp.lsi(adata)
    print(f"sfa.pp.lsi:   {time.perf_counter() - start:.1f} s")

    labels = adata.obs["cell_type"].astype(str).to_numpy()
    print(f"\n{'':14}{'KMeans ARI':18}{'KMeans NMI':18}15-NN accuracy")
    for name, key in (("sfa.tl.embed", "X_sfa"), ("TF-IDF + LSI", "X_lsi")):
        print(f"{name:14}{scores(adata.obsm[key], labels)}")
    print("Higher is better. Use what wins on data like yours.")

    args.out.mkdir(parents=True, exist_ok=True)
    sc.pp.neighbors(adata, use_rep="X_sfa")
    sc.tl.umap(adata)
    figure = sc.pl.umap(adata, color="cell_type", title="sfa.tl.embed, bundled weights", show=False, return_fig=True)
    figure.savefig(args.out / "umap.png", dpi=120, bbox_inches="tight")
    print(f"\nwrote {args.out / 'umap.png'}")


if __name__ == "__main__":
    main()
