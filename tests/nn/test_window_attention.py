"""Window attention against itself written out: pad, roll, one window after the other, softmax."""

from __future__ import annotations

import pytest
import torch

from scfound_atac.nn.window_attention import WindowAttention


def naive(layer: WindowAttention, x: torch.Tensor) -> torch.Tensor:
    n_cells, length, d_model = x.shape
    window, shift = layer.window_size, layer.shift_size
    if length <= window:
        window, shift = length, 0
    padded_length = -(-length // window) * window
    width = d_model // layer.n_heads
    out = torch.empty(n_cells, length, d_model)
    for cell in range(n_cells):
        padded = torch.cat([x[cell], torch.zeros(padded_length - length, d_model)])
        rolled = torch.stack([padded[(i + shift) % padded_length] for i in range(padded_length)])
        for first in range(0, padded_length, window):
            q, k, v = layer.qkv(rolled[first : first + window]).split(d_model, dim=1)
            heads = []
            for head in range(layer.n_heads):
                part = slice(head * width, (head + 1) * width)
                score = q[:, part] @ k[:, part].T / width**0.5
                heads.append(torch.softmax(score, dim=1) @ v[:, part])
            mixed = layer.proj(torch.cat(heads, dim=1))
            for i in range(window):
                place = (first + i + shift) % padded_length
                if place < length:
                    out[cell, place] = mixed[i]
    return out


def layer_and_input(length: int, shift: int, n_heads: int = 2) -> tuple[WindowAttention, torch.Tensor]:
    torch.manual_seed(0)
    return WindowAttention(8, n_heads, window_size=8, shift_size=shift), torch.randn(2, length, 8)


@pytest.mark.parametrize("shift", [0, 1, 4, 7])
@pytest.mark.parametrize("length", [1, 5, 8, 9, 16, 21, 24])
def test_equals_naive(length: int, shift: int) -> None:
    layer, x = layer_and_input(length, shift)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), naive(layer, x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n_heads", [1, 4, 8])
def test_number_of_heads(n_heads: int) -> None:
    layer, x = layer_and_input(21, 4, n_heads)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), naive(layer, x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("shift", "seen"), [(0, range(8)), (4, range(4, 12))])
def test_who_sees_whom(shift: int, seen: range) -> None:
    """With 24 OCRs and windows of 8, OCR 5 hears from its own window alone."""
    layer, x = layer_and_input(24, shift)
    x.requires_grad_()
    layer(x)[0, 5].sum().backward()
    heard = x.grad[0].abs().sum(1) > 0
    assert heard.nonzero().ravel().tolist() == list(seen)
    assert not x.grad[1].any()


def test_wrapped_ends_attend_to_each_other() -> None:
    layer, x = layer_and_input(24, 4)
    x.requires_grad_()
    layer(x)[0, 0].sum().backward()
    assert (x.grad[0].abs().sum(1) > 0).nonzero().ravel().tolist() == [0, 1, 2, 3, 20, 21, 22, 23]


def test_gradients_equal_naive() -> None:
    layer, x = layer_and_input(21, 4)
    weight = torch.randn_like(x)
    gradients = []
    for function in (layer, lambda y: naive(layer, y)):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad((function(leaf) * weight).sum(), [leaf, *layer.parameters()]))
    for found, expected in zip(*gradients, strict=True):
        assert found.abs().sum() > 0
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
