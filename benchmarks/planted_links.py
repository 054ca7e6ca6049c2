"""How well the predicted effect of an OCR finds planted links, with and without the local part of the predictor.

    python benchmarks/planted_links.py [--cells 500] [--ocrs 20000]

Cells of four types; each of 20 genes is driven by one of the 30 OCRs that are nearest to it. The link is ranked by its absolute predicted
change among the 200 nearest OCRs; 1 is best.
"""

from __future__ import annotations

import argparse
import logging

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.data import Cells
from scfound_atac.genome import CHROMOSOMES, transcription_starts
from scfound_atac.genome.elements import load_element_table

N_GENES, N_TYPES, N_NEAR, N_CANDIDATES = 20, 4, 30, 200


def simulate(n_cells: int, n_ocrs: int) -> tuple[md.MuData, list[str], list[np.ndarray], np.ndarray]:
    """Cells, names of genes, candidates of each, and the OCRs that drive them."""
    rng, table = np.random.default_rng(0), load_element_table()
    elements = np.sort(rng.choice(len(table.start), n_ocrs, replace=False))
    chrom = np.repeat(np.array(CHROMOSOMES, dtype=object), table.n_per_chromosome)[elements]
    var = pd.DataFrame({"chrom": chrom, "start": table.start[elements], "end": table.end[elements]})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    kind = rng.integers(N_TYPES, size=n_cells)
    own = np.arange(n_ocrs)[None, :] % N_TYPES == kind[:, None]
    rate = rng.uniform(0.5, 1.5, n_ocrs) * 0.06 * np.where(own, 2.0, 0.75)
    genes = sfa.datasets.genes()
    genes = genes[(genes["type"] == "protein_coding") & genes["chrom"].isin(CHROMOSOMES[:3])].iloc[::150][:N_GENES]
    candidates = []
    for gene_chrom, tss in zip(genes["chrom"], transcription_starts(genes), strict=True):
        here = np.flatnonzero(var["chrom"] == gene_chrom)
        candidates.append(here[np.argsort(np.abs(var["start"].to_numpy()[here] - tss))[:N_CANDIDATES]])
    cause = np.array([rng.choice(each[:N_NEAR]) for each in candidates])
    rate[:, cause] = 0.25 * np.where(own[:, cause], 2.0, 0.75)
    counts = rng.poisson(rate).astype(np.float32)
    of_type = np.where(np.arange(N_GENES)[None, :] % N_TYPES == kind[:, None], 1.5, 1.0)
    driven = rng.poisson(rng.uniform(0.3, 1.5, N_GENES) * of_type + 4.0 * (counts[:, cause] > 0))
    expression = np.column_stack([driven, rng.poisson(100, (n_cells, 5))]).astype(np.float32)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    names = [*genes["name"], *(f"OTHER{i}" for i in range(5))]
    atac = ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=var, uns={"genome": "GRCh38"})
    rna = ad.AnnData(expression, obs=obs.copy(), var=pd.DataFrame(index=names))
    return md.MuData({"atac": atac, "rna": rna}), names[:N_GENES], candidates, cause


def main() -> None:
    """Read the command line, simulate, train, rank."""
    parser = argparse.ArgumentParser(description="Rank planted links by predicted perturbations.")
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--ocrs", type=int, default=20_000)
    args = parser.parse_args()
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    mdata, genes, candidates, cause = simulate(args.cells, args.ocrs)
    cells = Cells.read(mdata)
    # OCRs are few in this simulation, so that the nearest 30 reach further than in real cells.
    for local in (None, 1_500_000):
        predictor = sfa.model.RNAPredictor(local=local).train(mdata, device="cpu")
        ranks = []
        for gene, own, ocr in zip(genes, candidates, cause, strict=True):
            sets = sparse.csr_matrix(
                (np.ones(len(own), np.float32), own, np.arange(len(own) + 1)), shape=(len(own), cells.n_ocrs)
            )
            size = np.abs(predictor.perturb(cells, sets, genes=[gene]).change[:, 0, 0])
            ranks.append(int((size >= size[own == ocr]).sum()))
        print(
            f"{args.cells} cells x {args.ocrs:,} OCRs, local={local}: first for {ranks.count(1)} of {N_GENES} genes, ranks "
            f"{sorted(ranks)}, mean Pearson on held-out cells {predictor.gene_report.loc[genes, 'pearson'].mean():.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
