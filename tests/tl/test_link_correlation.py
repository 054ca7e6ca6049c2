"""`sfa.tl.link_enhancers(method="correlation")` on simulated cells with both modalities."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.genome import load_region_table

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
N_CANDIDATES = 200


def multiome(seed: int = 0, *, is_linked: bool = True, n_cells: int = 600, n_elsewhere: int = 2_000) -> md.MuData:
    """200 bins near CD4, of which one raises its expression, and bins of other chromosomes; cells of two types and many depths."""
    rng = np.random.default_rng(seed)
    bins = load_region_table().bins
    near = bins[(bins["chrom"] == "chr12") & bins["start"].between(6_320_000, 7_200_000)]
    near = near.iloc[np.sort(rng.choice(len(near), N_CANDIDATES, replace=False))]
    others = bins[bins["chrom"].isin(["chr1", "chr2", "chr5", "chr20"])]
    var = pd.concat([near, others.iloc[np.sort(rng.choice(len(others), n_elsewhere, replace=False))]])
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    n = len(var)
    depth = rng.lognormal(0, 0.4, n_cells)
    is_t = rng.random(n_cells) < 0.5
    rate = rng.gamma(2, 0.1, n)
    of_type = np.where(rng.random(n) < 0.3, rng.lognormal(0, 0.8, n), 1.0)
    counts = rng.poisson(depth[:, None] * rate * np.where(is_t[:, None], of_type, 1.0))
    planted = int(rng.integers(N_CANDIDATES))
    counts[:, planted] = rng.poisson(0.6 * depth)
    level = 1 + 2.5 * np.minimum(counts[:, planted], 2) if is_linked else np.ones(n_cells)
    expression = rng.poisson(
        np.column_stack([level * np.where(is_t, 1.5, 1.0), *np.full((8, n_cells), 3.0)]) * depth[:, None]
    )
    obs = pd.DataFrame({"cell_type": np.where(is_t, "T", "B")}, index=[f"c{i}" for i in range(n_cells)])
    atac = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
    rna = ad.AnnData(expression.astype(np.float32), obs=obs[[]].copy())
    rna.var_names = ["CD4", "LAG3", "GAPDH", "ACTB", "B2M", "MYC", "TP53", "KRAS", "NOGENE"]
    atac.uns["planted"] = var.index[planted]
    return md.MuData({"atac": atac, "rna": rna})


@pytest.fixture(scope="module")
def mdata() -> md.MuData:
    return multiome()


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_link_is_first(seed: int) -> None:
    mdata = multiome(seed)
    sfa.tl.link_enhancers(mdata, genes="CD4", method="correlation")
    links = sfa.get.links(mdata, gene="CD4")
    assert len(links) == N_CANDIDATES
    assert links["ocr"][0] == mdata["atac"].uns["planted"]
    assert links["p"][0] == links["p"].min()
    assert links["q"][0] < 0.05
    assert links["probability"].isna().all()


def test_without_a_link_there_is_none() -> None:
    found = []
    for seed in range(20):
        mdata = multiome(seed, is_linked=False)
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
