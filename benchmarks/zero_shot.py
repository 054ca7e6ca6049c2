"""Zero-shot embeddings of labelled cells, scored alike at several sequencing depths, with and without smoothing.

    python benchmarks/zero_shot.py --data DIR --out table.csv [--methods lsi spectral default] [--fractions 1 0.5 0.3 0.2 0.1]

A method is "lsi", "spectral", "random" (ChromFound with random weights), "default" (what `sfa.tl.embed` uses), the name of a model, or
NAME=FOLDER for weights elsewhere. Rows are appended to --out as they are finished and taken from there when the script is started again;
changed weights are told by their checksum. Slow networks are best compared on a small subset of their own, on which all methods are
scored again: --n-cells 300 --methods lsi spectral default chromfound-bmmc random. Markdown goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import mudata
import pandas as pd

import scfound_atac as sfa
from verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = ("lsi", "spectral", "biosample-prior", "biosample-mix", "default")
WITHOUT_CELLS = {
    "lsi": "no training",
    "spectral": "no training",
    "random": "no training",
    "biosample-prior": "bulk samples only",
    "biosample-mix": "bulk samples only",
}
SUMMARY = ("kmeans_ari", "kmeans_nmi", "leiden_best_ari", "leiden_best_nmi", "knn")


class DataSet(NamedTuple):
    """Labelled cells: how to read them, and what the studies of a training corpus with the same cells, or cells like them, are called."""

    read: Callable[[Path], ad.AnnData]
    labels: str
    same_cells: str
    same_study: str
    note: str


def donor_d5t1(data: Path) -> ad.AnnData:
    cells = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
    return cells[cells.obs["donor"] == "BMMC_D5T1"].copy()


def atac_of(file: str) -> Callable[[Path], ad.AnnData]:
    return lambda data: mudata.read_h5mu(data / file)["atac"]


def a549(data: Path) -> ad.AnnData:
    cells = atac_of("a549_multiome.h5mu")(data)
    cells.X = (cells.X > 0).astype("float32")
    return cells


SETS = {
    "bone-marrow-D5T1": DataSet(donor_d5t1, "cell_type", "bone_marrow_D5T1", "bone_marrow", "donor kept for testing"),
    "pbmc": DataSet(atac_of("pbmc_multiome.h5mu"), "cell_type", "pbmc", "pbmc", "OCRs of 51 gene windows"),
    "bmmc-1": DataSet(atac_of("bmmc_multiome_1.h5mu"), "cell_type", "bmmc_multiome_1", "bmmc_multiome", "500 cells"),
    "bmmc-2": DataSet(atac_of("bmmc_multiome_2.h5mu"), "cell_type", "bmmc_multiome_2", "bmmc_multiome", "500 cells"),
    "a549": DataSet(a549, "time_h", "a549", "a549", "one cell line, binary; hours of treatment are a weak label"),
}


def named_methods(arguments: list[str]) -> dict[str, str | Path]:
    """``NAME=FOLDER`` and plain names, by name."""
    pairs = (argument.partition("=") for argument in arguments)
    return {name: Path(folder) if folder else name for name, _, folder in pairs}


def studies_of(method: str | Path) -> list[str] | None:
    """Names of the studies a model was trained on; None if that is not recorded."""
    model = inspect.signature(sfa.tl.embed).parameters["model"].default if method == "default" else method
    training = sfa.hub.load(model).training
    visits = [visit["data"] for visit in training.get("visits", ())]
    return [*training.get("studies", ()), *visits] or None


def seen(data_set: DataSet, method: str | Path) -> str:
    if method in WITHOUT_CELLS:
        return WITHOUT_CELLS[str(method)]
    studies = studies_of(method)
    if studies is None:
        return "?"
    if any(study.startswith(data_set.same_cells) for study in studies):
        return "**these cells**"
    return "other cells of the study" if any(study.startswith(data_set.same_study) for study in studies) else "no"


def training_table(sets: list[str], methods: dict[str, str | Path]) -> str:
    lines = [f"| data | what it is | {' | '.join(methods)} |", f"|{' --- |' * (len(methods) + 2)}"]
    for name in sets:
        cells = (seen(SETS[name], method) for method in methods.values())
        lines.append(f"| {name} | {SETS[name].note} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_over_sets(table: pd.DataFrame) -> pd.DataFrame:
    """Mean scores per method, depth and smoothing, as a table that `sfa.bench.report` prints."""
    keys = ["fraction", "smooth", "method"]
    means = table.groupby(keys, sort=False)[list(SUMMARY)].mean().reset_index()
    return means.assign(data=f"Mean over {table['data'].nunique()} data sets")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the labelled sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--fractions", nargs="+", type=float, default=[1.0, 0.5, 0.2, 0.1], metavar="PART")
    parser.add_argument("--smooth", choices=["no", "yes", "both"], default="both", help="add the counts of neighbours")
    parser.add_argument("--n-cells", type=int, default=3000, help="most cells per set")
    parser.add_argument("--seeds", type=int, default=5, help="repeats of clustering and folds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidate", help="method to give a verdict on")
    parser.add_argument("--out", type=Path, help="CSV file with the rows; finished ones are not computed again")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    methods = named_methods(args.methods)
    if args.candidate and args.candidate not in methods:
        msg = f"--candidate {args.candidate} is not among the methods: {', '.join(methods)}"
        raise SystemExit(msg)
    warnings.filterwarnings("ignore")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger = logging.getLogger("scfound_atac")
    logger.setLevel(logging.INFO)
    logger.addFilter(lambda record: not record.getMessage().startswith("added "))  # what tl.embed says of each run
    sfa.settings.progress_bar = False

    print(f"Were the cells seen in training?\n\n{training_table(args.sets, methods)}\n", flush=True)
    start = time.perf_counter()
    tables = []
    for name in args.sets:
        table = sfa.bench.compare(
            SETS[name].read(args.data),
            SETS[name].labels,
            methods=methods,
            fractions=args.fractions,
            smooth={"no": [False], "yes": [True], "both": [False, True]}[args.smooth],
            n_cells=args.n_cells,
            n_seeds=args.seeds,
            seed=args.seed,
            name=name,
            out=args.out,
        )
        print(f"{sfa.bench.report(table)}\n", flush=True)
        tables.append(table)
    everything = pd.concat(tables, ignore_index=True)
    if len(tables) > 1:
        print(f"{sfa.bench.report(mean_over_sets(everything), scores=SUMMARY)}\n")
    if args.candidate:
        print(verdict(everything, args.candidate))
    logger.info("%d rows in %.0f s", len(everything), time.perf_counter() - start)


if __name__ == "__main__":
    main()
