"""Enhancer-gene links against pairs that were tested by CRISPRi in K562 cells: what each method finds, by distance, and how sure that is.

    python benchmarks/links.py --data DIR --out benchmarks/logs

Data: ``crispri_k562_grch38.tsv.gz``, ``biosamples.h5ad``, ``k562_chr22_atac.h5ad`` of DIR. Learned methods are scored by ten folds by
chromosome, so that neither a gene nor an element of a scored pair was seen. Intervals: 95 %, chromosomes drawn with replacement 1,000
times.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

import scfound_atac as sfa
from scfound_atac.genome import get_ocrs, overlaps
from scfound_atac.inference.link_features import FEATURES, contact

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from fit_links import K562, Tested, by_folds, fit, pair_features, read_tested

BINS = ((0, 10), (10, 50), (50, 100), (100, 500), (500, 5000))  # kb
GENES = ("COPZ1", "HNRNPA1")  # those of ChromFound's paper
SEEDS = 3


def precision_at_half_recall(y: np.ndarray, score: np.ndarray) -> float:
    """The best precision at a recall of at least 50 %."""
    precision, recall, _ = precision_recall_curve(y, score)
    return float(precision[recall >= 0.5].max())


def intervals(y: np.ndarray, score: np.ndarray, chrom: pd.Series) -> tuple[str, str]:
    """95 % intervals of AUROC and AUPRC."""
    chromosomes, of = np.unique(chrom, return_inverse=True)
    rows = [np.flatnonzero(of == k) for k in range(len(chromosomes))]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(1000):
        some = np.concatenate([rows[k] for k in rng.integers(0, len(chromosomes), len(chromosomes))])
        if 0 < y[some].sum() < len(some):
            drawn.append((roc_auc_score(y[some], score[some]), average_precision_score(y[some], score[some])))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return tuple(f"{a:.3f} to {b:.3f}" for a, b in zip(low, high, strict=True))


def within_genes(tested: Tested, score: np.ndarray) -> tuple[float, float, int]:
    """Mean AUROC and AUPRC of single genes, of those with a regulated pair and another one, and their number."""
    frame = pd.DataFrame({"gene": tested.pairs["measuredGeneSymbol"], "y": tested.is_regulated, "score": score})
    found = [
        (roc_auc_score(x["y"], x["score"]), average_precision_score(x["y"], x["score"]))
        for _, x in frame.groupby("gene")
        if 0 < x["y"].sum() < len(x)
    ]
    auroc, auprc = np.mean(found, axis=0)
    return auroc, auprc, len(found)


def row(name: str, tested: Tested, score: np.ndarray) -> dict:
    """One line of the main table."""
    y, kb = tested.is_regulated, tested.pairs["distanceToTSS"].to_numpy() / 1e3
    auroc, auprc = intervals(y, score, tested.pairs["chrom"])
    out = {
        "method": name,
        "AUROC": roc_auc_score(y, score),
        "AUROC, 95 %": auroc,
        "AUPRC": average_precision_score(y, score),
        "AUPRC, 95 %": auprc,
        "precision at 50 % recall": precision_at_half_recall(y, score),
    }
    of_genes = within_genes(tested, score)
    out[f"AUROC within a gene (mean of {of_genes[2]})"], out["AUPRC within a gene"] = of_genes[:2]
    for low, high in BINS:
        here = (kb >= low) & (kb < high)
        label = f"{low}-{high} kb" if high < 5000 else "> 500 kb"
        out[f"AUPRC {label} ({y[here].sum()} of {here.sum()})"] = average_precision_score(y[here], score[here])
    return out


def text(table: pd.DataFrame) -> str:
    """A table as Markdown, with three decimals."""
    shown = table.map(lambda x: f"{x:.3f}" if isinstance(x, float) else str(x))
    lines = ["| " + " | ".join(shown.columns) + " |", "|" + " --- |" * shown.shape[1]]
    return "\n".join(lines + ["| " + " | ".join(x) + " |" for x in shown.to_numpy()]) + "\n"


def main_table(tested: Tested) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """All methods on all pairs."""
    y, chrom, x = tested.is_regulated, tested.pairs["chrom"], pd.DataFrame(tested.features, columns=FEATURES)
    measured = tested.pairs
    both = np.sqrt(measured["DHS.RPM"] * measured["H3K27ac.RPM"]).to_numpy()
    near = contact(np.maximum(tested.distance, 1))
    scores = {
        "distance": -tested.distance.astype(float),
        "signal of the OCR": x["signal"].to_numpy(),
        "reads of the OCR": measured["DHS.RPM"].to_numpy(),
        "abc": tested.abc.astype(float),
        "abc x (1.2 - breadth)": tested.abc * (1.2 - x["breadth"].to_numpy()),
        "measured DNase / distance": measured["DHS.RPM"].to_numpy() / tested.distance,
        "measured sqrt(DNase x H3K27ac) x contact": both * near,
    }
    both = by_folds(tested.seen, y, chrom, of=[tested.features, tested.measured])
    scores["knowledge"], scores["knowledge, signal of the OCR from reads"] = both
    left_out = {}
    for name in FEATURES:
        kept = [i for i, other in enumerate(FEATURES) if other != name]
        some = [x[:, kept] for x in tested.seen]
        reads = tested.measured[:, kept]
        left_out[f"the last without {name}"] = by_folds(some, y, chrom, of=[reads])[0]
    rows = [row(name, tested, score) for name, score in (scores | left_out).items()]
    return pd.DataFrame(rows), scores


def calibration(tested: Tested, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """Fraction of regulated pairs by predicted probability, on held-out chromosomes, with both signals."""
    log_odds = np.concatenate([scores["knowledge"], scores["knowledge, signal of the OCR from reads"]])
    p = 1 / (1 + np.exp(-log_odds))
    bins = pd.cut(p, [0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1])
    signal = np.repeat(["called peaks", "reads"], len(tested.pairs))
    frame = pd.DataFrame(
        {"signal": signal, "probability": bins.astype(str), "p": p, "y": np.tile(tested.is_regulated, 2)}
    )
    found = frame.groupby(["signal", "probability"]).agg(
        pairs=("y", "size"), predicted=("p", "mean"), regulated=("y", "mean")
    )
    return found.reset_index()


def other_cells(tested: Tested) -> pd.DataFrame:
    """What the signal of the right cells is worth: the same pairs with the signal of ten other biosamples."""
    biosamples = ad.read_h5ad(Path(ARGS.data) / "biosamples.h5ad")
    bins = biosamples.var[["chrom", "start", "end"]].astype({"chrom": str}).reset_index(drop=True)
    others = np.random.default_rng(0).choice(np.flatnonzero(biosamples.obs_names != K562), 10, replace=False)
    y, rows = tested.is_regulated, []
    n_alone = len(tested.ocrs) - len(bins)
    for number in others:
        ranks = np.asarray(biosamples.X[number].todense(), dtype=float).ravel()
        features, abc, _ = pair_features(tested.pairs, tested.tss, tested.ocrs, np.append(ranks, np.zeros(n_alone)))
        score = held_out_scores(tested, features)
        rows.append([f(y, x) for x in (score, abc) for f in (roc_auc_score, average_precision_score)])
    names = ["knowledge AUROC", "knowledge AUPRC", "abc AUROC", "abc AUPRC"]
    found = pd.DataFrame(rows, columns=names)
    own = held_out_scores(tested, tested.features)
    right = [f(y, x) for x in (own, tested.abc) for f in (roc_auc_score, average_precision_score)]
    table = pd.DataFrame([right, found.mean().tolist(), found.std().tolist()], columns=names)
    table.insert(0, "signal of", ["K562", "ten others, mean", "ten others, sd"])
    return table


def two_genes(tested: Tested, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """AUROC and AUPRC of the paper's genes."""
    rows = []
    for gene in GENES:
        here = (tested.pairs["measuredGeneSymbol"] == gene).to_numpy()
        y = tested.is_regulated[here]
        if not y.any():
            rows.append({"gene": f"{gene} (0 of {len(y)})", "method": "any", "AUROC": "no regulated pair", "AUPRC": ""})
            continue
        for name, score in scores.items():
            rows.append(
                {
                    "gene": f"{gene} ({y.sum()} of {len(y)})",
                    "method": name,
                    "AUROC": roc_auc_score(y, score[here]),
                    "AUPRC": average_precision_score(y, score[here]),
                }
            )
    return pd.DataFrame(rows)


