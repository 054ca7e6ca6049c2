"""Select the AnnData and the matrix that a function works on from the AnnData or MuData of the user, and check them."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ._arguments import NotFoundError, settable
from ._rows import iter_rows, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


CountKind: TypeAlias = Literal["binary", "reads", "fragments", "normalised"]


def get_atac(
    data: Any,
    modality: str | None = None,
    role: str = "adata",
    *,
    modality_argument: str = "modality",
    holds: str = "accessibility",
) -> AnnData:
    """Select the AnnData with accessibility.

    Parameters
    ----------
    data
        AnnData, which is returned unchanged, or MuData.
    modality
        Name of the modality of a MuData; ``"atac"`` by default.
    role, modality_argument
        Names of the arguments `data` and `modality` in the calling function, for messages.
    holds
        What the modality contains, for messages.

    Returns
    -------
    The AnnData itself, not a copy: changes of it are visible to the caller.

    Raises
    ------
    KeyError
        If the MuData does not have the modality.
    TypeError
        If `data` is neither AnnData nor MuData, or was opened lazily, or `modality` is no text.
    """
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    if modality is not None and not isinstance(modality, str):
        msg = f"{modality_argument}= takes the name of a modality, as text; got {type(modality).__name__}."
        raise TypeError(msg)
    adata = data
    if isinstance(data, MuData):
        name = modality or "atac"
        if name not in data.mod:
            msg = (
                f"The MuData given as {role} has no modality {name!r}; its modalities are {list(data.mod)}. Pass {modality_argument}= the "
                f"one that holds {holds}, if there is one."
            )
            raise NotFoundError(msg)
        adata = data.mod[name]
    if not isinstance(adata, AnnData):
        raise TypeError(_no_anndata(data, role))
    if not isinstance(adata.obs, pd.DataFrame):
        msg = (
            f"{role} was opened by anndata.experimental.read_lazy, and its tables are not in memory. Load them first: "
            f"{role} = {role}.to_memory(); or open the file with anndata.read_h5ad(path, backed='r'), which leaves the matrix on disk."
        )
        raise TypeError(msg)
    return adata


def _no_anndata(data: Any, role: str) -> str:
    """What to say of something that is neither AnnData nor MuData, with the way to one where there is a short one."""
    import pandas as pd
    from anndata import Raw

    kind = type(data)
    if isinstance(data, str | os.PathLike):
        path = str(data)
        read = (
            "mudata.read_h5mu"
            if path.endswith(".h5mu")
            else "anndata.read_zarr"
            if path.endswith(".zarr")
            else "anndata.read_h5ad"
        )
        return f"{role} must be an AnnData or MuData, and {path!r} is a path. Read it first: {role} = {read}({path!r})."
    # snapatac2 calls its own class AnnData too
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    what = f"{role} must be an AnnData (of the package anndata) or a MuData, got {name}."
    if isinstance(data, Raw):
        return f"{what} Make it one: {role} = {role}.to_adata()."
    if isinstance(data, pd.DataFrame):
        return f"{what} Make a table of counts, cells x OCRs, into one: {role} = anndata.AnnData({role})."
    if isinstance(data, dict):
        return f"{what} Put modalities together: {role} = mudata.MuData({role}); or pass one of its values."
    if isinstance(data, list | tuple):
        return (
            f"{what} Pass the samples one by one; or bring them onto one set of OCRs by sfa.pp.map_ocrs, then {role} = "
            f"anndata.concat({role})."
        )
    if hasattr(data, "to_memory"):
        return f"{what} Bring it into memory as one: {role} = {role}.to_memory()."
    return what


@contextmanager
def without_pulling() -> Iterator[None]:
    """Within it, MuData objects are made and updated without copies of their modalities' columns, and without warnings about shared names.

    By default MuData 0.3 copies columns, and fails if modalities have some names in common. MuData 0.4 does neither, and lacks the option.
    """
    import mudata

    options = mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext()
    with options, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # measured and predicted expression have the same gene names
        yield


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
            there = f"Its layers are {list(adata.layers)}" if adata.layers else "It has no layers"
            msg = f"{role} has no layer {layer!r}. {there}; {layer_argument}=None reads {role}.X."
            raise NotFoundError(msg)
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
            f"{settable(role)} = snapatac2.pp.make_peak_matrix({role}, peak_file=...)."
        )
    if adata.raw is not None and adata.n_vars:
        return f"{what}, but {role}.X is None. Take the matrix of its raw: {settable(role)} = {role}.raw.to_adata()."
    return f"{what}, and no peak matrix. Give it a matrix of counts, cells x peaks."


def get_target(
    data: Any,
    modality: str | None = None,
    *,
    copy: bool,
    in_place: bool = False,
    role: str = "adata",
    holds: str = "accessibility",
) -> AnnData:
    """Select the accessibility as `get_atac` does, and check, before any work, that results can be written into it or into a copy of it.

    Parameters
    ----------
    data, modality, role, holds
        As in `get_atac`.
    copy
        Whether results go into a copy.
    in_place
        Whether cells or OCRs will be dropped too.

    Raises
    ------
    TypeError
        If `data` is neither AnnData nor MuData, or `copy` is neither True nor False.
    ValueError
        If a copy of a backed AnnData is requested, cells or OCRs of a backed AnnData are to be dropped, or `data` is a view of one.
    """
    if not isinstance(copy, bool | np.bool_):
        msg = f"copy= takes True or False; got {type(copy).__name__}."
        raise TypeError(msg)
    adata = get_atac(data, modality, role, holds=holds)
    if adata.isbacked:
        role = role_of(data, modality, role)
        load = f"{settable(role)} = {role}.to_memory()"
        if adata.is_view:
            msg = f"{role} is a view of a backed AnnData, which nothing can be written to. Bring its cells into memory first: {load}."
            raise ValueError(msg)
        if copy:
            msg = f"{role} is backed by a file, and a backed AnnData cannot be copied in memory. Use copy=False, or load it first: {load}."
            raise ValueError(msg)
        if in_place:
            msg = f"{role} is a backed AnnData, which cannot be changed in place. Bring it into memory first: {load}."
            raise ValueError(msg)
    return adata


def refuse_lost(
    adata: AnnData, key_added: str, *, slot: str, layer: str | None = None, default: str, role: str = "adata"
) -> None:
    """Refuse a name under which something else is stored that would be lost.

    Parameters
    ----------
    adata
        The object that will be written into.
    key_added
        The name, in `slot` and in ``uns``.
    slot
        ``"obsm"``, ``"layers"``, or ``"uns"`` for a name that is only written there.
    layer
        The layer that is read.
    default
        The default name of the function, which may be overwritten.
    role
        Name of `adata` in the calling function, for messages.

    Raises
    ------
    ValueError
        If the name is that of the layer that is read, or of something that this package did not write.
    """
    if slot == "layers" and key_added == layer:
        msg = f"key_added={key_added!r} is the layer that is read, and would be lost. Pass another key_added."
        raise ValueError(msg)
    if key_added == default:
        return
    record = adata.uns.get(key_added)
    params = record.get("params") if hasattr(record, "get") else None
    if params is not None and "version" in params:
        return
    for place in dict.fromkeys((slot, "uns")):
        if key_added in getattr(adata, place):
            msg = (
                f"{role}.{place}[{key_added!r}] is there already and was not written by this function. Pass another key_added, or remove "
                f"it first: del {role}.{place}[{key_added!r}]."
            )
            raise ValueError(msg)


def get_column(data: Any, adata: AnnData, key: str, role: str = "adata", argument: str = "labels_key") -> pd.Series:
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
        msg = f"{argument}= takes the name of a column of {role}.obs, such as 'cell_type'; got {type(key).__name__}."
        raise TypeError(msg)
    modality = next((name for name, mod in getattr(data, "mod", {}).items() if mod is adata), None)
    own = key.removeprefix(f"{modality}:")
    for name in (key, own):
        if name in adata.obs:
            return _one_column(adata.obs, name, role)
    if key in data.obs:
        return _one_column(data.obs, key, role).reindex(adata.obs_names)
    columns = list(dict.fromkeys([*adata.obs.columns, *data.obs.columns]))
    msg = f"There is no column {key!r} in {role}.obs. Columns: {columns}."
    raise NotFoundError(msg)


def _one_column(obs: pd.DataFrame, key: str, role: str) -> pd.Series:
    if (obs.columns == key).sum() > 1:
        msg = f"{role}.obs has several columns {key!r}. Rename or drop all but one."
        raise ValueError(msg)
    return obs[key]


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
