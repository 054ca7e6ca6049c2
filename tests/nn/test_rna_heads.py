"""Heads that predict expression: shapes, some of the genes, and that they learn."""

from __future__ import annotations

import pytest
import torch

from scfound_atac.nn.heads import ExpressionHead, GeneQueryHead

N_CELLS, N_FEATURES, N_GENES = 60, 8, 12
HEADS = [ExpressionHead, GeneQueryHead]


@pytest.fixture(params=HEADS)
def head(request):
    torch.manual_seed(0)
    return request.param(N_FEATURES, N_GENES).eval()


def test_some_genes_are_columns_of_all(head):
    cells, genes = torch.randn(N_CELLS, N_FEATURES), torch.tensor([7, 0, 3])
    told = head(cells)
    assert told.shape == (N_CELLS, N_GENES)
    torch.testing.assert_close(head(cells, genes), told[:, genes])


def test_cells_do_not_depend_on_the_batch(head):
    cells = torch.randn(N_CELLS, N_FEATURES)
    torch.testing.assert_close(head(cells[:1]), head(cells)[:1], atol=1e-6, rtol=1e-5)


def test_expression_head_has_the_layers_of_the_paper():
    linear = [m for m in ExpressionHead(50, 7).modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(50, 1024), (1024, 7)]


def test_gene_query_tells_genes_apart_by_their_vectors_alone():
    torch.manual_seed(0)
    head = GeneQueryHead(N_FEATURES, N_GENES).eval()
    with torch.no_grad():
        head.genes.weight[1] = head.genes.weight[0]
    told = head(torch.randn(N_CELLS, N_FEATURES))
    torch.testing.assert_close(told[:, 1], told[:, 0])
    assert not torch.allclose(told[:, 2], told[:, 0])


@pytest.mark.parametrize("make", HEADS)
def test_learns(make):
    torch.manual_seed(0)
    cells = torch.randn(N_CELLS, N_FEATURES)
    wanted = cells @ torch.randn(N_FEATURES, N_GENES)
    head = make(N_FEATURES, N_GENES)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(200):
        loss = ((head(cells) - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(((head.eval()(cells) - wanted) ** 2).mean()) < 0.3 * float(wanted.var())
