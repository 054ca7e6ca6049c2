"""The EpiFoundation network: what must not matter, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from scfound_atac.nn import EpiFoundationConfig, EpiFoundationNet
from scfound_atac.nn.networks import build_network, model_class_of


@pytest.fixture(scope="module")
def net(make_epifoundation) -> EpiFoundationNet:
    return make_epifoundation(value_decoder=True, n_batches=2)[0]


def tokens(n_cells: int = 3, length: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 202, (n_cells, length)), torch.randint(0, 6, (n_cells, length))


@torch.no_grad()
def test_order_of_tokens_does_not_matter(net: EpiFoundationNet) -> None:
    peaks, chromosomes = tokens()
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(19)])
    torch.testing.assert_close(net(peaks[:, order], chromosomes[:, order]), net(peaks, chromosomes), atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_does_not_matter(net: EpiFoundationNet) -> None:
    peaks, chromosomes = tokens()
    is_token = torch.arange(20) < torch.tensor([[20], [7], [1]])
    together, states = net.encode(peaks, chromosomes, is_token)
    assert states.shape == (3, 20, 16)
    torch.testing.assert_close(states[:, 0], together)
    for row, n in enumerate((20, 7, 1)):
        alone = net(peaks[row : row + 1, :n], chromosomes[row : row + 1, :n])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_padding_has_no_say_in_training(make_epifoundation) -> None:
    """Neither in the statistics of the BatchNorm nor in the gradients."""
    peaks, chromosomes = tokens(2, 10)
    is_token = torch.arange(10) < torch.tensor([[10], [4]])
    results = []
    for filler in (0, 5):
        net = make_epifoundation(dropout=0.0)[0].train()
        cell = net(peaks.where(is_token, filler), chromosomes.where(is_token, filler), is_token)
        cell.square().sum().backward()
        results.append((net.peak_norm.running_mean.clone(), net.peak_embedding.table.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_genes_can_be_shared_by_the_cells(net: EpiFoundationNet) -> None:
    cell, batch = torch.randn(3, 16), torch.tensor([0, 1, 1])
    ids, chromosomes = torch.arange(5), torch.tensor([0, 2, 4, 5, 0])
    shared = net.embed_genes(ids, chromosomes)
    repeated = net.embed_genes(ids.expand(3, 5), chromosomes.expand(3, 5))
    assert net.predict_expression(cell, shared, batch).shape == (3, 5, 2)
    for predict in (net.predict_expression, net.predict_values):
        torch.testing.assert_close(predict(cell, shared, batch), predict(cell, repeated, batch))
    assert net.predict_cell_types(cell).shape == (3, 3)


def test_batches_are_asked_for(net: EpiFoundationNet) -> None:
    with pytest.raises(ValueError, match="2 batches: pass batch"):
        net.predict_values(torch.randn(3, 16), torch.randn(5, 16))


def test_parts_that_are_not_there() -> None:
    net = EpiFoundationNet(EpiFoundationConfig(n_peaks=9, n_chromosomes=0, d_model=8, n_heads=2, n_layers=1)).eval()
    peaks = torch.arange(4)[None]
    assert net(peaks, torch.zeros_like(peaks)).shape == (1, 8)
    cell, genes = torch.randn(1, 8), torch.randn(2, 8)
    for call in (
        lambda: net.embed_genes(peaks, peaks),
        lambda: net.predict_expression(cell, genes),
        lambda: net.predict_values(cell, genes),
        lambda: net.predict_cell_types(cell),
    ):
        with pytest.raises(ValueError, match="This network has no"):
            call()


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"n_peaks": 0}, "n_peaks must be at least 1"),
        ({"n_batches": -1}, "n_batches must not be negative"),
        ({"d_model": 10, "n_heads": 4}, "divisible"),
        ({"value_decoder": True}, "needs genes"),
    ],
)
def test_impossible_sizes(sizes: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EpiFoundationConfig(**{"n_peaks": 9, **sizes})


def test_saved_but_not_trained_by_objectives(net: EpiFoundationNet) -> None:
    assert model_class_of(net) == "EpiFoundation"
    with pytest.raises(ValueError, match="Unknown network kind"):
        build_network("epifoundation", {})
