"""`sfa.tl.embed` with a peak-set model: any OCR set in, and what is told of what did not fit."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal

import scfound_atac as sfa

N_CELLS = 30
COLUMNS = [f"sfa_{name}" for name in ("n_tokens", "open_kept", "open_lost", "open_ambiguous")]


@pytest.fixture(scope="module")
def folder(make_epifoundation, tmp_path_factory):
    net, vocabularies = make_epifoundation()
    return sfa.hub.save(net, tmp_path_factory.mktemp("models") / "tiny", vocabularies=vocabularies)


@pytest.fixture(scope="module")
def ocrs(folder) -> pd.DataFrame:
    return sfa.hub.load(folder).vocabularies.ocrs


def make_cells(ocrs: pd.DataFrame, n_cells: int = N_CELLS) -> ad.AnnData:
    """Cells of very different depth over the vocabulary's own peaks."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0.02, 0.7, size=(n_cells, 1))
    counts = sp.csr_matrix((rng.random((n_cells, len(ocrs))) < share) * rng.integers(1, 4, (n_cells, len(ocrs))))
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    return ad.AnnData(
        counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=sfa.genome.ocr_names(ocrs)), uns={"genome": "GRCh38"}
    )


def embedded(adata: ad.AnnData, folder, **kwargs) -> np.ndarray:
    sfa.tl.embed(adata, model=folder, device="cpu", **kwargs)
    return adata.obsm["X_sfa"]


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------- what is written


def test_writes_documented_fields_and_survives_h5ad(folder, ocrs, tmp_path):
    adata = make_cells(ocrs)
    before = adata.copy()
    vectors = embedded(adata, folder)
    assert vectors.shape == (N_CELLS, 16)
    assert vectors.dtype == np.float32
    record = adata.uns["sfa"]
    assert record["params"]["weights_sha256"] == sfa.hub.load(folder).sha256
    assert (record["params"]["pooling"], record["params"]["n_components"]) == ("cls", 0)
    assert record["params"]["n_ocrs_used"] == len(ocrs)
    assert record["coverage"]["fraction_open"] == record["coverage"]["fraction_vocabulary"] == 1
    np.testing.assert_array_equal(adata.obs["sfa_n_tokens"], np.diff(adata.X.indptr))
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm["X_sfa"], vectors)
    assert again.uns["sfa"]["coverage"] == record["coverage"]
    del adata.obsm["X_sfa"], adata.uns["sfa"]
    adata.obs = adata.obs.drop(columns=COLUMNS)
    assert_equal(adata, before)


def test_mudata_key_copy_and_view(folder, ocrs, tmp_path):
    adata = make_cells(ocrs)
    mdata = md.MuData({"atac": adata.copy()})
    sfa.tl.embed(mdata, model=folder, key_added="mine", device="cpu")
    assert set(mdata["atac"].obs) == {name.replace("sfa", "mine") for name in COLUMNS}
    mdata.write_h5mu(tmp_path / "a.h5mu")
    again = md.read_h5mu(tmp_path / "a.h5mu")["atac"].obsm["mine"]
    copied = sfa.tl.embed(adata, model=folder, device="cpu", copy=True)
    np.testing.assert_array_equal(again, copied.obsm["X_sfa"])
    assert "X_sfa" not in adata.obsm
    view = adata[5:9]
    with pytest.warns(ad.ImplicitModificationWarning):
        assert_same(embedded(view, folder), copied.obsm["X_sfa"][5:9])


def test_principal_components_on_demand(folder, ocrs):
    adata = make_cells(ocrs)
    whole = embedded(make_cells(ocrs), folder)
    vectors = embedded(adata, folder, n_components=4)
    record = adata.uns["sfa"]
    assert vectors.shape == (N_CELLS, 4)
    assert len(record["variance_ratio"]) == 4
    assert_same(vectors, (whole - record["mean"]) @ record["pcs"])
    with pytest.raises(ValueError, match="at least two cells"):
        embedded(make_cells(ocrs, 1), folder, n_components=4)


