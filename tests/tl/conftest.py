from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfound_atac.genome import load_region_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def in_form(tmp_path: Path) -> Callable[..., tuple[ad.AnnData, str | None]]:
    """From cells with counts in CSR to the same counts in another form, and the layer they are in."""

    def convert(
        adata: ad.AnnData, form: Literal["csc", "dense", "array", "int", "layer", "backed"]
    ) -> tuple[ad.AnnData, str | None]:
        if form == "csc":
            adata.X = adata.X.tocsc()
        elif form == "dense":
            adata.X = adata.X.toarray()
        elif form == "array":
            adata.X = sparse.csr_array(adata.X)
        elif form == "int":
            adata.X = adata.X.astype(np.uint8)
        elif form == "layer":
            adata.layers["counts"], adata.X = adata.X, adata.X * 0
            return adata, "counts"
        else:
            adata.write_h5ad(tmp_path / "cells.h5ad")
            return ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"), None
        return adata, None

    return convert


@pytest.fixture(scope="session")
def multiome() -> Callable[..., md.MuData]:
    """Simulates cells with both modalities; ``uns["planted"]`` of the accessibility is the OCR that drives CD4."""
    n_candidates = 200
    genes = ["CD4", "LAG3", "GAPDH", "ACTB", "B2M", "MYC", "TP53", "KRAS", "NOGENE"]

    def simulate(seed: int = 0, *, is_linked: bool = True, n_cells: int = 600, n_elsewhere: int = 1_000) -> md.MuData:
        """200 bins near CD4, of which one raises its expression, and bins of other chromosomes; cells of two types and many depths."""
        rng = np.random.default_rng(seed)
        bins = load_region_table().bins
        near = bins[(bins["chrom"] == "chr12") & bins["start"].between(6_320_000, 7_200_000)]
        near = near.iloc[np.sort(rng.choice(len(near), n_candidates, replace=False))]
        others = bins[bins["chrom"].isin(["chr1", "chr2", "chr5", "chr20"])]
        var = pd.concat([near, others.iloc[np.sort(rng.choice(len(others), n_elsewhere, replace=False))]])
        var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
        n = len(var)
        depth = rng.lognormal(0, 0.4, n_cells)
        is_t = rng.random(n_cells) < 0.5
        of_type = np.where(rng.random(n) < 0.3, rng.lognormal(0, 0.8, n), 1.0)
        counts = rng.poisson(depth[:, None] * rng.gamma(2, 0.1, n) * np.where(is_t[:, None], of_type, 1.0))
        planted = int(rng.integers(n_candidates))
        counts[:, planted] = rng.poisson(0.6 * depth)
        level = 1 + 2.5 * np.minimum(counts[:, planted], 2) if is_linked else np.ones(n_cells)
        rate = np.column_stack([level * np.where(is_t, 1.5, 1.0), *np.full((8, n_cells), 3.0)])
        obs = pd.DataFrame({"cell_type": np.where(is_t, "T", "B")}, index=[f"c{i}" for i in range(n_cells)])
        atac = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
        rna = ad.AnnData(rng.poisson(rate * depth[:, None]).astype(np.float32), obs=obs[[]].copy())
        rna.var_names = genes
        atac.uns["planted"] = var.index[planted]
        return md.MuData({"atac": atac, "rna": rna})

    return simulate
