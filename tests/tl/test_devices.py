"""Device and precision that were asked for are those that are used and recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scfound_atac as sfa

NETWORKS = ("chromfound", "epifoundation")
N_COMPONENTS = {"chromfound": None, "epifoundation": "auto"}  # whole vectors: no sign of an axis to choose


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(sfa.settings, "progress_bar", False)


@pytest.fixture
def cells(make_labelled):
    return make_labelled(40)


@pytest.fixture
def backbone(tiny_backbones, request):
    """A network, which is put back where all other tests expect it."""
    checkpoint = tiny_backbones[request.param]
    yield request.param, checkpoint
    checkpoint.net.cpu()


def embedded(cells, checkpoint, kind: str, **options):
    adata = sfa.tl.embed(cells, model=checkpoint, n_components=N_COMPONENTS[kind], copy=True, **options)
    return adata.obsm["X_sfa"], adata.uns["sfa"]["params"]


def assert_near(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("backbone", NETWORKS, indirect=True)
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_device_is_recorded(cells, backbone, device):
    kind, checkpoint = backbone
    _, params = embedded(cells, checkpoint, kind, device=device)
    there = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    assert params["device"] == there
    assert next(checkpoint.net.parameters()).device.type == there


@pytest.mark.parametrize("backbone", NETWORKS, indirect=True)
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_that_is_not_there(cells, backbone):
    _, checkpoint = backbone
    before = cells.copy()
    with pytest.raises(ValueError, match=r"device='cuda:0', but torch sees no CUDA GPU"):
        sfa.tl.embed(cells, model=checkpoint, device="cuda:0")
    assert (list(cells.obsm), list(cells.uns)) == (list(before.obsm), list(before.uns))
    assert next(checkpoint.net.parameters()).device.type == "cpu"


@pytest.mark.parametrize("backbone", NETWORKS, indirect=True)
def test_bf16_is_recorded_and_near(cells, backbone):
    kind, checkpoint = backbone
    exact, params = embedded(cells, checkpoint, kind, device="cpu")
    assert params["precision"] == "fp32"
    rounded, params = embedded(cells, checkpoint, kind, device="cpu", precision="bf16")
    assert params["precision"] == "bf16"
    assert np.abs(rounded - exact).max() > 0
    assert_near(rounded, exact, 0.05)


def test_region_set_is_finetuned_on_any_device_and_read_on_the_cpu(make_labelled, tiny_backbones):
    """``cpu:0`` stands for a device that is named: reading region-set has no such option, training has."""
    annotator = sfa.model.CellAnnotator(tiny_backbones["region-set"])
    reference, options = make_labelled(80), {"max_epochs": 1, "train_batch_size": 32}
    annotator.train(reference, "cell_type", mode="finetune", device="cpu:0", **options)
    told = annotator.predict(make_labelled(40, seed=1))
    expected = sfa.model.CellAnnotator(tiny_backbones["region-set"])
    expected.train(reference, "cell_type", mode="finetune", **options)
    if not torch.cuda.is_available():  # else that was trained on the GPU
        np.testing.assert_array_equal(told.probabilities, expected.predict(make_labelled(40, seed=1)).probabilities)
    with pytest.raises(ValueError, match=r"has no option device='cpu:0'"):
        annotator.train(reference, "cell_type", device="cpu:0")


def test_batch_size_of_inference_is_refused_before_anything_is_trained(make_labelled, tiny_backbones, monkeypatch):
    monkeypatch.setattr("scfound_atac.train.finetune.finetune", lambda *_, **__: pytest.fail("was trained"))
    with pytest.raises(ValueError, match="has no option batch_size=8"):
        sfa.model.CellAnnotator(tiny_backbones["region-set"]).train(
            make_labelled(80), "cell_type", mode="finetune", batch_size=8
        )
