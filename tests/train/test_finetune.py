"""Fine-tuning: the network learns, the best epoch is kept, and options are checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scfound_atac.data import Cells
from scfound_atac.inference.classifier import _SHOWN
from scfound_atac.train.finetune import FinetuneOptions, apply, finetune, focal_loss, make_classifier

BACKBONES = ("region-set", "chromfound", "epifoundation")
OPTIONS = {
    "region-set": {"max_epochs": 6, "lr": 5e-3},
    "chromfound": {"max_epochs": 10, "lr": 2e-2, "crop_size": 300},
    "epifoundation": {"max_epochs": 10, "lr": 1e-2},
}


@pytest.fixture(scope="module")
def cells(make_labelled):
    return Cells.read(make_labelled(120))


@pytest.fixture(scope="module")
def codes(make_labelled):
    return make_labelled(120).obs["cell_type"].astype("category").cat.codes.to_numpy().astype(np.int64)


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.detach().clone() for name, x in module.state_dict().items()}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_changes_and_labels_are_learnt(tiny_backbones, cells, codes, backbone):
    checkpoint = tiny_backbones[backbone]
    before = state_of(checkpoint.net)
    options = FinetuneOptions(**OPTIONS[backbone], batch_size=16, n_warmup_steps=2)
    classifier = make_classifier(checkpoint, cells, 4, crop_size=options.crop_size)
    random, _ = apply(classifier, np.arange(120), 4)
    _, history = finetune(classifier, codes, 4, options, device="cpu", progress=False)
    logits, vectors = apply(classifier, np.arange(120), 4)
    assert vectors.shape == (120, 16)
    assert vectors.dtype == np.float32
    assert (logits.argmax(1) == codes).mean() > max(0.35, (random.argmax(1) == codes).mean()) + 0.05
    assert history[-1]["loss"] < history[0]["loss"]
    assert len(history) == options.max_epochs
    changed = [name for name, x in classifier.net.state_dict().items() if not torch.equal(x, before[name])]
    assert changed
    for name, x in checkpoint.net.state_dict().items():  # the one that was given is as it was
        assert torch.equal(x, before[name]), name


@pytest.mark.parametrize("backbone", ["chromfound", "epifoundation"])
def test_head_of_the_paper(tiny_backbones, cells, codes, backbone):
    classifier = make_classifier(tiny_backbones[backbone], cells, 4, paper=True)
    options = FinetuneOptions(max_epochs=3, lr=3e-3, batch_size=16, n_warmup_steps=2)
    validation, history = finetune(classifier, codes, 4, options, device="cpu", progress=False)
    logits, vectors = apply(classifier, validation, 4)
    assert history[-1]["loss"] < history[0]["loss"]
    assert vectors.shape == (len(validation), 128 if backbone == "chromfound" else 16)
    with torch.no_grad():
        np.testing.assert_allclose(classifier.head.fc(torch.from_numpy(vectors)).numpy(), logits, atol=1e-4)


def test_no_paper_has_a_head_for_region_set(tiny_backbones, cells):
    with pytest.raises(ValueError, match="no head from a paper.*mode='probe'"):
        make_classifier(tiny_backbones["region-set"], cells, 4, paper=True)


@pytest.mark.parametrize(("backbone", "paper"), [("region-set", False), ("epifoundation", False), ("chromfound", True)])
def test_crop_size_where_it_means_nothing(tiny_backbones, cells, backbone, paper):
    with pytest.raises(ValueError, match="crop_size=50 only applies to ChromFound"):
        make_classifier(tiny_backbones[backbone], cells, 4, paper=paper, crop_size=50)


def test_best_epoch_is_kept(tiny_backbones, cells, codes, monkeypatch):
    """The weights of the epoch whose validation was best, not those of the last one."""
    scores = iter([0.2, 0.9, 0.4])
    states = []
    classifier = make_classifier(tiny_backbones["region-set"], cells, 4)

    def f1_score(*args, **kwargs):
        states.append(state_of(classifier))
        return next(scores)

    monkeypatch.setattr("sklearn.metrics.f1_score", f1_score)
    _, history = finetune(classifier, codes, 4, FinetuneOptions(max_epochs=3, lr=1e-2), device="cpu", progress=False)
    assert [epoch["validation_macro_f1"] for epoch in history] == [0.2, 0.9, 0.4]
    for name, x in classifier.state_dict().items():
        assert torch.equal(x, states[1][name])
    assert any(not torch.equal(x, states[2][name]) for name, x in classifier.state_dict().items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_batches_and_order_of_ocrs_do_not_matter(tiny_backbones, make_labelled, backbone):
    adata = make_labelled(30)
    columns = np.random.default_rng(1).permutation(adata.n_vars)
    plain = make_classifier(tiny_backbones[backbone], Cells.read(adata), 4)
    other = make_classifier(tiny_backbones[backbone], Cells.read(adata[:, columns].copy()), 4)
    logits, vectors = apply(plain, np.arange(30), 4)
    again, seen = apply(other, np.arange(30), 4, batch_size=7)
    np.testing.assert_allclose(again, logits, atol=1e-4)
    np.testing.assert_allclose(seen, vectors, atol=1e-4)
    rows = np.array([5, 29, 3])
    np.testing.assert_allclose(apply(plain, rows, 4)[0], logits[rows], atol=1e-4)


def test_region_set_reads_what_is_open_alone(tiny_backbones, cells):
    """Closed OCRs cost nothing and change nothing; while training a part of the open ones is shown."""
    classifier = make_classifier(tiny_backbones["region-set"], cells, 4)
    rows = np.arange(2)
    n_open = len(np.unique(classifier.values[rows].indices))
    n_read = []
    embed = classifier.net.embed_ocrs
    classifier.net.embed_ocrs = lambda *args: n_read.append(len(args[3])) or embed(*args)
    _, vectors = classifier(rows)
    classifier(rows, np.random.default_rng(0))
    assert n_read == [n_open, int(np.ceil(_SHOWN * n_open))]
    every = embed(None, None, None, classifier.factors)
    torch.testing.assert_close(
        classifier.net.cell_vector(torch.from_numpy(classifier.values[rows].toarray()), every), vectors
    )


def test_same_seed_same_weights(tiny_backbones, cells, codes):
    def trained(seed: int) -> np.ndarray:
        classifier = make_classifier(tiny_backbones["region-set"], cells, 4, seed=seed)
        before = torch.get_rng_state()
        finetune(classifier, codes, 4, FinetuneOptions(max_epochs=2), seed=seed, device="cpu", progress=False)
        assert torch.equal(before, torch.get_rng_state())
        return apply(classifier, np.arange(20), 4)[0]

    np.testing.assert_array_equal(trained(0), trained(0))
    assert np.abs(trained(0) - trained(1)).max() > 1e-3


def test_without_cells_to_hold_out(tiny_backbones, make_labelled):
    classifier = make_classifier(tiny_backbones["region-set"], Cells.read(make_labelled(4)), 4)
    with pytest.raises(ValueError, match="no label has two cells.*mode='probe'"):
        finetune(classifier, np.arange(4), 4, FinetuneOptions(), progress=False)


def test_focal_loss_looks_away_from_what_is_known():
    logits, target = torch.tensor([[4.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0])
    easy, hard = (focal_loss(logits[[i]], target[[i]]) for i in (0, 1))
    assert hard == pytest.approx(0.25 * np.log(2), rel=1e-5)
    assert easy < 1e-4
    assert focal_loss(logits, target) == pytest.approx(float(easy + hard) / 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"crop_size": -3}, "crop_size must be at least 1, got -3"),
        ({"validation_size": 1.0}, "validation_size must lie between 0 and 1"),
    ],
)
def test_impossible_options(options, says):
    with pytest.raises(ValueError, match=says):
        FinetuneOptions(**options)
