"""`sfa.tl.embed`: what it writes, what must not matter, and what bad input says."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata.tests.helpers import assert_equal

import scfound_atac as sfa
from scfound_atac.data import prepare_rows

N_CELLS, N_OCRS = 60, 150


@pytest.fixture(scope="module", params=["chromfound", "region-set", "biosample-mix", "biosample-prior"])
def folder(request, tmp_path_factory):
    """A tiny untrained network of each kind in the package's own form, and the models without one."""
    from scfound_atac.nn import ChromFoundConfig, ChromFoundNet, RegionSetConfig, RegionSetNet

    if request.param.startswith("biosample"):
        return request.param
    if request.param == "region-set":
        torch.manual_seed(0)
        net = RegionSetNet(RegionSetConfig(n_factors=sfa.genome.load_region_table().n_features, d_cell=32, d_hidden=16))
        preparation = {"target_sum": None, "log1p": True}
        return sfa.hub.save(net, tmp_path_factory.mktemp("tiny"), preparation=preparation, mix=1.5)

    torch.manual_seed(0)
    config = ChromFoundConfig(
        d_model=16,
        n_layers=2,
        n_heads=2,
        window_size=32,
        shift_size=16,
        d_mlp=16,
        d_low=8,
        d_state=16,
        position_temperature=1e5,
    )
    return sfa.hub.save(ChromFoundNet(config), tmp_path_factory.mktemp("tiny"))


def make_cells(n_cells: int = N_CELLS, n_ocrs: int = N_OCRS, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.poisson(0.3, (n_cells, n_ocrs)).astype(np.float32))
    chrom = rng.choice(["chr1", "chr2", "chr10", "chrX"], n_ocrs)
    start = rng.choice(100_000, n_ocrs, replace=False) * 1000
    var = pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500})
    var.index = [f"{c}:{s}-{s + 500}" for c, s in zip(chrom, start, strict=True)]
    adata = ad.AnnData(counts, var=var, obs=pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)]))
    adata.uns["genome"] = "GRCh38"
    return adata


def embedded(adata, folder, **kwargs) -> np.ndarray:
    sfa.tl.embed(adata, model=folder, device="cpu", **kwargs)
    return adata.obsm["X_sfa"]


def is_network(folder) -> bool:
    """Whether it is a ChromFound, which has options that the others do not have."""
    return sfa.hub.load(folder).model_class == "ChromFound"


def assert_same_up_to_rounding(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


# ---------------------------------------------------------------- what is written


def test_writes_documented_fields_and_survives_h5ad(folder, tmp_path):
    adata = make_cells()
    before = adata.copy()
    assert sfa.tl.embed(adata, model=folder, n_components=8) is None
    assert adata.obsm["X_sfa"].shape == (N_CELLS, 8)
    assert adata.obsm["X_sfa"].dtype == np.float32
    assert adata.varm["sfa_pcs"].shape == (N_OCRS, 8)
    assert adata.varm["sfa_mean"].shape == (N_OCRS, 1)
    params = adata.uns["sfa"]["params"]
    assert params["weights_sha256"] == sfa.hub.load(folder).sha256
    assert params["layer"] == "X"
    written = adata.copy()
    written.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "a.h5ad").obsm["X_sfa"], adata.obsm["X_sfa"])
    del adata.obsm["X_sfa"], adata.varm["sfa_pcs"], adata.varm["sfa_mean"], adata.uns["sfa"]
    assert_equal(adata, before)


def test_copy_leaves_the_original(folder):
    adata = make_cells()
    before = adata.copy()
    result = sfa.tl.embed(adata, model=folder, n_components=4, copy=True)
    assert "X_sfa" in result.obsm
    assert_equal(adata, before)


def test_key_added_names_everything(folder):
    adata = make_cells()
    sfa.tl.embed(adata, model=folder, n_components=4, key_added="mine")
    assert "mine" in adata.obsm
    assert "mine" in adata.uns
    assert "mine_pcs" in adata.varm


