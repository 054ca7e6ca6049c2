from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from scipy import sparse
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
    table = cells.uns["sfa"]["batches"]
    assert list(table.index) == ["a", "b"]
    assert table["n_cells"].to_dict() == cells.obs["batch"].value_counts().to_dict()
    assert (table["fraction_shared"] == 1).all()
    assert "n_shared_regions" not in cells.uns["sfa"]["params"]


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
    near = (
        NearestNeighbors(n_neighbors=300)
        .fit(cells.obsm["X_sfa"])
        .kneighbors(query.obsm["X_sfa"], return_distance=False)
    )
    assert np.mean([i in found for i, found in enumerate(near)]) > 0.8


def test_a_new_batch_is_brought_to_the_basis(cells: AnnData) -> None:
    """Labels of the basis suit the query better than without its batch; the basis is one batch or several."""
    basis, query = (cells[(cells.obs["batch"] == b).to_numpy()].copy() for b in "ab")
    query.obs["new"] = "c"
    for key in (None, "half"):
        basis.obs["half"] = np.where(np.arange(basis.n_obs) % 3 == 0, "x", "y")
        sfa.tl.embed(basis, batch_key=key)
        before = basis.copy()
        accuracy, mixing = [], []
        for batch_key in (None, "new"):
            sfa.tl.embed(query, basis=basis, batch_key=batch_key)
            vectors = np.concatenate([basis.obsm["X_sfa"], query.obsm["X_sfa"]])
            near = NearestNeighbors(n_neighbors=5).fit(basis.obsm["X_sfa"]).kneighbors(query.obsm["X_sfa"])[1]
            labels = basis.obs["cell_type"].to_numpy(dtype=str)[near]
            accuracy.append((labels == query.obs["cell_type"].to_numpy(dtype=str)[:, None]).mean())
            origin = pd.Series(["a"] * basis.n_obs + ["b"] * query.n_obs)
            mixing.append(neighbours_of_the_other_batch(vectors, origin))
        assert accuracy[1] > accuracy[0]
        assert mixing[1] > mixing[0] - 0.02
        assert_equal(basis, before, exact=True)
    assert "batch_factors" in basis.uns["sfa"]
    del basis.obsm["X_sfa"]
    sfa.tl.embed(query, basis=basis)
    with pytest.raises(KeyError, match=r"basis\.obsm\['X_sfa'\] is not the embedding"):
        sfa.tl.embed(query, basis=basis, batch_key="new")


def with_peaks_of_its_own(adata: AnnData, shift: int) -> AnnData:
    """The same counts on peaks that are shifted, of which every seventh is lost and every tenth in two."""
    adata = adata[:, np.arange(adata.n_vars) % 7 != shift % 7].copy()
    counts = adata.X.tocsc()
    ocrs = sfa.genome.get_ocrs(adata.var)
    start, end = ocrs["start"].to_numpy() + shift, ocrs["end"].to_numpy() + shift
    split = np.flatnonzero(np.arange(adata.n_vars) % 10 == 3)
    rng = np.random.default_rng(abs(shift))
    halves = counts[:, split].copy()
    halves.data = rng.binomial(halves.data.astype(int), 0.5).astype(np.float32)
    whole = counts.tolil()
    whole[:, split] = counts[:, split] - halves
    middle = (start[split] + end[split]) // 2
    second = pd.DataFrame({"chrom": ocrs["chrom"].to_numpy()[split], "start": middle, "end": end[split]})
    end = end.copy()
    end[split] = middle
    first = pd.DataFrame({"chrom": ocrs["chrom"].to_numpy(), "start": start, "end": end})
    var = pd.concat([first, second], ignore_index=True)
    var.index = sfa.genome.ocr_names(var)
    matrix = sparse.hstack([whole.tocsr(), halves.tocsr()], format="csr")
    matrix.eliminate_zeros()
    return AnnData(matrix.astype(np.float32), obs=adata.obs.copy(), var=var)


@pytest.fixture(scope="module")
def laboratories(whole) -> AnnData:
    parts = {
        b: with_peaks_of_its_own(whole[(whole.obs["batch"] == b).to_numpy()].copy(), shift)
        for b, shift in (("a", 30), ("b", -45))
    }
    joined = ad.concat(parts, join="outer", label="lab", merge="first")
    joined.uns["genome"] = "GRCh38"
    return joined[np.asarray(joined.X.sum(axis=1)).ravel() > 0].copy()


def test_peak_sets_of_laboratories_are_tied(laboratories: AnnData) -> None:
    cells = laboratories.copy()
    sfa.tl.embed(cells)
    plain = cells.obsm["X_sfa"].copy()
    sfa.tl.embed(cells, batch_key="lab")
    assert neighbours_of_the_other_batch(plain, cells.obs["lab"]) < 0.1
    assert neighbours_of_the_other_batch(cells.obsm["X_sfa"], cells.obs["lab"]) > 0.35
    labels = cells.obs["cell_type"]
    assert sfa.bench.knn_accuracy(cells.obsm["X_sfa"], labels)[0] > sfa.bench.knn_accuracy(plain, labels)[0] - 0.02
    table = cells.uns["sfa"]["batches"]
    for lab in "ab":
        is_open = np.asarray((cells.X[(cells.obs["lab"] == lab).to_numpy()] > 0).sum(axis=0)).ravel() > 0
        assert table.loc[lab, "n_ocrs_measured"] == pytest.approx(is_open.sum(), rel=0.02)
    assert table["fraction_shared"].between(0.75, 0.95).all()
    assert cells.uns["sfa"]["params"]["n_shared_regions"] > 300
    # the order of cells and columns does not matter beyond rounding
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    other = laboratories[rows][:, columns].copy()
    sfa.tl.embed(other, batch_key="lab")
    difference = np.linalg.norm(other.obsm["X_sfa"] - cells.obsm["X_sfa"][rows], axis=1)
    assert np.median(difference) < 0.02 * np.median(np.linalg.norm(cells.obsm["X_sfa"], axis=1))


