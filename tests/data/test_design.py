"""Samples with OCR sets of their own are told; usual data are not blamed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfound_atac.data._design import check_design
from scfound_atac.datasets import pbmc_multiome_sample


@pytest.fixture(scope="module")
def cells() -> tuple[sparse.csr_matrix, pd.DataFrame]:
    atac = pbmc_multiome_sample()["atac"]
    return sparse.csr_matrix(atac.X)[:2000], atac.var[["chrom", "start", "end"]]


def thinned(counts: sparse.csr_matrix, share: float) -> sparse.csr_matrix:
    thin = counts.copy()
    thin.data = thin.data * (np.random.default_rng(0).random(thin.nnz) < share)
    thin.eliminate_zeros()
    return thin


def beside(ocrs: pd.DataFrame) -> pd.DataFrame:
    """The same peaks as another caller bounds them."""
    return ocrs.assign(start=ocrs["start"] + 37, end=ocrs["end"] + 61)


def concatenated(counts: sparse.csr_matrix, ocrs: pd.DataFrame, n_first: int, shared: float) -> tuple:
    """An outer concatenation of two samples, of whose OCRs a share has the same names."""
    same = np.random.default_rng(1).random(len(ocrs)) < shared
    one, other = counts[:n_first], counts[n_first:]
    own = sparse.block_diag([one[:, ~same], other[:, ~same]], format="csr")
    var = pd.concat([ocrs[same], ocrs[~same], beside(ocrs[~same])])
    return sparse.hstack([sparse.vstack([one[:, same], other[:, same]]), own]).tocsr(), var


@pytest.mark.parametrize("share", [1, 0.3, 0.05, 0.01])
def test_usual_cells(cells: tuple, share: float) -> None:
    counts, ocrs = cells
    assert check_design(thinned(counts, share), ocrs) is None
    assert check_design(thinned(counts, share)[:100], ocrs) is None


@pytest.mark.parametrize("share", [1, 0.3, 0.05])
def test_overlapping_ocrs_of_one_sample(cells: tuple, share: float) -> None:
    counts, ocrs = cells
    both = thinned(sparse.hstack([counts, counts]).tocsr(), share)
    assert check_design(both, pd.concat([ocrs, beside(ocrs)])) is None


@pytest.mark.parametrize("n_first", [1000, 150])
@pytest.mark.parametrize("share", [1, 0.3])
def test_samples_without_a_common_ocr(cells: tuple, n_first: int, share: float) -> None:
    counts, ocrs = cells
    found = check_design(*concatenated(thinned(counts, share), ocrs, n_first, 0))
    assert found.startswith("Cells fall into 2 groups")
    assert "sfa.pp.map_ocrs(sample, reference)" in found


@pytest.mark.parametrize("n_first", [1000, 300])
@pytest.mark.parametrize("shared", [0.1, 0.5, 0.7])
def test_samples_with_some_common_ocrs(cells: tuple, n_first: int, shared: float) -> None:
    counts, ocrs = cells
    found = check_design(*concatenated(counts, ocrs, n_first, shared))
    assert "overlapping OCRs are hardly ever open in the same cell: 0 times" in found
    assert "sfa.pp.map_ocrs(sample, reference)" in found


@pytest.mark.parametrize("n_open", [2, 5, 11, 12, 15, 16, 17, 20, 1000, 10_000])
def test_random_cells_are_not_blamed_and_take_no_time(n_open: int) -> None:
    n_cells, n_ocrs = 2000, 500_000
    rng = np.random.default_rng(n_open)
    columns = rng.integers(0, n_ocrs, n_cells * n_open).astype(np.int32)
    counts = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.arange(0, len(columns) + 1, n_open)), shape=(n_cells, n_ocrs)
    )
    start = np.sort(rng.integers(0, 200_000_000, n_ocrs))
    ocrs = pd.DataFrame(
        {"chrom": np.repeat([f"chr{i}" for i in range(1, 11)], n_ocrs // 10), "start": start, "end": start + 500}
    )
    assert check_design(counts, ocrs) is None


def test_few_or_no_cells(cells: tuple) -> None:
    counts, ocrs = cells
    assert check_design(counts[:0], ocrs) is None
    assert check_design(counts[:5], ocrs) is None
    assert check_design(counts * 0, ocrs) is None
