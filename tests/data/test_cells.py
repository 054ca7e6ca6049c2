"""`Cells.read`: what is read, whatever it is stored in, and what is refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scfound_atac.data import Cells


@pytest.fixture(scope="module")
def adata(make_labelled):
    return make_labelled(60)


@pytest.mark.parametrize("convert", [sp.csc_matrix, sp.csr_array, lambda x: x.toarray()], ids=["csc", "array", "dense"])
def test_cells_of_any_storage(adata, convert):
    other = adata.copy()
    other.X = convert(adata.X)
    rows = np.array([3, 1, 50])
    np.testing.assert_array_equal(Cells.read(other).subset(rows).matrix.toarray(), adata.X[rows].toarray())


def test_empty_cells_are_noted(adata):
    other = adata.copy()
    other.X = sp.vstack([sp.csr_matrix((2, adata.n_vars), dtype=np.float32), adata.X[2:]], format="csr")
    np.testing.assert_array_equal(np.flatnonzero(Cells.read(other).is_empty), [0, 1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: setattr(a, "X", a.X * 0.37), "X holds values that are not whole numbers.*layer="),
        (lambda a: setattr(a, "X", -a.X), "negative"),
        (lambda a: setattr(a, "X", a.X * np.nan), "NaN"),
        (
            lambda a: setattr(a, "var_names", [*a.var_names[:-1], a.var_names[0]]),
            "twice|duplicate|repeat|more than once",
        ),
        (lambda a: a.uns.update(genome="hg19"), "hg19|GRCh37"),
    ],
    ids=["normalised", "negative", "nan", "repeated", "genome"],
)
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_what_is_no_count_is_refused(adata, change, says):
    bad = adata.copy()
    bad.var = bad.var[[]]
    change(bad)
    with pytest.raises(ValueError, match=says):
        Cells.read(bad)


def test_no_cells_and_no_layer(adata):
    with pytest.raises(ValueError, match="0 cells"):
        Cells.read(adata[:0].copy())
    with pytest.raises(KeyError, match="counts"):
        Cells.read(ad.AnnData(adata.X, var=adata.var), layer="counts")
