"""Does a cell type that only one batch has stay apart? Fraction of the 15 nearest cells that are of its type, with and without `batch_key`.

    python benchmarks/missing_type.py --data DIR [--n-cells 1500] [--out benchmarks/logs]

One type at a time is taken out of one of both bone-marrow donors. The cells are the half on which `batch_key` was developed. "mean" is the
average over the neighbours of all batches, the last step of `batch_key`, after Harmony.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import harmonypy
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

import scfound_atac as sfa
from scfound_atac.inference.batches import balanced_mean

# Type, and the donor that loses it; the other one has at least forty cells of it, but for one with 17.
CASES = (
    ("17_B", "BMMC_D6T1"),
    ("17_B", "BMMC_D5T1"),
    ("11_CD14.Mono.1", "BMMC_D6T1"),
    ("11_CD14.Mono.1", "BMMC_D5T1"),
    ("24_CD8.CM", "BMMC_D6T1"),
    ("24_CD8.CM", "BMMC_D5T1"),
    ("25_NK", "BMMC_D5T1"),
    ("07_GMP", "BMMC_D5T1"),
)
_N_NEIGHBORS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with bone_marrow_atac.h5ad")
    parser.add_argument("--n-cells", type=int, default=1500, help="maximum number of cells per donor")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "logs")
    args = parser.parse_args()
    sfa.settings.progress_bar = False
    marrow = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
    marrow = marrow[np.random.default_rng(123).random(marrow.n_obs) < 0.5].copy()
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(marrow.obs["donor"] == donor) for donor in np.unique(marrow.obs["donor"])]
    chosen = [rng.choice(r, min(args.n_cells, len(r)), replace=False) for r in rows]
    cells = marrow[np.sort(np.concatenate(chosen))].copy()

    table = pd.DataFrame([{"type": name, "not in": donor, **purities(cells, name, donor)} for name, donor in CASES])
    methods = list(table.columns[3:])
    lines = [
        "# A cell type that only one batch has",
        "",
        f"`python benchmarks/missing_type.py --data DIR --n-cells {args.n_cells}`: fraction of the {_N_NEIGHBORS} nearest cells of a cell "
        "that are of its type, after the type was taken out of the other donor.",
        "",
        f"| type | not in | cells | {' | '.join(methods)} |",
        "|" + " --- |" * (3 + len(methods)),
    ]
    lines += [
        f"| {row['type']} | {row['not in']} | {row['cells']} | {' | '.join(f'{row[m]:.3f}' for m in methods)} |"
        for row in table.to_dict("records")
    ]
    lines.append(f"| mean | | | {' | '.join(f'{table[m].mean():.3f}' for m in methods)} |")
    (args.out / "missing_type.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def purities(cells: ad.AnnData, name: str, donor: str) -> dict[str, float]:
    """Purity of a type, after it was taken out of a donor, in each embedding."""
    is_type, is_donor = (cells.obs["cell_type"] == name).to_numpy(), (cells.obs["donor"] == donor).to_numpy()
    kept = cells[~(is_type & is_donor)].copy()
    own, batches = (kept.obs["cell_type"] == name).to_numpy(), (kept.obs["donor"] == donor).to_numpy().astype(int)
    sfa.tl.embed(kept, key_added="plain")
    sfa.tl.embed(kept, key_added="corrected", batch_key="donor")
    plain = np.asarray(kept.obsm["plain"], dtype=np.float64)
    table = pd.DataFrame({"batch": batches.astype(str)})
    harmony = np.asarray(harmonypy.run_harmony(plain, table, ["batch"], verbose=False, random_state=0).Z_corr)
    harmony = (harmony if harmony.shape == plain.shape else harmony.T).astype(np.float32)
    found = {
        "default": plain,
        "default+harmony": harmony,
        "default+harmony, mean": balanced_mean(harmony, np.arange(len(harmony)), batches),
        "default, batch_key": kept.obsm["corrected"],
    }
    return {"cells": int(own.sum()), **{method: purity(points, own) for method, points in found.items()}}


def purity(points: np.ndarray, own: np.ndarray) -> float:
    nearest = NearestNeighbors(n_neighbors=_N_NEIGHBORS + 1).fit(points).kneighbors(points[own], return_distance=False)
    return float(own[nearest[:, 1:]].mean())


if __name__ == "__main__":
    main()
