"""`rna_baselines`: simple methods that a model has to beat at predicting expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

from .._anndata import get_atac, get_matrix, role_of
from .._arguments import check_arguments
from .._labels import read_labels
from .._logging import logger
from ..data import Cells, iter_rows
from ..scores import expression_scores
from ._baseline_cells import chosen_methods, same_ocrs
from ._label_classifiers import label_probabilities
from ._lsi_space import LSISpace, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from ..datasets.gene_table import Genes
    from ._lsi_space import Floats

RNAMethod: TypeAlias = Literal["gene-activity", "cell-type-mean", "cell-type-mean-true", "ridge-lsi", "knn-lsi"]

RNA_METHODS: tuple[RNAMethod, ...] = ("gene-activity", "cell-type-mean", "ridge-lsi", "knn-lsi")
# Settings among which the training cells choose: numbers of neighbours, and ridge penalties from weak to so strong that only the mean is
# left.
EXPRESSION_NEIGHBORS = (15, 50)
RIDGE_PENALTIES = tuple(10.0**i for i in range(-1, 6))
HELD_OUT = 0.1  # fraction of the training cells on which the number of neighbours is chosen
GENES_AT_ONCE = 1000  # bounds the memory of ridge regression


def rna_baselines(
    train: AnnData | MuData,
    test: AnnData | MuData,
    *,
    methods: Iterable[RNAMethod] = RNA_METHODS,
    expression: pd.DataFrame | NDArray[Any] | None = None,
    labels_key: str | None = None,
    genes: Genes = None,
    layer: str | None = None,
    rna_layer: str | None = None,
    n_components: int = 50,
    seed: int = 0,
    modality: str | None = None,
    rna_modality: str = "rna",
) -> dict[str, pd.DataFrame]:
    """Predict expression from accessibility, with methods that use no other data.

    Predictions have the units of the given expression; normalise it first. `scfound_atac.bench.expression_scores` computes scores of the
    result.

    - ``"gene-activity"``: `scfound_atac.tl.gene_activity`, the counts over promoter and body. Nothing is learned, and the units differ from
      those of expression: only correlations per gene can be compared. Genes that are not in the table of genes, or that no OCR
      reaches, are 0.
    - ``"cell-type-mean"``: mean expression of the training cells of the type that ``"lsi-logistic"`` of `annotation_baselines` predicts.
    - ``"cell-type-mean-true"``: the same for the true type of the test cell. As this type is not known in practice, it is an upper bound
      for methods that only predict types, and runs only if it is named in `methods`. Cells without a type, or of a type that no training
      cell has, get the mean over all training cells.
    - ``"ridge-lsi"``: ridge regression of each gene on standardised LSI components. The penalty of each gene is chosen by leave-one-out.
    - ``"knn-lsi"``: mean expression of the nearest training cells by cosine distance in LSI. Their number is 15 or 50, whichever gives the
      better mean correlation per gene on a held-out tenth of the training cells.

    Parameters
    ----------
    train
        MuData with accessibility (counts) and expression; or an AnnData with the accessibility, together with `expression`. Cells that
        have both, by name, are used.
    test
        Cells to predict expression for: counts of the same OCRs, by name and in any order. Their expression is not used.
    methods
        Names of the methods to run.
    expression
        Expression of the training cells, instead of the modality of `train`: a DataFrame, matched by the names of cells, or an array.
    labels_key
        Column of ``obs`` with cell types, for the methods that need them. Training cells without a type are left out of the means.
    genes
        Table of genes for ``"gene-activity"``, as `scfound_atac.tl.gene_activity` takes it.
    layer, rna_layer
        Layers with counts and with expression; ``X`` if None.
    n_components
        Maximum number of components of LSI.
    seed
        Random seed of LSI, of the folds and of the cells held out.
    modality, rna_modality
        Names of the modalities of a MuData; ``"atac"`` if None, and ``"rna"``.

    Returns
    -------
    Predictions by method: a table of test cells x genes (those of the training expression), float32. Neither object is changed.

    Raises
    ------
    KeyError
        If the column, layer or modality does not exist.
    ValueError
        If a method is unknown, or needs `labels_key` and does not get it; there are fewer than four training cells with expression; genes
        are repeated or unknown; expression is not finite; test cells lack OCRs of the training cells; or values are not counts.
    FileNotFoundError
        If ``"gene-activity"`` has no table of genes.
    """
    chosen = chosen_methods(methods, (*RNA_METHODS, "cell-type-mean-true"))
    by_type = [name for name in chosen if name.startswith("cell-type-mean")]
    if by_type and labels_key is None:
        msg = f"{', '.join(by_type)} needs cell types: pass a column of obs as labels_key=, or leave it out of methods."
        raise ValueError(msg)
    check_arguments(
        labels_key=labels_key, rna_layer=rna_layer, rna_modality=rna_modality, n_components=n_components, seed=seed
    )
    source, target = (
        Cells.read(data, layer=layer, modality=modality, role=role, values="any", coordinates=has_places)
        for data, role, has_places in ((train, "train", False), (test, "test", "gene-activity" in chosen))
    )
    cells, measured = _training_expression(train, source, expression, rna_layer, rna_modality)
    order = same_ocrs(source, target)
    space = LSISpace(source.to_memory(cells), target.to_memory()[:, order], n_components, seed)
    y = measured.to_numpy()
    predicted = {}
    for name in chosen:
        if name == "gene-activity":
            predicted[name] = _activity(target, measured.columns, genes)
        elif name == "ridge-lsi":
            predicted[name] = _ridge(*space.standardised, y)
        elif name == "knn-lsi":
            predicted[name] = _neighbor_means(*space.lsi, y, seed)
        else:
            types = _types(source, str(labels_key)).iloc[cells]
            if name == "cell-type-mean":
                of_test = _predicted_types(space, types, seed)
            else:
                of_test = _types(target, str(labels_key))
            predicted[name] = _type_means(y, types, of_test)
    return {
        name: pd.DataFrame(values.astype(np.float32, copy=False), target.index.copy(), measured.columns)
        for name, values in predicted.items()
    }


def _training_expression(
    data: Any, atac: Cells, expression: Any, rna_layer: str | None, rna_modality: str
) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Row numbers of the training cells that have expression, and their expression."""
    if expression is None:
        if not hasattr(data, "mod"):
            msg = "The training cells are an AnnData without expression: pass it as expression=, or pass a MuData with both modalities."
            raise ValueError(msg)
        rna = get_atac(data, rna_modality, "train", modality_argument="rna_modality", holds="expression")
        matrix = get_matrix(rna, rna_layer, role_of(data, rna_modality, "train"), "rna_layer")
        values = np.vstack([chunk.toarray() for _, chunk in iter_rows(matrix)])
        expression = pd.DataFrame(values, rna.obs_names, rna.var_names)
    elif not isinstance(expression, pd.DataFrame):
        if hasattr(expression, "obs_names"):
            msg = "expression= takes a DataFrame or an array, cells x genes; of an AnnData pass expression.to_df()."
            raise TypeError(msg)
        values = expression.toarray() if sparse.issparse(expression) else np.asarray(expression)
        if values.ndim != 2 or len(values) != len(atac):
            msg = f"expression has shape {values.shape}, but there are {len(atac)} training cells: one row per cell is needed."
            raise ValueError(msg)
        expression = pd.DataFrame(values, atac.index)
    for index, what in ((expression.columns, "genes"), (expression.index, "cells")):
        if not index.is_unique:
            msg = f"Names of {what} of the expression repeat: {list(index[index.duplicated()][:3])}. Make them unique."
            raise ValueError(msg)
    place = expression.index.get_indexer(atac.index)
    cells = np.flatnonzero(place >= 0)
    if len(cells) < 4 or not expression.shape[1]:
        msg = (
            f"{len(cells)} of the {len(atac)} training cells have expression, of {expression.shape[1]} genes: at least four cells and one "
            "gene are needed. Cells are paired by obs_names; sfa.pp.pair_cells(train) makes those of the same cells equal."
        )
        raise ValueError(msg)
    paired = expression.iloc[place[cells]].astype(np.float32)
    bad = ~np.isfinite(paired.to_numpy()).all(axis=0)
    if bad.any():
        msg = f"The expression of {bad.sum()} genes has NaN or infinite values: {list(paired.columns[bad][:3])}. Leave these genes out."
        raise ValueError(msg)
    return cells, paired


