"""`sfa.tl.gene_activity`: sums, forms, and what bad input says."""

from __future__ import annotations

import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal

import scfound_atac as sfa
from scfound_atac.genome import gene_weights, get_ocrs, read_genes

N_CELLS, N_OCRS = 40, 240


@pytest.fixture(scope="module")
def genes() -> pd.DataFrame:
    """Every tenth kilobase of two chromosomes is a gene; the last lies where no OCR is."""
    start = np.arange(0, 200_000, 10_000)
    table = pd.DataFrame({"chrom": np.where(start < 100_000, "chr1", "chr7"), "start": start, "end": start + 4000})
    table["name"] = [f"GENE{i}" for i in range(len(table))]
    table["strand"] = np.where(np.arange(len(table)) % 2, "-", "+")
    table.loc[len(table)] = ["chrX", 10, 20, "NOWHERE", "+"]
    return table


def make_cells(n_cells: int = N_CELLS) -> ad.AnnData:
    rng = np.random.default_rng(0)
    start = rng.choice(400, N_OCRS, replace=False) * 500
    var = pd.DataFrame({"chrom": np.where(start < 100_000, "chr1", "chr7"), "start": start, "end": start + 400})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    obs = pd.DataFrame({"cell_type": pd.Categorical(["b", "t"] * (n_cells // 2) + ["b"] * (n_cells % 2))})
    obs.index = [f"cell{i}" for i in range(n_cells)]
    counts = sp.csr_matrix(rng.poisson(0.3, (n_cells, N_OCRS)).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=var, uns={"genome": "GRCh38"})


def make_mudata() -> md.MuData:
    atac = make_cells()
    rna = ad.AnnData(np.ones((N_CELLS, 3), dtype=np.float32), obs=atac.obs[[]].copy())
    rna.var_names = ["GENE3", "GENE1", "OTHER"]  # symbols that the activities have too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return md.MuData({"atac": atac, "rna": rna})


def activities(adata: ad.AnnData, genes: object, **kwargs: object) -> pd.DataFrame:
    sfa.tl.gene_activity(adata, genes=genes, **kwargs)
    names = adata.uns["gene_activity"]["genes"].index
    return pd.DataFrame(adata.obsm["gene_activity"].toarray(), index=adata.obs_names, columns=names)


def test_sums(genes: pd.DataFrame) -> None:
    adata = make_cells()
    found = activities(adata, genes, normalize=None)
    counts = adata.X.toarray()
    plus, minus = genes.iloc[4], genes.iloc[5]
    for gene, left, right in ((plus, 2000, 0), (minus, 0, 2000)):
        inside = (
            (adata.var["chrom"] == gene["chrom"])
            & (adata.var["end"] > gene["start"] - left)
            & (adata.var["start"] < gene["end"] + right)
        ).to_numpy()
        np.testing.assert_array_equal(found[gene["name"]], counts[:, inside].sum(axis=1))
        assert adata.uns["gene_activity"]["genes"].loc[gene["name"], "n_ocrs"] == inside.sum()
    assert "NOWHERE" not in found
    assert found.columns.tolist() == [name for name in genes["name"] if name in found]


@pytest.mark.parametrize("weights", ["none", "distance"])
def test_normalisation_is_by_the_whole_cell(genes: pd.DataFrame, weights: str) -> None:
    adata = make_cells()
    counts = adata.X.toarray()
    per_ocr = gene_weights(get_ocrs(adata.var), read_genes(genes), weights=weights)
    expected = 1e4 * counts / counts.sum(axis=1, keepdims=True) @ per_ocr[:, per_ocr.getnnz(axis=0) > 0].toarray()
    total = activities(adata, genes, weights=weights, normalize="total")
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    log = activities(adata, genes, weights=weights)
    np.testing.assert_allclose(log, np.log1p(expected), rtol=1e-5, atol=1e-6)
    some = activities(adata, genes.iloc[3:9], weights=weights)
    pd.testing.assert_frame_equal(some, log[some.columns])


def test_writes_documented_fields_and_survives_h5ad(genes: pd.DataFrame, tmp_path) -> None:
    adata = make_cells()
    before = adata.copy()
    assert sfa.tl.gene_activity(adata, genes=genes) is None
    assert isinstance(adata.obsm["gene_activity"], sp.csr_matrix)
    assert adata.obsm["gene_activity"].dtype == np.float32
    table = adata.uns["gene_activity"]["genes"]
    assert list(table) == ["chrom", "start", "end", "strand", "n_ocrs"]
    assert adata.uns["gene_activity"]["params"] | {"version": ""} == {
        "upstream": 2000,
        "downstream": 0,
        "weights": "none",
        "normalize": "log1p",
        "layer": "X",
        "version": "",
    }
    adata.copy().write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert_equal(again.obsm["gene_activity"], adata.obsm["gene_activity"])
    pd.testing.assert_frame_equal(again.uns["gene_activity"]["genes"], table, check_dtype=False, check_index_type=False)
    own = ad.AnnData(again.obsm["gene_activity"], obs=again.obs, var=again.uns["gene_activity"]["genes"])
    assert own[:, "GENE3"].shape == (N_CELLS, 1)
    part = again[again.obs["cell_type"] == "b"].copy()
    assert part.obsm["gene_activity"].shape == (N_CELLS // 2, len(table))
    del adata.obsm["gene_activity"], adata.uns["gene_activity"]
    assert_equal(adata, before)


def test_mudata_gets_a_modality(genes: pd.DataFrame, tmp_path) -> None:
    mdata = make_mudata()
    mdata.obs["mine"] = np.arange(N_CELLS)
    assert sfa.tl.gene_activity(mdata, genes=genes) is None
    added = mdata["gene_activity"]
    assert added.obs["cell_type"].equals(mdata["atac"].obs["cell_type"])
    expected = activities(make_cells(), genes)
    np.testing.assert_array_equal(added.X.toarray(), expected)
    assert added.var_names.equals(expected.columns)
    assert added.uns["gene_activity"]["params"]["weights"] == "none"
    assert mdata.shape == (N_CELLS, N_OCRS + 3 + added.n_vars)
    assert mdata.obs["mine"].tolist() == list(range(N_CELLS))
    assert "gene_activity" not in mdata["atac"].obsm

    sfa.tl.gene_activity(mdata, genes=genes, weights="distance")  # other genes, same name
    assert mdata["gene_activity"].uns["gene_activity"]["params"]["weights"] == "distance"
    sfa.tl.gene_activity(mdata, genes=genes, weights="distance", normalize=None)  # same genes
    sfa.tl.gene_activity(mdata, genes=genes.iloc[:4])
    sfa.tl.gene_activity(mdata, genes=genes.iloc[:5], key_added="five")
    assert [mdata[name].n_vars for name in ("gene_activity", "five")] == [4, 5]
    assert mdata.shape == (N_CELLS, N_OCRS + 3 + 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MuData, about names that stand in several modalities
        mdata.write_h5mu(tmp_path / "cells.h5mu")
        again = md.read_h5mu(tmp_path / "cells.h5mu")
    assert_equal(again["gene_activity"].X, mdata["gene_activity"].X)
    assert again["five"].var_names.equals(mdata["five"].var_names)


def test_other_modality_is_not_overwritten(genes: pd.DataFrame) -> None:
    mdata = make_mudata()
    with pytest.raises(ValueError, match="modality 'rna' that is not a gene activity"):
        sfa.tl.gene_activity(mdata, genes=genes, key_added="rna")
    with pytest.raises(KeyError, match="no modality 'peaks'"):
        sfa.tl.gene_activity(mdata, genes=genes, modality="peaks")
    assert list(mdata.mod) == ["atac", "rna"]


def test_copies(genes: pd.DataFrame) -> None:
    for data in (make_cells(), make_mudata()):
        result = sfa.tl.gene_activity(data, genes=genes, copy=True)
        assert type(result) is type(data)
        atac = data if isinstance(data, ad.AnnData) else data["atac"]
        assert "gene_activity" not in atac.obsm
        assert "gene_activity" not in getattr(data, "mod", {})


@pytest.mark.parametrize("form", ["csc", "dense", "array", "int", "layer", "backed"])
def test_form_of_the_matrix_plays_no_part(genes: pd.DataFrame, in_form, form: str) -> None:
    expected = activities(make_cells(), genes)
    adata, layer = in_form(make_cells(), form)
    pd.testing.assert_frame_equal(activities(adata, genes, layer=layer), expected)


def test_order_plays_no_part(genes: pd.DataFrame) -> None:
    adata, rng = make_cells(), np.random.default_rng(1)
    expected = activities(adata, genes)
    shuffled = make_cells()[rng.permutation(N_CELLS), rng.permutation(N_OCRS)].copy()
    found = activities(shuffled, genes.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(found.loc[expected.index, expected.columns], expected, rtol=1e-5)


def test_one_cell_and_an_empty_one(genes: pd.DataFrame) -> None:
    one = activities(make_cells(1), genes)
    assert one.shape[0] == 1
    adata = make_cells()
    adata.X = sp.csr_matrix(adata.X.toarray() * (np.arange(N_CELLS) > 2)[:, None])
    found = activities(adata, genes)
    assert (found.iloc[:3] == 0).all(axis=None)
    assert np.isfinite(found).all(axis=None)
    with pytest.raises(ValueError, match="Nothing to read: adata has 0 cells"):
        activities(make_cells()[:0].copy(), genes)


def test_repeated_symbols(genes: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    twice = pd.concat([genes, genes.iloc[[4]].assign(end=genes["end"][4] + 10)])
    found = activities(make_cells(), twice)
    assert found.columns.is_unique
    assert "1 of 22 rows of the table of genes repeat a symbol" in caplog.text


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        (None, {"weights": "linear"}, ValueError, "Unknown weights"),
        (None, {"normalize": "cpm"}, ValueError, "Unknown normalize='cpm'"),
        (None, {"upstream": -1}, ValueError, "upstream=-1"),
        (None, {"layer": "counts"}, KeyError, "no layer 'counts'"),
        (None, {"key_added": "a/b"}, ValueError, "without '/'"),
        (None, {"genes": "nowhere.bed"}, FileNotFoundError, r"no file 'nowhere\.bed'"),
        (None, {"genome": "hg19"}, ValueError, "declared to be on hg19"),
        (lambda a: a.X.data.__setitem__(0, -1), {}, ValueError, "X has 1 values that are negative"),
        (lambda a: a.X.data.__setitem__(0, np.nan), {}, ValueError, "NaN"),
        (
            lambda a: setattr(a, "var", a.var.assign(chrom="chr9").reset_index(drop=True).rename("peak{}".format)),
            {},
            ValueError,
            "None of the 240 OCRs reaches any of the 21 genes",
        ),
        (lambda a: a.var.__setitem__("start", -1), {}, ValueError, "start below 0"),
    ],
)
def test_errors_leave_adata_as_it_was(genes: pd.DataFrame, change, kwargs: dict, error: type, message: str) -> None:
    adata = make_cells()
    if change is not None:
        change(adata)
    before = adata.copy()
    with pytest.raises(error, match=message):
        sfa.tl.gene_activity(adata, **({"genes": genes} | kwargs))
    assert_equal(adata, before)


def test_without_a_table_the_genes_of_the_package_are_used() -> None:
    sample = sfa.datasets.pbmc_multiome_sample()["atac"][:20].copy()
    given = sfa.tl.gene_activity(sample, genes=sfa.datasets.genes(), copy=True)
    sfa.tl.gene_activity(sample)
    assert_equal(sample, given)
    assert "CCL4" in sample.uns["gene_activity"]["genes"].index


def test_real_cells() -> None:
    """Genes that mark a type are most active in it."""
    mdata = sfa.datasets.pbmc_multiome_sample()
    sfa.tl.gene_activity(mdata)
    activity = mdata["gene_activity"]
    mean = activity.to_df().groupby(activity.obs["cell_type"].astype(str)).mean()
    assert mean.shape[0] == 13
    shared = activity.var_names.intersection(mdata["rna"].var_names)
    r = [
        np.corrcoef(activity[:, gene].X.toarray().ravel(), np.asarray(mdata["rna"][:, gene].to_df()).ravel())[0, 1]
        for gene in shared
    ]
    assert np.nanmean(r) > 0.2


def test_names_of_genes_can_have_a_suffix(genes: pd.DataFrame, tmp_path) -> None:
    mdata = make_mudata()
    sfa.tl.gene_activity(mdata, genes=genes, gene_suffix="_activity")
    plain = make_mudata()
    sfa.tl.gene_activity(plain, genes=genes)
    added = mdata["gene_activity"]
    assert added.var_names.tolist() == [f"{name}_activity" for name in plain["gene_activity"].var_names]
    assert added.var["gene"].tolist() == plain["gene_activity"].var_names.tolist()
    assert not mdata.var_names.duplicated().any()
    assert plain.var_names.duplicated().any()
    mdata.write_h5mu(tmp_path / "x.h5mu")
    with pytest.raises(ValueError, match="gene_suffix='_x' is for names of genes in a new modality"):
        sfa.tl.gene_activity(make_cells(), genes=genes, gene_suffix="_x")
