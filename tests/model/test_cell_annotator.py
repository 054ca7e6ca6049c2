"""`CellAnnotator`: every backbone and mode, other OCRs, labels as they come, and the folder it is stored in."""

from __future__ import annotations

import json

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal
from lightning.pytorch.loggers import CSVLogger
from safetensors.numpy import load_file, save_file
from sklearn.metrics import roc_auc_score

import scfound_atac as sfa
from scfound_atac.model import CellAnnotator

KEY = "cell_type"
QUICK = {"max_epochs": 2, "train_batch_size": 32}
MODES = [
    ("region-set", "probe"),
    ("region-set", "finetune"),
    ("chromfound", "probe"),
    ("chromfound", "finetune"),
    ("chromfound", "paper"),
    ("epifoundation", "probe"),
    ("epifoundation", "finetune"),
    ("epifoundation", "paper"),
]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(sfa.settings, "progress_bar", False)


@pytest.fixture(scope="module")
def reference(make_labelled):
    return make_labelled(160)


@pytest.fixture(scope="module")
def query(make_labelled):
    return make_labelled(60, seed=1)


@pytest.fixture(scope="module")
def annotators(tiny_backbones, reference):
    """One trained annotator per backbone and mode."""
    made = {}

    def of(backbone: str, mode: str) -> CellAnnotator:
        if (backbone, mode) not in made:
            options = {} if mode == "probe" else dict(QUICK)
            if (backbone, mode) == ("chromfound", "finetune"):
                options["crop_size"] = 100
            made[backbone, mode] = CellAnnotator(tiny_backbones[backbone]).train(
                reference, KEY, mode=mode, device="cpu", **options
            )
        return made[backbone, mode]

    return of


def top(annotation) -> np.ndarray:
    return annotation.probabilities.fillna(0).idxmax(axis=1).to_numpy()


def accuracy(annotation, cells: ad.AnnData) -> float:
    return float((top(annotation) == cells.obs[KEY].to_numpy()).mean())


def assert_same(one, other, rtol: float = 1e-3) -> None:
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)
    np.testing.assert_allclose(one.novelty, other.novelty, rtol=rtol)
    assert (one.labels.to_numpy() == other.labels.to_numpy()).mean() > 0.98


# ---------------------------------------------------------------- backbones and modes


