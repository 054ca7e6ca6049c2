"""Time and memory of links of all genes, in one process.

    python benchmarks/links_speed.py [--cells 20000] [--ocrs 100000] [--open 3000] [--groups 10]

Cells are drawn from types of the element table, as in ``annotate_speed.py``; the groups are taken in turn. The target is 2 minutes and 4 GB for
100,000 OCRs and 10 groups on 2 cores.
"""

from __future__ import annotations

import argparse
import logging
import os
import time

import numpy as np
import pandas as pd

import scfound_atac as sfa
from annotate_speed import gigabytes, simulate


def main() -> None:
    """Read the command line, simulate, time."""
    parser = argparse.ArgumentParser(description="Time links of all genes.")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--ocrs", type=int, default=100_000)
    parser.add_argument("--open", type=int, default=3_000)
    parser.add_argument("--groups", type=int, default=10)
    args = parser.parse_args()
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    cells = simulate(args.cells, args.ocrs, args.open)
    cells.obs["group"] = pd.Categorical([f"g{i % args.groups}" for i in range(cells.n_obs)])
    print(f"{args.cells:,} cells x {args.ocrs:,} OCRs, {cells.X.nnz / args.cells:,.0f} open, {os.cpu_count()} cores")
    print(f"with the cells: {gigabytes():.2f} GB")
    for options in ({}, {"min_probability": 0.0}, {"method": "abc"}, {"method": "distance"}):
        start = time.perf_counter()
        sfa.tl.link_enhancers(cells, groupby="group", **options)
        seconds = time.perf_counter() - start
        table = cells.uns["sfa_links"]
        size = table.memory_usage(deep=True).sum() / 1e6
        name = ", ".join(f"{key}={value}" for key, value in options.items()) or "default"
        print(
            f"{name:<22} {seconds:6.1f} s, {len(table):,} links of {table['gene'].nunique():,} genes, table {size:,.0f} MB, "
            f"peak {gigabytes():.2f} GB"
        )
    assert np.isfinite(table["score"]).all()


if __name__ == "__main__":
    main()
