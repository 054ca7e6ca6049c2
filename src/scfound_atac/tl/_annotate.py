"""`annotate`: names of cell types, from a labelled reference or from what is known of open regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._keys import AnnotationKeys, annotation_keys
from .._labels import read_labels
from .._logging import logger
from .._settings import settings
from ..data import Cells
from ..hub.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint
    from ..model import CellAnnotator

# Number of cells over which novelty or evidence is averaged, with and without a reference.
_NEIGHBORS_NOVELTY, _NEIGHBORS_EVIDENCE = 15, 30


@shared_docs
def annotate(
    adata: AnnData | MuData,
    *,
    reference: AnnData | MuData | None = None,
    labels_key: str | None = None,
    annotator: CellAnnotator | str | Path | None = None,
    candidates: str | Sequence[str] | None = None,
    groupby: str | None = None,
    min_confidence: float = 0.8,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    mode: Literal["probe", "finetune", "paper"] = "probe",
    layer: str | None = None,
    reference_layer: str | None = None,
    genome: str | None = None,
    modality: str | None = None,
    n_neighbors: int | None = None,
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    seed: int = 0,
    key_added: str | None = None,
    copy: bool = False,
    **finetune_options: Any,
) -> AnnData | MuData | None:
    """Name the types of cells, with or without a labelled reference.

    **Without** `reference`, `labels_key` and `annotator`, cells are named in terms of the Cell Ontology by what is known of their open
    regions: 1.5 million regulatory elements with 144 cell types of 25 human tissues (REMO v1), and sorted bulk samples of blood
    progenitors, red cells, platelets and stem cells. A type speaks for itself if its elements are open more often than chance gives, and
    more often than in the other cells. Evidence is averaged over neighbours in the embedding. A cell gets the most specific term of the
    ontology whose probability reaches `min_confidence`: ``"naive B cell"`` if the data say so, or ``"lymphocyte"``, or ``"unknown"``.

    **With** a reference, a pretrained network reads the cells of both. A linear head learns the labels of the reference from the vectors of
    the network and from spectral components of the counts (`scfound_atac.model.CellAnnotator`), whose axes are fitted to reference and
    query together, and cells that resemble none of its labels
    are marked. The query may have other OCRs than the reference: where they overlap, the counts are compared as well; elsewhere, labels
    rest on what is known of the open regions. Confidence is calibrated on held-out cells of the reference, so it is too optimistic for a
    query from another laboratory.

    Parameters
    ----------
    adata
        Cells to label: cells x OCRs with counts, on GRCh38, or a MuData with such a modality.
    reference
        Labelled cells; if None and `labels_key` is given, the labelled cells of `adata` itself.
    labels_key
        Column of ``obs`` of the reference with the labels. Cells without a label are left out.
    annotator
        A trained `scfound_atac.model.CellAnnotator`, the folder of one, or the name of one in the package (``"bone-marrow"``), instead of
        `reference` and `labels_key`. Model, mode, seed and number of neighbours are then those of its training.
    candidates
        Without a reference: what the cells can be, if that is known. Terms of the Cell Ontology by name, synonym or id (``"T cell"``,
        ``"CL:0000084"``), with all types below them, or tissues (``"Blood"``, ``"Brain"``). All types if None.
    groupby
        Without a reference: column of ``obs`` with clusters, for the table of evidence; the names that cells get if None.
    min_confidence
        Without a reference: minimum probability of a name, above 0.5. Lower values give more specific names.
    model
        {backbone}
        Without a reference, the model in whose embedding neighbours are sought.
    mode
        - ``"probe"``: the network stays as it is (seconds on a CPU).
        - ``"finetune"``: the network is trained on the reference first.
        - ``"paper"``: the head of the network's paper.

        See `scfound_atac.model.CellAnnotator.train`.
    layer, reference_layer
        Layers with the counts of `adata` and of the reference; ``X`` if None.
    genome
        Genome build of both, ``"GRCh38"``, if it cannot be recognised.
    modality
        {modality}
    n_neighbors
        Number of neighbouring cells of `adata` over which novelty (with a reference; 15 if None) or evidence (without one; 30 if None) is
        averaged, because a single cell is sparse. With 0 each cell is judged by itself, so that its label does not depend on other cells.
        Novelty is also not averaged if `adata` has fewer than ``10 * n_neighbors`` cells; evidence is then averaged over fewer. Averaging
        finds more cells of new types, and also marks more cells of known types as unknown.
    device
        {device}
    batch_size
        {batch_size}
    seed
        {seed}
    key_added
        Prefix of the names that are written, instead of `labels_key`; ``"cell_type"`` without a reference.
    copy
        {copy}
    **finetune_options
        ``max_epochs``, ``lr`` and other options of `scfound_atac.model.CellAnnotator.train`.

    Returns
    -------
    None, or the copy. With `labels_key` ``"cell_type"``, and without a reference, sets:

    `adata.obs['cell_type_pred']` : categorical
        Name of the cell, or ``"unknown"``. With a reference, cells without an open OCR are unknown, and cells whose novelty exceeds a
        threshold. The threshold is found by leaving out each label of the reference in turn. It is raised with the median novelty of the
        query, up to a quarter or, if the query has other OCRs than the reference, without bounds: most of its cells are assumed to be of
        known types.
    `adata.obs['cell_type_best']` : categorical
        The most probable label, also for cells that are marked as unknown; without a reference the most probable of the types.
    `adata.obs['cell_type_confidence']` : float
        With a reference, calibrated probability of the most likely label, also for unknown cells. Without one, probability of the name; for
        unknown cells that of their most probable term.
    `adata.obs['cell_type_novelty']` : float
        With a reference, distance to its nearest cells, relative to how far apart cells of the class are, averaged over `n_neighbors`.
        Without one, probability that the cell is of none of the types.
    `adata.obs['cell_type_pred_ontology_term_id']` : categorical
        Without a reference: Cell Ontology id of the name, ``"unknown"`` for none.
    `adata.obsm['cell_type_probabilities']` : ndarray (n_obs, n_labels), float32
        Probability of every label or type, in the order of ``adata.uns['cell_type_annotation']['labels']``.
    `adata.uns['cell_type_annotation']` : dict
        - ``labels``: the labels of the reference, or the types
        - ``params``: model and checksum, layer, seed, version; mode and ``fraction_ocrs``, the fraction of the reference's OCRs that
          overlap those of the query; or ``fraction_known``, the fraction of the OCRs with a known element
        - ``report``: with a reference, accuracy, macro-F1, AUC and ECE on held-out cells of it, and how well labels that were left out were
          found
        - ``term_ids``: without a reference, Cell Ontology ids of the types
        - ``evidence``: without a reference, a table with the three most probable types of each group: ``group``, ``n_cells``, ``type``,
          ``term_id``, ``probability``; ``fold`` and ``fold_in_data``, how much more of the open regions are known for the type than chance
          gives and than in all cells; ``n_ocrs``; and ``ocrs`` and ``genes``, the OCRs that say most and the nearest promoters

    Raises
    ------
    KeyError
        If a column, layer, modality or model does not exist.
    ValueError
        If counts or coordinates cannot be used; there are fewer than two labels; `reference` comes without `labels_key`, or `annotator`
        with either; a candidate is no known type or tissue; or no OCR lies in a region with a known type. `adata` is unchanged then.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> sfa.tl.annotate(query)
    >>> query.obs["cell_type_pred"].value_counts()
    >>> sfa.tl.annotate(query, reference=reference, labels_key="cell_type")
    """
    atac = get_target(adata, modality, copy=copy)
    role = role_of(adata, modality)
    check_single(mode=mode, key_added=key_added, groupby=groupby)
    check_arguments(
        labels_key=labels_key,
        groupby=groupby,
        layer=layer,
        reference_layer=reference_layer,
        min_confidence=min_confidence,
        seed=seed,
    )
    if n_neighbors is not None:
        check_arguments(n_neighbors=n_neighbors)
    common: dict[str, Any] = {"layer": layer, "genome": genome, "modality": modality}
    run: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if reference is None and labels_key is None and annotator is None:
        if mode != "probe" or finetune_options or reference_layer is not None:
            given = next(iter(finetune_options), "reference_layer" if mode == "probe" else "mode")
            msg = f"{given}= needs labelled cells: pass reference= and labels_key= too, or leave it out to name cells without a reference."
            raise ValueError(msg)
        keys = annotation_keys(key_added or "cell_type")
        refuse_lost(atac, keys.uns, slot="uns", default="", role=role)
        columns, probabilities, record = _by_knowledge(
            adata, keys, model, candidates, groupby, min_confidence, n_neighbors, seed, common, run
        )
    else:
        if candidates is not None or groupby is not None:
            given = "groupby" if candidates is None else "candidates"
            msg = f"{given}= is for naming cells without a reference; with labels, leave it out."
            raise ValueError(msg)
        trained, labels_key = _annotator(reference, labels_key, annotator, model, seed, finetune_options)
        prefix = str(labels_key).removeprefix(f"{modality or 'atac'}:") if annotator is None else trained.labels_key
        keys = annotation_keys(key_added or prefix)
        refuse_lost(atac, keys.uns, slot="uns", default="", role=role)
        # Read the query before training, so that no time is lost if it cannot be used.
        cells = Cells.read(adata, **common)
        if annotator is None:
            labelled = cells
            if reference is not None:
                options = {**common, "layer": reference_layer, "role": "reference", "layer_argument": "reference_layer"}
                labelled = Cells.read(reference, **options)
            n = _NEIGHBORS_NOVELTY if n_neighbors is None else n_neighbors
            # Axes that are fitted to the query depend on all of its cells; labelled cells of one object share its axes anyway.
            beside = cells if reference is not None and n > 0 else None
            trained.train(labelled, str(labels_key), query=beside, mode=mode, n_neighbors=n, **run, **finetune_options)
        columns, probabilities, record = _by_labels(trained, cells, keys, layer, run)

    if copy:
        adata = adata.copy()
        atac = get_atac(adata, modality)
    if keys.terms in atac.obs and keys.terms not in columns:
        del atac.obs[keys.terms]  # of an earlier call without a reference, whose names are replaced
    for name, values in columns.items():
        atac.obs[name] = values
    atac.obsm[keys.probabilities] = probabilities
    atac.uns[keys.uns] = record
    n_unknown = int((atac.obs[keys.labels] == "unknown").sum())
    logger.info("added obs[%r], %d of %d cells unknown", keys.labels, n_unknown, atac.n_obs)
    return adata if copy else None


_Written = tuple[dict[str, Any], np.ndarray, dict[str, Any]]  # columns of obs, obsm, and the record in uns


def _annotator(
    reference: Any, labels_key: str | None, annotator: Any, model: Any, seed: int, options: dict[str, Any]
) -> tuple[CellAnnotator, str | None]:
    """A new annotator, or the given one, after a check that the arguments go together."""
    from ..model import CellAnnotator

    if (annotator is None) == (labels_key is None):
        msg = "Pass reference= and labels_key=, or a trained annotator=, and not both."
        raise ValueError(msg)
    if annotator is None:
        return CellAnnotator(model, seed=seed), labels_key
    if reference is not None or options:
        msg = "A trained annotator= already has its labels: leave out reference= and options of training."
        raise ValueError(msg)
    return annotator if isinstance(annotator, CellAnnotator) else CellAnnotator.load(annotator), None


def _by_labels(
    trained: CellAnnotator, cells: Cells, keys: AnnotationKeys, layer: str | None, run: dict[str, Any]
) -> _Written:
    """Predictions of a trained annotator."""
    predicted = trained.predict(cells, **run)
    # Values without their index, because names of cells may repeat.
    columns = {
        keys.labels: predicted.labels.array,
        keys.best: predicted.best.array,
        keys.confidence: predicted.confidence.to_numpy(),
        keys.novelty: predicted.novelty.to_numpy(),
    }
    report = {name: value for name, value in trained.report.items() if name != "history"}
    record = {
        "labels": np.asarray(trained.labels, dtype=object),
        "params": {
            "model": trained.checkpoint.name,
            "weights_sha256": trained.checkpoint.sha256,
            "mode": trained.mode,
            "labels_key": trained.labels_key,
            "layer": layer or "X",
            "seed": trained.seed,
            "version": __version__,
            "fraction_ocrs": predicted.fraction_ocrs,
        },
        "report": {name: np.asarray(value) if isinstance(value, list) else value for name, value in report.items()},
    }
    return columns, predicted.probabilities.to_numpy(dtype=np.float32), record


def _by_knowledge(
    adata: Any,
    keys: AnnotationKeys,
    model: Any,
    candidates: str | Sequence[str] | None,
    groupby: str | None,
    min_confidence: float,
    n_neighbors: int | None,
    seed: int,
    common: dict[str, Any],
    run: dict[str, Any],
) -> _Written:
    """Names by what is known of open regions."""
    from ..genome.elements import load_element_table
    from ..hub.loading import as_checkpoint
    from ..inference.kind import Request
    from ..inference.name_cells import UNKNOWN, evidence_table, name_cells
    from ..inference.type_tree import load_type_tree

    if not 0.5 < min_confidence <= 1:
        msg = f"min_confidence={min_confidence} must be above 0.5, so that a cell cannot get two names, and at most 1."
        raise ValueError(msg)
    n_neighbors = _NEIGHBORS_EVIDENCE if n_neighbors is None else n_neighbors
    if n_neighbors < 0:
        msg = f"n_neighbors={n_neighbors} must not be negative."
        raise ValueError(msg)
    allowed = None if candidates is None else load_type_tree().allowed(_listed(candidates))
    checkpoint = as_checkpoint(model)
    cells = Cells.read(adata, **common)
    groups = None
    if groupby is not None:
        groups = read_labels(cells.column(groupby, "groupby"), groupby, role=cells.role, n_min=1)
    cells.warn_of_empty("stay unknown")
    request = Request(seed=seed, progress=settings.progress_bar, **run)
    named = name_cells(
        cells, checkpoint, allowed=allowed, min_confidence=min_confidence, n_neighbors=n_neighbors, request=request
    )
    if groups is None:
        codes, names = pd.factorize(named.names, sort=True)
        groups = codes, list(names)
    table = load_element_table()
    columns = {
        keys.labels: pd.Categorical(named.names),
        keys.best: pd.Categorical(named.best),
        keys.confidence: named.confidence,
        keys.novelty: named.none,
        keys.terms: pd.Categorical(np.where(named.terms == "", UNKNOWN, named.terms)),
    }
    record = {
        "labels": np.asarray(table.type_names, dtype=object),
        "term_ids": np.asarray(table.type_ids, dtype=object),
        "params": {
            "model": checkpoint.name,
            "weights_sha256": checkpoint.sha256,
            "candidates": np.asarray([] if candidates is None else _listed(candidates), dtype=object),
            "min_confidence": float(min_confidence),
            "n_neighbors": n_neighbors,
            "layer": common["layer"] or "X",
            "seed": seed,
            "version": __version__,
            "fraction_known": named.fraction_known,
        },
        "evidence": evidence_table(cells, named, *groups),
    }
    return columns, named.probabilities, record


def _listed(candidates: str | Sequence[str]) -> list[str]:
    """The candidates as a list of texts.

    Raises
    ------
    TypeError
        If they are anything else.
    ValueError
        If there are none.
    """
    listed = [candidates] if isinstance(candidates, str) else candidates
    if not isinstance(listed, Sequence | np.ndarray | pd.Index) or not all(isinstance(x, str) for x in listed):
        msg = f"candidates= takes names of cell types or tissues, as a list of texts; got {candidates!r:.60}."
        raise TypeError(msg)
    if len(listed) == 0:
        msg = "candidates= is empty: pass names of cell types or tissues, or None for all."
        raise ValueError(msg)
    return [str(x) for x in listed]
