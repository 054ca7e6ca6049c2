"""Small cells with everything that is drawn, around two real genes of B cells."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scfound_atac as sfa

TYPES = ["naive B", "T cell", "monocyte"]
N = 240


def links_table(groups: list[str], seed: int = 0) -> pd.DataFrame:
    """Links to MS4A1 and CD79A in the form of `tl.link_enhancers`."""
    rng, known = np.random.default_rng(seed), sfa.datasets.genes().set_index("name")
    rows = []
    for gene in ("MS4A1", "CD79A"):
        place = known.loc[gene]
        tss = place["start"] if place["strand"] == "+" else place["end"] - 1
        start = tss - 200 + np.array([-60_000, -21_000, -3_000, 0, 8_000, 30_000, 75_000])
        for group in groups:
            score = rng.random(len(start))
            rows.append(
                pd.DataFrame(
                    {
                        "gene": gene,
                        "gene_id": place["id"],
                        "ocr": [f"{place['chrom']}:{s}-{s + 500}" for s in start],
                        "chrom": place["chrom"],
                        "start": start,
                        "end": start + 500,
                        "group": group,
                        "distance": start + 250 - tss,
                        "accessibility": rng.random(len(start)) * 0.8,
                        "abc": score / score.sum(),
                        "score": score / score.sum(),
                        "probability": score,
                    }
                )
            )
    table = pd.concat(rows, ignore_index=True)
    table = table.astype(dict.fromkeys(["gene", "gene_id", "ocr", "chrom"], "category"))
    return table.assign(group=pd.Categorical(table["group"], categories=groups))


def perturbation_table(groups: list[str], seed: int = 0) -> pd.DataFrame:
    """Effects in the form of `tl.perturb_ocrs`: all OCRs on both genes, in each group."""
    rng, ocrs = np.random.default_rng(seed), links_table(["all"])["ocr"].cat.categories
    rows = [
        {"ocr": ocr, "gene": gene, "group": group, "n_cells": 80, "before": 2.0, "change": change, "after": 2 + change}
        for gene in ("MS4A1", "CD79A")
        for group in groups
        for ocr, change in zip(ocrs, rng.normal(-0.1, 0.3, len(ocrs)), strict=True)
    ]
    table = pd.DataFrame(rows).assign(relative_change=lambda t: t["change"] / t["before"])
    return table.astype(dict.fromkeys(["ocr", "gene", "group"], "category"))


def make_cells(seed: int = 0) -> AnnData:
    """Cells with labels, predictions, embeddings and tables."""
    rng = np.random.default_rng(seed)
    ocrs = links_table(["all"]).drop_duplicates("ocr").set_index("ocr")[["chrom", "start", "end"]]
    ocrs = ocrs.set_axis(ocrs.index.astype(str)).astype({"chrom": str})
    code = np.arange(N) % 3
    sure = 0.4 + 0.6 * rng.random(N)
    guess = np.where(rng.random(N) < sure, code, (code + 1) % 3)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(code, TYPES),
            "cell_type_best": pd.Categorical.from_codes(guess, TYPES),
            "cell_type_pred": pd.Categorical.from_codes(np.where(sure < 0.5, 3, guess), [*TYPES, "unknown"]),
            "cell_type_confidence": sure,
            "depth": rng.random(N),
        },
        index=[f"cell{i}" for i in range(N)],
    )
    counts = (rng.random((N, len(ocrs))) < 0.3).astype(np.float32)
    middle = np.array([[0, 0], [4, 1], [1, 5]])[code]
    adata = AnnData(counts, obs=obs, var=ocrs)
    adata.obsm["X_sfa"] = np.hstack([middle, np.zeros((N, 4))]) + rng.normal(0, 0.6, (N, 6))
    adata.obsm["X_umap"] = middle + rng.normal(0, 0.5, (N, 2))
    adata.obsm["X_tsne"] = middle[:, ::-1] + rng.normal(0, 0.9, (N, 2))
    adata.uns["sfa_links"] = links_table(TYPES, seed)
    adata.uns["sfa_links_params"] = {"groupby": "cell_type", "method": "abc"}
    adata.uns["sfa_perturbation"] = perturbation_table(TYPES, seed)
    return adata


def make_mudata(seed: int = 0) -> md.MuData:
    """The same cells with expression, and a prediction of it as `tl.predict_rna` writes it."""
    rng, atac = np.random.default_rng(seed), make_cells(seed)
    genes = pd.DataFrame(index=["MS4A1", "CD79A", *(f"GENE{i}" for i in range(18))])
    values = (rng.random((N, 20)) * (rng.random((N, 20)) < 0.7)).astype(np.float32)
    rna = AnnData(values, obs=atac.obs[[]].copy(), var=genes)
    scores = genes.assign(pearson=np.r_[0.8, 0.3, np.nan, rng.random(17)])
    record = {"params": {"version": "0"}, "report": {"scale": "as it is"}}
    noisy = (0.2 + 0.5 * values + rng.normal(0, 0.1, values.shape)).astype(np.float32)
    predicted = AnnData(noisy, obs=rna.obs.copy(), var=scores, uns={"rna_predicted": record})
    return md.MuData({"atac": atac, "rna": rna, "rna_predicted": predicted})


def make_history(seed: int = 0) -> pd.DataFrame:
    """The log of a pretraining run."""
    rng, step = np.random.default_rng(seed), np.arange(1, 301)
    loss = np.exp(-step / 80) + 0.3 + rng.normal(0, 0.05, len(step))
    return pd.DataFrame(
        {
            "step": step,
            "loss": loss,
            "masked": loss / 2,
            "lr": np.minimum(step / 30, 1) * 1e-3,
            "tokens": step * 100,
            "seconds": step * 0.1,
            "validation_loss": np.where(step % 30 == 0, loss + 0.1, np.nan),
            "validation_masked": np.where(step % 30 == 0, loss / 2 + 0.05, np.nan),
        }
    )


def make_scores(seed: int = 0) -> pd.DataFrame:
    """A table of `bench.compare`."""
    rng = np.random.default_rng(seed)
    rows = [
        {"method": method, "fraction": fraction, "smooth": False}
        | {name: rng.random() for name in ("kmeans_ari", "kmeans_nmi", "knn")}
        | {f"{name}_sd": rng.random() * 0.05 for name in ("kmeans_ari", "kmeans_nmi", "knn")}
        for fraction in (1.0, 0.2)
        for method in ("lsi", "spectral", "default")
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """What the functions of this file make, by short names."""
    return SimpleNamespace(
        cells=make_cells,
        mudata=make_mudata,
        history=make_history,
        scores=make_scores,
        links=links_table,
        perturbation=perturbation_table,
    )


_CELLS, _MUDATA = make_cells(), make_mudata()


@pytest.fixture
def adata() -> AnnData:
    return _CELLS.copy()


@pytest.fixture
def mdata() -> md.MuData:
    return _MUDATA.copy()


@pytest.fixture(autouse=True)
def pictures() -> Any:
    """Pictures are drawn without a screen, in matplotlib's own style, and closed afterwards."""
    from matplotlib import pyplot as plt

    backend = mpl.get_backend()
    mpl.use("Agg")
    with plt.style.context("default", after_reset=True):
        yield
    plt.close("all")
    mpl.use(backend)