@pytest.mark.parametrize("key", ["a/b", ""])
def test_unwritable_key_is_refused(folder, key):
    with pytest.raises(ValueError, match="h5ad"):
        sfa.tl.embed(make_cells(), model=folder, key_added=key)


def test_projection_equals_whole_vector_times_pcs(folder):
    if sfa.hub.load(folder).model_class == "RegionSet":
        pytest.skip("a mixture is no projection of one vector per cell")
    adata, whole = make_cells(), make_cells()
    embedded(adata, folder, n_components=6)
    embedded(whole, folder, n_components=None)
    assert whole.obsm["X_sfa"].shape == (N_CELLS, N_OCRS)
    projected = (whole.obsm["X_sfa"] - adata.varm["sfa_mean"][:, 0]) @ adata.varm["sfa_pcs"]
    assert_same_up_to_rounding(adata.obsm["X_sfa"], projected)


def test_whole_vector_drops_stale_axes(folder):
    adata = make_cells()
    embedded(adata, folder, n_components=6)
    embedded(adata, folder, n_components=None)
    assert "sfa_pcs" not in adata.varm


def test_mudata_and_modality(folder):
    adata = make_cells()
    mdata = md.MuData({"atac": adata.copy(), "other": make_cells(seed=1)})
    sfa.tl.embed(mdata, model=folder, n_components=5, device="cpu")
    np.testing.assert_array_equal(mdata["atac"].obsm["X_sfa"], embedded(adata, folder, n_components=5))
    assert "X_sfa" not in mdata["other"].obsm
    with pytest.raises(KeyError, match="atac"):
        sfa.tl.embed(mdata, model=folder, modality="none")


# ---------------------------------------------------------------- what must not matter


@pytest.mark.parametrize("n_components", [10, None])
def test_column_order_does_not_matter(folder, n_components):
    adata = make_cells()
    order = np.random.default_rng(1).permutation(N_OCRS)
    shuffled = adata[:, order].copy()
    a, b = embedded(adata, folder, n_components=n_components), embedded(shuffled, folder, n_components=n_components)
    assert_same_up_to_rounding(a if n_components else a[:, order], b)


def test_cell_order_and_batch_size_do_not_matter(folder):
    adata = make_cells()
    order = np.random.default_rng(1).permutation(N_CELLS)
    shuffled = adata[order].copy()
    batches = [{"batch_size": 7}, {"batch_size": 1}] if is_network(folder) else [{}, {}]
    a = embedded(adata, folder, n_components=10, n_fit_cells=40, **batches[0])
    b = embedded(shuffled, folder, n_components=10, n_fit_cells=40, **batches[1])
    assert_same_up_to_rounding(a[order], b)


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (sp.csc_matrix, np.float64),
        (sp.csc_matrix, np.uint8),
        (sp.coo_matrix, np.int32),
        (sp.csr_array, np.uint8),
        (sp.csc_array, np.float64),
        (lambda x: x.toarray(), np.int32),
        (lambda x: x.toarray(), np.float64),
    ],
)
def test_storage_does_not_matter(folder, convert, dtype):
    adata = make_cells()
    other = adata.copy()
    converted = convert(adata.X).astype(dtype)
    other.X = converted.tocsr() if isinstance(converted, sp.coo_matrix) else converted
    assert_same_up_to_rounding(embedded(adata, folder, n_components=10), embedded(other, folder, n_components=10))


def test_boolean_matrix_is_binary_counts(folder):
    adata, other = make_cells(), make_cells()
    adata.X = (adata.X > 0).astype(np.float32)
    other.X = other.X > 0
    assert_same_up_to_rounding(embedded(adata, folder, n_components=10), embedded(other, folder, n_components=10))


