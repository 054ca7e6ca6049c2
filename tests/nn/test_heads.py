"""Heads: shapes, what ties them to an OCR set, and that they learn."""

from __future__ import annotations

import pytest
import torch

from scfound_atac.nn.epifoundation import EpiFoundationHead
from scfound_atac.nn.heads import ChromFoundHead, ExpressionHead, VectorHead


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_vector_head_is_linear_in_the_normalised_vector():
    head, cell = VectorHead(8, 3), torch.randn(5, 8)
    assert head(cell).shape == (5, 3)
    torch.testing.assert_close(head(3 * cell + 1), head(cell), atol=1e-4, rtol=1e-4)


def test_chromfound_head_has_the_layers_of_the_paper():
    head = ChromFoundHead(16, 40, 3)
    assert head(torch.randn(2, 40, 16)).shape == (2, 3)
    linear = [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == [(16, 256), (256, 1), (40, 1024), (1024, 512), (512, 128), (128, 3)]
    assert {m.p for m in head.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    with pytest.raises(RuntimeError, match="shape"):
        head(torch.randn(2, 41, 16))


@pytest.mark.parametrize(
    ("head", "seen", "width"),
    [(ChromFoundHead(16, 40, 3), (2, 40, 16), 128), (EpiFoundationHead(16, 3), (2, 16), 16)],
    ids=["chromfound", "epifoundation"],
)
def test_logits_are_the_last_layer_of_the_vectors(head, seen, width):
    head.eval()
    x = torch.randn(seen)
    assert head.vectors(x).shape == (2, width)
    torch.testing.assert_close(head.fc(head.vectors(x)), head(x))


def test_epifoundation_head_has_three_layers():
    assert sum(isinstance(m, torch.nn.Linear) for m in EpiFoundationHead(16, 3).modules()) == 3


def test_expression_head_is_as_wide_as_the_paper_says():
    head = ExpressionHead(10, 7)
    assert head(torch.randn(3, 10)).shape == (3, 7)
    assert [m.out_features for m in head.modules() if isinstance(m, torch.nn.Linear)] == [1024, 7]


@pytest.mark.parametrize(
    ("head", "seen"),
    [(VectorHead(16, 2), (24, 16)), (ChromFoundHead(16, 12, 2), (24, 12, 16)), (EpiFoundationHead(16, 2), (24, 16))],
    ids=["vector", "chromfound", "epifoundation"],
)
def test_heads_learn_and_every_weight_has_a_gradient(head, seen):
    target = torch.arange(24) % 2
    x = torch.randn(seen) + target.reshape(-1, *[1] * (len(seen) - 1)) * torch.linspace(-1, 1, seen[-1])
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(x), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in head.parameters())
        optimizer.step()
    assert (head.eval()(x).argmax(1) == target).float().mean() > 0.9
