"""`sfa.tl.perturb_ocrs`: the table, planted links, what sharing leaves equal, and what bad input says."""

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

KEY = "sfa_perturbation"
COLUMNS = ["ocr", "gene", "group", "n_cells", "before", "after", "change", "relative_change"]
GENES = ["ACTB", "B2M", "GAPDH"]


def paired(atac: ad.AnnData, rna: ad.AnnData) -> md.MuData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return md.MuData({"atac": atac, "rna": rna})


@pytest.fixture(scope="module")
def cells(make_labelled) -> ad.AnnData:
    """To be read only."""
    adata = make_labelled(60, n_ocrs=200)
    adata.X = sparse.hstack([sparse.csr_matrix((60, 1), dtype=np.float32), adata.X[:, 1:]]).tocsr()  # OCR 0 is closed
    return adata


def expression(atac: ad.AnnData) -> ad.AnnData:
    """The first gene is driven by OCR 5."""
    rate = np.full((atac.n_obs, 3), 5.0)
    rate[:, 0] += 20 * (atac.X[:, [5]].toarray()[:, 0] > 0)
    counts = np.random.default_rng(0).poisson(rate).astype(np.float32)
    return ad.AnnData(counts, obs=pd.DataFrame(index=atac.obs_names.copy()), var=pd.DataFrame(index=GENES))


@pytest.fixture(scope="module")
def predictors(cells, tiny_backbones) -> dict[str, sfa.model.RNAPredictor]:
    sfa.settings.progress_bar = False
    made = {}
    for name in ("region-set", "chromfound", "epifoundation"):
        predictor = sfa.model.RNAPredictor(tiny_backbones[name], head="mlp")
        made[name] = predictor.train(paired(cells, expression(cells)), max_epochs=5, device="cpu")
    return made


@pytest.fixture(scope="module")
def predictor(predictors) -> sfa.model.RNAPredictor:
    return predictors["region-set"]


def perturb(data, predictor, ocrs, **kwargs):
    return sfa.tl.perturb_ocrs(data, predictor=predictor, ocrs=ocrs, **({"device": "cpu"} | kwargs))


def by_hand(adata, predictor, ocrs, factor=0.0, rows=slice(None)) -> pd.DataFrame:
    """Predictions of a copy of the cells in which the counts of some OCRs are changed, minus those of the cells."""
    changed = adata.copy()
    table = changed.X.toarray()
    table[:, ocrs] *= factor
    changed.X = sparse.csr_matrix(table)
    difference = predictor.predict(changed, device="cpu") - predictor.predict(adata, device="cpu")
    return difference.iloc[rows].mean(axis=0)


# ---------------------------------------------------------------- what is written


def test_table_is_that_of_predictions_with_closed_ocrs(cells, predictor):
    """With a region-set network, which does not scale to the cell's total, a closed OCR is one whose count is 0."""
    adata = cells.copy()
    names = list(adata.var_names[3:9])
    assert perturb(adata, predictor, names) is None
    table = adata.uns[KEY]
    assert list(table.columns) == COLUMNS
    assert len(table) == 6 * 3
    assert set(table["group"]) == {"all"}
    assert set(table["n_cells"]) == {60}
    before = predictor.predict(adata, device="cpu").mean(axis=0)
    for i, name in enumerate(names):
        rows = table[table["ocr"] == name].set_index("gene")
        np.testing.assert_allclose(rows["change"].loc[GENES], by_hand(cells, predictor, [3 + i])[GENES], atol=1e-4)
        np.testing.assert_allclose(rows["before"].loc[GENES], before[GENES], atol=1e-4)
    assert table["change"].abs().max() > 1e-3
    np.testing.assert_allclose(table["after"], table["before"] + table["change"])
    np.testing.assert_allclose(table["relative_change"], table["change"] / table["before"])
    assert adata.uns[f"{KEY}_params"] == {
        "model": "tiny",
        "weights_sha256": "",
        "head": "mlp",
        "scale": "log1p",
        "to": 0.0,
        "groupby": "",
        "layer": "X",
        "version": sfa.__version__,
    }
    del adata.uns[KEY], adata.uns[f"{KEY}_params"]
    assert_equal(adata, cells)


