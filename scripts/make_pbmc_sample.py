"""Draw the bundled PBMC sample from the full multiome table.

The table (``--source pbmc_multiome.h5mu``: 10,291 cells, 662 OCRs, 51 genes) holds what the source distribution of chromatinhd 0.4.3
ships in ``src/chromatinhd/data/examples/pbmc10ktiny``.

    python scripts/make_pbmc_sample.py --source pbmc_multiome.h5mu
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import mudata
import numpy as np
from scipy import sparse

TARGET = Path(__file__).parents[1] / "src" / "scfound_atac" / "datasets" / "pbmc_multiome_sample.h5mu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--n-cells", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)
    full = mudata.read_h5mu(args.source)
    cells = np.sort(np.random.default_rng(args.seed).choice(full.n_obs, args.n_cells, replace=False))
    names = full.obs_names[cells]
    atac, rna = full.mod["atac"][names].copy(), full.mod["rna"][names].copy()
    counts = sparse.csr_matrix(atac.X)
    if counts.max() > 255 or (counts.data != np.round(counts.data)).any():
        msg = "The counts do not fit uint8."
        raise ValueError(msg)
    atac.X = counts.astype(np.uint8)
    rna.X = np.asarray(rna.X.toarray() if sparse.issparse(rna.X) else rna.X, dtype=np.float32)
    atac.uns = {
        "genome": "GRCh38",
        "source": "10x Genomics PBMC granulocyte-sorted 10k multiome, via chromatinhd 0.4.3",
        "licence": "data: CC BY 4.0, 10x Genomics; package chromatinhd: MIT",
    }
    mudata.MuData({"atac": atac, "rna": rna}).write_h5mu(args.target, compression="gzip", compression_opts=9)
    print(f"{args.target}: {args.target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