@pytest.mark.parametrize(("backbone", "mode"), MODES)
def test_labels_cells(annotators, query, backbone, mode):
    annotator = annotators(backbone, mode)
    before = query.copy()
    told = annotator.predict(query, device="cpu")
    assert_equal(query, before)
    assert list(told.labels.cat.categories) == ["B", "Mono", "NK", "T", "unknown"]
    assert told.labels.index.equals(query.obs_names)
    np.testing.assert_allclose(told.probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(told.confidence, told.probabilities.max(axis=1))
    known = told.labels != "unknown"
    assert (told.labels[known].to_numpy() == top(told)[known]).all()
    for label in told.probabilities:  # the threshold is one for all cells nearest to the same label
        of_label = top(told) == label
        assert told.novelty[known & of_label].max() <= told.novelty[~known & of_label].min() or known[of_label].all()
    if mode != "paper":  # two epochs are too few for a head that starts from nothing
        assert accuracy(told, query) > 0.9
        assert known.mean() > 0.6
    assert told.fraction_ocrs == (0 if mode == "paper" else 1)
    assert f"mode {mode!r}" in repr(annotator)


@pytest.mark.parametrize(("backbone", "mode"), MODES)
def test_report(annotators, backbone, mode):
    annotator = annotators(backbone, mode)
    report = annotator.report
    assert (report["n_cells"], report["n_labels"], report["n_left_out"]) == (160, 4, 0)
    assert {f"held_out_{name}" for name in ("accuracy", "macro_f1", "auc", "ece")} <= set(report)
    assert len(report["novelty_auroc"]) == 4
    assert len(report["history"]) == (0 if mode == "probe" else 2)
    assert set(annotator.history) == (set() if mode == "probe" else {"loss", "validation_macro_f1"})
    for name, table in annotator.history.items():
        assert list(table[name]) == [row[name] for row in report["history"]]
        assert (table.index.name, list(table.index)) == ("epoch", [0, 1])
    json.dumps(report)


def test_finetuning_changes_the_backbone_that_is_read(annotators, tiny_backbones, query):
    given = tiny_backbones["region-set"].net.state_dict()
    trained = annotators("region-set", "finetune")._features.checkpoint
    assert any((trained.net.state_dict()[name] != x).any() for name, x in given.items())
    assert trained.training["objective"] == "cell types, finetune"
    assert trained.training["n_cells"] == 144
    assert annotators("region-set", "probe")._features.checkpoint.net is tiny_backbones["region-set"].net


@pytest.mark.slow
def test_paper_mode_learns(tiny_backbones, reference, query):
    annotator = CellAnnotator(tiny_backbones["chromfound"])
    annotator.train(reference, KEY, mode="paper", device="cpu", max_epochs=5, lr=2e-3, train_batch_size=32)
    assert accuracy(annotator.predict(query), query) > 0.6


def test_bundled_backbone_labels_blood():
    atac = sfa.datasets.pbmc_multiome_sample()["atac"]
    rows = np.random.default_rng(0).permutation(atac.n_obs)
    annotator = CellAnnotator().train(atac[rows[:1000]].copy(), KEY)
    told = annotator.predict(atac[rows[1000:1500]].copy())
    truth = atac[rows[1000:1500]].obs[KEY].astype(str)
    assert (top(told) == truth.to_numpy()).mean() > 0.55
    assert annotator.report["held_out_accuracy"] == pytest.approx((top(told) == truth.to_numpy()).mean(), abs=0.12)
    assert annotator.report["held_out_ece"] < 0.15


# ---------------------------------------------------------------- what must not matter


@pytest.mark.parametrize(("backbone", "mode"), MODES)
def test_order_of_cells_and_ocrs(annotators, query, backbone, mode):
    annotator = annotators(backbone, mode)
    rng = np.random.default_rng(2)
    rows, columns = rng.permutation(query.n_obs), rng.permutation(query.n_vars)
    plain, shuffled = annotator.predict(query), annotator.predict(query[rows][:, columns].copy())
    np.testing.assert_allclose(shuffled.probabilities, plain.probabilities.iloc[rows], atol=1e-3)
    np.testing.assert_allclose(shuffled.novelty, plain.novelty.iloc[rows], rtol=1e-2)


@pytest.mark.parametrize("convert", [sp.csc_matrix, sp.csr_array, lambda x: x.toarray()], ids=["csc", "array", "dense"])
def test_storage(annotators, query, convert):
    other = query.copy()
    other.X = convert(query.X)
    annotator = annotators("epifoundation", "probe")
    assert_same(annotator.predict(other), annotator.predict(query))


def test_layer_backed_and_modality(annotators, query, tmp_path):
    annotator = annotators("epifoundation", "probe")
    plain = annotator.predict(query)
    query.write_h5ad(tmp_path / "query.h5ad")
    assert_same(annotator.predict(ad.read_h5ad(tmp_path / "query.h5ad", backed="r")), plain)
    other = query.copy()
    other.layers["counts"] = query.X.copy()
    other.X = query.X * 0.3
    with pytest.raises(ValueError, match="not whole numbers.*layer="):
        annotator.predict(other)
    assert_same(annotator.predict(other, layer="counts"), plain)
    assert_same(annotator.predict(md.MuData({"peaks": query.copy()}), modality="peaks"), plain)


def test_same_seed_same_result(tiny_backbones, reference, query):
    def told(seed: int):
        annotator = CellAnnotator(tiny_backbones["epifoundation"], seed=seed)
        annotator.train(reference, KEY, mode="finetune", max_epochs=1, device="cpu")
        return annotator.predict(query)

    one, same = told(0), told(0)
    pd.testing.assert_frame_equal(one.probabilities, same.probabilities)
    pd.testing.assert_series_equal(one.novelty, same.novelty)
    assert np.abs(told(1).novelty - one.novelty).max() > 1e-6


# ---------------------------------------------------------------- other OCRs


def test_half_of_the_ocrs(annotators, query):
    told = annotators("epifoundation", "probe").predict(query[:, ::2].copy())
    assert told.fraction_ocrs == pytest.approx(0.5, abs=0.05)
    assert accuracy(told, query) > 0.85


def test_shifted_ocrs(annotators, query):
    other = query.copy()
    other.var = other.var.assign(start=other.var["start"] + 20, end=other.var["end"] + 35)
    other.var_names = [f"{c}-{s}-{e}" for c, s, e in other.var.itertuples(index=False)]
    other.var = other.var[[]]
    told = annotators("epifoundation", "probe").predict(other)
    assert told.fraction_ocrs > 0.95
    assert accuracy(told, query) > 0.95


def test_without_shared_ocrs_labels_rest_on_the_backbone(tiny_backbones, reference, query, caplog):
    annotator = CellAnnotator(tiny_backbones["region-set"]).train(reference[:, :300].copy(), KEY)
    with caplog.at_level("WARNING", logger="scfound_atac"):
        told = annotator.predict(query[:, 300:].copy())
    assert "of the reference's OCRs are in the query: labels rest on the backbone alone" in caplog.text
    assert told.fraction_ocrs == 0
    np.testing.assert_allclose(told.probabilities.sum(axis=1), 1)


@pytest.mark.slow
def test_labels_survive_an_ocr_set_without_overlap(data_dir, caplog):
    marrow = ad.read_h5ad(data_dir / "bone_marrow_atac.h5ad")
    marrow = marrow[marrow.obs["donor"] == "BMMC_D6T1"]
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(marrow.n_obs), rng.permutation(marrow.n_vars)
    half = marrow.n_vars // 2
    annotator = CellAnnotator().train(marrow[rows[:3000]][:, np.sort(columns[:half])].copy(), KEY)
    query = marrow[rows[3000:4000]][:, np.sort(columns[half:])].copy()
    with caplog.at_level("WARNING", logger="scfound_atac"):
        told = annotator.predict(query)
    assert "labels rest on the backbone alone" in caplog.text
    most_frequent = query.obs[KEY].value_counts(normalize=True).iloc[0]
    assert accuracy(told, query) > most_frequent + 0.15


def test_measured_view_can_be_left_out(tiny_backbones, reference, query, caplog):
    annotator = CellAnnotator(tiny_backbones["region-set"], measured=False).train(reference, KEY)
    told = annotator.predict(query)
    assert told.fraction_ocrs == 0
    assert "rest on the backbone alone" not in caplog.text
    assert accuracy(told, query) > 0.5


@pytest.mark.parametrize("backbone", ["chromfound"])
def test_head_of_the_paper_is_tied_to_its_ocrs(annotators, query, backbone):
    annotator = annotators(backbone, "paper")
    for other in (query[:, 1:].copy(), query.copy()):
        if other.n_vars == query.n_vars:
            other.var = other.var.assign(start=other.var["start"] - 1)
        with pytest.raises(ValueError, match="tied to the OCRs of its reference.*pp.map_ocrs.*mode='probe'"):
            annotator.predict(other)


def test_epifoundation_refuses_ocrs_beyond_its_vocabulary(annotators, query):
    other = query.copy()
    other.var = other.var.assign(chrom="chr21", start=10_000_000 + 1000 * np.arange(other.n_vars))
    other.var["end"] = other.var["start"] + 500
    other.var_names = [f"peak{i}" for i in range(other.n_vars)]
    for mode in ("probe", "paper"):
        with pytest.raises(ValueError, match="open OCRs"):
            annotators("epifoundation", mode).predict(other)


# ---------------------------------------------------------------- cells and labels as they come


@pytest.mark.parametrize(("backbone", "mode"), MODES)
def test_one_cell(annotators, query, backbone, mode):
    annotator = annotators(backbone, mode)
    told = annotator.predict(query[[3]].copy())
    np.testing.assert_allclose(told.probabilities, annotator.predict(query).probabilities.iloc[[3]], atol=1e-3)
    assert np.isfinite(told.novelty).all()


@pytest.mark.parametrize("mode", ["probe", "paper"])
def test_empty_cells_are_unknown(annotators, query, mode):
    annotator = annotators("chromfound", mode)
    other = query.copy()
    other.X = sp.vstack([sp.csr_matrix((2, query.n_vars), dtype=np.float32), query.X[2:]], format="csr")
    told = annotator.predict(other)
    assert (told.labels.iloc[:2] == "unknown").all()
    assert told.confidence.isna().to_list() == [True, True] + [False] * 58
    assert told.novelty.isna().sum() == told.probabilities.isna().all(axis=1).sum() == 2
    np.testing.assert_allclose(told.probabilities.iloc[2:], annotator.predict(query).probabilities.iloc[2:], atol=1e-3)
    other.X = sp.csr_matrix(query.shape, dtype=np.float32)
    assert (annotator.predict(other).labels == "unknown").all()


def relabelled(reference: ad.AnnData, labels) -> ad.AnnData:
    other = reference.copy()
    other.obs[KEY] = labels
    return other


def test_missing_labels_are_left_out(tiny_backbones, reference, query):
    labels = reference.obs[KEY].astype(object).copy()
    missing = [None, np.nan, "", "  ", "unknown", pd.NA]
    labels.iloc[:60] = [missing[i % 6] for i in range(60)]
    annotator = CellAnnotator(tiny_backbones["epifoundation"]).train(relabelled(reference, labels), KEY)
    assert annotator.labels == ["B", "Mono", "NK", "T"]
    assert (annotator.report["n_cells"], annotator.report["n_left_out"]) == (100, 60)
    alone = CellAnnotator(tiny_backbones["epifoundation"]).train(reference[60:].copy(), KEY)
    assert_same(annotator.predict(query), alone.predict(query))


def test_empty_cells_of_the_reference_are_left_out(tiny_backbones, reference):
    other = reference.copy()
    other.X = sp.vstack([sp.csr_matrix((30, other.n_vars), dtype=np.float32), reference.X[30:]], format="csr")
    assert CellAnnotator(tiny_backbones["epifoundation"]).train(other, KEY).report["n_left_out"] == 30


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_class_of_one_cell(tiny_backbones, reference, query, mode):
    labels = reference.obs[KEY].astype(object).copy()
    labels.iloc[5] = "alone"
    options = {} if mode == "probe" else QUICK
    annotator = CellAnnotator(tiny_backbones["epifoundation"]).train(
        relabelled(reference, labels), KEY, mode=mode, **options
    )
    assert "alone" in annotator.labels
    assert (top(annotator.predict(reference[[5]].copy())) == "alone").all()
    assert accuracy(annotator.predict(query), query) > 0.85


@pytest.mark.parametrize(
    "labels",
    [
        lambda kind: kind.cat.codes.astype(int),
        lambda kind: kind.cat.codes.astype(float).where(kind != "B"),
        lambda kind: kind == "T",
        lambda kind: kind.cat.rename_categories(lambda x: f"{x}/1 cells").cat.add_categories(["never", "nor this"]),
        lambda kind: kind.cat.rename_categories({"B": "unknown/B"}),
    ],
    ids=["int", "float", "bool", "slash and unused categories", "unknown in a name"],
)
def test_labels_of_any_kind(tiny_backbones, reference, query, labels):
    kind = labels(reference.obs[KEY].astype("category"))
    annotator = CellAnnotator(tiny_backbones["epifoundation"]).train(relabelled(reference, kind), KEY)
    if kind.dtype == float:  # numbers of clusters that gaps turned into floats
        kind = kind.astype("Int64")
    assert annotator.labels == sorted(kind.dropna().astype(str).unique())
    told = annotator.predict(query)
    assert set(told.labels.astype(str)) <= {*annotator.labels, "unknown"}
    truth = kind.set_axis(reference.obs_names)
    assert (top(annotator.predict(reference)) == truth.astype(str))[truth.notna()].mean() > 0.95


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["T"] * 160, r"1 label\(s\) \('T'\), and at least 2 are needed"),
        ([None] * 160, r"0 label\(s\)"),
        (["unknown", ""] * 80, r"0 label\(s\)"),
    ],
)
def test_fewer_than_two_labels(tiny_backbones, reference, labels, says):
    with pytest.raises(ValueError, match=says):
        CellAnnotator(tiny_backbones["epifoundation"]).train(relabelled(reference, labels), KEY)