def held_out_scores(tested: Tested, features: np.ndarray) -> np.ndarray:
    """Log-odds by the folds' models, applied to other `features` of the same pairs."""
    return by_folds(tested.seen, tested.is_regulated, tested.pairs["chrom"], of=[features])[0]


def few_counts(tested: Tested) -> pd.DataFrame:
    """What single cells cost: counts drawn from the bulk signal, as many as one cell to ten thousand cells have."""
    rows = []
    rank = np.clip(tested.values / 256, 0.01, 0.999)
    rate = np.where(tested.values > 0, np.exp(1.2 * norm.ppf(rank)), 0) + 0.02
    rate /= rate.sum()
    for n in (3e3, 3e4, 3e5, 3e6, 3e7):
        for seed in range(SEEDS):
            counts = np.random.default_rng(seed).poisson(rate * n).astype(float)
            features, abc, _ = pair_features(tested.pairs, tested.tss, tested.ocrs, counts)
            score = held_out_scores(tested, features)
            y = tested.is_regulated
            rows.append(
                {
                    "counts": f"{n:.0e}",
                    "knowledge AUROC": roc_auc_score(y, score),
                    "knowledge AUPRC": average_precision_score(y, score),
                    "abc AUROC": roc_auc_score(y, abc),
                    "abc AUPRC": average_precision_score(y, abc),
                }
            )
    found = pd.DataFrame(rows).groupby("counts", sort=False).agg(["mean", "std"])
    found.columns = [f"{a}{'' if b == 'mean' else ' sd'}" for a, b in found.columns]
    return found.reset_index()


