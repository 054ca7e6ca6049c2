"""Region-set with the cell types of REMO elements as additional features of a region: trained here, scored on the development sets.

    python benchmarks/element_features.py --data DIR --corpus CORPUS --runs RUNS [--n-steps 2000]

The network of scripts/pretraining/region_set.yaml is trained twice, without and with the block of `element_features`, then both are scored
with the mixture of the package. Nothing of it is shipped: `benchmarks/logs/region_set_2.md` says why.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pandas as pd
import yaml

import scfound_atac as sfa
from development_sets import LABEL, development_sets
from mixture import FRACTIONS, N_COMPONENTS, markdown, scores
from scfound_atac.data import Cells
from scfound_atac.genome import KnownRegions, RegionTable
from scfound_atac.genome.elements import load_element_table
from scfound_atac.inference.mixture import embed_mixture
from scfound_atac.inference.region_set import NetworkVectors

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

CONFIG = Path(__file__).parents[1] / "scripts" / "pretraining" / "region_set.yaml"
_SCALE = 4.5  # the weights of the five types of an element then have about the length of the 48 factors of a region
_MEAN_GC, _SD_GC = 50, 10  # per cent


def element_features(ocrs: pd.DataFrame) -> NDArray[np.float32]:
    """Weight of each cell type, log of their number, GC and whether the OCR overlaps an element, (n_ocrs, n_types + 3)."""
    known = load_element_table().lookup(ocrs)
    types = known.types.toarray()
    gc = np.where(known.found, (np.nan_to_num(known.gc) - _MEAN_GC) / _SD_GC, 0)
    return np.column_stack([_SCALE * types, np.log1p((types > 0).sum(axis=1)), gc, known.found]).astype(np.float32)


class WithElements:
    """`KnownRegions` whose features have the block of the elements beside them."""

    def __init__(self, known: KnownRegions, of_elements: NDArray[np.float32]) -> None:
        self.known, self.of_elements = known, of_elements
        self.found = known.found | (of_elements[:, -1] > 0)

    @property
    def features(self) -> NDArray[np.float32]:
        """Input of networks, (n_ocrs, n_features + n_types + 3)."""
        return np.column_stack([self.known.features, self.of_elements])


def with_elements() -> mock._patch:
    """A context in which the look-up of regions looks up elements, too."""
    lookup = RegionTable.lookup
    return mock.patch.object(
        RegionTable, "lookup", lambda t, ocrs: WithElements(lookup(t, ocrs), element_features(ocrs))
    )


def train(name: str, n_features: int, corpus: Path, runs: Path, n_steps: int) -> Path:
    config = yaml.safe_load(CONFIG.read_text()) | {
        "corpus": str(corpus),
        "output": str(runs / name),
        "n_steps": n_steps,
    }
    config["network"]["n_factors"] = n_features
    sfa.model.pretrain(config)
    return runs / name / "final"


def scored(name: str, folder: Path, sets: dict[str, ad.AnnData]) -> list[dict]:
    checkpoint, rows = sfa.hub.load(folder), []
    for data, adata in sets.items():
        for fraction in FRACTIONS:
            cells = Cells.read(sfa.bench.thin_counts(adata, fraction, seed=0))
            vectors, _, _ = embed_mixture(
                cells,
                NetworkVectors(checkpoint, checkpoint.region_table().lookup(cells.ocrs)),
                mix=None,
                order=np.arange(cells.n_ocrs),
                n_components=N_COMPONENTS,
                fit_rows=np.arange(len(cells)),
                progress=False,
            )
            knn, nmi = scores(vectors, adata.obs[LABEL].astype(str).to_numpy())
            rows.append({"set": data, "fraction": fraction, "model": name, "rule": "halves", "knn": knn, "nmi": nmi})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--n-steps", type=int, default=2000)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sets, n_features = development_sets(args.data), sfa.genome.load_region_table().n_features
    rows = scored("regions", train("regions", n_features, args.corpus, args.runs, args.n_steps), sets)
    with with_elements():
        n_features += load_element_table().n_types + 3
        rows += scored("and elements", train("elements", n_features, args.corpus, args.runs, args.n_steps), sets)
    for score, title in (("knn", "kNN accuracy"), ("nmi", "NMI of k-means")):
        print(f"**{title}**\n\n{markdown(pd.DataFrame(rows), score)}\n")


if __name__ == "__main__":
    main()
