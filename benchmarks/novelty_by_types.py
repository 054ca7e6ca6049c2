"""Does what is known of cell types help to find types that a reference lacks? Asked of the training donor alone.

    python benchmarks/novelty_by_types.py --data DIR > benchmarks/logs/novelty_by_types.txt

Donor BMMC_D6T1 is halved; one half is the reference, 2,000 cells of the other, with 60 % of their counts, the query. Each type is left out
of the reference in turn. Base: AUROC with which the novelty of `sfa.tl.annotate` ranks its cells above the others. Each other column adds,
to the logarithm of the novelty, a weight times the logarithm of the root mean square distance between the evidence of a cell for the 150
types (`inference/cell_types.py`, averaged over 30 neighbours) and its mean over the class that the cell would get.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import scfound_atac as sfa
from scfound_atac.data import Cells
from scfound_atac.genome.elements import load_element_table
from scfound_atac.inference.cell_types import FEATURES, Signals, neighborhoods, read_signals, weigh_evidence

WEIGHTS = (0.3, 1.0)
MIN_REFERENCE, MIN_QUERY = 20, 5


def evidence(cells: ad.AnnData) -> np.ndarray:
    """The four numbers of evidence of each cell and type."""
    table, read = load_element_table(), Cells.read(cells)
    embedded = sfa.tl.embed(cells, copy=True).obsm["X_sfa"]
    own = read_signals(read, table.lookup(read.ocrs), table.n_strata, progress=False)
    mean = Signals(*(x.mean(axis=0, keepdims=True) for x in own))
    return weigh_evidence(own.averaged(neighborhoods(embedded, len(read), 30)), mean, table.expected()).features


def main() -> None:
    """Read the command line, leave out each type, print the table."""
    parser = argparse.ArgumentParser(description="Novelty with the distance of evidence for cell types.")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    cells = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
    cells = cells[cells.obs["donor"] == "BMMC_D6T1"].copy()
    rng = np.random.default_rng(0)
    is_reference = rng.random(cells.n_obs) < 0.5
    reference, query = cells[is_reference].copy(), cells[rng.permutation(np.flatnonzero(~is_reference))[:2000]].copy()
    query = sfa.bench.thin_counts(query, 0.6)
    query = query[np.diff(query.X.indptr) > 3].copy()
    query.obs = query.obs.rename(columns={"cell_type": "truth"})
    of_reference, of_query = evidence(reference), evidence(query)
    labels, truth = (x.astype(str).to_numpy() for x in (reference.obs["cell_type"], query.obs["truth"]))
    rows = []
    for left_out in np.unique(labels):
        if (labels == left_out).sum() < MIN_REFERENCE or (truth == left_out).sum() < MIN_QUERY:
            continue
        kept = labels != left_out
        done = sfa.tl.annotate(query, reference=reference[kept].copy(), labels_key="cell_type", copy=True)
        novelty, given = done.obs["cell_type_novelty"].to_numpy(), done.obs["cell_type_best"].astype(str).to_numpy()
        row = {"left out": left_out, "base": roc_auc_score(truth == left_out, novelty)}
        for i, name in enumerate(FEATURES):
            means = {c: of_reference[labels == c, :, i].mean(axis=0) for c in np.unique(given)}
            gap = of_query[:, :, i] - np.stack([means[c] for c in given])
            distance = np.sqrt((gap**2).mean(axis=1))
            for weight in WEIGHTS:
                both = np.log(novelty) + weight * np.log(distance + 1e-3)
                row[f"{name} {weight}"] = roc_auc_score(truth == left_out, both)
        rows.append(row)
    table = pd.DataFrame(rows).set_index("left out")
    table.loc["mean"] = table.mean()
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