def test_nothing_shared_is_compared_by_knowledge(whole, caplog) -> None:
    parts = {
        b: whole[(whole.obs["batch"] == b).to_numpy()][:, np.arange(whole.n_vars) % 2 == n].copy()
        for n, b in enumerate("ab")
    }
    cells = ad.concat(parts, join="outer", label="lab")
    cells.uns["genome"] = "GRCh38"
    cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()
    with caplog.at_level("WARNING", logger="scfound_atac"):
        sfa.tl.embed(cells, batch_key="lab")
    assert "compared only by what is known of their regions" in caplog.text
    assert cells.uns["sfa"]["params"]["n_shared_regions"] == 0
    assert np.isfinite(cells.obsm["X_sfa"]).all()
    assert neighbours_of_the_other_batch(cells.obsm["X_sfa"], cells.obs["lab"]) > 0.25


def purity(points: np.ndarray, own: np.ndarray) -> float:
    """Fraction of cells of a type among the 15 nearest of each of its cells."""
    near = NearestNeighbors(n_neighbors=16).fit(points).kneighbors(points[own], return_distance=False)[:, 1:]
    return float(own[near].mean())


@pytest.mark.parametrize("batch", ["a", "b"])
def test_a_type_of_one_batch_stays_apart(cells: AnnData, batch: str) -> None:
    own = cells.obs["cell_type"].astype(str).str.contains("B").to_numpy()
    kept = cells[~(own & (cells.obs["batch"] != batch).to_numpy())].copy()
    own = kept.obs["cell_type"].astype(str).str.contains("B").to_numpy()
    found = []
    for batch_key in (None, "batch"):
        sfa.tl.embed(kept, batch_key=batch_key)
        found.append(purity(kept.obsm["X_sfa"], own))
    assert found[1] > found[0] - 0.05
    assert found[1] > 0.6


def test_twenty_batches(cells: AnnData) -> None:
    cells.obs["many"] = (np.arange(cells.n_obs) % 20).astype(str)
    sfa.tl.embed(cells, batch_key="many")
    assert cells.uns["sfa"]["batches"].shape == (20, 3)
    labels = cells.obs["cell_type"]
    corrected = sfa.bench.knn_accuracy(cells.obsm["X_sfa"], labels)[0]
    sfa.tl.embed(cells)
    assert corrected > sfa.bench.knn_accuracy(cells.obsm["X_sfa"], labels)[0] - 0.03


def test_basis_with_other_peaks(whole, laboratories: AnnData, caplog) -> None:
    basis = whole[(whole.obs["batch"] == "a").to_numpy()].copy()
    sfa.tl.embed(basis)
    lab = laboratories[(laboratories.obs["lab"] == "a").to_numpy()]
    query = lab[:, np.asarray(lab.X.sum(axis=0)).ravel() > 0].copy()
    sfa.tl.embed(query, basis=basis)
    coverage = query.uns["sfa"]["coverage"]
    assert set(coverage) == {"fraction_basis", "fraction_ocrs", "fraction_open"}
    assert 0.6 < coverage["fraction_basis"] < 0.95
    assert coverage["fraction_open"] > 0.95
    assert not query.varm
    # the same cells, with a seventh of the OCRs lost
    points = basis[query.obs_names].obsm["X_sfa"]
    near = NearestNeighbors(n_neighbors=30).fit(points).kneighbors(query.obsm["X_sfa"], return_distance=False)
    assert np.mean([i in found for i, found in enumerate(near)]) > 0.7
    mapped = sfa.pp.map_ocrs(lab, basis)
    sfa.tl.embed(mapped, basis=basis)
    np.testing.assert_allclose(query.obsm["X_sfa"], mapped.obsm["X_sfa"], atol=1e-5)
    assert "coverage" not in mapped.uns["sfa"]
    with pytest.raises(KeyError, match="it was itself brought to a basis with other OCRs"):
        sfa.tl.embed(lab.copy(), basis=query)
    few = lab[:, :40].copy()
    with caplog.at_level("WARNING", logger="scfound_atac"):
        sfa.tl.embed(few, basis=basis)
    assert "of the OCRs of basis are covered, so that" in caplog.text
    far = lab.copy()
    var = sfa.genome.get_ocrs(far.var)
    far.var = pd.DataFrame(
        {"chrom": "chr22", "start": 100 * np.arange(far.n_vars), "end": 100 * np.arange(far.n_vars) + 50}
    )
    far.var_names = sfa.genome.ocr_names(far.var)
    before = far.copy()
    assert len(var) == far.n_vars
    with pytest.raises(ValueError, match="No OCR of adata overlaps one of basis"):
        sfa.tl.embed(far, basis=basis)
    assert_equal(far, before, exact=True)
    sfa.tl.embed(query, basis=basis, batch_key="batch")
    assert np.isfinite(query.obsm["X_sfa"]).all()


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
