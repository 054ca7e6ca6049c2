"""Fine-tuning of a backbone on labels: focal loss, the epoch with the best validation macro-F1 (arXiv 2505.12638, A.2 and F.1)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..data import Tokenizer, prepare_rows
from ..data._factors import region_factors
from ..data._set_batches import buckets, pad
from ..data._vocabularies import CLS
from ..inference._peak_sets import check_coverage
from ..inference._runner import known_in_genome_order, resolve_device
from ..nn.epifoundation import EpiFoundationHead
from ..nn.heads import ChromFoundHead, VectorHead
from .epochs import train_epochs
from .linear_head import hold_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from ..hub import Checkpoint
    from ..inference._cells import Cells

_GAMMA = 2.0
_CLIP = 1.0
# Part of the OCRs that a step of training shows to a region-set, and the most of them: a regulariser, and a bound on what a step costs.
_SHOWN, _MOST_SHOWN = 0.4, 16_384
_TOKENS = 16_384  # of a forward pass of an EpiFoundation
_APPLY_TOKENS = 2**20  # cells times OCRs of a forward pass of a ChromFound that is not to be trained


@dataclass(frozen=True)
class FinetuneOptions:
    """How a backbone is fine-tuned; the paper's figures where it has some."""

    max_epochs: int = 20
    lr: float = 5e-4
    weight_decay: float = 0.01
    n_warmup_steps: int = 50
    batch_size: int = 64
    validation_size: float = 0.1
    crop_size: int | None = None
    """ChromFound: train on random stretches of so many neighbouring OCRs, to save time; on all if None."""

    @classmethod
    def of(cls, model_class: str, n_cells: int, **given: Any) -> FinetuneOptions:
        """What is `given`, and the defaults for a backbone and a number of cells."""
        if model_class == "RegionSet":
            given = {"lr": 1e-3, "batch_size": min(max(n_cells // 20, 16), 256)} | given
        return cls(**given)

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "crop_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} must be at least 1, got {value}."
                raise ValueError(msg)
        if not 0 < self.validation_size < 1:
            msg = f"validation_size must lie between 0 and 1, got {self.validation_size}."
            raise ValueError(msg)


class OcrClassifier(nn.Module):
    """A backbone that reads all OCRs of a cell, with a head; bound to the OCRs of some cells."""

    net: Any
    head: Any
    start: Tensor

    def __init__(
        self, checkpoint: Checkpoint, cells: Cells, n_classes: int, *, paper: bool, crop_size: int | None
    ) -> None:
        super().__init__()
        self.net, self.paper = copy.deepcopy(checkpoint.net), paper
        chromosome = checkpoint.chromosome_ids(cells.ocrs["chrom"].to_numpy())
        self.order = known_in_genome_order(cells.ocrs, chromosome)
        columns = {
            "chromosome": chromosome,
            "start": cells.ocrs["start"].to_numpy(),
            "end": cells.ocrs["end"].to_numpy(),
        }
        if n_factors := self.net.config.n_factors:
            columns["factors"] = region_factors(cells.ocrs, n_factors, checkpoint.region_table())
        for name, column in columns.items():
            self.register_buffer(name, torch.from_numpy(column[self.order]), persistent=False)
        self.known = tuple(columns)
        self.values = prepare_rows(_in_memory(cells), **checkpoint.preparation)[:, self.order]
        self.is_region_set = checkpoint.model_class == "RegionSet"
        self.crop_size = None if paper else crop_size
        if paper:
            self.head = ChromFoundHead(self.net.config.d_model, len(self.order), n_classes)
        else:
            self.head = VectorHead(self.net.config.d_cell if self.is_region_set else self.net.config.d_model, n_classes)
        for parameter in getattr(self.net, "decoder", nn.Identity()).parameters():
            parameter.requires_grad = False

    def _shown(self, values: csr_matrix, rng: np.random.Generator | None) -> NDArray[np.int64] | slice:
        """Columns of `values` that a forward pass reads: while training, with `rng`, a random part."""
        n = len(self.order)
        if self.is_region_set:  # closed OCRs say nothing to it
            is_open = np.flatnonzero(values.getnnz(axis=0))
            if rng is None:
                return is_open
            n_shown = min(int(np.ceil(_SHOWN * len(is_open))), _MOST_SHOWN)
            return np.sort(rng.choice(is_open, n_shown, replace=False))
        if rng is None or self.crop_size is None:
            return slice(None)
        size = min(self.crop_size, n)
        first = int(rng.integers(n - size + 1))
        return slice(first, first + size)

    def forward(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of cells, and what the last layer of a paper's head sees of them (B, 128), else cell vectors (B, d)."""
        values = self.values[rows]
        shown = self._shown(values, rng)
        value = torch.from_numpy(values[:, shown].toarray()).to(self.start.device)
        ocrs = self.net.embed_ocrs(*(self.get_buffer(name)[shown] for name in self.known))
        if self.paper:
            vectors = self.head.vectors(self.net(value, ocrs))
            return self.head.fc(vectors), vectors
        vectors = self.net.cell_vector(value, ocrs)
        return self.head(vectors), vectors

    def batches(self, rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
        """Rows in batches that fit together."""
        if not (self.training or self.is_region_set):
            batch_size = min(batch_size, max(1, _APPLY_TOKENS // len(self.order)))
        return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


class SetClassifier(nn.Module):
    """An EpiFoundation with a head; bound to the OCRs of some cells."""

    net: Any
    head: Any
    chromosomes: Tensor

    def __init__(self, checkpoint: Checkpoint, cells: Cells, n_classes: int, *, paper: bool, seed: int) -> None:
        super().__init__()
        self.net = copy.deepcopy(checkpoint.net)
        vocabularies = checkpoint.vocabularies
        assert vocabularies is not None
        tokenizer = Tokenizer(vocabularies, cells.ocrs, max_tokens=self.net.config.max_tokens, seed=seed)
        check_coverage(tokenizer.coverage(cells.matrix), checkpoint.name, len(cells.ocrs))
        self.tokens = [np.append(vocabularies.peaks[CLS], x) for x in tokenizer(_in_memory(cells), cells.names)]
        self.lengths = np.array([len(x) for x in self.tokens])
        self.register_buffer("chromosomes", torch.from_numpy(vocabularies.peak_chromosomes), persistent=False)
        self.paper = paper
        make_head = EpiFoundationHead if paper else VectorHead
        self.head = make_head(self.net.config.d_model, n_classes)

    def forward(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """As that of `OcrClassifier`."""
        peaks, is_token = (
            torch.from_numpy(x).to(self.chromosomes.device) for x in pad([self.tokens[i] for i in rows], 0)
        )
        vectors = self.net(peaks, self.chromosomes[peaks], None if is_token.all() else is_token)
        if self.paper:
            vectors = self.head.vectors(vectors)
            return self.head.fc(vectors), vectors
        return self.head(vectors), vectors

    def batches(self, rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
        """Rows in batches of cells of like length."""
        return [rows[i] for i in buckets(self.lengths[rows], batch_size, _TOKENS)]


def _in_memory(cells: Cells) -> csr_matrix:
    return cells.subset(np.arange(len(cells))).matrix


def make_classifier(
    checkpoint: Checkpoint,
    cells: Cells,
    n_classes: int,
    *,
    paper: bool = False,
    crop_size: int | None = None,
    seed: int = 0,
) -> OcrClassifier | SetClassifier:
    """A copy of the backbone with a new head; the weights of the head come from `seed`.

    Raises
    ------
    ValueError
        If the backbone has no head of its paper, or `crop_size` is given for what reads all OCRs at once or a set.
    """
    if paper and checkpoint.model_class == "RegionSet":
        msg = f"Backbone {checkpoint.name!r} comes with no head of a paper: use mode='probe' or 'finetune'."
        raise ValueError(msg)
    if crop_size is not None and (paper or checkpoint.model_class != "ChromFound"):
        msg = f"crop_size={crop_size} is for a ChromFound with mode='finetune': leave it out."
        raise ValueError(msg)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if checkpoint.model_class == "EpiFoundation":
            return SetClassifier(checkpoint, cells, n_classes, paper=paper, seed=seed)
        return OcrClassifier(checkpoint, cells, n_classes, paper=paper, crop_size=crop_size)


def finetune(
    classifier: OcrClassifier | SetClassifier,
    codes: NDArray[np.int64],
    n_classes: int,
    options: FinetuneOptions,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> tuple[NDArray[np.int64], list[dict[str, float]]]:
    """Train backbone and head together; the weights of the best epoch are left in `classifier`.

    Parameters
    ----------
    classifier
        Of `make_classifier`.
    codes
        Class of each cell.
    n_classes
        Number of classes.
    options
        See there.
    seed
        Of split, order and dropout.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    progress
        Show a progress bar.

    Returns
    -------
    Rows that were held out for validation, rising, and per epoch the loss and the validation macro-F1.
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
    )
    return validation, history


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, each cell weighted by ``(1 - p)^2`` of its class (Lin et al. 2017): (B, K), (B,) -> scalar."""
    log_p = F.log_softmax(logits, dim=-1).gather(1, target[:, None])[:, 0]
    return (-((1 - log_p.exp()) ** _GAMMA) * log_p).mean()


@torch.no_grad()
def apply(
    classifier: OcrClassifier | SetClassifier, rows: NDArray[np.int64], n_classes: int, batch_size: int = 64
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Logits (n, n_classes) and vectors (n, d) of cells; see `OcrClassifier.forward`."""
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
