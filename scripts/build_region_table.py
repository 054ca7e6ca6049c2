"""Build ``region_table.npz``: what each accessible bin of the genome is, told by the bulk biosamples it is open in.

Source: ``biosamples.h5ad`` in the directory given by ``--data``: 180 bulk biosamples (ENCODE and Roadmap DNase-seq; sorted blood
ATAC-seq, Corces et al. 2016) x bins of 500 bp on GRCh38, values the rank of the peak signal within the biosample (1..255, 0 closed).

TF-IDF over the biosamples, an open bin weighted 0.3 + 0.7 rank / 255, then an SVD; a bin's factors are its right singular vectors,
scaled to unit variance over the bins. The int8 step of a factor is inversely proportional to its singular value, so that the
rounding error is the same in every direction of the reconstructed profile.

    python scripts/build_region_table.py --data DIR
    python scripts/build_region_table.py --data DIR --without-blood --out region_table_noblood.npz
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anndata as ad
import numpy as np

from scfound_atac.genome import genome_order, get_ocrs
from scfound_atac.genome.regions import BUNDLED_TABLE, RegionTable

sys.path.insert(0, str(Path(__file__).parent / "corpus"))
from build import is_blood

_OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "genome" / BUNDLED_TABLE


def factors(ranks, n_factors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the TF-IDF of biosamples x bins: right singular vectors (bins, n_factors) of unit variance, singular values, and loadings.

    The product of the vectors with the loadings (n_biosamples, n_factors) is the TF-IDF, as far as so few factors give it.
    """
    n_biosamples, n_bins = ranks.shape
    n_open = np.bincount(ranks.indices, minlength=n_bins)
    weighted = ranks.astype(np.float32)
    weighted.data = 0.3 + 0.7 * weighted.data / 255
    share = 1e4 / np.asarray(weighted.sum(axis=1)).ravel()
    idf = np.log(1 + n_biosamples / (1 + n_open))
    weighted.data = np.log1p(weighted.data * np.repeat(share, np.diff(weighted.indptr)) * idf[weighted.indices])
    gram = (weighted @ weighted.T).toarray().astype(np.float64)  # few biosamples, a million bins
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:n_factors], vectors[:, ::-1][:, :n_factors]
    table = weighted.T @ vectors
    sign = np.sign(table.sum(axis=0))
    table *= sign
    vectors = vectors * sign
    scale = table.std(axis=0)
    return table / scale, np.sqrt(values), vectors * scale


def main() -> None:
    """Read the command line, build the table, write it."""
    parser = argparse.ArgumentParser(description="Build the table of region factors.")
    parser.add_argument("--data", type=Path, required=True, help="directory of biosamples.h5ad")
    parser.add_argument("--n-factors", type=int, default=48)
    parser.add_argument("--step", type=float, default=0.2, help="int8 step of the first factor, in standard deviations")
    parser.add_argument("--without-blood", action="store_true", help="leave out blood and blood-derived biosamples")
    parser.add_argument("--out", type=Path, default=_OUT)
    args = parser.parse_args()

    biosamples = ad.read_h5ad(args.data / "biosamples.h5ad")
    if args.without_blood:
        biosamples = biosamples[~is_blood(biosamples.obs)].copy()
    ocrs = get_ocrs(biosamples.var)
    order = genome_order(ocrs)
    ranks = biosamples.X.tocsr()[:, order]
    ranks.eliminate_zeros()
    table, singular, loadings = factors(ranks, args.n_factors)
    step = np.minimum(args.step * singular[0] / singular, 2.0).astype(np.float32)
    quantised = np.clip(np.round(table / step), -127, 127).astype(np.int8)
    n_open = np.bincount(ranks.indices, minlength=ranks.shape[1]).astype(np.uint8)
    bins = ocrs.iloc[order][["chrom", "start", "end"]].reset_index(drop=True)
    strength = np.round(np.asarray(ranks.mean(axis=0)).ravel()).astype(np.uint8)
    names = tuple(biosamples.obs["biosample"].astype(str))
    region_table = RegionTable(
        bins,
        np.ascontiguousarray(quantised.T),
        step,
        n_open,
        ranks.shape[0],
        names,
        loadings.astype(np.float32),
        strength,
    )
    region_table.save(args.out)
    print(
        f"{args.out}: {len(bins):,} bins x {args.n_factors} factors from {ranks.shape[0]} biosamples, {args.out.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
