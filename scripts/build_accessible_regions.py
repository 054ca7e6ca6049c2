"""Build ``accessible_regions.npz``, by which ``genome.check_genome`` recognises a genome build.

Sources, all in the directory given by ``--data``:

* ``biosamples.h5ad``: 180 bulk biosamples (ENCODE and Roadmap DNase-seq; sorted blood ATAC-seq, Corces et al. 2016) x bins of
  500 bp on GRCh38. Bins open in at least ``--min-biosamples`` of them are kept.
* ``genome/genes_grch38.bed``: gene bounds and strands (broadinstitute/ABC-Enhancer-Gene-Prediction, MIT). 500 bp around each
  start are a promoter.
* ``genome/hg19ToHg38.over.chain.gz``: the UCSC chain, read inverted to place both on hg19.

The table holds, for ``GRCh38`` and for ``hg19``, one bit per 500 bp bin of chr1 to chr22, X and Y in this order (packed by
``numpy.packbits``): whether the middle of a kept region lies in it.

    python scripts/build_accessible_regions.py --data DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from scfound_atac.genome import CHROMOSOMES, chromosome_ids, get_ocrs, liftover, read_chain
from scfound_atac.genome.build import BIN_SIZE, first_bins

_OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "genome" / "accessible_regions.npz"
_ROWS = 10


def common_bins(path: Path, min_biosamples: int) -> pd.DataFrame:
    """Bins open in many biosamples; the matrix is read a few rows at a time."""
    adata = ad.read_h5ad(path, backed="r")
    n_open = np.zeros(adata.n_vars, dtype=np.int64)
    for first in range(0, adata.n_obs, _ROWS):
        rows = adata.X[first : first + _ROWS].tocsr()
        n_open += np.bincount(rows.indices[rows.data > 0], minlength=adata.n_vars)
    ocrs = get_ocrs(adata.var)
    adata.file.close()
    return ocrs[n_open >= min_biosamples].reset_index(drop=True)


def promoters(path: Path) -> pd.DataFrame:
    """500 bp around the start of each gene."""
    genes = pd.read_csv(path, sep="\t").rename(columns={"#chr": "chrom"})
    start = np.where(genes["strand"] == "+", genes["start"], genes["end"] - 1)
    half = BIN_SIZE // 2
    return pd.DataFrame({"chrom": genes["chrom"], "start": np.maximum(start - half, 0), "end": start + half})


def pack(regions: pd.DataFrame, genome: str) -> np.ndarray:
    """One bit per bin of the genome."""
    edges = first_bins(genome)
    ids = chromosome_ids(regions["chrom"])
    middle = ((regions["start"] + regions["end"]) // 2).to_numpy(dtype=np.int64)
    is_open = np.zeros(edges[-1], dtype=bool)
    is_open[(edges[ids - 1] + middle // BIN_SIZE)[ids > 0]] = True
    print(f"{genome}: {is_open.sum():,} of {len(is_open):,} bins")
    return np.packbits(is_open)


def main() -> None:
    """Read the command line, build the table, write it."""
    parser = argparse.ArgumentParser(description="Build the table of accessible regions.")
    parser.add_argument("--data", type=Path, required=True, help="directory of biosamples.h5ad and genome/")
    parser.add_argument("--min-biosamples", type=int, default=20, help="biosamples a bin must be open in")
    parser.add_argument("--out", type=Path, default=_OUT)
    args = parser.parse_args()

    bins = common_bins(args.data / "biosamples.h5ad", args.min_biosamples)
    regions = pd.concat([bins, promoters(args.data / "genome" / "genes_grch38.bed")], ignore_index=True)
    lifted = liftover(regions, read_chain(args.data / "genome" / "hg19ToHg38.over.chain.gz", inverted=True))
    lifted = lifted[lifted["chrom"].isin(CHROMOSOMES)]
    np.savez_compressed(args.out, GRCh38=pack(regions, "GRCh38"), hg19=pack(lifted, "hg19"))
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
