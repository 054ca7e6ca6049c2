"""Read cells from any matrix that AnnData can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ._logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Read = Callable[[slice | NDArray[np.int64]], Any]


def iter_rows(
    matrix: Any, *, chunk_size: int = 1024, rows: NDArray[np.integer] | None = None
) -> Iterator[tuple[slice | NDArray[np.int64], sparse.csr_matrix]]:
    """Read cells chunk by chunk.

    Parameters
    ----------
    matrix
        Matrix of shape (n_cells, n_ocrs): a NumPy array, any SciPy sparse matrix or array, a backed h5ad dataset (dense or sparse), a zarr
        array, an h5py or zarr group with an encoded sparse matrix, or a dask array of dense or sparse blocks. Boolean, integer or
        float.
    chunk_size
        Maximum number of cells per chunk. Dense sources need memory for ``chunk_size * n_ocrs`` values, sparse ones only for stored values.
    rows
        Row numbers to read, in any order and possibly repeated; all by default.

    Yields
    ------
    The row numbers of the chunk in `matrix` (a slice if `rows` is None, or else a part of `rows`), and the cells as CSR of shape (cells,
    n_ocrs): float32, with sorted column numbers, without duplicates and stored zeros. The chunk is always a copy.

    Raises
    ------
    TypeError
        If the matrix is of another type or does not hold numbers, or `rows` are not integers.
    ValueError
        If `matrix` is not two-dimensional, `chunk_size` is not positive or `rows` are out of bounds.

    Notes
    -----
    Matrices stored by column (CSC) cannot be read by row: each call converts them to CSR once. For a CSC matrix on disk this needs
    memory for the whole matrix, and a warning is logged; rewrite such a file by row if that is too much.
    """
    n_rows, _ = shape_of(matrix)
    if chunk_size < 1:
        msg = f"chunk_size={chunk_size} must be at least 1."
        raise ValueError(msg)
    wanted = None if rows is None else _check_rows(rows, n_rows)
    return _chunks(_reader(matrix), n_rows, chunk_size, wanted)


def shape_of(matrix: Any) -> tuple[int, int]:
    """(n_cells, n_ocrs) of any matrix that `iter_rows` reads.

    Raises
    ------
    TypeError
        If `matrix` is not a matrix.
    ValueError
        If it is not two-dimensional.
    """
    shape = _open(matrix).shape if _is_group(matrix) else getattr(matrix, "shape", None)
    if shape is None or hasattr(matrix, "obs_names"):
        msg = f"Cannot read cells from {type(matrix).__name__}: pass a matrix, for example adata.X or adata.layers['counts']."
        raise TypeError(msg)
    if len(shape) != 2:
        msg = f"Expected a matrix of shape (n_cells, n_ocrs), got shape {tuple(shape)}."
        raise ValueError(msg)
    return int(shape[0]), int(shape[1])


def _chunks(
    read: Read, n_rows: int, chunk_size: int, rows: NDArray[np.int64] | None
) -> Iterator[tuple[slice | NDArray[np.int64], sparse.csr_matrix]]:
    if rows is None:
        for start in range(0, n_rows, chunk_size):
            index = slice(start, min(start + chunk_size, n_rows))
            yield index, _canonical(read(index))
        return
    for start in range(0, len(rows), chunk_size):
        part = rows[start : start + chunk_size]
        # files need increasing, unique row numbers
        unique, inverse = np.unique(part, return_inverse=True)
        chunk = _canonical(read(unique))
        yield part, chunk if np.array_equal(unique, part) else _canonical(chunk[inverse])


def _check_rows(rows: NDArray[np.integer], n_rows: int) -> NDArray[np.int64]:
    rows = np.asarray(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        msg = f"rows must be a one-dimensional array of integers, got {rows.dtype} of shape {rows.shape}; for a mask use np.flatnonzero."
        raise TypeError(msg)
    outside = rows[(rows < 0) | (rows >= n_rows)]
    if outside.size:
        msg = f"{outside.size} row numbers lie outside 0..{n_rows - 1}: {outside[:3].tolist()}."
        raise ValueError(msg)
    return rows.astype(np.int64)


def _is_group(matrix: Any) -> bool:
    """Whether `matrix` is an h5py or zarr group, which holds an encoded sparse matrix in several arrays."""
    return hasattr(matrix, "attrs") and hasattr(matrix, "create_group")


def _open(group: Any) -> Any:
    from anndata.io import sparse_dataset

    return sparse_dataset(group)


def _reader(matrix: Any) -> Read:
    from anndata.abc import CSCDataset, CSRDataset

    if _is_group(matrix):
        matrix = _open(matrix)
    if np.dtype(matrix.dtype).kind not in "buif":
        msg = f"The matrix holds {matrix.dtype}, not numbers: convert it, for example with adata.X = adata.X.astype('float32')."
        raise TypeError(msg)
    if isinstance(matrix, CSCDataset):
        matrix = _backed_csc(matrix)
    if sparse.issparse(matrix):
        csr = matrix if matrix.format == "csr" else matrix.tocsr()
        return lambda index: csr[index]
    if isinstance(matrix, CSRDataset | np.ndarray):
        return lambda index: matrix[index]
    if hasattr(matrix, "oindex"):  # zarr, whose plain indexing by arrays selects points instead of rows
        return lambda index: matrix.oindex[index, slice(None)]
    if hasattr(matrix, "dask"):
        return lambda index: matrix[index].compute()
    if hasattr(matrix, "__getitem__"):  # h5py
        return lambda index: matrix[index]
    msg = f"Cannot read cells from {type(matrix).__name__}: use a NumPy, SciPy sparse, backed, zarr or dask matrix."
    raise TypeError(msg)


def _backed_csc(matrix: Any) -> sparse.csr_matrix:
    logger.warning(
        "The matrix of shape %s is stored by column on disk and is read into memory completely; write it as CSR to read it in chunks.",
        tuple(matrix.shape),
    )
    return matrix.to_memory().tocsr()


def _canonical(chunk: Any) -> sparse.csr_matrix:
    if not sparse.issparse(chunk):
        return sparse.csr_matrix(np.asarray(chunk, dtype=np.float32))
    chunk = chunk.tocsr()
    # SciPy shares buffers between a matrix and its slices, and the clean-up below works in place
    data, indices, indptr = chunk.data.astype(np.float32), chunk.indices.copy(), chunk.indptr.copy()
    rows = sparse.csr_matrix((data, indices, indptr), shape=chunk.shape)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows
