"""`sfa.tl.link_enhancers` and `sfa.get.links`: what is written, forms of input, and what bad input says."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.genome import load_region_table

COLUMNS = [
    "gene",
    "gene_id",
    "ocr",
    "chrom",
    "start",
    "end",
    "group",
    "distance",
    "accessibility",
    "abc",
    "score",
    "probability",
]
GENES = ["CD4", "LAG3", "GAPDH"]


@pytest.fixture(scope="module")
def made() -> ad.AnnData:
    """Bins around CD4, of which the first half is open in T cells and the other half in B cells."""
    bins = load_region_table().bins
    var = bins[(bins["chrom"] == "chr12") & bins["start"].between(6_000_000, 7_400_000)].iloc[::2].copy()
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    n = len(var)
    rng = np.random.default_rng(0)
    is_t = np.arange(60) < 30
    rate = np.where((np.arange(n) < n // 2)[None, :] == is_t[:, None], 0.5, 0.05)
    obs = pd.DataFrame({"cell_type": np.where(is_t, "T", "B")}, index=[f"c{i}" for i in range(60)])
    return ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def cells(made: ad.AnnData) -> ad.AnnData:
    return made.copy()


def test_table(cells: ad.AnnData) -> None:
    sfa.tl.link_enhancers(cells, genes=GENES, groupby="cell_type")
    table = cells.uns["sfa_links"]
    assert list(table) == COLUMNS
    assert set(table["gene"].cat.categories) == set(GENES)
    assert table["group"].cat.categories.tolist() == ["B", "T"]
    middle = (cells.var["start"] + cells.var["end"]) // 2
    tss = sfa.datasets.genes().set_index("name").loc[GENES]
    tss = pd.Series(np.where(tss["strand"] == "+", tss["start"], tss["end"] - 1), index=GENES)
    for gene in GENES:
        links = table[table["gene"] == gene]
        near = (middle - tss[gene]).abs()
        expected = near[near <= 500_000]
        of_group = links[links["group"] == "T"].set_index("ocr")
        assert set(of_group.index) == set(expected.index)
        assert of_group["distance"].to_dict() == expected.to_dict()
    assert table["probability"].between(0, 1).all()
    assert table["score"].to_numpy() == pytest.approx(
        np.log(table["probability"] / (1 - table["probability"])), abs=1e-3
    )
    params = cells.uns["sfa_links_params"]
    assert (params["method"], params["groupby"], params["window"]) == ("knowledge", "cell_type", 500_000)


def test_accessibility_is_that_of_the_group(cells: ad.AnnData) -> None:
    sfa.tl.link_enhancers(cells, genes="CD4", groupby="cell_type")
    of_t = sfa.get.links(cells, group="T").set_index("ocr")["accessibility"]
    sums = np.asarray(cells[cells.obs["cell_type"] == "T"].X.sum(axis=0)).ravel()
    expected = pd.Series(1e4 * sums / sums.sum(), index=cells.var_names)
    assert of_t.to_numpy() == pytest.approx(expected[of_t.index].to_numpy(), rel=1e-5)


def test_a_group_has_the_links_that_its_cells_alone_have(cells: ad.AnnData) -> None:
    sfa.tl.link_enhancers(cells, genes=GENES, groupby="cell_type")
    alone = cells[cells.obs["cell_type"] == "T"].copy()
    sfa.tl.link_enhancers(alone, genes=GENES)
    a, b = sfa.get.links(cells, group="T"), sfa.get.links(alone)
    assert b["group"].tolist() == ["all"] * len(b)
    pd.testing.assert_frame_equal(a.drop(columns="group"), b.drop(columns="group"), check_categorical=False)


def test_open_ocrs_have_the_higher_probability(cells: ad.AnnData) -> None:
    """The same OCRs and genes: only the group's signal differs."""
    sfa.tl.link_enhancers(cells, genes="CD4", groupby="cell_type")
    links = cells.uns["sfa_links"].pivot_table(index="ocr", columns="group", values="score", observed=True)
    first = cells.var_names[: cells.n_vars // 2]
    of_t = links.index.isin(first)
    assert (links["T"] > links["B"])[of_t].mean() > 0.95
    assert (links["T"] < links["B"])[~of_t].mean() > 0.95


def numbers(cells: ad.AnnData) -> pd.DataFrame:
    table = sfa.get.links(cells).astype({"gene": str, "ocr": str}).set_index(["gene", "ocr"])
    return table[["score", "abc", "accessibility"]].sort_index()


def test_order_of_ocrs_and_form_of_the_matrix_do_not_matter(cells: ad.AnnData, tmp_path) -> None:
    sfa.tl.link_enhancers(cells, genes=GENES)
    expected = numbers(cells)
    turned = cells[:, ::-1].copy()
    dense = cells.copy()
    dense.X = dense.X.toarray()
    del cells.uns["sfa_links"], cells.uns["sfa_links_params"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    for other in (turned, dense, ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")):
        sfa.tl.link_enhancers(other, genes=GENES)
        pd.testing.assert_frame_equal(numbers(other), expected, check_exact=False, rtol=1e-5)


@pytest.mark.parametrize("method", ["knowledge", "abc", "distance"])
def test_methods(method: str, cells: ad.AnnData) -> None:
    sfa.tl.link_enhancers(cells, genes=GENES, method=method)
    links = sfa.get.links(cells)
    assert np.isfinite(links[["score", "probability", "abc"]]).all(axis=None)
    for _, of_gene in links.groupby("gene", observed=True):
        assert (np.diff(of_gene["score"]) <= 0).all()
        assert (np.diff(of_gene["probability"]) <= 1e-6).all()
    if method == "distance":
        assert links["score"].to_numpy() == pytest.approx(-np.log10(np.maximum(links["distance"], 1)), rel=1e-5)
    if method == "abc":
        assert links["score"].tolist() == links["abc"].tolist()


def test_ids_and_tables_of_genes(cells: ad.AnnData, tmp_path) -> None:
    sfa.tl.link_enhancers(cells, genes="CD4")
    expected = sfa.get.links(cells)
    sfa.tl.link_enhancers(cells, genes=["ENSG00000010610.9"])
    pd.testing.assert_frame_equal(sfa.get.links(cells), expected)
    genes = sfa.datasets.genes()
    genes = genes[genes["name"] == "CD4"]
    path = tmp_path / "genes.bed"
    genes.assign(score=0)[["chrom", "start", "end", "name", "score", "strand"]].to_csv(
        path, sep="\t", header=False, index=False
    )
    for table in (genes, path, str(path)):
        sfa.tl.link_enhancers(cells, genes=table)
        assert sfa.get.links(cells)["score"].tolist() == expected["score"].tolist()


def test_the_nearest_of_several_starts_counts(cells: ad.AnnData) -> None:
    starts = pd.DataFrame({"chrom": "chr12", "tss": [6_700_000, 6_900_000], "name": "X", "strand": "+"})
    sfa.tl.link_enhancers(cells, genes=starts, method="distance")
    links = sfa.get.links(cells)
    assert not links["ocr"].duplicated().any()
    middle = (links["start"] + links["end"]) // 2
    nearest = np.minimum((middle - 6_700_000).abs(), (middle - 6_900_000).abs())
    assert links["distance"].tolist() == nearest.tolist()


def test_one_symbol_of_two_genes(cells: ad.AnnData) -> None:
    table = pd.DataFrame(
        {"chrom": "chr12", "start": [6_700_000, 6_900_000], "end": [6_700_010, 6_900_010], "name": "X", "strand": "+"}
    )
    table["id"] = ["ENSG00000000001", "ENSG00000000002"]
    sfa.tl.link_enhancers(cells, genes=table)
    links = sfa.get.links(cells, gene="X")
    assert set(links["gene_id"]) == {"ENSG00000000001", "ENSG00000000002"}
    assert links["ocr"].duplicated().any()
    assert set(sfa.get.links(cells, gene="ENSG00000000002")["gene_id"]) == {"ENSG00000000002"}


def test_gene_without_ocrs(cells: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        sfa.tl.link_enhancers(cells, genes=["CD4", "MYC"])
    assert "1 of 2 genes have no OCR" in caplog.text
    assert "MYC" in caplog.text
    none = sfa.get.links(cells, gene="MYC")
    assert (list(none), len(none)) == (COLUMNS, 0)
    sfa.tl.link_enhancers(cells, genes="MYC")
    assert len(cells.uns["sfa_links"]) == 0
    assert list(cells.uns["sfa_links"]) == COLUMNS


def test_unknown_genes(cells: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    before = cells.copy()
    with pytest.raises(KeyError, match="None of the 1 genes.*CD4X"):
        sfa.tl.link_enhancers(cells, genes=["CD4X"])
    with pytest.raises(ValueError, match=r"genes=\[\] names no gene"):
        sfa.tl.link_enhancers(cells, genes=[])
    assert_equal(cells, before)
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        sfa.tl.link_enhancers(cells, genes=["CD4", "CD4X"])
    assert "1 of 2 genes are not in the table of genes: CD4X" in caplog.text


def test_one_cell_and_groups_of_one_cell(cells: ad.AnnData) -> None:
    one = cells[:1].copy()
    sfa.tl.link_enhancers(one, genes="CD4")
    assert np.isfinite(sfa.get.links(one)[["score", "abc", "accessibility"]]).all(axis=None)
    cells.obs["lone"] = ["x", *["y"] * 59]
    sfa.tl.link_enhancers(cells, genes="CD4", groupby="lone")
    pd.testing.assert_series_equal(sfa.get.links(cells, group="x")["score"], sfa.get.links(one)["score"])


def test_cells_without_a_label_and_empty_cells(cells: ad.AnnData) -> None:
    cells.obs["some"] = np.where(np.arange(60) < 20, "x", "unknown")
    sfa.tl.link_enhancers(cells, genes="CD4", groupby="some")
    assert cells.uns["sfa_links"]["group"].cat.categories.tolist() == ["x"]
    empty = cells.copy()
    empty.X = sparse.csr_matrix(empty.shape, dtype=np.float32)
    sfa.tl.link_enhancers(empty, genes="CD4")
    links = sfa.get.links(empty)
    assert (links["accessibility"] == 0).all()
    assert np.isfinite(links["score"]).all()


def test_chrm_and_scaffolds(cells: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    sfa.tl.link_enhancers(cells, genes="CD4")
    expected = sfa.get.links(cells).set_index("ocr")["distance"]
    names = cells.var_names.tolist()
    cells.var[["chrom", "start", "end"]] = cells.var[["chrom", "start", "end"]].astype(object)
    cells.var.iloc[0, :3] = ["chrM", 100, 600]
    cells.var.iloc[1, :3] = ["KI270728.1", 100, 600]
    cells.var_names = ["chrM:100-600", "KI270728.1:100-600", *names[2:]]
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        sfa.tl.link_enhancers(cells, genes="CD4")
    assert "2 of" in caplog.text
    assert "chrM or scaffolds" in caplog.text
    found = sfa.get.links(cells).set_index("ocr")["distance"]
    assert set(found.index) <= set(names[2:])
    assert found.to_dict() == expected.drop(names[:2], errors="ignore").to_dict()


def test_hg19_is_refused(cells: ad.AnnData) -> None:
    cells.uns["genome"] = "hg19"
    before = cells.copy()
    with pytest.raises(ValueError, match="liftover_ocrs"):
        sfa.tl.link_enhancers(cells, genes="CD4")
    assert_equal(cells, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "nearest"}, ValueError, "Unknown method='nearest'"),
        ({"method": "perturbation"}, ValueError, "needs a trained predictor="),
        ({"predictor": "folder"}, ValueError, "predictor= is for method='perturbation'"),
        ({"window": 0}, ValueError, "window=0 must be at least 1"),
        ({"min_probability": 2.0}, ValueError, "min_probability=2.0 must be from 0 to 1"),
        ({"groupby": "nothing"}, KeyError, "There is no column 'nothing'"),
        ({"key_added": "a/b"}, ValueError, "cannot be stored"),
        ({"key_added": "mine"}, ValueError, "was not written by this function"),
        ({"genes": 5}, TypeError, "genes= takes"),
        ({"genes": "nofile.bed"}, FileNotFoundError, "nofile.bed"),
    ],
)
def test_bad_arguments(options: dict, error: type[Exception], message: str, cells: ad.AnnData) -> None:
    cells.uns["mine"] = 5
    before = cells.copy()
    with pytest.raises(error, match=message):
        sfa.tl.link_enhancers(cells, **{"genes": "CD4", **options})
    assert_equal(cells, before)


def test_all_genes_keep_the_probable_links(cells: ad.AnnData) -> None:
    sfa.tl.link_enhancers(cells, min_probability=0)
    whole = sfa.get.links(cells)
    sfa.tl.link_enhancers(cells, min_probability=0.1)
    kept = sfa.get.links(cells)
    pd.testing.assert_frame_equal(
        kept, whole[whole["probability"] >= 0.1].reset_index(drop=True), check_categorical=False
    )
    assert 0 < len(kept) < len(whole)
    assert len(sfa.get.links(cells, gene="MYC")) == 0


def test_genes_with_a_closed_promoter_are_left_out_by_default(cells: ad.AnnData) -> None:
    """Of all genes; a promoter that was not measured counts as open."""
    tss = int(sfa.datasets.genes().set_index("name").loc["CD4", "start"])
    is_promoter = ((cells.var["start"] < tss + 501) & (cells.var["end"] > tss - 500)).to_numpy()
    counts = cells.X.toarray()
    found = {}
    for state, value in (("closed", 0), ("open", 100)):
        counts[:, is_promoter] = value
        cells.X = sparse.csr_matrix(counts)
        sfa.tl.link_enhancers(cells)
        found[state] = len(sfa.get.links(cells, gene="CD4"))
        sfa.tl.link_enhancers(cells, min_probability=0.1)
        assert len(sfa.get.links(cells, gene="CD4")) > 0
    assert is_promoter.any()
    assert found["closed"] == 0
    assert found["open"] > 0
    other = cells[:, ~is_promoter].copy()
    sfa.tl.link_enhancers(other)
    assert len(sfa.get.links(other, gene="CD4")) > 0


def test_copy_and_files(cells: ad.AnnData, tmp_path) -> None:
    before = cells.copy()
    done = sfa.tl.link_enhancers(cells, genes=GENES, groupby="cell_type", copy=True, key_added="mine")
    assert_equal(cells, before)
    done.write_h5ad(tmp_path / "x.h5ad")
    back = sfa.get.links(ad.read_h5ad(tmp_path / "x.h5ad"), key="mine")
    pd.testing.assert_frame_equal(back, sfa.get.links(done, key="mine"), check_categorical=False)
    assert len(sfa.get.links(ad.read_h5ad(tmp_path / "x.h5ad"), gene="CD4", group="B", key="mine")) > 0


def test_mudata(cells: ad.AnnData, tmp_path) -> None:
    sfa.tl.link_enhancers(cells, genes=GENES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        rna = ad.AnnData(np.ones((60, 2), dtype=np.float32), obs=cells.obs[[]].copy())
        mdata = md.MuData({"atac": cells[:].copy(), "rna": rna})
        del mdata["atac"].uns["sfa_links"]
        sfa.tl.link_enhancers(mdata, genes=GENES)
        pd.testing.assert_frame_equal(sfa.get.links(mdata), sfa.get.links(cells))
        mdata.write_h5mu(tmp_path / "x.h5mu")
        back = md.read_h5mu(tmp_path / "x.h5mu")
    pd.testing.assert_frame_equal(sfa.get.links(back), sfa.get.links(cells), check_categorical=False)


def test_get_links_says_what_is_missing(cells: ad.AnnData) -> None:
    with pytest.raises(KeyError, match=r"adata.uns\['sfa_links'\] is not there. Run sfa.tl.link_enhancers first"):
        sfa.get.links(cells)
    cells.uns["other"] = {"a": 1}
    with pytest.raises(KeyError, match="holds something else"):
        sfa.get.links(cells, key="other")
    sfa.tl.link_enhancers(cells, genes=GENES)
    with pytest.raises(KeyError, match=r"has no gene 'MYC'; it has 3: GAPDH, LAG3, CD4"):
        sfa.get.links(cells, gene="MYC")
    with pytest.raises(KeyError, match="has no group 'T'; it has 1: all"):
        sfa.get.links(cells, group="T")
    with pytest.raises(TypeError, match="gene= takes a name"):
        sfa.get.links(cells, gene=5)
    table = sfa.get.links(cells)
    table["score"] = 100.0
    assert cells.uns["sfa_links"]["score"].max() < 100


@pytest.mark.slow
def test_peaks_bins_and_tiles_of_the_same_cells_have_nearly_the_same_links() -> None:
    """The strongest bin of a tile or peak has the score of the tile or peak, as far as their order tells."""
    rng = np.random.default_rng(0)
    table = load_region_table()
    here = np.flatnonzero((table.bins["chrom"] == "chr12") & table.bins["start"].between(5_000_000, 8_500_000))
    bins = table.bins.iloc[here].reset_index(drop=True)
    rate = table.strength[here] / 255 * rng.lognormal(0, 1, len(bins)) * (rng.random(len(bins)) < 0.4)
    counts = rng.poisson(300 * rate + 0.5).astype(np.float32)  # a pseudobulk, with some background

    def links(ocrs: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
        ocrs = ocrs.set_axis([f"{c}:{s}-{e}" for c, s, e in ocrs[["chrom", "start", "end"]].itertuples(index=False)])
        cells = ad.AnnData(sparse.csr_matrix(values[None, :].astype(np.float32)), var=ocrs)
        sfa.tl.link_enhancers(cells, genes=GENES, window=400_000, genome="GRCh38")
        return sfa.get.links(cells)

    of_bins = links(bins, counts)
    tile = bins["start"] // 5000
    tiles = pd.DataFrame({"chrom": "chr12", "start": tile.unique() * 5000, "end": tile.unique() * 5000 + 5000})
    joined = (counts > 20).cumsum()  # neighbouring bins up to the next high one, as a caller that merges generously
    is_far = (bins["start"].diff() > 600).cumsum()
    peak = pd.factorize(pd.Series(joined // 2).astype(str) + is_far.astype(str))[0]
    peaks = bins.groupby(peak).agg({"chrom": "first", "start": "min", "end": "max"})
    for pieces, values in (
        (tiles, np.bincount(pd.factorize(tile)[0], weights=counts)),
        (peaks, np.bincount(peak, weights=counts)),
    ):
        of_pieces = links(pieces, values)
        best = []
        for gene, start, end in of_pieces[["gene", "start", "end"]].itertuples(index=False):
            inside = (of_bins["gene"] == gene) & (of_bins["start"] < end) & (of_bins["end"] > start)
            best.append(of_bins["score"][inside].max())
        compared = pd.DataFrame({"piece": of_pieces["score"], "bins": best}).dropna()
        assert len(compared) > 100
        assert compared.corr(method="spearman").iloc[0, 1] > 0.9
