from __future__ import annotations

import pytest
import torch

from scfound_atac.nn import ChromFoundConfig, ChromFoundNet

TINY = {
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "window_size": 8,
    "shift_size": 4,
    "d_mlp": 16,
    "d_low": 8,
    "d_state": 4,
}


def tiny_net(**changes) -> ChromFoundNet:
    torch.manual_seed(0)
    return ChromFoundNet(ChromFoundConfig(**{**TINY, **changes})).eval()


def cells(net: ChromFoundNet, length: int, n_cells: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    value = torch.rand(n_cells, length, generator=generator)
    value = value * (torch.rand(n_cells, length, generator=generator) < 0.4)
    chromosome = torch.sort(torch.randint(1, 25, (length,), generator=generator)).values
    start = torch.randint(0, 100_000_000, (length,), generator=generator)
    return value, net.embed_ocrs(chromosome, start, start + 500)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[
            ({name: 0}, f"{name} must be at least 1")
            for name in ("d_model", "n_layers", "n_heads", "window_size", "d_state")
        ],
        *[({name: -1}, f"{name} must be at least 1") for name in ("d_mlp", "d_low", "d_conv", "expand", "dt_rank")],
        ({"n_heads": 3}, "divisible by n_heads"),
        ({"d_model": 15, "n_heads": 3}, "must be even"),
        ({"shift_size": -1}, "shift_size"),
        ({"shift_size": 8}, "shift_size"),
    ],
    ids=str,
)
def test_config_is_checked(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChromFoundConfig(**{**TINY, **change})


def test_config_round_trip() -> None:
    config = ChromFoundConfig(**TINY)
    assert ChromFoundConfig(**config.to_dict()) == config


def test_defaults_are_the_released_sizes() -> None:
    net = ChromFoundNet()
    assert sum(p.numel() for p in net.parameters()) == 475_649
    assert net.config.window_size == 256
    assert net.config.shift_size == 128


def test_names_of_the_weights_stay() -> None:
    """Saved models hold these names: renaming one breaks every folder written before."""
    layer = [
        "norm.weight",
        *[f"wpsa.attn.{part}.{kind}" for part in ("qkv", "proj") for kind in ("weight", "bias")],
        *[f"wpsa.{part}.{kind}" for part in ("norm1", "mlp.fc1", "mlp.fc2", "norm2") for kind in ("weight", "bias")],
        *[f"{part}.{kind}" for part in ("down", "up") for kind in ("weight", "bias")],
        *["mamba.A_log", "mamba.D", "mamba.in_proj.weight", "mamba.x_proj.weight", "mamba.out_proj.weight"],
        *[f"mamba.{part}.{kind}" for part in ("conv1d", "dt_proj") for kind in ("weight", "bias")],
    ]
    expected = {
        *[f"layers.{i}.{name}" for i in range(2) for name in layer],
        "value_embedding.weight",
        "value_embedding.bias",
        "chromosome_embedding.weight",
        "norm.weight",
        "decoder.weight",
        "decoder.bias",
    }
    assert set(tiny_net().state_dict()) == expected


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 29])
@pytest.mark.parametrize("grad", [False, True])
def test_shapes(length: int, grad: bool) -> None:
    net = tiny_net()
    value, ocrs = cells(net, length)
    assert ocrs.shape == (length, 16)
    with torch.set_grad_enabled(grad):
        hidden = net(value, ocrs)
        assert hidden.shape == (3, length, 16)
        assert net.reconstruct(hidden).shape == net.pool(hidden).shape == (3, length)
    assert hidden.isfinite().all()


@pytest.mark.parametrize("length", [1, 8, 29])
@pytest.mark.parametrize("grad", [False, True])
def test_cells_of_a_batch_do_not_touch(length: int, grad: bool) -> None:
    net = tiny_net()
    value, ocrs = cells(net, length)
    with torch.set_grad_enabled(grad):
        together = net(value, ocrs)
        alone = torch.cat([net(cell[None], ocrs) for cell in value])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_pool_is_the_mean_over_hidden_dimensions() -> None:
    hidden = torch.arange(24.0).reshape(2, 3, 4)
    assert ChromFoundNet.pool(hidden).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]


