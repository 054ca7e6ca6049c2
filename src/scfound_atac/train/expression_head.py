"""Train a head that predicts the expression of genes from features of a cell.

With x_i the features of cell i, y_ig the standardised expression of gene g, and B cells and G genes of a step, the loss is::

    1 / (B G) * sum over i, g of (f(x_i)_g - y_ig)^2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._settings import settings
from ..inference.options import resolve_device
from ..nn.heads import GeneQueryHead
from .epochs import train_epochs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor, nn

# Fraction of the training cells whose measured features are set to 0 in a step, so that the head also works without them.
_HIDDEN = 0.2
# Maximum number of cells times genes of a forward pass; it bounds memory, as a gene query computes 128 numbers for each.
_QUERIES = 500_000
# Maximum number of genes in a training step; of more, each step draws a random subset, which bounds time and memory.
_GENES = 2_048


def fit_expression_head(
    net: nn.Module,
    train: tuple[NDArray[np.float32], NDArray[np.float32]],
    validation: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    first_measured: int,
    max_epochs: int,
    lr: float,
    weight_decay: float,
    batch_size: int,
    seed: int,
    device: str,
    patience: int | None = None,
    logger: Any = None,
) -> list[dict[str, float]]:
    """Train a head with the squared error. `net` is left on the CPU, with the weights of the epoch with the best mean correlation per gene.

    Parameters
    ----------
    net
        An `ExpressionHead` or `GeneQueryHead`.
    train, validation
        Standardised features (n, d) and expression (n, n_genes) of the cells to learn from, and of those that choose the epoch.
    first_measured
        Number of the first feature that is measured on the OCRs of the training cells, which other cells may lack.
    max_epochs, lr, weight_decay, seed, patience, logger
        Options of `train_epochs`.
    batch_size
        Cells per step.
    device
        ``"cpu"``, ``"cuda"``, ...; ``"auto"`` uses CUDA if there is a GPU.

    Returns
    -------
    The history; see `train_epochs`.
    """
    where = resolve_device(device)
    net.to(where)
    x, y = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)).to(where) for part in train)
    every = np.arange(y.shape[1])
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterable[Tensor]:
        return torch.randperm(len(x), generator=generator).split(batch_size)

    def loss(batch: Tensor) -> Tensor:
        seen, wanted = x[batch], y[batch]  # (B, d), (B, n_genes)
        # 1. Hide the measured features of some cells.
        seen[torch.rand(len(seen), generator=generator) < _HIDDEN, first_measured:] = 0
        # 2. Of many genes, predict a random subset.
        genes = None
        if isinstance(net, GeneQueryHead) and y.shape[1] > _GENES:
            genes = torch.randperm(y.shape[1], generator=generator)[:_GENES].to(where)
            wanted = wanted[:, genes]
        return ((net(seen, genes) - wanted) ** 2).mean()

    history = train_epochs(
        net,
        batches=batches,
        n_batches=-(-len(x) // batch_size),
        loss=loss,
        score=lambda: gene_pearson(validation[1], apply_expression_head(net, validation[0], every)),
        score_name="validation_gene_pearson",
        max_epochs=max_epochs,
        lr=lr,
        weight_decay=weight_decay,
        seed=seed,
        progress=settings.progress_bar,
        patience=patience,
        logger=logger,
    )
    net.cpu()
    return history


@torch.no_grad()
def apply_expression_head(net: nn.Module, x: NDArray[np.float32], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Predictions of the genes `columns` for features `x` (n, d), (n, n_columns), computed on the device of the network."""
    net.eval()
    where = next(net.parameters()).device
    genes = torch.from_numpy(columns).to(where)
    step = max(1, _QUERIES // max(1, len(columns)))
    blocks = (torch.from_numpy(x[i : i + step]).float().to(where) for i in range(0, len(x), step))
    return np.concatenate([net(block, genes).float().cpu().numpy() for block in blocks])


def gene_pearson(measured: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    """``gene_pearson`` of `scfound_atac.scores.expression_scores`, without the other scores, which are too slow for every epoch."""
    varies = (measured != measured[:1]).any(axis=0)
    if not varies.any():
        return np.nan
    m, p = (x[:, varies] - x[:, varies].mean(axis=0, dtype=np.float64) for x in (measured, predicted))
    norms = np.sqrt((m**2).sum(axis=0) * (p**2).sum(axis=0))
    return float(((m * p).sum(axis=0) / np.maximum(norms, 1e-12)).mean())
