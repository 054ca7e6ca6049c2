"""A MuData between muon and this package, with the real muon. Weighted nearest neighbours, which are compiled for half a minute, are in
the notebook `tutorials/multiome.ipynb`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scfound_atac as sfa

mu = pytest.importorskip("muon", reason="muon is an optional package: pip install 'scfound-atac[multiome]'")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def mdata():
    sfa.settings.progress_bar = False
    return sfa.datasets.pbmc_multiome_sample()[:400].copy()


def test_filter_each_modality_then_intersect_then_embed(mdata) -> None:
    order = np.random.default_rng(0).permutation(400)
    mdata.mod["rna"] = mdata["rna"][order].copy()
    sfa.pp.filter_cells(mdata, min_ocrs=40, max_ocrs=None)
    mu.pp.filter_obs(mdata["rna"], pd.Series(np.arange(400) >= 20, mdata["rna"].obs_names).to_numpy())
    n_open, n_expressed = mdata["atac"].n_obs, mdata["rna"].n_obs
    mu.pp.intersect_obs(mdata)
    assert set(mdata["atac"].obs_names) == set(mdata["rna"].obs_names) == set(mdata.obs_names)
    assert mdata.n_obs < min(n_open, n_expressed)
    sfa.tl.embed(mdata)
    sfa.tl.embed_joint(mdata)
    assert mdata["atac"].obsm["X_sfa"].shape[0] == mdata.obsm["X_sfa_joint"].shape[0] == mdata.n_obs


@pytest.mark.parametrize("suffix", ["", "_predicted"])
def test_plots_by_gene_after_a_prediction(mdata, suffix: str) -> None:
    import matplotlib.pyplot as plt

    sfa.tl.predict_rna(mdata, genes=["JCHAIN", "CCL4"], head="mlp", max_epochs=1, device="cpu", gene_suffix=suffix)
    mdata.obsm["X_two"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 2))
    if suffix:
        mu.pl.embedding(mdata, basis="X_two", color=["JCHAIN", "JCHAIN_predicted"], show=False)
    else:  # the modality has to be named, one at a time
        for color in ("rna:JCHAIN", "rna_predicted:JCHAIN"):
            mu.pl.embedding(mdata, basis="X_two", color=color, show=False)
    plt.close("all")
