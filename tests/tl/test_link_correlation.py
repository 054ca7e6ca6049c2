"""`sfa.tl.link_enhancers(method="correlation")` on simulated cells with both modalities."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import mudata as md
import numpy as np
import pandas as pd
import pytest

import scfound_atac as sfa

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
N_CANDIDATES = 200


@pytest.fixture(scope="module")
def mdata(multiome: Callable[..., md.MuData]) -> md.MuData:
    return multiome(n_elsewhere=2_000)


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_link_is_first(seed: int, multiome: Callable[..., md.MuData]) -> None:
    mdata = multiome(seed, n_elsewhere=2_000)
    sfa.tl.link_enhancers(mdata, genes="CD4", method="correlation")
    links = sfa.get.links(mdata, gene="CD4")
    assert len(links) == N_CANDIDATES
    assert links["ocr"][0] == mdata["atac"].uns["planted"]
    assert links["p"][0] == links["p"].min()
    assert links["q"][0] < 0.05
    assert links["probability"].isna().all()


@pytest.mark.slow
def test_without_a_link_there_is_none(multiome: Callable[..., md.MuData]) -> None:
    found = []
    for seed in range(20):
        mdata = multiome(seed, is_linked=False, n_elsewhere=2_000)
        sfa.tl.link_enhancers(mdata, method="correlation")
        found.append((sfa.get.links(mdata)["q"] < 0.05).mean())
    assert np.mean(found) <= 0.05


def test_scores_are_correlations(mdata: md.MuData) -> None:
    mdata = mdata.copy()
    sfa.tl.link_enhancers(mdata, genes=["CD4"], method="correlation", groupby="cell_type")
    counts = mdata["atac"].to_df()
    x = np.log1p(
        counts.div(counts.sum(axis=1), axis=0) * counts[mdata["atac"].obs["cell_type"] == "T"].sum(axis=1).median()
    )
    rna = mdata["rna"].to_df()
    y = np.log1p(rna.div(rna.sum(axis=1), axis=0) * 1e4)["CD4"]
    of_t = (mdata["atac"].obs["cell_type"] == "T").to_numpy()
    for _, link in sfa.get.links(mdata, group="T").iloc[::37].iterrows():
        assert link["score"] == pytest.approx(np.corrcoef(x.loc[of_t, link["ocr"]], y[of_t])[0, 1], abs=1e-4)


def test_genes_by_id_and_cells_in_other_order(mdata: md.MuData) -> None:
    mdata = mdata.copy()
    sfa.tl.link_enhancers(mdata, genes="CD4", method="correlation")
    expected = sfa.get.links(mdata)
    rna = mdata["rna"][::-1].copy()
    ids = sfa.datasets.genes().set_index("name")["id"]
    rna.var_names = [f"{ids[name]}.7" if name in ids else name for name in rna.var_names]
    other = md.MuData({"atac": mdata["atac"].copy(), "rna": rna})
    sfa.tl.link_enhancers(other, genes=["CD4"], method="correlation")
    pd.testing.assert_frame_equal(sfa.get.links(other), expected)


def test_metacells(mdata: md.MuData) -> None:
    mdata = mdata.copy()
    with pytest.raises(KeyError, match=r"There is no 'X_sfa'.*n_cells=5.*sfa.tl.embed first"):
        sfa.tl.link_enhancers(mdata, genes="CD4", method="correlation", n_cells=5)
    mdata["atac"].obsm["X_mine"] = np.random.default_rng(0).normal(size=(mdata.n_obs, 4))
    sfa.tl.link_enhancers(mdata, genes="CD4", method="correlation", n_cells=3, use_rep="X_mine")
    assert sfa.get.links(mdata)["ocr"][0] == mdata["atac"].uns["planted"]


def test_what_cannot_be_correlated(mdata: md.MuData, caplog: pytest.LogCaptureFixture) -> None:
    mdata = mdata.copy()
    with pytest.raises(TypeError, match="needs expression beside accessibility: pass a MuData"):
        sfa.tl.link_enhancers(mdata["atac"], genes="CD4", method="correlation")
    with pytest.raises(ValueError, match=r"None of the 1 genes \(CD8A, ...\) is in modality 'rna'"):
        sfa.tl.link_enhancers(mdata, genes="CD8A", method="correlation")
    assert "sfa_links" not in mdata["atac"].uns
    mdata["atac"].obs["few"] = ["x"] * 5 + ["y"] * (mdata.n_obs - 5)
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        sfa.tl.link_enhancers(mdata, genes="CD4", method="correlation", groupby="few")
    assert "too few for a correlation" in caplog.text
    assert sfa.get.links(mdata, group="x")[["score", "p", "q"]].isna().all(axis=None)
    assert sfa.get.links(mdata, group="y")["score"].notna().all()


def test_cells_without_expression_are_left_out(mdata: md.MuData) -> None:
    part = md.MuData({"atac": mdata["atac"][:500].copy(), "rna": mdata["rna"][:500].copy()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more = md.MuData({"atac": mdata["atac"].copy(), "rna": mdata["rna"][:500].copy()})
    for each in (part, more):
        sfa.tl.link_enhancers(each, genes="CD4", method="correlation")
    columns = ["ocr", "score", "p", "q"]
    pd.testing.assert_frame_equal(sfa.get.links(part)[columns], sfa.get.links(more)[columns], check_categorical=False)


def test_the_table_survives_a_file(mdata: md.MuData, tmp_path) -> None:
    mdata = mdata.copy()
    sfa.tl.link_enhancers(mdata, genes="CD4", method="correlation", groupby="cell_type")
    mdata.write_h5mu(tmp_path / "x.h5mu")
    pd.testing.assert_frame_equal(
        sfa.get.links(md.read_h5mu(tmp_path / "x.h5mu")), sfa.get.links(mdata), check_categorical=False
    )
