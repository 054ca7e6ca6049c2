"""Time and memory of naming cells without a reference, in one process on all cores.

    python benchmarks/annotate_speed.py [--cells 100000] [--ocrs 100000] [--open 1000]

Cells are drawn from six types of the element table: OCRs are elements, and those of a cell's type are ten times as often open.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import time

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.genome import CHROMOSOMES
from scfound_atac.genome.elements import load_element_table

N_TYPES = 6


def simulate(n_cells: int, n_ocrs: int, n_open: int, seed: int = 0) -> ad.AnnData:
    """Cells of six types, in turn."""
    table, rng = load_element_table(), np.random.default_rng(seed)
    elements = np.sort(rng.choice(len(table.start), n_ocrs, replace=False))
    types, base = table.types[elements], rng.lognormal(0, 1, n_ocrs)
    chosen = rng.choice(144, N_TYPES, replace=False)
    rates = base * (1 + 9 * types[:, chosen].toarray().T)  # (N_TYPES, n_ocrs)
    cumulative = np.cumsum(rates, axis=1) / rates.sum(axis=1, keepdims=True)
    rows = [np.unique(np.searchsorted(cumulative[i % N_TYPES], rng.random(n_open))) for i in range(n_cells)]
    indptr = np.append(0, np.cumsum([len(row) for row in rows]))
    indices = np.concatenate(rows).astype(np.int32)
    counts = sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(n_cells, n_ocrs))
    chrom = np.repeat(np.array(CHROMOSOMES, dtype=object), table.n_per_chromosome)[elements]
    var = pd.DataFrame({"chrom": chrom, "start": table.start[elements], "end": table.end[elements]})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    truth = np.asarray(table.type_names, dtype=object)[chosen[np.arange(n_cells) % N_TYPES]]
    return ad.AnnData(counts, obs=pd.DataFrame({"truth": truth}, index=[f"c{i}" for i in range(n_cells)]), var=var)


def gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Read the command line, simulate, time."""
    parser = argparse.ArgumentParser(description="Time names of cells without a reference.")
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--ocrs", type=int, default=100_000)
    parser.add_argument("--open", type=int, default=1_000)
    args = parser.parse_args()
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    cells = simulate(args.cells, args.ocrs, args.open)
    before, start = gigabytes(), time.perf_counter()
    sfa.tl.annotate(cells, genome="GRCh38")
    seconds = time.perf_counter() - start
    right = (cells.obs["cell_type_best"].astype(str) == cells.obs["truth"]).mean()
    print(
        f"{args.cells:,} cells x {args.ocrs:,} OCRs, {cells.X.nnz / args.cells:,.0f} open per cell, {os.cpu_count()} cores: {seconds:.0f} s, "
        f"peak memory {before:.1f} GB before and {gigabytes():.1f} GB after; best type right: {right:.3f}"
    )


if __name__ == "__main__":
    main()
