"""`sfa.tl.impute`: what it writes, what must not matter, whether it is of use, and what bad input says."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata.tests.helpers import assert_equal
from sklearn.metrics import roc_auc_score

import scfound_atac as sfa

N_CELLS, N_OCRS = 90, 150
KEY = "sfa_imputed"


@pytest.fixture(scope="module")
def region_set(tmp_path_factory):
    """A tiny untrained network that predicts fold changes."""
    from scfound_atac.nn import RegionSetConfig, RegionSetNet

    torch.manual_seed(0)
    net = RegionSetNet(RegionSetConfig(n_factors=sfa.genome.load_region_table().n_features, d_cell=32, d_hidden=16))
    preparation = {"target_sum": None, "log1p": True}
    return sfa.hub.save(net, tmp_path_factory.mktemp("tiny"), preparation=preparation, mix=1.5)


@pytest.fixture(scope="module")
def chromfound(tmp_path_factory):
    """A tiny untrained network with a decoder."""
    from scfound_atac.nn import ChromFoundConfig, ChromFoundNet

    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_layers": 2, "n_heads": 2, "window_size": 32, "shift_size": 16}
    config = ChromFoundConfig(**sizes, d_mlp=16, d_low=8, d_state=16, position_temperature=1e5)
    return sfa.hub.save(ChromFoundNet(config), tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=["chromfound", "region_set", "biosample-mix"])
def folder(request):
    """A model of each kind."""
    return request.param if request.param == "biosample-mix" else request.getfixturevalue(request.param)


def make_cells(n_cells: int = N_CELLS, n_ocrs: int = N_OCRS) -> ad.AnnData:
    """Two kinds of cells, by the parity of their number; a third of the OCRs is open in one kind, a third in the other."""
    rng = np.random.default_rng(0)
    chrom = rng.choice(["chr1", "chr2", "chr10", "chrX"], n_ocrs)
    start = rng.choice(100_000, n_ocrs, replace=False) * 1000
    kind, group = np.arange(n_cells) % 2, np.arange(n_ocrs) % 3
    rate = np.where(group[None, :] == kind[:, None], 0.6, 0.05)
    var = pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500, "group": group})
    var.index = [f"{c}:{s}-{s + 500}" for c, s in zip(chrom, start, strict=True)]
    obs = pd.DataFrame({"kind": kind.astype(str)}, index=[f"cell{i}" for i in range(n_cells)])
    counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=var, uns={"genome": "GRCh38"})


def imputed(adata: ad.AnnData, model, **kwargs) -> pd.DataFrame:
    sfa.tl.impute(adata, model=model, device="cpu", **kwargs)
    return pd.DataFrame(adata.layers[KEY].toarray(), index=adata.obs_names, columns=adata.var_names)


def assert_same_up_to_rounding(a: pd.DataFrame, b: pd.DataFrame) -> None:
    np.testing.assert_allclose(a.loc[b.index, b.columns], b, atol=1e-4)


# ---------------------------------------------------------------- what is written


def test_writes_documented_fields_and_survives_h5ad(folder, tmp_path):
    adata = make_cells()
    before = adata.copy()
    assert sfa.tl.impute(adata, model=folder) is None
    layer = adata.layers[KEY]
    assert isinstance(layer, sp.csr_matrix)
    assert layer.dtype == np.float32
    assert layer.has_sorted_indices
    n_kept = 3 * int(np.median(adata.X.getnnz(axis=1)))
    assert layer.getnnz(axis=1).max() <= n_kept
    if not str(folder).startswith("biosample"):
        assert adata.uns[KEY]["params"]["weights_sha256"]
    assert adata.uns[KEY]["params"]["n_kept"] == n_kept
    assert layer.data.min() > 0
    assert layer.data.max() <= 1
    adata.copy().write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert_equal(again.layers[KEY], layer)
    assert again.uns[KEY]["params"]["model"] == adata.uns[KEY]["params"]["model"]
    del adata.layers[KEY], adata.uns[KEY]
    assert_equal(adata, before)


def test_values_add_up_to_the_open_ocrs(folder):
    adata = make_cells()
    whole = imputed(adata, folder, n_kept=None)
    n_open = adata.X.getnnz(axis=1)
    assert (whole.sum(axis=1) <= n_open * (1 + 1e-5)).all()
    uncut = (whole < 1).all(axis=1).to_numpy()
    np.testing.assert_allclose(whole.sum(axis=1)[uncut], n_open[uncut], rtol=1e-4)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_on_disk(chromfound, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("scfound_atac.inference.impute._BLOCK_BYTES", 4 * N_OCRS * 7)  # several blocks
    adata = make_cells()
    before = adata.copy()
    path = tmp_path / f"imputed{suffix}"
    assert sfa.tl.impute(adata, model=chromfound, out=str(path), n_kept=40) is None
    assert_equal(adata, before)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    written = ad.read_h5ad(path) if suffix == ".h5ad" else ad.read_zarr(path)
    sfa.tl.impute(adata, model=chromfound, n_kept=40)
    assert_equal(sp.csr_matrix(written.X), adata.layers[KEY])
    assert_equal(written.obs, adata.obs)
    assert_equal(written.var, adata.var)
    assert written.uns[KEY]["params"]["n_kept"] == 40
    if suffix == ".h5ad":
        backed = ad.read_h5ad(path, backed="r")
        assert_equal(sp.csr_matrix(backed[5:9].to_memory().X), adata.layers[KEY][5:9])


def test_file_is_removed_on_error(chromfound, tmp_path, monkeypatch):
    def fail(*_args):
        msg = "disk is on fire"
        raise RuntimeError(msg)

    monkeypatch.setattr("scfound_atac.inference.impute.largest", fail)
    for suffix in (".h5ad", ".zarr"):
        with pytest.raises(RuntimeError, match="on fire"):
            sfa.tl.impute(make_cells(), model=chromfound, out=tmp_path / f"imputed{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_mudata_and_copies(tmp_path):
    mdata = sfa.datasets.pbmc_multiome_sample()
    mdata.mod["atac"] = mdata["atac"][:200].copy()
    result = sfa.tl.impute(mdata, copy=True)
    assert KEY in result["atac"].layers
    assert KEY not in mdata["atac"].layers
    sfa.tl.impute(mdata, key_added="smooth")
    assert_equal(mdata["atac"].layers["smooth"], result["atac"].layers[KEY])
    mdata["atac"].write_h5ad(tmp_path / "atac.h5ad")
    result.write_h5mu(tmp_path / "cells.h5mu")
    assert_equal(md.read_h5mu(tmp_path / "cells.h5mu")["atac"].layers[KEY], result["atac"].layers[KEY])


# ---------------------------------------------------------------- what must not matter


@pytest.mark.parametrize("form", ["csc", "dense", "layer", "backed"])
def test_form_of_the_matrix(region_set, in_form, form):
    expected = imputed(make_cells(), region_set)
    adata, layer = in_form(make_cells(), form)
    pd.testing.assert_frame_equal(imputed(adata, region_set, layer=layer), expected)


def test_order_of_ocrs_and_cells(folder):
    adata, rng = make_cells(), np.random.default_rng(1)
    expected = imputed(adata.copy(), folder, n_kept=None)
    by_ocr = adata[:, rng.permutation(N_OCRS)].copy()
    assert_same_up_to_rounding(imputed(by_ocr, folder, n_kept=None), expected)
    by_cell = adata[rng.permutation(N_CELLS)].copy()
    assert_same_up_to_rounding(imputed(by_cell, folder, n_kept=None), expected)


def test_blocks(folder, monkeypatch):
    expected = imputed(make_cells(), folder)
    monkeypatch.setattr("scfound_atac.inference.impute._BLOCK_BYTES", 1)
    assert_same_up_to_rounding(imputed(make_cells(), folder), expected)


def test_same_seed_same_result(region_set):
    first, again = imputed(make_cells(), region_set, seed=3), imputed(make_cells(), region_set, seed=3)
    pd.testing.assert_frame_equal(first, again)


# ---------------------------------------------------------------- use


def test_kinds_of_cells_are_told_apart():
    """Of the OCRs that a cell has closed, those of its own kind are expected to be open."""
    adata = make_cells(400)
    found = imputed(adata, "biosample-mix", n_kept=None).to_numpy()
    group, kind = adata.var["group"].to_numpy(), adata.obs["kind"].astype(int).to_numpy()
    is_closed = adata.X.toarray() == 0
    own = found[is_closed & (group[None, :] == kind[:, None])]
    other = found[is_closed & (group[None, :] == 1 - kind[:, None])]
    assert own.mean() > 2 * other.mean()


@pytest.mark.slow
def test_held_out_ocrs_of_real_cells(data_dir):
    """Better than the mean over cells, on the donor that no weights have seen."""
    marrow = ad.read_h5ad(data_dir / "bone_marrow_atac.h5ad")
    whole = marrow[marrow.obs["donor"] == "BMMC_D5T1"].copy()
    thin = sfa.bench.thin_counts(whole, 0.3)
    sfa.tl.impute(thin, n_kept=None)
    mean = thin.X.getnnz(axis=0) / thin.n_obs
    gains = []
    for cell in range(0, thin.n_obs, 10):
        is_closed = thin.X[cell].toarray().ravel() == 0
        hit = whole.X[cell].toarray().ravel()[is_closed] > 0
        if hit.any():
            ours = thin.layers[KEY][cell].toarray().ravel()[is_closed]
            gains.append(roc_auc_score(hit, ours) - roc_auc_score(hit, mean[is_closed]))
    assert np.mean(gains) > 0.006


# ---------------------------------------------------------------- small and odd data


@pytest.mark.parametrize("n_cells", [1, 2, 59, 60])
def test_few_cells(folder, n_cells):
    adata = make_cells(n_cells)
    found = imputed(adata, folder)
    assert np.isfinite(found).all(axis=None)
    assert (found > 0).any(axis=1).all()


def test_empty_cells_and_unknown_chromosomes(folder, caplog):
    adata = make_cells()
    adata.X = sp.csr_matrix(adata.X.toarray() * (np.arange(N_CELLS) > 2)[:, None])
    adata.var["chrom"] = np.where(np.arange(N_OCRS) < 20, "chrM", adata.var["chrom"])
    adata.var_names = [f"peak{i}" for i in range(N_OCRS)]
    adata.uns["genome"] = "GRCh38"
    found = imputed(adata, folder, n_kept=None)
    assert "3 of 90 cells have no open OCR and stay empty" in caplog.text
    assert (found.iloc[:3] == 0).all(axis=None)
    assert (found.iloc[:, :20] == 0).all(axis=None)
    assert (found.iloc[3:, 20:] >= 0).all(axis=None)


def test_regions_nobody_knows(region_set):
    """Without knowledge of any region, cells go by their groups alone."""
    adata = make_cells()
    adata.var["chrom"] = "chrY"
    adata.var["start"] = 2_800_000 + 1000 * np.arange(N_OCRS)
    adata.var["end"] = adata.var["start"] + 200
    adata.var_names = [f"peak{i}" for i in range(N_OCRS)]
    found = imputed(adata, region_set)
    assert (found > 0).any(axis=1).all()


def test_fewer_values_are_the_largest(folder):
    whole, some = imputed(make_cells(), folder, n_kept=None), imputed(make_cells(), folder, n_kept=10)
    for name, row in some.iterrows():
        kept = row > 0
        assert kept.sum() <= 10
        assert whole.loc[name][kept].min() >= whole.loc[name][~kept].max() - 1e-6
    above = imputed(make_cells(), folder, n_kept=None, threshold=0.4)
    pd.testing.assert_frame_equal(above, whole.where(whole >= 0.4, 0))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        (None, {"threshold": -0.1}, ValueError, "threshold=-0.1 must lie between 0 and 1"),
        (None, {"threshold": 2}, ValueError, "threshold=2 must lie between 0 and 1"),
        (None, {"threshold": float("nan")}, ValueError, "threshold=nan"),
        (None, {"n_kept": 0}, ValueError, "n_kept=0 must be a positive integer"),
        (None, {"n_kept": 2.5}, ValueError, r"n_kept=2\.5"),
        (None, {"n_kept": True}, ValueError, "n_kept=True"),
        (None, {"n_kept": "most"}, ValueError, "n_kept='most'"),
        (None, {"layer": "counts"}, KeyError, "no layer 'counts'"),
        (None, {"model": "nothing"}, KeyError, "No model 'nothing'"),
        (None, {"key_added": "a/b"}, ValueError, "without '/'"),
        (None, {"out": "imputed.h5"}, ValueError, r"must end in '\.h5ad' or '\.zarr'"),
        (None, {"out": "no/such/folder/imputed.h5ad"}, FileNotFoundError, "no folder"),
        (None, {"out": "imputed.h5ad", "copy": True}, ValueError, "leave out the argument out="),
        (None, {"genome": "hg19"}, ValueError, "declared to be on hg19"),
        (None, {"precision": "fp8"}, ValueError, "Unknown precision"),
        (lambda a: a.X.data.__setitem__(0, -1), {}, ValueError, "X has 1 values that are negative"),
        (lambda a: a.X.data.__setitem__(0, 0.5), {}, ValueError, "not whole numbers"),
        (lambda a: a.var.__setitem__("end", 5), {}, ValueError, "end not beyond"),
    ],
)
def test_errors_leave_adata_as_it_was(change, kwargs, error, message):
    adata = make_cells()
    if change is not None:
        change(adata)
    before = adata.copy()
    with pytest.raises(error, match=message):
        sfa.tl.impute(adata, **kwargs)
    assert_equal(adata, before)


def test_existing_file(tmp_path):
    path = tmp_path / "imputed.h5ad"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"imputed\.h5ad' exists"):
        sfa.tl.impute(make_cells(), out=path)
    assert path.read_text() == "mine"


def test_no_cells():
    with pytest.raises(ValueError, match="0 cells"):
        sfa.tl.impute(make_cells()[:0].copy())


def test_epifoundation_is_refused(make_epifoundation, tmp_path):
    net, vocabularies = make_epifoundation()
    folder = sfa.hub.save(net, tmp_path / "epi", vocabularies=vocabularies)
    with pytest.raises(ValueError, match="has no output per OCR.*region-set"):
        sfa.tl.impute(make_cells(), model=folder)
