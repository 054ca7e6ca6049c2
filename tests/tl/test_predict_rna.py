"""`sfa.tl.predict_rna`: what it writes and where, what it leaves alone, and what bad input says."""

from __future__ import annotations

import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import scfound_atac as sfa

KEY = "rna_predicted"


def paired(atac: ad.AnnData, rna: ad.AnnData) -> md.MuData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return md.MuData({"atac": atac, "rna": rna})


@pytest.fixture(scope="module")
def sample() -> md.MuData:
    """Of the bundled cells, to be read only."""
    return sfa.datasets.pbmc_multiome_sample()[:300].copy()


@pytest.fixture
def mdata(sample) -> md.MuData:
    return paired(sample["atac"].copy(), sample["rna"].copy())


@pytest.fixture(scope="module")
def predictor(sample) -> sfa.model.RNAPredictor:
    return sfa.model.RNAPredictor().train(sample, max_epochs=8, device="cpu")


def predict(data, **kwargs):
    return sfa.tl.predict_rna(data, **({"device": "cpu"} | kwargs))


def assert_unchanged(data, before) -> None:
    if isinstance(data, ad.AnnData):
        assert_equal(data, before)
        return
    assert list(data.mod) == list(before.mod)
    for name in data.mod:
        assert_equal(data[name], before[name])
    assert list(data.obs) == list(before.obs)
    assert dict(data.uns) == dict(before.uns)


# ---------------------------------------------------------------- what is written


