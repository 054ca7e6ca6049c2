"""Zero-shot scores of the bundled ChromFound weights, beside the same network with random weights and TF-IDF + LSI.

Every embedding is made without labels and without smoothing, has 50 components, and is scored alike (`sfa.bench`). Donor ``BMMC_D5T1`` was
never trained on. The 10x PBMC sample comes with the package. ``benchmarks/zero_shot.py`` compares more methods, data sets and depths.

    python benchmarks/bundled_scores.py --data DIR [--n-cells 1000]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad

import scfound_atac as sfa

METHODS = {"TF-IDF + LSI": "lsi", "random weights": "random", "chromfound-bmmc": "chromfound-bmmc"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with bone_marrow_atac.h5ad")
    parser.add_argument("--n-cells", type=int, default=1000)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sfa.settings.progress_bar = False

    sets = {"PBMC sample": sfa.datasets.pbmc_multiome_sample()["atac"]}
    if args.data is not None:
        marrow = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
        sets["bone marrow, donor D5T1"] = marrow[marrow.obs["donor"] == "BMMC_D5T1"]
    for name, adata in sets.items():
        table = sfa.bench.compare(
            adata,
            "cell_type",
            methods=METHODS,
            fractions=[1.0],
            smooth=[False],
            n_cells=args.n_cells,
            n_components=50,
            name=name,
        )
        print(sfa.bench.report(table, scores=("kmeans_ari", "kmeans_nmi", "knn")), flush=True)
        print(
            f"\nSeconds: {', '.join(f'{m} {s:.0f}' for m, s in zip(table['method'], table['seconds'], strict=True))}\n"
        )


if __name__ == "__main__":
    main()
