from __future__ import annotations

import pytest
import torch

from scfound_atac.nn.masking import mask_values


def cells(n_cells: int = 6, length: int = 20_000) -> torch.Tensor:
    """Each cell has values of its own, so that a value tells where it came from."""
    generator = torch.Generator().manual_seed(1_000)  # not one of the masks' seeds
    is_open = torch.rand(n_cells, length, generator=generator) < torch.linspace(0.05, 0.6, n_cells)[:, None]
    values = torch.arange(n_cells)[:, None] * 100 + 1 + torch.randint(0, 5, (n_cells, length), generator=generator)
    return values * is_open.float()


def mask(value: torch.Tensor, seed: int = 0, **kwargs: float) -> tuple[torch.Tensor, torch.Tensor]:
    return mask_values(value, generator=torch.Generator().manual_seed(seed), **kwargs)


@pytest.mark.parametrize("ratio", [0.05, 0.15, 0.5])
def test_share_of_open_and_of_closed(ratio: float) -> None:
    value = cells()
    _, chosen = mask(value, mask_fraction=ratio)
    for cell, picked in zip(value, chosen, strict=True):
        for kind in (cell > 0, cell == 0):
            share, n = picked[kind].float().mean().item(), int(kind.sum())
            assert abs(share - ratio) < 5 * (ratio * (1 - ratio) / n) ** 0.5


def test_open_become_closed_and_closed_become_open() -> None:
    value = cells()
    corrupted, chosen = mask(value)
    assert torch.equal(corrupted[~chosen], value[~chosen])
    assert not corrupted[chosen & (value > 0)].any()
    assert (corrupted[chosen & (value == 0)] > 0).all()


def test_new_values_are_those_of_the_same_cell() -> None:
    value = cells()
    corrupted, chosen = mask(value)
    for cell, changed, picked in zip(value, corrupted, chosen, strict=True):
        drawn = changed[picked & (cell == 0)]
        values, counts = cell[cell > 0].unique(return_counts=True)
        assert torch.isin(drawn, values).all()
        shares = torch.stack([(drawn == v).float().mean() for v in values])
        torch.testing.assert_close(shares, counts / counts.sum(), atol=0.05, rtol=0)


def test_every_open_value_can_be_drawn() -> None:
    value = torch.zeros(1, 50_000)
    value[0, ::5000] = torch.arange(1.0, 11)
    corrupted, chosen = mask(value)
    assert set(corrupted[chosen & (value == 0)].tolist()) == set(range(1, 11))


def test_cells_without_open_ocrs_stay() -> None:
    value = cells()
    value[2] = 0
    corrupted, chosen = mask(value)
    assert not chosen[2].any()
    assert not corrupted[2].any()
    assert chosen[[0, 1, 3]].any(1).all()


def test_cells_without_closed_ocrs() -> None:
    corrupted, chosen = mask(torch.ones(2, 1000))
    assert chosen.any()
    assert torch.equal(corrupted, (~chosen).float())


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_nothing_and_everything(ratio: float, share: float) -> None:
    assert mask(cells(2, 100), mask_fraction=ratio)[1].float().mean() == share


def test_input_stays() -> None:
    value = cells(2, 100)
    before = value.clone()
    mask(value)
    assert torch.equal(value, before)


def test_seed_decides() -> None:
    value = cells(3, 500)
    first, again, other = mask(value, 1), mask(value, 1), mask(value, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
