"""Labels of one donor's cells predicted from those of another, and cells of classes that the reference lacks.

    python benchmarks/annotation.py --data DIR --out FOLDER [--sets SET ...] [--methods NAME ...] [--seeds 3]

Labels are scored before any cell is called unknown: the most probable one of each method. Finished rows stand in --out (annotation.csv,
annotation_unknown.csv) and are not computed again. Settings were chosen on cells of D6T1 alone; what was not is named in docs/benchmark.md.
The axes of the models' spectral components are fitted to reference and query together, unless a method says otherwise; those of a baseline
are, too, where its name says so.

"small" holds at most --per-class cells of each class of the reference and --n-query cells of the query, for what is slow on a CPU; all
methods are run on it. ChromFound is fine-tuned there on stretches of 1,024 neighbouring OCRs; the head of its paper, which needs all
OCRs, is trained on "tiny", the first --tiny-ocrs OCRs of "small" in genome order. No released weights of EpiFoundation come with the
package: its network is a small new one over the OCRs of the reference, trained on the labels alone.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import scfound_atac as sfa
from scfound_atac.bench._finished import FinishedRows
from scfound_atac.data.build_vocabularies import build_vocabularies
from scfound_atac.genome import genome_order, get_ocrs
from scfound_atac.nn import EpiFoundationConfig, EpiFoundationNet

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = "cell_type"
LEVELS = ("class", "lineage")
JOINT = ", axes of both"
BASELINES = tuple(name + end for name in ("lsi-logistic", "lsi-knn", "tfidf-logistic") for end in ("", JOINT))
SCORES = ("accuracy", "macro_f1", "micro_f1", "auc", "ece")
LINEAGES = {
    "HSPC": ("01_HSC", "05_CMP.LMPP"),
    "CLP": ("06", "15"),
    "GMP": ("07",),
    "Mono": ("11", "12"),
    "preB": ("16",),
    "B": ("17",),
    "CD8": ("19", "23", "24"),
    "CD4": ("20", "21", "22"),
    "NK": ("25",),
}


class Pair(NamedTuple):
    """Cells to learn from, and cells to label."""

    reference: ad.AnnData
    query: ad.AnnData


@dataclass(frozen=True)
class Method:
    """A `CellAnnotator` and how it is trained."""

    model: str = "region-set"
    mode: str = "probe"
    measured: bool = True
    joint: bool = True
    options: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "region-set, probe": Method(),
    "region-set, probe, axes of the reference": Method(joint=False),
    "region-set, probe, backbone alone": Method(measured=False),
    "region-set, finetune": Method(mode="finetune"),
    "chromfound-bmmc, probe": Method("chromfound-bmmc"),
    "chromfound-bmmc, probe, backbone alone": Method("chromfound-bmmc", measured=False),
    "chromfound-bmmc, finetune": Method(
        "chromfound-bmmc", "finetune", options={"max_epochs": 3, "crop_size": 1024, "train_batch_size": 32}
    ),
    "chromfound-bmmc, paper": Method("chromfound-bmmc", "paper", options={"max_epochs": 5, "train_batch_size": 32}),
    "EpiFoundation from scratch, finetune": Method("EpiFoundation", "finetune"),
    "EpiFoundation from scratch, paper": Method("EpiFoundation", "paper"),
}
FAST = (
    *BASELINES,
    "region-set, probe",
    "region-set, probe, axes of the reference",
    "region-set, probe, backbone alone",
    "region-set, finetune",
)
SLOW = tuple(name for name in METHODS if not name.startswith("region-set") and name != "chromfound-bmmc, paper")
PLAN = {
    "D6T1 > D5T1": FAST,
    "D5T1 > D6T1": FAST,
    "PBMC": FAST,
    "D6T1 > D5T1, small": (*FAST, *SLOW),
    "D6T1 > D5T1, tiny": (*FAST, "chromfound-bmmc, paper"),
    "D6T1 > D5T1, half of the OCRs": FAST,
    "D6T1 > D5T1, the other half": tuple(name for name in FAST if name not in BASELINES),
}
SEEDED = {"D6T1 > D5T1"}  # sets on which what depends on a seed is repeated


def without_empty(cells: ad.AnnData) -> ad.AnnData:
    return cells[np.diff(cells.X.tocsr().indptr) > 0].copy()


def read_pairs(data: Path, args: argparse.Namespace) -> dict[str, Pair]:
    """All sets; cells without an open OCR are left out."""
    marrow = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
    d6, d5 = (marrow[marrow.obs["donor"] == donor].copy() for donor in ("BMMC_D6T1", "BMMC_D5T1"))
    pbmc = mudata.read_h5mu(data / "pbmc_multiome.h5mu")["atac"]
    pbmc = pbmc[np.diff(pbmc.X.tocsr().indptr) > 0]
    rng = np.random.default_rng(args.seed)
    order = rng.permutation(pbmc.n_obs)[:5000]
    labels = d6.obs[LABELS].to_numpy().astype(str)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[: args.per_class] for label in np.unique(labels)]
    some = np.sort(rng.choice(d5.n_obs, min(args.n_query, d5.n_obs), replace=False))
    small = Pair(d6[np.sort(np.concatenate(chosen))].copy(), d5[some].copy())
    first = np.sort(genome_order(get_ocrs(d6.var))[: args.tiny_ocrs])
    tiny = (cells[:, first] for cells in small)
    half = np.isin(np.arange(d6.n_vars), rng.choice(d6.n_vars, d6.n_vars // 2, replace=False))
    return {
        "D6T1 > D5T1": Pair(d6, d5),
        "D5T1 > D6T1": Pair(d5, d6),
        "PBMC": Pair(pbmc[order[:2000]].copy(), pbmc[order[2000:]].copy()),
        "D6T1 > D5T1, small": small,
        "D6T1 > D5T1, half of the OCRs": Pair(*(without_empty(cells[:, half]) for cells in (d6, d5))),
        "D6T1 > D5T1, the other half": Pair(without_empty(d6[:, half]), without_empty(d5[:, ~half])),
        "D6T1 > D5T1, tiny": Pair(*map(without_empty, tiny)),
    }


def new_epifoundation(reference: ad.AnnData, seed: int) -> sfa.hub.Checkpoint:
    """An untrained network over the OCRs of a reference."""
    vocabularies = build_vocabularies(get_ocrs(reference.var), (), {})
    of_data = {f"n_{name}": len(getattr(vocabularies, name)) for name in ("peaks", "chromosomes", "genes")}
    sizes = {"d_model": 128, "n_layers": 2, "n_heads": 4, "d_feed_forward": 256}
    torch.manual_seed(seed)
    net = EpiFoundationNet(EpiFoundationConfig(**of_data, **sizes))
    return sfa.hub.Checkpoint(net.eval(), "new", "", model_class="EpiFoundation", vocabularies=vocabularies)


def scored(pair: Pair, probabilities: pd.DataFrame) -> dict[str, float]:
    top = probabilities.columns.to_numpy(dtype=object)[probabilities.to_numpy().argmax(axis=1)]
    truth = pair.query.obs[LABELS]
    scores = sfa.bench.annotation_scores(truth, pd.Series(top, index=truth.index), probabilities)
    return {name: float(scores[name]) for name in SCORES}


def described(pair: Pair, data: str, method: str, seed: int) -> dict[str, Any]:
    spec = METHODS.get(method)
    settings = spec.options if spec else {}
    weights = sfa.hub.load(spec.model).sha256[:8] if spec and spec.model != "EpiFoundation" else "none"
    return {
        "data": data,
        "method": method,
        "weights": weights,
        "labels": LABELS,
        "settings": ", ".join(f"{k} {v}" for k, v in settings.items()) or "default",
        "seed": seed,
        "n_reference": pair.reference.n_obs,
        "n_query": pair.query.n_obs,
        "n_ocrs": pair.query.n_vars,
    }


def probabilities_of(pair: Pair, method: str, seed: int) -> tuple[pd.DataFrame, float]:
    """Probabilities of the query's labels, and seconds."""
    start = time.perf_counter()
    if method in BASELINES:
        name = method.removesuffix(JOINT)
        joint = method.endswith(JOINT)
        table = sfa.bench.annotation_baselines(*pair, LABELS, methods=[name], joint=joint, seed=seed)[name]
    else:
        spec = METHODS[method]
        model: Any = (
            new_epifoundation(pair.reference, seed) if spec.model == "EpiFoundation" else sfa.hub.load(spec.model)
        )
        annotator = sfa.model.CellAnnotator(model, measured=spec.measured, seed=seed)
        query = pair.query if spec.joint else None
        annotator.train(pair.reference, LABELS, query=query, mode=spec.mode, **spec.options)
        table = annotator.predict(pair.query).probabilities
    return table, time.perf_counter() - start