def test_sets_and_factor(cells, predictor):
    adata = cells.copy()
    names = adata.var_names
    perturb(adata, predictor, {"both": [names[3], names[5]], "one": names[5]}, genes=["B2M", "ACTB"])
    table = sfa.get.perturbation(adata)
    assert list(table["ocr"].cat.categories) == ["both", "one"]
    assert list(table["gene"].cat.categories) == ["B2M", "ACTB"]
    both = table[table["ocr"] == "both"].set_index("gene")["change"]
    np.testing.assert_allclose(both.loc[["ACTB", "B2M"]], by_hand(cells, predictor, [3, 5])[["ACTB", "B2M"]], atol=1e-4)
    perturb(adata, predictor, names[5], to=2, key_added="up")
    perturb(adata, predictor, names[5], to=0.5, key_added="down")
    perturb(adata, predictor, names[5], to=1, key_added="same")
    up, down, same = (sfa.get.perturbation(adata, key=key)["change"].to_numpy() for key in ("up", "down", "same"))
    assert not same.any()
    closed = table[table["ocr"] == "one"].set_index("gene")["change"]
    assert np.sign(down[0]) == np.sign(closed["ACTB"]) == -np.sign(up[0])
    assert 0 < abs(down[0]) < abs(closed["ACTB"])


@pytest.mark.parametrize("name", ["region-set", "chromfound", "epifoundation"])
def test_shared_work_gives_the_same_table(cells, predictors, name, monkeypatch):
    """Of each kind of model, against runs of every perturbed cell."""
    adata, ocrs = cells.copy(), list(cells.var_names[::15])
    perturb(adata, predictors[name], ocrs, groupby="cell_type")
    fast = sfa.get.perturbation(adata)
    run = sfa.model.RNAPredictor.perturb
    monkeypatch.setattr(sfa.model.RNAPredictor, "perturb", lambda *a, **k: run(*a, **k, share=False))
    perturb(adata, predictors[name], ocrs, groupby="cell_type")
    slow = sfa.get.perturbation(adata)
    np.testing.assert_allclose(fast["change"], slow["change"], atol=1e-4)
    np.testing.assert_allclose(fast["before"], slow["before"], atol=1e-4)
    assert slow["change"].abs().max() > 1e-3


def test_groups(cells, predictor):
    adata = cells.copy()
    labels = np.array(["a", "b", "c"])[np.arange(60) % 3].astype(object)
    labels[:5] = "unknown"  # no label
    labels[5] = "alone"
    adata.obs["group"] = labels
    perturb(adata, predictor, [adata.var_names[5]], groupby="group")
    table = sfa.get.perturbation(adata, gene="ACTB").set_index("group")
    assert list(table.index) == ["a", "alone", "b", "c"]
    assert table["n_cells"].sum() == 55
    assert table.loc["alone", "n_cells"] == 1
    for group in ("a", "alone"):
        want = by_hand(cells, predictor, [5], rows=np.flatnonzero(labels == group))["ACTB"]
        assert table.loc[group, "change"] == pytest.approx(want, abs=1e-4)


def test_one_cell(cells, predictor):
    row = int(np.flatnonzero(cells.X[:, [5]].toarray()[:, 0])[0])
    one = cells[[row]].copy()
    perturb(one, predictor, [one.var_names[5], one.var_names[0]])
    table = sfa.get.perturbation(one)
    assert set(table["n_cells"]) == {1}
    want = by_hand(cells, predictor, [5], rows=[row])[GENES]
    np.testing.assert_allclose(table["change"].to_numpy()[:3], want, atol=1e-4)
    assert abs(want).max() > 1e-3
    assert not table["change"].to_numpy()[3:].any()


def test_no_candidates(cells, predictor, tmp_path):
    adata = cells.copy()
    for nothing in ([], {}, pd.Index([], dtype=object)):
        perturb(adata, predictor, nothing, groupby="cell_type")
        table = sfa.get.perturbation(adata)
        assert list(table.columns) == COLUMNS
        assert len(table) == 0
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert len(sfa.get.perturbation(ad.read_h5ad(tmp_path / "a.h5ad"))) == 0
    perturb(adata, predictor, list(adata.var_names[:2]), genes=[])
    assert len(sfa.get.perturbation(adata)) == 0


