from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import scfound_atac as sfa

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from laboratories import DEPTHS, laboratories, merged


@pytest.fixture(scope="module")
def cells():
    adata = sfa.datasets.pbmc_multiome_sample()["atac"][:600].copy()
    adata.var = sfa.genome.get_ocrs(adata.var)
    return adata


def test_laboratories_have_peaks_and_depths_of_their_own(cells) -> None:
    joined = laboratories(cells, "cell_type", 0)
    assert set(joined.obs["lab"]) == set(DEPTHS)
    assert joined.obs_names.is_unique
    whole = np.asarray(cells[joined.obs_names].X.sum(axis=1)).ravel()
    kept = np.asarray(joined.X.sum(axis=1)).ravel()
    assert (kept <= whole).all()  # nothing is made up
    by_lab = [
        kept[(joined.obs["lab"] == lab).to_numpy()].sum() / whole[(joined.obs["lab"] == lab).to_numpy()].sum()
        for lab in DEPTHS
    ]
    assert sorted(by_lab, reverse=True) == by_lab
    is_open = np.array(
        [np.asarray(joined.X[(joined.obs["lab"] == lab).to_numpy()].sum(axis=0)).ravel() > 0 for lab in DEPTHS]
    )
    assert (is_open.sum(axis=0) <= 1).mean() > 0.95


def test_merged_regions_are_open_in_all(cells) -> None:
    joined = laboratories(cells, "cell_type", 0)
    found = merged(joined, "lab")
    assert 100 < found.n_vars < cells.n_vars
    assert list(found.obs_names) == list(joined.obs_names)
    for lab in DEPTHS:
        assert (np.asarray(found.X[(found.obs["lab"] == lab).to_numpy()].sum(axis=0)).ravel() > 0).all()


def test_same_seed(cells) -> None:
    a, b = (laboratories(cells, "cell_type", 3) for _ in range(2))
    assert (a.X != b.X).nnz == 0
    assert a.var_names.equals(b.var_names)