@pytest.mark.parametrize("rename", ["{c}-{s}-{e}", "{c}_{s}_{e}", "GRCh38_{c}:{s}-{e}", "{bare}:{s}-{e}"])
def test_chromosome_naming_does_not_matter(folder, rename):
    adata, other = make_cells(), make_cells()
    names = [
        rename.format(c=c, bare=c.removeprefix("chr"), s=s, e=e)
        for c, s, e in zip(other.var["chrom"], other.var["start"], other.var["end"], strict=True)
    ]
    other.var = pd.DataFrame(index=names)
    assert_same_up_to_rounding(embedded(adata, folder, n_components=10), embedded(other, folder, n_components=10))


def test_authors_columns_work(folder):
    adata, other = make_cells(), make_cells()
    other.var = other.var.rename(
        columns={"chrom": "#Chromosome", "start": "hg38_Start", "end": "hg38_End"}
    ).reset_index(drop=True)
    other.var.index = [f"peak{i}" for i in range(N_OCRS)]
    assert_same_up_to_rounding(embedded(adata, folder, n_components=10), embedded(other, folder, n_components=10))


def test_layer_is_read(folder):
    adata, other = make_cells(), make_cells()
    other.layers["counts"] = other.X.copy()
    other.X = other.X * 0.37
    assert_same_up_to_rounding(
        embedded(adata, folder, n_components=10), embedded(other, folder, n_components=10, layer="counts")
    )


def test_backed_and_lazy_input(folder, tmp_path):
    adata = make_cells()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    expected = embedded(adata, folder, n_components=10)
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert_same_up_to_rounding(expected, embedded(backed, folder, n_components=10))
    with pytest.raises(ValueError, match="to_memory"):
        sfa.tl.embed(backed, model=folder, copy=True)
    backed.file.close()


def test_dask_input(folder):
    da = pytest.importorskip("dask.array")
    adata, lazy = make_cells(), make_cells()
    lazy.X = da.from_array(adata.X.toarray(), chunks=(17, N_OCRS))
    assert_same_up_to_rounding(embedded(adata, folder, n_components=10), embedded(lazy, folder, n_components=10))


def test_view_gives_the_same_result(folder):
    adata = make_cells()
    view = adata[10:50]
    expected = embedded(adata[10:50].copy(), folder, n_components=10)
    with pytest.warns(ad.ImplicitModificationWarning):
        sfa.tl.embed(view, model=folder, n_components=10, device="cpu")
    np.testing.assert_array_equal(view.obsm["X_sfa"], expected)
    assert "X_sfa" not in adata.obsm


def test_same_call_same_result(folder):
    np.testing.assert_array_equal(embedded(make_cells(), folder), embedded(make_cells(), folder))


def test_recipe_mapping_and_none(folder):
    if sfa.hub.load(folder).model_class != "ChromFound":
        pytest.skip("the recipe is ChromFound's")
    default, spelled_out, as_is = make_cells(), make_cells(), make_cells()
    a = embedded(default, folder, n_components=10)
    b = embedded(spelled_out, folder, n_components=10, recipe={"target_sum": 1e4, "log1p": True})
    as_is.X = prepare_rows(as_is.X)
    c = embedded(as_is, folder, n_components=10, recipe=None)
    np.testing.assert_array_equal(a, b)
    assert_same_up_to_rounding(a, c)


# ---------------------------------------------------------------- a reference's space


def test_basis_reproduces_the_reference(folder):
    reference, query = make_cells(), make_cells(seed=3)
    query.var = reference.var.copy()
    expected = embedded(reference, folder, n_components=10)
    again = reference[:, ::-1].copy()
    del again.obsm["X_sfa"]
    again.varm.clear()
    np.testing.assert_allclose(embedded(again, folder, basis=reference), expected, atol=1e-4 * np.abs(expected).max())
    # a query's place does not depend on the cells it comes with, and is not that of axes of its own
    projected, alone = embedded(query, folder, basis=reference), embedded(query.copy(), folder, n_components=10)
    together = ad.concat([make_cells(), query], index_unique="-")
    together.var, together.uns = reference.var[["chrom", "start", "end"]].copy(), {"genome": "GRCh38"}
    assert_same_up_to_rounding(embedded(together, folder, basis=reference), np.vstack([expected, projected]))
    assert np.abs(np.abs(projected) - np.abs(alone)).max() > 0.05 * np.abs(projected).max()