# ---------------------------------------------------------------- what must not matter


def test_order_of_cells_and_ocrs_does_not_matter(folder, ocrs):
    rng = np.random.default_rng(1)
    cells, columns = rng.permutation(N_CELLS), rng.permutation(len(ocrs))
    plain = embedded(make_cells(ocrs), folder)
    assert_same(embedded(make_cells(ocrs)[cells][:, columns].copy(), folder), plain[cells])


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_other_cells_and_batches_do_not_matter(folder, ocrs, batch_size):
    plain = embedded(make_cells(ocrs), folder)
    assert_same(embedded(make_cells(ocrs), folder, batch_size=batch_size), plain)
    for i in (0, 17):
        assert_same(embedded(make_cells(ocrs)[i].copy(), folder, batch_size=batch_size), plain[[i]])


@pytest.mark.parametrize(
    "convert",
    [sp.csc_matrix, sp.csr_array, lambda x: x.toarray(), lambda x: x.toarray() > 0],
    ids=["csc", "csr_array", "dense", "boolean"],
)
def test_storage_does_not_matter(folder, ocrs, convert):
    adata = make_cells(ocrs)
    adata.X = convert(adata.X)
    assert_same(embedded(adata, folder), embedded(make_cells(ocrs), folder))


def test_layer_and_backed(folder, ocrs, tmp_path):
    plain, adata = embedded(make_cells(ocrs), folder), make_cells(ocrs)
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert_same(embedded(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"), folder), plain)
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0.37
    with pytest.raises(ValueError, match=r"already normalised.*layers: \['counts'\].*binarise"):
        embedded(adata, folder)
    assert_same(embedded(adata, folder, layer="counts"), plain)


@pytest.mark.parametrize("form", ["{c}-{s}-{e}", "{bare}_{s}_{e}", "columns", "shifted"])
def test_any_form_of_coordinates(folder, ocrs, form):
    adata = make_cells(ocrs)
    if form == "columns":
        adata.var = pd.DataFrame(
            {
                "#Chromosome": ocrs["chrom"].to_numpy(),
                "hg38_Start": ocrs["start"].to_numpy(),
                "hg38_End": ocrs["end"].to_numpy(),
            },
            index=[f"p{i}" for i in range(len(ocrs))],
        )
    elif form == "shifted":
        adata.var_names = sfa.genome.ocr_names(ocrs.assign(start=ocrs["start"] + 70, end=ocrs["end"] + 90))
    else:
        adata.var_names = [form.format(c=c, bare=c[3:], s=s, e=e) for c, s, e, _ in ocrs.itertuples(index=False)]
    np.testing.assert_array_equal(embedded(adata, folder), embedded(make_cells(ocrs), folder))


# ---------------------------------------------------------------- OCRs that do not fit, cells with too many or none


def foreign(ocrs: pd.DataFrame, n_known: int) -> ad.AnnData:
    """Of 100 OCRs, open in every cell but the last, the first `n_known` are in the vocabulary."""
    elsewhere = [f"chr5:{1000 * i}-{1000 * i + 500}" for i in range(100 - n_known)]
    adata = ad.AnnData(sp.csr_matrix(np.ones((4, 100), np.float32)), uns={"genome": "GRCh38"})
    adata.var_names = [*sfa.genome.ocr_names(ocrs.iloc[:n_known]), *elsewhere]
    adata.X = adata.X - sp.csr_matrix(np.outer(np.arange(4) == 3, np.arange(100) < n_known).astype(np.float32))
    return adata


def test_coverage_floor(folder, ocrs):
    adata = foreign(ocrs, 5)
    before = adata.copy()
    with pytest.raises(
        ValueError, match=r"Only 3.8% of the open OCRs \(5.0% of the 100 OCRs\).*liftover_ocrs.*region-set"
    ):
        embedded(adata, folder)
    assert_equal(adata, before)
    with pytest.raises(ValueError, match="Only 0.0%"):
        embedded(foreign(ocrs, 0), folder)


def test_coverage_is_told(folder, ocrs, caplog):
    adata = foreign(ocrs, 20)
    with caplog.at_level("WARNING", logger="scfound_atac"):
        vectors = embedded(adata, folder)
    assert "1 of 4 cells have no open OCR in the vocabulary" in caplog.text
    assert list(adata.obs["sfa_n_tokens"]) == [20, 20, 20, 0]
    np.testing.assert_allclose(adata.obs["sfa_open_lost"], [0.8, 0.8, 0.8, 1])
    np.testing.assert_allclose(adata.obs["sfa_open_kept"], [0.2, 0.2, 0.2, 0])
    assert adata.uns["sfa"]["coverage"]["fraction_vocabulary"] == pytest.approx(0.1)
    assert adata.uns["sfa"]["coverage"]["fraction_ocrs"] == pytest.approx(0.2)
    assert adata.uns["sfa"]["params"]["n_ocrs_used"] == 20
    assert np.isfinite(vectors).all()
    assert_same(vectors[0], vectors[2])
    assert np.abs(vectors[3] - vectors[0]).max() > 1e-3


def test_empty_cells(folder, ocrs, caplog):
    adata = make_cells(ocrs)
    plain = embedded(adata.copy(), folder)
    adata.X = sp.vstack([sp.csr_matrix((2, len(ocrs)), dtype=np.float32), adata.X[2:]], format="csr")
    with caplog.at_level("WARNING", logger="scfound_atac"):
        vectors = embedded(adata, folder)
    assert "2 of 30 cells" in caplog.text
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert_same(vectors[2:], plain[2:])
    assert adata.obs["sfa_open_kept"].isna().sum() == 2
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)
    assert_same(embedded(adata, folder), np.repeat(vectors[:1], N_CELLS, axis=0))


def test_subsampling(make_epifoundation, ocrs, tmp_path):
    net, vocabularies = make_epifoundation(max_tokens=40)
    folder = sfa.hub.save(net, tmp_path / "short", vocabularies=vocabularies)
    adata = make_cells(ocrs)
    vectors = embedded(adata, folder)
    n_open = np.diff(adata.X.indptr)
    assert 0 < (n_open > 40).sum() == adata.uns["sfa"]["coverage"]["n_cells_subsampled"] < N_CELLS
    np.testing.assert_array_equal(adata.obs["sfa_n_tokens"], np.minimum(n_open, 40))
    order = np.random.default_rng(2).permutation(N_CELLS)
    columns = np.arange(len(ocrs))[::-1]
    assert_same(embedded(make_cells(ocrs)[order][:, columns].copy(), folder), vectors[order])
    other = embedded(make_cells(ocrs), folder, seed=1)
    differs = np.abs(other - vectors).max(axis=1) > 1e-4
    np.testing.assert_array_equal(differs, n_open > 40)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"pooling": "hidden_mean"}, "use 'auto' or one of \\('cls',\\)"),
        ({"precision": "fp8"}, "precision"),
        ({"batch_size": 0}, "batch_size"),
        ({"n_components": 0}, "n_components"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_bad_options(folder, ocrs, kwargs, says):
    with pytest.raises(ValueError, match=says):
        sfa.tl.embed(make_cells(ocrs), model=folder, **kwargs)


def test_basis_is_not_needed(folder, ocrs):
    reference = make_cells(ocrs)
    embedded(reference, folder)
    with pytest.raises(ValueError, match="needs no basis"):
        embedded(make_cells(ocrs), folder, basis=reference)


def test_not_a_network_of_another_model_class(folder, ocrs):
    """Training of ChromFound refuses it, as it does all other kinds."""
    with pytest.raises((TypeError, ValueError), match="ChromFound|EpiFoundation"):
        sfa.model.ChromFound.from_pretrained(folder, make_cells(ocrs))
