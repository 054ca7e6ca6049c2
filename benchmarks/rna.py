"""Expression predicted from accessibility in cells that were held out, by the models and by methods that know no other data.

    python benchmarks/rna.py --data DIR --out FOLDER [--sets SET ...] [--methods NAME ...] [--seeds 3]

Of each set 80 % of the cells are for training, 10 % for choosing the epoch, 10 % for testing; all methods are scored on the same test
cells, and baselines learn from the 90 % that are not for testing. "by batch" holds out the smaller batch. The small sets are split twice
as often. Of gene activity the best of six forms (normalisation, weights) is shown, chosen by the test cells in its favour;
cell-type-mean-true is told the types of the test cells, and so is no prediction. No released weights of EpiFoundation come with the
package: its network is a small new one, trained on the training cells alone. Finished rows stand in --out (rna.csv) and are not computed
again.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import mudata
import numpy as np
import pandas as pd

import scfound_atac as sfa
from scfound_atac.bench._finished import FinishedRows
from scfound_atac.train.expression import read_expression, split_cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mudata import MuData

LABELS = "cell_type"
ACTIVITY = [(normalize, weights) for normalize in ("log1p", "total", None) for weights in ("none", "distance")]
HEADER = (
    "method",
    "seeds",
    "gene Pearson",
    "flat Pearson",
    "gene Spearman",
    "gene CCC",
    "MSE",
    "validation gene Pearson",
    "against best baseline",
    "seconds",
)
SCORES = ("gene_pearson", "gene_spearman", "gene_ccc", "flat_pearson", "mse")


@dataclass(frozen=True)
class Method:
    """An `RNAPredictor`."""

    model: str = "region-set"
    head: str = "mlp"
    measured: bool = True


BASELINES = ("gene-activity", "cell-type-mean", "ridge-lsi", "knn-lsi")
UPPER_BOUND = "cell-type-mean-true"
METHODS = {
    "region-set, mlp": Method(),
    "region-set, gene-query": Method(head="gene-query"),
    "region-set, mlp, backbone alone": Method(measured=False),
    "chromfound-bmmc, gene-query": Method("chromfound-bmmc", "gene-query"),
    "EpiFoundation from scratch, gene-query": Method("EpiFoundation", "gene-query"),
}
ONCE = (
    "chromfound-bmmc, gene-query",
    "EpiFoundation from scratch, gene-query",
)  # slow on a CPU: with the first seed alone
SETS = {  # file, split_key, times --seeds
    "PBMC": ("pbmc_multiome", None, 1),
    "BMMC 1": ("bmmc_multiome_1", None, 2),
    "BMMC 2": ("bmmc_multiome_2", None, 2),
    "BMMC 1, by batch": ("bmmc_multiome_1", "batch", 1),
    "BMMC 2, by batch": ("bmmc_multiome_2", "batch", 1),
}


class Split(NamedTuple):
    """A set, its expression on the scale of `RNAPredictor`, and names of cells to learn from and to test on."""

    mdata: MuData
    split_key: str | None
    expression: pd.DataFrame
    learning: pd.Index
    test: pd.Index
    training: pd.Index


def genes_of(args: argparse.Namespace) -> Path:
    return args.data / "genome" / "genes_grch38.bed"


def read_split(path: Path, split_key: str | None, seed: int) -> Split:
    mdata = mudata.read_h5mu(path)
    target = read_expression(mdata, mdata["atac"], modality="rna", layer=None, genes=None, binned=False)
    rows = split_cells(mdata, mdata["atac"], target.names, split_key=split_key, seed=seed)
    expression = pd.DataFrame(target.values, target.names, target.genes)
    test = target.names[rows["test"]]
    return Split(mdata, split_key, expression, target.names.difference(test), test, target.names[rows["train"]])


def best_activity(split: Split, genes: Path) -> tuple[pd.Series, str]:
    """Scores of gene activity in the form that suits these cells best, and which form it is."""
    atac = split.mdata["atac"][split.test].copy()
    truth = split.expression.loc[split.test]
    found = []
    for normalize, weights in ACTIVITY:
        sfa.tl.gene_activity(atac, genes=genes, normalize=normalize, weights=weights)
        names = atac.uns["gene_activity"]["genes"].index
        prediction = pd.DataFrame(atac.obsm["gene_activity"].toarray(), split.test, names)
        prediction = prediction.reindex(columns=truth.columns, fill_value=0)
        found.append((sfa.bench.expression_scores(truth, prediction), f"normalize {normalize}, weights {weights}"))
    return max(found, key=lambda pair: pair[0]["gene_pearson"])


def new_epifoundation(split: Split, args: argparse.Namespace, seed: int) -> sfa.hub.Checkpoint:
    """A small network trained to tell which genes the training cells express."""
    atac, rna = (split.mdata[name][split.training].copy() for name in ("atac", "rna"))
    rna.X = rna.X.maximum(0)  # denoised expression can be negative
    cells = mudata.MuData({"atac": atac, "rna": rna})
    sfa.model.EpiFoundation.setup_mudata(cells)
    of_gene = sfa.genome.read_genes(genes_of(args)).drop_duplicates("name").set_index("name")["chrom"]
    config = {"d_model": 64, "n_layers": 2, "n_heads": 4, "d_feed_forward": 128}
    model = sfa.model.EpiFoundation(
        cells, config=config, gene_chromosomes=of_gene[of_gene.index.isin(rna.var_names)], seed=seed
    )
    with TemporaryDirectory() as folder:
        model.train(
            max_epochs=200, max_steps=args.epifoundation_steps, batch_size=32, accumulate=1, lr=1e-3, output=folder
        )
    return model.checkpoint


def run_method(split: Split, method: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Scores, what was chosen, and seconds."""
    start = time.perf_counter()
    truth = split.expression.loc[split.test]
    chosen, validation = "", np.nan
    if method == "gene-activity":
        scores, chosen = best_activity(split, genes_of(args))
    elif method in (*BASELINES, UPPER_BOUND):
        atac = split.mdata["atac"]
        prediction = sfa.bench.rna_baselines(
            atac[split.learning].copy(),
            atac[split.test].copy(),
            methods=[method],
            expression=split.expression.loc[split.learning],
            labels_key=LABELS,
            seed=seed,
        )[method]
        scores = sfa.bench.expression_scores(truth, prediction)
    else:
        spec = METHODS[method]
        model: Any = spec.model if spec.model != "EpiFoundation" else new_epifoundation(split, args, seed)
        predictor = sfa.model.RNAPredictor(model, head=spec.head, measured=spec.measured, seed=seed)
        predictor.train(split.mdata, split_key=split.split_key)
        prediction = predictor.predict(split.mdata["atac"][split.test].copy())
        scores = sfa.bench.expression_scores(truth, prediction)
        best = max(predictor.report["history"], key=lambda epoch: epoch["validation_gene_pearson"])
        chosen, validation = f"epoch {best['epoch']}", best["validation_gene_pearson"]
    seconds = time.perf_counter() - start
    return {
        **{name: float(scores[name]) for name in SCORES},
        "validation_gene_pearson": validation,
        "chosen": chosen,
        "seconds": seconds,
    }


