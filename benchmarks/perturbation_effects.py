"""Predicted responses to silencing against effects that were measured by CRISPRi, as far as there are cells to train on.

    python benchmarks/perturbation_effects.py --data DIR --out benchmarks/logs

The tested pairs are of K562 cells, for which there is no multiome at hand. Of the multiomes of DIR only that of A549 cells (another cancer
cell line, a time course) has OCRs at more than a few tested elements of genes that it measures: a predictor learns there, and the signs and
sizes of its responses are compared with ``EffectSize``. PBMC and BMMC have 0 to 2 such pairs. Whatever it finds is about transfer between
two cell lines as much as about perturbation.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import mudata as md
import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

import scfound_atac as sfa
from scfound_atac.genome import get_ocrs, overlaps

SEEDS = 3
WINDOW = 2_500_000  # of the tested pairs


def covered(data: Path, name: str) -> tuple[md.MuData, pd.DataFrame]:
    """The multiome, and the tested pairs whose gene it measures and whose element overlaps one of its OCRs, with these OCRs."""
    mdata = md.read_h5mu(data / f"{name}.h5mu")
    pairs = pd.read_csv(data / "crispri_k562_grch38.tsv.gz", sep="\t")
    pairs = pairs[pairs["measuredGeneSymbol"].isin(mdata["rna"].var_names)].reset_index(drop=True)
    elements = pairs[["chrom", "chromStart", "chromEnd"]].set_axis(["chrom", "start", "end"], axis=1)
    atac = mdata["atac"]
    shared = overlaps(elements, get_ocrs(atac.var).reset_index(drop=True))
    ocrs = shared.groupby("a")["b"].apply(lambda x: [str(name) for name in atac.var_names[x]])
    return mdata, pairs.loc[ocrs.index].assign(ocrs=ocrs)


def responses(mdata: md.MuData, pairs: pd.DataFrame, local: int | None, seed: int) -> tuple[np.ndarray, float]:
    """Relative change of each pair's gene when its OCRs are silenced, and the mean correlation of genes on held-out cells."""
    genes = sorted(pairs["measuredGeneSymbol"].unique())
    predictor = sfa.model.RNAPredictor(local=local, seed=seed).train(mdata, genes=genes, layer="binary", max_epochs=20)
    sets = {" ".join(ocrs): ocrs for ocrs in pairs["ocrs"]}
    sfa.tl.perturb_ocrs(mdata, predictor=predictor, ocrs=sets, genes=genes, layer="binary")
    table = sfa.get.perturbation(mdata).astype({"ocr": str, "gene": str}).set_index(["ocr", "gene"])["relative_change"]
    rows = pd.MultiIndex.from_arrays([[" ".join(x) for x in pairs["ocrs"]], pairs["measuredGeneSymbol"]])
    return table.reindex(rows).to_numpy(), float(predictor.report["gene_pearson"])


def main() -> None:
    """Read the command line, train, perturb, compare."""
    parser = argparse.ArgumentParser(description="Compare predicted with measured effects.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "logs")
    args = parser.parse_args()
    lines = [
        "# Predicted and measured effects of silencing",
        "",
        "`python benchmarks/perturbation_effects.py --data DIR`",
        "",
    ]
    for name in ("pbmc_multiome", "bmmc_multiome_1", "bmmc_multiome_2"):
        _, pairs = covered(args.data, name)
        lines.append(f"- {name}: {len(pairs)} of the tested pairs are covered; nothing can be said.")
    mdata, pairs = covered(args.data, "a549_multiome")
    mdata["atac"].layers["binary"] = (mdata["atac"].X > 0).astype("float32")
    effect, y = pairs["EffectSize"].to_numpy(), pairs["Regulated"].to_numpy(dtype=bool)
    lines += [
        f"- a549_multiome: {len(pairs)} pairs, {y.sum()} regulated, {pairs['measuredGeneSymbol'].nunique()} genes.",
        "",
    ]
    lines += [
        "| method | Pearson with EffectSize | Spearman | AUROC | AUPRC | gene Pearson, held-out cells |",
        "|" + " --- |" * 6,
    ]

    def add(what: str, scores: list[np.ndarray], fits: list[float] | None = None) -> None:
        """A line: scores are negative for genes that are expected to fall; mean and sd over seeds."""
        rows = []
        for score in scores:
            ok = np.isfinite(score)
            rows.append(
                (
                    pearsonr(score[ok], effect[ok])[0],
                    spearmanr(score[ok], effect[ok])[0],
                    roc_auc_score(y[ok], -score[ok]),
                    average_precision_score(y[ok], -score[ok]),
                )
            )
        mean, sd = np.mean(rows, axis=0), np.std(rows, axis=0)
        shown = [f"{a:.3f}" + (f" ({b:.3f})" if len(rows) > 1 else "") for a, b in zip(mean, sd, strict=True)]
        lines.append(f"| {what} | {' | '.join(shown)} | {'' if fits is None else f'{np.mean(fits):.3f}'} |")

    add("distance", [np.log10(pairs["distanceToTSS"].to_numpy())])
    for method in ("knowledge", "correlation"):
        genes = sorted(pairs["measuredGeneSymbol"].unique())
        sfa.tl.link_enhancers(mdata, genes=genes, window=WINDOW, method=method, layer="binary")
        table = sfa.get.links(mdata).astype({"ocr": str, "gene": str}).set_index(["gene", "ocr"])["score"]
        best = [
            max(table.get((gene, ocr), np.nan) for ocr in ocrs)
            for gene, ocrs in zip(pairs["measuredGeneSymbol"], pairs["ocrs"], strict=True)
        ]
        add(f"link_enhancers, {method}, in A549", [-np.array(best, dtype=float)])
    for local in (None, 500_000):
        found = [responses(mdata, pairs, local, seed) for seed in range(SEEDS)]
        signed = [change for change, _ in found]
        fits = [fit for _, fit in found]
        add(f"perturb_ocrs, relative change, local={local}", signed, fits)
        add(f"perturb_ocrs, minus its absolute value, local={local}", [-np.abs(change) for change in signed], fits)
    text = "\n".join(lines) + "\n"
    (args.out / "perturbation_effects.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    main()
