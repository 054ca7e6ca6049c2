from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom, chisquare

from scfound_atac.data import prepare_rows
from scfound_atac.nn import ChromFoundConfig, ChromFoundNet
from scfound_atac.nn.masking import mask_values
from scfound_atac.nn.networks import NETWORKS, build_network
from scfound_atac.nn.objectives import (
    KEEP_RATES,
    OBJECTIVE_NAMES,
    OBJECTIVES,
    Cells,
    Objectives,
    keep_rates,
    prepare_values,
    thin,
)

B, L = 6, 40
PREPARATION = {"target_sum": 1e3, "log1p": True}
TINY = ChromFoundConfig(d_model=16, n_layers=1, n_heads=2, window_size=16, shift_size=8, d_mlp=16, d_low=8, dropout=0.0)


class Constant(torch.nn.Module):
    """Predicts one number everywhere, and a cell's values as its vector."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = torch.nn.Parameter(torch.tensor(answer))
        self.config = TINY
        self.seen: list[torch.Tensor] = []

    def embed_ocrs(self, chromosome, start, end, factors=None) -> torch.Tensor:
        return torch.zeros(len(start), 1)

    def predict(self, value: torch.Tensor, ocrs: torch.Tensor) -> torch.Tensor:
        self.seen.append(value)
        return self.answer.expand_as(value)

    def cell_vector(self, value: torch.Tensor, ocrs: torch.Tensor) -> torch.Tensor:
        self.seen.append(value)
        return value


def generators(n: int = B, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(n)]


def make_counts(n: int = B, length: int = L) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1_000)
    return torch.poisson(torch.full((n, length), 0.8), generator=generator)


def make_cells(first: int = 0) -> Cells:
    counts = make_counts()
    label = torch.tensor([0, 1, -1, 1, 0, -1])
    fraction = (counts > 0).float().mean(0).clamp(min=0.1)
    return Cells(counts, counts.sum(1) + 10, label, generators(first=first), fraction, PREPARATION)


def make_batch(n: int = B, rows: slice = slice(None)) -> dict[str, torch.Tensor]:
    counts = make_counts(n).int()
    position = torch.arange(L) * 1000
    cells = {"counts": counts, "total": counts.sum(1) + 10, "label": torch.arange(n) % 3 - 1, "seed": torch.arange(n)}
    batch = {"chromosome": torch.ones(L, dtype=torch.long), "start": position, "end": position + 500}
    batch["fraction_open"] = (counts > 0).float().mean(0).clamp(min=0.1)
    return batch | {name: tensor[rows] for name, tensor in cells.items()}


OCRS = torch.zeros(L, 1)


# Preparation and thinning


@pytest.mark.parametrize("options", [PREPARATION, {"target_sum": None}, {"target_sum": 50.0, "log1p": False}])
def test_preparation_is_that_of_the_package(options: dict) -> None:
    from scipy.sparse import csr_matrix

    counts = make_counts()
    counts[2] = 0
    expected = prepare_rows(csr_matrix(counts.numpy()), **options).toarray()
    torch.testing.assert_close(prepare_values(counts, counts.sum(1), **options), torch.from_numpy(expected))


def test_part_of_a_cell_is_scaled_by_the_whole_cell() -> None:
    counts = make_counts()
    part = prepare_values(counts[:, 10:20], counts.sum(1), **PREPARATION)
    assert torch.equal(part, prepare_values(counts, counts.sum(1), **PREPARATION)[:, 10:20])


def test_thinning_splits_the_reads() -> None:
    counts = make_counts(50)
    total = counts.sum(1) + 100
    seen, seen_total = thin(counts, total, torch.full((50,), 0.3), generators(50))
    assert (seen >= 0).all()
    assert (seen <= counts).all()
    assert torch.equal(seen, seen.round())
    outside = seen_total - seen.sum(1)
    assert ((outside >= 0) & (outside <= 100)).all()
    assert outside.float().std() > 1  # reads outside the crop are thinned, not scaled


def test_kept_reads_are_binomial() -> None:
    n, rate = 20_000, 0.3
    counts = torch.full((1, n), 4.0)
    seen, _ = thin(counts, counts.sum(1), torch.tensor([rate]), generators(1))
    found = torch.bincount(seen.long().flatten(), minlength=5).numpy()
    assert chisquare(found, n * binom.pmf(range(5), 4, rate)).pvalue > 1e-3


def test_nothing_and_everything_is_kept() -> None:
    counts = make_counts(2)
    total = counts.sum(1) + 7
    seen, seen_total = thin(counts, total, torch.tensor([0.0, 1.0]), generators(2))
    assert not seen[0].any()
    assert seen_total[0] == 0
    assert torch.equal(seen[1], counts[1])
    assert seen_total[1] == total[1]


def test_keep_rates_are_log_uniform() -> None:
    rates = keep_rates(generators(4000), torch.device("cpu"))
    assert KEEP_RATES[0] <= rates.min()
    assert rates.max() <= KEEP_RATES[1]
    assert abs((rates < math.sqrt(KEEP_RATES[0] * KEEP_RATES[1])).float().mean() - 0.5) < 0.04


def test_randomness_of_a_cell_does_not_depend_on_its_neighbours() -> None:
    counts, total = make_counts(), make_counts().sum(1) + 5
    rate = torch.full((B,), 0.5)
    seen, _ = thin(counts, total, rate, generators())
    alone, _ = thin(counts[3:], total[3:], rate[3:], generators(B - 3, first=3))
    assert torch.equal(seen[3:], alone)
    value = prepare_values(counts, total)
    masked, _ = mask_values(value, generator=generators())
    assert torch.equal(masked[3:], mask_values(value[3:], generator=generators(B - 3, first=3))[0])


# Known answers


def test_masked_is_the_squared_error_at_replaced_positions() -> None:
    cells, net = make_cells(), Constant(2.0)
    loss = OBJECTIVES["masked"](net, OCRS, cells)
    value = make_cells().values()
    corrupted, replaced = mask_values(value, generator=generators())
    assert torch.equal(net.seen[0], corrupted)
    expected = torch.stack([((2 - v[r]) ** 2).mean() for v, r in zip(value, replaced, strict=True)]).mean()
    torch.testing.assert_close(loss, expected)


def test_all_counts_every_position() -> None:
    loss = OBJECTIVES["all"](Constant(2.0), OCRS, make_cells())
    torch.testing.assert_close(loss, ((2 - make_cells().values()) ** 2).mean())


def thinned_again() -> torch.Tensor:
    return make_cells().thinned()[0]


def test_denoise_asks_for_ocrs_not_seen() -> None:
    cells, net = make_cells(), Constant(0.7)
    loss = OBJECTIVES["denoise"](net, OCRS, cells)
    seen = thinned_again()
    target = (cells.counts - seen > 0).float()
    error = F.binary_cross_entropy_with_logits(torch.full((B, L), 0.7), target, reduction="none")
    expected = torch.stack([e[s == 0].mean() for e, s in zip(error, seen, strict=True)]).mean()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(net.seen[0] > 0, seen > 0)
    torch.testing.assert_close(OBJECTIVES["denoise_all"](Constant(0.7), OCRS, make_cells()), error.mean())


def test_profile_of_the_mean_cell() -> None:
    """No fold change over the mean cell: the entropy of the hidden reads under the mean cell. Constants cancel."""
    cells = make_cells()
    hidden = cells.counts - thinned_again()
    share = torch.log(cells.fraction_open / cells.fraction_open.sum())
    expected = (-(hidden * share).sum(1) / hidden.sum(1)).mean()
    for constant in (0.0, 3.0):
        torch.testing.assert_close(OBJECTIVES["profile"](Constant(constant), OCRS, make_cells()), expected)


def test_contrast_of_cells_without_and_with_a_difference() -> None:
    cells = make_cells()
    cells.counts = torch.ones(B, L)  # every cell the same: which pair belongs together cannot be told
    similar = OBJECTIVES["contrast"](Constant(0.0), OCRS, cells)
    cells = make_cells()
    cells.counts = torch.eye(B).repeat_interleave(100, dim=1) * 100  # no OCR in common
    cells.total = cells.counts.sum(1)
    apart = OBJECTIVES["contrast"](Constant(0.0), OCRS, cells)
    assert similar > 0.5 * math.log(B)
    torch.testing.assert_close(apart.item(), math.log(1 + (B - 1) * math.exp(-10)), atol=1e-3, rtol=0)


def test_contrast_shows_two_independent_thinnings() -> None:
    net = Constant(0.0)
    OBJECTIVES["contrast"](net, OCRS, make_cells())
    assert len(net.seen) == 2
    assert not torch.equal(*net.seen)


def test_identity_ignores_cells_without_a_label() -> None:
    batch = make_batch()
    objectives = Objectives(ChromFoundNet(TINY), {"identity": 1.0}, n_labels=2)
    torch.nn.init.zeros_(objectives.head.weight)
    torch.nn.init.zeros_(objectives.head.bias)
    loss, _ = objectives(batch)
    torch.testing.assert_close(loss.item(), math.log(2) * (batch["label"] >= 0).float().mean().item())
    batch["label"][:] = -1
    assert objectives(batch)[0] == 0


# The sum


def test_objectives_are_weighted() -> None:
    net = ChromFoundNet(TINY)
    loss, parts = Objectives(net, {"denoise": 2.0, "masked": 0.5, "contrast": 0.0}, **PREPARATION)(make_batch())
    assert list(parts) == ["denoise", "masked"]
    torch.testing.assert_close(loss, 2 * parts["denoise"] + 0.5 * parts["masked"])


@pytest.mark.parametrize("name", [name for name in OBJECTIVE_NAMES if name != "contrast"])
def test_halves_of_a_batch_have_its_loss(name: str) -> None:
    torch.manual_seed(0)
    objectives = Objectives(ChromFoundNet(TINY), {name: 1.0}, n_labels=2, **PREPARATION)
    whole, first, second = (objectives(make_batch(rows=rows))[0] for rows in (slice(None), slice(3), slice(3, 6)))
    torch.testing.assert_close((first + second) / 2, whole)


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_every_network_learns_every_objective(kind: str) -> None:
    """Twenty steps on one batch lower each loss."""
    torch.manual_seed(0)
    sizes = TINY.to_dict() if kind == "chromfound" else {"n_factors": 5}
    net = build_network(kind, sizes)
    batch = make_batch(12)
    batch["factors"] = torch.randn(L, net.config.n_factors)
    for name in OBJECTIVE_NAMES:
        objectives = Objectives(net, {name: 1.0}, n_labels=2, **PREPARATION)
        optimizer = torch.optim.Adam(objectives.parameters(), 1e-2)
        losses = []
        for _ in range(20):
            loss, _ = objectives(batch)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert min(losses[-5:]) < losses[0], name


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"imagine": 1.0}, "Unknown objectives: 'imagine'; use masked, all"),
        ({"denoise": -1.0}, "must not be negative"),
        ({"denoise": 0.0}, "one must be positive"),
        ({}, "one must be positive"),
        ({"identity": 1.0}, "at least 2 biosamples, the corpus has 0"),
    ],
)
def test_objectives_that_are_wrong(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objectives(ChromFoundNet(TINY), weights)


def test_networks_by_name() -> None:
    assert isinstance(build_network("chromfound", TINY.to_dict()), ChromFoundNet)
    with pytest.raises(ValueError, match="Unknown network kind 'transformer'; use one of \\['chromfound'"):
        build_network("transformer", {})
    with pytest.raises(ValueError, match="has no d_modle; its sizes are d_model"):
        build_network("chromfound", {"d_modle": 8})


def test_cells_of_a_batch_with_one_seed_draw_in_turn() -> None:
    """The masks are those of one generator for the whole batch, and a larger `mask_fraction` replaces more."""
    net = Constant(0.0)
    batch = make_batch() | {"seed": torch.tensor(7)}
    Objectives(net, {"masked": 1.0}, mask_fraction=0.4, **PREPARATION)(batch)
    value = prepare_values(batch["counts"].float(), batch["total"].float(), **PREPARATION)
    expected, _ = mask_values(value, mask_fraction=0.4, generator=torch.Generator().manual_seed(7))
    assert torch.equal(net.seen[0], expected)
