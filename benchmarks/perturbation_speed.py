"""Time of perturbing OCRs with shared work, against running every perturbed cell anew.

    python benchmarks/perturbation_speed.py [--cells 50] [--perturbations 500] [--ocrs 50000] [--open 2500] [--anew 4] [--threads 1]

Cells are simulated as in `annotate_speed.py`. OCRs to be knocked out are drawn from all OCRs. Runs anew take hours, so they are timed for a
few of the perturbations (`--anew`) and multiplied up. Three of them:

- predict: `RNAPredictor.predict` for all cells with the OCR closed, as one would do with the public functions
- every cell: the same, but what depends on OCRs alone is computed once for all perturbations
- open cells: the same, but only for the cells in which the OCR is open, and for all cells once before

The results of the last one (``share=False``) are compared with the shared ones.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import torch
from scipy import sparse

import scfound_atac as sfa
from annotate_speed import simulate
from scfound_atac.data import Cells
from scfound_atac.inference.kinds import kind_of

N_GENES = 100
_TRAINED_ON = 60


def timed(function: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def closed(adata: ad.AnnData, ocr: int) -> ad.AnnData:
    """The cells without the counts of one OCR."""
    changed = adata.copy()
    changed.X.data[changed.X.indices == ocr] = 0
    changed.X.eliminate_zeros()
    return changed


def expression(atac: ad.AnnData) -> ad.AnnData:
    counts = np.random.default_rng(1).poisson(2, (atac.n_obs, N_GENES)).astype(np.float32)
    return ad.AnnData(counts, obs=atac.obs[[]], var=pd.DataFrame(index=[f"GENE{i}" for i in range(N_GENES)]))


def run(model: str, everything: ad.AnnData, args: argparse.Namespace) -> str:
    learnt = everything[:_TRAINED_ON].copy()
    predictor = sfa.model.RNAPredictor(model, head="mlp").train(
        md.MuData({"atac": learnt, "rna": expression(learnt)}), max_epochs=1, device=args.device
    )
    adata = everything[_TRAINED_ON:].copy()
    cells = Cells.read(adata)
    ocrs = np.random.default_rng(0).choice(cells.n_ocrs, args.perturbations, replace=False)
    sets = sparse.csr_matrix(
        (np.ones(len(ocrs), np.float32), ocrs, np.arange(len(ocrs) + 1)), shape=(len(ocrs), cells.n_ocrs)
    )
    few = sets[: args.anew]
    predictor.perturb(cells.subset(np.arange(1)), few, device=args.device)  # what is compiled on first use

    shared_s, shared = timed(lambda: predictor.perturb(cells, sets, device=args.device))
    slow = predictor.perturb(cells, few, device=args.device, share=False)

    features, columns = predictor._features, np.arange(N_GENES)
    setup_s, reader = timed(lambda: kind_of(predictor.checkpoint).reader(cells, device=args.device, exact=True))
    axes = features.view.axes_of(cells.ocrs)
    changed = [closed(adata, ocr) for ocr in ocrs[: args.anew]]

    def predict_cells(counts: sparse.csr_matrix, names: np.ndarray) -> None:
        measured = counts @ axes
        measured /= np.maximum(np.linalg.norm(measured, axis=1, keepdims=True), 1e-12)
        vectors = reader.vectors(reader.prepare(counts), names)
        predictor._of_features(np.hstack([vectors, measured]).astype(np.float32), columns)

    every_s, _ = timed(lambda: [predict_cells(copy.X, cells.names) for copy in changed])
    is_open = [adata.X[:, [ocr]].toarray()[:, 0] > 0 for ocr in ocrs[: args.anew]]
    open_s, _ = timed(
        lambda: [
            predict_cells(copy.X[some], cells.names[some])
            for copy, some in zip(changed, is_open, strict=True)
            if some.any()
        ]
    )
    predict_s, _ = timed(lambda: [predictor.predict(copy, device=args.device) for copy in changed])

    # Perturbations differ in the number of cells in which they are open, which is all that the third reference computes.
    n_open, n_open_few = shared.n_changed.sum(), max(1, shared.n_changed[: args.anew].sum())
    factor = args.perturbations / args.anew
    before_s = every_s / args.anew
    times = {
        "predict": predict_s * factor,
        "every cell": every_s * factor,
        "open cells": before_s + open_s * n_open / n_open_few,
    }
    difference = np.abs(shared.change[: args.anew] - slow.change).max()
    size = np.abs(slow.change).max()
    lines = [
        f"{model}: {args.perturbations} perturbations x {len(cells)} cells x {cells.n_ocrs:,} OCRs "
        f"({n_open:,} pairs in which the OCR is open), {N_GENES} genes",
        f"  shared      {shared_s:9.2f} s, of which {setup_s:.2f} s for what depends on OCRs alone",
        *(f"  {name:<11} {t:9.2f} s, {t / shared_s:7.1f} times as long" for name, t in times.items()),
        f"  largest difference of a change, shared and anew: {difference:.1e}; largest change: {size:.1e}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the command line, simulate, time."""
    parser = argparse.ArgumentParser(description="Time perturbations with and without shared work.")
    parser.add_argument("--cells", type=int, default=50)
    parser.add_argument("--perturbations", type=int, default=500)
    parser.add_argument("--ocrs", type=int, default=50_000)
    parser.add_argument("--open", type=int, default=2_500)
    parser.add_argument("--anew", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of the compiled path")
    parser.add_argument("--models", nargs="+", default=["region-set", "chromfound-bmmc"])
    args = parser.parse_args()
    logging.getLogger("scfound_atac").setLevel(logging.ERROR)
    sfa.settings.progress_bar = False
    torch.set_num_threads(args.threads)
    everything = simulate(_TRAINED_ON + args.cells, args.ocrs, args.open)
    everything.uns["genome"] = "GRCh38"
    print(f"{args.threads} of {os.cpu_count()} cores; runs anew timed for {args.anew} perturbations and multiplied up")
    for model in args.models:
        print(run(model, everything, args), flush=True)


if __name__ == "__main__":
    main()
