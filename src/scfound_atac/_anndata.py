"""What users hand over (AnnData or MuData) to what functions work on (one AnnData, one matrix of valid counts)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ._rows import iter_rows, shape_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

CountKind: TypeAlias = Literal["binary", "reads", "fragments", "normalised"]


def get_atac(data: Any, modality: str | None = None, role: str = "adata") -> AnnData:
    """Pick the chromatin accessibility table.

    Parameters
    ----------
    data
        AnnData, returned as it is, or MuData.
    modality
        Name of the modality of a MuData; ``"atac"`` by default.
    role
        Name of the argument that `data` was given as, for messages.

    Returns
    -------
    The AnnData itself, not a copy: what is written into it is seen by the caller.

    Raises
    ------
    KeyError
        If the MuData has no such modality.
    TypeError
        If `data` is neither AnnData nor MuData, or was opened lazily.
    """
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    if isinstance(data, MuData):
        name = modality or "atac"
        if name not in data.mod:
            msg = f"The MuData given as {role} has no modality {name!r}. Pass modality= one of {list(data.mod)}."
            raise KeyError(msg)
        return data.mod[name]
    if isinstance(data, AnnData):
        if isinstance(data.obs, pd.DataFrame):
            return data
        msg = (
            f"{role} was opened by anndata.experimental.read_lazy, and its tables are not in memory. Load them first: "
            f"{role} = {role}.to_memory(); or open the file with anndata.read_h5ad(path, backed='r'), which leaves the matrix on disk."
        )
        raise TypeError(msg)
    if isinstance(data, str | os.PathLike):
        msg = f"{role} must be an AnnData or MuData, and {str(data)!r} is a path. Read it first: {role} = anndata.read_h5ad(path)."
    else:
        msg = f"{role} must be an AnnData or MuData, got {type(data).__name__}."
    raise TypeError(msg)


def role_of(data: Any, modality: str | None = None, role: str = "adata") -> str:
    """How the user writes the AnnData that `get_atac` picks: ``adata``, or ``adata["atac"]`` in a MuData."""
    return f'{role}["{modality or "atac"}"]' if hasattr(data, "mod") else role


def get_matrix(adata: AnnData, layer: str | None = None, role: str = "adata", layer_argument: str = "layer") -> Any:
    """``adata.X`` or a layer, untouched: in memory, backed or lazy, shape (n_cells, n_ocrs).

    Parameters
    ----------
    adata
        Where to look.
    layer
        Name of the layer; ``X`` if None.
    role, layer_argument
        Names of the object and of the argument that chose the layer, for messages.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If `layer` is None and ``adata.X`` is None.
    """
    if layer is not None:
        if not isinstance(layer, str):
            msg = f"{layer_argument}= takes the name of a layer of {role}, or None for {role}.X; got {type(layer).__name__}."
            raise TypeError(msg)
        if layer not in adata.layers:
            msg = f"{role} has no layer {layer!r}. Layers: {list(adata.layers)}; {layer_argument}=None reads {role}.X."
            raise KeyError(msg)
        return adata.layers[layer]
    if adata.X is None:
        raise ValueError(no_matrix(adata, role, layer_argument))
    return adata.X


def no_matrix(adata: AnnData, role: str, layer_argument: str = "layer") -> str:
    """What to say of an object without values to read, with the way out that fits it."""
    if adata.n_vars and adata.layers:
        return f"{role}.X is None. Pass {layer_argument}= one of {list(adata.layers)}."
    what = f"Nothing to read: {role} has {adata.n_obs} cells and {adata.n_vars} OCRs"
    if fragments := [key for key in adata.obsm if key.startswith(("fragment", "insertion"))]:
        return (
            f"{what}, only fragments (obsm[{fragments[0]!r}]). Count them in peaks first, for example by "
            f"{role} = snapatac2.pp.make_peak_matrix({role}, peak_file=...)."
        )
    return f"{what}, and no peak matrix. Give it a matrix of counts, cells x peaks."


def check_target(adata: AnnData, *, copy: bool, role: str = "adata") -> None:
    """Make sure, before any work, that results can be written into `adata`, or into a copy of it.

    Raises
    ------
    ValueError
        If `copy` is asked for of an AnnData whose matrix is a file, or `adata` is a view of such a one.
    """
    if not adata.isbacked:
        return
    if adata.is_view:
        msg = (
            f"{role} is a view of a backed AnnData, which nothing can be written to. Bring its cells into memory first: "
            f"{role} = {role}.to_memory()."
        )
        raise ValueError(msg)
    if copy:
        msg = f"A backed AnnData cannot be copied in memory. Use copy=False, or {role}.to_memory() first."
        raise ValueError(msg)


def get_column(data: Any, adata: AnnData, key: str, role: str = "adata") -> pd.Series:
    """A column of ``obs`` for the cells of `adata`: its own, or else that of the MuData `data` around it.

    A MuData calls columns of its modalities ``"atac:cell_type"``; that spelling is understood too.

    Raises
    ------
    KeyError
        If neither has it.
    TypeError
        If `key` is no text.
    """
    if not isinstance(key, str):
        msg = f"A column of {role}.obs is named by a text such as 'cell_type', got {type(key).__name__}."
        raise TypeError(msg)
    if key in adata.obs:
        return adata.obs[key]
    if key in data.obs:
        return data.obs[key].reindex(adata.obs_names)
    columns = list(dict.fromkeys([*adata.obs.columns, *data.obs.columns]))
    msg = f"There is no column {key!r} in {role}.obs. Columns: {columns}."
    raise KeyError(msg)


def check_values(
    chunk: csr_matrix,
    where: str,
    *,
    rows: slice | NDArray[np.int64] | None = None,
    column: str = "OCR",
    layer_argument: str = "layer",
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
    layer_argument
        Name of the argument that chose the layer, for the message.

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
        f"Counts are needed: pass {layer_argument}= a layer with the raw counts,"
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
