"""Labelled cells on which choices are made, so that the test sets of `zero_shot.py` need not be looked at.

- ``d6t1``, ``d6t1-small``: bone-marrow cells of the training donor, 2,500 on all OCRs, and 700 on the 1,200 OCRs that are open most often.
  The networks of the package were trained on this donor; one that was not is needed for an honest figure.
- ``lines``: simulated cells of the 15 biosamples that the corpus of the package's weights holds out.
- ``brain``, ``islet``: simulated from peak sets of sorted or clustered cell types (folder ``celltype_peaks``), which no training saw:
  neurons, astrocytes, microglia and oligodendrocytes of the cortex; alpha and beta cells, bulk islets, and mast and plasma cells of the
  coronary artery.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scfound_atac.genome import CHROMOSOMES, genome_order, overlaps

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "corpus"))
from build import TRAINING_DONORS, evaluation_study
from simulate import StudyDesign, simulate_study

if TYPE_CHECKING:
    from collections.abc import Sequence

HELD_OUT = [
    "Hepg2",
    "Mcf7",
    "Mcf7hypoxia",
    "Hct116",
    "Panc1",
    "Lncap",
    "Lncapandrogen",
    "Helas3",
    "Helas3ifna4h",
    "Jurkat",
    "Nb4",
    "Sknmc",
    "Werirb1",
    "Nt2d1",
    "Huvec",
]
BRAIN = ("brain_neuron_NeuN", "brain_astrocyte_LHX2", "brain_microglia_PU1", "brain_oligodendrocyte_Olig2")
ISLET = ("islet_alpha", "islet_beta", "coronary_artery_mast", "coronary_artery_plasma", "islet_bulk_19donors")
LABEL = "label"
_BIN = 500  # bases, as the bins of the bulk samples
_MIN_SHARED = 100  # bases by which a peak has to reach into a bin
_RANK = 128  # peak sets have no signal: all peaks get the middle of the ranks 1 to 255


def development_sets(data: Path) -> dict[str, ad.AnnData]:
    """All sets by name, with the label in ``obs["label"]``."""
    cells = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
    cells = cells[cells.obs["donor"].isin(TRAINING_DONORS)]
    rng = np.random.default_rng(5)
    many = cells[np.sort(rng.choice(cells.n_obs, 2500, replace=False))].copy()
    few = cells[np.sort(rng.choice(cells.n_obs, 700, replace=False))]
    n_open = np.asarray((few.X > 0).sum(axis=0)).ravel()
    few = few[:, np.sort(np.argsort(-n_open)[:1200])].copy()
    for each in (many, few):
        each.obs[LABEL] = each.obs["cell_type"]
    design = StudyDesign(mixture_share=0.0, alike=0.6, type_sigma=0.2, median_open=1_000)
    lines = evaluation_study(data, HELD_OUT, n_cells=2_000, n_ocrs=40_000, design=design, seed=11)
    lines.obs[LABEL] = lines.obs["biosample"]
    return {
        "d6t1": many,
        "d6t1-small": few,
        "lines": lines,
        "brain": _of_peak_sets(data, BRAIN, n_ocrs=20_000, median_open=250, alike=0.5, seed=3),
        "islet": _of_peak_sets(data, ISLET, n_ocrs=30_000, median_open=500, alike=0.3, seed=4),
    }


def _of_peak_sets(
    data: Path, names: Sequence[str], *, n_ocrs: int, median_open: float, alike: float, seed: int
) -> ad.AnnData:
    """Cells simulated from peak sets, in about equal shares."""
    peaks = {name: _read_bed(data / "celltype_peaks" / f"{name}.grch38.bed.gz") for name in names}
    every = pd.concat(peaks.values())
    every = every[every["chrom"].isin(CHROMOSOMES)]
    start = (every["start"] + every["end"]) // 2 // _BIN * _BIN
    bins = pd.DataFrame({"chrom": every["chrom"], "start": start, "end": start + _BIN}).drop_duplicates(
        ignore_index=True
    )
    bins = bins.iloc[genome_order(bins)].reset_index(drop=True)
    ranks = np.zeros((len(names), len(bins)), dtype=np.uint8)
    for row, each in zip(ranks, peaks.values(), strict=True):
        shared = overlaps(each, bins)
        row[shared.loc[shared["n_bases"] >= _MIN_SHARED, "b"]] = _RANK
    n = len(names)
    cells = simulate_study(
        sparse.csr_matrix(ranks),
        bins,
        n_cells=1_500,
        n_ocrs=n_ocrs,
        seed=seed,
        names=names,
        design=StudyDesign(mixture_share=0.0, alike=alike, type_sigma=0.2, median_open=median_open),
        chosen=range(n),
        proportions=np.ones(n),
        similarity=(np.ones((n, n)) + np.eye(n)) / 2,
    )
    cells.obs[LABEL] = cells.obs["biosample"]
    return cells


def _read_bed(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", header=None, usecols=[0, 1, 2], names=["chrom", "start", "end"])