def test_one_cell_with_basis(folder):
    reference = make_cells()
    expected = embedded(reference, folder, n_components=10)
    one = make_cells()[3].copy()
    assert_same_up_to_rounding(expected[3:4], embedded(one, folder, basis=reference))


def test_basis_must_fit(folder):
    reference = make_cells()
    with pytest.raises(KeyError, match="embed"):
        embedded(make_cells(), folder, basis=reference)
    embedded(reference, folder, n_components=10)
    # vectors with a number per OCR need the same OCRs
    options = {"pooling": "reconstruction"} if sfa.hub.load(folder).model_class == "RegionSet" else {}
    other = make_cells()
    embedded(other, folder, n_components=10, **options)
    with pytest.raises(ValueError, match="map_ocrs"):
        embedded(make_cells()[:, 5:].copy(), folder, basis=other, n_components=None, **options)
    with pytest.raises(ValueError, match="pooling"):
        embedded(make_cells(), folder, basis=reference, pooling="reconstruction")


def test_basis_takes_other_peaks(folder):
    """Those that overlap; the result is that of mapping the counts first."""
    reference = make_cells()
    embedded(reference, folder, n_components=10)
    query = make_cells(seed=3)
    query.var = reference.var.copy()
    query = query[:, 5:].copy()
    expected = sfa.pp.map_ocrs(query, reference)
    found = embedded(query, folder, basis=reference)
    assert_same_up_to_rounding(found, embedded(expected, folder, basis=reference))
    assert query.uns["sfa"]["coverage"]["fraction_open"] == 1
    assert query.uns["sfa"]["coverage"]["fraction_basis"] < 1
    assert not query.varm


def test_basis_of_another_model_is_refused(folder):
    """The linear models know the same regions and store the same fields; only the checksum tells them apart."""
    reference = make_cells()
    other = "biosample-mix" if folder == "biosample-prior" else "biosample-prior"
    embedded(reference, other, n_components=10)
    with pytest.raises(ValueError, match="same model"):
        embedded(make_cells(), folder, basis=reference)


@pytest.mark.parametrize("n_components", [10, None])
def test_other_cells_have_no_say_once_there_is_a_basis(folder, n_components):
    if sfa.hub.load(folder).model_class == "RegionSet" and n_components is None:
        pytest.skip("a mixture has no whole vector")
    reference, query = make_cells(), make_cells(seed=3)
    query.var = reference.var.copy()
    embedded(reference, folder, n_components=10)
    together = embedded(query, folder, basis=reference, n_components=n_components)
    for part in (slice(0, 1), slice(1, 20), slice(20, None)):
        alone = embedded(query[part].copy(), folder, basis=reference, n_components=n_components)
        np.testing.assert_allclose(alone, together[part], atol=1e-5 * np.abs(together).max())


def test_basis_survives_h5ad(folder, tmp_path):
    reference = make_cells()
    expected = embedded(reference, folder, n_components=10)
    reference.write_h5ad(tmp_path / "reference.h5ad")
    again = embedded(make_cells(), folder, basis=ad.read_h5ad(tmp_path / "reference.h5ad"))
    np.testing.assert_allclose(again, expected, atol=1e-5 * np.abs(expected).max())


# ---------------------------------------------------------------- models of region knowledge


def unknown_cells() -> ad.AnnData:
    """Cells whose OCRs lie in the centromere of chromosome 1, of which the region table knows nothing."""
    adata = make_cells()
    start = 122_600_000 + 10_000 * np.arange(N_OCRS)
    adata.var = pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 500})
    adata.var.index = [f"chr1:{s}-{s + 500}" for s in start]
    assert not sfa.genome.load_region_table().lookup(adata.var).found.any()
    return adata


