"""Learn the weights by which `sfa.tl.annotate` names cells without a reference: ``inference/cell_types.json``.

    python scripts/fit_cell_types.py --data DIR [--n-studies 110] [--rows rows.npz]

Cells of known type, none of which is a test:

- donor BMMC_D6T1 of ``bone_marrow_atac.h5ad``, in 40 variants: all types or one to eight of them, 300 to 1,500 cells, all counts or half or
  30 %, all OCRs or 1,500 or 4,000 of them;
- simulated studies (``corpus/simulate.py``) of bulk samples of primary cells and tissues, with 1 to 20 samples in each. A third of the
  studies only keep OCRs of some domains of 200 kb. Cell lines and most cultured cells are left out: they are not what their name says.

60 cells of each study count alike; the donor has REAL of the weight. The loss is minus the log of the probability of all types that are
right for a cell (its type and those below it in the ontology). It allows for a fraction of wrong labels (WRONG), more in bulk samples,
which are mixtures; without it, the cells whose label is wrong would make all probabilities blunt. In DROPPED of the cells the right types
are taken away, and "none" is right.
--rows keeps the evidence, so that the fit can be repeated in seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

import scfound_atac as sfa
from scfound_atac._ontology import load_cell_ontology
from scfound_atac.data import Cells
from scfound_atac.genome.elements import load_element_table
from scfound_atac.inference.cell_types import (
    _TYPICAL_INFORMATION,
    FEATURES,
    neighborhoods,
    read_signals,
    weigh_evidence,
)

sys.path.insert(0, str(Path(__file__).parent / "corpus"))
from build import read_biosamples
from simulate import biosample_similarity, random_design, simulate_study

OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "inference" / "cell_types.json"
CELLS_PER_STUDY, N_NEIGHBORS = 60, 30
REAL, DROPPED = 0.5, 0.05
WRONG = {
    True: 0.05,
    False: 0.3,
}  # by whether cells are real; the names that wrong labels fall on are taken to be one of 20
# Bulk samples -> terms of which they are; types below these are right too.
BULK = {
    ("primary monocytes", "Monocytescd14ro01746", "Mono"): ("monocyte",),
    ("primary B cells", "Cd20", "B"): ("B cell",),
    ("primary T cells", "fetal thymus", "CD4", "CD8"): ("T cell",),
    ("primary NK cells", "NK"): ("natural killer cell",),
    ("pDC",): ("plasmacytoid dendritic cell",),
    ("Hmvecdad", "Hmvecdblad", "Hmvecdlyad", "Hmvecdneo", "Hmveclly", "Hmveclbl", "Hpaec", "Huvec", "Hrgec"): (
        "endothelial cell",
    ),
    ("Hpf", "Hconf", "Hcfaa", "foreskin fibroblast 02", "Nhdfad"): (
        "fibroblast",
        "myofibroblast cell",
        "pancreatic stellate cell",
    ),
    ("psoas muscle",): ("skeletal muscle fiber", "type I muscle cell", "type II muscle cell"),
    ("Hepatocytes",): ("hepatocyte",),
    ("fetal heart",): ("cardiac muscle cell",),
    ("small intestine", "fetal small intestine", "fetal large intestine"): ("intestinal epithelial cell",),
    ("gastric",): ("epithelial cell of stomach",),
}
DONOR = {
    ("11_CD14.Mono.1", "12_CD14.Mono.2"): ("monocyte",),
    ("17_B",): ("B cell",),
    ("16_Pre.B",): ("lymphocyte of B lineage",),
    ("25_NK",): ("natural killer cell",),
    ("20_CD4.N1", "22_CD4.M", "21_CD4.N2", "19_CD8.N", "24_CD8.CM", "23_CD8.EM"): ("T cell",),
    ("07_GMP",): ("hematopoietic precursor cell",),
    ("05_CMP.LMPP", "01_HSC", "15_CLP.2", "06_CLP.1"): ("hematopoietic precursor cell",),
}


def right_types(terms: tuple[str, ...]) -> np.ndarray:
    """Mask of the types that are one of some terms or below one."""
    ontology, table = load_cell_ontology(), load_element_table()
    wanted = {term for term, name in ontology.names.items() if name in terms}
    assert len(wanted) == len(terms), terms
    return np.array([bool(ontology.ancestors(term) & wanted) for term in table.type_ids])


def by_label(groups: dict[tuple[str, ...], tuple[str, ...]]) -> dict[str, np.ndarray]:
    """The right types of each label."""
    return {label: right_types(terms) for labels, terms in groups.items() for label in labels}


def evidence_of(adata: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Features and information of all cells, computed as `sfa.tl.annotate` does."""
    table = load_element_table()
    cells = Cells.read(adata)
    sfa.tl.embed(adata)
    signals = read_signals(cells, table.lookup(cells.ocrs), table.n_strata, progress=False)
    signals = signals.averaged(neighborhoods(adata.obsm["X_sfa"], len(cells), N_NEIGHBORS))
    mean = type(signals)(*(x.mean(axis=0, keepdims=True) for x in signals))
    return tuple(weigh_evidence(signals, mean, table.expected()))


