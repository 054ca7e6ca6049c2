from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import scfound_atac as sfa


def counts(n_cells: int = 200, n_ocrs: int = 300, *, binary: bool = False) -> AnnData:
    x = np.random.default_rng(0).poisson(0.5, (n_cells, n_ocrs)).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(np.minimum(x, 1) if binary else x))
    adata.obs["cell_type"] = "a"
    adata.var["start"] = np.arange(n_ocrs)
    adata.uns["genome"] = "GRCh38"
    adata.obsm["X_lsi"] = np.zeros((n_cells, 2))
    return adata


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_each_count_is_kept_with_the_same_probability(fraction: float, binary: bool) -> None:
    adata = counts(binary=binary)
    thinned = sfa.bench.thin_counts(adata, fraction, seed=1)
    total, kept = adata.X.sum(), thinned.X.sum()
    assert abs(kept - fraction * total) < 4 * np.sqrt(total * fraction * (1 - fraction))
    assert (thinned.X > adata.X).nnz == 0
    assert (thinned.X.data > 0).all()
    assert (thinned.X.data == np.round(thinned.X.data)).all()


def test_large_counts_follow_a_binomial() -> None:
    adata = AnnData(np.full((100, 100), 20.0, dtype=np.float32))
    values = sfa.bench.thin_counts(adata, 0.3).X.toarray()
    assert values.mean() == pytest.approx(6, abs=0.1)
    assert values.var() == pytest.approx(4.2, rel=0.1)


def test_annotation_is_kept_and_results_are_not() -> None:
    adata = counts()
    thinned = sfa.bench.thin_counts(adata, 0.5)
    assert thinned.obs.equals(adata.obs)
    assert thinned.var.equals(adata.var)
    assert thinned.uns["genome"] == "GRCh38"
    assert list(thinned.obsm) == []
    assert (adata.X != counts().X).nnz == 0
    thinned.obs["cell_type"] = "b"
    assert set(adata.obs["cell_type"]) == {"a"}


def test_same_seed_same_result_in_any_form() -> None:
    adata = counts()
    first = sfa.bench.thin_counts(adata, 0.5, seed=3).X
    other_forms = [adata.X.toarray(), adata.X.tocsc(), adata.X.astype(np.int32)]
    for form in other_forms:
        assert (first != sfa.bench.thin_counts(AnnData(form), 0.5, seed=3).X).nnz == 0
    assert (first != sfa.bench.thin_counts(adata, 0.5, seed=4).X).nnz > 0


def test_whole_depth_is_the_same_counts() -> None:
    adata = counts()
    assert (sfa.bench.thin_counts(adata, 1.0).X != adata.X).nnz == 0


def test_layer() -> None:
    adata = counts()
    adata.layers["counts"] = adata.X
    adata.X = adata.X.multiply(0.3).tocsr()
    assert sfa.bench.thin_counts(adata, 0.5, layer="counts").X.sum() > 0
    with pytest.raises(ValueError, match="not whole numbers.*binarise"):
        sfa.bench.thin_counts(adata, 0.5)
    with pytest.raises(KeyError, match="no layer 'raw'"):
        sfa.bench.thin_counts(adata, 0.5, layer="raw")


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        sfa.bench.thin_counts(counts(5, 5), fraction)
