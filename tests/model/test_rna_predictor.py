"""`RNAPredictor`: what it learns, what must not matter, other OCRs, and what comes back from a folder."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import mudata as md
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from lightning.pytorch.loggers import CSVLogger
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.data import Cells
from scfound_atac.inference.kinds import kind_of
from scfound_atac.model import RNAPredictor
from scfound_atac.train.expression_head import apply_expression_head

TYPES = ("B", "Mono", "NK", "T")
GENES = [f"GENE{i}" for i in range(8)]
KINDS = ["region-set", "chromfound", "epifoundation"]


def expression_of(atac: AnnData, seed: int = 0) -> AnnData:
    """Counts of genes that are expressed in one type each."""
    kind = atac.obs["cell_type"].map({name: i for i, name in enumerate(TYPES)}).to_numpy().astype(int)
    own = np.arange(len(GENES))[None, :] % 4 == kind[:, None]
    counts = np.random.default_rng(seed).poisson(np.where(own, 6.0, 1.0)).astype(np.float32)
    return AnnData(sparse.csr_matrix(counts), obs=atac.obs[[]].copy(), var=pd.DataFrame(index=GENES))


def paired(atac: AnnData, rna: AnnData) -> md.MuData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return md.MuData({"atac": atac, "rna": rna})


@pytest.fixture(scope="module")
def make_pair(make_labelled):
    def make(n_cells: int = 160, seed: int = 0, **kwargs) -> md.MuData:
        atac = make_labelled(n_cells, TYPES, seed=seed, **kwargs)
        return paired(atac, expression_of(atac, seed))

    return make


@pytest.fixture(scope="module")
def mdata(make_pair) -> md.MuData:
    """To be read only."""
    return make_pair()


@pytest.fixture(scope="module")
def query(make_labelled) -> AnnData:
    """To be read only."""
    return make_labelled(60, TYPES, seed=1)


def trained(mdata: md.MuData, checkpoint, **kwargs) -> RNAPredictor:
    own = {name: kwargs.pop(name) for name in ("head", "measured", "seed") if name in kwargs}
    return RNAPredictor(checkpoint, **own).train(
        mdata, **({"max_epochs": 15, "train_batch_size": 32, "device": "cpu"} | kwargs)
    )


@pytest.fixture(scope="module")
def predictor(mdata, tiny_backbones) -> RNAPredictor:
    return trained(mdata, tiny_backbones["chromfound"])


def per_gene(told: pd.DataFrame, atac: AnnData) -> float:
    return sfa.bench.expression_scores(expression_of(atac, 1).to_df(), told)["gene_pearson"]


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["mlp", "gene-query"])
def test_learns_with_either_head_on_every_backbone(mdata, query, tiny_backbones, kind, head):
    model = trained(mdata, tiny_backbones[kind], head=head)
    assert model.report["gene_pearson"] > 0.25
    told = model.predict(query, device="cpu")
    assert told.shape == (query.n_obs, len(GENES))
    assert (told.dtypes == np.float32).all()
    assert list(told.columns) == model.genes == GENES
    assert list(told.index) == list(query.obs_names)
    assert per_gene(told, query) > 0.35


def test_learns_from_the_backbone_alone():
    sample = sfa.datasets.pbmc_multiome_sample()[:400].copy()
    model = RNAPredictor(measured=False).train(sample, max_epochs=10, train_batch_size=32, device="cpu")
    assert model._features.view is None
    assert model.report["gene_pearson"] > 0.5


def test_learns_from_pbmc():
    model = RNAPredictor().train(sfa.datasets.pbmc_multiome_sample(), max_epochs=6, device="cpu")
    assert model.report["gene_pearson"] > 0.7
    assert model.scale == "as it is"
    assert model.gene_report["pearson"].mean() == pytest.approx(model.report["gene_pearson"])


def test_report(mdata, predictor):
    report = predictor.report
    assert [report[f"n_cells_{part}"] for part in ("train", "validation", "test")] == [128, 16, 16]
    assert (report["scale"], report["split_key"], len(report["history"])) == ("log1p", "", 15)
    assert list(predictor.history["loss"].index) == list(range(15))
    assert RNAPredictor().history is None
    assert list(predictor.gene_report.index) == GENES
    assert set(predictor.gene_report) == {"pearson", "spearman", "ccc", "mse"}
    assert repr(predictor).endswith("head 'gene-query': 8 genes")


def test_early_stopping_and_loggers(mdata, tiny_backbones, tmp_path):
    stop = {"early_stopping": True, "early_stopping_patience": 3, "lr": 1e-12, "logger": CSVLogger(tmp_path)}
    stopped = trained(mdata, tiny_backbones["chromfound"], **stop)
    scores = stopped.history["validation_gene_pearson"]["validation_gene_pearson"].to_numpy()
    assert len(scores) == scores.argmax() + 1 + 3 < 15
    table = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    np.testing.assert_allclose(table["validation_gene_pearson"], scores, rtol=1e-5)


def test_scale_of_expression_does_not_matter(mdata, tiny_backbones, predictor, query):
    """Values as small as those of denoised expression, down to 1e-6."""
    small = paired(mdata["atac"].copy(), mdata["rna"].copy())
    small["rna"].X = (small["rna"].X * 1.3e-6).astype(np.float32)
    assert trained(small, tiny_backbones["chromfound"]).report["gene_pearson"] > 0.25


def test_many_genes_are_asked_for_in_parts(mdata, tiny_backbones, query, monkeypatch):
    from scfound_atac.train import expression_head

    monkeypatch.setattr(expression_head, "_GENES", 3)
    model = trained(mdata, tiny_backbones["chromfound"], head="gene-query", max_epochs=25)
    told = model.predict(query)
    assert per_gene(told, query) > 0.35
    monkeypatch.setattr(expression_head, "_QUERIES", 5)
    pd.testing.assert_frame_equal(model.predict(query), told, atol=1e-5)


# ---------------------------------------------------------------- what must not matter, and what must


@pytest.mark.parametrize("head", ["mlp", "gene-query"])
def test_seed(mdata, query, tiny_backbones, head):
    a, b, other = (
        trained(mdata, tiny_backbones["chromfound"], head=head, seed=seed, max_epochs=3) for seed in (0, 0, 1)
    )
    state = torch.random.get_rng_state()
    pd.testing.assert_frame_equal(a.predict(query), b.predict(query))
    assert a.report == b.report
    assert not np.allclose(a.predict(query), other.predict(query))
    torch.testing.assert_close(torch.random.get_rng_state(), state)


def test_order_of_cells_in_either_modality(mdata, tiny_backbones, predictor, query):
    rna = mdata["rna"][np.random.default_rng(0).permutation(mdata.n_obs)].copy()
    model = trained(paired(mdata["atac"].copy(), rna), tiny_backbones["chromfound"])
    pd.testing.assert_frame_equal(model.predict(query), predictor.predict(query))


def test_data_are_only_read(mdata, tiny_backbones, query, predictor):
    before = {name: mdata[name].copy() for name in mdata.mod}
    trained(mdata, tiny_backbones["chromfound"], max_epochs=1)
    for name, was in before.items():
        assert_equal(mdata[name], was)
    was = query.copy()
    predictor.predict(query)
    assert_equal(query, was)


def test_cells_without_expression_are_left_out(make_pair, tiny_backbones):
    whole = make_pair(120)
    part = paired(whole["atac"].copy(), whole["rna"][:90].copy())
    model = trained(part, tiny_backbones["chromfound"], max_epochs=2)
    alone = trained(
        paired(whole["atac"][:90].copy(), whole["rna"][:90].copy()), tiny_backbones["chromfound"], max_epochs=2
    )
    assert sum(model.report[f"n_cells_{part}"] for part in ("train", "validation", "test")) == 90
    pd.testing.assert_frame_equal(model.predict(whole), alone.predict(whole))


def test_genes(mdata, tiny_backbones, predictor, query):
    model = trained(mdata, tiny_backbones["chromfound"], genes=["GENE5", "GENE2"])
    assert list(model.predict(query).columns) == ["GENE5", "GENE2"]
    every = predictor.predict(query)
    pd.testing.assert_frame_equal(predictor.predict(query, genes=np.array(GENES[3:5])), every[GENES[3:5]], atol=1e-5)
    with pytest.raises(KeyError, match="2 genes were not trained on, among them A, B"):
        predictor.predict(query, genes=pd.Index(["A", "GENE1", "B"]))
    with pytest.raises(ValueError, match="1 genes repeat"):
        predictor.predict(query, genes=["GENE1", "GENE1"])


def test_binned(mdata, tiny_backbones):
    model = trained(mdata, tiny_backbones["chromfound"], binned=True)
    assert model.scale == model.report["scale"] == "levels"
    assert model.report["gene_pearson"] > 0.25


@pytest.mark.parametrize("n_groups", [2, 4])
def test_split_key(make_pair, tiny_backbones, n_groups):
    mdata = make_pair(120)
    mdata["atac"].obs["donor"] = [f"d{i * n_groups // 120}" for i in range(120)]
    report = trained(mdata, tiny_backbones["chromfound"], split_key="donor", max_epochs=2).report
    assert report["split_key"] == "donor"
    assert report["n_cells_test"] == 120 // n_groups


def test_genes_that_do_not_vary(mdata, tiny_backbones, query):
    flat = paired(mdata["atac"].copy(), mdata["rna"].copy())
    flat["rna"].X = sparse.csr_matrix(np.full(flat["rna"].shape, 0.5, dtype=np.float32))
    model = trained(flat, tiny_backbones["chromfound"], max_epochs=2)
    np.testing.assert_allclose(model.predict(query), 0.5)
    assert np.isnan(model.report["gene_pearson"])
    assert model.gene_report["pearson"].isna().all()


def test_a_gene_that_no_cell_expresses_beside_others(mdata, tiny_backbones, query):
    rare = paired(mdata["atac"].copy(), mdata["rna"].copy())
    counts = rare["rna"].X.toarray()
    counts[:, 0] = 0
    rare["rna"].X = sparse.csr_matrix(counts)
    model = trained(rare, tiny_backbones["chromfound"])
    told = model.predict(query)
    assert np.isfinite(told.to_numpy()).all()
    assert (told["GENE0"] == 0).all()
    assert np.isnan(model.gene_report.loc["GENE0", "pearson"])
    assert model.report["gene_pearson"] > 0.2


def test_gene_query_starts_from_the_vectors_of_the_backbone(make_epifoundation):
    net, vocabularies = make_epifoundation()
    known = list(vocabularies.genes)[2:5]
    genes = [known[0], "UNKNOWN", known[1], known[2], "OTHER"]
    checkpoint = sfa.hub.Checkpoint(net, "tiny", "", model_class="EpiFoundation", vocabularies=vocabularies)
    model = RNAPredictor(checkpoint, head="gene-query")
    table = model._new_head(20, genes).genes.weight.detach()
    with torch.inference_mode():
        expected = net.embed_genes(*map(torch.from_numpy, vocabularies.gene_ids(known)))
    torch.testing.assert_close(table[[0, 2, 3]], expected)
    other = RNAPredictor(checkpoint, head="gene-query", seed=1)._new_head(20, genes).genes.weight.detach()
    is_same = (table == other).all(dim=1).tolist()
    assert is_same == [True, False, True, True, False]


# ---------------------------------------------------------------- other cells and OCRs


def test_half_of_the_ocrs_and_ocrs_that_are_shifted(predictor, query):
    half = query[:, ::2].copy()
    assert per_gene(predictor.predict(half), query) > 0.25
    shifted = query.copy()
    shifted.var["start"] += 100
    shifted.var["end"] += 100
    shifted.var_names = sfa.genome.ocr_names(shifted.var)
    assert per_gene(predictor.predict(shifted), query) > 0.4


def test_other_ocrs_alone_rest_on_the_backbone(predictor, query, caplog):
    var = sfa.datasets.pbmc_multiome_sample()["atac"].var[["chrom", "start", "end"]]
    far = query[:, :200].copy()
    far.var = var.loc[~var.index.isin(query.var_names)].iloc[:200].copy()
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        told = predictor.predict(far)
    assert "the prediction rests on the backbone alone" in caplog.text
    # the head sees the backbone's vectors, and the mean in place of what was not measured
    vectors = kind_of(predictor.checkpoint).cell_vectors(Cells.read(far), device="cpu", progress=False)
    scaling, width = predictor._scaling, vectors.shape[1]
    seen = np.zeros((far.n_obs, len(scaling["x_mean"])), dtype=np.float32)
    seen[:, :width] = (vectors - scaling["x_mean"][:width]) / scaling["x_scale"][:width]
    expected = apply_expression_head(predictor._net, seen, np.arange(len(GENES)))
    np.testing.assert_allclose(told, expected * scaling["y_scale"] + scaling["y_mean"], atol=1e-4)
    assert (told.std() > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_cell_and_empty_cells(mdata, query, tiny_backbones, kind):
    model = trained(mdata, tiny_backbones[kind], max_epochs=2)
    every = model.predict(query)
    pd.testing.assert_frame_equal(model.predict(query[7].copy()), every.iloc[[7]], atol=1e-4)
    some = query.copy()
    counts = some.X.toarray()
    counts[[0, 5]] = 0
    some.X = sparse.csr_matrix(counts)
    told = model.predict(some)
    assert np.isfinite(told.to_numpy()).all()
    np.testing.assert_allclose(told.iloc[0], told.iloc[5], atol=1e-5)
    pd.testing.assert_frame_equal(told.drop(index=told.index[[0, 5]]), every.drop(index=every.index[[0, 5]]), atol=1e-4)


def test_empty_cells_in_training(make_pair, tiny_backbones):
    mdata = make_pair(60)
    counts = mdata["atac"].X.toarray()
    counts[::10] = 0
    mdata["atac"].X = sparse.csr_matrix(counts)
    model = trained(mdata, tiny_backbones["chromfound"], max_epochs=2)
    assert sum(model.report[f"n_cells_{name}"] for name in ("train", "validation", "test")) == 60
    told = model.predict(mdata).to_numpy()
    np.testing.assert_allclose(told[::10], np.repeat(told[:1], 6, axis=0), atol=1e-5)
    assert (np.delete(told, np.arange(0, 60, 10), axis=0).std(axis=0) > 1e-3).all()


# ---------------------------------------------------------------- errors


def test_refuses(mdata, tiny_backbones, query):
    checkpoint = tiny_backbones["chromfound"]
    with pytest.raises(ValueError, match="head='linear' is not known"):
        RNAPredictor(checkpoint, head="linear")
    with pytest.raises(ValueError, match="cannot be a backbone"):
        RNAPredictor("biosample-mix")
    with pytest.raises(ValueError, match="must be at least 1"):
        RNAPredictor(checkpoint).train(mdata, max_epochs=0)
    with pytest.raises(RuntimeError, match="call train"):
        RNAPredictor(checkpoint).predict(query)
    with pytest.raises(RuntimeError, match="call train"):
        RNAPredictor(checkpoint).save("never")


def test_a_failed_training_leaves_the_predictor_as_it_was(mdata, tiny_backbones, query):
    model = trained(mdata, tiny_backbones["chromfound"], max_epochs=1)
    before = model.predict(query)
    with pytest.raises(KeyError, match="no column"):
        model.train(mdata, split_key="donor")
    pd.testing.assert_frame_equal(model.predict(query), before)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("head", "measured"), [("mlp", True), ("gene-query", False)])
def test_save_and_load(mdata, query, tiny_backbones, tmp_path, kind, head, measured):
    model = trained(mdata, tiny_backbones[kind], head=head, measured=measured, max_epochs=2, genes=GENES[:5])
    folder = model.save(tmp_path / "model")
    again = RNAPredictor.load(folder)
    pd.testing.assert_frame_equal(again.predict(query), model.predict(query))
    pd.testing.assert_frame_equal(again.gene_report, model.gene_report)
    assert again.report == model.report
    assert (again.genes, again.scale, again.head, again.measured) == (GENES[:5], "log1p", head, measured)
    backbone = sfa.hub.load(folder)
    assert backbone.model_class == model.checkpoint.model_class
    for name, values in model.checkpoint.net.state_dict().items():
        torch.testing.assert_close(backbone.net.state_dict()[name], values, rtol=0, atol=0)


def test_folders_are_not_written_over_unasked(predictor, tmp_path, query):
    predictor.save(tmp_path / "model")
    with pytest.raises(FileExistsError):
        predictor.save(tmp_path / "model")
    predictor.save(tmp_path / "model", overwrite=True)
    pd.testing.assert_frame_equal(RNAPredictor.load(tmp_path / "model").predict(query), predictor.predict(query))


def test_folders_of_something_else(mdata, predictor, tiny_backbones, tmp_path):
    annotator = sfa.model.CellAnnotator(tiny_backbones["chromfound"])
    annotator.train(mdata["atac"].copy(), "cell_type", device="cpu").save(tmp_path / "annotator")
    with pytest.raises(ValueError, match="holds a CellAnnotator, not a RNAPredictor"):
        RNAPredictor.load(tmp_path / "annotator")
    with pytest.raises(FileNotFoundError, match="holds no saved RNAPredictor"):
        RNAPredictor.load(tmp_path / "nothing")
    folder = predictor.save(tmp_path / "model")
    (folder / "head.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        RNAPredictor.load(folder)


def test_checkpoint_may_be_loaded(tiny_backbones, mdata, tmp_path):
    folder = trained(mdata, replace(tiny_backbones["chromfound"], name="mine"), max_epochs=1).save(tmp_path / "m")
    assert RNAPredictor(folder).checkpoint.model_class == "ChromFound"  # a head on the same backbone


def test_local_part(tmp_path):
    """OCRs around a gene with weights of their own: in predictions, in perturbations, and in a saved folder."""
    mdata = sfa.datasets.pbmc_multiome_sample()[:300].copy()
    plain = sfa.model.RNAPredictor(head="mlp").train(mdata, max_epochs=3, device="cpu")
    local = sfa.model.RNAPredictor(head="mlp", local=100_000).train(mdata, max_epochs=3, device="cpu")
    without, with_it = (p.predict(mdata, device="cpu") for p in (plain, local))
    assert np.abs(without - with_it).to_numpy().max() > 1e-3
    again = sfa.model.RNAPredictor.load(local.save(tmp_path / "model"))
    assert again.local == 100_000
    pd.testing.assert_frame_equal(again.predict(mdata, device="cpu"), with_it, rtol=1e-5, atol=1e-5)
    ocrs = sfa.data.Cells.read(mdata).ocrs
    weights = local.decoy_weights(ocrs)
    assert weights.shape == (len(ocrs), len(local.genes))
    assert (again.decoy_weights(ocrs) != weights).nnz == 0
    assert (again.decoy_weights(ocrs[::-1], local.genes[3:5]) != weights[::-1, 3:5]).nnz == 0
    assert plain.decoy_weights(ocrs) is None
    with pytest.raises(KeyError, match="1 genes were not trained on, among them NOGENE"):
        local.decoy_weights(ocrs, ["NOGENE"])
    reordered = mdata["atac"][:, ::-1].copy()
    pd.testing.assert_frame_equal(local.predict(reordered, device="cpu"), with_it, rtol=1e-3, atol=1e-4)
    local.save(tmp_path / "model", overwrite=True)
    plain.save(tmp_path / "model", overwrite=True)  # what the local part was is gone
    assert sfa.model.RNAPredictor.load(tmp_path / "model")._local is None


def test_local_part_of_unknown_genes(tmp_path):
    mdata = sfa.datasets.pbmc_multiome_sample()[:100].copy()
    table = sfa.datasets.genes().head(3).assign(name=["A1", "B1", "C1"])
    with pytest.raises(
        ValueError, match=r"None of the 51 genes .* is in the table of genes with 3 symbols.*gene_table="
    ):
        sfa.model.RNAPredictor(local=1000).train(mdata, max_epochs=1, gene_table=table, device="cpu")
    with pytest.raises(ValueError, match="local=0 must be at least 1"):
        sfa.model.RNAPredictor(local=0)
    with pytest.raises(TypeError, match="local= takes a whole number, or None"):
        sfa.model.RNAPredictor(local="far")
