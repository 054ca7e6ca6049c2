"""`CellAnnotator`: transfer labels of a reference to cells with any OCR set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy.special import softmax

from .. import __version__
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._labels import read_labels
from .._logging import logger as log  # `train` has an argument logger
from .._settings import settings
from ..data import Cells
from ..data.fit_rows import N_FIT_CELLS
from ..genome import genome_order, ocr_names
from ..hub import fetch
from ..hub.loading import as_checkpoint
from ..hub.registry import DEFAULT_MODEL, read_registry
from ..inference.features import N_MEASURED, CellFeatures
from ..inference.kinds import kind_of
from ..scores import annotation_scores, temperature
from ..train.count_head import CountHead, calibrated_count_head
from ..train.linear_head import LinearHead, fit_head, hold_out, refit_head
from ._head_folder import HeadFolder, read_head_folder, write_head_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from ..hub import Checkpoint

UNKNOWN = "unknown"
MODES = ("probe", "finetune", "paper")
_HELD_OUT = 0.2  # fraction of the cells that is held out to calibrate a probe
# Number of spectral components that are fitted to reference and query. 30 to 200 were tried on cells of D6T1 alone: macro-F1 rose up to
# 100. Of a reference alone there are fewer (`N_MEASURED`), because the last ones hold its noise, or its laboratory.
_N_JOINT = 100
_KIND = "CellAnnotator"
# Names of scores in folders written before version 0.2.
_OLD_SCORES = {"share_known_lost": "fraction_known_lost", "share_unknown_found": "fraction_unknown_found"}
_SAME_OCRS = 0.9  # with a smaller fraction of the reference's OCRs, distances to its cells are no longer comparable


@dataclass(frozen=True)
class Annotation:
    """Labels that a `CellAnnotator` predicts, with confidence and novelty.

    Attributes
    ----------
    labels
        Label of each cell; ``"unknown"`` for cells that resemble no label of the reference.
    best
        The most probable label of each cell, also of unknown cells; ``"unknown"`` for cells without open OCRs.
    confidence
        Calibrated probability of the most likely label of the reference, also for unknown cells; NaN for cells without open OCRs.
    novelty
        Distance to the nearest cells of the reference, larger for cells of new types; NaN for cells without open OCRs.
    probabilities
        Probability of each label of the reference, cells x labels.
    fraction_ocrs
        Fraction of the reference's OCRs on which the cells were measured; 0 if the counts were not used.
    """

    labels: pd.Series
    best: pd.Series
    confidence: pd.Series
    novelty: pd.Series
    probabilities: pd.DataFrame
    fraction_ocrs: float


@shared_docs
class CellAnnotator:
    """Label cells by a labelled reference, on top of a pretrained network.

    Two things describe a cell: the vector that the backbone computes from its open OCRs, for any OCR set, and the spectral components of
    its counts on the OCRs of the reference, as far as the query was measured there. A linear head predicts labels from these features,
    estimates its confidence, and finds cells that resemble none of the reference; naive Bayes on the same counts has a say in the labels.

    It is used as a classifier of scikit-learn is, and not as a model of scvi-tools: it is not bound to data and needs no ``setup_anndata``,
    but learns from one object and is applied to others.

    Parameters
    ----------
    model
        {backbone}
    measured
        {measured}
    seed
        {seed}

    Attributes
    ----------
    report
        After training, scores on cells and classes that were held out.
    history
        The loss and the macro-F1 of each epoch of fine-tuning, a table per value; empty for a probe, None before training.

    Examples
    --------
    >>> annotator = sfa.model.CellAnnotator()
    >>> annotator.train(reference, labels_key="cell_type")
    >>> annotator.predict(query).labels
    >>> annotator.save("my_annotator")
    """

    def __init__(self, model: str | Path | Checkpoint = DEFAULT_MODEL, *, measured: bool = True, seed: int = 0) -> None:
        check_arguments(measured=measured, seed=seed)
        self.checkpoint = as_checkpoint(model)
        kind_of(self.checkpoint).check_backbone()
        self.measured, self.seed = measured, seed
        self.labels: list[str] = []
        self.labels_key = ""
        self.mode: str = ""
        self.report: dict[str, Any] = {}
        self._n_neighbors = 0
        self._features: CellFeatures | None = None
        self._heads: dict[str, LinearHead] = {}  # "all": from all features, "known": without the measured ones
        self._count_head: CountHead | None = None  # beside "all"
        self._paper: dict[str, Any] = {}  # weights, temperature and OCRs of the paper's head

    @property
    def history(self) -> dict[str, pd.DataFrame] | None:
        """The loss and the score of each epoch, with a table per value as in scvi-tools; empty for a probe, None before training."""
        from ..train.epochs import history_tables

        return history_tables(self.report.get("history", [])) if self.report else None

    @shared_docs
    def train(
        self,
        reference: AnnData | MuData,
        labels_key: str,
        *,
        query: AnnData | MuData | None = None,
        mode: Literal["probe", "finetune", "paper"] = "probe",
        layer: str | None = None,
        genome: str | None = None,
        modality: str | None = None,
        n_neighbors: int = 15,
        max_known_lost: float = 0.05,
        n_fit_cells: int = N_FIT_CELLS,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        early_stopping: bool = False,
        early_stopping_patience: int = 3,
        logger: Any = None,
        **finetune_options: Any,
    ) -> CellAnnotator:
        """Learn the labels of a reference.

        Parameters
        ----------
        reference
            Cells x OCRs with counts and labels, or `scfound_atac.data.Cells` that were read before.
        labels_key
            Column of ``obs`` with the labels. Cells without a label, or labelled ``"unknown"``, are left out.
        query
            Cells that are to be labelled, if they are known by now, with counts in ``X``, or `scfound_atac.data.Cells`. The spectral
            components are then fitted to both, on the OCRs that both have, so that they hold what is new in the query.
        mode
            - ``"probe"``: the backbone stays as it is. This takes seconds.
            - ``"finetune"``: the backbone is trained first, with focal loss, on nine tenths of the cells. The epoch with the best macro-F1
              on the other cells is kept (arXiv 2505.12638, section A.2).
            - ``"paper"``: like ``"finetune"``, but with the head of the backbone's paper, which also predicts the labels. For ChromFound
              this head is tied to the OCRs of the reference.
        layer
            {layer}
        genome
            {genome}
        modality
            {modality}
        n_neighbors
            Number of neighbouring cells of a query over which novelty is averaged. With 0 each cell is judged by itself; the same holds for
            queries with fewer than ``10 * n_neighbors`` cells.
        max_known_lost
            Maximum fraction of cells of known types that may be called unknown, as estimated on held-out cells.
        n_fit_cells
            Maximum number of cells to which the spectral components are fitted; they are chosen by seed and name.
        device
            {device}
        batch_size
            {batch_size}
        early_stopping
            For ``"finetune"`` and ``"paper"``: stop when the macro-F1 on the cells that are held out has not risen for a while. The best
            epoch is kept with and without it. A probe is solved at once and has no epochs.
        early_stopping_patience
            Number of epochs without improvement after which training stops.
        logger
            For ``"finetune"`` and ``"paper"``: a logger of `lightning.pytorch.loggers`, or several. They get the values of `history`.
        **finetune_options
            For ``"finetune"`` and ``"paper"``, with their defaults:

            - ``max_epochs`` (20), ``lr`` (5e-4; region-set 1e-3), ``weight_decay`` (0.01), ``n_warmup_steps`` (50)
            - ``train_batch_size`` (64; for region-set a twentieth of the cells, between 16 and 256); `batch_size` is that of inference
            - ``validation_size`` (0.1)
            - ``crop_size``, for ``"finetune"`` of a ChromFound: number of neighbouring OCRs per step, instead of all

        Returns
        -------
        The annotator itself.

        Raises
        ------
        KeyError
            If the column, layer or modality does not exist.
        TypeError
            If the mode does not have an option.
        ValueError
            If there are fewer than two labels, the counts cannot be used, or the backbone does not have this mode.
        """
        check_single(mode=mode)
        check_arguments(
            labels_key=labels_key,
            n_neighbors=n_neighbors,
            max_known_lost=max_known_lost,
            n_fit_cells=n_fit_cells,
            early_stopping=early_stopping,
            early_stopping_patience=early_stopping_patience,
        )
        if mode not in MODES:
            msg = f"mode={mode!r} is not known: use one of {MODES}."
            raise ValueError(msg)
        if not 0 < max_known_lost < 1 or n_neighbors < 0:
            msg = f"max_known_lost={max_known_lost} must lie between 0 and 1, and n_neighbors={n_neighbors} must not be negative."
            raise ValueError(msg)
        if finetune_options and mode == "probe":
            msg = (
                f"mode='probe' trains no network and has no option {', '.join(finetune_options)}: use mode='finetune'."
            )
            raise TypeError(msg)
        if mode == "probe" and (early_stopping or logger not in (None, False)):
            name = "early_stopping" if early_stopping else "logger"
            msg = f"mode='probe' solves its head at once and has no epochs for {name}=: use mode='finetune', or leave it out."
            raise TypeError(msg)
        cells = Cells.read(reference, layer=layer, genome=genome, modality=modality, role="reference")
        codes, labels = read_labels(cells.column(labels_key), labels_key, role=cells.role)
        used = (codes >= 0) & ~cells.is_empty
        present = np.unique(codes[used])
        if len(present) < 2:
            found = [labels[i] for i in present]
            msg = (
                f"{cells.role}.obs[{labels_key!r}] has {len(present)} label(s) in cells that can be used ({found[:3]}); at least two are "
                "needed."
            )
            raise ValueError(msg)
        if n_left_out := int((~used).sum()):
            log.info("%d of %d cells have no label or no open OCR and are left out", n_left_out, len(cells))
        cells = cells.subset(np.flatnonzero(used))
        beside = None if query is None else Cells.read(query, genome=genome, modality=modality)
        codes = np.searchsorted(present, codes[used])
        labels = [labels[i] for i in present]

        patience = early_stopping_patience if early_stopping else None
        run = {"device": device, "progress": settings.progress_bar, "patience": patience, "logger": logger}
        checkpoint, kind = self.checkpoint, kind_of(self.checkpoint)
        # A network that is read on the CPU can be fine-tuned on a GPU all the same.
        read_on = device if mode == "probe" or kind.runs_on_devices else "auto"
        kind.check_device(read_on, "auto", batch_size)
        paper: dict[str, Any] = {}
        history: list[dict[str, float]] = []
        if mode == "probe":
            held_out, _ = hold_out(codes, _HELD_OUT, np.random.default_rng(self.seed))
        else:
            checkpoint, held_out, paper, history = self._finetune(
                cells, codes, len(labels), mode, finetune_options, run
            )
        learnt_from = cells.subset(np.setdiff1d(np.arange(len(codes)), held_out))
        fit: dict[str, Any] = {
            "n_components": N_MEASURED if beside is None else _N_JOINT,
            "n_fit_cells": n_fit_cells,
            "seed": self.seed,
            "query": beside,
        }
        features = CellFeatures.fit(checkpoint, learnt_from, measured=self.measured and mode != "paper", **fit)
        if mode == "paper":
            seen = {"all": paper.pop("vectors")}
        else:
            read = features(
                cells, device=read_on, batch_size=batch_size, seed=self.seed, progress=settings.progress_bar
            )
            seen = {"all": read.all(), "known": read.known}
        fitted = {
            name: fit_head(
                x, codes, len(labels), held_out, n_neighbors=n_neighbors, max_known_lost=max_known_lost, seed=self.seed
            )
            for name, x in seen.items()
        }
        heads = {name: head for name, (head, _) in fitted.items()}
        report = fitted["all"][1]
        probabilities = paper.pop("held_out", report.held_out)
        # Held-out cells were only needed to calibrate confidence and novelty. The final heads learn from all cells.
        count_head = None
        if features.view is not None:
            count_head, probabilities = calibrated_count_head(
                features.view.counts, cells, codes, len(labels), held_out, probabilities
            )
            view = CellFeatures.fit(checkpoint, cells, **fit).view
            assert view is not None
            features = CellFeatures(checkpoint, view)
            heads["all"] = refit_head(heads["all"], np.hstack([seen["known"], view(cells)]), codes, self.seed)
        scores = _scores(probabilities, codes[held_out], labels)

        # Up to here the annotator is unchanged, so that an error leaves it as it was.
        self._features, self._paper, self.mode, self._n_neighbors = features, paper, mode, n_neighbors
        self._heads, self._count_head = heads, count_head
        self.labels, self.labels_key = labels, labels_key
        head = self._heads["all"]
        self.report = {
            "n_cells": len(codes),
            "n_labels": len(labels),
            "n_left_out": n_left_out,
            "n_held_out": len(held_out),
            **{f"held_out_{name}": float(scores[name]) for name in ("accuracy", "macro_f1", "auc", "ece")},
            "temperature": float(paper.get("temperature", head.temperature)),
            "novelty_threshold": float(head.thresholds[int(n_neighbors > 0)].min()),
            "fraction_known_lost": report.fraction_known_lost,
            "fraction_unknown_found": report.fraction_unknown_found,
            "novelty_auroc": report.auroc.tolist(),
            "history": history,
        }
        log.info(
            "%d labels from %d cells; held out: accuracy %.3f, macro-F1 %.3f, ECE %.3f; labels left out are found with AUROC %.2f",
            len(labels),
            len(codes),
            *(scores[name] for name in ("accuracy", "macro_f1", "ece")),
            float(np.nanmean(report.auroc)) if not np.isnan(report.auroc).all() else float("nan"),
        )
        return self

    def _finetune(
        self,
        cells: Cells,
        codes: NDArray[np.int64],
        n_classes: int,
        mode: str,
        options: Mapping[str, Any],
        run: Mapping[str, Any],
    ) -> tuple[Checkpoint, NDArray[np.int64], dict[str, Any], list[dict[str, float]]]:
        """The trained backbone, the cells held out for validation, what to keep of the paper's head, and the history."""
        from ..train.finetune import FinetuneOptions, apply, finetune, make_classifier

        options = {"batch_size" if k == "train_batch_size" else k: v for k, v in options.items()}
        known = FinetuneOptions.__dataclass_fields__
        if wrong := [name for name in options if name not in known]:
            msg = f"Fine-tuning has no option {wrong[0]!r}; it takes train_batch_size, {', '.join(k for k in known if k != 'batch_size')}."
            raise TypeError(msg)
        settled = FinetuneOptions.of(self.checkpoint, len(codes), **options)
        is_paper = mode == "paper"
        classifier = make_classifier(
            self.checkpoint, cells, n_classes, paper=is_paper, crop_size=settled.crop_size, seed=self.seed
        )
        validation, history = finetune(classifier, codes, n_classes, settled, seed=self.seed, **run)
        paper: dict[str, Any] = {}
        if is_paper:
            logits, vectors = apply(classifier, np.arange(len(codes)), n_classes)
            t = temperature(logits[validation], codes[validation])
            held_out = softmax(logits[validation] / t, axis=1)
            state = {name: x.detach().cpu() for name, x in classifier.head.state_dict().items()}
            paper = {
                "head": state,
                "temperature": t,
                "ocrs": cells.ocrs[["chrom", "start", "end"]],
                "vectors": vectors,
                "held_out": held_out,
            }
        training = {
            "objective": f"cell types, {mode}",
            "n_cells": len(codes) - len(validation),
            "n_labels": n_classes,
            "seed": self.seed,
            "version": __version__,
            "backbone": self.checkpoint.name,
            "options": asdict(settled),
        }
        net = classifier.net.cpu().eval()
        return (
            replace(self.checkpoint, net=net, name="finetuned", sha256="", training=training),
            validation,
            paper,
            history,
        )

    @shared_docs
    def predict(
        self,
        adata: AnnData | MuData,
        *,
        layer: str | None = None,
        genome: str | None = None,
        modality: str | None = None,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
    ) -> Annotation:
        """Label cells. `adata` is not changed.

        Parameters
        ----------
        adata
            Cells x OCRs with counts, of any OCR set.
        layer
            {layer}
        genome
            {genome}
        modality
            {modality}
        device
            {device}
        batch_size
            {batch_size}

        Returns
        -------
        The labels, with confidence and novelty.

        Raises
        ------
        RuntimeError
            If the annotator is not trained.
        ValueError
            If the counts cannot be used, or a head that is tied to the OCRs of the reference gets other OCRs.
        """
        features = self._trained()
        cells = Cells.read(adata, layer=layer, genome=genome, modality=modality)
        there = np.flatnonzero(~cells.is_empty)
        probabilities = np.full((len(cells), len(self.labels)), np.nan)
        novelty = np.full(len(cells), np.nan)
        is_unknown = np.ones(len(cells), dtype=bool)
        fraction = 0.0
        if len(there):
            kept = cells if len(there) == len(cells) else cells.subset(there)
            if self.mode == "paper":
                head = self._heads["all"]
                probabilities[there], seen = self._apply_paper(kept, device)
            else:
                read = features(
                    kept, device=device, batch_size=batch_size, seed=self.seed, progress=settings.progress_bar
                )
                fraction = read.fraction_ocrs if read.measured is not None else 0.0
                is_all = read.measured is not None or features.view is None
                head, seen = self._heads["all" if is_all else "known"], read.all()
                if not is_all:
                    log.warning(
                        "Only %.1f %% of the reference's OCRs are in the query: labels rest on the backbone alone",
                        100 * read.fraction_ocrs,
                    )
                probabilities[there] = head.probabilities(seen)
                if self._count_head is not None and features.view is not None and read.measured is not None:
                    logits = self._count_head.logits(features.view.counts(kept), len(kept))
                    probabilities[there] = self._count_head.mixed(probabilities[there], logits)
            is_same = self.mode == "paper" or read.fraction_ocrs >= _SAME_OCRS
            codes = None if self.mode == "paper" else probabilities[there].argmax(axis=1)
            novelty[there], is_unknown[there] = head.judge(seen, self._n_neighbors, codes=codes, same_ocrs=is_same)
        best = np.where(cells.is_empty, 0, np.nan_to_num(probabilities).argmax(axis=1))
        most_probable = np.asarray(self.labels, dtype=object)[best]
        most_probable[cells.is_empty] = UNKNOWN
        labels = np.where(is_unknown, UNKNOWN, most_probable)
        index, categories = cells.index, [*self.labels, UNKNOWN]
        return Annotation(
            labels=pd.Series(pd.Categorical(labels, categories=categories), index=index),
            best=pd.Series(pd.Categorical(most_probable, categories=categories), index=index),
            confidence=pd.Series(probabilities[np.arange(len(best)), best], index=index),
            novelty=pd.Series(novelty, index=index),
            probabilities=pd.DataFrame(probabilities, index=index, columns=self.labels),
            fraction_ocrs=fraction,
        )

    def _trained(self) -> CellFeatures:
        if self._features is None:
            msg = "This annotator has no labels yet: call train(reference, labels_key=...) first."
            raise RuntimeError(msg)
        return self._features

    def _apply_paper(self, cells: Cells, device: str) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        from ..inference.options import resolve_device
        from ..train.finetune import apply, make_classifier

        trained = self._trained().checkpoint
        if kind_of(trained).paper_head_is_tied and _names(cells.ocrs) != _names(self._paper["ocrs"]):
            msg = (
                "The paper's head is tied to the OCRs of its reference, and the query has others. Map the query to them with "
                "sfa.pp.map_ocrs(adata, reference), or train with mode='probe' or 'finetune', which work for any OCRs."
            )
            raise ValueError(msg)
        classifier = make_classifier(trained, cells, len(self.labels), paper=True, seed=self.seed)
        classifier.head.load_state_dict(self._paper["head"])
        logits, vectors = apply(classifier.to(resolve_device(device)), np.arange(len(cells)), len(self.labels))
        return softmax(logits / self._paper["temperature"], axis=1), vectors

    @shared_docs
    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder with safetensors, JSON and OCR tables that `load` opens; `scfound_atac.hub.load` opens its backbone.

        Parameters
        ----------
        folder
            {dir_path}
        overwrite
            {overwrite}

        Returns
        -------
        The folder.

        Raises
        ------
        FileExistsError
            If there is a model and `overwrite` is False.
        RuntimeError
            If the annotator is not trained.
        """
        features = self._trained()
        arrays = {f"{name}/{field}": x for name, head in self._heads.items() for field, x in head.arrays().items()}
        arrays |= {f"paper/{name}": x.numpy() for name, x in self._paper.get("head", {}).items()}
        if self._count_head is not None:
            arrays |= {f"counts/{field}": x for field, x in self._count_head.arrays().items()}
        facts = {
            "labels": self.labels,
            "labels_key": self.labels_key,
            "mode": self.mode,
            "measured": self.measured,
            "seed": self.seed,
            "n_neighbors": self._n_neighbors,
            "paper_temperature": self._paper.get("temperature"),
            "report": self.report,
        }
        saved = HeadFolder(_KIND, features, facts, arrays, self._paper.get("ocrs"))
        return write_head_folder(saved, folder, overwrite=overwrite)

    @classmethod
    @shared_docs
    def load(cls, folder: str | Path) -> CellAnnotator:
        """Open a saved annotator.

        Parameters
        ----------
        folder
            {saved_folder}
            Or the name of an annotator in `scfound_atac.hub.list_models`, such as ``"bone-marrow"``; a folder of that name goes first.

        Raises
        ------
        FileNotFoundError
            If a file of the folder is missing.
        ValueError
            If the folder holds something else, or a file is damaged.
        """
        import torch

        saved = read_head_folder(_folder_of(folder), _KIND)
        facts = saved.facts
        annotator = cls(saved.features.checkpoint, measured=facts["measured"], seed=facts["seed"])
        annotator._features = saved.features
        annotator.labels, annotator.labels_key, annotator.mode = facts["labels"], facts["labels_key"], facts["mode"]
        annotator.report = {_OLD_SCORES.get(name, name): value for name, value in facts["report"].items()}
        annotator._n_neighbors = facts["n_neighbors"]
        annotator._heads = {
            name: LinearHead.from_arrays(saved.group(name)) for name in ("all", "known") if saved.group(name)
        }
        if counts := saved.group("counts"):
            annotator._count_head = CountHead.from_arrays(counts)
        if annotator.mode == "paper":
            head = {name: torch.from_numpy(x) for name, x in _renamed(saved.group("paper")).items()}
            annotator._paper = {"head": head, "temperature": facts["paper_temperature"], "ocrs": saved.ocrs}
        return annotator

    def __repr__(self) -> str:
        what = f"{len(self.labels)} labels of {self.labels_key!r}, mode {self.mode!r}" if self.labels else "not trained"
        return f"CellAnnotator on {self.checkpoint.name!r}: {what}"


def _folder_of(folder: str | Path) -> str | Path:
    """The folder of an annotator that is given by its name; a folder is returned as it is."""
    if not isinstance(folder, str) or Path(folder).is_dir():
        return folder
    entry = read_registry().get(folder)
    return fetch(folder) if entry is not None and entry.is_annotator else folder


def _renamed(head: dict[str, NDArray]) -> dict[str, NDArray]:
    """Weights of a paper's head by the names of today.

    Before version 0.2 the head of a peak-set network kept its last layer, ``fc``, beside the others, ``mlp``; since then all are numbered
    in one sequence, as in the authors' weights. The head that reads every OCR (``per_ocr``) has both names still.
    """
    if "fc.weight" not in head or any(name.startswith("per_ocr.") for name in head):
        return head
    last = 1 + max(int(name.split(".")[1]) for name in head if name.startswith("mlp."))
    return {name.removeprefix("mlp.").replace("fc.", f"{last}."): x for name, x in head.items()}


def _scores(probabilities: NDArray[np.float64], codes: NDArray[np.int64], labels: list[str]) -> pd.Series:
    """Scores of held-out cells; NaN if there are none."""
    if not len(codes):
        return pd.Series(float("nan"), index=["accuracy", "macro_f1", "auc", "ece"])
    names = np.asarray(labels, dtype=object)
    table = pd.DataFrame(probabilities, columns=labels)
    return annotation_scores(names[codes], names[probabilities.argmax(axis=1)], table)


def _names(ocrs: pd.DataFrame) -> list[str]:
    """Names of the OCRs in genome order, to compare two sets."""
    return ocr_names(ocrs.iloc[genome_order(ocrs)]).tolist()