def test_mudata_gets_a_modality_that_survives_a_file(mdata, tmp_path):
    before = mdata.copy()
    assert predict(mdata, max_epochs=15) is None
    added = mdata[KEY]
    assert list(mdata.mod) == ["atac", "rna", KEY]
    assert added.X.dtype == np.float32
    assert list(added.var_names) == list(mdata["rna"].var_names)  # the same symbols as in the measured modality
    assert list(added.obs_names) == list(mdata["atac"].obs_names)
    assert set(added.var) == {"pearson", "spearman", "ccc", "mse"}
    record = added.uns[KEY]
    assert record["params"] == {
        "model": "region-set",
        "weights_sha256": sfa.hub.load("region-set").sha256,
        "head": record["params"]["head"],
        "layer": "X",
        "seed": 0,
        "version": sfa.__version__,
    }
    assert record["report"]["n_cells_train"] == 240
    assert record["report"]["scale"] == "as it is"
    assert record["report"]["gene_pearson"] == pytest.approx(added.var["pearson"].mean())
    assert record["report"]["gene_pearson"] > 0.5
    for name in before.mod:
        assert_equal(mdata[name], before[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata.write_h5mu(tmp_path / "a.h5mu")
        again = md.read_h5mu(tmp_path / "a.h5mu")
    assert_equal(again[KEY].X, added.X)
    pd.testing.assert_frame_equal(again[KEY].var, added.var)
    assert again[KEY].uns[KEY]["params"] == record["params"]
    assert again[KEY].uns[KEY]["report"] == record["report"]
    assert again.shape == mdata.shape
    predict(again, max_epochs=15)  # what was read can be written again
    np.testing.assert_allclose(again[KEY].X, added.X, atol=1e-5)


def test_anndata_gets_a_frame_that_survives_a_file(sample, predictor, tmp_path):
    adata = sample["atac"].copy()
    before = adata.copy()
    predict(adata, predictor=predictor)
    told = adata.obsm[KEY]
    pd.testing.assert_frame_equal(told, predictor.predict(adata))
    assert list(adata.uns[KEY]["genes"].index) == list(told.columns)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(again.obsm[KEY], told, check_names=False)
    pd.testing.assert_frame_equal(again.uns[KEY]["genes"], adata.uns[KEY]["genes"], check_names=False)
    assert again.uns[KEY]["report"] == adata.uns[KEY]["report"]
    del adata.obsm[KEY], adata.uns[KEY]
    assert_equal(adata, before)


def test_with_a_reference(sample, mdata):
    query = sample["atac"][200:].copy()
    reference = paired(sample["atac"][:200].copy(), sample["rna"][:200].copy())
    was = reference.copy()
    genes = list(sample["rna"].var_names[5:10])
    predict(query, reference=reference, genes=genes, max_epochs=15)
    assert_unchanged(reference, was)
    assert list(query.obsm[KEY].columns) == genes
    truth = sample["rna"][200:, query.obsm[KEY].columns].to_df()
    assert sfa.bench.expression_scores(truth, query.obsm[KEY])["gene_pearson"] > 0.4


def test_cells_without_expression_are_predicted(sample):
    part = paired(sample["atac"].copy(), sample["rna"][:200].copy())
    predict(part, max_epochs=15)
    assert part[KEY].n_obs == 300
    assert part[KEY].uns[KEY]["report"]["n_cells_train"] == 160
    truth = sample["rna"][200:].to_df()
    assert sfa.bench.expression_scores(truth, part[KEY][200:].to_df())["gene_pearson"] > 0.4


def test_twice_with_other_genes(mdata, predictor, tmp_path):
    predict(mdata, predictor=predictor)
    first = mdata[KEY].X.copy()
    predict(mdata, predictor=predictor)
    np.testing.assert_array_equal(mdata[KEY].X, first)
    n_vars = mdata.n_vars
    predict(mdata, predictor=predictor, genes=predictor.genes[3:1:-1])
    assert list(mdata[KEY].var_names) == predictor.genes[3:1:-1]
    assert mdata.n_vars == n_vars - len(predictor.genes) + 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata.write_h5mu(tmp_path / "a.h5mu")
        assert md.read_h5mu(tmp_path / "a.h5mu").shape == mdata.shape
    predict(mdata, predictor=predictor, key_added="again")
    assert list(mdata.mod) == ["atac", "rna", KEY, "again"]


def test_copy(mdata, sample, predictor):
    before = mdata.copy()
    other = predict(mdata, predictor=predictor, copy=True)
    assert_unchanged(mdata, before)
    assert KEY in other.mod
    adata = sample["atac"].copy()
    with_frame = predict(adata, predictor=predictor, copy=True)
    assert KEY in with_frame.obsm
    assert KEY not in adata.obsm


def test_folder_modality_and_layer(mdata, sample, predictor, tmp_path):
    folder = predictor.save(tmp_path / "model")
    predict(mdata, predictor=folder)
    adata = sample["atac"].copy()
    adata.layers["counts"], adata.X = adata.X, adata.X * 0
    other = md.MuData({"peaks": adata})
    predict(other, predictor=str(folder), modality="peaks", layer="counts")
    np.testing.assert_array_equal(other[KEY].X, mdata[KEY].X)
    assert other[KEY].uns[KEY]["params"]["layer"] == "counts"


def test_query_with_one_cell_and_with_repeated_names(sample, predictor):
    one = sample["atac"][3].copy()
    predict(one, predictor=predictor)
    every = predictor.predict(sample)
    np.testing.assert_allclose(one.obsm[KEY], every.iloc[[3]], atol=1e-4)
    cells = sample["atac"][[3, 3, 4]].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.obs_names = ["a", "a", "b"]
        predict(cells, predictor=predictor)
    np.testing.assert_allclose(cells.obsm[KEY], every.iloc[[3, 3, 4]], atol=1e-4)


def test_view_of_an_anndata(sample, predictor):
    cells = sample["atac"].copy()
    some = cells[:20]
    with pytest.warns(ad.ImplicitModificationWarning):
        predict(some, predictor=predictor)
    assert some.obsm[KEY].shape[0] == 20
    assert KEY not in cells.obsm


def test_view_of_a_mudata(mdata, predictor):
    some = mdata[:20]
    with pytest.raises(ValueError, match=r"is a view.*copy"):
        predict(some, predictor=predictor)
    assert list(some.mod) == ["atac", "rna"]
    assert predict(some, predictor=predictor, copy=True)[KEY].n_obs == 20
    assert KEY not in mdata.mod


def test_gene_with_a_slash(mdata, tmp_path):
    names = [f"{name}/x" if i == 0 else name for i, name in enumerate(mdata["rna"].var_names)]
    rna = mdata["rna"].copy()
    rna.var_names = names
    mdata = paired(mdata["atac"].copy(), rna)
    adata = mdata["atac"].copy()
    before = adata.copy()
    with pytest.raises(ValueError, match="/x' cannot be a column of a frame in an h5ad file"):
        predict(adata, reference=mdata, max_epochs=1)
    assert_unchanged(adata, before)
    predict(mdata, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata.write_h5mu(tmp_path / "a.h5mu")
        assert list(md.read_h5mu(tmp_path / "a.h5mu")[KEY].var_names) == names


# ---------------------------------------------------------------- errors, which leave data as they were


def spoiled(mdata: md.MuData, how: str) -> md.MuData:
    atac, rna = mdata["atac"].copy(), mdata["rna"].copy()
    if how == "unpaired":
        rna.obs_names = [f"other_{name}" for name in rna.obs_names]
    elif how == "nan":
        rna.X = rna.X.toarray() if hasattr(rna.X, "toarray") else rna.X
        rna.X[0, 0] = np.nan
    elif how == "genes":
        rna.var_names = [rna.var_names[1], *rna.var_names[1:]]
    elif how == "cells":
        atac.obs_names = [atac.obs_names[1], *atac.obs_names[1:]]
    elif how == "normalised":
        atac.X = atac.X * 0.3
    return paired(atac, rna)


@pytest.mark.parametrize(
    ("how", "kwargs", "error", "message"),
    [
        ("", {"genes": ["NOWHERE"]}, KeyError, "NOWHERE"),
        ("", {"split_key": "donor"}, KeyError, "no column 'donor'"),
        ("", {"layer": "counts"}, KeyError, "no layer .*counts"),
        ("", {"rna_layer": "counts"}, KeyError, "no layer .*counts"),
        ("", {"rna_modality": "gex"}, KeyError, "no modality 'gex'"),
        ("", {"modality": "peaks"}, KeyError, "no modality 'peaks'"),
        ("", {"key_added": "rna"}, ValueError, "modality 'rna' that is not a prediction"),
        ("", {"key_added": "a/b"}, ValueError, "a/b"),
        ("", {"head": "linear"}, ValueError, "head='linear'"),
        ("", {"model": "biosample-mix"}, ValueError, "cannot be a backbone"),
        ("", {"binned": True}, ValueError, "negative"),
        ("", {"max_epochs": 0}, ValueError, "at least 1"),
        ("", {"reference": 3}, TypeError, "int"),
        ("unpaired", {}, ValueError, "No cell has both modalities"),
        ("nan", {}, ValueError, "NaN or infinite"),
        ("genes", {}, ValueError, "1 genes of modality 'rna' repeat"),
        ("cells", {}, ValueError, "1 cells with accessibility repeat"),
        ("normalised", {}, ValueError, "not whole numbers"),
    ],
)
def test_errors(mdata, how, kwargs, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = spoiled(mdata, how)
        before = {name: table.copy() for name, table in mdata.mod.items()}
    with pytest.raises(error, match=message):
        predict(mdata, **kwargs)
    assert list(mdata.mod) == list(before)
    for name, was in before.items():
        assert_equal(mdata[name].obs, was.obs)
        assert_equal(mdata[name].X, was.X)


def test_needs_something_to_learn_from(sample, predictor):
    adata = sample["atac"].copy()
    with pytest.raises(ValueError, match="no expression to learn from"):
        predict(adata)
    with pytest.raises(ValueError, match="leave out reference="):
        predict(adata, reference=sample, predictor=predictor)
    with pytest.raises(KeyError, match="not trained on"):
        predict(adata, predictor=predictor, genes=["NOWHERE"])
    assert KEY not in adata.obsm


def test_names_of_genes_can_have_a_suffix() -> None:
    mdata = sfa.datasets.pbmc_multiome_sample()[:200].copy()
    predictor = sfa.model.RNAPredictor(head="mlp").train(mdata, max_epochs=1)
    sfa.tl.predict_rna(mdata, predictor=predictor, genes=["CCL4", "MS4A1"], gene_suffix="_predicted")
    assert mdata["rna_predicted"].var_names.tolist() == ["CCL4_predicted", "MS4A1_predicted"]
    assert mdata["rna_predicted"].var["gene"].tolist() == ["CCL4", "MS4A1"]
    assert not mdata.var_names.duplicated().any()
    with pytest.raises(ValueError, match="gene_suffix='_x'"):
        sfa.tl.predict_rna(mdata["atac"].copy(), predictor=predictor, gene_suffix="_x")
