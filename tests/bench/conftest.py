from __future__ import annotations

from typing import TYPE_CHECKING

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable


def cells_of_three_types(n_cells: int = 150, seed: int = 0) -> MuData:
    """Three types, each with OCRs of its own, and genes that are expressed in cells whose OCRs are open there."""
    rng = np.random.default_rng(seed)
    n_ocrs = 180
    kind = np.arange(n_cells) % 3
    own = np.arange(n_ocrs) % 3 == kind[:, None]
    counts = rng.poisson(np.where(own, 0.5, 0.1))
    start = 1_000_000 + 10_000 * np.arange(n_ocrs)
    names = [f"chr1:{s}-{s + 500}" for s in start]
    cells = [f"cell{i}" for i in range(n_cells)]
    obs = pd.DataFrame({"cell_type": np.array(["b", "mono", "t"])[kind]}, cells)
    atac = AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names), uns={"genome": "GRCh38"})
    # gene i lies at OCRs i, 9 + i, ... with the same remainder by 3, so that it is open in one type
    gene = np.arange(n_ocrs) % 9
    expression = np.stack([counts[:, gene == i].sum(axis=1) for i in range(9)], axis=1)
    rna = AnnData(
        np.log1p(expression).astype(np.float32), obs=obs.copy(), var=pd.DataFrame(index=[f"G{i}" for i in range(9)])
    )
    return paired(atac, rna)


def paired(atac: AnnData, rna: AnnData) -> MuData:
    options = md.set_options(pull_on_update=False) if hasattr(md, "set_options") else None
    if options is None:
        return MuData({"atac": atac, "rna": rna})
    with options:
        return MuData({"atac": atac, "rna": rna})


@pytest.fixture(scope="session")
def planted() -> Callable[..., MuData]:
    """From a number of cells and a seed to cells with types "b", "mono" and "t", and genes "G0" to "G8"."""
    return cells_of_three_types


@pytest.fixture(scope="session")
def make_mudata() -> Callable[[AnnData, AnnData], MuData]:
    """From both modalities to a MuData, whatever names they share."""
    return paired


@pytest.fixture(scope="session")
def pair() -> tuple[MuData, MuData]:
    """Training and test cells, to be read only."""
    return cells_of_three_types(), cells_of_three_types(60, seed=1)
