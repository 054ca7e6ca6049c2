"""Functions on a GPU say what they say on a CPU; skipped without one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.data.build_vocabularies import build_vocabularies
from scfound_atac.hub import Checkpoint
from scfound_atac.nn import EpiFoundationConfig, EpiFoundationNet

pytestmark = pytest.mark.gpu
CLOSE = 5e-3  # of the largest value: convolutions of a GPU multiply with ten bits


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")


@pytest.fixture(autouse=True)
def back_on_the_cpu(tiny_backbones):
    """Networks that other tests share stay where they were."""
    yield
    for checkpoint in tiny_backbones.values():
        checkpoint.net.cpu()


@pytest.fixture(scope="module")
def adata(make_labelled) -> AnnData:
    """To be read only."""
    return make_labelled(120)


@pytest.mark.parametrize("model", ["chromfound", "epifoundation"])
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_embed(adata, tiny_backbones, model, device) -> None:
    plain, moved = adata.copy(), adata.copy()
    sfa.tl.embed(plain, model=tiny_backbones[model], n_components=None, device="cpu")
    sfa.tl.embed(moved, model=tiny_backbones[model], n_components=None, device=device, precision="fp32")
    assert moved.uns["sfa"]["params"]["device"].startswith("cuda")
    expected = plain.obsm["X_sfa"]
    np.testing.assert_allclose(moved.obsm["X_sfa"], expected, atol=CLOSE * np.abs(expected).max())
    assert moved.obsm["X_sfa"].dtype == np.float32


@pytest.mark.parametrize("model", ["chromfound", "epifoundation"])
def test_embed_by_components(adata, tiny_backbones, model) -> None:
    """Distances between cells: signs of components are free."""
    plain, moved = adata.copy(), adata.copy()
    for cells, device in ((plain, "cpu"), (moved, "cuda")):
        sfa.tl.embed(cells, model=tiny_backbones[model], n_components=10, device=device, precision="fp32")
    near, far = (np.linalg.norm(x.obsm["X_sfa"][:60] - x.obsm["X_sfa"][60:], axis=1) for x in (moved, plain))
    np.testing.assert_allclose(near, far, atol=2 * CLOSE * far.max())


def test_embed_in_bf16(adata, tiny_backbones) -> None:
    exact, rounded = adata.copy(), adata.copy()
    for cells, precision in ((exact, "fp32"), (rounded, "bf16")):
        sfa.tl.embed(cells, model=tiny_backbones["chromfound"], n_components=None, device="cuda", precision=precision)
        assert cells.uns["sfa"]["params"]["precision"] == precision
    difference = np.abs(rounded.obsm["X_sfa"] - exact.obsm["X_sfa"]).max()
    assert 0 < difference < 0.05 * np.abs(exact.obsm["X_sfa"]).max()


@pytest.mark.parametrize("model", ["region-set", "biosample-mix", "biosample-prior"])
def test_models_of_the_cpu_refuse(adata, model) -> None:
    with pytest.raises(ValueError, match=f"Model '{model}' has no option device='cuda'"):
        sfa.tl.embed(adata.copy(), model=model, device="cuda")


def test_impute(adata, tiny_backbones) -> None:
    imputed = []
    for device in ("cpu", "cuda"):
        cells = adata.copy()
        sfa.tl.impute(cells, model=tiny_backbones["chromfound"], n_kept=None, device=device, precision="fp32")
        imputed.append(cells.layers["sfa_imputed"].toarray())
    np.testing.assert_allclose(imputed[1], imputed[0], atol=2 * CLOSE)


def test_predict_rna_with_a_backbone_that_knows_genes(adata, make_labelled) -> None:
    """The vectors of genes that the head starts from are read where the network is: on the GPU, after cells were read there."""
    genes = [f"GENE{i}" for i in range(6)]
    vocabularies = build_vocabularies(adata.var, genes, dict.fromkeys(genes, "chr1"))
    sizes = {f"n_{name}": len(getattr(vocabularies, name)) for name in ("peaks", "chromosomes", "genes")}
    torch.manual_seed(0)
    config = EpiFoundationConfig(**sizes, d_model=16, n_layers=1, n_heads=2, d_feed_forward=16)
    net = EpiFoundationNet(config).eval()
    backbone = Checkpoint(net, "tiny", "", model_class="EpiFoundation", vocabularies=vocabularies)
    kind = adata.obs["cell_type"].astype("category").cat.codes.to_numpy()
    counts = np.random.default_rng(0).poisson(np.where(kind[:, None] == np.arange(6) % 4, 6.0, 1.0))
    rna = AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=adata.obs[[]].copy(), var=pd.DataFrame(index=genes))
    mdata = MuData({"atac": adata.copy(), "rna": rna})
    predictor = sfa.model.RNAPredictor(backbone).train(mdata, max_epochs=3, train_batch_size=32, device="cuda")
    query = make_labelled(30, seed=1)
    on_cpu = predictor.predict(query, device="cpu")
    on_gpu = predictor.predict(query, device="cuda")
    np.testing.assert_allclose(on_gpu, on_cpu, atol=CLOSE * np.abs(on_cpu).max(axis=None))


@pytest.mark.parametrize(
    ("backbone", "mode"),
    [
        ("chromfound", "probe"),
        ("chromfound", "finetune"),
        ("chromfound", "paper"),
        ("epifoundation", "finetune"),
        ("epifoundation", "paper"),
        ("region-set", "finetune"),
    ],
)
def test_annotators_are_trained_and_saved(adata, make_labelled, tiny_backbones, tmp_path, backbone, mode) -> None:
    """Trained on the GPU, saved, and opened for the CPU."""
    query = make_labelled(40, seed=1)
    options = {} if mode == "probe" else {"max_epochs": 4, "lr": 1e-2, "n_warmup_steps": 2, "train_batch_size": 16}
    device = "auto" if backbone == "region-set" else "cuda"  # a region-set is trained there, and read on the CPU
    annotator = sfa.model.CellAnnotator(tiny_backbones[backbone])
    annotator.train(adata, "cell_type", mode=mode, device=device, **options)
    if mode != "probe":
        losses = [epoch["loss"] for epoch in annotator.report["history"]]
        assert losses[-1] < losses[0]
    on_gpu = annotator.predict(query, device=device).probabilities
    if mode != "paper":  # a head that starts from nothing needs more epochs
        assert (on_gpu.idxmax(axis=1) == query.obs["cell_type"].astype(str)).mean() > 0.9
    opened = sfa.model.CellAnnotator.load(annotator.save(tmp_path / "saved"))
    np.testing.assert_allclose(opened.predict(query, device="cpu").probabilities, on_gpu, atol=0.05)
