"""Write an AnnData file block by block."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from scipy.sparse import csr_matrix

_EMPTY = ("layers", "obsm", "obsp", "varm", "varp")


def check_path(path: str | os.PathLike[str]) -> Path:
    """Check that `write_cells` can write a file there, and return its path.

    Raises
    ------
    ValueError
        If it ends neither in .h5ad nor in .zarr.
    FileExistsError
        If the file or folder exists already.
    FileNotFoundError
        If its parent folder does not exist.
    """
    path = Path(path).expanduser()
    if path.suffix not in (".h5ad", ".zarr"):
        msg = f"out={str(path)!r} must end in '.h5ad' or '.zarr'."
        raise ValueError(msg)
    if path.exists():
        msg = f"{str(path)!r} exists. Remove it, or write to another path."
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f"There is no folder {str(path.parent)!r}. Create it first."
        raise FileNotFoundError(msg)
    return path


def check_tables(obs: pd.DataFrame, var: pd.DataFrame) -> None:
    """Check, before any work, that AnnData can write the tables.

    Raises
    ------
    TypeError
        If a column holds something that h5ad files cannot store.
    """
    import h5py
    from anndata.io import write_elem

    for name, table in (("obs", _writable(obs)), ("var", _writable(var))):
        for column in table:
            with h5py.File(
                "check", "w", driver="core", backing_store=False
            ) as memory:  # a file that never reaches a disk
                try:
                    write_elem(memory, name, table[[column]].reset_index(drop=True).rename_axis(None))
                except Exception as error:
                    msg = (
                        f"{name}[{column!r}] cannot be written to a file ({table[column].dtype}: {str(error).splitlines()[0]}). "
                        f"Convert it, for example adata.{name}[{column!r}] = adata.{name}[{column!r}].astype(str), or drop it."
                    )
                    raise TypeError(msg) from error


def _writable(table: pd.DataFrame) -> pd.DataFrame:
    """A copy in which text with missing values, or of the string type of pandas, is categorical, as AnnData does when it writes."""
    table = table.copy()
    for name in table:
        column = table[name]
        is_text = column.dtype == object and column.dropna().map(lambda value: isinstance(value, str)).all()
        if (is_text and column.hasnans) or isinstance(column.dtype, pd.StringDtype):
            table[name] = pd.Categorical(column.astype(object).where(column.notna(), None))
    if not all(isinstance(name, str) for name in table.index):
        table.index = table.index.astype(str)
    return table


def write_cells(
    path: Path, blocks: Iterable[csr_matrix], obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]
) -> None:
    """Write an AnnData whose X is given as CSR blocks of cells, at least one.

    The file has a temporary name until it is complete, and is removed on any error.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix == ".h5ad":
            import h5py

            with h5py.File(partial, "w") as root:
                _write(root, blocks, obs, var, uns)
        else:
            import zarr

            _write(zarr.open_group(str(partial), mode="w"), blocks, obs, var, uns)
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _write(
    root: Any, blocks: Iterable[csr_matrix], obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]
) -> None:
    from anndata.io import sparse_dataset, write_elem

    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    write_elem(root, "obs", _writable(obs))
    write_elem(root, "var", _writable(var))
    write_elem(root, "uns", dict(uns))
    for name in _EMPTY:
        write_elem(root, name, {})
    for number, block in enumerate(blocks):
        if number == 0:
            block.indptr = block.indptr.astype(
                np.int64
            )  # the complete matrix may have more entries than 32 bits can count
            write_elem(root, "X", block)
        else:
            sparse_dataset(root["X"]).append(block)
