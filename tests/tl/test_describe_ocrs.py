from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from anndata.tests.helpers import assert_equal

import scfound_atac as sfa
from scfound_atac.genome.elements import load_element_table

COLUMNS = ["openness", "biosamples", "cell_types", "module", "gc", "gene", "tss_distance"]


def described(*names: str, **options) -> pd.DataFrame:
    adata = ad.AnnData(np.ones((2, len(names)), np.float32), var=pd.DataFrame(index=list(names)))
    sfa.tl.describe_ocrs(adata, genome="GRCh38", **options)
    return adata.var


def test_what_is_known_of_a_promoter() -> None:
    row = described("chr4:73404000-73405000").iloc[0]  # albumin
    assert row["sfa_gene"] == "ALB"
    assert row["sfa_tss_distance"] == 0
    assert "hepatocyte" in row["sfa_cell_types"].split(", ")[:2]
    assert len(row["sfa_biosamples"].split(", ")) == 3
    assert 0 < row["sfa_openness"] < 0.5
    assert row["sfa_module"].startswith("REMOv1.GRCh38-")
    assert 20 < row["sfa_gc"] < 80


def test_where_nothing_is_known() -> None:
    row = described("chr4:73404000-73405000", "chrY:26000000-26000500").iloc[1]
    assert (row["sfa_cell_types"], row["sfa_biosamples"], row["sfa_module"]) == ("", "", "")
    assert np.isnan([row["sfa_openness"], row["sfa_gc"]]).all()


def test_types_are_those_of_the_look_up() -> None:
    names = ["chr1:1000000-1000500", "chr2:85577000-85578000", "chr12:6534000-6535000"]
    table = described(*names)
    adata = ad.AnnData(np.ones((1, 3), np.float32), var=pd.DataFrame(index=names))
    elements = load_element_table()
    weights = elements.lookup(sfa.genome.get_ocrs(adata.var)).types.toarray()
    for text, row in zip(table["sfa_cell_types"], weights, strict=True):
        assert set(filter(None, text.split(", "))) == {
            elements.type_names[t] for t in np.flatnonzero(row)
        } or "," in "".join(elements.type_names[t] for t in np.flatnonzero(row))


def test_biosamples_are_those_in_which_the_region_is_open(data_dir) -> None:
    bulk = ad.read_h5ad(data_dir / "biosamples.h5ad", backed="r")
    columns = np.sort(np.random.default_rng(0).choice(bulk.n_vars, 500, replace=False))
    bins = bulk[:, columns].to_memory()
    is_open, names = bins.X.toarray() > 0, bins.obs["biosample"].astype(str).to_numpy()
    bins = ad.AnnData(var=bins.var[["chrom", "start", "end"]])
    sfa.tl.describe_ocrs(bins, genome="GRCh38")
    right = [
        is_open[names == name, i].any()
        for i, text in enumerate(bins.var["sfa_biosamples"])
        for name in text.split(", ")
    ]
    assert np.mean(right) > 0.83  # .875 over all bins


def test_columns_that_are_no_ocrs_stay_empty_and_the_object_survives(make_labelled, tmp_path) -> None:
    adata = make_labelled(20, n_ocrs=30)
    before = adata.copy()
    sfa.tl.describe_ocrs(adata, key_added="known")
    assert list(adata.var.columns[-7:]) == [f"known_{name}" for name in COLUMNS]
    adata.copy().write_h5ad(tmp_path / "a.h5ad")  # writing makes categories of texts
    again = ad.read_h5ad(tmp_path / "a.h5ad").var
    pd.testing.assert_frame_equal(again.astype(adata.var.dtypes), adata.var, check_dtype=False)
    adata.var = adata.var[before.var.columns]
    assert_equal(adata, before)