def single_cells(tested: Tested) -> pd.DataFrame:
    """200 real K562 cells, chr22: links from these cells beside those from bulk, on the same pairs."""
    cells = ad.read_h5ad(Path(ARGS.data) / "k562_chr22_atac.h5ad")
    ocrs = get_ocrs(cells.var).reset_index(drop=True)
    sums = np.asarray(cells.X.sum(axis=0)).ravel().astype(float)
    on22 = (tested.pairs["chrom"] == "chr22").to_numpy()
    pairs = tested.pairs[on22].reset_index(drop=True)
    elements = pairs[["chrom", "start", "end"]].drop_duplicates().reset_index(drop=True)
    is_alone = np.bincount(overlaps(elements, ocrs)["a"], minlength=len(elements)) == 0
    all_ocrs = pd.concat([ocrs, elements[is_alone]], ignore_index=True)
    features, abc, _ = pair_features(pairs, tested.tss[on22], all_ocrs, np.append(sums, np.zeros(is_alone.sum())))
    y = tested.is_regulated
    seen = [x[~on22] for x in tested.seen]
    mean, scale, coefficients, intercept = fit(np.concatenate(seen), np.tile(y[~on22], len(seen)))
    rows = []
    for name, score in {
        "distance": -tested.distance[on22].astype(float),
        "abc, bulk": tested.abc[on22],
        "abc, 200 cells": abc,
        "knowledge, bulk": (tested.features[on22] - mean) / scale @ coefficients + intercept,
        "knowledge, 200 cells": (features - mean) / scale @ coefficients + intercept,
    }.items():
        rows.append(
            {"method": name, "AUROC": roc_auc_score(y[on22], score), "AUPRC": average_precision_score(y[on22], score)}
        )
    return pd.DataFrame(rows)


