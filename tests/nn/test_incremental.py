"""A cell of which a few values change: the same vectors as from complete runs, at the cost of a few windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scfound_atac.nn import ChromFoundConfig, ChromFoundNet
from scfound_atac.nn.incremental import CellRun
from scfound_atac.nn.selective_scan import scan_from, selective_scan


def make(length: int, window: int, shift: int, n_layers: int, **sizes):
    torch.manual_seed(0)
    small = {"d_model": 16, "n_heads": 2, "d_mlp": 16, "d_low": 8, "d_state": 4} | sizes
    config = ChromFoundConfig(window_size=window, shift_size=shift, n_layers=n_layers, **small)
    net = ChromFoundNet(config).eval()
    with torch.no_grad():  # so that what the layers compute shows
        net.norm.weight.uniform_(0.2, 2)
    generator = torch.Generator().manual_seed(1)
    chromosome = torch.randint(1, 24, (length,), generator=generator).sort()[0]
    start = torch.randint(0, 10**8, (length,), generator=generator)
    with torch.inference_mode():
        ocrs = net.embed_ocrs(chromosome, start, start + 500)
    is_open = torch.rand(length, generator=generator) < 0.3
    is_open[[0, length // 2, length - 1]] = True  # also in the window that holds both ends of the genome
    return net, ocrs, torch.rand(length, generator=generator) * is_open * 3


@pytest.mark.parametrize(
    ("length", "window", "shift", "n_layers"),
    [
        (5, 8, 4, 2),  # one window
        (8, 8, 4, 2),
        (9, 8, 4, 3),  # mostly padding
        (13, 8, 4, 3),
        (65, 8, 7, 2),
        (70, 8, 0, 2),
        (70, 8, 4, 2),
        (20, 2, 1, 2),  # windows shorter than the convolution
        (12, 1, 0, 2),
        (300, 32, 16, 4),  # attention by the compiled kernel
    ],
)
def test_changed_values(length, window, shift, n_layers):
    net, ocrs, value = make(length, window, shift, n_layers)
    run = CellRun(net, ocrs, value)
    with torch.inference_mode():
        torch.testing.assert_close(run.vector, net.cell_vector(value[None], ocrs)[0], rtol=0, atol=1e-5)
        place = value.nonzero()[:, 0]
        place = torch.cat([place[:4], place[-4:]]).unique()
        n = len(place)
        # each alone to 0, each alone to twice its value, and all of them together
        copy = torch.cat([torch.arange(2 * n), torch.full((n,), 2 * n)])
        new = torch.cat([torch.zeros(n), 2 * value[place], torch.zeros(n)])
        got = run.changed(copy, place.repeat(3), new)
        values = value.repeat(2 * n + 1, 1)
        values[copy, place.repeat(3)] = new
        want = net.cell_vector(values, ocrs)
    assert float((want - run.vector).abs().amax(dim=1).min()) > 1e-3  # there is something to see
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


def test_only_what_changes_is_computed():
    net, ocrs, value = make(4000, 32, 16, 3)
    run = CellRun(net, ocrs, value)
    place = value.nonzero()[:, 0][[50, 600, 900]]
    run.changed(torch.arange(3), place, torch.zeros(3))
    assert 3 * 3 <= run.n_windows < 0.2 * 3 * 3 * 125  # 3 copies x 3 layers x 125 windows


def test_the_last_window_carries_changes_to_the_first():
    """As windows are shifted, the last one also holds the beginning of the genome."""
    net, ocrs, value = make(70, 8, 4, 2)
    run = CellRun(net, ocrs, value)
    with torch.inference_mode():
        before = net(value[None], ocrs)[0]
        values = value.clone()
        values[-1] = 0
        differs = (net(values[None], ocrs)[0] - before).abs().amax(dim=1)
        assert float(differs[:4].min()) > 1e-4
        got = run.changed(torch.tensor([0]), torch.tensor([69]), torch.zeros(1))
        torch.testing.assert_close(got, net.cell_vector(values[None], ocrs), rtol=0, atol=2e-5)


def test_cell_whose_only_open_ocr_is_closed():
    net, ocrs, _ = make(70, 8, 4, 2)
    value = torch.zeros(70)
    value[33] = 1.5
    run = CellRun(net, ocrs, value)
    got = run.changed(torch.tensor([0]), torch.tensor([33]), torch.zeros(1))
    assert not got.any()


@pytest.mark.parametrize("n_channels", [16, 12])  # compiled, and plain torch
def test_scan_in_two_parts(n_channels):
    generator = torch.Generator().manual_seed(0)
    u, z, delta = (torch.randn(3, 21, n_channels, generator=generator) for _ in range(3))
    delta = torch.nn.functional.softplus(delta)
    B, C = (torch.randn(3, 21, 5, generator=generator) for _ in range(2))
    A, D = -torch.rand(n_channels, 5, generator=generator), torch.randn(n_channels, generator=generator)
    whole = selective_scan(
        *(x.transpose(1, 2) for x in (u, delta)), A, B.transpose(1, 2), C.transpose(1, 2), D, z.transpose(1, 2)
    )
    parts, state = [], torch.zeros(3, n_channels, 5)
    for part in (slice(0, 8), slice(8, 21)):
        y, state = scan_from(u[:, part], delta[:, part], A, B[:, part], C[:, part], D, z[:, part], state)
        parts.append(y)
    np.testing.assert_allclose(torch.cat(parts, dim=1), whole.transpose(1, 2), rtol=1e-4, atol=1e-5)
