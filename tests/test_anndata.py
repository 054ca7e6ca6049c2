from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scfound_atac._anndata import check_values, count_kind, get_atac, get_column, get_matrix


@pytest.mark.filterwarnings("ignore")
def test_get_atac():
    mudata = pytest.importorskip("mudata")
    a, b = AnnData(np.eye(2)), AnnData(np.eye(2))
    both = mudata.MuData({"atac": a, "peaks": b})
    assert get_atac(a) is a
    assert get_atac(both) is both.mod["atac"]
    assert get_atac(both, "peaks") is both.mod["peaks"]
    with pytest.raises(KeyError, match="atac.*peaks"):
        get_atac(both, "rna")
    with pytest.raises(TypeError, match="ndarray"):
        get_atac(np.eye(2))


def test_get_matrix():
    adata = AnnData(np.eye(2), layers={"counts": np.ones((2, 2))})
    assert get_matrix(adata) is adata.X
    assert get_matrix(adata, "counts").sum() == 4
    with pytest.raises(KeyError, match="counts"):
        get_matrix(adata, "raw")
    with pytest.raises(ValueError, match="X is None"):
        get_matrix(AnnData(layers={"counts": np.eye(2)}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_check_values(bad):
    chunk = sparse.csr_matrix(np.array([[1, 0], [0, bad]], dtype=np.float32))
    with pytest.raises(ValueError, match=r"X has 1 values.*cell 11, OCR 1"):
        check_values(chunk, "X", rows=slice(10, 12))
    with pytest.raises(ValueError, match=r"cell 1, gene 1.*not be scaled"):
        check_values(chunk, "X", column="gene")
    check_values(abs(chunk[:1]), "X")


@pytest.mark.filterwarnings("ignore")
def test_get_column():
    adata = AnnData(np.eye(2), obs=pd.DataFrame({"type": ["a", "b"]}, index=["x", "y"]))
    mdata = pytest.importorskip("mudata").MuData({"atac": adata, "rna": adata[::-1].copy()})
    mdata.obs["donor"] = [{"x": "d1", "y": "d2"}[name] for name in mdata.obs_names]
    assert get_column(mdata, adata, "type") is not None
    assert get_column(mdata, mdata["rna"], "donor").to_dict() == {"x": "d1", "y": "d2"}
    assert get_column(mdata, mdata["rna"], "donor").index.tolist() == ["y", "x"]
    with pytest.raises(KeyError, match="no column 'batch'.*type.*donor"):
        get_column(mdata, adata, "batch")
    with pytest.raises(KeyError, match="no column 'batch'"):
        get_column(adata, adata, "batch")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([[0, 1, 1]], "binary"),
        ([[0, 0, 0]], "binary"),
        (np.zeros((0, 3)), "binary"),
        ([[1, 2, 2, 2, 4]], "reads"),
        ([[1, 1, 1, 2, 3]], "fragments"),
        ([[0.5, 1]], "normalised"),
        ([[-1, 1]], "normalised"),
        ([[np.nan, 1]], "normalised"),
    ],
)
def test_count_kind(values, kind):
    assert count_kind(np.asarray(values, dtype=np.float64)) == kind
    assert count_kind(sparse.csr_matrix(np.asarray(values, dtype=np.float64))) == kind
