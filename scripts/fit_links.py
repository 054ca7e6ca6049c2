"""Fit ``inference/links.json``: the probability that an OCR regulates a gene.

Source: ``crispri_k562_grch38.tsv.gz`` in the directory given by ``--data``, 10,356 pairs of an element and a gene that were tested by
CRISPRi in K562 cells, 471 of them regulated (EngreitzLab/CRISPR_comparison, MIT; Nasser 2021, Gasperini 2019, Schraivogel 2020); and the
K562 sample of ``biosamples.h5ad`` (ENCODE DNase-seq) as the group of cells. Its bins are the OCRs, beside the elements that overlap none.

The model sees every pair seven times: once with the rank of the element among the called peaks of that sample, and six times with its rank
by DNase reads, which the first file has. Peaks that are called or not are a coarse measurement, for which a fit gives the signal too little
weight for cells whose reads are counted, and the other way round; most users count reads.

Features were chosen by folds by chromosome alone; ``benchmarks/logs/links.md`` tells which were tried. Intervals come from drawing
chromosomes with replacement.

    python scripts/fit_links.py --data DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy.optimize import curve_fit
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold

from scfound_atac.genome import overlaps, transcription_starts
from scfound_atac.genome.gene_table import load_gene_table
from scfound_atac.genome.line import along_genome
from scfound_atac.inference.link_features import FEATURES, describe_pairs, features_of, log_rank, middles
from scfound_atac.inference.links import log_abc, log_contact

if TYPE_CHECKING:
    from collections.abc import Sequence

_OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "inference" / "links.json"
K562 = "ENCODE|wgEncodeAwgDnaseUwdukeK562UniPk"
# Inverse of the penalty. Between .1 and 10 it makes no difference to the scores by folds.
_C = 0.3
_N_BOOTSTRAP = 500
# How often a pair counts with its signal by reads, for once with that by called peaks. AUPRC by folds, with called peaks and with reads:
# 1 .671, .704; 6 .662, .713; 10 .657, .714. And an OCR that is closed in a group has 7, 20 or 26 times smaller odds than the strongest one.
_TIMES_READS = 6
_N_FOLDS = 10
_PLACE = ["chrom", "start", "end"]
_SIGNAL = FEATURES.index("signal")


class Tested(NamedTuple):
    """Tested pairs.

    Attributes
    ----------
    pairs
        The table of the source, (n_pairs, ...).
    tss
        Place of the gene of each pair on the line, (n_pairs,).
    distance
        Bases from there to the middle of the element, (n_pairs,).
    ocrs, values
        All bins, then the elements that overlap none; and the rank of each in the sample.
    features
        `FEATURES` of each pair, with the signal of the sample.
    measured
        The same with the rank of the element by DNase reads as signal.
    abc
        ABC share of each pair.
    """

    pairs: pd.DataFrame
    tss: np.ndarray
    distance: np.ndarray
    ocrs: pd.DataFrame
    values: np.ndarray
    features: np.ndarray
    measured: np.ndarray
    abc: np.ndarray

    @property
    def seen(self) -> list[np.ndarray]:
        """What the model is fitted to."""
        return [self.features] + [self.measured] * _TIMES_READS

    @property
    def is_regulated(self) -> np.ndarray:
        """Whether silencing the element lowers the expression of the gene."""
        return self.pairs["Regulated"].to_numpy(dtype=bool)


def read_pairs(data: Path) -> pd.DataFrame:
    """The tested pairs, with the elements' bounds as ``chrom``, ``start``, ``end``."""
    pairs = pd.read_csv(data / "crispri_k562_grch38.tsv.gz", sep="\t")
    return pairs.rename(columns={"chromStart": "start", "chromEnd": "end"})


