"""`annotate`: labels of a reference to the cells of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import __version__
from .._anndata import get_atac, get_target, refuse_lost, role_of
from .._arguments import check_arguments, check_single
from .._keys import annotation_keys
from .._logging import logger
from ..data import Cells
from ._embed import DEFAULT_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint
    from ..model import CellAnnotator


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
    """Label cells by a labelled reference, and say which are like none of its labels.

    A pretrained network reads the cells of both; a linear head on its vectors, and on the spectral components of the counts, learns the
    reference's labels (`scfound_atac.model.CellAnnotator`). The query may have other OCRs than the reference: where they overlap, counts
    are compared too, and where they do not, labels rest on what is known of the open regions. Confidence is calibrated on cells of
    the reference that were held out; a query from another laboratory will deserve less.

    Parameters
    ----------
    adata
        Cells to label: cells x OCRs with counts, GRCh38.
    reference
        Labelled cells; the labelled cells of `adata` itself if None.
    labels_key
        Column of ``obs`` of the reference. Cells without a label are left out.
    annotator
        A trained `scfound_atac.model.CellAnnotator`, or the folder of one, instead of `reference` and `labels_key`. Its backbone, mode,
        seed and neighbours are those it was trained with.
    model
        The pretrained network: ``"region-set"``, a ChromFound or an EpiFoundation model, by a name of `scfound_atac.hub.list_models`, a
        folder or a loaded checkpoint.
    mode
        ``"probe"`` leaves the backbone as it is (seconds on a CPU); ``"finetune"`` trains it on the reference first; ``"paper"`` is the
        head of the backbone's paper. See `scfound_atac.model.CellAnnotator.train`.
    layer, reference_layer
        Layers with the counts of `adata` and of the reference; ``X`` if None.
    genome
        Genome build of both, if it cannot be recognised.
    modality
        Modality of a MuData, ``"atac"`` if None.
    n_neighbors
        Cells of `adata` over which novelty is averaged, because a single cell is sparse; 0 judges each cell by itself, so that its
        label does not depend on the others. So is done where `adata` has less than ten times as many cells. Averaging finds more of the
        cells without a label in the reference, and flags more of the others.
    device, batch_size
        As in `scfound_atac.tl.embed`.
    seed
        Of everything that is random.
    key_added
        Stem of the names that are written, instead of `labels_key`.
    copy
        Return a copy instead of writing in place.
    **finetune_options
        ``max_epochs``, ``lr``, ... of `scfound_atac.model.CellAnnotator.train`.

    Returns
    -------
    None, or the copy. Sets, with `labels_key` ``"cell_type"``:

    `adata.obs['cell_type_pred']` : categorical
        A label of the reference, or ``"unknown"``: for cells whose novelty is above a threshold that was found by leaving out each
        label of the reference in turn, and for cells without an open OCR. With other OCRs than the reference's the threshold moves with
        the median of the query, most of whose cells are then taken to be of known types.
    `adata.obs['cell_type_confidence']` : float
        Calibrated probability of the most likely label of the reference, also for unknown cells.
    `adata.obs['cell_type_novelty']` : float
        Distance to the nearest cells of the reference, averaged over `n_neighbors`.
    `adata.obsm['cell_type_probabilities']` : ndarray (n_obs, n_labels), float32
        Of every label, in the order of ``adata.uns['cell_type_annotation']['labels']``.
    `adata.uns['cell_type_annotation']` : dict
        ``labels``; ``params`` (backbone and checksum, mode, layer, seed, version, share of the reference's OCRs that the query was measured
        on); ``report`` (on held-out cells of the reference: accuracy, macro-F1, AUC, ECE; how well labels left out were found).

    Raises
    ------
    KeyError
        If there is no such column, layer, modality or model.
    ValueError
        If counts or coordinates are not usable, there are fewer than two labels, or both or none of `annotator` and `labels_key`
        are given. `adata` is then as it was.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> sfa.tl.annotate(query, reference=reference, labels_key="cell_type")
    >>> query.obs["cell_type_pred"].value_counts()
    """
    from ..model import CellAnnotator

    if (annotator is None) == (labels_key is None):
        msg = "Pass reference= and labels_key=, or annotator= a trained one."
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
            msg = "A trained annotator= has its labels already: leave reference= and options of training out."
            raise ValueError(msg)
        trained = annotator if isinstance(annotator, CellAnnotator) else CellAnnotator.load(annotator)
        keys = annotation_keys(key_added or trained.labels_key)
    refuse_lost(atac, keys.uns, slot="uns", default="", role=role)
    run: dict[str, Any] = {"device": device, "batch_size": batch_size}
    # Read first, so that nothing is trained for cells that cannot be read.
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
    # Without their index: names of cells may repeat.
    atac.obs[keys.labels] = predicted.labels.array
    atac.obs[keys.confidence] = predicted.confidence.to_numpy()
    atac.obs[keys.novelty] = predicted.novelty.to_numpy()
    atac.obsm[keys.probabilities] = predicted.probabilities.to_numpy(dtype=np.float32)
    atac.uns[keys.uns] = record
    logger.info(
        "added obs[%r], %d of %d cells unknown", keys.labels, int((predicted.labels == "unknown").sum()), atac.n_obs
    )
    return adata if copy else None