def test_nothing_known_of_the_regions(folder, caplog):
    """The counts alone if the model reads them, without a word of depth; an error if not."""
    adata = unknown_cells()
    before = adata.copy()
    with caplog.at_level("WARNING", logger="scfound_atac"):
        if folder == "biosample-prior":
            with pytest.raises(ValueError, match="None of the 150 OCRs .* model 'biosample-prior' knows"):
                embedded(adata, folder, n_components=10)
            assert_equal(adata, before)
            return
        vectors = embedded(adata, folder, n_components=10)
    assert np.isfinite(vectors).all()
    assert (vectors.std(axis=0) > 0).all()
    if sfa.hub.load(folder).model_class == "ChromFound":
        return
    assert "None of the 150 OCRs" in caplog.text
    if sfa.hub.load(folder).model_class == "RegionSet":
        saved = adata.uns["sfa"]
        k = adata.varm["sfa_pcs"].shape[1]
        assert not saved["rotation"][k:].any()  # the cell vectors
        with pytest.raises(ValueError, match="None of the 150 OCRs"):
            embedded(unknown_cells(), folder, pooling="reconstruction", n_components=None)


def test_prior_is_the_mean_of_known_factors():
    """Without PCA: products with the factors tell the weighted mean over a cell's open OCRs."""
    adata = make_cells()
    profiles = embedded(adata, "biosample-prior", n_components=None)
    factors = sfa.genome.load_region_table().lookup(adata.var).factors.astype(np.float64)
    is_open = adata.X.toarray() > 0
    weight = np.log1p(N_CELLS / (1 + is_open.sum(axis=0)))
    mean = (is_open * weight) @ factors / (is_open @ weight)[:, None]
    u, _, vt = np.linalg.svd(factors, full_matrices=False)
    np.testing.assert_allclose(profiles, mean @ (u @ vt).T, atol=1e-4 * np.abs(profiles).max())


def test_reconstruction_of_one_cell_is_that_among_others(folder):
    """The predicted profile belongs to the cell; nothing in it is scaled by the cells it came with."""
    if sfa.hub.load(folder).model_class != "RegionSet":
        pytest.skip("a reconstruction by region knowledge")
    adata = make_cells()
    together = embedded(adata, folder, n_components=None)
    assert adata.uns["sfa"]["params"]["pooling"] == "reconstruction"
    alone = embedded(make_cells()[3].copy(), folder, n_components=None)
    assert np.abs(alone).max() > 0
    np.testing.assert_allclose(alone, together[3:4], atol=1e-5 * np.abs(together).max())


# ---------------------------------------------------------------- small and odd, but right


def test_thirty_cells_give_fewer_components(folder):
    """29 components hold all there is between 30 cells."""
    adata, whole = make_cells(n_cells=30), make_cells(n_cells=30)
    vectors = embedded(adata, folder, n_components=50)
    assert vectors.shape == (30, 29)
    assert adata.uns["sfa"]["variance_ratio"].sum() == pytest.approx(1, abs=1e-4)
    if sfa.hub.load(folder).model_class != "RegionSet":  # a mixture is no projection of one vector per cell
        distances = [
            np.linalg.norm(x[1:] - x[:1], axis=1) for x in (vectors, embedded(whole, folder, n_components=None))
        ]
        np.testing.assert_allclose(*distances, rtol=1e-3)


def test_one_cell_whole_vector(folder):
    one = make_cells()[3].copy()
    vector = embedded(one, folder, n_components=None)
    assert vector.shape == (1, N_OCRS)
    if is_network(folder):
        assert_same_up_to_rounding(vector, embedded(make_cells(), folder, n_components=None)[3:4])
    elif folder == "biosample-prior":  # all its open OCRs weigh the same
        factors = sfa.genome.load_region_table().lookup(one.var).factors.astype(np.float64)
        u, _, vt = np.linalg.svd(factors, full_matrices=False)
        mean = factors[one.X.toarray()[0] > 0].mean(axis=0)
        np.testing.assert_allclose(vector[0], u @ vt @ mean, atol=1e-4 * np.abs(vector).max())
    assert vector.std() > 0


