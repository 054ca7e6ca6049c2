"""Cells per second of the models that need no GPU, beside LSI in the same run.

    python benchmarks/region_models.py --data DIR

Two matrices: bone-marrow donor BMMC_D6T1 repeated to --n-cells cells (about 160 open OCRs of 10,000 per cell), and simulated cells of
sorted blood types over 100,000 OCRs (about 3,000 open). Everything is timed but reading the file: checks, look-up of the regions, fit on at
most 20,000 cells, projection of all.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.genome import get_ocrs

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "corpus"))
from simulate import StudyDesign, simulate_study

MODELS = ("biosample-prior", "biosample-mix", "region-set")


def marrow(data: Path, n_cells: int) -> ad.AnnData:
    cells = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
    cells = cells[cells.obs["donor"] == "BMMC_D6T1"]
    rows = np.arange(n_cells) % cells.n_obs
    adata = ad.AnnData(sparse.csr_matrix(cells.X)[rows], var=cells.var)
    adata.obs_names = [f"cell{i}" for i in range(n_cells)]
    return adata


def deep(data: Path, n_cells: int) -> ad.AnnData:
    biosamples = ad.read_h5ad(data / "biosamples.h5ad")
    blood = np.flatnonzero(biosamples.obs_names.str.startswith("sorted"))
    design = StudyDesign(n_biosamples=len(blood), median_open=3_000, counts="fragments")
    bins = get_ocrs(biosamples.var)
    return simulate_study(biosamples.X, bins, n_cells=n_cells, n_ocrs=100_000, chosen=blood, design=design)


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n-cells", type=int, nargs=2, default=[100_000, 20_000], help="of both matrices")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sfa.settings.progress_bar = False

    print("| matrix | model | seconds | cells/s | LSI's time over this |")
    print("| --- | --- | --- | --- | --- |")
    for name, adata in (("marrow", marrow(args.data, args.n_cells[0])), ("deep", deep(args.data, args.n_cells[1]))):
        shape = f"{name}, {adata.n_obs:,} x {adata.n_vars:,}, {adata.X.nnz / adata.n_obs:,.0f} open"
        lsi = seconds(lambda adata=adata: sfa.pp.lsi(adata, n_components=30))
        print(f"| {shape} | LSI | {lsi:.1f} | {adata.n_obs / lsi:,.0f} | 1 |", flush=True)
        for model in MODELS:
            took = seconds(lambda adata=adata, model=model: sfa.tl.embed(adata, model=model, n_components=30))
            print(f"| {shape} | {model} | {took:.1f} | {adata.n_obs / took:,.0f} | {lsi / took:.2f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
