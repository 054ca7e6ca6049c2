"""Zero-shot scores of the bundled weights, beside the same network with random weights and TF-IDF + LSI.

Every embedding is made without labels and without smoothing, has 50 components, and is scored alike: KMeans with k known (five seeds) and
five-fold 15-nearest-neighbour accuracy. Donor ``BMMC_D5T1`` was never trained on. The 10x PBMC sample comes with the package.

    python benchmarks/bundled_scores.py --data DIR [--n-cells 1000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import scfound_atac as sfa


def data_sets(data: Path | None, n_cells: int) -> dict[str, ad.AnnData]:
    sets = {"PBMC sample": sfa.datasets.pbmc_multiome_sample()["atac"]}
    if data is not None:
        marrow = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
        sets["bone marrow, donor D5T1"] = marrow[marrow.obs["donor"] == "BMMC_D5T1"]
    rng = np.random.default_rng(0)
    return {k: a[np.sort(rng.choice(a.n_obs, min(n_cells, a.n_obs), replace=False))].copy() for k, a in sets.items()}


def score(embedding: np.ndarray, labels: np.ndarray) -> tuple[list[float], list[float], np.ndarray]:
    clusters = [KMeans(len(set(labels)), n_init=4, random_state=s).fit_predict(embedding) for s in range(5)]
    ari = [adjusted_rand_score(labels, c) for c in clusters]
    nmi = [normalized_mutual_info_score(labels, c) for c in clusters]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return ari, nmi, cross_val_score(KNeighborsClassifier(15), embedding, labels, cv=folds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with bone_marrow_atac.h5ad")
    parser.add_argument("--n-cells", type=int, default=1000)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sfa.settings.progress_bar = False

    torch.manual_seed(0)
    random_weights = sfa.hub.save(sfa.nn.ChromFoundNet(), tempfile.mkdtemp())
    print(
        "| data | embedding | KMeans ARI | KMeans NMI | 15-NN accuracy | seconds |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, adata in data_sets(args.data, args.n_cells).items():
        labels = adata.obs["cell_type"].astype(str).to_numpy()
        runs = {
            "TF-IDF + LSI": lambda a: sfa.pp.lsi(a, key_added="X"),
            "random weights": lambda a: sfa.tl.embed(a, model=random_weights, key_added="X"),
            "chromfound-bmmc": lambda a: sfa.tl.embed(a, key_added="X"),
        }
        for method, run in runs.items():
            start = time.perf_counter()
            run(adata)
            seconds = time.perf_counter() - start
            cells = " | ".join(f"{np.mean(x):.3f} ± {np.std(x):.3f}" for x in score(adata.obsm["X"], labels))
            print(f"| {name} ({adata.n_obs} x {adata.n_vars}) | {method} | {cells} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