def test_empty_cells_are_reported(folder, caplog):
    adata = make_cells()
    adata.X = sp.csr_matrix(np.vstack([np.zeros((2, N_OCRS), np.float32), adata.X.toarray()[2:]]))
    with caplog.at_level("WARNING", logger="scfound_atac"):
        vectors = embedded(adata, folder, n_components=10)
    assert "2 of 60 cells have no open OCR" in caplog.text
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5 * np.abs(vectors).max())
    assert (np.linalg.norm(vectors[2:] - vectors[0], axis=1) > 1e-3 * np.abs(vectors).max()).all()


def test_scaffolds_and_mitochondria_are_left_out(folder, caplog):
    adata = make_cells()
    # With a recipe, ChromFound scales cells by all their counts, those on other chromosomes too.
    recipe = None if is_network(folder) else "auto"
    expected = embedded(adata, folder, n_components=None, recipe=recipe)
    extra = make_cells(n_ocrs=2, seed=9)
    extra.var = pd.DataFrame(
        {"chrom": ["chrM", "chrUn_KI270742v1"], "start": [100, 200], "end": [400, 500]},
        index=["chrM:100-400", "chrUn_KI270742v1:200-500"],
    )
    both = ad.concat([adata, extra], axis=1, merge="same")
    both.uns["genome"] = "GRCh38"
    with caplog.at_level("WARNING", logger="scfound_atac"):
        vectors = embedded(both, folder, n_components=None, recipe=recipe)
    assert "2 of 152 OCRs are left out" in caplog.text
    assert_same_up_to_rounding(expected, vectors[:, :N_OCRS])
    assert not vectors[:, N_OCRS:].any()


# ---------------------------------------------------------------- bad input: an error that helps, adata as it was


def _no_coordinates(adata):
    adata.var = pd.DataFrame(index=[f"gene{i}" for i in range(adata.n_vars)])


def _unparsable(adata):
    adata.var = pd.DataFrame(index=["chr1:10", *adata.var_names[1:]])


def _beyond_the_end(adata):
    adata.var.loc[adata.var_names[0], ["start", "end"]] = (900_000_000, 900_000_500)
    adata.var_names = [f"peak{i}" for i in range(adata.n_vars)]


def _hg19(adata):
    adata.uns["genome"] = "hg19"


def _mouse(adata):
    adata.uns["genome"] = "mm10"


def _unrecognisable(adata):
    del adata.uns["genome"]


def _put(value):
    def change(adata):
        adata.X = adata.X.toarray()
        adata.X[4, 7] = value

    return change


def _normalised(adata):
    adata.X = adata.X.multiply(0.731).tocsr()


