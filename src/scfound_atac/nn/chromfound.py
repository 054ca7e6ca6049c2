"""ChromFound: window attention and Mamba over every open chromatin region of a cell (arXiv 2505.12638).

Glossary (paper symbol: meaning)
    OCR     open chromatin region, one token
    B, L    cells in a batch, OCRs in genome order
    D       model width (d_model, 128)
    D_low   width of the Mamba branch (d_low, 32)
    W       attention window in OCRs (window_size, 256)
    WPSA    window partition self-attention, section 3.2.1
    d       channels inside Mamba (expand x d_low, 64)
    n       states per channel (d_state, 16)

Where paper and released code differ, this file computes what the released weights need: the half-window shift, the two
LayerNorms, and the MLP after the window attention, only exist in the released model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .selective_scan import selective_scan
from .window_attention import WindowAttention

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ChromFoundConfig:
    """Sizes of a ChromFound network; the defaults are those of the released weights."""

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 8
    window_size: int = 256
    shift_size: int = 128
    d_mlp: int = 128
    d_low: int = 32
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int = 2
    n_chromosomes: int = 25
    position_temperature: float = 100_000.0
    dropout: float = 0.1
    n_factors: int = 0
    """Number of features of each region in addition to its coordinates; 0 for none, as in the released weights."""

    def __post_init__(self) -> None:
        for name in (
            "d_model",
            "n_layers",
            "n_heads",
            "window_size",
            "d_mlp",
            "d_low",
            "d_state",
            "d_conv",
            "expand",
            "dt_rank",
        ):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1, got {getattr(self, name)}."
                raise ValueError(msg)
        if self.d_model % self.n_heads or self.d_model % 2:
            msg = f"d_model ({self.d_model}) must be even and divisible by n_heads ({self.n_heads})."
            raise ValueError(msg)
        if self.n_factors < 0:
            msg = f"n_factors must not be negative, got {self.n_factors}."
            raise ValueError(msg)
        if not 0 <= self.shift_size < self.window_size:
            msg = f"shift_size ({self.shift_size}) must lie in [0, window_size = {self.window_size})."
            raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation in fp32, eps 1e-5."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., D)
        return F.rms_norm(x, x.shape[-1:], self.weight, eps=1e-5)


class MLP(nn.Module):
    """Two linear layers with exact GELU between them."""

    def __init__(self, d_model: int, d_mlp: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_mlp)
        self.fc2 = nn.Linear(d_mlp, d_model)

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., D)
        return self.fc2(F.gelu(self.fc1(x)))


class WPSABlock(nn.Module):
    """Window attention and MLP, each with a LayerNorm after it and a residual around it."""

    def __init__(self, config: ChromFoundConfig) -> None:
        super().__init__()
        self.attn = WindowAttention(config.d_model, config.n_heads, config.window_size, config.shift_size)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config.d_model, config.d_mlp)
        self.norm2 = nn.LayerNorm(config.d_model)

    def forward(self, h: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
        h = h + self.norm1(self.attn(h))
        return h + self.norm2(self.mlp(h))


class Mamba(nn.Module):
    """Mamba-1 mixer, one direction, genome order."""

    def __init__(self, config: ChromFoundConfig) -> None:
        super().__init__()
        d_inner, n = config.expand * config.d_low, config.d_state
        self.in_proj = nn.Linear(config.d_low, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, config.d_conv, groups=d_inner, padding=config.d_conv - 1)
        self.x_proj = nn.Linear(d_inner, config.dt_rank + 2 * n, bias=False)
        self.dt_proj = nn.Linear(config.dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1, dtype=torch.float32)).repeat(d_inner, 1))  # (d, n)
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, config.d_low, bias=False)
        self.dt_rank, self.d_state = config.dt_rank, n
        self._init_step_size()

    def _init_step_size(self, smallest: float = 1e-3, largest: float = 0.1) -> None:
        # softplus(bias) is log-uniform between the smallest and largest step, so that channels start with different memory lengths.
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        dt = torch.exp(torch.empty_like(self.dt_proj.bias).uniform_(math.log(smallest), math.log(largest)))
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D_low) -> (B, L, D_low)
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)  # each (B, d, L)
        u = F.silu(self._causal_conv(u))
        dt, B, C = self.x_proj(u.transpose(1, 2)).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = (dt @ self.dt_proj.weight.T).transpose(1, 2)  # (B, d, L); the bias goes into the scan
        y = selective_scan(
            u,
            delta,
            -torch.exp(self.A_log.float()),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D,
            z,
            self.dt_proj.bias,
            delta_softplus=True,
        )
        return self.out_proj(y.transpose(1, 2))

    def _causal_conv(self, u: Tensor) -> Tensor:  # (B, d, L) -> (B, d, L), each channel with its own d_conv taps
        # Written out: on CPU the gradient of a depthwise Conv1d takes longer than the rest of the block.
        weight, bias, length = self.conv1d.weight, self.conv1d.bias, u.shape[-1]
        u = F.pad(u, (weight.shape[-1] - 1, 0))
        y = bias[:, None] if bias is not None else torch.zeros_like(u[..., :length])
        for k in range(weight.shape[-1]):
            y = torch.addcmul(y, weight[:, 0, k, None], u[..., k : k + length])
        return y


class EncoderLayer(nn.Module):
    """Add, norm, mix: WPSA at full width, then Mamba at low width (section 3.2.3)."""

    def __init__(self, config: ChromFoundConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.wpsa = WPSABlock(config)
        self.down = nn.Linear(config.d_model, config.d_low)
        self.mamba = Mamba(config)
        self.up = nn.Linear(config.d_low, config.d_model)

    def forward(self, residual: Tensor) -> Tensor:
        """What the layer adds to the running residual: (B, L, D) -> (B, L, D)."""
        return self.up(self.mamba(self.down(self.wpsa(self.norm(residual)))))


_PLAIN_MODULES = (EncoderLayer, WPSABlock, WindowAttention, MLP, Mamba, RMSNorm, nn.Linear, nn.LayerNorm, nn.Conv1d)


def is_plain(net: ChromFoundNet) -> bool:
    """Whether no module is wrapped, hooked or replaced (adapters, parametrisations, probes), whose code would have to run."""
    modules = [module for part in (*net.layers, net.norm) for module in part.modules()]
    return all(type(m) in _PLAIN_MODULES and not (m._forward_hooks or m._forward_pre_hooks) for m in modules)


class ChromFoundNet(nn.Module):
    """Accessibility of all OCRs of a cell -> hidden states and reconstructed accessibility.

    The OCR part of a token (chromosome, start, end, factors) is the same for all cells of an OCR set: compute it once with
    `embed_ocrs` and pass it to every batch.

    Attributes
    ----------
    checkpoint_activations
        In training, store only the input of each encoder layer and compute the rest again in the backward pass. This takes about a third
        more time and a fraction of the memory. False by default.
    """

    def __init__(self, config: ChromFoundConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ChromFoundConfig()
        self.value_embedding = nn.Linear(1, config.d_model)
        self.chromosome_embedding = nn.Embedding(config.n_chromosomes, config.d_model, padding_idx=0)
        if config.n_factors:
            self.region_projection = nn.Linear(config.n_factors, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model)
        self.decoder = nn.Linear(config.d_model, 1)
        self.checkpoint_activations = False

    def embed_ocrs(self, chromosome: Tensor, start: Tensor, end: Tensor, factors: Tensor | None = None) -> Tensor:
        """Chromosome plus position embedding of an OCR set (section 3.1), and features of its regions: (L, D).

        `chromosome` (L,) holds vocabulary ids (0 = unknown, 1..22, 23 = X, 24 = Y); `start` and `end` (L,) are GRCh38, 0-based
        half-open, in bases. A network with ``config.n_factors > 0``, which is not in the paper, adds a linear projection of the
        `factors` of regions (L, n_factors), which are 0 for unknown regions; other networks ignore them.
        """
        ocrs = self.chromosome_embedding(chromosome) + self._sinusoids(start) + self._sinusoids(end)
        n_factors = self.config.n_factors
        if not n_factors:
            return ocrs
        if factors is None or factors.shape != (len(start), n_factors):
            found = "none" if factors is None else f"shape {tuple(factors.shape)}"
            msg = f"This network needs region factors of shape ({len(start)}, {n_factors}), got {found}."
            raise ValueError(msg)
        return ocrs + self.region_projection(factors)

    def _sinusoids(self, position: Tensor) -> Tensor:  # (L,) -> (L, D)
        i = torch.arange(0, self.config.d_model, 2, device=position.device, dtype=torch.float32)
        wavelength = torch.pow(10_000.0, i / self.config.d_model)
        angle = position.float()[:, None] / self.config.position_temperature / wavelength  # (L, D / 2)
        return torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1).flatten(1)

    def forward(self, value: Tensor, ocrs: Tensor) -> Tensor:
        """Final hidden states: value (B, L), ocrs (L, D) from `embed_ocrs` -> (B, L, D)."""
        residual = self.dropout(self.value_embedding(value[..., None]) + ocrs).float()
        if residual.device.type == "cpu" and not torch.is_grad_enabled():
            from .cpu import encoder

            if encoder.supports(self, residual) and is_plain(self):
                return encoder.encode(self, residual)  # the same layers, about five times faster
        for layer in self.layers:
            if self.checkpoint_activations and torch.is_grad_enabled():
                residual = residual + checkpoint(layer, residual, use_reentrant=False)
            else:
                residual = residual + layer(residual)
        return self.norm(residual)

    def reconstruct(self, hidden: Tensor) -> Tensor:
        """Decode accessibility from hidden states: (B, L, D) -> (B, L)."""
        return self.decoder(hidden).squeeze(-1)

    def predict(self, value: Tensor, ocrs: Tensor) -> Tensor:
        """Accessibility of every OCR, a logit if the objective was a Bernoulli likelihood: (B, L), (L, D) -> (B, L)."""
        return self.reconstruct(self(value, ocrs))

    def cell_vector(self, value: Tensor, ocrs: Tensor) -> Tensor:
        """One vector of fixed size per cell, the hidden states of its open OCRs weighted by their values: (B, L), (L, D) -> (B, D)."""
        weighted = torch.einsum("bl,bld->bd", value, self(value, ocrs))
        return weighted / value.sum(1, keepdim=True).clamp(min=1e-6)

    @staticmethod
    def pool(hidden: Tensor) -> Tensor:
        """The paper's cell vector: mean over the hidden dimensions (A.1): (B, L, D) -> (B, L)."""
        return hidden.mean(-1)
