"""The compiled CPU forward pass against the plain network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scfound_atac.nn import ChromFoundConfig, ChromFoundNet, chromfound
from scfound_atac.nn.cpu import encoder
from scfound_atac.nn.selective_scan import selective_scan_torch


def random_net(**config: int) -> ChromFoundNet:
    torch.manual_seed(0)
    net = ChromFoundNet(ChromFoundConfig(**{"n_layers": 2, **config})).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def random_cells(net: ChromFoundNet, length: int, n_cells: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    value = torch.rand(n_cells, length, generator=generator) * (torch.rand(n_cells, length, generator=generator) < 0.3)
    chromosome = torch.sort(torch.randint(1, 25, (length,), generator=generator)).values
    start = torch.randint(0, 200_000_000, (length,), generator=generator)
    with torch.inference_mode():
        return value, net.embed_ocrs(chromosome, start, start + 500)


def plain(net: ChromFoundNet, value: torch.Tensor, ocrs: torch.Tensor) -> torch.Tensor:
    """The readable layers, with the reference scan."""
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(encoder, "supports", lambda *_: False)
        patch.setattr(chromfound, "selective_scan", selective_scan_torch)
        return net(value, ocrs)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the inputs that reach the compiled pass."""
    seen: list[int] = []
    encode = encoder.encode

    def counting(net: ChromFoundNet, residual: torch.Tensor) -> torch.Tensor:
        seen.append(residual.shape[1])
        return encode(net, residual)

    monkeypatch.setattr(encoder, "encode", counting)
    return seen


CONFIGS = [
    pytest.param({}, id="released"),
    pytest.param({"window_size": 64, "shift_size": 32}, id="window-64"),
    pytest.param({"window_size": 48, "shift_size": 20, "n_heads": 4}, id="window-48-heads-of-32"),
    pytest.param({"d_model": 64, "n_heads": 8, "d_mlp": 100}, id="heads-of-8"),
    pytest.param(
        {
            "d_model": 96,
            "n_heads": 2,
            "window_size": 32,
            "shift_size": 0,
            "d_low": 24,
            "d_state": 5,
            "d_conv": 3,
            "dt_rank": 3,
        },
        id="heads-of-48-odd-mamba",
    ),
    pytest.param(
        {"d_model": 48, "n_heads": 3, "window_size": 16, "shift_size": 8, "d_low": 40, "n_layers": 1}, id="window-16"
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_plain_layers(config: dict[str, int], calls: list[int]) -> None:
    net = random_net(**config)
    window = net.config.window_size
    lengths = [window + 1, 2 * window, 2 * window + net.config.shift_size + 3]
    for length in lengths:
        value, ocrs = random_cells(net, length)
        with torch.inference_mode():
            fast = net(value, ocrs)
        torch.testing.assert_close(fast, plain(net, value, ocrs), atol=2e-5, rtol=0)
    assert calls == lengths


@pytest.mark.parametrize("length", [600, 1000])
def test_equals_released_code(oracle_dir, length: int, calls: list[int]) -> None:
    from scfound_atac import hub

    net = hub.load(oracle_dir / "chromfound").net
    case = {
        key: torch.from_numpy(array)
        for key, array in np.load(oracle_dir / "chromfound" / f"case_L{length}.npz").items()
    }
    with torch.inference_mode():
        ocrs = net.embed_ocrs(case["chromosome"], case["start"], case["end"])
        hidden = net(case["value"].float(), ocrs)
        torch.testing.assert_close(hidden[0], case["hidden_first_cell"], atol=1e-5, rtol=0)
        torch.testing.assert_close(net.pool(hidden), case["pooled"], atol=1e-5, rtol=0)
        torch.testing.assert_close(net.reconstruct(hidden), case["reconstruction"], atol=1e-5, rtol=0)
    assert calls == [length]


def test_many_equal_tokens_keep_their_digits() -> None:
    """Most OCRs of a cell are zero: sums over many equal keys must not drift."""
    net = random_net()
    value, ocrs = torch.zeros(1, 520), random_cells(net, 520)[1][:1].expand(520, -1)
    with torch.inference_mode():
        fast = net(value, ocrs)
    torch.testing.assert_close(fast, plain(net, value, ocrs), atol=2e-5, rtol=0)


def test_cells_of_a_batch_are_independent() -> None:
    net = random_net()
    value, ocrs = random_cells(net, 900, n_cells=5)
    with torch.inference_mode():
        together = net(value, ocrs)
        alone = torch.cat([net(cell[None], ocrs) for cell in value])
    assert torch.equal(together, alone)


def test_inputs_and_thread_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    net = random_net(n_layers=1)
    value, ocrs = random_cells(net, 700)
    before = value.clone(), ocrs.clone(), {key: tensor.clone() for key, tensor in net.state_dict().items()}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    n_threads = numba.get_num_threads()
    with torch.inference_mode():
        net(value, ocrs)
    assert numba.get_num_threads() == n_threads
    assert torch.equal(value, before[0])
    assert torch.equal(ocrs, before[1])
    assert all(torch.equal(tensor, before[2][key]) for key, tensor in net.state_dict().items())


def test_invalid_values_stay_visible() -> None:
    net = random_net(n_layers=1)
    value, ocrs = random_cells(net, 700)
    value[0, 300] = float("nan")
    with torch.inference_mode():
        hidden = net(value, ocrs)
    assert hidden[0, 300].isnan().all()
    assert not hidden[1].isnan().any()


class _Probe(nn.Linear):
    """Stands for an adapter around a linear layer."""


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda net: setattr(net.layers[0], "down", _Probe(128, 32)), id="replaced-module"),
        pytest.param(lambda net: net.layers[0].wpsa.register_forward_hook(lambda *_: None), id="hook"),
    ],
)
def test_changed_networks_take_the_plain_path(change, calls: list[int]) -> None:
    net = random_net(n_layers=1)
    value, ocrs = random_cells(net, 300)
    with torch.inference_mode():
        net(value, ocrs)
        change(net)
        net(value, ocrs)
    assert calls == [300]


def test_gradients_and_other_types_take_the_plain_path() -> None:
    net, residual = random_net(n_layers=1), torch.zeros(1, 300, 128)
    with torch.inference_mode():
        assert encoder.supports(net, residual)
        assert not encoder.supports(net, residual.double())
        assert not encoder.supports(net.double(), residual)
    with torch.enable_grad():
        assert not encoder.supports(net.float(), residual)


@pytest.mark.parametrize(
    "config", [{}, {"window_size": 40, "shift_size": 20}, {"d_model": 24, "n_heads": 2}, {"d_low": 20}]
)
def test_unsupported_sizes_take_the_plain_path(config: dict[str, int], calls: list[int]) -> None:
    net = random_net(n_layers=1, **config)
    value, ocrs = random_cells(net, 200)  # one window at the released size
    with torch.inference_mode():
        fast = net(value, ocrs)
    torch.testing.assert_close(fast, plain(net, value, ocrs), atol=2e-5, rtol=0)
    assert calls == []