def label_rows(pairs: dict[str, Pair], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    finished = FinishedRows(args.out / "annotation.csv")
    for data in args.sets:
        for method in PLAN[data]:
            if args.methods and method not in args.methods:
                continue
            seeds = args.seeds if data in SEEDED and method not in BASELINES else 1
            for seed in range(args.seed, args.seed + seeds):
                run = described(pairs[data], data, method, seed)
                row = finished.find(run)
                if row is None:
                    table, seconds = probabilities_of(pairs[data], method, seed)
                    row = {**run, **scored(pairs[data], table), "seconds": seconds}
                    finished.add(row)
                    print(f"{data}: {method} {row['macro_f1']:.4f}, {seconds:.0f} s", flush=True)
                yield row


def unknown_rows(pair: Pair, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each class, and each lineage, left out of the reference in turn."""
    finished = FinishedRows(args.out / "annotation_unknown.csv")
    for level in args.left_out:
        of_reference, of_query = (grouped(cells, level) for cells in pair)
        for left_out in np.unique(of_reference):
            is_new = of_query == left_out
            if is_new.all() or not is_new.any():
                continue
            for n_neighbors in (15, 0):
                run = {
                    "data": "D6T1 > D5T1",
                    "method": "region-set, probe",
                    "weights": sfa.hub.load("region-set").sha256[:8],
                    "labels": level,
                    "left_out": left_out,
                    "n_neighbors": n_neighbors,
                    "n_cells": int(is_new.sum()),
                }
                row = finished.find(run)
                if row is None:
                    start = time.perf_counter()
                    reference = pair.reference[of_reference != left_out].copy()
                    annotator = sfa.model.CellAnnotator(seed=args.seed).train(
                        reference, LABELS, query=pair.query, n_neighbors=n_neighbors
                    )
                    prediction = annotator.predict(pair.query)
                    is_flagged = (prediction.labels == "unknown").to_numpy()
                    row = {
                        **run,
                        "auroc_novelty": roc_auc_score(is_new, prediction.novelty),
                        "auroc_confidence": roc_auc_score(is_new, -prediction.confidence),
                        "fraction_new_flagged": is_flagged[is_new].mean(),
                        "fraction_known_flagged": is_flagged[~is_new].mean(),
                        "seconds": time.perf_counter() - start,
                    }
                    finished.add(row)
                    print(f"{left_out}, {n_neighbors} neighbours: AUROC {row['auroc_novelty']:.3f}", flush=True)
                yield row


def grouped(cells: ad.AnnData, level: str) -> np.ndarray:
    labels = cells.obs[LABELS].to_numpy().astype(str)
    if level == "class":
        return labels
    of = {start: lineage for lineage, starts in LINEAGES.items() for start in starts}
    return np.array([next(lineage for start, lineage in of.items() if label.startswith(start)) for label in labels])


def markdown(table: pd.DataFrame) -> str:
    lines = [f"| {' | '.join(table.columns)} |", f"|{' --- |' * table.shape[1]}"]
    lines += [f"| {' | '.join(str(x) for x in row)} |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def label_table(rows: list[dict[str, Any]]) -> str:
    """Mean over seeds, standard deviation in brackets."""
    table = pd.DataFrame(rows)
    parts = []
    for data, of_data in table.groupby("data", sort=False):
        first = of_data.iloc[0]
        lines = []
        for (method, settings), runs in of_data.groupby(["method", "settings"], sort=False):
            line = {"method": method, "settings": settings, "seeds": len(runs)}
            for name in SCORES:
                line[name] = f"{runs[name].mean():.3f}" + (f" ({runs[name].std():.3f})" if len(runs) > 1 else "")
            lines.append({**line, "seconds": f"{runs['seconds'].mean():.0f}"})
        sizes = f"{first['n_reference']} cells to learn from, {first['n_query']} to label, {first['n_ocrs']} OCRs"
        parts.append(f"### {data}: {sizes}\n\n{markdown(pd.DataFrame(lines))}")
    return "\n\n".join(parts)


def unknown_table(rows: list[dict[str, Any]]) -> str:
    table = pd.DataFrame(rows)
    names = ["auroc_novelty", "auroc_confidence", "fraction_new_flagged", "fraction_known_flagged"]
    parts = []
    for (level, n_neighbors), some in table.groupby(["labels", "n_neighbors"], sort=False):
        mean = {"left_out": f"mean of {len(some)}", "n_cells": "", **some[names].mean()}
        lines = pd.concat([some[["left_out", "n_cells", *names]], pd.DataFrame([mean])], ignore_index=True)
        lines[names] = lines[names].map("{:.3f}".format)
        parts.append(f"### One {level} left out, novelty averaged over {n_neighbors} neighbours\n\n{markdown(lines)}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the labelled cells")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished rows")
    parser.add_argument("--sets", nargs="*", choices=PLAN, default=list(PLAN), metavar="SET", help=", ".join(PLAN))
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=", ".join((*BASELINES, *METHODS)))
    parser.add_argument("--seeds", type=int, default=3, help="repeats of what depends on a seed, from D6T1 to D5T1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--n-query", type=int, default=200)
    parser.add_argument("--tiny-ocrs", type=int, default=1000)
    parser.add_argument(
        "--left-out", nargs="*", choices=LEVELS, default=list(LEVELS), help="what is left out of the reference in turn"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    pairs = read_pairs(args.data, args)
    if rows := list(label_rows(pairs, args)):
        print(f"\n{label_table(rows)}\n", flush=True)
    if args.left_out:
        print(unknown_table(list(unknown_rows(pairs["D6T1 > D5T1"], args))))


if __name__ == "__main__":
    main()
