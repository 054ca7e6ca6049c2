"""Fine-tune a backbone on labels with focal loss, and keep the epoch with the best validation macro-F1 (arXiv 2505.12638, A.2, F.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ..inference.kinds import kind_of
from ..inference.options import resolve_device
from .epochs import train_epochs
from .linear_head import hold_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from ..data import Cells
    from ..hub import Checkpoint
    from ..inference.classifier import CellClassifier

_GAMMA = 2.0  # exponent of the focal loss, the default of Lin et al. 2017
_CLIP = 1.0  # maximum norm of the gradient


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of fine-tuning a backbone; defaults are those of the paper where it states them."""

    max_epochs: int = 20
    lr: float = 5e-4
    weight_decay: float = 0.01
    n_warmup_steps: int = 50
    batch_size: int = 64
    validation_size: float = 0.1
    crop_size: int | None = None
    """For ChromFound: number of neighbouring OCRs in the random stretches to train on, to save time; all OCRs if None."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, n_cells: int, **given: Any) -> FinetuneOptions:
        """The `given` options, and defaults for the backbone and the number of cells."""
        return cls(**(kind_of(checkpoint).finetune_defaults(n_cells) | given))

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "crop_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} must be at least 1, got {value}."
                raise ValueError(msg)
        if not 0 < self.validation_size < 1:
            msg = f"validation_size must lie between 0 and 1, got {self.validation_size}."
            raise ValueError(msg)


def make_classifier(
    checkpoint: Checkpoint,
    cells: Cells,
    n_classes: int,
    *,
    paper: bool = False,
    crop_size: int | None = None,
    seed: int = 0,
) -> CellClassifier:
    """A copy of the backbone with a new head, whose initial weights are drawn with `seed`.

    Raises
    ------
    ValueError
        If the paper of the backbone has no head, or `crop_size` is given for a network that does not read OCRs in genome order.
    """
    kind = kind_of(checkpoint)
    if paper and not kind.has_paper_head:
        msg = f"Backbone {checkpoint.name!r} has no head from a paper: use mode='probe' or 'finetune'."
        raise ValueError(msg)
    if crop_size is not None and (paper or not kind.takes_crops):
        msg = f"crop_size={crop_size} only applies to ChromFound with mode='finetune': leave it out."
        raise ValueError(msg)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind.classifier(cells, n_classes, paper=paper, crop_size=crop_size, seed=seed)


def finetune(
    classifier: CellClassifier,
    codes: NDArray[np.int64],
    n_classes: int,
    options: FinetuneOptions,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    patience: int | None = None,
    logger: Any = None,
) -> tuple[NDArray[np.int64], list[dict[str, float]]]:
    """Train backbone and head together. `classifier` is left with the weights of the best epoch.

    Parameters
    ----------
    classifier
        Classifier from `make_classifier`.
    codes
        Class of each cell.
    n_classes
        Number of classes.
    options
        Options of fine-tuning.
    seed
        Random seed of the split, the order of cells and dropout.
    device
        ``"cpu"``, ``"cuda"``, ...; ``"auto"`` uses CUDA if there is a GPU.
    progress
        Show a progress bar.
    patience, logger
        See `scfound_atac.train.epochs.train_epochs`.

    Returns
    -------
    Sorted rows that were held out for validation, and for each epoch the loss and the validation macro-F1.
    """
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(seed)
    validation, training = hold_out(codes, options.validation_size, rng)
    if not len(validation):
        msg = "Fine-tuning needs cells to hold out: no label has two cells. Use mode='probe'."
        raise ValueError(msg)
    where = resolve_device(device)
    classifier.to(where)
    targets = torch.from_numpy(codes).to(where)

    def batches() -> Iterator[NDArray[np.int64]]:
        made = classifier.batches(rng.permutation(training), options.batch_size)
        yield from (made[i] for i in rng.permutation(len(made)))

    def score() -> float:
        predicted = apply(classifier, validation, n_classes, options.batch_size)[0].argmax(axis=1)
        return float(f1_score(codes[validation], predicted, average="macro", zero_division=0))

    history = train_epochs(
        classifier,
        batches=batches,
        n_batches=len(classifier.batches(training, options.batch_size)),
        loss=lambda batch: focal_loss(classifier(batch, rng)[0], targets[batch]),
        score=score,
        score_name="validation_macro_f1",
        max_epochs=options.max_epochs,
        lr=options.lr,
        weight_decay=options.weight_decay,
        n_warmup_steps=options.n_warmup_steps,
        clip=_CLIP,
        seed=seed,
        progress=progress,
        patience=patience,
        logger=logger,
    )
    return validation, history


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of ``-(1 - p)^2 log(p)`` with p the probability of the true class (Lin et al. 2017): (B, K), (B,) -> scalar."""
    log_p = F.log_softmax(logits, dim=-1).gather(1, target[:, None])[:, 0]
    return (-((1 - log_p.exp()) ** _GAMMA) * log_p).mean()


@torch.no_grad()
def apply(
    classifier: CellClassifier, rows: NDArray[np.int64], n_classes: int, batch_size: int = 64
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Logits (n, n_classes) and vectors (n, d) of the cells `rows`; see `CellClassifier`."""
    classifier.eval()
    logits = np.empty((len(rows), n_classes))
    vectors: NDArray[np.float32] | None = None
    place = np.empty(int(rows.max()) + 1 if len(rows) else 0, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    for batch in classifier.batches(rows, batch_size):
        out, seen = classifier(batch)
        logits[place[batch]] = out.float().cpu().numpy()
        if vectors is None:
            vectors = np.empty((len(rows), seen.shape[1]), dtype=np.float32)
        vectors[place[batch]] = seen.float().cpu().numpy()
    assert vectors is not None
    return logits, vectors
