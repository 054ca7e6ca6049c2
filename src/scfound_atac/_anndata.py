"""Select the AnnData and the matrix that a function works on from the AnnData or MuData of the user, and check them."""

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
    """Select the AnnData with accessibility.

    Parameters
    ----------
    data
        AnnData, which is returned unchanged, or MuData.
    modality
        Name of the modality of a MuData; ``"atac"`` by default.
    role
        Name of the argument `data` in the calling function, for messages.

    Returns
    -------
    The AnnData itself, not a copy: changes of it are visible to the caller.

    Raises
    ------
    KeyError
        If the MuData does not have the modality.
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
    """Code for the AnnData that `get_atac` selects: ``adata``, or ``adata["atac"]`` for a MuData."""
    return f'{role}["{modality or "atac"}"]' if hasattr(data, "mod") else role


def get_matrix(adata: AnnData, layer: str | None = None, role: str = "adata", layer_argument: str = "layer") -> Any:
    """``adata.X`` or a layer, unchanged: in memory, backed or lazy, shape (n_cells, n_ocrs).

    Parameters
    ----------
    adata
        The AnnData.
    layer
        Name of the layer; ``X`` if None.
    role, layer_argument
        Names of the object and of the argument that chose the layer, for messages.

    Raises
    ------
    KeyError
        If the layer does not exist.
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
    """The message about an object without values, with advice."""
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
    """Check, before any work, that results can be written into `adata` or into a copy of it.

    Raises
    ------
    ValueError
        If a copy of a backed AnnData is requested, or `adata` is a view of a backed AnnData.
    """
    if not adata.isbacked:
        return
    if adata.is_view:
        msg = (
            f"{role} is a view of a backed AnnData, to which nothing can be written. Load its cells into memory first: "
            f"{role} = {role}.to_memory()."
        )
        raise ValueError(msg)
    if copy:
        msg = f"A backed AnnData cannot be copied in memory. Use copy=False, or {role}.to_memory() first."
        raise ValueError(msg)


def get_column(data: Any, adata: AnnData, key: str, role: str = "adata") -> pd.Series:
    """The column `key` of ``obs`` for the cells of `adata`: its own, or else that of the MuData `data` around it.

    Names such as ``"atac:cell_type"``, which a MuData gives to columns of its modalities, can be used too.

    Raises
    ------
    KeyError
        If neither has the column.
    TypeError
        If `key` is not text.
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
    """Refuse values that can be neither counts nor expression: NaN, infinite and negative values.

    Parameters
    ----------
    chunk
        Values of some cells, shape (n_cells, n_ocrs or n_genes).
    where
        Name of the matrix of the chunk, for the message: ``"adata.X"``.
    rows
        Row numbers of the cells in the matrix, as from `scfound_atac.data.iter_rows`; their numbers in the chunk if None.
    column
        Name of a column, for the message: ``"OCR"`` or ``"gene"``.
    layer_argument
        Name of the argument that chose the layer, for the message.

    Raises
    ------
    ValueError
        If there are such values; the message shows the first three.
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
    """Raise ValueError if a sample of the cells of `matrix`, named `where`, has values that are not counts; `fix` is advice."""
    if count_kind(matrix) == "normalised":
        msg = f"{where} holds values that are not whole numbers, so it is already normalised{fix}"
        raise ValueError(msg)


def count_kind(matrix: Any, *, n_rows: int = 1000, seed: int = 0) -> CountKind:
    """Find out from a sample of cells which kind of counts a matrix holds.

    A fragment has two ends, and each end is one insertion. If ends are counted ("reads"), even values are therefore frequent and 2 is more
    frequent than 1; if fragments are counted, 1 is the most frequent value (Martens et al. 2023, "Modeling fragment counts improves
    single-cell ATAC-seq analysis").

    Parameters
    ----------
    matrix
        Any matrix that `scfound_atac.data.iter_rows` reads, shape (n_cells, n_ocrs).
    n_rows
        Number of cells in the sample.
    seed
        Random seed of the sample.

    Returns
    -------
    ``"binary"`` if all values are 0 or 1 (also for a matrix without values), ``"reads"`` or ``"fragments"`` for other whole numbers,
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