def test_finetuning_needs_cells_to_hold_out(tiny_backbones, reference):
    cells = reference[:2].copy()
    cells.obs["name"] = cells.obs_names.to_numpy()
    with pytest.raises(ValueError, match="no label has two cells"):
        CellAnnotator(tiny_backbones["region-set"]).train(cells, "name", mode="finetune")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"mode": "guess"}, ValueError, "mode='guess' is not known"),
        ({"mode": "paper"}, ValueError, "no head from a paper"),
        ({"max_epochs": 3}, TypeError, "mode='probe' trains no network and has no option max_epochs"),
        ({"mode": "finetune", "epochs": 3}, TypeError, "no option 'epochs'; it takes train_batch_size, max_epochs"),
        ({"mode": "finetune", "max_epochs": 0}, ValueError, "max_epochs must be at least 1"),
        ({"mode": "finetune", "crop_size": 10}, ValueError, "crop_size=10 only applies to ChromFound"),
        ({"n_neighbors": -1}, ValueError, "n_neighbors=-1 must not be negative"),
        ({"max_known_lost": 0}, ValueError, "max_known_lost=0 must lie between 0 and 1"),
        ({"layer": "none"}, KeyError, "none"),
    ],
)
def test_impossible_training(tiny_backbones, reference, options, error, says):
    annotator = CellAnnotator(tiny_backbones["region-set"])
    with pytest.raises(error, match=says):
        annotator.train(reference, KEY, **options)
    with pytest.raises(RuntimeError, match="call train"):
        annotator.predict(reference)