def without_empty(adata: ad.AnnData, minimum: int = 5) -> ad.AnnData:
    return adata[np.diff(sparse.csr_matrix(adata.X).indptr) > minimum].copy()


def donor_studies(data: Path, rng: np.random.Generator):
    """Variants of the bone-marrow donor."""
    cells = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
    cells = cells[cells.obs["donor"] == "BMMC_D6T1"].copy()
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    names = np.unique(labels)
    for variant in range(40):
        some = names if variant % 2 == 0 else rng.choice(names, rng.integers(1, 9), replace=False)
        rows = rng.permutation(np.flatnonzero(np.isin(labels, some)))[: rng.choice([300, 800, 1500])]
        columns = np.arange(cells.n_vars)
        if variant % 3 == 0:
            columns = np.sort(rng.choice(cells.n_vars, rng.choice([1500, 4000]), replace=False))
        part = cells[rows][:, columns].copy()
        counts = sparse.csr_matrix(part.X).astype(np.int64)
        counts.data = rng.binomial(counts.data, (1, 0.5, 0.3, 1)[variant % 4])
        counts.eliminate_zeros()
        part.X = counts.astype(np.float32)
        part = without_empty(part, 3)
        if part.n_obs >= CELLS_PER_STUDY:
            yield part, part.obs["cell_type"].astype(str).to_numpy()


