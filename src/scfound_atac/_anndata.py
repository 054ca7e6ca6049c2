"""What users hand over (AnnData or MuData) to what functions work on (one AnnData, one matrix of valid counts)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ._rows import iter_rows, shape_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

CountKind: TypeAlias = Literal["binary", "reads", "fragments", "normalised"]


def get_atac(data: Any, modality: str | None = None) -> AnnData:
    """Pick the chromatin accessibility table.

    Parameters
    ----------
    data
        AnnData, returned as it is, or MuData.
    modality
        Name of the modality of a MuData; ``"atac"`` by default.

    Returns
    -------
    The AnnData itself, not a copy: what is written into it is seen by the caller.

    Raises
    ------
    KeyError
        If the MuData has no such modality.
    TypeError
        If `data` is neither AnnData nor MuData.
    """
    from anndata import AnnData
    from mudata import MuData

    if isinstance(data, AnnData):
        return data
    if isinstance(data, MuData):
        name = modality or "atac"
        if name not in data.mod:
            msg = f"The MuData has no modality {name!r}. Pass modality= one of {list(data.mod)}."
            raise KeyError(msg)
        return data.mod[name]
    msg = f"Expected AnnData or MuData, got {type(data).__name__}."
    raise TypeError(msg)


def get_matrix(adata: AnnData, layer: str | None = None) -> Any:
    """``adata.X`` or a layer, untouched: in memory, backed or lazy, shape (n_cells, n_ocrs).

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If `layer` is None and ``adata.X`` is None.
    """
    if layer is not None:
        if layer not in adata.layers:
            msg = f"There is no layer {layer!r}. Layers: {list(adata.layers)}; layer=None reads adata.X."
            raise KeyError(msg)
        return adata.layers[layer]
    if adata.X is None:
        msg = f"adata.X is None. Pass layer= one of {list(adata.layers)}."
        raise ValueError(msg)
    return adata.X


def check_copy(adata: AnnData, *, copy: bool) -> None:
    """ValueError if `copy` is asked for of an AnnData whose matrix is a file."""
    if copy and adata.isbacked:
        msg = "A backed AnnData cannot be copied in memory. Use copy=False, or adata.to_memory() first."
        raise ValueError(msg)


def get_column(data: Any, adata: AnnData, key: str) -> pd.Series:
    """A column of ``obs`` for the cells of `adata`: its own, or else that of the MuData `data` around it.

    Raises
    ------
    KeyError
        If neither has it.
    """
    if key in adata.obs:
        return adata.obs[key]
    if key in data.obs:
        return data.obs[key].reindex(adata.obs_names)
    columns = list(dict.fromkeys([*adata.obs.columns, *data.obs.columns]))
    msg = f"There is no obs column {key!r}. Columns: {columns}."
    raise KeyError(msg)


def check_values(
    chunk: csr_matrix, where: str, *, rows: slice | NDArray[np.int64] | None = None, column: str = "OCR"
) -> None:
    """Refuse what can be neither a count nor an expression value: NaN, infinite and negative values.

    Parameters
    ----------
    chunk
        Cells, shape (cells, OCRs or genes).
    where
        What the chunk is part of, for the message: ``"adata.X"``.
    rows
        Row numbers of the chunk's cells as `scfound_atac.data.iter_rows` gives them; the chunk's own numbers if None.
    column
        What a column is, for the message: ``"OCR"`` or ``"gene"``.

    Raises
    ------
    ValueError
        With the first three offenders.
    """
    data = chunk.data
    valid = np.isfinite(data) & (data >= 0)
    if valid.all():
        return
    bad = np.flatnonzero(~valid)
    row = np.searchsorted(chunk.indptr, bad[:3], side="right") - 1
    number = np.arange(rows.start or 0, rows.stop) if isinstance(rows, slice) else rows
    shown = "; ".join(
        f"cell {r if number is None else number[r]}, {column} {chunk.indices[i]}: {data[i]}"
        for r, i in zip(row, bad[:3], strict=True)
    )
    fix = (
        "Counts are needed: pass layer= with the raw counts,"
        if column == "OCR"
        else "Expression must not be scaled: pass a layer with counts or normalised values,"
    )
    msg = (
        f"{where} has {len(bad)} values that are negative, infinite or NaN ({shown}, counted from 0). {fix} "
        "or replace these values, for example with np.nan_to_num."
    )
    raise ValueError(msg)


def refuse_normalised(matrix: Any, where: str, fix: str) -> None:
    """ValueError if a sample of the cells of `matrix`, which is called `where`, holds values that are no counts; `fix` says what to do."""
    if count_kind(matrix) == "normalised":
        msg = f"{where} holds values that are not whole numbers, so it is already normalised{fix}"
        raise ValueError(msg)


def count_kind(matrix: Any, *, n_rows: int = 1000, seed: int = 0) -> CountKind:
    """Tell what a matrix holds from a sample of its cells.

    A fragment has two ends, each counted as one insertion. Where ends are counted ("reads"), even values are therefore the rule and 2
    is commoner than 1; where fragments are counted, 1 is the commonest value (Martens et al. 2023, "Modeling fragment counts improves
    single-cell ATAC-seq analysis").

    Parameters
    ----------
    matrix
        Anything that `scfound_atac.data.iter_rows` reads, shape (n_cells, n_ocrs).
    n_rows
        Number of cells looked at.
    seed
        Seed of the sample.

    Returns
    -------
    ``"binary"`` if all values are 0 or 1 (so for a matrix without any values), ``"reads"`` or ``"fragments"`` for other whole numbers,
    ``"normalised"`` if any value is negative, not whole or not finite.
    """
    n_cells, _ = shape_of(matrix)
    rows = None
    if n_cells > n_rows:
        rows = np.sort(np.random.default_rng(seed).choice(n_cells, n_rows, replace=False))
    ones = twos = larger = 0
    for _, chunk in iter_rows(matrix, chunk_size=256, rows=rows):
        values = chunk.data
        if not (np.isfinite(values).all() and (values >= 0).all() and (values == np.round(values)).all()):
            return "normalised"
        n_ones, n_twos = int((values == 1).sum()), int((values == 2).sum())
        ones, twos, larger = ones + n_ones, twos + n_twos, larger + len(values) - n_ones - n_twos
    if twos + larger == 0:
        return "binary"
    return "reads" if twos > ones else "fragments"
