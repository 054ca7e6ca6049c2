"""Write an AnnData file block by block."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._paths import as_path, check_writable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

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
    path = as_path(path, "out")
    if path.suffix not in (".h5ad", ".zarr"):
        msg = f"out={str(path)!r} must end in '.h5ad' or '.zarr'."
        raise ValueError(msg)
    if path.exists():
        msg = f"{str(path)!r} exists. Remove it, or write to another path."
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f"There is no folder {str(path.parent)!r}. Create it first."
        raise FileNotFoundError(msg)
    check_writable(path.parent, "out")
    return path


def check_tables(path: Path, obs: pd.DataFrame, var: pd.DataFrame, role: str = "adata") -> None:
    """Make sure, before any work, that the tables can be written to a file like `path`, as AnnData writes them.

    Raises
    ------
    TypeError
        If a column holds something that such files cannot.
    ValueError
        If the name of a column cannot be one in such a file.
    """
    from anndata.io import write_elem

    for name, table in (("obs", obs), ("var", var)):
        where = f"{role}.{name}"
        for column in table.columns:
            _check_name(column, where)
        if table.columns.has_duplicates:
            repeated = table.columns[table.columns.duplicated()][0]
            msg = f"{where} has several columns {repeated!r}, which cannot be written to a file. Rename or drop all but one."
            raise ValueError(msg)
        ready = _writable(table)
        for column in ready:
            with _in_memory(path) as root:
                try:
                    write_elem(root, name, ready[[column]])
                except Exception as error:
                    msg = (
                        f"{where}[{column!r}] cannot be written to a file ({table[column].dtype}: {str(error).splitlines()[0]}). "
                        f"Convert it, for example {where}[{column!r}] = {where}[{column!r}].astype(str), or drop it."
                    )
                    raise TypeError(msg) from error


def _check_name(column: Any, where: str) -> None:
    if not isinstance(column, str):
        msg = (
            f"The columns of {where} must be named by text to be written to a file, and {column!r} is {type(column).__name__}. Rename: "
            f"{where}.columns = {where}.columns.astype(str)."
        )
        raise TypeError(msg)
    if column in ("", "_index") or "/" in column:
        new = column.replace("/", "_").strip("_") or "column"
        msg = (
            f"{where} has a column {column!r}, a name that files cannot hold. Rename it: {where}.rename(columns={{{column!r}: {new!r}}}, "
            "inplace=True)."
        )
        raise ValueError(msg)


@contextmanager
def _in_memory(path: Path) -> Iterator[Any]:
    """A file of the kind of `path` that never reaches a disk."""
    if path.suffix == ".h5ad":
        import h5py

        with h5py.File("check", "w", driver="core", backing_store=False) as root:
            yield root
    else:
        import zarr

        yield zarr.group()


def _writable(table: pd.DataFrame) -> pd.DataFrame:
    """A copy in which text with missing values, or of the string type of pandas, is categorical, as AnnData does when it writes."""
    table = table.copy()
    for name in table:
        column = table[name]
        is_text = column.dtype == object and column.dropna().map(lambda value: isinstance(value, str)).all()
        # Text of pandas 3 (missing values are NaN) is written as it is, nullable text (they are pd.NA) is not.
        is_nullable = isinstance(column.dtype, pd.StringDtype) and column.dtype.na_value is pd.NA
        if ((is_text or isinstance(column.dtype, pd.StringDtype)) and column.hasnans) or is_nullable:
            table[name] = pd.Categorical(column.astype(object).where(column.notna(), None))
    if not all(isinstance(name, str) for name in table.index):
        table.index = table.index.astype(str)
    if table.index.name in table.columns or not isinstance(table.index.name, str):
        table.index.name = None
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
