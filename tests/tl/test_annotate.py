"""`sfa.tl.annotate`: what it writes, on which objects, and that nothing is written on any error."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import scfound_atac as sfa

KEY = "cell_type"
COLUMNS = [f"{KEY}_{name}" for name in ("pred", "best", "confidence", "novelty")]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(sfa.settings, "progress_bar", False)


@pytest.fixture(scope="module")
def backbone(tiny_backbones):
    return tiny_backbones["epifoundation"]


@pytest.fixture(scope="module")
def reference(make_labelled):
    return make_labelled(160)


@pytest.fixture
def query(make_labelled):
    cells = make_labelled(60, seed=1)
    cells.obs = cells.obs.rename(columns={KEY: "truth"}).astype("category")
    return cells


def same(a: ad.AnnData, b: ad.AnnData, key: str = KEY) -> None:
    pd.testing.assert_series_equal(a.obs[f"{key}_pred"], b.obs[f"{key}_pred"])
    np.testing.assert_array_equal(a.obsm[f"{key}_probabilities"], b.obsm[f"{key}_probabilities"])


def test_writes_documented_fields_and_survives_h5ad(backbone, reference, query, tmp_path):
    before, labelled = query.copy(), reference.copy()
    assert sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone) is None
    assert_equal(reference, labelled)
    assert (query.obs[f"{KEY}_pred"].astype(str) == query.obs["truth"].astype(str)).mean() > 0.6
    assert isinstance(query.obs[f"{KEY}_pred"].dtype, pd.CategoricalDtype)
    assert query.obs[f"{KEY}_confidence"].between(0, 1).all()
    probabilities = query.obsm[f"{KEY}_probabilities"]
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (60, 4))
    record = query.uns[f"{KEY}_annotation"]
    assert record["labels"].tolist() == ["B", "Mono", "NK", "T"]
    assert record["params"]["mode"] == "probe"
    assert record["params"]["layer"] == "X"
    assert record["params"]["fraction_ocrs"] == 1
    assert 0 <= record["report"]["held_out_ece"] <= 1
    top = record["labels"][probabilities.argmax(axis=1)]
    known = query.obs[f"{KEY}_pred"] != "unknown"
    assert (top == query.obs[f"{KEY}_pred"].astype(str))[known].all()
    query.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    same(again, query)
    assert again.uns[f"{KEY}_annotation"]["params"] == record["params"]
    np.testing.assert_array_equal(
        again.uns[f"{KEY}_annotation"]["report"]["novelty_auroc"], record["report"]["novelty_auroc"]
    )
    query.obs = query.obs.drop(columns=COLUMNS)
    del query.obsm[f"{KEY}_probabilities"], query.uns[f"{KEY}_annotation"]
    assert_equal(query, before)


@pytest.mark.parametrize("labels_in", ["modality", "MuData"])
def test_mudata(backbone, reference, query, tmp_path, labels_in):
    plain = sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone, copy=True)
    atac = reference.copy()
    if labels_in == "MuData":
        atac.obs = atac.obs.drop(columns=KEY)
    other = ad.AnnData(np.ones((160, 3), np.float32), obs=pd.DataFrame(index=reference.obs_names[::-1]))
    labelled = md.MuData({"rna": other, "atac": atac})
    if labels_in == "MuData":
        labelled.obs[KEY] = reference.obs[KEY].reindex(labelled.obs_names)
    mdata = md.MuData({"atac": query})
    sfa.tl.annotate(mdata, reference=labelled, labels_key=KEY, model=backbone)
    same(mdata["atac"], plain)
    mdata.write_h5mu(tmp_path / "a.h5mu")
    same(md.read_h5mu(tmp_path / "a.h5mu")["atac"], plain)


def test_labelled_cells_of_the_object_itself(backbone, reference):
    adata = reference.copy()
    truth = adata.obs[KEY].copy()
    adata.obs[KEY] = truth.where(np.arange(160) % 2 == 0)
    sfa.tl.annotate(adata, labels_key=KEY, model=backbone)
    right = adata.obsm[f"{KEY}_probabilities"].argmax(axis=1) == truth.astype("category").cat.codes
    assert right[1::2].mean() > 0.85
    assert adata.uns[f"{KEY}_annotation"]["report"]["n_left_out"] == 80
    assert adata.obs[KEY].isna().sum() == 80  # labels that were given are as they were


def test_copy_view_layer_and_key(backbone, reference, query):
    before = query.copy()
    plain = sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone, copy=True)
    assert_equal(query, before)
    view = query[10:40]
    with pytest.warns(ad.ImplicitModificationWarning):
        sfa.tl.annotate(view, reference=reference, labels_key=KEY, model=backbone)
    np.testing.assert_allclose(view.obsm[f"{KEY}_probabilities"], plain.obsm[f"{KEY}_probabilities"][10:40], atol=1e-5)
    query.layers["counts"], query.X = query.X, query.X * 0.4
    labelled = reference.copy()
    labelled.layers["raw"], labelled.X = reference.X, reference.X * 0.4
    sfa.tl.annotate(
        query,
        reference=labelled,
        labels_key=KEY,
        model=backbone,
        layer="counts",
        reference_layer="raw",
        key_added="mine",
    )
    np.testing.assert_array_equal(query.obsm["mine_probabilities"], plain.obsm[f"{KEY}_probabilities"])
    assert query.uns["mine_annotation"]["params"]["layer"] == "counts"
    assert not any(name.startswith(KEY) for name in query.obs)


def test_labels_key_with_a_slash_needs_another_name(backbone, reference, query, tmp_path):
    labelled = reference.copy()
    labelled.obs["type/1"] = [f"{name}/x" for name in reference.obs[KEY]]
    with pytest.raises(ValueError, match="'type/1' cannot be stored"):
        sfa.tl.annotate(query, reference=labelled, labels_key="type/1", model=backbone)
    sfa.tl.annotate(query, reference=labelled, labels_key="type/1", model=backbone, key_added="type")
    query.write_h5ad(tmp_path / "a.h5ad")
    assert set(ad.read_h5ad(tmp_path / "a.h5ad").obs["type_pred"].cat.categories) == {
        "B/x",
        "Mono/x",
        "NK/x",
        "T/x",
        "unknown",
    }


def test_trained_annotator_and_its_folder(backbone, reference, query, tmp_path):
    plain = sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone, copy=True)
    annotator = sfa.model.CellAnnotator(backbone).train(reference, KEY, query=query)
    folder = annotator.save(tmp_path / "mine")
    for trained in (annotator, folder, str(folder)):
        same(sfa.tl.annotate(query, annotator=trained, copy=True), plain)
    renamed = sfa.tl.annotate(query, annotator=folder, key_added="x", copy=True)
    assert renamed.uns["x_annotation"]["params"]["labels_key"] == KEY


@pytest.mark.parametrize("mode", ["finetune", "paper"])
def test_modes_and_their_options(backbone, reference, query, mode):
    sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone, mode=mode, max_epochs=1)
    assert query.uns[f"{KEY}_annotation"]["params"]["mode"] == mode
    assert "history" not in query.uns[f"{KEY}_annotation"]["report"]


def test_backed_query(backbone, reference, query, tmp_path):
    plain = sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone, copy=True)
    query.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match="backed AnnData cannot be copied"):
        sfa.tl.annotate(backed, reference=reference, labels_key=KEY, model=backbone, copy=True)
    sfa.tl.annotate(backed, reference=reference, labels_key=KEY, model=backbone)
    same(backed, plain)


def test_empty_cells_and_all_unknown(backbone, reference, query, tmp_path):
    query.X = query.X * 0
    sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone)
    assert (query.obs[f"{KEY}_pred"] == "unknown").all()
    assert query.obs[f"{KEY}_confidence"].isna().all()
    query.write_h5ad(tmp_path / "a.h5ad")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, ValueError, "Pass reference= and labels_key=, or a trained annotator="),
        ({"labels_key": "type"}, KeyError, "no column 'type'"),
        ({"labels_key": KEY, "annotator": "x"}, ValueError, "Pass reference= and labels_key=, or a trained annotator="),
        ({"annotator": "no such folder"}, ValueError, "leave out reference= and options of training"),
        ({"labels_key": KEY, "layer": "none"}, KeyError, "none"),
        ({"labels_key": KEY, "reference_layer": "none"}, KeyError, "none"),
        ({"labels_key": KEY, "mode": "paper"}, ValueError, "no head from a paper"),
        ({"labels_key": KEY, "mode": "guess"}, ValueError, "mode='guess'"),
        ({"labels_key": KEY, "max_epochs": 3}, TypeError, "has no option max_epochs"),
        ({"labels_key": KEY, "genome": "hg19"}, ValueError, "hg19"),
        ({"labels_key": KEY, "key_added": "a/b"}, ValueError, "cannot be stored"),
        ({"labels_key": KEY, "model": "biosample-mix"}, ValueError, "cannot be a backbone"),
        ({"labels_key": KEY, "model": "no such model"}, KeyError, "no such model"),
    ],
)
def test_errors_leave_the_cells_as_they_were(tiny_backbones, reference, query, options, error, says):
    before = query.copy()
    with pytest.raises(error, match=says):
        sfa.tl.annotate(query, reference=reference, **({"model": tiny_backbones["region-set"]} | options))
    assert_equal(query, before)


def test_unreadable_query_is_told_before_anything_is_trained(backbone, reference, query, monkeypatch):
    monkeypatch.setattr(sfa.model.CellAnnotator, "train", lambda *args, **kwargs: pytest.fail("trained"))
    query.X = query.X * 0.3
    before = query.copy()
    with pytest.raises(ValueError, match="not whole numbers"):
        sfa.tl.annotate(query, reference=reference, labels_key=KEY, model=backbone)
    assert_equal(query, before)


def test_no_folder_of_an_annotator(query, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no saved CellAnnotator"):
        sfa.tl.annotate(query, annotator=tmp_path)


def test_annotator_of_the_package():
    atac = sfa.datasets.pbmc_multiome_sample()["atac"]
    query = atac[:400].copy()
    truth = query.obs.pop(KEY).astype(str)
    sfa.tl.annotate(query, annotator="bone-marrow")
    best = query.obs[f"{KEY}_best"].astype(str)
    assert not any(name[0].isdigit() for name in query.uns[f"{KEY}_annotation"]["labels"])
    assert (
        best[truth.str.contains("Mono").to_numpy()].isin(["CD14 monocyte", "granulocyte-monocyte progenitor"]).mean()
        > 0.6
    )
    assert (best[truth.str.contains("naive B|memory B").to_numpy()] == "B cell").mean() > 0.8
    one = atac[[0]].copy()
    sfa.tl.annotate(one, annotator="bone-marrow")
    assert np.isfinite(one.obs[f"{KEY}_novelty"]).all()


def test_annotator_of_the_package_is_no_network(query):
    assert sfa.hub.list_models().loc["bone-marrow", "model_class"] == "CellAnnotator"
    with pytest.raises(ValueError, match=r"'bone-marrow' is a trained annotator.*annotator='bone-marrow'"):
        sfa.tl.embed(query, model="bone-marrow")
    assert sum(path.stat().st_size for path in sfa.hub.fetch("bone-marrow").iterdir()) < 1e6
