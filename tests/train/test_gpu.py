"""Fine-tuning on a GPU takes the steps that it takes on a CPU; skipped without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scfound_atac.data import Cells
from scfound_atac.train.finetune import FinetuneOptions, apply, finetune, make_classifier

pytestmark = pytest.mark.gpu
ROWS = np.arange(120)


@pytest.fixture(scope="module")
def cells(make_labelled):
    return Cells.read(make_labelled(len(ROWS)))


@pytest.fixture(scope="module")
def codes(make_labelled):
    labels = make_labelled(len(ROWS)).obs["cell_type"].astype("category")
    return labels.cat.codes.to_numpy().astype(np.int64)


@pytest.mark.parametrize(
    ("backbone", "paper"),
    [
        ("region-set", False),
        ("chromfound", False),
        ("chromfound", True),
        ("epifoundation", False),
        ("epifoundation", True),
    ],
)
def test_learns_as_on_the_cpu(tiny_backbones, cells, codes, backbone, paper) -> None:
    """Split and order are those of the seed; only dropout draws from another generator, so the losses are near and not equal."""
    options = FinetuneOptions(max_epochs=4, lr=1e-2, batch_size=16, n_warmup_steps=2)
    held_out, losses = {}, {}
    for device in ("cpu", "cuda"):
        classifier = make_classifier(tiny_backbones[backbone], cells, 4, paper=paper)
        validation, history = finetune(classifier, codes, 4, options, device=device, progress=False)
        held_out[device], losses[device] = validation, [epoch["loss"] for epoch in history]
        assert {x.device.type for x in classifier.parameters()} == {device}
    np.testing.assert_array_equal(held_out["cuda"], held_out["cpu"])
    assert losses["cuda"][-1] < losses["cuda"][0]
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=0.3)
    # what was learnt on the GPU is the same network on the CPU
    on_gpu, vectors = apply(classifier, ROWS, 4)
    on_cpu, vectors_cpu = apply(classifier.cpu(), ROWS, 4)
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.01 * np.abs(on_cpu).max())
    np.testing.assert_allclose(vectors, vectors_cpu, atol=0.01 * np.abs(vectors_cpu).max())
    assert all(torch.isfinite(x).all() for x in classifier.state_dict().values())
