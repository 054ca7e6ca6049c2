"""Scores of scib-metrics for embeddings of several batches, each also after Harmony, and of the default with `batch_key`.

    python benchmarks/integration.py --data DIR [--n-cells 2000] [--seeds 5] [--sets donors,bmmc,laboratories] [--out benchmarks/logs]
    python benchmarks/integration.py --data DIR --trained ...

With `--trained`, models that are trained on the cells with the batch as covariate are scored instead: PeakVI, PoissonVI and, where there is
expression, MultiVI of scvi-tools by their defaults, and `model.RegionSet` by its defaults. They get the counts that the baselines get.

Three sets of cells:

- donors: bone marrow of two donors on the same OCRs;
- bmmc: two multiome objects of two donors each, with OCRs of their own, concatenated with ``join="outer"``: four batches;
- laboratories: cells of donor D6T1 in three simulated laboratories (`laboratories.py`), concatenated the same way. Baselines get the
  counts on merged regions that all laboratories have; `batch_key` and "peaks as they are" get the concatenation itself.

`batch_key` was developed on a random half of the cells of the donors and on laboratories that were simulated from it. Here is the other
half, unless `--all` is given. Seeds choose the cells and simulate laboratories; embeddings are made without labels. "mean" is the average
over the neighbours of all batches, the last step of `batch_key`, after another method.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import harmonypy
import mudata as md
import numpy as np
import pandas as pd

import scfound_atac as sfa
from laboratories import laboratories, merged
from scfound_atac.inference.batches import balanced_mean

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN = {
    "isolated_labels": "isolated labels",
    "nmi_ari_cluster_labels_kmeans_nmi": "k-means NMI",
    "nmi_ari_cluster_labels_kmeans_ari": "k-means ARI",
    "silhouette_label": "silhouette label",
    "clisi_knn": "cLISI",
    "bras": "BRAS",
    "ilisi_knn": "iLISI",
    "kbet_per_label": "kBET",
    "graph_connectivity": "graph connectivity",
    "pcr_comparison": "PCR",
    "bio": "bio",
    "batch": "batch",
    "total": "total",
    "avg_bio": "AvgBIO",
    "avg_batch": "AvgBATCH",
}
TITLES = {
    "donors": "Two bone-marrow donors",
    "bmmc": "Two multiome objects of two donors each, with OCRs of their own",
    "laboratories": "Three simulated laboratories with peak sets, depths and biases of their own",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with bone_marrow_atac.h5ad and bmmc_multiome_*.h5mu"
    )
    parser.add_argument(
        "--n-cells", type=int, default=2000, help="maximum number of cells per batch; in all laboratories together"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default=",".join(TITLES), help="which sets of cells")
    parser.add_argument("--all", action="store_true", help="also cells on which batch_key was developed")
    parser.add_argument("--trained", action="store_true", help="models that are trained on the cells")
    parser.add_argument("--before", help="what pcr_comparison compares with, such as lsi; left out by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "logs")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False

    runs: dict[str, list[pd.DataFrame]] = {}
    for seed in range(args.seeds):
        for name in args.sets.split(","):
            runs.setdefault(name, []).append(scored(name, seed, args))
            write(runs, args)
            print(f"{name}, seed {seed} done", flush=True)


def scored(name: str, seed: int, args: argparse.Namespace) -> pd.DataFrame:
    """Scores of all methods on one set of cells."""
    baseline, own, labels_key, batch_key = {"donors": donors, "bmmc": bmmc, "laboratories": simulated}[name](seed, args)
    if args.trained:
        chosen = trained(batch_key, seed, with_expression=name == "bmmc")
        if name == "bmmc":
            baseline = with_expression(baseline, args)
    else:
        chosen = methods(own, batch_key, seed, as_they_are=own is not baseline)
    return sfa.bench.integration(
        baseline,
        labels_key,
        batch_key,
        methods=chosen,
        n_cells=args.n_cells,
        before=args.before,
        seed=seed,
    )


def half(args: argparse.Namespace) -> ad.AnnData:
    marrow = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
    return marrow if args.all else marrow[np.random.default_rng(123).random(marrow.n_obs) >= 0.5].copy()


def donors(seed: int, args: argparse.Namespace) -> tuple[ad.AnnData, ad.AnnData, str, str]:
    marrow = half(args)
    return marrow, marrow, "cell_type", "donor"


def simulated(seed: int, args: argparse.Namespace) -> tuple[ad.AnnData, ad.AnnData, str, str]:
    marrow = half(args)
    rows = np.flatnonzero(marrow.obs["donor"] == "BMMC_D6T1")
    rows = np.random.default_rng(seed).choice(rows, min(args.n_cells, len(rows)), replace=False)
    joined = laboratories(marrow[np.sort(rows)].copy(), "cell_type", seed)
    return merged(joined, "lab"), joined, "cell_type", "lab"


def bmmc(seed: int, args: argparse.Namespace) -> tuple[ad.AnnData, ad.AnnData, str, str]:
    parts = {str(i): md.read_h5mu(args.data / f"bmmc_multiome_{i}.h5mu")["atac"] for i in (1, 2)}
    joined = ad.concat(parts, join="outer", label="object", index_unique="-")
    joined.obs["sample"] = joined.obs["batch"].astype(str) + " in object " + joined.obs["object"].astype(str)
    joined.uns["genome"] = "GRCh38"
    return joined, joined, "cell_type", "sample"


def with_expression(joined: ad.AnnData, args: argparse.Namespace) -> md.MuData:
    """The multiome cells with the genes that both objects have."""
    parts = {str(i): md.read_h5mu(args.data / f"bmmc_multiome_{i}.h5mu")["rna"] for i in (1, 2)}
    return md.MuData({"atac": joined, "rna": ad.concat(parts, index_unique="-")})


def trained(batch_key: str, seed: int, *, with_expression: bool) -> dict[str, Any]:
    """Models that are trained on the cells."""

    def region_set(adata: ad.AnnData) -> np.ndarray:
        adata = adata.copy()
        sfa.model.RegionSet.setup_anndata(adata, batch_key=batch_key)
        model = sfa.model.RegionSet(adata)
        model.train(seed=seed, accelerator="cpu")
        return model.get_latent_representation()

    named: dict[str, Any] = {"PeakVI": "peakvi", "PoissonVI": "poissonvi"}
    if with_expression:
        named["MultiVI"] = "multivi"
    return named | {"RegionSet": region_set}


def methods(own: ad.AnnData, batch_key: str, seed: int, *, as_they_are: bool) -> dict[str, Any]:
    """Baselines, and what needs the batches of the chosen cells, which it looks up by their names."""

    def batches(adata: ad.AnnData) -> np.ndarray:
        return pd.factorize(own.obs[batch_key].astype(str).loc[adata.obs_names])[0]

    def harmony(vectors: np.ndarray, adata: ad.AnnData) -> np.ndarray:
        table = pd.DataFrame({"batch": batches(adata).astype(str)})
        found = np.asarray(harmonypy.run_harmony(vectors, table, ["batch"], verbose=False, random_state=seed).Z_corr)
        return found if found.shape == vectors.shape else found.T

    def averaged(embed: Callable[..., Any]) -> Callable[[ad.AnnData], np.ndarray]:
        def method(adata: ad.AnnData) -> np.ndarray:
            embed(adata, key_added="x", seed=seed)
            vectors = harmony(np.asarray(adata.obsm["x"], dtype=np.float64), adata).astype(np.float32)
            return balanced_mean(vectors, np.arange(len(vectors)), batches(adata))

        return method

    def chosen(adata: ad.AnnData) -> ad.AnnData:
        return own[adata.obs_names].copy()

    def with_batches(adata: ad.AnnData) -> np.ndarray:
        found = chosen(adata)
        sfa.tl.embed(found, batch_key=batch_key, seed=seed)
        return found.obsm["X_sfa"]

    def unmapped(adata: ad.AnnData) -> np.ndarray:
        found = chosen(adata)
        sfa.tl.embed(found, seed=seed)
        return harmony(np.asarray(found.obsm["X_sfa"], dtype=np.float64), adata)

    named: dict[str, Any] = {}
    for name, embed in (("lsi", sfa.pp.lsi), ("spectral", sfa.pp.spectral), ("default", sfa.tl.embed)):
        named |= {name: name, f"{name}+harmony": f"{name}+harmony"}
        if name != "lsi":
            named[f"{name}+harmony, mean"] = averaged(embed)
    if as_they_are:
        named["default+harmony, peaks as they are"] = unmapped
    return named | {"default, batch_key": with_batches}


def write(runs: dict[str, list[pd.DataFrame]], args: argparse.Namespace) -> None:
    sets = "" if args.sets == ",".join(TITLES) else f" --sets {args.sets}"
    options = " --all" * args.all + " --trained" * args.trained
    lines = [
        "# Integration of batches",
        "",
        f"`python benchmarks/integration.py --data DIR --n-cells {args.n_cells} --seeds {args.seeds}{sets}{options}`: scib-metrics "
        f"{version('scib-metrics')}, harmonypy {version('harmonypy')}; mean ± standard deviation over seeds.",
    ]
    if not args.all:
        lines[-1] += " Donors and laboratories are from the half of the cells on which nothing was developed."
    for name, parts in runs.items():
        table = pd.concat(parts)
        shown = {key: title for key, title in SHOWN.items() if key in table}
        groups = table.groupby("method", sort=False)[list(shown)]
        mean, spread = groups.mean(), groups.std(ddof=0)
        lines += [
            "",
            f"## {TITLES[name]}",
            "",
            f"{table['n_cells'].iloc[0]:,} cells in {table['n_batches'].iloc[0]} batches, {table['n_labels'].iloc[0]} labels, "
            f"{table['seed'].nunique()} seeds.",
            "",
            f"| embedding | {' | '.join(shown.values())} |",
            f"|{' --- |' * (len(shown) + 1)}",
        ]
        for method in mean.index:
            cells = (f"{mean.loc[method, key]:.3f} ± {spread.loc[method, key]:.3f}" for key in shown)
            lines.append(f"| {method} | {' | '.join(cells)} |")
    (args.out / ("integration_trained.md" if args.trained else "integration.md")).write_text(
        "\n".join(lines) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