@pytest.mark.parametrize("to", [0.0, 0.5, 3.0])
def test_closed_ocr_changes_nothing_and_is_told(cells, predictor, to, caplog):
    adata = cells.copy()
    with caplog.at_level(logging.WARNING):
        perturb(adata, predictor, list(adata.var_names[[0, 5]]), to=to)
    assert (
        f"1 of 2 perturbations change nothing, because their OCRs are closed in every cell ({adata.var_names[0]})"
        in caplog.text
    )
    table = sfa.get.perturbation(adata, ocr=adata.var_names[0])
    assert not table["change"].any()
    assert not table["relative_change"].any()
    np.testing.assert_array_equal(table["before"], table["after"])


def test_ocrs_by_coordinates(cells, predictor):
    adata = cells.copy()
    chrom, start, end = adata.var.iloc[5][["chrom", "start", "end"]]
    spellings = [f"{chrom}:{start}-{end}", f"{chrom}-{start}-{end}", f"{chrom[3:]}:{start:,}-{end:,}"]
    adata.var_names = [f"peak_{i}x" for i in range(adata.n_vars)]
    perturb(adata, predictor, [*spellings, "peak_5x"], genes=["ACTB"])
    table = sfa.get.perturbation(adata)
    assert list(table["ocr"]) == [*spellings, "peak_5x"]
    assert len(set(table["change"])) == 1
    assert table["change"].iloc[0] == pytest.approx(by_hand(cells, predictor, [5])["ACTB"], abs=1e-4)
    assert table["change"].iloc[0] != 0


