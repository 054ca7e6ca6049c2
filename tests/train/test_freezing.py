"""Parts of a network that are frozen, and their statistics."""

from __future__ import annotations

import torch
from torch import nn

from scfound_atac.train.freezing import freeze_all_but, trained_names, training_mode


def make_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1), nn.Linear(1, 10))


def test_names_are_whole() -> None:
    """Module 1 is not meant by 10, nor 1 by 11."""
    net = nn.ModuleDict({"1": nn.Linear(1, 1), "10": nn.Linear(1, 1)})
    assert trained_names(net) is None
    freeze_all_but(net, ["1"])
    assert trained_names(net) == ["1.weight", "1.bias"]
    freeze_all_but(net, ["10.weight"])
    assert trained_names(net) == ["10.weight"]
    freeze_all_but(net, ["1", "10"])
    assert trained_names(net) is None


def test_frozen_statistics_stay() -> None:
    net = make_net()
    freeze_all_but(net, ["3", "4"])
    before = {name: x.clone() for name, x in net.state_dict().items()}
    training_mode(net)
    assert [part.training for part in net] == [False, False, True, True, True]
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for _ in range(2):
        net(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    changed = {name for name, x in net.state_dict().items() if not torch.equal(x, before[name])}
    assert changed == {"3.weight", "3.bias", "4.weight", "4.bias"}
    freeze_all_but(net, [str(i) for i in range(5)])
    training_mode(net)
    assert all(part.training for part in net)
