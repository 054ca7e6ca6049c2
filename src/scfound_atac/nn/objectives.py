"""Objectives of training: losses over raw counts of a stretch of OCRs.

Glossary: B cells, L OCRs, D and d widths. Every objective is a mean over cells. With a seed per cell, each cell has a random generator of
its own, so that a batch that is divided among processes has the same loss as the undivided one. Only `contrast` compares cells with each
other, namely those of one process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from .masking import mask_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Generator, Tensor

    from .networks import CellNetwork

KEEP_RATES = (0.1, 0.9)  # minimum and maximum fraction of its reads that a thinned cell keeps
MASK_FRACTION = 0.15  # section 3.3 of the paper
TEMPERATURE = 0.1  # of the contrast: cosine similarities are divided by it


def prepare_values(counts: Tensor, total: Tensor, *, target_sum: float | None = 1e4, log1p: bool = True) -> Tensor:
    """Scale each cell to the same total and take log1p: counts (B, L), totals (B,) -> (B, L).

    Like `scfound_atac.data.prepare_rows`, but for `counts` on a part of the OCRs, so that the total of the whole cell is given separately.
    """
    value = counts if target_sum is None else counts * (target_sum / total.clamp(min=1.0))[:, None]
    return torch.log1p(value) if log1p else value


def keep_rates(generators: Sequence[Generator], device: torch.device) -> Tensor:
    """A random keep-rate per cell, log-uniform between the two `KEEP_RATES`: (B,)."""
    low, high = (math.log(rate) for rate in KEEP_RATES)
    uniform = torch.stack([torch.rand((), generator=g, device=device) for g in generators])
    return torch.exp(low + (high - low) * uniform)


def thin(counts: Tensor, total: Tensor, rate: Tensor, generators: Sequence[Generator]) -> tuple[Tensor, Tensor]:
    """Keep each read with the probability `rate` of its cell.

    Parameters
    ----------
    counts
        Reads per OCR, shape (B, L), whole numbers.
    total
        Reads of the whole cell, of which `counts` may be a part, shape (B,).
    rate
        Keep-rate of each cell, shape (B,).
    generators
        One random generator per cell, on the device of `counts`.

    Returns
    -------
    The kept reads (B, L), so that ``counts - kept`` are the other reads, and the total of the thinned cell (B,), for which the reads
    outside these OCRs are thinned too.
    """
    # Reads outside these OCRs form one more column, (B, L + 1).
    both = torch.cat([counts, (total - counts.sum(1)).clamp(min=0)[:, None]], dim=1)
    rows = [
        torch.binomial(cell, rate[i].expand_as(cell), generator=generator)
        for i, (cell, generator) in enumerate(zip(both, generators, strict=True))
    ]
    kept = torch.stack(rows)
    return kept[:, :-1], kept.sum(1)


@dataclass
class Cells:
    """A batch for the objectives."""

    counts: Tensor  # (B, L) reads
    total: Tensor  # (B,) reads of the whole cell
    label: Tensor  # (B,) number of the biosample, -1 for none
    generators: Sequence[Generator]  # one per cell, or the same one for all
    fraction_open: Tensor  # (L,) fraction of the cells of the study in which the OCR is open
    preparation: Mapping[str, Any] = field(default_factory=dict)
    mask_fraction: float = MASK_FRACTION

    def values(self) -> Tensor:
        """Prepared accessibility (B, L)."""
        return prepare_values(self.counts, self.total, **self.preparation)

    def thinned(self) -> tuple[Tensor, Tensor]:
        """Reads kept under a new keep-rate (B, L), and the values prepared from them (B, L)."""
        rate = keep_rates(self.generators, self.counts.device)
        seen, total = thin(self.counts, self.total, rate, self.generators)
        return seen, prepare_values(seen, total, **self.preparation)

    def parted(self) -> tuple[Tensor, Tensor]:
        """Values prepared from two disjoint parts of the reads of each cell: (B, L) and (B, L)."""
        rate = keep_rates(self.generators, self.counts.device)
        seen, total = thin(self.counts, self.total, rate, self.generators)
        parts = ((seen, total), (self.counts - seen, self.total - total))
        first, second = (prepare_values(counts, sums, **self.preparation) for counts, sums in parts)
        return first, second


def _mean(error: Tensor, where: Tensor) -> Tensor:
    """Mean over the chosen OCRs of a cell, then over cells: (B, L), (B, L) -> ()."""
    return ((error * where).sum(1) / where.sum(1).clamp(min=1)).mean()


def _reconstruction(net: CellNetwork, ocrs: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
    """Squared error after the corruption of the paper (B, L), and where a value was replaced (B, L)."""
    value = cells.values()
    corrupted, replaced = mask_values(value, mask_fraction=cells.mask_fraction, generator=cells.generators)
    return (net.predict(corrupted, ocrs).float() - value) ** 2, replaced


def masked(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """The objective of the paper (section 3.3): squared error at the replaced positions."""
    return _mean(*_reconstruction(net, ocrs, cells))


def masked_all(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Corruption as in the paper, and squared error at all positions."""
    return _reconstruction(net, ocrs, cells)[0].mean()