def _activity(test: Cells, symbols: pd.Index, genes: Genes) -> Floats:
    from ..datasets.gene_table import given_or_bundled
    from ..genome import read_genes
    from ..tl import gene_activity

    table = read_genes(given_or_bundled(genes))
    known = table[table["name"].isin(symbols)].reset_index(drop=True)
    if not len(known):
        msg = (
            f"None of the {len(symbols)} genes of the expression ({list(symbols[:3])}) is in the table of genes, which has symbols such as "
            f"{list(table['name'][:3])}. Name genes by symbol, or pass a table with these names as genes=."
        )
        raise ValueError(msg)
    cells = test.as_anndata()
    cells.var, cells.uns["genome"] = test.ocrs, "GRCh38"
    gene_activity(cells, genes=known)
    found = symbols.get_indexer(cells.uns["gene_activity"]["genes"].index)
    logger.info("gene-activity: %d of %d genes have OCRs", len(found), len(symbols))
    activity = np.zeros((len(test), len(symbols)), dtype=np.float32)
    activity[:, found] = cells.obsm["gene_activity"].toarray()
    return activity


def _ridge(train: Floats, test: Floats, y: Floats) -> Floats:
    from sklearn.linear_model import RidgeCV

    # Leave-one-out keeps some arrays of the size of y for each penalty, so genes are fitted in groups.
    parts = np.array_split(np.arange(y.shape[1]), -(-y.shape[1] // GENES_AT_ONCE))
    fits = (RidgeCV(RIDGE_PENALTIES, alpha_per_target=True).fit(train, y[:, part]) for part in parts)
    return np.hstack([fit.predict(test).reshape(len(test), -1) for fit in fits])


def _neighbor_means(train: Floats, test: Floats, y: Floats, seed: int) -> Floats:
    # 1. Hold out some training cells and predict them from the others with each number of neighbours.
    shuffled = np.random.default_rng(seed).permutation(len(train))
    held_out, others = np.split(shuffled, [max(2, round(HELD_OUT * len(train)))])
    neighbors = nearest(train[others], train[held_out], max(EXPRESSION_NEIGHBORS))
    scores = [
        expression_scores(y[held_out], _means(y[others], neighbors[:, :k]))["gene_pearson"]
        for k in EXPRESSION_NEIGHBORS
    ]
    # 2. Take the number with the best mean correlation per gene, and all training cells.
    best = EXPRESSION_NEIGHBORS[int(np.argmax(np.nan_to_num(scores)))]
    logger.info("knn-lsi: n_neighbors=%d", best)
    return _means(y, nearest(train, test, best))


def _means(y: Floats, rows: NDArray[np.int64]) -> Floats:
    """Mean over the rows of `y` that each row of `rows` (n, k) lists, (n, n_genes).

    It is computed as one sparse product, which needs no array of cells x neighbours x genes.
    """
    n, k = rows.shape
    weights = np.full(n * k, 1 / k, dtype=np.float32)
    return sparse.csr_matrix((weights, rows.ravel(), np.arange(0, n * k + 1, k)), shape=(n, len(y))) @ y


def _types(cells: Cells, labels_key: str) -> pd.Series:
    """Types of cells as text, missing where there is none."""
    column = cells.column(labels_key)
    codes, labels = read_labels(column, labels_key, role=cells.role, n_min=0)
    return pd.Series(np.array([*labels, None], dtype=object)[codes], name=labels_key)


def _predicted_types(space: LSISpace, types: pd.Series, seed: int) -> pd.Series:
    """Type of each test cell by lsi-logistic, learned from the training cells that have a type."""
    labelled = np.flatnonzero(types.notna())
    y, labels = pd.factorize(types.iloc[labelled], sort=True)
    if len(labels) < 2:
        msg = f"labels_key={types.name!r} has {len(labels)} types in {len(y)} training cells: at least two types are needed."
        raise ValueError(msg)
    probabilities = label_probabilities("lsi-logistic", space, y.astype(np.int64), seed, rows=labelled)
    return pd.Series(np.asarray(labels)[probabilities.argmax(axis=1)])


def _type_means(y: Floats, types: pd.Series, of_test: pd.Series) -> Floats:
    """Mean over the training cells of the type of each test cell, or over all training cells if there are none, (n_test, n_genes)."""
    known = types.notna()
    names, labels = pd.factorize(types[known])
    row = np.where(of_test.notna(), pd.Index(labels).get_indexer(pd.Index(of_test)), -1)
    of_type = sparse.csr_matrix((np.ones(len(names)), (names, np.flatnonzero(known))), shape=(len(labels), len(y)))
    means = (of_type @ y) / np.bincount(names)[:, None]
    return np.vstack([means, y.mean(axis=0)])[row]  # row -1, for cells without a known type, is the last one
