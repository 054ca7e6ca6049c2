from __future__ import annotations

import logging

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scfound_atac as sfa


@pytest.fixture
def mdata(make_labelled) -> md.MuData:
    """Cells of four types with an embedding, and counts of genes in another order of cells."""
    atac = make_labelled(120)
    rng = np.random.default_rng(0)
    kind = pd.factorize(atac.obs["cell_type"], sort=True)[0]
    atac.obsm["X_sfa"] = (np.eye(4)[kind] + rng.normal(scale=0.2, size=(120, 4))).astype(np.float32)
    rate = np.where(np.arange(60)[None] % 4 == kind[:, None], 3.0, 0.5)
    rna = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=pd.DataFrame(index=atac.obs_names))
    rna.var_names = [f"G{i}" for i in range(60)]
    return md.MuData({"atac": atac, "rna": rna[rng.permutation(120)].copy()})


def test_what_is_written(mdata: md.MuData, caplog: pytest.LogCaptureFixture) -> None:
    before = mdata.copy()
    with caplog.at_level(logging.INFO, logger="scfound_atac"):
        assert sfa.tl.embed_joint(mdata) is None
    found = mdata.obsm["X_sfa_joint"]
    assert found.dtype == np.float32
    assert found.shape == (120, 50)
    record = mdata.uns["sfa_joint"]
    assert record["params"]["use_rep"] == "X_sfa"
    assert record["params"]["rna_rep"] == "computed"
    assert sum(record["weights"].values()) == pytest.approx(1)
    assert record["n_paired"] == 120
    assert "120 cells with both modalities, 0 with one" in caplog.text
    for name in ("atac", "rna"):
        assert_equal(mdata[name], before[name], exact=True)
    assert list(mdata.obs) == list(before.obs)
    assert set(mdata.obsm) - set(before.obsm) == {"X_sfa_joint"}


def test_rows_are_those_of_the_mudata_whatever_the_order_of_cells(mdata: md.MuData) -> None:
    sfa.tl.embed_joint(mdata)
    same = md.MuData({"rna": mdata["rna"], "atac": mdata["atac"][::-1].copy()})
    sfa.tl.embed_joint(same)
    one, other = (pd.DataFrame(x.obsm["X_sfa_joint"], x.obs_names) for x in (mdata, same))
    np.testing.assert_allclose(one.loc[other.index], other, atol=1e-3)


def test_expression_is_prepared_by_scanpy(mdata: md.MuData) -> None:
    import scanpy as sc

    sfa.tl.embed_joint(mdata)
    rna = mdata["rna"]
    own = rna.copy()
    sc.pp.normalize_total(own, target_sum=1e4)
    sc.pp.log1p(own)
    rna.layers["log"] = own.X.copy()
    sc.pp.pca(own, n_comps=50)
    rna.obsm["X_pca"] = own.obsm["X_pca"]
    for options in ({"rna_rep": "X_pca"}, {"rna_layer": "log"}):
        sfa.tl.embed_joint(mdata, key_added="X_other", **options)
        np.testing.assert_allclose(mdata.obsm["X_other"], mdata.obsm["X_sfa_joint"], atol=1e-4)


def test_most_variable_genes(mdata: md.MuData) -> None:
    rng = np.random.default_rng(0)
    wide = sparse.csr_matrix(rng.poisson(0.3, (120, 2500)).astype(np.float32))
    both = md.MuData({"atac": mdata["atac"], "rna": AnnData(wide, obs=pd.DataFrame(index=mdata["atac"].obs_names))})
    sfa.tl.embed_joint(both)
    assert both.obsm["X_sfa_joint"].shape == (120, 50)
    both["rna"].X = (wide.toarray() - 1).astype(np.float32)  # scaled values
    sfa.tl.embed_joint(both)


def test_cells_with_one_modality(mdata: md.MuData) -> None:
    kind = mdata["atac"].obs["cell_type"]
    some = md.MuData({"atac": mdata["atac"][:100].copy(), "rna": mdata["rna"][mdata["atac"].obs_names[20:]].copy()})
    sfa.tl.embed_joint(some)
    found = pd.DataFrame(some.obsm["X_sfa_joint"], some.obs_names)
    assert found.shape[0] == 120
    assert some.uns["sfa_joint"]["n_paired"] == 80
    paired = some["atac"].obs_names.intersection(some["rna"].obs_names)
    means = found.loc[paired].groupby(kind.reindex(paired).to_numpy()).mean()
    alone = found.drop(index=paired)
    nearest = means.index[np.linalg.norm(alone.to_numpy()[:, None] - means.to_numpy()[None], axis=-1).argmin(axis=1)]
    assert (nearest == kind.reindex(alone.index)).mean() > 0.9


