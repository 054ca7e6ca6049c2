"""Compare simulated cells with real ones: cells simulated from sorted blood samples on the OCRs of real bone-marrow cells.

    python benchmarks/simulator_check.py --data DIR --log LOG --figure PNG

First the bone-marrow cells of the training donor, whose types that have a sorted sample are simulated in the same shares. The
simulator's defaults were chosen by this table: its two columns are not independent. Then the bone-marrow multiome cells (600
wide, often open OCRs). No default was chosen by them, but the check itself was: after their first result the spread of the depth is
told from the quartiles instead of the standard deviation. Median and spread of the depth are given in both studies.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.neighbors import KNeighborsClassifier

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "corpus"))
from build import REAL_STUDIES, read_biosamples, read_real_study
from simulate import StudyDesign, biosample_similarity, simulate_study

# The sorted sample of a cell type, for those that have one. Finer types share it: sorted CD4 cells are naive and memory cells.
TYPES = {
    "01_HSC": "HSC",
    "05_CMP.LMPP": "LMPP",
    "06_CLP.1": "CLP",
    "07_GMP": "GMP-C",
    "11_CD14.Mono.1": "Mono",
    "12_CD14.Mono.2": "Mono",
    "17_B": "B",
    "19_CD8.N": "CD8",
    "20_CD4.N1": "CD4",
    "21_CD4.N2": "CD4",
    "22_CD4.M": "CD4",
    "23_CD8.EM": "CD8",
    "24_CD8.CM": "CD8",
    "25_NK": "NK",
    "CD8+ T": "CD8",
    "CD4+ T naive": "CD4",
    "CD4+ T activated": "CD4",
    "CD14+ Mono": "Mono",
    "CD16+ Mono": "Mono",
    "NK": "NK",
    "Naive CD20+ B": "B",
    "B1 B": "B",
    "Transitional B": "B",
    "Erythroblast": "Ery",
    "pDC": "pDC",
}
N_PAIRS = 20_000
NEAR = 100_000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Cells(NamedTuple):
    """Cells with known types."""

    counts: sparse.csr_matrix
    ocrs: pd.DataFrame
    types: np.ndarray


def quantile_rows(name: str, values: np.ndarray, quantiles: tuple[float, ...] = QUANTILES) -> dict[str, float]:
    return {f"{name}, {q:.0%} quantile": float(np.quantile(values, q)) for q in quantiles}


def correlations(counts: sparse.csr_matrix, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of OCR pairs over cells, open or closed."""
    is_open = sparse.csc_matrix(counts > 0, dtype=np.float64)
    n = is_open.shape[0]
    share = np.asarray(is_open.mean(axis=0)).ravel()
    both = np.asarray(is_open[:, a].multiply(is_open[:, b]).sum(axis=0)).ravel() / n
    return (both - share[a] * share[b]) / np.sqrt(share[a] * (1 - share[a]) * share[b] * (1 - share[b]))


