"""Fit ``inference/links.json``: the probability that an OCR regulates a gene.

Source: ``crispri_k562_grch38.tsv.gz`` in the directory given by ``--data``, 10,356 pairs of an element and a gene that were tested by
CRISPRi in K562 cells, 471 of them regulated (EngreitzLab/CRISPR_comparison, MIT; Nasser 2021, Gasperini 2019, Schraivogel 2020); and the
K562 sample of ``biosamples.h5ad`` (ENCODE DNase-seq) as the group of cells. The tested elements are the OCRs, beside all bins that overlap
none of them.

Features were chosen by folds by chromosome alone; ``benchmarks/logs/links.md`` tells which were tried. Intervals come from drawing
chromosomes with replacement.

    python scripts/fit_links.py --data DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold

from scfound_atac.genome import overlaps, transcription_starts
from scfound_atac.genome.gene_table import load_gene_table
from scfound_atac.genome.line import along_genome
from scfound_atac.inference.link_features import FEATURES, describe_pairs, features_of, middles
from scfound_atac.inference.links import log_abc, log_contact

_OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "inference" / "links.json"
K562 = "ENCODE|wgEncodeAwgDnaseUwdukeK562UniPk"
# Inverse of the penalty. Between .1 and 10 it makes no difference to the scores by folds.
_C = 0.3
_N_BOOTSTRAP = 500
_N_FOLDS = 10


class Tested(NamedTuple):
    """Tested pairs.

    Attributes
    ----------
    pairs
        The table of the source, (n_pairs, ...).
    ocrs, values
        Elements and all other bins, and the sum of the ranks of the bins of each.
    ocr
        Number of the OCR of each pair.
    tss
        Place of the gene of each pair on the line.
    features
        `FEATURES` of each pair.
    abc
        ABC share of each pair.
    distance
        Distance of each pair.
    """

    pairs: pd.DataFrame
    ocrs: pd.DataFrame
    values: np.ndarray
    ocr: np.ndarray
    tss: np.ndarray
    features: np.ndarray
    abc: np.ndarray
    distance: np.ndarray

    @property
    def is_regulated(self) -> np.ndarray:
        """Whether silencing the element lowers the expression of the gene."""
        return self.pairs["Regulated"].to_numpy(dtype=bool)


def read_pairs(data: Path) -> pd.DataFrame:
    """The tested pairs, with the elements' bounds as ``chrom``, ``start``, ``end``."""
    pairs = pd.read_csv(data / "crispri_k562_grch38.tsv.gz", sep="\t")
    return pairs.rename(columns={"chromStart": "start", "chromEnd": "end"})


def elements_and_bins(pairs: pd.DataFrame, bins: pd.DataFrame, ranks: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Tested elements, in the order of their first pair, then all bins that overlap none; and the sum of ranks of each."""
    elements = pairs[["chrom", "start", "end"]].drop_duplicates().reset_index(drop=True)
    found = overlaps(elements, bins)
    of_elements = np.bincount(found["a"], weights=ranks[found["b"]], minlength=len(elements))
    is_other = np.ones(len(bins), dtype=bool)
    is_other[found["b"]] = False
    ocrs = pd.concat([elements, bins[is_other]], ignore_index=True)
    return ocrs, np.append(of_elements, ranks[is_other])


def read_tested(data: Path, ocrs: pd.DataFrame | None = None, values: np.ndarray | None = None) -> Tested:
    """The tested pairs with their features; with other OCRs than elements and bins if `ocrs` and `values` are given.

    The first OCRs are the elements in any case.
    """
    pairs = read_pairs(data)
    if ocrs is None or values is None:
        biosamples = ad.read_h5ad(data / "biosamples.h5ad")
        ranks = np.asarray(biosamples[K562].X.todense(), dtype=np.float64).ravel()
        bins = biosamples.var[["chrom", "start", "end"]].astype({"chrom": str}).reset_index(drop=True)
        ocrs, values = elements_and_bins(pairs, bins, ranks)
    place = ["chrom", "start", "end"]
    number = pd.Series(np.arange(len(ocrs)), index=pd.MultiIndex.from_frame(ocrs[place]))
    number = number[~number.index.duplicated()]
    ocr = number.reindex(pd.MultiIndex.from_frame(pairs[place])).to_numpy()
    genes = load_gene_table()
    tss_of = pd.Series(along_genome(genes["chrom"], transcription_starts(genes)), index=genes["name"])
    names, gene = np.unique(pairs["measuredGeneSymbol"], return_inverse=True)
    tss = tss_of[names].to_numpy()
    order = np.lexsort((ocr, gene))
    distance = np.abs(middles(ocrs)[ocr] - tss[gene])
    features = np.empty((len(pairs), len(FEATURES)), dtype=np.float32)
    abc = np.empty(len(pairs), dtype=np.float32)
    described = describe_pairs(ocrs, tss, (ocr[order], gene[order], distance[order]))
    features[order], abc[order] = features_of(described, values)
    return Tested(pairs, ocrs, values, ocr, tss[gene], features, abc, distance)


def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean, scale, coefficients and intercept of a logistic regression on standardised features."""
    x = x.astype(np.float64)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=_C, max_iter=5000).fit((x - mean) / scale, y)
    return mean, scale, model.coef_[0], float(model.intercept_[0])