def weights_of(method: str) -> str:
    spec = METHODS.get(method)
    if spec is None or spec.model == "EpiFoundation":
        return "none"
    return sfa.hub.load(spec.model).sha256[:8]


def all_rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    finished = FinishedRows(args.out / "rna.csv")
    methods = [name for name in (*BASELINES, UPPER_BOUND, *METHODS) if not args.methods or name in args.methods]
    for repeat in range(max(SETS[data][2] for data in args.sets) * args.seeds):
        for data in args.sets:
            file, split_key, times = SETS[data]
            if repeat >= args.seeds * times:
                continue
            seed = args.seed + repeat
            split = read_split(args.data / f"{file}.h5mu", split_key, seed)
            for method in methods:
                if method in ONCE and repeat:
                    continue
                run = {
                    "data": data,
                    "method": method,
                    "weights": weights_of(method),
                    "labels": LABELS,
                    "seed": seed,
                    "n_learning": len(split.learning),
                    "n_test": len(split.test),
                    "n_genes": split.expression.shape[1],
                }
                row = finished.find(run)
                if row is None:
                    row = {**run, **run_method(split, method, args, seed)}
                    finished.add(row)
                    print(f"{data}, {seed}: {method} {row['gene_pearson']:.4f}, {row['seconds']:.0f} s", flush=True)
                yield row


def markdown(rows: list[dict[str, Any]]) -> str:
    """Mean over seeds, standard deviation in brackets; differences are between the same seeds."""
    parts = []
    for data, of_data in pd.DataFrame(rows).groupby("data", sort=False):
        by_seed = of_data.pivot_table(index="seed", columns="method", values="gene_pearson")
        baselines = [name for name in BASELINES if name in by_seed]
        best = by_seed[baselines].mean().idxmax() if baselines else None
        first = of_data.iloc[0]
        lines = [
            f"### {data}: {first['n_learning']} cells to learn from, {first['n_test']} to test, {first['n_genes']} genes",
            "",
            f"| {' | '.join(HEADER)} |",
            f"|{' --- |' * len(HEADER)}",
        ]
        for method, runs in of_data.groupby("method", sort=False):
            spread = f" ({runs['gene_pearson'].std():.3f})" if len(runs) > 1 else ""
            gap = f"{(by_seed[method] - by_seed[best]).mean():+.3f}" if best else ""
            means = runs[[*SCORES, "validation_gene_pearson", "seconds"]].mean()
            units = method != "gene-activity"  # its units are its own
            cells = [
                method,
                str(len(runs)),
                f"{means['gene_pearson']:.3f}{spread}",
                f"{means['flat_pearson']:.3f}" if units else "",
                f"{means['gene_spearman']:.3f}",
                f"{means['gene_ccc']:.3f}" if units else "",
                f"{means['mse']:.3g}" if units else "",
                "" if np.isnan(means["validation_gene_pearson"]) else f"{means['validation_gene_pearson']:.3f}",
                "best baseline" if method == best else gap,
                f"{means['seconds']:.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the paired cells")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished rows")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS))
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=", ".join((*BASELINES, UPPER_BOUND, *METHODS)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epifoundation-steps", type=int, default=300)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    text = markdown(list(all_rows(args)))
    note = (__doc__ or "").split("\n\n")[2]  # what is compared with what
    (args.out / "rna.md").write_text(f"{note}\n\n{text}\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
