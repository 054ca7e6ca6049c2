"""The loop of the heads: what it minimises, which epoch it keeps, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from scfound_atac.train.epochs import train_epochs
from scfound_atac.train.schedule import warmup_cosine

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]])


def make_net() -> nn.Linear:
    net = nn.Linear(3, 1)
    with torch.no_grad():
        net.weight.fill_(0.1)
        net.bias.fill_(0.0)
    return net


def run(net: nn.Module, score=lambda: 0.0, **options) -> list[dict[str, float]]:
    options = {"max_epochs": 5, "lr": 0.1, "weight_decay": 0.01, "progress": False} | options
    return train_epochs(
        net,
        batches=lambda: torch.arange(40).split(16),
        n_batches=3,
        loss=lambda rows: ((net(X[rows]) - Y[rows]) ** 2).mean(),
        score=score,
        score_name="score",
        **options,
    )


@pytest.mark.parametrize("clip", [np.inf, 0.5])
def test_steps_are_those_of_adamw_with_warmup_and_cosine(clip: float) -> None:
    net, expected = make_net(), make_net()
    states = iter(range(5))
    history = run(net, lambda: float(next(states)), n_warmup_steps=4, clip=clip)
    optimizer = torch.optim.AdamW(expected.parameters(), lr=0.1, weight_decay=0.01)
    losses = []
    for step in range(15):
        rows = torch.arange(40).split(16)[step % 3]
        optimizer.param_groups[0]["lr"] = 0.1 * warmup_cosine(step, 4, 15)
        loss = ((expected(X[rows]) - Y[rows]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(expected.parameters(), clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    torch.testing.assert_close(net.state_dict(), expected.state_dict(), rtol=0, atol=0)
    np.testing.assert_allclose([row["loss"] for row in history], np.reshape(losses, (5, 3)).mean(1))
    assert [(row["epoch"], row["score"]) for row in history] == [(i + 1, float(i)) for i in range(5)]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [((0.2, 0.9, 0.4), 1), ((0.5, 0.5, 0.5), 0), ((np.nan, np.nan, np.nan), 2), ((-3.0, -2.0, -4.0), 1)],
)
def test_best_epoch_is_kept(scores: tuple[float, ...], kept: int) -> None:
    net, states, left = make_net(), [], iter(scores)

    def score() -> float:
        states.append(net.weight.detach().clone())
        return next(left)

    run(net, score, max_epochs=3)
    assert not net.training
    assert [torch.equal(net.weight, state) for state in states].index(True) == kept


def test_other_code_keeps_its_random_numbers_and_frozen_weights_stay() -> None:
    net = make_net()
    net.bias.requires_grad = False
    before = torch.get_rng_state()
    run(net)
    assert torch.equal(torch.get_rng_state(), before)
    assert float(net.bias) == 0.0
    assert not torch.equal(net.weight, make_net().weight)


@pytest.mark.parametrize(
    ("scores", "n_epochs"), [((0.9, 0.5, 0.6, 0.7, 0.8), 3), ((0.1, 0.0, 0.2, 0.2, 0.1), 5), ((np.nan,) * 5, 2)]
)
def test_early_stopping(scores: tuple[float, ...], n_epochs: int) -> None:
    left = iter(scores)
    history = run(make_net(), lambda: next(left), patience=2)
    assert len(history) == n_epochs
    with pytest.raises(ValueError, match="early_stopping_patience must be at least 1"):
        run(make_net(), patience=0)


def test_loggers_get_the_history(tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path / "a"), CSVLogger(tmp_path / "b")]
    history = pd.DataFrame(run(make_net(), logger=loggers))
    for name in ("a", "b"):
        table = pd.read_csv(next((tmp_path / name).rglob("metrics.csv")))
        np.testing.assert_allclose(table["loss"], history["loss"])
        assert list(table["step"]) == [0, 1, 2, 3, 4]
    run(make_net(), logger=True)
    with pytest.raises(TypeError, match="logger= takes loggers of lightning.pytorch.loggers.* got str"):
        run(make_net(), logger="csv")
