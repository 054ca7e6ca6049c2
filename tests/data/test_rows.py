from __future__ import annotations

import h5py
import numpy as np
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from scfound_atac.data import iter_rows, shape_of

SHAPE = (23, 17)
DTYPES = ["bool", "uint8", "int32", "int64", "float32", "float64"]
FORMS = ["dense", "csr", "csc", "coo", "csr_array", "csc_array", "view", "backed_dense", "backed_csr", "backed_csc"]
FORMS += ["h5_group", "zarr", "dask", "dask_sparse"]


@pytest.fixture(params=DTYPES)
def expected(request):
    values = np.random.default_rng(0).poisson(0.4, SHAPE)
    values[3] = 0
    return values.astype(request.param)


def build(form, values, folder):
    match form:
        case "dense":
            return values
        case "csr" | "csc" | "coo" | "csr_array" | "csc_array":
            name = form if form.endswith("array") else f"{form}_matrix"
            return getattr(sparse, name)(values)
        case "view":
            whole = np.vstack([values, values])
            return AnnData(sparse.csr_matrix(whole))[: len(values)].X
        case "zarr":
            zarr = pytest.importorskip("zarr")
            return zarr.array(values, chunks=(5, 17))
        case "dask" | "dask_sparse":
            array = pytest.importorskip("dask.array").from_array(values, chunks=(5, 17))
            return array if form == "dask" else array.map_blocks(sparse.csr_matrix)
    x = values if form == "backed_dense" else (sparse.csc_matrix if form == "backed_csc" else sparse.csr_matrix)(values)
    AnnData(x).write_h5ad(folder / "a.h5ad")
    if form == "h5_group":
        return h5py.File(folder / "a.h5ad")["X"]
    return read_h5ad(folder / "a.h5ad", backed="r").X


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_iter_rows(form, expected, tmp_path):
    matrix = build(form, expected, tmp_path)
    assert shape_of(matrix) == SHAPE
    seen = []
    for index, chunk in iter_rows(matrix, chunk_size=4):
        assert isinstance(index, slice)
        assert chunk.shape[0] <= 4
        assert chunk.dtype == np.float32
        assert chunk.has_canonical_format
        seen.append(chunk)
    np.testing.assert_array_equal(sparse.vstack(seen).toarray(), expected.astype(np.float32))

    rows = np.array([7, 2, 2, 22, 0, 9, 3])
    parts = list(iter_rows(matrix, chunk_size=3, rows=rows))
    np.testing.assert_array_equal(np.concatenate([i for i, _ in parts]), rows)
    np.testing.assert_array_equal(sparse.vstack([c for _, c in parts]).toarray(), expected[rows].astype(np.float32))


def test_source_is_not_touched():
    data, indices = np.array([1, 2, 0, 4], dtype=np.float32), np.array([3, 1, 0, 0])
    matrix = sparse.csr_matrix((data, indices, [0, 2, 4]), shape=(2, 4))  # unsorted, a duplicate and a stored zero
    for _, chunk in iter_rows(matrix):
        assert chunk.nnz == 3
        chunk.data[:] = 9
    np.testing.assert_array_equal(matrix.data, [1, 2, 0, 4])
    np.testing.assert_array_equal(matrix.indices, [3, 1, 0, 0])


def test_no_cells():
    assert list(iter_rows(np.zeros((0, 3)))) == []


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"matrix": "text"}, TypeError, "Cannot read cells from str"),
        ({"matrix": AnnData(np.eye(2))}, TypeError, "adata.X"),
        ({"matrix": np.zeros(3)}, ValueError, "shape"),
        ({"matrix": np.array([["a"]])}, TypeError, "not numbers"),
        ({"matrix": np.eye(2), "chunk_size": 0}, ValueError, "chunk_size=0"),
        ({"matrix": np.eye(2), "rows": np.array([True, False])}, TypeError, "np.flatnonzero"),
        ({"matrix": np.eye(2), "rows": np.array([2])}, ValueError, "outside"),
    ],
)
def test_bad_input(arguments, error, match):
    with pytest.raises(error, match=match):
        iter_rows(**arguments)
