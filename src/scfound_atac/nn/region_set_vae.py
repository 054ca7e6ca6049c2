"""RegionSetVAE: the default embedding, made trainable on the user's own cells.

Glossary
    OCR     open chromatin region
    B, L    cells in a batch, OCRs
    A       spectral axes (n_axes)
    D       width of the cell vector of the region-set network (d_cell)
    Z       latent dimensions (n_latent)

The encoder reads the two views of a cell that the default embedding combines: spectral components of its counts, and the vector of the
region-set network. Both are fixed. Their rotation to the latent space is trained, and a small network adds to it what the rotation cannot
express; it starts from zero, so that training starts from the default embedding.

The decoder gives the log rate of each OCR: its mean over cells, an effect of the batch and of other covariates, the product of the cell's
latent vector with the vector of the OCR, and with a map of its key, by which the region-set network knows it. The likelihood is that of a
multinomial with the number of open OCRs of the cell. What the depth of a cell and its batch explain need not be in its latent vector.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from .region_set import RegionSetConfig, RegionSetNet

if TYPE_CHECKING:
    from torch import Tensor

_START_LOG_VARIANCE = -1.0  # of the posterior: below the prior's 0, so that the first samples still tell cells apart
_VIEW_SCALE = 8.0  # views have length 1; with about a hundred entries this brings an entry to the order of 1
_TINY = 1e-12


@dataclass(frozen=True)
class RegionSetVAEConfig:
    """Sizes of a RegionSetVAE."""

    n_ocrs: int
    n_latent: int = 50
    n_hidden: int = 128
    n_axes: int = 50
    dropout: float = 0.1
    n_batch: int = 1
    n_cats: tuple[int, ...] = ()
    n_continuous: int = 0
    backbone: RegionSetConfig = field(default_factory=RegionSetConfig)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self)


class RegionSetVAE(nn.Module):
    """Open OCRs of a cell -> distribution of its latent vector -> log rate of every OCR.

    Buffers are filled once, from the cells on which training starts; `ready` says whether this has happened.
    """

    idf: Tensor
    axes: Tensor
    messages: Tensor
    keys: Tensor
    ready: Tensor
    reference_depth: Tensor

    def __init__(self, config: RegionSetVAEConfig) -> None:
        super().__init__()
        self.config = config
        n_ocrs, z, d = config.n_ocrs, config.n_latent, config.backbone.d_cell
        n_views = config.n_axes + d

        # Encoder: fixed views, a rotation, and a network beside it.
        self.backbone = RegionSetNet(config.backbone).requires_grad_(requires_grad=False)
        self.register_buffer("idf", torch.zeros(n_ocrs))  # weight of each OCR in the counts' view
        self.register_buffer("axes", torch.zeros(n_ocrs, config.n_axes))  # spectral axes
        self.register_buffer("messages", torch.zeros(n_ocrs, d + 1))  # what an open OCR adds to the cell vector
        self.register_buffer("ready", torch.tensor(0, dtype=torch.uint8))
        self.rotation = nn.Parameter(torch.zeros(n_views, z))
        self.shift = nn.Parameter(torch.zeros(z))
        self.hidden = nn.Sequential(
            nn.Linear(n_views, config.n_hidden), nn.LayerNorm(config.n_hidden), nn.GELU(), nn.Dropout(config.dropout)
        )
        self.offset = nn.Linear(config.n_hidden, z)
        self.log_variance = nn.Linear(config.n_hidden + 1, z)
        for last in (self.offset, self.log_variance):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.constant_(self.log_variance.bias, _START_LOG_VARIANCE)

        # Decoder.
        self.register_buffer("keys", torch.zeros(n_ocrs, d))  # what the region-set network knows of each OCR
        self.register_buffer("reference_depth", torch.tensor(1.0))  # median number of open OCRs of a cell
        self.mean = nn.Parameter(torch.zeros(n_ocrs))
        self.weights = nn.Parameter(torch.zeros(z, n_ocrs))
        self.key_map = nn.Parameter(torch.zeros(z, d))
        self.batch_effect = nn.Parameter(torch.zeros(config.n_batch, n_ocrs))
        self.cat_effects = nn.ParameterList(torch.zeros(n, n_ocrs) for n in config.n_cats)
        self.continuous_effect = nn.Parameter(torch.zeros(config.n_continuous, n_ocrs))

    def views(self, is_open: Tensor) -> Tensor:
        """Both views of cells side by side, each of length 1: open OCRs as 0 and 1 (B, L) -> (B, A + D)."""
        measured = F.normalize(is_open * self.idf, dim=1, eps=_TINY) @ self.axes  # (B, A)
        known = self.backbone.summarise(is_open @ self.messages)  # (B, D)
        return torch.cat([F.normalize(measured, dim=1, eps=_TINY), F.normalize(known, dim=1, eps=_TINY)], dim=1)

    def encode(self, is_open: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent vector: (B, L) -> (B, Z), (B, Z)."""
        views = self.views(is_open)
        hidden = self.hidden(views * _VIEW_SCALE)
        depth = torch.log1p(is_open.sum(dim=1, keepdim=True)) / 6  # how reliable the views are
        log_variance = self.log_variance(torch.cat([hidden, depth], dim=1))
        return views @ self.rotation - self.shift + self.offset(hidden), log_variance

    def score(self, z: Tensor) -> Tensor:
        """What latent vectors add to the log rate of each OCR: (..., Z) -> (..., L)."""
        return z @ (self.weights + self.key_map @ self.keys.T)

    def decode(self, z: Tensor, batch: Tensor, cats: Tensor | None = None, continuous: Tensor | None = None) -> Tensor:
        """Logarithm of the fraction of a cell's open OCRs that each OCR has: latent vectors (..., B, Z) -> (..., B, L).

        `batch` (B,) and `cats` (B, number of covariates) hold numbers of categories, `continuous` (B, number of covariates) values.
        """
        rate = self.mean + self.score(z) + self.batch_effect[batch]
        for number, effect in enumerate(self.cat_effects):
            if cats is not None:
                rate = rate + effect[cats[:, number]]
        if continuous is not None and self.config.n_continuous:
            rate = rate + continuous @ self.continuous_effect
        return F.log_softmax(rate, dim=-1)

    def freeze_reference(self, n_batch: int) -> None:
        """Freeze everything but the effects of the batches from number `n_batch` on."""
        self.requires_grad_(requires_grad=False)
        self.batch_effect.requires_grad = True
        is_new = torch.arange(len(self.batch_effect))[:, None] >= n_batch
        self.batch_effect.register_hook(lambda gradient: gradient * is_new.to(gradient))

    def penalty(self, weight_precision: float, effect_precision: float) -> Tensor:
        """Negative log density of the normal priors on weights and effects, up to a constant."""
        effects = [self.batch_effect, *self.cat_effects, self.continuous_effect]
        squares = sum((effect.square().sum() for effect in effects), torch.zeros((), device=self.mean.device))
        return (weight_precision * self.weights.square().sum() + effect_precision * squares) / 2