def _hidden_reads(net: CellNetwork, ocrs: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of predicting the OCRs of the hidden reads (B, L), and the reads that the network sees (B, L)."""
    seen, value = cells.thinned()
    target = (cells.counts > seen).float()
    logit = net.predict(value, ocrs).float()
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none"), seen


def denoise(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Predict from some reads of a cell which other OCRs the hidden reads fall into. OCRs that are already open do not count."""
    error, seen = _hidden_reads(net, ocrs, cells)
    return _mean(error, seen == 0)


def denoise_all(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Like `denoise`, but over all OCRs. It needs counts, because in binary data an open OCR has no second read."""
    return _hidden_reads(net, ocrs, cells)[0].mean()


def profile(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Predict from some reads of a cell how the hidden ones are distributed over OCRs: multinomial cross-entropy in nats per read.

    With h_l hidden reads in OCR l, fraction f_l of open cells of the study, and prediction s_l, the log fold change over the mean cell::

        p_l = f_l exp(s_l) / sum over k of f_k exp(s_k)
        loss = -sum over l of h_l log(p_l) / sum over l of h_l

    A constant in s_l, such as the depth of the cell, cancels.
    """
    seen, value = cells.thinned()
    hidden = cells.counts - seen
    expected = torch.log(cells.fraction_open.clamp(min=1e-6))  # (L,); finite for OCRs that are closed in all cells
    log_fraction = F.log_softmax(net.predict(value, ocrs).float() + expected, dim=1)
    return -((hidden * log_fraction).sum(1) / hidden.sum(1).clamp(min=1)).mean()


def contrast(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Make two parts of the reads of a cell more similar than parts of two cells (InfoNCE in both directions, cosine similarity).

    With unit vectors a_i and b_i of the parts of cell i, and temperature t::

        loss = -mean over i of log(exp(a_i b_i / t) / sum over j of exp(a_i b_j / t)), averaged with the same for b

    The parts are disjoint: a read in both would identify the cell in a trivial way.
    """
    a, b = (F.normalize(net.cell_vector(value, ocrs).float(), dim=1) for value in cells.parted())
    similarity = a @ b.T / TEMPERATURE  # (B, B)
    same = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2


OBJECTIVES: dict[str, Callable[[Any, Tensor, Cells], Tensor]] = {
    "masked": masked,
    "all": masked_all,
    "denoise": denoise,
    "denoise_all": denoise_all,
    "profile": profile,
    "contrast": contrast,
}
OBJECTIVE_NAMES = (*OBJECTIVES, "identity")
WITHOUT_THINNING = ("masked", "all")  # these take any values; the others thin counts


class Objectives(nn.Module):
    """A network and a weighted sum of objectives over it.

    `identity` predicts the biosample of a thinned simulated cell by a linear head on its vector. The head is not part of the network and
    is dropped after training.

    Parameters
    ----------
    net
        The network, a `CellNetwork`.
    weights
        Weight of each objective by its name in `OBJECTIVE_NAMES`.
    n_labels
        Number of biosamples for `identity`.
    mask_fraction
        Fraction of the zeros, and of the other values, of a cell that `masked` and `all` replace.
    **preparation
        Options of `prepare_values`.

    Raises
    ------
    ValueError
        If an objective is unknown, no weight is positive, or `identity` has fewer than two biosamples.
    """

    def __init__(
        self,
        net: nn.Module,
        weights: Mapping[str, float],
        n_labels: int = 0,
        *,
        mask_fraction: float = MASK_FRACTION,
        **preparation: Any,
    ) -> None:
        super().__init__()
        check_weights(weights)
        self.net: Any = net
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.mask_fraction, self.preparation = mask_fraction, preparation
        if "identity" in self.weights:
            if n_labels < 2:
                msg = f"The objective 'identity' needs simulated cells of at least 2 biosamples, the corpus has {n_labels}."
                raise ValueError(msg)
            self.head = nn.Linear(self._vector_width(), n_labels)

    @torch.no_grad()
    def _vector_width(self) -> int:
        position = torch.arange(1, 9)
        known = torch.zeros(8, self.net.config.n_factors)
        ocrs = self.net.embed_ocrs(torch.ones_like(position), position, position + 1, known)
        return int(self.net.cell_vector(torch.ones(1, 8), ocrs).shape[1])

    def identity(self, ocrs: Tensor, cells: Cells) -> Tensor:
        """Cross-entropy of the biosample; cells without a biosample count as 0."""
        vector = self.net.cell_vector(cells.thinned()[1], ocrs)
        return F.cross_entropy(self.head(vector).float(), cells.label, ignore_index=-1, reduction="sum") / len(vector)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the objectives over a batch, and each of them by name.

        `batch` holds the arguments of `embed_ocrs`: ``chromosome``, ``start``, ``end`` (L,) and possibly ``factors`` (L, n_factors);
        ``fraction_open`` (L,); and per cell ``counts`` (B, L), ``total`` and ``label`` (B,), see `Cells`. ``seed`` is one integer per
        cell (B,), or one for the batch (), whose cells then draw from one generator in turn.
        """
        counts, seed = batch["counts"].float(), batch["seed"]
        generators = [torch.Generator(counts.device).manual_seed(s) for s in seed.reshape(-1).tolist()]
        cells = Cells(
            counts,
            batch["total"].float(),
            batch["label"],
            generators if seed.ndim else generators * len(counts),
            batch["fraction_open"],
            self.preparation,
            self.mask_fraction,
        )
        ocrs = self.net.embed_ocrs(batch["chromosome"], batch["start"], batch["end"], batch.get("factors"))
        parts = {
            name: self.identity(ocrs, cells) if name == "identity" else OBJECTIVES[name](self.net, ocrs, cells)
            for name in self.weights
        }
        loss = torch.stack([weight * parts[name] for name, weight in self.weights.items()]).sum()
        return loss, {name: part.detach() for name, part in parts.items()}


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse unknown objectives, negative weights, and weights that are all zero.

    Raises
    ------
    ValueError
        If a name or weight is invalid.
    """
    if unknown := [name for name in weights if name not in OBJECTIVE_NAMES]:
        msg = f"Unknown objectives: {', '.join(map(repr, unknown))}; use {', '.join(OBJECTIVE_NAMES)}."
        raise ValueError(msg)
    if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
        msg = f"Weights of objectives must not be negative, and one must be positive; got {dict(weights)}."
        raise ValueError(msg)
