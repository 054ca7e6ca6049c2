"""Build ``gene_table.npz``: the human genes in the package.

    python scripts/build_gene_table.py [--genes FILE]

The genes are the collapsed gene bounds of the Activity-by-Contact model (broadinstitute/ABC-Enhancer-Gene-Prediction, MIT): one row per
symbol, from the first to the last transcribed base. Without --genes the file is downloaded and its checksum compared.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from scfound_atac._download import fetch_file
from scfound_atac.genome.gene_table import BUNDLED_GENES, pack

OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "genome" / BUNDLED_GENES
URL = (
    "https://raw.githubusercontent.com/broadinstitute/ABC-Enhancer-Gene-Prediction/885d08566ebd7a3d3b792011bc3e624fa2aadc20/"
    "reference/hg38/CollapsedGeneBounds.hg38.bed"
)
SHA256 = "b63b8cd30cdff6756316b080b85a5b1006333157dde1baae70c4a4285afd55c7"
NAMES = {"#chr": "chrom", "Ensembl_ID": "id", "gene_type": "type"}


def main() -> None:
    """Read the genes, write the table."""
    parser = argparse.ArgumentParser(description="Build the table of genes.")
    parser.add_argument("--genes", type=Path, help="the file, instead of the download")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.genes
        if path is None:
            path = Path(folder) / "genes.bed"
            fetch_file(path, URL, SHA256, progress=True)
        genes = pd.read_csv(path, sep="\t").rename(columns=NAMES)
    n = pack(genes, args.out)
    print(f"{args.out}: {n:,} genes, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