def test_ocr_embedding() -> None:
    """Even dimensions hold sines, odd ones cosines, for start plus end; the padding chromosome adds nothing."""
    net = tiny_net()
    start, end = torch.tensor([0, 123_456_789]), torch.tensor([0, 123_457_289])
    found = net.embed_ocrs(torch.tensor([0, 0]), start, end)
    i = torch.arange(8, dtype=torch.float64)
    frequency = 1 / (100_000 * 10_000.0 ** (2 * i / 16))
    expected = torch.zeros(2, 16, dtype=torch.float64)
    for position in (start, end):
        expected[:, 0::2] += torch.sin(position.double()[:, None] * frequency)
        expected[:, 1::2] += torch.cos(position.double()[:, None] * frequency)
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=0)
    with_chromosome = net.embed_ocrs(torch.tensor([3, 24]), start, end)
    torch.testing.assert_close(with_chromosome - found, net.chromosome_embedding.weight[[3, 24]], atol=1e-6, rtol=0)


def test_dropout_acts_in_training_alone() -> None:
    net = tiny_net(dropout=0.5)
    value, ocrs = cells(net, 20)
    assert torch.equal(net(value, ocrs), net(value, ocrs))
    net.train()
    assert not torch.equal(net(value, ocrs), net(value, ocrs))


def test_every_weight_learns() -> None:
    net = tiny_net()
    value, ocrs = cells(net, 29)
    torch.manual_seed(1)
    net.reconstruct(net(value, ocrs)).square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_the_scan_runs_along_the_genome() -> None:
    """Beyond the attention windows, an OCR hears from those before it and from none behind."""
    net = tiny_net(n_layers=1, shift_size=0)
    value, ocrs = cells(net, 32, n_cells=1)
    value.requires_grad_()
    net(value, ocrs.detach())[0, 17].sum().backward()
    heard = value.grad[0].abs() > 0
    assert heard[:24].all()  # its own window is 16..23
    assert not heard[24:].any()


# Region knowledge, and what training asks of a network


def coordinates(length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    start = torch.arange(length) * 10_000
    return torch.ones(length, dtype=torch.long), start, start + 500


def test_configuration_of_older_files_has_no_factors() -> None:
    saved = ChromFoundConfig(**TINY).to_dict()
    del saved["n_factors"]
    assert ChromFoundConfig(**saved).n_factors == 0
    assert not any("region" in name for name in ChromFoundNet(ChromFoundConfig(**saved)).state_dict())
    with pytest.raises(ValueError, match="n_factors must not be negative"):
        ChromFoundConfig(n_factors=-1)


def test_factors_are_projected_onto_the_token() -> None:
    net, place = tiny_net(n_factors=3), coordinates(5)
    factors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    plain = tiny_net()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k != "region_projection.weight"})
    expected = plain.embed_ocrs(*place) + factors @ net.region_projection.weight.T
    torch.testing.assert_close(net.embed_ocrs(*place, factors), expected)
    assert torch.equal(net.embed_ocrs(*place, torch.zeros(5, 3)), plain.embed_ocrs(*place))
    assert torch.equal(plain.embed_ocrs(*place, factors), plain.embed_ocrs(*place))


@pytest.mark.parametrize("factors", [None, torch.zeros(5, 2), torch.zeros(4, 3), torch.zeros(15)])
def test_factors_of_the_wrong_shape(factors: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"needs region factors of shape \(5, 3\)"):
        tiny_net(n_factors=3).embed_ocrs(*coordinates(5), factors)


def test_kernels_agree_on_a_network_with_factors() -> None:
    net = tiny_net(n_factors=3, window_size=16, shift_size=8)
    value, _ = cells(tiny_net(), 40)
    ocrs = net.embed_ocrs(*coordinates(40), torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        fast = net.predict(value, ocrs)
    torch.testing.assert_close(net.predict(value, ocrs), fast, atol=1e-5, rtol=1e-5)


def test_prediction_is_the_decoded_hidden_state() -> None:
    net = tiny_net()
    value, ocrs = cells(net, 20)
    assert torch.equal(net.predict(value, ocrs), net.reconstruct(net(value, ocrs)))


def test_cell_vector_is_the_weighted_mean_over_open_ocrs() -> None:
    net = tiny_net()
    value, ocrs = cells(net, 20)
    value[1] = 0
    hidden, vector = net(value, ocrs), net.cell_vector(value, ocrs)
    expected = (value[0, :, None] * hidden[0]).sum(0) / value[0].sum()
    torch.testing.assert_close(vector[0], expected)
    assert not vector[1].any()


def test_activations_computed_again_give_the_same_gradients() -> None:
    net = tiny_net(dropout=0.3).train()
    value, ocrs = cells(net, 20)
    gradients = []
    for net.checkpoint_activations in (False, True):
        net.zero_grad()
        torch.manual_seed(1)
        net.predict(value, ocrs.detach()).pow(2).sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)