def test_seed_copy_view_and_file(mdata: md.MuData, tmp_path) -> None:
    done = sfa.tl.embed_joint(mdata, n_components=3, n_fit_cells=60, seed=1, copy=True)
    assert "X_sfa_joint" not in mdata.obsm
    assert done.obsm["X_sfa_joint"].shape == (120, 3)
    for seed, is_same in ((1, True), (2, False)):
        again = sfa.tl.embed_joint(mdata, n_components=3, n_fit_cells=60, seed=seed, copy=True)
        assert np.array_equal(again.obsm["X_sfa_joint"], done.obsm["X_sfa_joint"]) == is_same
    view = mdata[:80]
    with pytest.raises(ValueError, match="call mdata = mdata.copy"):
        sfa.tl.embed_joint(view)
    assert sfa.tl.embed_joint(view, copy=True).obsm["X_sfa_joint"].shape == (80, 50)
    done.write(tmp_path / "joint.h5mu")
    assert md.read_h5mu(tmp_path / "joint.h5mu").uns["sfa_joint"]["n_paired"] == 120


@pytest.mark.parametrize("value", [["a"], pd.DataFrame(), 1.5], ids=["list", "table", "fraction"])
@pytest.mark.parametrize(
    "argument",
    [
        "use_rep",
        "rna_rep",
        "rna_layer",
        "modality",
        "rna_modality",
        "n_components",
        "n_fit_cells",
        "seed",
        "key_added",
        "copy",
    ],
)
def test_argument_of_a_wrong_type(mdata: md.MuData, argument: str, value) -> None:
    with pytest.raises(TypeError, match=rf"{argument}="):
        sfa.tl.embed_joint(mdata, **{argument: value})
    assert "X_sfa_joint" not in mdata.obsm


def test_faults(mdata: md.MuData) -> None:
    before = mdata.copy()
    with pytest.raises(TypeError, match="Expected MuData with both modalities as mdata"):
        sfa.tl.embed_joint(mdata["atac"])
    with pytest.raises(
        KeyError, match=r'mdata\["atac"\] has no obsm\[\'X_no\'\] \(use_rep=\): run sfa.tl.embed\(mdata\) first'
    ):
        sfa.tl.embed_joint(mdata, use_rep="X_no")
    with pytest.raises(KeyError, match=r"rna_rep=\): run scanpy.pp.pca"):
        sfa.tl.embed_joint(mdata, rna_rep="X_pca")
    with pytest.raises(KeyError, match="no modality 'genes'"):
        sfa.tl.embed_joint(mdata, rna_modality="genes")
    with pytest.raises(KeyError, match="no layer 'log'"):
        sfa.tl.embed_joint(mdata, rna_layer="log")
    with pytest.raises(ValueError, match="key_added='rna' is a modality"):
        sfa.tl.embed_joint(mdata, key_added="rna")
    with pytest.raises(ValueError, match="n_components=0 must be at least 1"):
        sfa.tl.embed_joint(mdata, n_components=0)
    with pytest.raises(TypeError, match="rna_rep= takes a key"):
        sfa.tl.embed_joint(mdata, rna_rep=3)
    mdata.obsm["mine"] = np.zeros((120, 2))
    with pytest.raises(ValueError, match=r"mdata\.obsm\['mine'\] is there already"):
        sfa.tl.embed_joint(mdata, key_added="mine")
    del mdata.obsm["mine"]
    for name in ("atac", "rna"):
        assert_equal(mdata[name], before[name], exact=True)
    mdata["atac"].obsm["X_sfa"][3, 1] = np.nan
    with pytest.raises(ValueError, match="must be a table of finite numbers"):
        sfa.tl.embed_joint(mdata)
    mdata["atac"].obsm["X_sfa"][3, 1] = 0
    mdata["rna"].X.data[5] = np.inf
    with pytest.raises(ValueError, match=r'mdata\["rna"\] holds NaN or infinite values'):
        sfa.tl.embed_joint(mdata)
    mdata["rna"].X.data[5] = 1
    few = md.MuData({"atac": mdata["atac"][:3].copy(), "rna": mdata["rna"]})
    with pytest.raises(ValueError, match="3 cells have both modalities"):
        sfa.tl.embed_joint(few)
    assert "X_sfa_joint" not in mdata.obsm
    assert "sfa_joint" not in mdata.uns