def test_no_such_column(tiny_backbones, reference):
    with pytest.raises(KeyError, match="no column 'type'.*cell_type"):
        CellAnnotator(tiny_backbones["epifoundation"]).train(reference, "type")


def test_models_that_are_no_backbone():
    with pytest.raises(ValueError, match="cannot be a backbone"):
        CellAnnotator("biosample-mix")


def test_failed_training_leaves_what_was_learnt(tiny_backbones, reference, query):
    annotator = CellAnnotator(tiny_backbones["epifoundation"]).train(reference, KEY)
    before = annotator.predict(query)
    with pytest.raises(ValueError, match="label"):
        annotator.train(relabelled(reference, "T"), KEY)
    assert_same(annotator.predict(query), before)


def test_early_stopping_and_loggers(tiny_backbones, reference, tmp_path):
    """With steps that lead nowhere the first epoch stays the best; a head without epochs has neither."""
    options = {"mode": "finetune", "device": "cpu", "max_epochs": 9, "train_batch_size": 32, "lr": 1e-12}
    annotator = CellAnnotator(tiny_backbones["region-set"])
    stop = {"early_stopping": True, "early_stopping_patience": 2}
    annotator.train(reference, KEY, **options, **stop, logger=CSVLogger(tmp_path))
    assert list(annotator.history["loss"].index) == [0, 1, 2]
    table = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    for name, column in annotator.history.items():
        np.testing.assert_allclose(table[name], column[name], rtol=1e-5)
    for wrong in ({"early_stopping": True}, {"logger": CSVLogger(tmp_path)}):
        with pytest.raises(TypeError, match=f"solves its head at once and has no epochs for {next(iter(wrong))}="):
            annotator.train(reference, KEY, **wrong)
    with pytest.raises(ValueError, match="early_stopping_patience"):
        annotator.train(reference, KEY, **options, early_stopping=True, early_stopping_patience=0)


