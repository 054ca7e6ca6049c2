"""`annotation_baselines`: simple methods that a model has to beat at labelling cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd

from .._arguments import check_arguments
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


def annotation_baselines(
    reference: AnnData | MuData,
    query: AnnData | MuData,
    labels_key: str,
    *,
    methods: Iterable[AnnotationMethod] = ANNOTATION_METHODS,
    layer: str | None = None,
    n_components: int = 50,
    seed: int = 0,
    modality: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Label cells by those of a reference, with methods that know no other data.

    Everything is learnt from the reference: document frequencies, axes of LSI, classifier, and its settings, which are those with the
    best macro-F1 in threefold cross-validation. Probabilities are calibrated by one temperature on the cells held out there. The query is
    projected. Score each with `scfound_atac.bench.annotation_scores`.

    - ``"lsi-logistic"``: multinomial logistic regression on the components of LSI (as `scfound_atac.pp.lsi`), standardised; C of
      0.01, 0.1, 1, classes weighted by their size or not.
    - ``"lsi-knn"``: votes of the 5, 15 or 30 nearest cells by cosine distance in LSI.
    - ``"tfidf-logistic"``: multinomial logistic regression on the TF-IDF values of all OCRs, each cell scaled to unit length; C of 0.1,
      1, 10, classes weighted or not.

    Parameters
    ----------
    reference
        Cells with labels; counts. Cells without a label are left out.
    query
        Cells to label; counts of the same OCRs, by name, in any order. OCRs that the reference does not have are left out.
    labels_key
        Column of the reference's ``obs`` (of the modality, or else of the MuData).
    methods
        Which of them.
    layer
        Layer with the counts, in both; X by default.
    n_components
        Most components of LSI.
    seed
        Seed of LSI and of the folds.
    modality
        Modality of a MuData; ``"atac"`` by default.

    Returns
    -------
    Probabilities by method, each query cells x labels (sorted), float64, rows with a sum of 1. Both objects are only read.

    Raises
    ------
    KeyError
        If there is no such column, layer or modality.
    ValueError
        For an unknown method, fewer than two labels, OCRs that the query does not have, or values that are no counts.
    """
    chosen = chosen_methods(methods, ANNOTATION_METHODS)
    check_arguments(n_components=n_components, seed=seed)
    source, target = (
        Cells.read(data, layer=layer, modality=modality, role=role, values="any", coordinates=False)
        for data, role in ((reference, "reference"), (query, "query"))
    )
    codes, labels = read_labels(source.column(labels_key), labels_key, role=source.role)
    order, labelled = same_ocrs(source, target), np.flatnonzero(codes >= 0)
    space = LSISpace(source.to_memory(labelled), target.to_memory()[:, order], n_components, seed)
    found = {name: label_probabilities(name, space, codes[labelled], seed) for name in chosen}
    return {name: pd.DataFrame(p, target.index.copy(), pd.Index(labels)) for name, p in found.items()}
