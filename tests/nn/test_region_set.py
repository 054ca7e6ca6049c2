from __future__ import annotations

import pytest
import torch

from scfound_atac.nn import RegionSetConfig, RegionSetNet


@pytest.fixture
def net() -> RegionSetNet:
    torch.manual_seed(0)
    return RegionSetNet(RegionSetConfig(n_factors=6, d_cell=8, d_hidden=16)).eval()


def _ocrs(net: RegionSetNet, n: int = 12) -> torch.Tensor:
    factors = torch.randn(n, 6, generator=torch.Generator().manual_seed(1))
    return net.embed_ocrs(None, None, None, factors)


def test_shapes(net) -> None:
    ocrs, value = _ocrs(net), torch.rand(3, 12)
    assert ocrs.shape == (12, 17)
    assert net.messages(ocrs).shape == (12, 9)
    assert net.keys(ocrs).shape == (12, 8)
    assert net.cell_vector(value, ocrs).shape == (3, 8)
    assert net.predict(value, ocrs).shape == (3, 12)


def test_a_cell_is_a_set(net) -> None:
    """Neither the order of the OCRs nor closed ones change a cell vector; a permutation of OCRs permutes the prediction."""
    ocrs, value = _ocrs(net), torch.rand(2, 12)
    value[:, 6:] = 0
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    vector = net.cell_vector(value, ocrs)
    torch.testing.assert_close(net.cell_vector(value[:, order], ocrs[order]), vector)
    torch.testing.assert_close(net.cell_vector(value[:, :6], ocrs[:6]), vector)
    torch.testing.assert_close(net.predict(value[:, order], ocrs[order]), net.predict(value, ocrs)[:, order])


def test_messages_can_be_summed_elsewhere(net) -> None:
    ocrs, value = _ocrs(net), torch.rand(4, 12)
    total = torch.from_numpy(value.numpy() @ net.messages(ocrs).detach().numpy())
    torch.testing.assert_close(net.summarise(total), net.cell_vector(value, ocrs))


def test_cell_by_cell_equals_the_batch(net) -> None:
    ocrs, value = _ocrs(net), torch.rand(5, 12)
    alone = torch.cat([net.cell_vector(row[None], ocrs) for row in value])
    torch.testing.assert_close(net.cell_vector(value, ocrs), alone)


def test_an_empty_cell_is_finite_and_depth_is_seen(net) -> None:
    torch.nn.init.normal_(net.cell[-1].weight)
    ocrs, value = _ocrs(net), torch.rand(1, 12)
    assert torch.isfinite(net.predict(torch.zeros(1, 12), ocrs)).all()
    assert not torch.allclose(net.cell_vector(value, ocrs), net.cell_vector(4 * value, ocrs))


def test_starts_linear() -> None:
    """At first the cell vector is a linear function of the mean message."""
    torch.manual_seed(0)
    net = RegionSetNet(RegionSetConfig(n_factors=6, d_cell=8, d_hidden=16))
    ocrs, value = _ocrs(net), torch.rand(2, 12)
    total = value @ net.messages(ocrs)
    torch.testing.assert_close(net.cell_vector(value, ocrs), net.cell_linear(total[:, :8] / (total[:, 8:] + 1e-6)))


def test_every_weight_learns(net) -> None:
    torch.nn.init.normal_(net.cell[-1].weight)
    net.predict(torch.rand(3, 12), _ocrs(net)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("factors", [None, torch.zeros(3, 5)])
def test_wrong_factors_are_refused(net, factors) -> None:
    with pytest.raises(ValueError, match=r"needs region factors of shape \(L, 6\)"):
        net.embed_ocrs(None, None, None, factors)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="d_cell must be at least 1"):
        RegionSetConfig(d_cell=0)