def _duplicated(adata):
    adata.var.iloc[1] = adata.var.iloc[0]
    adata.var_names = [f"peak{i}" for i in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_no_coordinates, "chrom"),
        (_unparsable, "chr1:10"),
        (_beyond_the_end, "beyond|end of"),
        (_hg19, "liftover_ocrs"),
        (_mouse, "mm10|mouse"),
        (_unrecognisable, "genome="),
        (_put(np.nan), "NaN|finite"),
        (_put(np.inf), "inf"),
        (_put(-1), "negative"),
        (_normalised, "not whole numbers.*layer="),
        (_duplicated, "repeat the coordinates"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_bad_input_is_refused_and_left_alone(folder, change, says):
    adata = make_cells()
    change(adata)
    before = adata.copy()
    with pytest.raises(ValueError, match=says):
        embedded(adata, folder, n_components=5)
    if np.isnan(adata.X.sum()):  # NaN is not equal to itself
        adata.X[4, 7] = before.X[4, 7] = 0
    assert_equal(adata, before)


def test_no_cells_or_one_cell(folder):
    with pytest.raises(ValueError, match="Nothing to read"):
        embedded(make_cells()[:0].copy(), folder)
    with pytest.raises(ValueError, match="at least two cells"):
        embedded(make_cells(n_cells=1), folder)


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"layer": "nope"}, KeyError, "nope"),
        ({"recipe": "tfidf"}, ValueError, "recipe"),
        ({"recipe": {"scale": 1}}, ValueError, "recipe"),
        ({"pooling": "max"}, ValueError, "pooling"),
        ({"precision": "fp8"}, ValueError, "precision"),
        ({"n_components": 0}, ValueError, "n_components"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_bad_options(folder, kwargs, error, says):
    with pytest.raises(error, match=says):
        embedded(make_cells(), folder, **kwargs)


def test_pooling_belongs_to_the_kind_of_model(folder):
    known = {"ChromFound": {"hidden_mean", "reconstruction"}, "RegionSet": {"mixture", "reconstruction"}}
    found = {}
    for pooling in ("hidden_mean", "mixture", "profile", "reconstruction"):
        if pooling in known.get(sfa.hub.load(folder).model_class, {"profile"}):
            adata = make_cells()
            found[pooling] = embedded(adata, folder, pooling=pooling, n_components=5)
            assert adata.uns["sfa"]["params"]["pooling"] == pooling
            continue
        with pytest.raises(ValueError, match=f"Unknown pooling '{pooling}' for model .* use 'auto' or one of"):
            embedded(make_cells(), folder, pooling=pooling)
    first, *others = [
        pooling for pooling in ("hidden_mean", "mixture", "profile", "reconstruction") if pooling in found
    ]
    np.testing.assert_array_equal(found[first], embedded(make_cells(), folder, n_components=5))
    for other in others:
        assert np.abs(found[other] - found[first]).max() > 1e-3 * np.abs(found[first]).max()


def test_a_mixture_has_no_whole_vector(folder):
    if sfa.hub.load(folder).model_class != "RegionSet":
        pytest.skip("no mixture")
    with pytest.raises(ValueError, match="Set n_components, or pooling='reconstruction'"):
        embedded(make_cells(), folder, pooling="mixture", n_components=None)


def test_unknown_model_and_device(folder):
    with pytest.raises(KeyError, match="chromfoundx"):
        sfa.tl.embed(make_cells(), model="chromfoundx")
    with pytest.raises(ValueError, match="device"):
        sfa.tl.embed(make_cells(), model=folder, device="abacus")
    with pytest.raises(TypeError, match="AnnData"):
        sfa.tl.embed(np.zeros((3, 3)), model=folder)


def test_interrupt_leaves_adata_as_it_was(folder, monkeypatch):
    adata = make_cells()
    before = adata.copy()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("scfound_atac.inference.chromfound.Runner.__call__", interrupted)
    monkeypatch.setattr("scfound_atac.inference.profiles.tfidf", interrupted)
    monkeypatch.setattr("scfound_atac.inference.mixture.spectral_fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded(adata, folder)
    assert_equal(adata, before)


# ---------------------------------------------------------------- real cells


def test_real_cells_need_no_declaration(folder, data_dir):
    """Genome recognised, layer of real counts, no labels: the one-line call."""
    adata = ad.read_h5ad(data_dir / "bone_marrow_atac.h5ad")[:40].copy()
    declared = adata[:, ::-1].copy()
    declared.uns["genome"] = "GRCh38"
    sfa.tl.embed(adata, model=folder, n_components=10)
    vectors = adata.obsm["X_sfa"]
    assert_same_up_to_rounding(vectors, embedded(declared, folder, n_components=10))
    assert (np.linalg.norm(vectors[1:] - vectors[:-1], axis=1) > 1e-3 * np.abs(vectors).max()).all()


def test_share_of_known_ocrs_is_recorded():
    adata = make_cells()
    sfa.tl.embed(adata, model="biosample-prior", n_components=4)
    found = sfa.genome.load_region_table().lookup(adata.var).found
    assert adata.uns["sfa"]["params"]["fraction_known"] == pytest.approx(found.mean())
