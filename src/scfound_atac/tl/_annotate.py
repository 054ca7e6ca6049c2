"""`annotate`: labels of a reference to the cells of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._keys import annotation_keys
from .._logging import logger
from ..data import Cells
from ..hub.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint
    from ..model import CellAnnotator


@shared_docs
def annotate(
    adata: AnnData | MuData,
    *,
    reference: AnnData | MuData | None = None,
    labels_key: str | None = None,
    annotator: CellAnnotator | str | Path | None = None,
    model: str | Path | Checkpoint = DEFAULT_MODEL,
    mode: Literal["probe", "finetune", "paper"] = "probe",
    layer: str | None = None,
    reference_layer: str | None = None,
    genome: str | None = None,
    modality: str | None = None,
    n_neighbors: int = 15,
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    seed: int = 0,
    key_added: str | None = None,
    copy: bool = False,
    **finetune_options: Any,
) -> AnnData | MuData | None:
    """Label cells by a labelled reference, and mark cells that resemble none of its labels.

    A pretrained network reads the cells of both. A linear head learns the labels of the reference from the vectors of the network and from
    spectral components of the counts (`scfound_atac.model.CellAnnotator`). The query may have other OCRs than the reference: where they
    overlap, the counts are compared as well; elsewhere, labels rest on what is known of the open regions. Confidence is calibrated on
    held-out cells of the reference, so it is too optimistic for a query from another laboratory.

    Parameters
    ----------
    adata
        Cells to label: cells x OCRs with counts, on GRCh38, or a MuData with such a modality.
    reference
        Labelled cells; if None, the labelled cells of `adata` itself.
    labels_key
        Column of ``obs`` of the reference with the labels. Cells without a label are left out.
    annotator
        A trained `scfound_atac.model.CellAnnotator`, or the folder of one, instead of `reference` and `labels_key`. Model, mode, seed and
        number of neighbours are then those of its training.
    model
        {backbone}
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
        Number of neighbouring cells of `adata` over which novelty is averaged, because a single cell is sparse. With 0 each cell is judged
        by itself, so that its label does not depend on other cells; the same holds if `adata` has fewer than ``10 * n_neighbors`` cells.
        Averaging finds more cells of new types, and also marks more cells of known types as unknown.
    device
        {device}
    batch_size
        {batch_size}
    seed
        {seed}
    key_added
        Prefix of the names that are written, instead of `labels_key`.
    copy
        {copy}
    **finetune_options
        ``max_epochs``, ``lr`` and other options of `scfound_atac.model.CellAnnotator.train`.

    Returns
    -------
    None, or the copy. With `labels_key` ``"cell_type"``, sets:

    `adata.obs['cell_type_pred']` : categorical
        A label of the reference, or ``"unknown"`` for cells without an open OCR and for cells whose novelty exceeds a threshold. The
        threshold is found by leaving out each label of the reference in turn. If the query has other OCRs than the reference, the
        threshold is shifted with the median novelty of the query, which assumes that most of its cells are of known types.
    `adata.obs['cell_type_confidence']` : float
        Calibrated probability of the most likely label of the reference, also for unknown cells.
    `adata.obs['cell_type_novelty']` : float
        Distance to the nearest cells of the reference, averaged over `n_neighbors`.
    `adata.obsm['cell_type_probabilities']` : ndarray (n_obs, n_labels), float32
        Probability of every label, in the order of ``adata.uns['cell_type_annotation']['labels']``.
    `adata.uns['cell_type_annotation']` : dict
        - ``labels``: the labels of the reference
        - ``params``: model and checksum, mode, layer, seed, version, and ``fraction_ocrs``, the fraction of the reference's OCRs that
          overlap those of the query
        - ``report``: on held-out cells of the reference, accuracy, macro-F1, AUC and ECE, and how well labels that were left out were found

    Raises
    ------
    KeyError
        If a column, layer, modality or model does not exist.
    ValueError
        If counts or coordinates cannot be used, there are fewer than two labels, or both or none of `annotator` and `labels_key` are given.
        `adata` is unchanged then.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> sfa.tl.annotate(query, reference=reference, labels_key="cell_type")
    >>> query.obs["cell_type_pred"].value_counts()
    """
    from ..model import CellAnnotator

    if (annotator is None) == (labels_key is None):
        msg = "Pass reference= and labels_key=, or a trained annotator=, and not both."
        raise ValueError(msg)
    atac = get_target(adata, modality, copy=copy)
    role = role_of(adata, modality)
    check_single(mode=mode, key_added=key_added)
    check_arguments(
        labels_key=labels_key, layer=layer, reference_layer=reference_layer, n_neighbors=n_neighbors, seed=seed
    )
    if annotator is None:
        keys = annotation_keys(key_added or str(labels_key).removeprefix(f"{modality or 'atac'}:"))
        trained = CellAnnotator(model, seed=seed)
    else:
        if reference is not None or finetune_options:
            msg = "A trained annotator= already has its labels: leave out reference= and options of training."
            raise ValueError(msg)
        trained = annotator if isinstance(annotator, CellAnnotator) else CellAnnotator.load(annotator)
        keys = annotation_keys(key_added or trained.labels_key)
    refuse_lost(atac, keys.uns, slot="uns", default="", role=role)
    run: dict[str, Any] = {"device": device, "batch_size": batch_size}
    # Read the query before training, so that no time is lost if it cannot be used.
    cells = Cells.read(adata, layer=layer, genome=genome, modality=modality)
    if annotator is None:
        labelled = cells
        if reference is not None:
            labelled = Cells.read(
                reference,
                layer=reference_layer,
                genome=genome,
                modality=modality,
                role="reference",
                layer_argument="reference_layer",
            )
        trained.train(labelled, str(labels_key), mode=mode, n_neighbors=n_neighbors, **run, **finetune_options)
    predicted = trained.predict(cells, **run)

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
        "report": {
            name: np.asarray(value) if isinstance(value, list) else value
            for name, value in trained.report.items()
            if name != "history"
        },
    }
    if copy:
        adata = adata.copy()
        atac = get_atac(adata, modality)
    # Values without their index, because names of cells may repeat.
    atac.obs[keys.labels] = predicted.labels.array
    atac.obs[keys.confidence] = predicted.confidence.to_numpy()
    atac.obs[keys.novelty] = predicted.novelty.to_numpy()
    atac.obsm[keys.probabilities] = predicted.probabilities.to_numpy(dtype=np.float32)
    atac.uns[keys.uns] = record
    logger.info(
        "added obs[%r], %d of %d cells unknown", keys.labels, int((predicted.labels == "unknown").sum()), atac.n_obs
    )
    return adata if copy else None
