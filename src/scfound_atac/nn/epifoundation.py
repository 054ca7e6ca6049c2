"""EpiFoundation: a cell as the set of its open peaks, aligned with the expression of genes (bioRxiv 2025.02.05.636688).

Glossary (paper symbol: meaning)
    B, L    cells in a batch, tokens of the longest: [CLS], then the ids of the cell's open peaks in any order
    G       genes that are predicted
    D       model width (d_m; d_model, 512)
    Q       width of a gene query (d_query, 128)
    K       classes of expression (n_bins: 2 in pretraining, not expressed and expressed)
    z_c     cell vector (section 3.3.2): the state of [CLS] after the last layer

There are no positions: a token consists of a peak and its chromosome, so that the order of tokens does not matter.

Where paper and released code differ, this file computes what the released weights need: a LayerNorm after every table, a BatchNorm
over the sum of the tables, and the batch vector as a second input of the value decoder too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

# As in the released code.
_BATCH_NORM_EPS = 6.1e-5
_BATCH_NORM_MOMENTUM = 0.1


@dataclass(frozen=True)
class EpiFoundationConfig:
    """Sizes of an EpiFoundation network; the defaults are those of the paper, the vocabularies have none."""

    n_peaks: int
    """Rows of the peak table: the peak vocabulary with its special tokens; in the same way for genes and chromosomes."""
    n_genes: int = 0
    """0 for a network without gene queries."""
    n_chromosomes: int = 28
    """0 for a network that does not read chromosomes."""
    n_batches: int = 0
    n_cell_types: int = 0
    n_bins: int = 0
    """Classes of the expression decoder; 0 for a network without it."""
    value_decoder: bool = False
    d_model: int = 512
    n_layers: int = 6
    n_heads: int = 8
    d_feed_forward: int = 1024
    d_query: int = 128
    dropout: float = 0.15
    max_tokens: int = 12_000
    """Maximum number of open peaks of a cell; cells with more are subsampled at random."""

    def __post_init__(self) -> None:
        for name in ("n_peaks", "d_model", "n_layers", "n_heads", "d_feed_forward", "d_query", "max_tokens"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1, got {getattr(self, name)}."
                raise ValueError(msg)
        for name in ("n_genes", "n_chromosomes", "n_batches", "n_cell_types", "n_bins"):
            if getattr(self, name) < 0:
                msg = f"{name} must not be negative, got {getattr(self, name)}."
                raise ValueError(msg)
        if self.d_model % self.n_heads:
            msg = f"d_model ({self.d_model}) must be divisible by n_heads ({self.n_heads})."
            raise ValueError(msg)
        if (self.n_bins or self.value_decoder) and not self.n_genes:
            msg = "A decoder of expression needs genes: n_genes is 0."
            raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self)


class NormedEmbedding(nn.Module):
    """A table of vectors and the LayerNorm after it."""

    def __init__(self, n_rows: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_rows, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, ids: Tensor) -> Tensor:  # (...) -> (..., D)
        return self.norm(self.table(ids))


class SyncedBatchNorm(nn.BatchNorm1d):
    """BatchNorm with statistics over the batches of all processes that train together.

    Training with N processes is then the same as with one. The version of torch only works on GPUs.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, D)
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce  # not in every build of torch

        wide = x.float()
        n = all_reduce(torch.tensor(float(len(x)), device=x.device))
        mean = all_reduce(wide.sum(0)) / n
        deviation = wide - mean
        variance = all_reduce(deviation.square().sum(0)) / n
        with torch.no_grad():
            for name, now in (("running_mean", mean), ("running_var", variance * n / (n - 1))):
                self.get_buffer(name).lerp_(now, _BATCH_NORM_MOMENTUM)
            self.get_buffer("num_batches_tracked").add_(1)
        return (deviation * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(x.dtype)


class EncoderLayer(nn.Module):
    """Self-attention among the tokens of a cell, then a feed-forward network; LayerNorm after each ("post-norm")."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        d, self.n_heads, self.dropout = config.d_model, config.n_heads, config.dropout
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)
        self.norm1 = nn.LayerNorm(d)
        self.fc1 = nn.Linear(d, config.d_feed_forward)
        self.fc2 = nn.Linear(config.d_feed_forward, d)
        self.norm2 = nn.LayerNorm(d)

    def forward(self, x: Tensor, is_key: Tensor | None) -> Tensor:  # (B, L, D), (B, 1, 1, L) -> (B, L, D)
        dropout = self.dropout if self.training else 0.0
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, L, D / H)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=is_key, dropout_p=dropout)
        x = self.norm1(x + F.dropout(self.proj(mixed.transpose(1, 2).flatten(2)), dropout))
        hidden = F.dropout(F.relu(self.fc1(x)), dropout)
        return self.norm2(x + F.dropout(self.fc2(hidden), dropout))


class GeneQueryDecoder(nn.Module):
    """Predicts K numbers per gene from a cell vector and the query of the gene ("concat query").

    The first linear layer acts on [cell; query]. Its two halves are applied separately, so that no (B, G, D + Q) tensor is needed.
    """

    def __init__(self, d_model: int, d_cell: int, d_query: int, n_outputs: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_query)
        self.fc1 = nn.Linear(d_cell + d_query, 128)
        self.activation = nn.PReLU()
        self.fc2 = nn.Linear(128, n_outputs)

    def forward(self, cell: Tensor, genes: Tensor) -> Tensor:  # (B, d_cell), (G, D) or (B, G, D) -> (B, G, K)
        of_cell, of_query = self.fc1.weight.split([cell.shape[-1], self.query.out_features], dim=1)
        query = F.linear(torch.sigmoid(self.query(genes)), of_query)  # (G, 128) or (B, G, 128)
        hidden = F.linear(cell, of_cell, self.fc1.bias)[:, None] + query  # (B, G, 128)
        return self.fc2(self.activation(hidden))


class EpiFoundationHead(nn.Sequential):
    """Cell types from the vector of the cell token: three layers, ReLU and LayerNorm between them; (B, D) -> (B, K)."""

    def __init__(self, d: int, n_classes: int) -> None:
        hidden = [nn.Linear(d, d), nn.ReLU(), nn.LayerNorm(d), nn.Linear(d, d), nn.ReLU(), nn.LayerNorm(d)]
        super().__init__(*hidden, nn.Linear(d, n_classes))

    @property
    def fc(self) -> nn.Module:
        """The last layer."""
        return self[-1]

    def vectors(self, cell: Tensor) -> Tensor:  # (B, D) -> (B, D)
        """Input of the last layer for each cell."""
        for layer in list(self)[:-1]:
            cell = layer(cell)
        return cell


class EpiFoundationNet(nn.Module):
    """Open peaks -> cell vector -> expression of genes, cell type.

    The configuration determines which heads exist; using another one raises ValueError.
    """

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.peak_embedding = NormedEmbedding(config.n_peaks, d)
        self.chromosome_embedding = NormedEmbedding(config.n_chromosomes, d) if config.n_chromosomes else None
        self.peak_norm = SyncedBatchNorm(d, eps=_BATCH_NORM_EPS, momentum=_BATCH_NORM_MOMENTUM)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(d)
        if config.n_genes:
            self.gene_embedding = NormedEmbedding(config.n_genes, d)
            self.gene_norm = SyncedBatchNorm(d, eps=_BATCH_NORM_EPS, momentum=_BATCH_NORM_MOMENTUM)
        d_cell = d
        if config.n_batches:
            self.batch_embedding = NormedEmbedding(config.n_batches, d)
            d_cell += d
        if config.n_bins:
            self.expression_decoder = GeneQueryDecoder(d, d_cell, config.d_query, config.n_bins)
        if config.value_decoder:
            self.value_decoder = GeneQueryDecoder(d, d_cell, config.d_query, 1)
        if config.n_cell_types:
            self.cell_type_head = EpiFoundationHead(d, config.n_cell_types)

    def encode(self, peaks: Tensor, chromosomes: Tensor, is_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cell vectors and the states of all tokens.

        Parameters
        ----------
        peaks, chromosomes
            Ids of the tokens and of their chromosomes, shape (B, L), [CLS] first.
        is_token
            Mask of shape (B, L) that is False for padding; None if there is no padding. Ids at padded positions do not affect other
            positions, and the states of padded positions have no meaning.

        Returns
        -------
        Cell vectors (B, D), the states of [CLS], and the states of all tokens (B, L, D).
        """
        x = self._embed(self.peak_embedding(peaks), chromosomes)
        x = self._batch_norm(self.peak_norm, x, is_token)
        is_key = None if is_token is None else is_token[:, None, None]
        for layer in self.layers:
            x = layer(x, is_key)
        x = self.norm(x)
        return x[:, 0], x

    def forward(self, peaks: Tensor, chromosomes: Tensor, is_token: Tensor | None = None) -> Tensor:
        """Cell vectors (B, D); see `encode`."""
        return self.encode(peaks, chromosomes, is_token)[0]

    def embed_genes(self, genes: Tensor, chromosomes: Tensor, is_gene: Tensor | None = None) -> Tensor:
        """Queries of genes, from their ids and the ids of their chromosomes, (G,) for all cells or (B, G) -> (G, D) or (B, G, D).

        `is_gene`, of the same shape, is False for padding, which matters in training.
        """
        self._need(self.config.n_genes, "gene queries")
        return self._batch_norm(self.gene_norm, self._embed(self.gene_embedding(genes), chromosomes), is_gene)

    def predict_expression(self, cell: Tensor, genes: Tensor, batch: Tensor | None = None) -> Tensor:
        """Logits of the classes of expression.

        Parameters
        ----------
        cell
            Cell vectors of `encode`, shape (B, D).
        genes
            Queries from `embed_genes`, shape (G, D) or (B, G, D).
        batch
            Ids of the experimental batches of the cells, shape (B,), for a network that was trained with them.

        Returns
        -------
        Shape (B, G, K).
        """
        self._need(self.config.n_bins, "expression decoder")
        return self.expression_decoder(self._with_batch(cell, batch), genes)

    def predict_values(self, cell: Tensor, genes: Tensor, batch: Tensor | None = None) -> Tensor:
        """Levels of expression on the binned scale, shape (B, G); parameters as those of `predict_expression`."""
        self._need(self.config.value_decoder, "value decoder")
        return self.value_decoder(self._with_batch(cell, batch), genes).squeeze(-1)

    def predict_cell_types(self, cell: Tensor) -> Tensor:
        """Logits of the cell types: (B, D) -> (B, n_cell_types)."""
        self._need(self.config.n_cell_types, "cell-type head")
        return self.cell_type_head(cell)

    def _embed(self, x: Tensor, chromosomes: Tensor) -> Tensor:
        if self.chromosome_embedding is not None:
            x = x + self.chromosome_embedding(chromosomes)
        return F.dropout(x, self.config.dropout, self.training)

    def _batch_norm(self, norm: nn.BatchNorm1d, x: Tensor, is_token: Tensor | None) -> Tensor:
        """BatchNorm over the channels of (..., D); in training, padding is left out of the statistics."""
        if is_token is None or not self.training:
            return norm(x.flatten(0, -2)).view_as(x)
        return x.masked_scatter(is_token[..., None], norm(x[is_token]).to(x.dtype))

    def _with_batch(self, cell: Tensor, batch: Tensor | None) -> Tensor:
        if not self.config.n_batches:
            return cell
        if batch is None:
            msg = f"This network was trained with {self.config.n_batches} batches: pass batch, one id per cell."
            raise ValueError(msg)
        return torch.cat([cell, self.batch_embedding(batch)], dim=-1)

    def _need(self, there: int, what: str) -> None:
        if not there:
            msg = f"This network has no {what}."
            raise ValueError(msg)
