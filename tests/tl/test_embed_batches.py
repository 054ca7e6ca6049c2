from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from sklearn.neighbors import NearestNeighbors

import scfound_atac as sfa


@pytest.fixture(scope="module")
def whole() -> AnnData:
    """Cells of the package; in the second batch reads of each OCR are lost at a rate of its own."""
    sfa.settings.progress_bar = False
    adata = sfa.datasets.pbmc_multiome_sample()["atac"][:1200].copy()
    rng = np.random.default_rng(0)
    adata.obs["batch"] = np.where(np.arange(adata.n_obs) % 2, "b", "a")
    kept = rng.uniform(0.1, 1, adata.n_vars)
    counts = adata.X.tocsr().astype(int)
    second = np.repeat(adata.obs["batch"].to_numpy() == "b", np.diff(counts.indptr))
    counts.data[second] = rng.binomial(counts.data[second], kept[counts.indices[second]])
    counts.eliminate_zeros()
    adata.X = counts.astype(np.float32)
    return adata[np.diff(counts.indptr) > 0].copy()


@pytest.fixture
def cells(whole) -> AnnData:
    return whole.copy()


def neighbours_of_the_other_batch(vectors: np.ndarray, batches: pd.Series) -> float:
    """Fraction of the 30 nearest cells that are of the other batch; a half if batches are mixed."""
    batch = batches.to_numpy()
    found = NearestNeighbors(n_neighbors=31).fit(vectors).kneighbors(vectors, return_distance=False)[:, 1:]
    return float((batch[found] != batch[:, None]).mean())


def test_batches_are_mixed_and_types_kept(cells: AnnData) -> None:
    sfa.tl.embed(cells)
    plain = cells.obsm["X_sfa"].copy()
    sfa.tl.embed(cells, batch_key="batch")
    corrected = cells.obsm["X_sfa"]
    assert corrected.shape == plain.shape
    before, after = (neighbours_of_the_other_batch(x, cells.obs["batch"]) for x in (plain, corrected))
    assert after > before + 0.05
    assert after > 0.4
    labels = cells.obs["cell_type"]
    assert sfa.bench.knn_accuracy(corrected, labels)[0] > sfa.bench.knn_accuracy(plain, labels)[0] - 0.02
    assert cells.uns["sfa"]["params"]["batch_key"] == "batch"
    assert list(cells.uns["sfa"]["batches"]) == ["a", "b"]


def test_same_seed_mudata_and_file(cells: AnnData, tmp_path) -> None:
    sfa.tl.embed(cells, batch_key="batch")
    mdata = md.MuData({"atac": cells.copy()})
    del mdata["atac"].obsm["X_sfa"]
    mdata.obs["batch"] = cells.obs["batch"]
    del mdata["atac"].obs["batch"]
    sfa.tl.embed(mdata, batch_key="batch")
    np.testing.assert_array_equal(mdata["atac"].obsm["X_sfa"], cells.obsm["X_sfa"])
    cells.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    query = cells[:50].copy()
    sfa.tl.embed(query, batch_key="batch", basis=again)
    assert query.obsm["X_sfa"].shape == (50, cells.obsm["X_sfa"].shape[1])
    # on the same axes, without the average over neighbours
    near = (
        NearestNeighbors(n_neighbors=300)
        .fit(cells.obsm["X_sfa"])
        .kneighbors(query.obsm["X_sfa"], return_distance=False)
    )
    assert np.mean([i in found for i, found in enumerate(near)]) > 0.8
    query.obs["new"] = ["c"] * 25 + ["a"] * 25
    with pytest.raises(ValueError, match=r"with the batches \['a', 'b'\], and adata has the batches \['c'\]"):
        sfa.tl.embed(query, batch_key="new", basis=again)


def test_one_batch_is_the_plain_embedding(cells: AnnData, caplog) -> None:
    sfa.tl.embed(cells)
    plain = cells.obsm["X_sfa"].copy()
    cells.obs["one"] = "x"
    with caplog.at_level("WARNING", logger="scfound_atac"):
        sfa.tl.embed(cells, batch_key="one")
    assert "names one batch only" in caplog.text
    np.testing.assert_array_equal(cells.obsm["X_sfa"], plain)


def test_odd_batches(cells: AnnData) -> None:
    """A batch of one cell, and one of a single type."""
    batch = cells.obs["batch"].to_numpy(dtype=object)
    batch[0] = "alone"
    is_type = (cells.obs["cell_type"] == cells.obs["cell_type"].value_counts().index[0]).to_numpy()
    batch[is_type & (np.arange(cells.n_obs) % 4 == 1)] = "one type"
    cells.obs["odd"] = batch
    sfa.tl.embed(cells, batch_key="odd")
    assert np.isfinite(cells.obsm["X_sfa"]).all()
    labels = cells.obs["cell_type"]
    corrected = sfa.bench.knn_accuracy(cells.obsm["X_sfa"], labels)[0]
    sfa.tl.embed(cells)
    assert corrected > sfa.bench.knn_accuracy(cells.obsm["X_sfa"], labels)[0] - 0.03


def test_errors_leave_cells_as_they_were(cells: AnnData) -> None:
    cells.obs["gaps"] = cells.obs["batch"].astype(object)
    cells.obs.iloc[3, -1] = np.nan
    cells.obs["names"] = cells.obs_names
    before = cells.copy()
    with pytest.raises(ValueError, match=r"adata\.obs\['gaps'\] names no batch for 1 of"):
        sfa.tl.embed(cells, batch_key="gaps")
    with pytest.raises(ValueError, match="another batch for every cell"):
        sfa.tl.embed(cells, batch_key="names")
    with pytest.raises(KeyError, match="'nothing'"):
        sfa.tl.embed(cells, batch_key="nothing")
    with pytest.raises(TypeError, match="batch_key= takes one name"):
        sfa.tl.embed(cells, batch_key=["batch"])
    with pytest.raises(ValueError, match="has no option batch_key='batch'"):
        sfa.tl.embed(cells, batch_key="batch", model="biosample-prior")
    with pytest.raises(ValueError, match="has no option batch_key='batch'"):
        sfa.tl.embed(cells, batch_key="batch", pooling="reconstruction")
    assert_equal(cells, before, exact=True)