def called_peaks(bins: pd.DataFrame, ranks: np.ndarray, jitter: int = 150) -> tuple[pd.DataFrame, np.ndarray]:
    """Runs of open bins as peaks, with ends that are off by up to `jitter` bases, as callers differ."""
    rng = np.random.default_rng(0)
    is_open = np.flatnonzero(ranks > 0)
    start, chrom = bins["start"].to_numpy()[is_open], bins["chrom"].to_numpy()[is_open]
    is_first = np.append(True, (np.diff(start) > 520) | (chrom[1:] != chrom[:-1]))
    peak = np.cumsum(is_first) - 1
    end = np.append((start + 500)[:-1][is_first[1:]], start[-1] + 500)
    first = np.maximum(start[is_first] + rng.integers(-jitter, jitter + 1, peak[-1] + 1), 0)
    last = np.maximum(end + rng.integers(-jitter, jitter + 1, peak[-1] + 1), first + 100)
    table = pd.DataFrame({"chrom": chrom[is_first], "start": first, "end": last})
    return table, np.bincount(peak, weights=ranks[is_open])


def tiles(bins: pd.DataFrame, values: np.ndarray, width: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Values of bins summed over tiles."""
    frame = bins.assign(tile=(bins["start"] + 250) // width, value=values)
    found = frame.groupby(["chrom", "tile"], sort=False)["value"].sum().reset_index()
    table = pd.DataFrame({"chrom": found["chrom"], "start": found["tile"] * width, "end": (found["tile"] + 1) * width})
    return table, found["value"].to_numpy()


def other_pieces(tested: Tested) -> pd.DataFrame:
    """The links of the same sample from other pieces than bins; an element has the score of the best OCR that it overlaps."""
    biosamples = ad.read_h5ad(Path(ARGS.data) / "biosamples.h5ad")
    ranks = np.asarray(biosamples[K562].X.todense(), dtype=float).ravel()
    bins = biosamples.var[["chrom", "start", "end"]].astype({"chrom": str}).reset_index(drop=True)
    y = tested.is_regulated
    reference = held_out_scores(tested, tested.features)
    rows = []
    elements = tested.pairs[["chrom", "start", "end"]].drop_duplicates().reset_index(drop=True)
    best = np.zeros(len(elements))
    shared = overlaps(elements, bins)
    np.maximum.at(best, shared["a"].to_numpy(), ranks[shared["b"]])
    pieces = {
        "peaks": called_peaks(bins, ranks),
        "5-kb tiles": tiles(bins, ranks, 5000),
        "tested elements alone, rank of their best bin": (elements, best),
    }
    for name, (ocrs, values) in pieces.items():
        features, _, found = pair_features(tested.pairs, tested.tss, ocrs, values)
        score = held_out_scores(tested, features)
        rows.append(
            {
                "OCRs": f"{name} ({len(ocrs):,})",
                "pairs in an OCR": float(found.mean()),
                "AUROC": roc_auc_score(y[found], score[found]),
                "AUPRC": average_precision_score(y[found], score[found]),
                "AUROC of bins, same pairs": roc_auc_score(y[found], reference[found]),
                "AUPRC of bins, same pairs": average_precision_score(y[found], reference[found]),
                "Spearman with bins": float(spearmanr(score[found], reference[found])[0]),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Read the command line, score, write."""
    tested = read_tested(Path(ARGS.data))
    table, scores = main_table(tested)
    parts = [
        "# Enhancer-gene links\n\n`python benchmarks/links.py --data DIR --out benchmarks/logs`\n",
        f"## 10,356 pairs tested by CRISPRi in K562, {tested.is_regulated.sum()} regulated\n\n" + text(table),
        "## Calibration on held-out chromosomes\n\n" + text(calibration(tested, scores)),
        "## The two genes of ChromFound's paper, which reports AUROC .77 and .61\n\n" + text(two_genes(tested, scores)),
        "## The signal of other cells\n\n" + text(other_cells(tested)),
        "## The same sample in other pieces\n\n" + text(other_pieces(tested)),
        f"## Few counts (drawn from bulk; {SEEDS} seeds)\n\n" + text(few_counts(tested)),
        "## 200 real K562 cells on chr22\n\n" + text(single_cells(tested)),
    ]
    (ARGS.out / "links.md").write_text("\n".join(parts), encoding="utf-8")
    print("\n".join(parts))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    parser = argparse.ArgumentParser(description="Score enhancer-gene links.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "logs")
    ARGS = parser.parse_args()
    main()
