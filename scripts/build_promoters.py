"""Build ``promoters.npz``: where transcription of each human gene starts, from the table of `scfound_atac.datasets.genes`.

    python scripts/build_promoters.py [--genes FILE]

The table is that of the Activity-by-Contact model (broadinstitute/ABC-Enhancer-Gene-Prediction, MIT): RefSeq genes, one row per symbol.
Without --genes it is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import scfound_atac as sfa
from scfound_atac.genome import CHROMOSOMES, read_genes, transcription_starts
from scfound_atac.genome.promoters import BUNDLED_PROMOTERS

OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "genome" / BUNDLED_PROMOTERS


def main() -> None:
    """Read the genes, sort their starts, write them."""
    parser = argparse.ArgumentParser(description="Build the table of promoters.")
    parser.add_argument("--genes", type=Path, help="BED file of genes instead of the download")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    genes = read_genes(sfa.datasets.genes() if args.genes is None else args.genes)
    genes = genes[genes["chrom"].isin(CHROMOSOMES)]
    genes = genes.assign(tss=transcription_starts(genes))
    genes["chromosome"] = genes["chrom"].map({name: i for i, name in enumerate(CHROMOSOMES)})
    genes = genes.sort_values(["chromosome", "tss", "name"])
    np.savez_compressed(
        args.out,
        n_per_chromosome=np.bincount(genes["chromosome"], minlength=len(CHROMOSOMES)),
        tss=genes["tss"].to_numpy(np.int32),
        is_plus=np.packbits(genes["strand"] == "+"),
        names="\n".join(genes["name"]),
    )
    print(f"{args.out}: {len(genes):,} genes, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
