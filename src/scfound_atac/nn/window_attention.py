"""Window partition self-attention (WPSA): full attention inside windows of neighbouring OCRs (ChromFound, section 3.2.1).

Letters: B cells, L OCRs, D model width, W window, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


def attend(qkv: Tensor, n_heads: int) -> Tensor:
    """Softmax attention of every window with itself: (windows, W, 3 D) -> (windows, W, D)."""
    q, k, v = qkv.unflatten(-1, (3, n_heads, -1)).permute(2, 0, 3, 1, 4)  # each (windows, H, W, D / H)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, shifted by half a window along the genome.

    The sequence is padded on the right with zeros to a multiple of the window and rolled left by the shift. Padded and
    wrapped positions do attend, as in the released model. A sequence that fits into one window is not shifted.
    """

    def __init__(self, d_model: int, n_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.window_size = window_size
        self.shift_size = shift_size
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
        n_cells, length, d_model = x.shape
        window, shift = (self.window_size, self.shift_size) if length > self.window_size else (length, 0)
        x = F.pad(x, (0, 0, 0, -length % window))
        x = torch.roll(x, -shift, dims=1).reshape(-1, window, d_model)  # (windows, W, D)
        x = self.proj(attend(self.qkv(x), self.n_heads))
        x = torch.roll(x.reshape(n_cells, -1, d_model), shift, dims=1)
        return x[:, :length]