def by_folds(x: np.ndarray, y: np.ndarray, chrom: pd.Series) -> np.ndarray:
    """Log-odds of each pair from a model that saw no pair of its chromosome; ten folds."""
    log_odds = np.empty(len(y))
    for train, test in GroupKFold(_N_FOLDS).split(x, y, chrom):
        mean, scale, coefficients, intercept = fit(x[train], y[train])
        log_odds[test] = (x[test] - mean) / scale @ coefficients + intercept
    return log_odds


def _described(names: tuple[str, ...], x: np.ndarray, y: np.ndarray, chrom: pd.Series) -> dict:
    """The model as a record: coefficients with intervals, and scores by folds."""
    mean, scale, coefficients, intercept = fit(x, y)
    chromosomes, of = np.unique(chrom, return_inverse=True)
    rng = np.random.default_rng(0)
    drawn = []
    while len(drawn) < _N_BOOTSTRAP:
        rows = np.concatenate([np.flatnonzero(of == k) for k in rng.integers(0, len(chromosomes), len(chromosomes))])
        sampled_mean, sampled_scale, sampled, _ = fit(x[rows], y[rows])
        drawn.append(sampled * scale / sampled_scale)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    held_out = by_folds(x, y, chrom)
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
            "auroc": round(float(roc_auc_score(y, held_out)), 4),
            "auprc": round(float(average_precision_score(y, held_out)), 4),
        },
    }


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
    inputs = {
        "knowledge": (FEATURES, tested.features),
        "abc": (("log_abc",), log_abc(tested.abc)[:, None]),
        "distance": (("log_contact",), log_contact(tested.distance)[:, None]),
    }
    content = {
        "about": {
            "what": "log-odds that silencing the OCR lowers the expression of the gene, per standard deviation of each feature",
            "fitted_to": f"{len(y):,} pairs tested by CRISPRi in K562 cells, {y.sum()} regulated, at 1 kb to 2.4 Mb",
            "source": "EngreitzLab/CRISPR_comparison (MIT): Nasser 2021, Gasperini 2019, Schraivogel 2020",
            "accessibility": "ENCODE DNase-seq of K562, ranks of 500-bp bins",
            "intervals": f"95 %, {_N_BOOTSTRAP} draws of chromosomes with replacement",
        },
        "models": {method: _described(names, x, y, chrom) for method, (names, x) in inputs.items()},
    }
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for method, record in content["models"].items():
        print(method, record["by_chromosome_folds"])
        for row in record["features"]:
            print(f"  {row['feature']:<22} {row['coefficient']:+.3f}  {row['interval']}")
    print(args.out)


if __name__ == "__main__":
    main()
