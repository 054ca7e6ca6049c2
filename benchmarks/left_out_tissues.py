"""The default beside LSI and the spectral embedding on simulated cells of tissues and lines that its training did not see.

    python benchmarks/left_out_tissues.py --data DIR > benchmarks/logs/left_out_tissues.md

Sets are those of `development_sets.py`; protocol and scores those of `scfound_atac.bench.compare`, without smoothing.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import pandas as pd

import scfound_atac as sfa
from development_sets import LABEL, development_sets

SETS = ("lines", "brain", "islet")
FRACTIONS = (1.0, 0.5, 0.3, 0.2, 0.1)


def main() -> None:
    """Read the command line, compare, print a table per score."""
    parser = argparse.ArgumentParser(description="Compare embeddings on left-out tissues.")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    found = development_sets(args.data)
    options = {"methods": ("lsi", "spectral", "default"), "fractions": FRACTIONS, "smooth": (False,), "n_seeds": 3}
    rows = pd.concat([sfa.bench.compare(found[name], LABEL, name=name, **options) for name in SETS])
    for score in ("knn", "kmeans_nmi"):
        table = rows.pivot_table(index=["data", "fraction"], columns="method", values=score, sort=False)
        print(f"**{score}**\n\n| set | counts | {' | '.join(table.columns)} |\n|{' --- |' * (len(table.columns) + 2)}")
        for (name, fraction), values in table.iterrows():
            print(f"| {name} | {fraction:.0%} | {' | '.join(f'{x:.3f}' for x in values)} |")
        print()


if __name__ == "__main__":
    main()
