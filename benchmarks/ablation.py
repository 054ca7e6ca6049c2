"""Which part of the default model brings what: parts left out one at a time, in training and in the embedding.

    python benchmarks/ablation.py --data DIR --corpus CORPUS --runs RUNS --out ablation.csv [--n-steps 3000]

Networks are those of scripts/pretraining/region_set.yaml with fewer steps, trained here into --runs (a run that is
there is gone on with, or taken as it is). Scores are those of benchmarks/zero_shot.py, unsmoothed, at
full depth and at 30 % and 10 % of the counts.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import yaml
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.data import Cells
from scfound_atac.genome import load_region_table
from scfound_atac.inference.linear import MeanFactors
from scfound_atac.inference.mixture import embed_mixture
from zero_shot import SETS

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

CONFIG = Path(__file__).parents[1] / "scripts" / "pretraining" / "region_set.yaml"
TRAINED = {
    "whole": {},
    "no contrast": {"objectives": {"profile": 1.0}},
    "contrast alone": {"objectives": {"contrast": 1.0}},
    "identity added": {"objectives": {"profile": 1.0, "contrast": 0.3, "identity": 0.3}},
    "no real cells": {"study_weights": {"real": 0}},
    "no simulated cells": {"study_weights": {"simulated": 0}},
}
COLUMNS = ["kmeans_ari", "kmeans_nmi", "leiden_best_nmi", "knn"]
N_COMPONENTS = 30


def linear_mixture(adata: ad.AnnData) -> np.ndarray:
    """The mixture with the linear prior in the place of the network."""
    cells = Cells.read(adata)
    factors = MeanFactors(load_region_table().lookup(cells.ocrs).factors)
    n_open = np.maximum(sparse.csr_matrix(adata.X).getnnz(axis=0), 1)
    idf = np.log(len(cells) / n_open).astype(np.float32)

    def read(counts: sparse.csr_matrix) -> np.ndarray:
        vectors = factors.read(counts, counts, idf)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    vectors, _, _ = embed_mixture(
        cells,
        read,
        mix=0.67,
        kept=np.ones(cells.n_ocrs, dtype=bool),
        n_components=N_COMPONENTS,
        fit_rows=np.arange(len(cells)),
        progress=False,
    )
    return vectors


def with_mix(folder: Path, mix: float) -> Callable[[ad.AnnData], np.ndarray]:
    checkpoint = replace(sfa.hub.load(folder), mix=mix)

    def embed(cells: ad.AnnData) -> np.ndarray:
        sfa.tl.embed(cells, model=checkpoint, n_components=N_COMPONENTS)
        return cells.obsm["X_sfa"]

    return embed


def train(name: str, changes: dict, corpus: Path, runs: Path, n_steps: int) -> Path:
    output = runs / name.replace(" ", "_")
    if not (output / "final" / "config.json").is_file():
        config = yaml.safe_load(CONFIG.read_text()) | changes
        config |= {"corpus": str(corpus), "output": str(output), "n_steps": n_steps}
        sfa.model.pretrain(config)
    return output / "final"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n-steps", type=int, default=3000)
    parser.add_argument("--sets", nargs="+", default=["bone-marrow-D5T1", "pbmc"], choices=SETS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False

    folders = {name: train(name, changes, args.corpus, args.runs, args.n_steps) for name, changes in TRAINED.items()}
    methods = {
        **folders,
        "cell vectors alone": with_mix(folders["whole"], 1e6),
        "own spectrum alone": "spectral",
        "linear prior for the network": linear_mixture,
        "linear prior alone": "biosample-prior",
        "shipped weights": "region-set",
    }
    tables = []
    for name in args.sets:
        cells = SETS[name].read(args.data)
        table = sfa.bench.compare(
            cells,
            SETS[name].labels,
            methods=methods,
            fractions=[1.0, 0.3, 0.1],
            smooth=[False],
            n_components=N_COMPONENTS,
            out=args.out.with_name(f"{args.out.stem}_{name}.csv"),
        )
        tables.append(table.assign(data=name))
        print(f"\n{name}, {args.n_steps} steps\n\n{sfa.bench.report(tables[-1], scores=COLUMNS)}", flush=True)
    means = pd.concat(tables).groupby(["method"], sort=False)[COLUMNS].mean()
    print(f"\nMean over sets and depths\n\n{means.round(3).to_string()}")


if __name__ == "__main__":
    main()