def read_tested(data: Path) -> Tested:
    """The tested pairs with their features."""
    pairs = read_pairs(data)
    genes = load_gene_table()
    tss_of = pd.Series(along_genome(genes["chrom"], transcription_starts(genes)), index=genes["name"])
    tss = tss_of[pairs["measuredGeneSymbol"]].to_numpy()
    biosamples = ad.read_h5ad(data / "biosamples.h5ad")
    ranks = np.asarray(biosamples[K562].X.todense(), dtype=np.float64).ravel()
    bins = biosamples.var[_PLACE].astype({"chrom": str}).reset_index(drop=True)
    elements = pairs[_PLACE].drop_duplicates().reset_index(drop=True)
    is_alone = np.bincount(overlaps(elements, bins)["a"], minlength=len(elements)) == 0
    ocrs = pd.concat([bins, elements[is_alone]], ignore_index=True)
    values = np.append(ranks, np.zeros(is_alone.sum()))
    features, abc, _ = pair_features(pairs, tss, ocrs, values)
    measured = features.copy()
    measured[:, _SIGNAL] = log_rank(pairs["DHS.percentile"].to_numpy())
    distance = np.abs(middles(pairs) - tss)
    return Tested(pairs, tss, distance, ocrs, values, features, measured, abc)


def pair_features(
    pairs: pd.DataFrame, tss: np.ndarray, ocrs: pd.DataFrame, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and ABC share of pairs from any OCRs with values, and whether the element overlaps an OCR.

    An element has the features of the overlapping OCR with the strongest signal, and the sum of the shares of all.
    """
    # 1. All OCRs of each element, with its gene.
    shared = overlaps(pairs[_PLACE], ocrs)
    pair, ocr = shared["a"].to_numpy(), shared["b"].to_numpy()
    starts, gene = np.unique(tss, return_inverse=True)
    order = np.lexsort((ocr, gene[pair]))
    pair, ocr = pair[order], ocr[order]
    middle = middles(ocrs)[ocr]
    described = describe_pairs(ocrs, starts, (ocr, gene[pair], np.abs(middle - tss[pair])))
    x, share, _ = features_of(described, values)
    # 2. The strongest of each element; of several the nearest to its middle.
    off = np.abs(middle - middles(pairs)[pair])
    order = np.lexsort((-off, x[:, _SIGNAL], pair))
    features = np.zeros((len(pairs), len(FEATURES)), dtype=np.float32)
    features[pair[order]] = x[order]  # the last one of each pair stays
    found = np.bincount(pair, minlength=len(pairs)) > 0
    return features, np.bincount(pair, weights=share, minlength=len(pairs)), found


def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean, scale, coefficients and intercept of a logistic regression on standardised features."""
    x = x.astype(np.float64)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=_C, max_iter=5000).fit((x - mean) / scale, y)
    return mean, scale, model.coef_[0], float(model.intercept_[0])


