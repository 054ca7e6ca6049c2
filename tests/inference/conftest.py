from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scfound_atac.hub import Checkpoint
from scfound_atac.nn import ChromFoundConfig, ChromFoundNet

N_CELLS, N_OCRS = 24, 70


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    net = ChromFoundNet(
        ChromFoundConfig(d_model=16, n_layers=2, n_heads=2, window_size=8, shift_size=4, d_mlp=16, d_low=8, d_state=4)
    )
    with torch.no_grad():  # so that what the layers compute shows in the mean over hidden dimensions
        net.norm.weight.uniform_(0.2, 2)
    return Checkpoint(net=net.eval(), name="tiny", sha256="0")


@pytest.fixture(scope="session")
def ocrs() -> pd.DataFrame:
    """Shuffled OCRs, no two alike."""
    rng = np.random.default_rng(0)
    start = rng.choice(50_000_000, N_OCRS, replace=False).astype(np.int64)
    chrom = rng.choice(["chr1", "chr2", "chr10", "chr22", "chrX", "chrY"], N_OCRS)
    return pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500})


@pytest.fixture(scope="session")
def values() -> sparse.csr_matrix:
    rng = np.random.default_rng(1)
    table = rng.random((N_CELLS, N_OCRS)) * (rng.random((N_CELLS, N_OCRS)) < 0.3) * 3
    return sparse.csr_matrix(table.astype(np.float32))
