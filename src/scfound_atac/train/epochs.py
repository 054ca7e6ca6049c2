"""Train a head for a few passes over the cells: AdamW with warm-up and cosine, keeping the weights of the best epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .loggers import Loggers
from .schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor, nn

Batch = TypeVar("Batch")


def train_epochs(
    net: nn.Module,
    *,
    batches: Callable[[], Iterable[Batch]],
    n_batches: int,
    loss: Callable[[Batch], Tensor],
    score: Callable[[], float],
    score_name: str,
    max_epochs: int,
    lr: float,
    weight_decay: float,
    n_warmup_steps: int = 50,
    clip: float = np.inf,
    seed: int = 0,
    progress: bool = True,
    patience: int | None = None,
    logger: Any = None,
) -> list[dict[str, float]]:
    """Train a network on its device. It is left with the weights of its best epoch, in evaluation mode.

    Parameters
    ----------
    net
        The network; parameters that need no gradient are not changed.
    batches
        Function that returns the batches of an epoch, in order.
    n_batches
        Number of batches per epoch, for the schedule.
    loss
        Function that returns the loss of a batch.
    score
        Function that returns the score of the network on held-out cells after an epoch; higher is better. If it is NaN, the epoch is kept.
    score_name
        Key of the score in the history.
    max_epochs
        Number of passes over the cells, at least one.
    lr, weight_decay
        Maximum learning rate of AdamW, and its weight decay.
    n_warmup_steps
        Number of steps of linear warm-up, which a cosine to zero follows.
    clip
        Maximum norm of the gradient.
    seed
        Random seed of dropout. The global random generator is not changed.
    progress
        Show a progress bar.
    patience
        Number of epochs without a better score after which training stops; None for all epochs.
    logger
        Loggers of `lightning.pytorch.loggers` that get the history; see `scfound_atac.train.loggers.Loggers`.

    Raises
    ------
    ValueError
        If `patience` is below 1.

    Returns
    -------
    For each epoch its number, the mean loss and the score.
    """
    if patience is not None and patience < 1:
        msg = f"early_stopping_patience must be at least 1, got {patience}."
        raise ValueError(msg)
    parameters = [p for p in net.parameters() if p.requires_grad]
    device, n_steps = parameters[0].device, max_epochs * n_batches
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    history: list[dict[str, float]] = []
    best, state = -np.inf, dict[str, Any]()
    step, n_since_best = 0, 0
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        tqdm(total=n_steps, unit="step", disable=not progress, desc="training") as bar,
        Loggers(logger) as loggers,
    ):
        torch.manual_seed(seed)
        for epoch in range(max_epochs):
            net.train()
            losses = []
            for batch in batches():
                for group in optimizer.param_groups:
                    group["lr"] = lr * warmup_cosine(step, n_warmup_steps, n_steps)
                value = loss(batch)
                optimizer.zero_grad()
                value.backward()
                if clip < np.inf:
                    torch.nn.utils.clip_grad_norm_(parameters, clip)
                optimizer.step()
                losses.append(float(value.detach()))
                step += 1
                bar.update()
            found = score()
            history.append({"epoch": epoch + 1, "loss": float(np.mean(losses)), score_name: found})
            bar.set_postfix_str(f"loss {history[-1]['loss']:.3f}, {score_name} {found:.3f}", refresh=False)
            loggers.log({name: value for name, value in history[-1].items() if name != "epoch"}, epoch)
            n_since_best = 0 if found > best else n_since_best + 1
            if not found <= best:  # also if it is NaN, so that there are always weights to keep
                best, state = found, {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}
            if patience is not None and n_since_best >= patience:
                break
    net.load_state_dict(state)
    net.eval()
    return history


def history_tables(rows: Sequence[Mapping[str, float]]) -> dict[str, pd.DataFrame]:
    """The history of `train_epochs` in the form of scvi-tools: for each value a table with one column, over epochs counted from zero."""
    if not rows:
        return {}
    table = pd.DataFrame([dict(row) for row in rows])
    table.index = pd.Index(table.pop("epoch").to_numpy(dtype=np.int64) - 1, name="epoch")
    return {str(name): table[[name]].astype(float) for name in table}