def simulated_studies(data: Path, n_studies: int, rng: np.random.Generator):
    """Studies of bulk samples."""
    known = by_label(BULK)
    everything = read_biosamples(data / "biosamples.h5ad")
    used = np.isin(everything.names, list(known))
    ranks, names = everything.ranks[np.flatnonzero(used)], [n for n, u in zip(everything.names, used, strict=True) if u]
    similarity = biosample_similarity(ranks)
    for study in range(n_studies):
        n_ocrs = int(np.exp(rng.uniform(np.log(1_500), np.log(120_000))))
        design = dataclasses.replace(
            random_design(n_ocrs, seed=study),
            mixture_share=0.0,
            alike=float(rng.uniform(0, 0.5)),
            n_biosamples=int(rng.choice([1, 2, 3, 5, 8, 12, 20])),
        )
        cells = simulate_study(
            ranks,
            everything.bins,
            n_cells=400,
            n_ocrs=n_ocrs,
            seed=study,
            names=names,
            design=design,
            similarity=similarity,
        )
        if study % 3 == 0:
            domain = cells.var["chrom"].astype(str) + ":" + (cells.var["start"] // 200_000).astype(str)
            wanted = np.exp(rng.uniform(np.log(400), np.log(3_000)))
            order = rng.permutation(domain.unique())
            n = np.cumsum(domain.value_counts()[order].to_numpy())
            cells = without_empty(cells[:, domain.isin(order[: max(1, np.searchsorted(n, wanted))])].copy())
        yield cells, cells.obs["biosample"].astype(str).to_numpy()


def collect(data: Path, n_studies: int) -> dict[str, np.ndarray]:
    """Evidence and right types of some cells of every study."""
    rng = np.random.default_rng(1)
    parts = []
    sources = (
        (donor_studies(data, rng), by_label(DONOR), 1),
        (simulated_studies(data, n_studies, rng), by_label(BULK), 0),
    )
    number = 0
    for studies, known, is_real in sources:
        for cells, labels in studies:
            features, information = evidence_of(cells)
            rows = rng.choice(cells.n_obs, CELLS_PER_STUDY, replace=cells.n_obs < CELLS_PER_STUDY)
            right = np.stack([known[label] for label in labels[rows]])
            facts = np.full(CELLS_PER_STUDY, is_real), np.full(CELLS_PER_STUDY, number)
            parts.append((features[rows], information[rows], right, *facts))
            number += 1
            print(number, cells.shape, flush=True)
    names = ("features", "information", "right", "is_real", "study")
    return {name: np.concatenate(x) for name, x in zip(names, zip(*parts, strict=True), strict=True)}


def fit(rows: dict[str, np.ndarray], seed: int = 0) -> tuple[dict, float]:
    """The weights, and their loss."""
    table = load_element_table()
    n_added = len(table.marked)
    is_real = rows["is_real"].astype(bool)
    weight = torch.tensor(np.where(is_real, REAL / is_real.sum(), (1 - REAL) / (~is_real).sum()), dtype=torch.float32)
    features, information = torch.tensor(rows["features"]), torch.tensor(rows["information"])
    dropped = torch.tensor(np.random.default_rng(seed).random(len(is_real)) < DROPPED)
    right = torch.tensor(rows["right"])
    gone = torch.where(dropped[:, None] & right, -1e9, 0.0)
    wrong = torch.tensor(np.where(is_real, WRONG[True], WRONG[False]), dtype=torch.float32)
    right = torch.cat([right & ~dropped[:, None], dropped[:, None]], dim=1)
    added = torch.zeros(right.shape[1] - 1)
    added[-n_added:] = 1
    theta = torch.zeros(len(FEATURES) + 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        *w, a, none, sharpness = theta
        logits = features @ torch.stack(w) + a * added + gone
        logits = torch.cat([logits, none.expand(len(logits), 1)], dim=1)
        logits = logits * torch.exp(sharpness * (information - _TYPICAL_INFORMATION))[:, None]
        p = torch.softmax(logits, dim=1).masked_fill(~right, 0).sum(dim=1)
        loss = -(weight * torch.log((1 - wrong) * p + wrong / 20)).sum() + 1e-3 * (theta[: len(FEATURES)] ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    *w, a, none, sharpness = (round(float(x), 4) for x in theta)
    facts = {"features": dict(zip(FEATURES, w, strict=True)), "added": a, "none": none, "sharpness": sharpness}
    return facts, float(closure())


def main() -> None:
    """Read the command line, collect evidence, fit, write."""
    parser = argparse.ArgumentParser(description="Learn how to weigh the evidence for cell types.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n-studies", type=int, default=110)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    if args.rows and args.rows.exists():
        rows = dict(np.load(args.rows))
    else:
        rows = collect(args.data, args.n_studies)
        if args.rows:
            np.savez_compressed(args.rows, **rows)
    facts, loss = fit(rows)
    n_studies = pd.Series(rows["is_real"]).groupby(rows["study"]).first().value_counts()
    facts["training"] = {
        "script": "scripts/fit_cell_types.py",
        "donor_variants": int(n_studies.get(1, 0)),
        "simulated_studies": int(n_studies.get(0, 0)),
        "cells_per_study": CELLS_PER_STUDY,
        "loss": round(loss, 4),
        "version": sfa.__version__,
    }
    args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