def test_repeated_names_of_ocrs(cells, predictor):
    adata = cells.copy()
    chrom, start, end = adata.var.iloc[1][["chrom", "start", "end"]]
    names = [f"peak_{i}x" for i in range(adata.n_vars)]
    names[:2] = ["twice", "twice"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.var_names = names
        with pytest.raises(ValueError, match=r"several OCRs of adata are named 'twice'. Give coordinates"):
            perturb(adata, predictor, ["twice"])
        perturb(adata, predictor, [f"{chrom}:{start}-{end}", "peak_5x"], genes=["ACTB"])
    changes = sfa.get.perturbation(adata)["change"]
    np.testing.assert_allclose(changes, [by_hand(cells, predictor, [i])["ACTB"] for i in (1, 5)], atol=1e-4)


def test_scaffolds(cells, predictors, caplog):
    """ChromFound does not know them: its vectors stay, and what is measured on them still counts."""
    adata = cells.copy()
    adata.var["chrom"] = ["chr1", "chrM", "KI270728.1", *adata.var["chrom"][3:].astype(str)]
    adata.var_names = [f"peak_{i}x" for i in range(200)]
    vectors_only = sfa.model.RNAPredictor(predictors["chromfound"].checkpoint, head="mlp", measured=False)
    vectors_only.train(paired(adata.copy(), expression(adata)), max_epochs=2, device="cpu")
    perturb(adata, vectors_only, ["peak_1x", "peak_2x", "peak_5x"])
    table = sfa.get.perturbation(adata)
    assert not table["change"].to_numpy()[:6].any()
    assert table["change"].to_numpy()[6:].any()
    perturb(adata, predictors["region-set"], ["peak_1x", "peak_2x"])
    assert np.isfinite(sfa.get.perturbation(adata)["change"]).all()


def test_relative_change_of_a_gene_without_expression(cells, predictor, monkeypatch):
    adata = cells.copy()
    run = sfa.model.RNAPredictor.perturb

    def shifted(*args, **kwargs):
        effects = run(*args, **kwargs)
        effects.before[:, 1] = 1e-4
        effects.before[:, 2] = -0.5
        return effects

    monkeypatch.setattr(sfa.model.RNAPredictor, "perturb", shifted)
    perturb(adata, predictor, [adata.var_names[5]])
    table = sfa.get.perturbation(adata)
    np.testing.assert_array_equal(np.isnan(table["relative_change"]), [False, True, True])
    assert table["change"].notna().all()


# ---------------------------------------------------------------- where it is written


def test_mudata_and_files(cells, predictor, tmp_path):
    mdata = paired(cells.copy(), expression(cells))
    names = list(cells.var_names[3:6])
    perturb(mdata, predictor, names, groupby="cell_type")
    assert KEY in mdata["atac"].uns
    assert KEY not in mdata.uns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata.write_h5mu(tmp_path / "a.h5mu")
        again = md.read_h5mu(tmp_path / "a.h5mu")
    one, two = sfa.get.perturbation(mdata), sfa.get.perturbation(again)
    pd.testing.assert_frame_equal(one, two, check_index_type=False, check_categorical=False)
    assert again["atac"].uns[f"{KEY}_params"] == mdata["atac"].uns[f"{KEY}_params"]
    perturb(again, predictor, names)  # what was read can be written again
    for suffix in ("h5ad", "zarr"):
        adata = mdata["atac"].copy()
        getattr(adata, f"write_{suffix}")(tmp_path / f"a.{suffix}")
        read = getattr(ad, f"read_{suffix}")(tmp_path / f"a.{suffix}")
        pd.testing.assert_frame_equal(
            sfa.get.perturbation(read), one, check_index_type=False, check_categorical=False, check_dtype=False
        )


def test_copy_views_folder_and_key(cells, predictor, tmp_path):
    adata = cells.copy()
    done = perturb(adata, predictor.save(tmp_path / "model"), [adata.var_names[5]], copy=True, key_added="mine")
    assert_equal(adata, cells)
    table = sfa.get.perturbation(done, key="mine")
    perturb(adata, predictor, [adata.var_names[5]], key_added="mine")
    np.testing.assert_allclose(sfa.get.perturbation(adata, key="mine")["change"], table["change"], atol=1e-6)
    perturb(adata, predictor, [adata.var_names[4]], key_added="mine")  # its own table may be replaced
    assert sfa.get.perturbation(adata, key="mine")["ocr"].iloc[0] == adata.var_names[4]
    some = cells[:20]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        perturb(some, predictor, [some.var_names[5]])
    assert sfa.get.perturbation(some)["n_cells"].iloc[0] == 20
    mdata = paired(cells.copy(), expression(cells))
    view = mdata[:20]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        perturb(view, predictor, [cells.var_names[5]])
    assert sfa.get.perturbation(view)["n_cells"].iloc[0] == 20
    assert KEY not in mdata["atac"].uns


# ---------------------------------------------------------------- errors, which leave data as they were


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"genes": ["NOWHERE"]}, KeyError, "1 genes were not trained on, among them NOWHERE"),
        ({"genes": ["ACTB", "ACTB"]}, ValueError, "repeat"),
        ({"genes": "ACTB"}, TypeError, r"genes=\['ACTB'\]"),
        ({"ocrs": ["chr1:5-900"]}, KeyError, "1 of 1 OCRs of ocrs= are not in adata, among them 'chr1:5-900'"),
        ({"ocrs": {"set": ["nothing at all"]}}, KeyError, "not in adata, among them 'nothing at all'"),
        ({"ocrs": {"set": []}}, ValueError, r"ocrs\['set'\] holds no OCR"),
        ({"ocrs": {3: ["a"]}}, TypeError, "as text"),
        ({"ocrs": [3]}, TypeError, "ocrs= takes names of OCRs.*list with 3"),
        ({"ocrs": 3}, TypeError, "ocrs= takes names of OCRs.*int"),
        ({"ocrs": None}, TypeError, "ocrs= takes names of OCRs.*NoneType"),
        ({"ocrs": "twice"}, ValueError, r"1 OCRs repeat in ocrs=.*dict.fromkeys"),
        ({"to": -0.5}, ValueError, "to=-0.5 must be a number of at least 0"),
        ({"to": np.inf}, ValueError, "to=inf must be"),
        ({"to": "0"}, TypeError, "to= takes a number"),
        ({"to": True}, TypeError, "to= takes a number"),
        ({"groupby": "nowhere"}, KeyError, "no column 'nowhere'"),
        ({"layer": "nowhere"}, KeyError, "no layer 'nowhere'"),
        ({"key_added": "a/b"}, ValueError, "a/b"),
        ({"key_added": "genome"}, ValueError, r"adata.uns\['genome'\] is there already"),
        ({"predictor": "untrained"}, RuntimeError, r"not trained: call train\(mdata\) first"),
        ({"predictor": 3}, TypeError, "RNAPredictor is opened by"),
        ({"device": "cuda"}, ValueError, "device='cuda'"),
    ],
)
def test_errors(cells, predictor, kwargs, error, message):
    adata = cells.copy()
    options = {"predictor": predictor, "ocrs": [adata.var_names[5]]} | kwargs
    if options["predictor"] == "untrained":
        options["predictor"] = sfa.model.RNAPredictor(predictor.checkpoint)
    if options["ocrs"] == "twice":
        options["ocrs"] = [adata.var_names[5]] * 2
    with pytest.raises(error, match=message):
        sfa.tl.perturb_ocrs(adata, **options)
    assert_equal(adata, cells, exact=True)