# ---------------------------------------------------------------- unknown cells, honest confidence


def test_unseen_label_is_never_mapped_to_a_seen_one_silently(tiny_backbones, make_labelled):
    reference, query = make_labelled(1200), make_labelled(400, seed=1)
    annotator = CellAnnotator(tiny_backbones["epifoundation"]).train(reference[reference.obs[KEY] != "T"].copy(), KEY)
    told = annotator.predict(query)
    is_new = (query.obs[KEY] == "T").to_numpy()
    assert roc_auc_score(is_new, told.novelty) > 0.97
    is_unknown = (told.labels == "unknown").to_numpy()
    assert is_unknown[is_new].mean() > 0.8
    assert is_unknown[~is_new].mean() < 0.35  # single cells beside those of the new type
    assert np.nanmean(annotator.report["novelty_auroc"]) > 0.8


def test_confidence_is_calibrated(tiny_backbones, make_labelled):
    """A tenth of the counts: labels are often wrong, and confidence says how often."""

    def thin(cells: ad.AnnData, seed: int) -> ad.AnnData:
        cells = cells.copy()
        cells.X.data = np.random.default_rng(seed).binomial(cells.X.data.astype(int), 0.12).astype(np.float32)
        return cells

    reference, query = thin(make_labelled(1500), 0), thin(make_labelled(1500, seed=1), 1)
    annotator = CellAnnotator(tiny_backbones["epifoundation"]).train(reference, KEY)
    told = annotator.predict(query)
    there = told.confidence.notna().to_numpy()
    right = (top(told)[there] == query.obs[KEY].to_numpy()[there]).astype(float)
    assert 0.5 < right.mean() < 0.95
    assert sfa.bench.expected_calibration_error(told.confidence[there], right) < 0.06
    assert annotator.report["held_out_ece"] < 0.06


