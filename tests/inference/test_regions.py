from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import Ridge

from scfound_atac.data import Cells
from scfound_atac.genome import RegionTable
from scfound_atac.hub import Checkpoint
from scfound_atac.inference.kind import Embedded, Request
from scfound_atac.inference.kinds import kind_of
from scfound_atac.inference.linear import _RIDGE, MeanFactors, RidgeFactors, orthonormal
from scfound_atac.inference.region_set import NetworkVectors
from scfound_atac.nn import RegionSetConfig, RegionSetNet

N_CELLS, N_OCRS, N_FACTORS = 20, 60, 5


def told(features: np.ndarray) -> SimpleNamespace:
    """What a region table says of OCRs that it knows."""
    return SimpleNamespace(features=features, found=np.ones(len(features), dtype=bool))


@pytest.fixture
def factors() -> np.ndarray:
    factors = np.random.default_rng(0).normal(size=(N_OCRS, N_FACTORS)) * np.arange(1, N_FACTORS + 1)
    return factors.astype(np.float32)


@pytest.fixture
def counts() -> sparse.csr_matrix:
    x = np.random.default_rng(1).poisson(0.3, (N_CELLS, N_OCRS)).astype(np.float32)
    x[4] = 0
    return sparse.csr_matrix(x)


@pytest.fixture
def idf() -> np.ndarray:
    idf = np.random.default_rng(2).uniform(1, 20, N_OCRS).astype(np.float32)
    idf[7] = 0  # an OCR that is left out
    return idf


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    net = RegionSetNet(RegionSetConfig(n_factors=N_FACTORS, d_cell=4, d_hidden=16)).eval()
    torch.nn.init.normal_(net.cell[-1].weight)
    preparation = {"target_sum": None, "log1p": True}
    return Checkpoint(net=net, name="tiny", sha256="0", model_class="RegionSet", preparation=preparation)


# ---------------------------------------------------------------- keys


def test_orthonormal(factors) -> None:
    keys = orthonormal(factors)
    np.testing.assert_allclose(keys.T @ keys, np.eye(N_FACTORS), atol=1e-5)
    # of all orthonormal columns the nearest: U V^T of the singular value decomposition
    u, _, vt = np.linalg.svd(factors, full_matrices=False)
    np.testing.assert_allclose(keys, u @ vt, atol=1e-5)


def test_orthonormal_of_dependent_columns_spans_the_same(factors) -> None:
    twice = np.hstack([factors, factors[:, :2]])
    keys = orthonormal(twice)
    values = np.linalg.svd(keys, compute_uv=False)
    np.testing.assert_allclose(values, [1] * N_FACTORS + [0, 0], atol=1e-4)
    np.testing.assert_allclose(keys @ np.linalg.pinv(keys) @ factors, factors, atol=1e-3)


# ---------------------------------------------------------------- linear readers


def test_mean_factors_is_the_weighted_mean_over_open_ocrs(factors, counts, idf) -> None:
    vectors = MeanFactors(factors).read(counts, counts, idf)
    for cell in range(N_CELLS):
        is_open = counts[cell].toarray()[0] > 0
        if is_open.any():
            expected = np.average(factors[is_open], axis=0, weights=np.log1p(idf[is_open]))
            np.testing.assert_allclose(vectors[cell], expected, rtol=1e-4, atol=1e-5)
        else:
            assert not vectors[cell].any()
    binary = counts.copy()
    binary.data[:] = 1
    np.testing.assert_array_equal(MeanFactors(factors).read(binary, binary, idf), vectors)


def test_mean_factors_keys_keep_distances(factors, counts, idf) -> None:
    reader = MeanFactors(factors)
    np.testing.assert_allclose(reader.keys.T @ reader.keys, np.eye(N_FACTORS), atol=1e-5)
    vectors = reader.read(counts, counts, idf)
    profiles = vectors @ reader.keys.T
    np.testing.assert_allclose(profiles @ profiles.T, vectors @ vectors.T, atol=1e-4)


def test_ridge_factors_equals_sklearn(factors, counts, idf) -> None:
    """The penalty is a share of the mean diagonal of the factors' Gram matrix; there is no intercept."""
    weighted = counts.multiply(idf).tocsr().astype(np.float32)
    reader = RidgeFactors(factors)
    penalty = _RIDGE * np.mean((factors.astype(np.float64) ** 2).sum(axis=0))
    ridge = Ridge(alpha=penalty, fit_intercept=False).fit(factors.astype(np.float64), weighted.toarray().T)
    np.testing.assert_allclose(reader.read(counts, weighted, idf), ridge.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(reader.keys, factors)


# ---------------------------------------------------------------- network


def test_network_vectors_equal_the_dense_network(factors, counts, idf, checkpoint) -> None:
    reader = NetworkVectors(checkpoint, told(factors), reconstruction=True)
    net, value = checkpoint.net, torch.from_numpy(np.log1p(counts.toarray()))
    with torch.inference_mode():
        ocrs = net.embed_ocrs(None, None, None, torch.from_numpy(factors))
        expected, profile = net.cell_vector(value, ocrs).numpy(), net.predict(value, ocrs).numpy()
    vectors = reader(counts)
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vectors @ reader.keys.T, profile, rtol=1e-4, atol=1e-4)


