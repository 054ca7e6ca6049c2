"""Names of cells without a reference: how often `sfa.tl.annotate(adata)` is right, wrong, or says that it does not know.

    python benchmarks/annotate_without_reference.py --data DIR --out FOLDER [--seeds 3]

Labelled cells on which nothing was fitted: bone-marrow donor BMMC_D5T1, PBMC in 51 gene windows, two BMMC multiome sets of
600 OCRs, and cells simulated from the peaks of sorted or clustered types of cortex, islets and coronary artery. (What was fitted
is described in ``scripts/fit_cell_types.py``. While the method was designed its scores on these sets were looked at several times, so that
they are optimistic by that much; sets that are kept aside are the better proof.)

Simulation: the OCRs are the union of the peak sets of a tissue. Four fifths of a cell's open OCRs are drawn from those of its type, with
uneven openness (log-normal, sigma 1), and one fifth from all OCRs.

Columns. "best": share of cells whose most probable type is the true one or below it. For names: "exact", the true term or one below it;
"ancestor", a term above it, but below the class of the tissue (CLASSES); "broad", a term above that, such as "leukocyte"; "unknown"; and
"wrong", everything else. ECE compares the confidence of names with how often they are right (exact, ancestor or broad), in ten bins.

Baselines, on the same neighbours and candidates: "share" is the share of open OCRs that are known for a type, minus that of the mean cell,
divided by its standard deviation over cells (OCRs of few types weighing more); "majority" gives all cells the most frequent label.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import mudata
import numpy as np
import pandas as pd
from scipy import sparse

import scfound_atac as sfa
from scfound_atac._ontology import load_cell_ontology
from scfound_atac.genome import overlaps
from scfound_atac.genome.elements import load_element_table
from scfound_atac.inference.cell_types import neighborhoods

MARROW = {
    **dict.fromkeys(("22_CD4.M", "24_CD8.CM", "20_CD4.N1", "23_CD8.EM", "19_CD8.N", "21_CD4.N2"), "T cell"),
    **dict.fromkeys(("17_B", "16_Pre.B"), "lymphocyte of B lineage"),
    "25_NK": "natural killer cell",
    **dict.fromkeys(("12_CD14.Mono.2", "11_CD14.Mono.1"), "monocyte"),
}
# Of these the tables of types have at most a distant relative: a name is right if it is unknown, the term itself or above it.
PROGENITORS = {
    "01_HSC": "hematopoietic precursor cell",
    "05_CMP.LMPP": "hematopoietic precursor cell",
    "06_CLP.1": "common lymphoid progenitor",
    "15_CLP.2": "common lymphoid progenitor",
    "07_GMP": "granulocyte monocyte progenitor cell",
}
PBMC = {
    **dict.fromkeys(("CD4 naive T", "CD4 memory T", "CD8 naive T", "CD8 activated T", "MAIT"), "T cell"),
    **dict.fromkeys(("CD14+ Monocytes", "FCGR3A+ Monocytes"), "monocyte"),
    **dict.fromkeys(("memory B", "naive B"), "B cell"),
    "NK": "natural killer cell",
    "cDCs": "dendritic cell",
    "pDCs": "plasmacytoid dendritic cell",
    "Plasma": "plasma cell",
}
BMMC = {
    **dict.fromkeys(("CD8+ T", "CD4+ T naive", "CD4+ T activated"), "T cell"),
    **dict.fromkeys(("CD14+ Mono", "CD16+ Mono"), "monocyte"),
    **dict.fromkeys(("Naive CD20+ B", "B1 B", "Transitional B"), "B cell"),
    **dict.fromkeys(("Erythroblast", "Normoblast", "Proerythroblast"), "erythroid lineage cell"),
    "NK": "natural killer cell",
    "cDC2": "dendritic cell",
    "pDC": "plasmacytoid dendritic cell",
    "Plasma cell": "plasma cell",
}
PEAKS = {
    "brain": {
        "brain_neuron_NeuN": "neuron",
        "brain_astrocyte_LHX2": "astrocyte",
        "brain_microglia_PU1": "microglial cell",
        "brain_oligodendrocyte_Olig2": "oligodendrocyte",
    },
    "islets": {"islet_alpha": "pancreatic A cell", "islet_beta": "type B pancreatic cell"},
    "artery": {"coronary_artery_mast": "mast cell", "coronary_artery_plasma": "plasma cell"},
}
# The class of a tissue: names at or above one of these are "broad".
CLASSES = ("leukocyte", "mononuclear leukocyte", "hematopoietic cell", "neural cell", "epithelial cell")


class Set(NamedTuple):
    """Cells with labels, the term of each label, and what they may be (None: any type)."""

    cells: ad.AnnData
    terms: dict[str, str]
    candidates: tuple[str, ...] | None = None


def read_peaks(data: Path, name: str) -> pd.DataFrame:
    table = pd.read_csv(data / "celltype_peaks" / f"{name}.grch38.bed.gz", sep="\t", header=None, comment="#")
    table = table.iloc[:, :3].set_axis(["chrom", "start", "end"], axis=1).drop_duplicates()
    return table[table["chrom"].str.fullmatch(r"chr(\d+|X)")].reset_index(drop=True)


def union(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import bioframe

    merged = bioframe.merge(pd.concat(tables), min_dist=None)[["chrom", "start", "end"]]
    return merged.set_axis([f"{c}:{s}-{e}" for c, s, e in merged.itertuples(index=False)], axis=0)


def simulate(data: Path, names: list[str], n_open: int, n_cells: int, seed: int) -> ad.AnnData:
    """Cells of the types whose peaks have these names; see the first lines of this file."""
    rng = np.random.default_rng(seed)
    peaks = {name: read_peaks(data, name) for name in names}
    ocrs = union(list(peaks.values()))
    rows = []
    for table in peaks.values():
        own = overlaps(ocrs, table)["a"].unique()
        rate = rng.lognormal(0, 1, len(own))
        for _ in range(n_cells):
            drawn = own[rng.choice(len(own), n_open * 4 // 5, p=rate / rate.sum())]
            rows.append(np.union1d(drawn, rng.choice(len(ocrs), n_open // 5, replace=False)))
    indptr = np.append(0, np.cumsum([len(row) for row in rows]))
    counts = sparse.csr_matrix((np.ones(indptr[-1], np.float32), np.concatenate(rows), indptr), (len(rows), len(ocrs)))
    labels = pd.DataFrame({"cell_type": np.repeat(names, n_cells)}, index=[f"c{i}" for i in range(len(rows))])
    return ad.AnnData(counts, obs=labels, var=ocrs)


def thinned(cells: ad.AnnData, fraction: float, seed: int) -> ad.AnnData:
    thin = sfa.bench.thin_counts(cells, fraction, seed=seed)
    return thin[np.diff(sparse.csr_matrix(thin.X).indptr) > 0].copy()


def sets(data: Path, seed: int):
    """All sets by name."""
    marrow = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
    donor = marrow[marrow.obs["donor"] == "BMMC_D5T1"].copy()
    for fraction in (1.0, 0.5, 0.3, 0.1):
        cells = donor if fraction == 1 else thinned(donor, fraction, seed)
        yield f"bone marrow D5T1, {fraction:.0%} of counts", Set(cells, MARROW | PROGENITORS)
    yield "bone marrow D5T1, candidates Blood", Set(donor, MARROW | PROGENITORS, ("Blood", "Bone Marrow"))
    pbmc = mudata.read_h5mu(data / "pbmc_multiome.h5mu")["atac"]
    pbmc = pbmc[np.diff(pbmc.X.tocsr().indptr) > 0].copy()
    yield "PBMC, 662 OCRs, candidates Blood", Set(pbmc, PBMC, ("Blood",))
    yield "PBMC, 662 OCRs", Set(pbmc, PBMC)
    for number in (1, 2):
        cells = mudata.read_h5mu(data / f"bmmc_multiome_{number}.h5mu")["atac"].copy()
        yield f"BMMC multiome {number}, 600 OCRs", Set(cells, BMMC)
    for tissue, terms in PEAKS.items():
        for n_open in (300, 1_000, 3_000):
            yield f"{tissue}, {n_open} open", Set(simulate(data, list(terms), n_open, 150, seed), terms)
    for name, term in (PEAKS["brain"] | PEAKS["islets"]).items():
        yield f"{term} alone, 1000 open", Set(simulate(data, [name], 1_000, 150, seed), {name: term})
    everything = PEAKS["brain"] | PEAKS["islets"] | PEAKS["artery"]
    yield "brain, islets and artery, 1000 open", Set(simulate(data, list(everything), 1_000, 100, seed), everything)


def share_baseline(cells: ad.AnnData, allowed: np.ndarray) -> np.ndarray:
    """Names of the types by the baseline "share"."""
    table = load_element_table()
    types = table.lookup(sfa.genome.get_ocrs(cells.var)).types[:, :144]
    types = types.multiply(1 / np.maximum(np.asarray((types > 0).sum(axis=1)), 1)).tocsr()
    counts = sparse.csr_matrix(cells.X) > 0
    share = (counts @ types).toarray() / counts.sum(axis=1)
    share = neighborhoods(cells.obsm["X_sfa"], len(share), 30) @ np.asarray(share)
    z = (share - share.mean(axis=0)) / np.maximum(share.std(axis=0), 1e-12)
    z[:, ~allowed[:144]] = -np.inf
    return np.asarray(table.type_names, dtype=object)[z.argmax(axis=1)]


def ece(confidence: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(np.sum(gaps)) if gaps else np.nan


def score(each: Set, seed: int) -> dict[str, float]:
    """All columns of one set."""
    from scfound_atac.inference.type_tree import load_type_tree

    ontology, tree = load_cell_ontology(), load_type_tree()
    cells = each.cells
    sfa.tl.embed(cells, seed=seed)  # only for the baseline
    sfa.tl.annotate(cells, candidates=each.candidates, seed=seed)
    truth = cells.obs["cell_type"].astype(str)
    is_missing = (
        truth.isin(PROGENITORS).to_numpy() if each.terms.keys() >= PROGENITORS.keys() else np.zeros(len(truth), bool)
    )
    scored = (truth.isin(each.terms) & ~is_missing).to_numpy()
    names = {name: term for term, name in ontology.names.items()}
    true_term = truth.map({label: names[name] for label, name in each.terms.items()})

    def is_below(found: pd.Series) -> np.ndarray:
        terms = found.astype(str).map(names)
        return np.array(
            [
                isinstance(a, str) and isinstance(b, str) and b in ontology.ancestors(a)
                for a, b in zip(terms, true_term, strict=True)
            ]
        )

    given = cells.obs["cell_type_pred"].astype(str)
    exact = is_below(given)
    above = np.array(
        [
            isinstance(b, str) and names.get(name, "") in ontology.ancestors(b) - {b}
            for name, b in zip(given, true_term, strict=True)
        ]
    )
    too_broad = given.isin(CLASSES).to_numpy() | np.array(
        [
            any(names[c] != names.get(n) and names.get(n, "") in ontology.ancestors(names[c]) for c in CLASSES)
            for n in given
        ]
    )
    unknown = (given == "unknown").to_numpy()
    allowed = np.ones(150, bool) if each.candidates is None else tree.allowed(each.candidates)
    baseline = pd.Series(share_baseline(cells, allowed), index=cells.obs_names)
    named = scored & ~unknown
    confidence = cells.obs["cell_type_confidence"].to_numpy()
    row = {
        "n_cells": int(scored.sum()),
        "best": is_below(cells.obs["cell_type_best"])[scored].mean(),
        "exact": exact[scored].mean(),
        "ancestor": (above & ~too_broad)[scored].mean(),
        "broad": (above & too_broad)[scored].mean(),
        "unknown": unknown[scored].mean(),
        "wrong": (~exact & ~above & ~unknown)[scored].mean(),
        "ece": ece(confidence[named], (exact | above)[named]),
        "share": is_below(baseline)[scored].mean(),
        "majority": true_term[scored].value_counts(normalize=True).max(),
    }
    if is_missing.any():
        row["progenitors not wrong"] = (exact | above | unknown)[is_missing].mean()
    return row


def main() -> None:
    """Read the command line, score, write the tables."""
    parser = argparse.ArgumentParser(description="Score names of cells without a reference.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    sfa.settings.progress_bar = False
    rows = []
    for seed in range(args.seeds):
        for name, each in sets(args.data, seed):
            rows.append({"set": name, "seed": seed, **score(each, seed)})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "annotate_without_reference.csv", index=False, float_format="%.4f")
    order = table["set"].drop_duplicates()
    by_set = table.drop(columns="seed").groupby("set")
    mean, sd = by_set.mean().loc[order], by_set.std().loc[order]
    shown = mean.map("{:.3f}".format) + " ± " + sd.map("{:.3f}".format)
    shown["n_cells"] = mean["n_cells"].round().astype(int).astype(str)
    shown = shown.where(mean.notna(), "")
    head = "| set | " + " | ".join(shown.columns) + " |\n|" + " --- |" * (shown.shape[1] + 1) + "\n"
    body = "".join(
        "| " + " | ".join([name, *row]) + " |\n" for name, row in zip(shown.index, shown.to_numpy(), strict=True)
    )
    text = f"Mean ± standard deviation over {args.seeds} seeds; columns as in benchmarks/annotate_without_reference.py.\n\n"
    (args.out / "annotate_without_reference.md").write_text(text + head + body, encoding="utf-8")
    print(text + head + body)


if __name__ == "__main__":
    main()
