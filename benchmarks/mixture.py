"""How the default model combines its two views: rules for their weight, on cells that are not the test sets.

    python benchmarks/mixture.py --data DIR [--models region-set NAME=FOLDER ...]

The sets are those of `development_sets.py`, thinned to 100, 50, 30, 20 and 10 % of the counts. The rule ``fixed`` is the first one,
with norms sqrt(r) and 0.67 and all directions as they are; the others are that of `scfound_atac.inference.mixture` with several factors.
Scores are the kNN accuracy and the NMI of k-means (three starts), means over two seeds.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

import scfound_atac as sfa
from development_sets import LABEL, development_sets
from scfound_atac.data import Cells
from scfound_atac.inference import mixture
from scfound_atac.inference.region_set import NetworkVectors
from scfound_atac.inference.reliability import Reliable
from zero_shot import named_methods

FRACTIONS = (1.0, 0.5, 0.3, 0.2, 0.1)
FACTORS = (0.8, 1.0, 1.3, 1.6, 2.0)
N_COMPONENTS = 30
N_SEEDS = 2


def fixed(first: np.ndarray, second: np.ndarray) -> Reliable:
    """In the place of `reliable_directions`: all directions as they are."""
    return Reliable(np.eye(first.shape[1]), 1.0)


def embeddings(cells: Cells, reader: NetworkVectors) -> dict[str, np.ndarray]:
    options = {
        "order": np.arange(cells.n_ocrs),
        "n_components": N_COMPONENTS,
        "fit_rows": np.arange(len(cells)),
        "progress": False,
    }
    fit = mixture.spectral_fit(cells.to_memory(), N_COMPONENTS + 2, tolerance=1e-4)
    values, noise = fit.values[1:-1], fit.values[-1]
    above = (values - noise).sum() / values.sum()
    with mock.patch.object(mixture, "reliable_directions", fixed):
        found = {"fixed": mixture.embed_mixture(cells, reader, mix=0.67 / np.sqrt(above), **options)[0]}
    for factor in FACTORS:
        with mock.patch.object(mixture, "_KNOWLEDGE", factor):
            found[f"halves, {factor}"] = mixture.embed_mixture(cells, reader, mix=None, **options)[0]
    return found


def scores(embedding: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    n_clusters = len(np.unique(labels))
    found = [KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(embedding) for seed in range(N_SEEDS)]
    nmi = np.mean([normalized_mutual_info_score(labels, clusters) for clusters in found])
    return sfa.bench.knn_accuracy(embedding, labels, n_seeds=N_SEEDS)[0], float(nmi)


def markdown(rows: pd.DataFrame, score: str) -> str:
    """Means over depths by set, over sets by depth, and over all."""
    by_set = rows.pivot_table(index=["model", "rule"], columns="set", values=score, sort=False)
    by_depth = rows.pivot_table(index=["model", "rule"], columns="fraction", values=score, sort=False)
    by_depth.columns = [f"{100 * fraction:g} %" for fraction in by_depth.columns]
    table = by_set.join(by_depth).assign(mean=by_set.mean(axis=1))
    head = ["model", "rule", *map(str, table.columns)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for (model, rule), values in table.iterrows():
        lines.append(f"| {model} | {rule} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["region-set"], metavar="MODEL")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    rows = []
    for name, adata in development_sets(args.data).items():
        labels = adata.obs[LABEL].astype(str).to_numpy()
        for fraction in FRACTIONS:
            cells = Cells.read(sfa.bench.thin_counts(adata, fraction, seed=0))
            for model, folder in named_methods(args.models).items():
                checkpoint = sfa.hub.load(folder)
                reader = NetworkVectors(checkpoint, checkpoint.region_table().lookup(cells.ocrs))
                for rule, embedding in embeddings(cells, reader).items():
                    knn, nmi = scores(embedding, labels)
                    rows.append(
                        {"set": name, "fraction": fraction, "model": model, "rule": rule, "knn": knn, "nmi": nmi}
                    )
    table = pd.DataFrame(rows)
    for score, title in (("knn", "kNN accuracy"), ("nmi", "NMI of k-means")):
        print(f"**{title}**\n\n{markdown(table, score)}\n")


if __name__ == "__main__":
    main()