def test_network_vectors_of_an_embedding_have_length_one(factors, counts, idf, checkpoint) -> None:
    reader = NetworkVectors(checkpoint, told(factors))
    vectors = reader(counts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    raw = NetworkVectors(checkpoint, told(factors), reconstruction=True)(counts)
    np.testing.assert_allclose(vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)


def test_cells_are_read_one_by_one(factors, counts, idf, checkpoint) -> None:
    weighted = counts.multiply(idf).tocsr().astype(np.float32)
    for reader in (MeanFactors(factors), RidgeFactors(factors), NetworkVectors(checkpoint, told(factors))):
        before = counts.copy()
        together = reader.read(counts, weighted, idf)
        alone = np.vstack([reader.read(counts[i], weighted[i], idf) for i in range(N_CELLS)])
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
        assert np.isfinite(together).all()
        np.testing.assert_array_equal(counts.toarray(), before.toarray())


# ---------------------------------------------------------------- what models know


@pytest.fixture
def regions(tmp_path):
    """A table of two bins with three factors: five features."""
    bins = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [1000, 1000], "end": [1500, 1500]})
    quantised = np.array([[10, 20], [-3, 4], [5, 5]], dtype=np.int8)
    n_open = np.array([5, 10], dtype=np.uint8)
    RegionTable(bins, quantised, np.ones(3, np.float32), n_open, 20).save(tmp_path / "region_table.npz")
    return tmp_path / "region_table.npz"


def ocrs(*starts: int) -> pd.DataFrame:
    return pd.DataFrame({"chrom": "chr1", "start": starts, "end": np.array(starts) + 500})


def embedded(checkpoint: Checkpoint, table: pd.DataFrame, counts: sparse.csr_matrix, **options) -> Embedded:
    kind = kind_of(checkpoint)
    names = np.array([f"cell{i}" for i in range(counts.shape[0])], dtype=object)
    cells = Cells(counts, None, table, names, np.zeros(counts.shape[0], dtype=bool))
    return kind.embed(cells, kind.settle(Request(n_components=3, progress=False, **options)))


def test_a_network_of_another_width_is_refused(checkpoint, counts) -> None:
    with pytest.raises(ValueError, match=r"needs region factors of shape \(L, 5\)"):
        embedded(checkpoint, ocrs(*range(1000, 61000, 1000)), counts)  # the package's table knows more


def test_a_model_with_its_own_region_table(regions, counts) -> None:
    model = Checkpoint(net=None, name="mine", sha256="0", model_class="BiosamplePrior", regions=regions)
    found = embedded(model, ocrs(*range(1000, 61000, 1000)), counts)
    assert found.params["fraction_known"] == pytest.approx(1 / N_OCRS)  # the table's one bin on chr1
    assert found.vectors.shape[1] == 1  # one known region tells cells apart in one direction


def test_nothing_known_is_said(checkpoint, regions, counts, caplog) -> None:
    unknown = ocrs(*range(100_000, 100_000 + 1000 * N_OCRS, 1000))
    prior, mix = (
        Checkpoint(net=None, name=name, sha256="0", model_class=name, regions=regions, mix=mix)
        for name, mix in (("BiosamplePrior", None), ("BiosampleMix", 0.25))
    )
    network = Checkpoint(
        net=checkpoint.net, name="network", sha256="0", model_class="RegionSet", regions=regions, preparation={}
    )
    says = f"None of the {N_OCRS} OCRs overlaps a region"
    with pytest.raises(ValueError, match=says):
        embedded(prior, unknown, counts)
    with pytest.raises(ValueError, match=says):
        embedded(network, unknown, counts, pooling="reconstruction")
    for model in (mix, network):
        caplog.clear()
        with caplog.at_level("WARNING", logger="scfound_atac"):
            found = embedded(model, unknown, counts)
        assert says in caplog.text
        assert np.isfinite(found.vectors).all()
        assert np.ptp(found.vectors, axis=0).max() > 0  # the counts are left to tell cells apart
    vectors = NetworkVectors(network, network.region_table().lookup(unknown))(counts)
    np.testing.assert_array_equal(vectors, np.broadcast_to(vectors[0], vectors.shape))  # depth does not show either