def by_folds(
    xs: Sequence[np.ndarray], y: np.ndarray, chrom: pd.Series, of: Sequence[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Log-odds of each pair from a model that saw no pair of its chromosome; ten folds.

    The model is fitted to all of `xs`, the features of the same pairs measured in several ways, and applied to each of them, or of `of`.
    """
    applied = xs if of is None else of
    log_odds = [np.empty(len(y)) for _ in applied]
    for train, test in GroupKFold(_N_FOLDS).split(y, y, chrom):
        mean, scale, coefficients, intercept = fit(np.concatenate([x[train] for x in xs]), np.tile(y[train], len(xs)))
        for found, x in zip(log_odds, applied, strict=True):
            found[test] = (x[test] - mean) / scale @ coefficients + intercept
    return log_odds


def _described(
    names: tuple[str, ...], xs: list[np.ndarray], scored: dict[str, np.ndarray], y: np.ndarray, chrom: pd.Series
) -> dict:
    """The model as a record: coefficients with intervals, and scores by folds for each way of measuring."""
    x, n = np.concatenate(xs), len(xs)
    mean, scale, coefficients, intercept = fit(x, np.tile(y, n))
    chromosomes, of = np.unique(chrom, return_inverse=True)
    rng = np.random.default_rng(0)
    drawn = []
    while len(drawn) < _N_BOOTSTRAP:
        rows = np.concatenate([np.flatnonzero(of == k) for k in rng.integers(0, len(chromosomes), len(chromosomes))])
        both = np.concatenate([each[rows] for each in xs])
        _, sampled_scale, sampled, _ = fit(both, np.tile(y[rows], n))
        drawn.append(sampled * scale / sampled_scale)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    held_out = dict(zip(scored, by_folds(xs, y, chrom, of=list(scored.values())), strict=True))
    return {
        "intercept": round(intercept, 5),
        "features": [
            {
                "feature": name,
                "mean": round(float(mean[i]), 5),
                "scale": round(float(scale[i]), 5),
                "coefficient": round(float(coefficients[i]), 4),
                "interval": [round(float(low[i]), 3), round(float(high[i]), 3)],
            }
            for i, name in enumerate(names)
        ],
        "by_chromosome_folds": {
            signal: {
                "auroc": round(float(roc_auc_score(y, score)), 4),
                "auprc": round(float(average_precision_score(y, score)), 4),
            }
            for signal, score in held_out.items()
        },
    }


def _expressed(tested: Tested) -> dict[str, float]:
    """How the fraction of protein-coding genes that were tested rises with the signal of their promoter."""
    genes = load_gene_table()
    genes = genes[genes["type"] == "protein_coding"]
    tss = np.sort(along_genome(genes["chrom"], transcription_starts(genes)))
    nothing = np.zeros(0, dtype=np.int64)
    described = describe_pairs(tested.ocrs, tss, (nothing, nothing, nothing))
    x = log_rank(np.nan_to_num(features_of(described, tested.values).promoter))
    is_tested = np.isin(tss, tested.tss).astype(float)
    strongest = log_rank(np.ones(1))

    def fraction(x: np.ndarray, top: float, rate: float, middle: float) -> np.ndarray:
        return top * expit(rate * (x - middle)) / expit(rate * (strongest - middle))

    (_, rate, middle), _ = curve_fit(fraction, x, is_tested, p0=(0.2, 3, 1.5))
    return {"rate": round(float(rate), 3), "middle": round(float(middle), 3)}


def main() -> None:
    """Read the command line, fit, write."""
    parser = argparse.ArgumentParser(description="Fit the probability that an OCR regulates a gene.")
    parser.add_argument(
        "--data", type=Path, required=True, help="directory of crispri_k562_grch38.tsv.gz, biosamples.h5ad"
    )
    parser.add_argument("--out", type=Path, default=_OUT)
    args = parser.parse_args()

    tested = read_tested(args.data)
    y, chrom = tested.is_regulated, tested.pairs["chrom"]
    shares, contacts = log_abc(tested.abc)[:, None], log_contact(tested.distance)[:, None]
    inputs = {
        "knowledge": (FEATURES, tested.seen, {"called peaks": tested.features, "reads": tested.measured}),
        "abc": (("log_abc",), [shares], {"called peaks": shares}),
        "distance": (("log_contact",), [contacts], {"none": contacts}),
    }
    content = {
        "about": {
            "what": "log-odds that silencing the OCR lowers the expression of the gene, per standard deviation of each feature",
            "fitted_to": f"{len(y):,} pairs tested by CRISPRi in K562 cells, {y.sum()} regulated, at 1 kb to 2.4 Mb",
            "source": "EngreitzLab/CRISPR_comparison (MIT): Nasser 2021, Gasperini 2019, Schraivogel 2020",
            "accessibility": "ENCODE DNase-seq of K562: ranks of 500-bp bins in called peaks, and ranks of the elements by reads",
            "intervals": f"95 %, {_N_BOOTSTRAP} draws of chromosomes with replacement",
        },
        "expressed": _expressed(tested),
        "models": {method: _described(names, xs, scored, y, chrom) for method, (names, xs, scored) in inputs.items()},
    }
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for method, record in content["models"].items():
        print(method, record["by_chromosome_folds"])
        for row in record["features"]:
            print(f"  {row['feature']:<22} {row['coefficient']:+.3f}  {row['interval']}")
    print(args.out)


if __name__ == "__main__":
    main()
