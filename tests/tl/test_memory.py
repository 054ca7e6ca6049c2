"""Cells on disk are streamed: no dense table of cells x OCRs is held in memory, whatever the number of cells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

N_CELLS, N_OCRS, N_OPEN = 15_000, 30_000, 60
DENSE = 4 * N_CELLS * N_OCRS  # bytes of the table that nothing may hold: 1.8 GB

# Peak and present memory are read from /proc, as the peak that getrusage gives to a child process may be its parent's.
MEASURED = """
import gc, sys
from pathlib import Path
import anndata as ad
import scfound_atac as sfa

def memory(name):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])

adata = ad.read_h5ad(sys.argv[1], backed="r")
sfa.settings.progress_bar = False
# What stays in memory once and for all: libraries, weights, the region table.
warm = adata[:200].to_memory()
sfa.tl.embed(warm, model=sys.argv[2], n_components=5)
sfa.tl.impute(warm, model=sys.argv[2], n_kept=10)
del warm
gc.collect()
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
{call}
print("added", memory("VmHWM") - before)
"""
CALLS = {
    "embed": "sfa.tl.embed(adata, model=sys.argv[2], n_fit_cells=2_000)\nassert adata.obsm['X_sfa'].shape[0] == 15_000",
    "impute": "sfa.tl.impute(adata, model=sys.argv[2], n_fit_cells=2_000, n_kept=20, out=sys.argv[3])",
    "dense": "table = adata.X[:].toarray()",  # what the others must not do: the measure sees it
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    chromosome = np.sort(rng.integers(1, 23, N_OCRS))
    start = 1_000_000 + 1_500 * np.arange(N_OCRS)
    names = [f"chr{c}:{s}-{s + 500}" for c, s in zip(chromosome, start, strict=True)]
    # Four groups of cells, each with more of its own OCRs open; a column that is drawn twice is open once.
    group = np.arange(N_CELLS) % 4
    columns = rng.integers(0, N_OCRS, (N_CELLS, N_OPEN), dtype=np.int32)
    own = rng.random((N_CELLS, N_OPEN)) < 0.5
    columns[own] = (columns - columns % 4 + group[:, None])[own]
    counts = sparse.csr_matrix(
        (np.ones(N_CELLS * N_OPEN, np.float32), columns.ravel(), np.arange(0, N_CELLS * N_OPEN + 1, N_OPEN)),
        shape=(N_CELLS, N_OCRS),
    )
    counts.sum_duplicates()
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)])
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=names), uns={"genome": "GRCh38"}).write_h5ad(path)
    return path


def added(call: str, file: Path, model: str, out: Path) -> int:
    """Bytes at the peak of a call, beyond what was there before it."""
    command = [sys.executable, "-c", MEASURED.replace("{call}", CALLS[call]), str(file), model, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("added")[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("call", "model"), [("embed", "region-set"), ("embed", "biosample-mix"), ("impute", "region-set")]
)
def test_cells_are_streamed(call: str, model: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "imputed.h5ad"
    peak = added(call, file, model, out)
    assert peak < DENSE / 4, f"{peak / 2**20:.0f} MiB"
    if call == "impute":
        with h5py.File(out) as written:
            assert tuple(written["X"].attrs["shape"]) == (N_CELLS, N_OCRS)
            assert len(written["X/data"]) == N_CELLS * 20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_a_dense_table_would_be_seen(file: Path, tmp_path: Path) -> None:
    """The measure itself, on a tenth of the cells."""
    tenth = tmp_path / "tenth.h5ad"
    ad.read_h5ad(file)[: N_CELLS // 10].copy().write_h5ad(tenth)
    assert added("dense", tenth, "biosample-mix", tmp_path / "x") > 0.9 * DENSE / 10
