"""Heads, which are trained on top of a network for one task. The head of EpiFoundation's paper is in `epifoundation.py`.

Glossary
    B, L    cells in a batch, OCRs
    D, d    width of hidden states, of cell vectors
    K       cell types
    G       genes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from .epifoundation import GeneQueryDecoder

if TYPE_CHECKING:
    from torch import Tensor


class VectorHead(nn.Module):
    """Cell vectors -> logits by one linear layer, so that the backbone has to learn everything else."""

    def __init__(self, d: int, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.fc = nn.Linear(d, n_classes)

    def forward(self, cell: Tensor) -> Tensor:  # (B, d) -> (B, K)
        return self.fc(self.norm(cell))


class ChromFoundHead(nn.Module):
    """Cell types from the hidden states of one OCR set (arXiv 2505.12638, A.2): D -> 256 -> 1 per OCR, then L -> 1024 -> 512 -> 128 -> K.

    With GELU between the layers, dropout 0.3 and LayerNorm, as in the paper. The layer of width L ties the head to its OCRs.
    """

    def __init__(self, d_model: int, n_ocrs: int, n_classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.per_ocr = nn.Sequential(nn.Linear(d_model, 256), nn.GELU(), nn.Linear(256, 1))
        layers: list[nn.Module] = []
        for n_in, n_out in ((n_ocrs, 1024), (1024, 512), (512, 128)):
            layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.GELU(), nn.Dropout(dropout)]
        self.mlp = nn.Sequential(*layers)
        self.fc = nn.Linear(128, n_classes)

    def vectors(self, hidden: Tensor) -> Tensor:  # (B, L, D) -> (B, 128)
        """Input of the last layer for each cell."""
        return self.mlp(self.per_ocr(hidden).squeeze(-1))

    def forward(self, hidden: Tensor) -> Tensor:  # (B, L, D) -> (B, K)
        return self.fc(self.vectors(hidden))


class ExpressionHead(nn.Module):
    """Expression of genes from cell features by two layers with a hidden width of 1,024 (arXiv 2505.12638, A.3)."""

    def __init__(self, d: int, n_genes: int, *, hidden: int = 1024, dropout: float = 0.5) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Dropout(dropout / 2), nn.Linear(d, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, n_genes)
        )

    def forward(
        self, features: Tensor, genes: Tensor | None = None
    ) -> Tensor:  # (B, d), (g,) -> (B, g); (B, G) without `genes`
        predicted = self.mlp(features)
        return predicted if genes is None else predicted[:, genes]


class GeneQueryHead(nn.Module):
    """Expression of genes from cell features, with a learned query vector for each gene (bioRxiv 2025.02.05.636688, "concat query").

    The query vectors start from those of a backbone that knows the genes, or at random.
    """

    def __init__(self, d: int, n_genes: int, *, d_gene: int = 512, d_query: int = 128, dropout: float = 0.15) -> None:
        super().__init__()
        self.genes = nn.Embedding(n_genes, d_gene)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)
        self.decoder = GeneQueryDecoder(d_gene, d, d_query, 1)

    def forward(
        self, features: Tensor, genes: Tensor | None = None
    ) -> Tensor:  # (B, d), (g,) -> (B, g); (B, G) without `genes`
        asked = self.genes.weight if genes is None else self.genes(genes)
        return self.decoder(self.dropout(self.norm(features)), asked).squeeze(-1)
