"""RegionSetNet: a cell as the set of its open regions, each described by the tissues in which it is open.

Glossary
    OCR     open chromatin region
    B, L    cells in a batch, OCRs
    K       features of a region (n_factors): factors, openness, and whether it is in the table
    D       width of keys, queries and cell vectors (d_cell)
    H       width of the hidden layers (d_hidden)

A network, the same for every region, turns the features of a region into a message, a weight and a key. The cell vector comes from the
weighted mean of the messages of open regions. Its product with the key of a region is the log fold change of the openness of that region
over the mean cell of the study. No vectors of regions are learned, so any OCR set can be read. The cost is one matrix product of L x D per
cell, for open OCRs only.

A linear path is added to each multilayer perceptron.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RegionSetConfig:
    """Sizes of a RegionSetNet."""

    n_factors: int = 50
    d_cell: int = 64
    d_hidden: int = 256
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_factors", "d_cell", "d_hidden"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1, got {getattr(self, name)}."
                raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self)


class RegionSetNet(nn.Module):
    """Accessibility of a cell -> a cell vector, and the accessibility expected of every region.

    The part for regions is the same for all cells of an OCR set: compute it once with `embed_ocrs`.
    """

    def __init__(self, config: RegionSetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RegionSetConfig()
        k, d, h = config.n_factors, config.d_cell, config.d_hidden
        self.region = nn.Sequential(
            nn.Linear(k, h), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(h, h), nn.GELU(), nn.Linear(h, 2 * d + 1)
        )
        self.region_linear = nn.Linear(k, 2 * d, bias=False)
        last = nn.Linear(h, d)
        self.cell = nn.Sequential(nn.Linear(d + 1, h), nn.GELU(), last)
        self.cell_linear = nn.Linear(d, d, bias=False)
        nn.init.zeros_(last.weight)  # training starts from the linear path
        nn.init.zeros_(last.bias)

    def embed_ocrs(
        self, chromosome: Tensor | None, start: Tensor | None, end: Tensor | None, factors: Tensor | None = None
    ) -> Tensor:
        """Message, weight and key of each region side by side: factors (L, K) -> (L, D + 1 + D).

        Coordinates are not used; the factors describe a region.
        """
        if factors is None or factors.shape[1:] != (self.config.n_factors,):
            found = "none" if factors is None else f"shape {tuple(factors.shape)}"
            msg = f"This network needs region factors of shape (L, {self.config.n_factors}), got {found}."
            raise ValueError(msg)
        message, weight, key = self.region(factors).split([self.config.d_cell, 1, self.config.d_cell], dim=1)
        message_linear, key_linear = self.region_linear(factors).chunk(2, dim=1)
        weight = F.softplus(weight + 1)
        return torch.cat([(message + message_linear) * weight, weight, key + key_linear], dim=1)

    def messages(self, ocrs: Tensor) -> Tensor:
        """Contribution of each open OCR to a cell: weighted message and weight, (L, D + 1 + D) -> (L, D + 1)."""
        return ocrs[:, : self.config.d_cell + 1]

    def summarise(self, total: Tensor) -> Tensor:
        """Cell vectors from the sums of messages and of weights of each cell: (B, D + 1) -> (B, D)."""
        weight = total[:, self.config.d_cell :]
        mean = total[:, : self.config.d_cell] / (weight + 1e-6)
        depth = torch.log1p(weight) / 6  # how reliable the mean is
        return self.cell_linear(mean) + self.cell(torch.cat([mean, depth], dim=1))

    def cell_vector(self, value: Tensor, ocrs: Tensor) -> Tensor:
        """Cell vectors: value (B, L), ocrs from `embed_ocrs` -> (B, D)."""
        return self.summarise(value @ self.messages(ocrs))

    forward = cell_vector

    def keys(self, ocrs: Tensor) -> Tensor:
        """Keys of the regions, whose products with cell vectors are log fold changes: (L, D + 1 + D) -> (L, D)."""
        return ocrs[:, self.config.d_cell + 1 :] / self.config.d_cell**0.5

    def predict(self, value: Tensor, ocrs: Tensor) -> Tensor:
        """Log fold change of the openness of each OCR over the mean cell of the study, up to a constant per cell: (B, L)."""
        return self.cell_vector(value, ocrs) @ self.keys(ocrs).T
