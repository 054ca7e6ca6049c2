"""`annotation_baselines`: simple methods that a model has to beat at labelling cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd

from .._arguments import check_arguments
from .._docs import shared_docs
from .._labels import read_labels
from ..data import Cells
from ._baseline_cells import chosen_methods, same_ocrs
from ._label_classifiers import label_probabilities
from ._lsi_space import LSISpace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData
    from mudata import MuData

AnnotationMethod: TypeAlias = Literal["lsi-logistic", "lsi-knn", "tfidf-logistic"]

ANNOTATION_METHODS: tuple[AnnotationMethod, ...] = ("lsi-logistic", "lsi-knn", "tfidf-logistic")


@shared_docs
def annotation_baselines(
    reference: AnnData | MuData,
    query: AnnData | MuData,
    labels_key: str,
    *,
    methods: Iterable[AnnotationMethod] = ANNOTATION_METHODS,
    layer: str | None = None,
    n_components: int = 50,
    joint: bool = False,
    seed: int = 0,
    modality: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Label cells by a labelled reference, with methods that use no other data.

    Everything is learned from the reference: document frequencies, axes of LSI, the classifier, and its settings, for which the best
    macro-F1 in threefold cross-validation decides. One temperature, fitted on the cells held out there, calibrates the probabilities. The
    query is only projected, unless document frequencies and axes are `joint`. `scfound_atac.bench.annotation_scores` computes scores of the
    result.

    - ``"lsi-logistic"``: multinomial logistic regression on the components of LSI (as `scfound_atac.pp.lsi`), standardised; C is
      0.01, 0.1 or 1, and classes are weighted equally or by their size.
    - ``"lsi-knn"``: votes of the 5, 15 or 30 nearest cells by cosine distance in LSI.
    - ``"tfidf-logistic"``: multinomial logistic regression on the TF-IDF values of all OCRs, each cell scaled to unit length; C is 0.1,
      1 or 10, and classes are weighted equally or by their size.

    Parameters
    ----------
    reference
        Cells x OCRs with counts and labels. Cells without a label are left out.
    query
        Cells to label: counts of the same OCRs, by name and in any order. OCRs that the reference lacks are ignored.
    labels_key
        Column with the labels in ``obs`` of the reference (of its modality, or else of the MuData).
    methods
        Names of the methods to run.
    layer
        {layer}
    n_components
        Maximum number of components of LSI.
    joint
        Fit document frequencies and axes of LSI to reference and query together, as `scfound_atac.tl.annotate` fits its own axes.
    seed
        Random seed of LSI and of the folds.
    modality
        {modality}

    Returns
    -------
    Probabilities by method: a table of query cells x labels (sorted), float64, whose rows add up to 1. Neither object is changed.

    Raises
    ------
    KeyError
        If the column, layer or modality does not exist.
    ValueError
        If a method is unknown, there are fewer than two labels, the query lacks OCRs of the reference, or values are not counts.
    """
    chosen = chosen_methods(methods, ANNOTATION_METHODS)
    check_arguments(n_components=n_components, joint=joint, seed=seed)
    source, target = (
        Cells.read(data, layer=layer, modality=modality, role=role, values="any", coordinates=False)
        for data, role in ((reference, "reference"), (query, "query"))
    )
    codes, labels = read_labels(source.column(labels_key), labels_key, role=source.role)
    order, labelled = same_ocrs(source, target), np.flatnonzero(codes >= 0)
    space = LSISpace(source.to_memory(labelled), target.to_memory()[:, order], n_components, seed, joint=joint)
    found = {name: label_probabilities(name, space, codes[labelled], seed) for name in chosen}
    return {name: pd.DataFrame(p, target.index.copy(), pd.Index(labels)) for name, p in found.items()}