# ---------------------------------------------------------------- the folder


def test_folders_of_version_0_1_can_be_read(annotators, query, tmp_path):
    """They have other names for three of the arrays and scores."""
    annotator = annotators("region-set", "probe")
    folder = annotator.save(tmp_path / "mine")
    facts = json.loads((folder / "head.json").read_text())
    facts["report"] = {name.replace("fraction_", "share_"): value for name, value in facts["report"].items()}
    (folder / "head.json").write_text(json.dumps(facts))
    arrays = load_file(folder / "head.safetensors")
    assert any("log_prior" in name for name in arrays)
    save_file({name.replace("log_prior", "log_share"): x for name, x in arrays.items()}, folder / "head.safetensors")
    loaded = CellAnnotator.load(folder)
    assert loaded.report.keys() == annotator.report.keys()
    pd.testing.assert_frame_equal(loaded.predict(query).probabilities, annotator.predict(query).probabilities)


@pytest.mark.parametrize(("backbone", "mode"), MODES)
def test_save_and_load(annotators, query, tmp_path, backbone, mode):
    annotator = annotators(backbone, mode)
    folder = annotator.save(tmp_path / "mine")
    loaded = CellAnnotator.load(folder)
    one, other = annotator.predict(query), loaded.predict(query)
    pd.testing.assert_frame_equal(one.probabilities, other.probabilities)
    pd.testing.assert_series_equal(one.novelty, other.novelty)
    pd.testing.assert_series_equal(one.labels, other.labels)
    assert loaded.report.keys() == annotator.report.keys()
    assert (loaded.mode, loaded.labels_key, loaded.seed) == (mode, KEY, 0)
    again = CellAnnotator.load(loaded.save(tmp_path / "again")).predict(query)
    pd.testing.assert_frame_equal(one.probabilities, again.probabilities)
    assert sfa.hub.load(folder).model_class == annotator.checkpoint.model_class
    sfa.tl.embed(cells := query.copy(), model=folder, device="cpu", n_components=None)
    assert np.isfinite(cells.obsm["X_sfa"]).all()


def test_overwrite(annotators, query, tmp_path):
    paper, probe = annotators("chromfound", "paper"), annotators("chromfound", "probe")
    folder = paper.save(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        probe.save(folder)
    assert CellAnnotator.load(folder).mode == "paper"
    probe.save(folder, overwrite=True)
    loaded = CellAnnotator.load(folder)
    assert loaded.mode == "probe"
    pd.testing.assert_frame_equal(loaded.predict(query).probabilities, probe.predict(query).probabilities)


def test_nothing_to_save(tiny_backbones, tmp_path):
    with pytest.raises(RuntimeError, match="call train"):
        CellAnnotator(tiny_backbones["epifoundation"]).save(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "name", ["head.json", "head.safetensors", "model.safetensors", "config.json", "view_ocrs.tsv.gz"]
)
def test_missing_and_damaged_files(annotators, tmp_path, name):
    folder = annotators("epifoundation", "probe").save(tmp_path / "mine")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 3])
    with pytest.raises(ValueError, match="damaged|JSON|json|safetensors"):
        CellAnnotator.load(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.split(".")[0]):
        CellAnnotator.load(folder)


def test_another_kind_of_folder(annotators, tiny_backbones, tmp_path):
    with pytest.raises(FileNotFoundError, match="head.json"):
        CellAnnotator.load(tmp_path)
    folder = annotators("epifoundation", "probe").save(tmp_path / "mine")
    facts = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps(facts | {"kind": "RNAPredictor"}))
    with pytest.raises(ValueError, match="holds a RNAPredictor, not a CellAnnotator"):
        CellAnnotator.load(folder)
    (folder / "head.json").write_text(json.dumps(facts | {"format_version": 99}))
    with pytest.raises(ValueError, match="newer version"):
        CellAnnotator.load(folder)
    plain = sfa.hub.save(tiny_backbones["chromfound"].net, tmp_path / "plain")
    with pytest.raises(FileNotFoundError, match="holds no saved CellAnnotator"):
        CellAnnotator.load(plain)
