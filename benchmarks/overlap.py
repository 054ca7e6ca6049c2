"""Time `genome.overlaps` and `genome.parse_names` at the size of real data: 450,000 against 1,000,000 intervals."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from scfound_atac.genome import CHROMOSOME_SIZES, overlaps, parse_names


def random_ocrs(n_ocrs: int, seed: int) -> pd.DataFrame:
    """500 bp intervals at random places, in random order."""
    rng = np.random.default_rng(seed)
    names = np.array(list(CHROMOSOME_SIZES["GRCh38"]), dtype=object)
    sizes = np.array(list(CHROMOSOME_SIZES["GRCh38"].values()))
    which = rng.choice(len(names), n_ocrs, p=sizes / sizes.sum())
    start = (rng.random(n_ocrs) * (sizes[which] - 500)).astype(np.int64)
    return pd.DataFrame({"chrom": names[which], "start": start, "end": start + 500})


def main() -> None:
    """Print seconds."""
    a, b = random_ocrs(450_000, seed=0), random_ocrs(1_000_000, seed=1)
    overlaps(a[:10], b[:10])  # pays for the import
    began = time.perf_counter()
    pairs = overlaps(a, b)
    print(f"overlaps    {len(a):>9,} x {len(b):,}: {len(pairs):,} pairs in {time.perf_counter() - began:.2f} s")
    names = (a["chrom"] + ":" + a["start"].astype(str) + "-" + a["end"].astype(str)).tolist()
    began = time.perf_counter()
    parse_names(names)
    print(f"parse_names {len(names):>9,}: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
