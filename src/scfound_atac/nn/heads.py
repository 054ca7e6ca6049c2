"""Heads: what is trained on top of a network for one task; that of EpiFoundation's paper is part of its network, `epifoundation.py`.

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
    """Cell vectors -> logits, by one linear layer: what is to be learned has to be learned by the backbone."""

    def __init__(self, d: int, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.fc = nn.Linear(d, n_classes)

    def forward(self, cell: Tensor) -> Tensor:  # (B, d) -> (B, K)
        return self.fc(self.norm(cell))


class ChromFoundHead(nn.Module):
    """Cell types from the hidden states of one OCR set (arXiv 2505.12638, A.2): D -> 256 -> 1 per OCR, then L -> 1024 -> 512 -> 128 -> K.

    GELU between the layers, dropout 0.3 and, as the paper has it, LayerNorm. The layer of width L ties it to its OCRs.
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
        """What the last layer sees of each cell."""
        return self.mlp(self.per_ocr(hidden).squeeze(-1))

    def forward(self, hidden: Tensor) -> Tensor:  # (B, L, D) -> (B, K)
        return self.fc(self.vectors(hidden))


class ExpressionHead(nn.Module):
    """Expression of genes from cell features (arXiv 2505.12638, A.3): two layers, 1,024 wide between them."""

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
    """Expression of genes from cell features, each gene asked for by a vector of its own (bioRxiv 2025.02.05.636688, "concat query").

    The vectors are learned; they start from those of a backbone that knows the genes, or at random.
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
