from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scfound_atac.pp as pp

EASY = {"min_ocrs": 1, "max_ocrs": None, "min_cells": 1}


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    x = rng.poisson(0.5, (60, 40)).astype(np.float32)
    x[:, 0] = 0
    x[0] = 0
    labels = pd.Categorical.from_codes(rng.integers(-1, 2, 60), ["a", "b"])
    return AnnData(sparse.csr_matrix(x), obs=pd.DataFrame({"group": labels}, index=[f"c{i}" for i in range(60)]))


def test_filter_cells(adata):
    n = (adata.X.toarray() > 0).sum(1)
    result = pp.filter_cells(adata, min_ocrs=12, max_ocrs=18, copy=True)
    assert list(result.obs_names) == list(adata.obs_names[(n >= 12) & (n <= 18)])
    np.testing.assert_array_equal(result.obs["n_ocrs"], n[(n >= 12) & (n <= 18)])
    assert pp.filter_cells(adata, min_ocrs=12, max_ocrs=18) is None
    assert_equal(adata, result)


def test_filter_cells_refuses_to_drop_all(adata):
    before = adata.copy()
    with pytest.raises(ValueError, match=r"median is \d+.*sfa.pp.filter_cells\("):
        pp.filter_cells(adata)
    assert_equal(adata, before)


@pytest.mark.parametrize("groupby", [None, "group"])
def test_filter_ocrs(adata, groupby):
    is_open = adata.X.toarray() > 0
    if groupby:
        keep = np.any([is_open[adata.obs["group"] == g].mean(0) >= 0.45 for g in "ab"], axis=0)
    else:
        keep = is_open.sum(0) >= 22
    assert 0 < keep.sum() < 40
    result = pp.filter_ocrs(adata, min_cells=22, min_fraction=0.45, groupby=groupby, copy=True)
    assert list(result.var_names) == list(adata.var_names[keep])
    with pytest.raises(KeyError, match="nothing"):
        pp.filter_ocrs(adata, groupby="nothing")


@pytest.mark.parametrize("n_neighbors", [0, 3, 1000])
def test_aggregate_neighbors(adata, n_neighbors):
    pp.aggregate_neighbors(adata, n_neighbors=n_neighbors, n_components=5)
    pp.lsi(adata, n_components=5)
    space, x = adata.obsm["X_lsi"].astype(np.float64), adata.X.toarray()
    distance = np.linalg.norm(space[:, None] - space[None], axis=2)
    np.fill_diagonal(distance, -1)
    naive = np.stack([x[np.argsort(d)[: n_neighbors + 1]].sum(0) for d in distance])
    np.testing.assert_allclose(adata.layers["neighbor_sum"].toarray(), naive)
    assert sparse.issparse(adata.layers["neighbor_sum"])


def test_lsi_is_seeded(adata):
    a, b = (pp.lsi(adata, n_components=5, seed=1, copy=True).obsm["X_lsi"] for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert a.shape[1] <= 5
    assert not a[0].any()


def test_recipe(adata, tmp_path):
    before = adata.copy()
    result = pp.recipe_chromfound(adata, aggregate=3, copy=True, **EASY)
    assert_equal(adata, before)
    assert result.shape == (59, 39)
    np.testing.assert_array_equal(result.X.toarray(), adata[result.obs_names, result.var_names].X.toarray())
    values = result.layers["chromfound_input"]
    np.testing.assert_allclose(np.expm1(values.toarray()).sum(1), 1e4, rtol=1e-4)
    assert result.uns["recipe_chromfound"]["n_neighbors"] == 3
    result.write_h5ad(tmp_path / "a.h5ad")
    assert read_h5ad(tmp_path / "a.h5ad").uns["recipe_chromfound"]["target_sum"] == 1e4
    with pytest.raises(ValueError, match="already normalised"):
        pp.recipe_chromfound(result, layer="chromfound_input", **EASY)


def test_recipe_matches_scanpy(adata):
    sc = pytest.importorskip("scanpy")
    result = pp.recipe_chromfound(adata, aggregate=False, copy=True, **EASY)
    other = adata[result.obs_names, result.var_names].copy()
    sc.pp.normalize_total(other, target_sum=1e4)
    sc.pp.log1p(other)
    np.testing.assert_allclose(result.layers["chromfound_input"].toarray(), other.X.toarray(), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.5])
def test_recipe_leaves_adata_alone_on_error(adata, bad):
    adata.X.data[5] = bad
    before = adata.copy()
    with pytest.raises(ValueError, match=r"adata\.X"):
        pp.recipe_chromfound(adata, **EASY)
    assert_equal(adata, before)


def test_log1p_record_is_refused(adata):
    adata.uns["log1p"] = {}
    with pytest.raises(ValueError, match="already normalised"):
        pp.recipe_chromfound(adata, **EASY)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", [pp.filter_cells, pp.filter_ocrs, pp.recipe_chromfound])
def test_backed_is_refused(adata, function, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="to_memory"):
        function(read_h5ad(tmp_path / "a.h5ad", backed="r"))


@pytest.mark.filterwarnings("ignore")
def test_view_becomes_a_copy(adata):
    view = adata[5:40]
    pp.recipe_chromfound(view, aggregate=2, **EASY)
    assert "chromfound_input" in view.layers
    assert "chromfound_input" not in adata.layers


def test_one_and_no_cell(adata):
    one = adata[1:2].copy()
    pp.recipe_chromfound(one, **EASY)
    assert one.n_obs == 1
    with pytest.raises(ValueError, match="0 cells"):
        pp.recipe_chromfound(adata[:0].copy(), **EASY)
    with pytest.raises(ValueError, match="at least 2 cells"):
        pp.lsi(one)