def ocr_pairs(cells: Cells, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of OCRs that are open in at least 2 % of the cells: first, second, and whether they are within 100 kb."""
    share = np.asarray((cells.counts > 0).mean(axis=0)).ravel()
    common = np.flatnonzero((share > 0.02) & (share < 0.98))
    chrom, start = cells.ocrs["chrom"].to_numpy()[common], cells.ocrs["start"].to_numpy()[common]
    neighbours = [
        (common[i], common[i + step])
        for step in (1, 2, 3)
        for i in range(len(common) - step)
        if chrom[i] == chrom[i + step] and start[i + step] - start[i] < NEAR
    ]
    near = np.array(neighbours).reshape(-1, 2)
    far = rng.choice(common, (N_PAIRS, 2))
    far = far[far[:, 0] != far[:, 1]]
    pairs = np.concatenate([near, far])
    return pairs[:, 0], pairs[:, 1], np.arange(len(pairs)) < len(near)


def cell_vectors(counts: sparse.csr_matrix) -> np.ndarray:
    """TF-IDF + LSI, 30 components of unit length in all; the first one, which is depth, left out."""
    is_open = sparse.csr_matrix(counts > 0, dtype=np.float64)
    idf = np.log1p(is_open.shape[0] / np.maximum(np.asarray(is_open.sum(axis=0)).ravel(), 1))
    depth = np.maximum(np.asarray(is_open.sum(axis=1)).ravel(), 1)
    tfidf = sparse.csr_matrix(sparse.diags(1e4 / depth) @ is_open @ sparse.diags(idf))
    tfidf.data = np.log1p(tfidf.data)
    vectors = TruncatedSVD(31, random_state=0).fit_transform(tfidf)[:, 1:]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def type_separation(cells: Cells, rng: np.random.Generator) -> dict[str, float]:
    """How alike cells are within and between types, raw and in LSI space, and how well a neighbour vote tells the type."""
    pick = rng.choice(len(cells.types), min(3000, len(cells.types)), replace=False)
    counts, types = cells.counts[pick], cells.types[pick]
    is_open = sparse.csr_matrix(counts > 0, dtype=np.float64)
    size = np.asarray(is_open.sum(axis=1)).ravel()
    jaccard = (is_open @ is_open.T).toarray()
    jaccard /= np.maximum(size[:, None] + size[None, :] - jaccard, 1)
    vectors = cell_vectors(counts)
    cosine = vectors @ vectors.T
    same = types[:, None] == types[None, :]
    off = ~np.eye(len(types), dtype=bool)
    half = len(pick) // 2
    vote = KNeighborsClassifier(15).fit(vectors[:half], types[:half]).score(vectors[half:], types[half:])
    return {
        "Jaccard of two cells, same type": jaccard[same & off].mean(),
        "Jaccard of two cells, two types": jaccard[~same].mean(),
        "LSI cosine of two cells, same type": cosine[same & off].mean(),
        "LSI cosine of two cells, two types": cosine[~same].mean(),
        "15-NN accuracy in LSI": vote,
    }


def figures(cells: Cells) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """All figures, and the distributions for the picture."""
    rng = np.random.default_rng(0)
    counts = cells.counts
    n_open = np.diff(counts.indptr)
    share = np.bincount(counts.indices, minlength=counts.shape[1]) / counts.shape[0]
    values = np.bincount(counts.data, minlength=6) / counts.nnz
    a, b, near = ocr_pairs(cells, rng)
    correlation = correlations(counts, a, b)
    table: dict[str, float] = {
        "cells": counts.shape[0],
        "OCRs": counts.shape[1],
        "open share of the matrix": counts.nnz / np.prod(counts.shape),
    }
    table |= quantile_rows("open OCRs per cell", n_open)
    table["open OCRs per cell, sd of log"] = float(np.log(np.maximum(n_open, 1)).std())
    table |= quantile_rows("cells with an OCR open", share, (*QUANTILES, 0.99))
    table |= {f"share of counts that are {k}": values[k] for k in range(1, 5)}
    table["share of counts above 4"] = 1 - values[:5].sum()
    table |= quantile_rows("correlation of OCRs within 100 kb", correlation[near], (0.25, 0.5, 0.75, 0.95))
    table |= quantile_rows("correlation of random OCRs", correlation[~near], (0.05, 0.25, 0.5, 0.75, 0.95))
    table |= type_separation(cells, rng)
    return table, {"n_open": n_open, "share": share, "near": correlation[near], "far": correlation[~near]}


def compare(real: Cells, simulated: Cells) -> tuple[pd.DataFrame, dict[str, dict[str, np.ndarray]]]:
    tables, curves = {}, {}
    for name, cells in (("real", real), ("simulated", simulated)):
        tables[name], curves[name] = figures(cells)
    return pd.DataFrame(tables), curves


def load(data: Path, name: str) -> Cells:
    source = next(source for source in REAL_STUDIES if source.name == name)
    adata = read_real_study(data, source)
    ocrs = adata.var[["chrom", "start", "end"]]
    types = adata.obs["cell_type"].astype(str).map(TYPES)
    known = types.notna().to_numpy()
    return Cells(adata.X[known], ocrs, types[known].to_numpy())


def pair(data: Path, name: str, design: StudyDesign) -> tuple[Cells, Cells]:
    """Real cells, and cells simulated on their OCRs in the same shares of types."""
    real = load(data, name)
    biosamples = read_biosamples(data / "biosamples.h5ad")
    types, n_cells = np.unique(real.types, return_counts=True)
    n_open = np.maximum(np.diff(real.counts.indptr), 1)
    # The spread is told from the quartiles: some real cells are nearly empty.
    quartiles = np.log(np.quantile(n_open, [0.25, 0.5, 0.75]))
    fitted = replace(
        design,
        mixture_share=0.0,
        median_open=float(np.exp(quartiles[1])),
        depth_sigma=float((quartiles[2] - quartiles[0]) / 1.349),
    )
    study = simulate_study(
        biosamples.ranks,
        biosamples.bins,
        n_cells=len(real.types),
        ocrs=real.ocrs,
        names=biosamples.names,
        design=fitted,
        chosen=[biosamples.names.index(name) for name in types],
        proportions=n_cells,
        similarity=biosample_similarity(biosamples.ranks),
    )
    return real, Cells(study.X, real.ocrs, study.obs["biosample"].astype(str).to_numpy())


def draw(curves: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    import matplotlib.pyplot as plt

    panels = [
        ("n_open", "open OCRs per cell", np.geomspace(10, 2000, 50), "log"),
        ("share", "share of cells with an OCR open", np.geomspace(2e-4, 0.8, 50), "log"),
        ("near", "correlation of OCRs within 100 kb", np.linspace(-0.1, 0.35, 60), "linear"),
        ("far", "correlation of random OCRs", np.linspace(-0.1, 0.2, 60), "linear"),
    ]
    figure, axes = plt.subplots(1, 4, figsize=(17, 3.6), constrained_layout=True)
    for axis, (key, label, edges, scale) in zip(axes, panels, strict=True):
        for name, colour in (("real", "#333333"), ("simulated", "#d95f02")):
            axis.hist(
                curves[name][key],
                edges,
                density=False,
                weights=np.full(len(curves[name][key]), 1 / len(curves[name][key])),
                histtype="step",
                color=colour,
                linewidth=1.6,
                label=name,
            )
        axis.set(xscale=scale, xlabel=label, ylabel="share")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    lines = []
    curves = {}
    for name in ("bone_marrow", "bmmc_multiome_1"):
        table, curves[name] = compare(*pair(args.data, name, StudyDesign()))
        lines.append(f"{name}\n{table.to_string(float_format='{:.4g}'.format)}\n")
    text = "\n".join(lines)
    print(text)
    if args.log:
        args.log.write_text(text, encoding="utf-8")
    if args.figure:
        draw(curves["bone_marrow"], args.figure)


if __name__ == "__main__":
    main()
