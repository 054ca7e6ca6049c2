"""What a network can be trained to do with cells: losses over raw counts of a stretch of OCRs.

B cells, L OCRs, D and d widths. Every objective is a mean over cells. With a seed per cell, its random numbers come from its own
generator, so that a batch split over processes has the loss of the whole one; `contrast` alone compares cells, those of one process.
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

KEEP_RATES = (0.1, 0.9)  # smallest and largest share of a cell's reads that a thinned cell keeps
MASK_FRACTION = 0.15  # section 3.3 of the paper
TEMPERATURE = 0.1


def prepare_values(counts: Tensor, total: Tensor, *, target_sum: float | None = 1e4, log1p: bool = True) -> Tensor:
    """Total-count normalise and log-transform: counts (B, L), the total (B,) of each whole cell -> (B, L).

    As `scfound_atac.data.prepare_rows`, but `counts` may be a part of the cell's OCRs, so that the total comes beside them.
    """
    value = counts if target_sum is None else counts * (target_sum / total.clamp(min=1.0))[:, None]
    return torch.log1p(value) if log1p else value


def keep_rates(generators: Sequence[Generator], device: torch.device) -> Tensor:
    """A log-uniform keep-rate per cell: (B,)."""
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
        Reads of the whole cell, of which `counts` may be a part; shape (B,).
    rate
        Shape (B,).
    generators
        One per cell, on the device of `counts`.

    Returns
    -------
    The reads kept (B, L), so that ``counts - kept`` is the independent rest, and the total of the thinned cell (B,), where the reads
    outside these OCRs are thinned too.
    """
    both = torch.cat([counts, (total - counts.sum(1)).clamp(min=0)[:, None]], dim=1)
    rows = [
        torch.binomial(cell, rate[i].expand_as(cell), generator=generator)
        for i, (cell, generator) in enumerate(zip(both, generators, strict=True))
    ]
    kept = torch.stack(rows)
    return kept[:, :-1], kept.sum(1)


@dataclass
class Cells:
    """A batch as the objectives see it."""

    counts: Tensor  # (B, L) reads
    total: Tensor  # (B,) reads of the whole cell
    label: Tensor  # (B,) number of the biosample, -1 for none
    generators: Sequence[Generator]  # one per cell, or the same one for all
    fraction_open: Tensor  # (L,) share of the study's cells in which the OCR is open
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
        """The values prepared from two parts of each cell's reads that share none: (B, L) and (B, L)."""
        rate = keep_rates(self.generators, self.counts.device)
        seen, total = thin(self.counts, self.total, rate, self.generators)
        parts = ((seen, total), (self.counts - seen, self.total - total))
        first, second = (prepare_values(counts, sums, **self.preparation) for counts, sums in parts)
        return first, second


def _mean(error: Tensor, where: Tensor) -> Tensor:
    """Mean over the chosen OCRs of a cell, then over cells: (B, L), (B, L) -> ()."""
    return ((error * where).sum(1) / where.sum(1).clamp(min=1)).mean()


def _reconstruction(net: CellNetwork, ocrs: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
    """Squared error after the paper's corruption (B, L), and where a value was replaced (B, L)."""
    value = cells.values()
    corrupted, replaced = mask_values(value, mask_fraction=cells.mask_fraction, generator=cells.generators)
    return (net.predict(corrupted, ocrs).float() - value) ** 2, replaced


def masked(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """The paper's objective (section 3.3): squared error at the replaced positions."""
    return _mean(*_reconstruction(net, ocrs, cells))


def masked_all(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """The paper's corruption, squared error at all positions."""
    return _reconstruction(net, ocrs, cells)[0].mean()


def _hidden_reads(net: CellNetwork, ocrs: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
    """Cross-entropy of predicting which OCRs the reads held back fall into (B, L), and the reads shown (B, L)."""
    seen, value = cells.thinned()
    target = (cells.counts > seen).float()
    logit = net.predict(value, ocrs).float()
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none"), seen


def denoise(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Given some of a cell's reads, which other OCRs does the rest fall into? OCRs that are open already do not count."""
    error, seen = _hidden_reads(net, ocrs, cells)
    return _mean(error, seen == 0)


def denoise_all(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """As `denoise`, over all OCRs; for counts, as an open OCR of binary data has no second read to find."""
    return _hidden_reads(net, ocrs, cells)[0].mean()


def profile(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Given some of a cell's reads, how are the others spread over the OCRs? Multinomial cross-entropy in nats per read.

    The network predicts the log fold change over the mean cell of the study; what depends on the cell's depth alone cancels.
    """
    seen, value = cells.thinned()
    hidden = cells.counts - seen
    expected = torch.log(cells.fraction_open.clamp(min=1e-6))
    log_fraction = F.log_softmax(net.predict(value, ocrs).float() + expected, dim=1)
    return -((hidden * log_fraction).sum(1) / hidden.sum(1).clamp(min=1)).mean()


def contrast(net: CellNetwork, ocrs: Tensor, cells: Cells) -> Tensor:
    """Two parts of a cell's reads are more alike than those of two cells (InfoNCE in both directions, cosine similarity).

    The parts share no read: a read in both would tell the cell without anything being understood of it.
    """
    a, b = (F.normalize(net.cell_vector(value, ocrs).float(), dim=1) for value in cells.parted())
    similarity = a @ b.T / TEMPERATURE
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

    `identity` names the biosample of a simulated cell, thinned, by a linear head on its vector; the head is no part of the network
    and is forgotten after training.

    Parameters
    ----------
    net
        See `CellNetwork`.
    weights
        Weight of each objective by its name in `OBJECTIVE_NAMES`.
    n_labels
        Biosamples to tell apart by `identity`.
    mask_fraction
        Fraction of a cell's zeros, and of its other values, that `masked` and `all` replace.
    **preparation
        For `prepare_values`.

    Raises
    ------
    ValueError
        For an unknown objective, no positive weight, or `identity` with fewer than two biosamples.
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
        """Cross-entropy of the biosample; cells without one count as zero."""
        vector = self.net.cell_vector(cells.thinned()[1], ocrs)
        return F.cross_entropy(self.head(vector).float(), cells.label, ignore_index=-1, reduction="sum") / len(vector)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the objectives over a batch, and each of them by name.

        `batch` holds what `embed_ocrs` takes, ``chromosome``, ``start``, ``end`` (L,) and perhaps ``factors`` (L, n_factors), with
        ``fraction_open`` (L,), and per cell ``counts`` (B, L), ``total`` and ``label`` (B,); see `Cells`. ``seed`` is one integer
        per cell (B,), or one for the batch (), whose cells then draw from one generator in turn.
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
    """Refuse unknown objectives, negative weights and none at all.

    Raises
    ------
    ValueError
        Naming what is wrong and what there is.
    """
    if unknown := [name for name in weights if name not in OBJECTIVE_NAMES]:
        msg = f"Unknown objectives: {', '.join(map(repr, unknown))}; use {', '.join(OBJECTIVE_NAMES)}."
        raise ValueError(msg)
    if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
        msg = f"Objectives need weights of at least zero, one of them positive; got {dict(weights)}."
        raise ValueError(msg)