# ---------------------------------------------------------------- a planted link


def planted(n_cells: int = 500, n_ocrs: int = 3_000) -> tuple[md.MuData, list[str], str]:
    """Cells of four types with one more thing to see: a gene that one of the 200 OCRs around it drives, in cells of all types."""
    rng = np.random.default_rng(0)
    gene = sfa.datasets.genes().set_index("name").loc["BACH2"]
    tss = gene["end"] if gene["strand"] == "-" else gene["start"]
    chrom = np.where(np.arange(n_ocrs) < 200, gene["chrom"], "chr1")
    start = np.where(
        np.arange(n_ocrs) < 200, tss - 200_000 + 2_000 * np.arange(n_ocrs), 10**6 + 5_000 * np.arange(n_ocrs)
    )
    var = pd.DataFrame({"chrom": chrom, "start": start, "end": start + 400})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    kind = rng.integers(4, size=n_cells)
    own = np.arange(n_ocrs)[None, :] % 4 == kind[:, None]
    counts = rng.poisson(rng.uniform(0.05, 0.15, n_ocrs) * np.where(own, 2.0, 0.75)).astype(np.float32)
    cause = 77
    counts[:, cause] = rng.poisson(0.3, n_cells)
    rate = np.column_stack(
        [1 + 6 * (counts[:, cause] > 0), *[1 + 3 * (kind == k) for k in range(4)], np.full(n_cells, 200)]
    )
    index = [f"cell{i}" for i in range(n_cells)]
    atac = ad.AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame(index=index), var=var, uns={"genome": "GRCh38"})
    genes = pd.DataFrame(index=["BACH2", "CD4", "CD14", "MS4A1", "NKG7", "ACTB"])
    rna = ad.AnnData(rng.poisson(rate).astype(np.float32), obs=pd.DataFrame(index=index), var=genes)
    return paired(atac, rna), list(var.index[:200]), var.index[cause]


def test_planted_link_is_found_by_the_local_part():
    sfa.settings.progress_bar = False
    mdata, candidates, cause = planted()
    predictor = sfa.model.RNAPredictor(local=250_000).train(mdata, max_epochs=5, device="cpu")
    assert predictor.gene_report.loc["BACH2", "pearson"] > 0.4
    perturb(mdata, predictor, candidates, genes=["BACH2", "CD4"])
    table = sfa.get.perturbation(mdata, gene="BACH2").set_index("ocr")
    size = table["change"].abs().sort_values(ascending=False)
    assert size.index[0] == cause
    assert size.iloc[0] > 3 * size.iloc[1]
    # the true effect: without the OCR all cells have the lower rate
    scaled = mdata["rna"].X / mdata["rna"].X.sum(axis=1, keepdims=True) * 1e4
    is_open = mdata["atac"][:, cause].X.toarray()[:, 0] > 0
    expression = np.log1p(scaled[:, 0])
    truth = expression[~is_open].mean() - expression.mean()
    assert truth < -0.2
    assert 1.1 * truth < table.loc[cause, "change"] < 0.5 * truth  # the penalty makes it smaller than it is
    of_another = sfa.get.perturbation(mdata, gene="CD4")["change"].abs().max()
    assert of_another < 0.2 * size.iloc[0]
