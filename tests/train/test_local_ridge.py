"""Weights of the OCRs around genes: the penalised least squares they claim to be, and what they must not learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfound_atac.inference.local import near_genes
from scfound_atac.train.local_ridge import _PENALTIES, _equations, _removed, _ridge, fit_local


@pytest.fixture
def ocrs() -> pd.DataFrame:
    start = 1_000_000 + 10_000 * np.arange(60)
    return pd.DataFrame({"chrom": ["chr1"] * 40 + ["chr2"] * 20, "start": start, "end": start + 500})


GENES = pd.DataFrame(
    {
        "chrom": ["chr1", "chr1", "chr3"],
        "start": [1_200_000, 1_000_000, 1_200_000],
        "end": [1_250_000, 1_300_251, 1_250_000],
        "name": ["plus", "minus", "elsewhere"],
        "strand": ["+", "-", "+"],
    }
)


def test_ocrs_near_the_start_of_transcription(ocrs):
    near = near_genes(ocrs, GENES, 20_000).toarray()
    assert list(np.flatnonzero(near[:, 0])) == [
        18,
        19,
        20,
        21,
        22,
    ]  # 1,180,000 to 1,220,000; the first ends at 1,180,500
    assert list(np.flatnonzero(near[:, 1])) == [28, 29, 30, 31, 32]  # around 1,300,250
    assert not near[:, 2].any()


def test_ridge_is_least_squares_given_features():
    rng = np.random.default_rng(0)
    x = rng.poisson(0.3, (120, 8)).astype(float)
    features = rng.standard_normal((120, 10)).astype(np.float32)
    y = x[:, 2] - x[:, 5] + features @ rng.standard_normal(10) + 0.5 * rng.standard_normal(120)
    removed = _removed(features)
    np.testing.assert_allclose(removed.T @ removed, np.eye(11), atol=1e-10)
    found, penalty = _ridge(_equations(sparse.csc_matrix(x), y, removed))
    project = np.eye(120) - removed @ removed.T
    px, py = project @ x, project @ y
    top = np.linalg.eigvalsh(px.T @ px)[-1]
    best = None
    for each in _PENALTIES * top:
        w = np.linalg.solve(px.T @ px + each * np.eye(8), px.T @ py)
        hat = px @ np.linalg.solve(px.T @ px + each * np.eye(8), px.T)
        gcv = np.sum((py - px @ w) ** 2) / (120 - 11 - np.trace(hat)) ** 2
        if best is None or gcv < best[0]:
            best = gcv, w, each
    np.testing.assert_allclose(found, best[1], atol=1e-8)
    assert penalty == pytest.approx(best[2])
    assert abs(found[2] - 1) < 0.2
    assert abs(found[5] + 1) < 0.2


def test_noise_and_cell_types_get_no_weight(ocrs):
    """Gene 0 is driven by an OCR, gene 1 by the type of the cell, which its OCRs follow too, and gene 2 has no OCRs."""
    rng = np.random.default_rng(0)
    n = 600
    kind = rng.integers(2, size=n)
    counts = rng.poisson(np.where(kind[:, None] == 1, 0.5, 0.2), (n, 60)).astype(np.float32)
    y = rng.standard_normal((n, 3)).astype(np.float32)
    y[:, 0] += 2 * (counts[:, 20] > 0)
    y[:, 1] += 3 * kind
    features = np.column_stack([kind - kind.mean(), rng.standard_normal((n, 5))]).astype(np.float32)
    features -= features.mean(axis=0)
    view, _ = fit_local(sparse.csr_matrix(counts), features, y, ocrs, GENES, np.array([0, 1, 2]), distance=60_000)
    weights = view.weights.toarray()
    assert np.abs(weights[:, 0]).argmax() == 20
    assert np.abs(np.delete(weights[:, 0], 20)).max() < 0.2 * weights[20, 0]
    assert np.abs(weights[:, 1]).max() < 0.2 * weights[20, 0]
    assert not weights[:, 2].any()
    assert not weights[40:].any()
    reader = view.of(ocrs)
    local = reader.predict(reader.prepare(sparse.csr_matrix(counts)), np.array([0, 2]))
    assert np.corrcoef(local[:, 0], y[:, 0])[0, 1] > 0.5
    np.testing.assert_allclose(local.mean(axis=0), 0, atol=1e-4)
    # other OCRs: in another order, shifted, and some that the reference lacks
    other = ocrs.iloc[::-1].assign(start=lambda t: t["start"] + 50, end=lambda t: t["end"] + 50)
    other = pd.concat([other, pd.DataFrame({"chrom": ["chr9"], "start": [5], "end": [900]})], ignore_index=True)
    more = sparse.csr_matrix(np.column_stack([counts[:, ::-1], np.full(n, 7, dtype=np.float32)]))
    again = view.of(other)
    np.testing.assert_allclose(again.predict(again.prepare(more), np.array([0, 2])), local, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_few_cells(ocrs, n):
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.5, (n, 60)).astype(np.float32))
    features, y = (rng.standard_normal((n, k)).astype(np.float32) for k in (5, 3))
    view, _ = fit_local(counts, features, y, ocrs, GENES, np.arange(3), distance=60_000)
    assert np.isfinite(view.weights.data).all()
    assert np.isfinite(view.mean).all()


# ---------------------------------------------------------------- decoys


def simulated(n_cells: int = 300, n_genes: int = 6, seed: int = 0):
    """Counts of 900 OCRs on three chromosomes, and genes of the first that depend on none of them."""
    rng = np.random.default_rng(seed)
    start = 1_000_000 + 5_000 * np.arange(300)
    table = pd.DataFrame({"chrom": np.repeat(["chr1", "chr2", "chr3"], 300), "start": np.tile(start, 3)})
    table["end"] = table["start"] + 400
    counts = rng.poisson(rng.gamma(2, 0.15, 900), (n_cells, 900)).astype(np.float32)
    features = rng.standard_normal((n_cells, 8)).astype(np.float32)
    y = rng.standard_normal((n_cells, n_genes)).astype(np.float32)
    tss = start[100] + 10_000 * np.arange(n_genes)
    genes = pd.DataFrame({"chrom": "chr1", "start": tss, "end": tss + 9_000, "name": [f"g{i}" for i in range(n_genes)]})
    return sparse.csr_matrix(counts), features, y, table, genes.assign(strand="+")


def fit(parts, **kwargs):
    counts, features, y, table, genes = parts
    return fit_local(counts, features, y, table, genes, np.arange(y.shape[1]), **({"distance": 400_000} | kwargs))


def test_decoys_are_like_the_ocrs_of_the_gene():
    parts = simulated()
    counts, _, y, table, genes = parts
    n_open, chrom = counts.getnnz(axis=0), table["chrom"].to_numpy()
    for distance in (400_000, 20_000):  # for few OCRs there are as many
        weights = fit(parts, distance=distance).with_decoys.weights
        near = near_genes(table, genes, distance).toarray()
        for gene in range(y.shape[1]):
            rows = weights.indices[weights.indptr[gene] : weights.indptr[gene + 1]]
            assert len(np.unique(rows)) == len(rows)
            own, decoys = rows[chrom[rows] == "chr1"], rows[chrom[rows] != "chr1"]
            assert set(own) == set(np.flatnonzero(near[:, gene]))
            assert len(decoys) == 300
            assert np.mean(n_open[decoys]) == pytest.approx(np.mean(n_open[own]), rel=0.1)
            if len(own) > 100:
                assert np.std(n_open[decoys]) == pytest.approx(np.std(n_open[own]), rel=0.15)


def test_weights_with_decoys_are_the_joint_ridge():
    """With the penalty of the gene's own OCRs."""
    parts = simulated()
    counts, features, y, table, genes = parts
    found = fit(parts).with_decoys
    values = found.of(table).prepare(counts).toarray().astype(np.float64)
    removed = _removed(features)
    project = np.eye(len(y)) - removed @ removed.T
    own = near_genes(table, genes, 400_000).toarray()[:, 0]
    _, penalty = _ridge(_equations(sparse.csc_matrix(values[:, own]), y[:, 0].astype(np.float64), removed))
    column = found.weights[:, [0]].tocoo()
    px, py = project @ values[:, column.row], project @ y[:, 0]
    expected = np.linalg.solve(px.T @ px + penalty * np.eye(px.shape[1]), px.T @ py)
    np.testing.assert_allclose(column.data, expected, atol=1e-6)
    assert own[column.row].sum() == own.sum()
    np.testing.assert_allclose(found.mean[0], values[:, column.row].mean(axis=0) @ expected, atol=1e-5)


def test_without_a_link_weights_and_those_of_decoys_are_alike():
    """Also for genes without a local part; those that get one by chance would have larger weights than their decoys."""
    rank, n_local = [], 0
    for seed in range(5):
        parts = simulated(seed=seed, n_genes=10)
        found = fit(parts, distance=250_000, seed=seed)
        n_local += (np.diff(found.alone.weights.indptr) > 0).sum()
        is_own = (parts[3]["chrom"] == "chr1").to_numpy()
        for gene in range(10):
            weights = np.abs(found.with_decoys.weights[:, [gene]].toarray()[:, 0])
            decoys = np.sort(weights[~is_own & (weights > 0)])
            own = weights[is_own & (weights > 0)]
            rank.append(1 - np.searchsorted(decoys, own) / len(decoys))
    p = np.concatenate(rank)
    assert 0 < n_local < 50
    assert p.mean() == pytest.approx(0.5, abs=0.03)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_the_seed_draws_the_decoys():
    parts = simulated()
    one, again, other = (fit(parts, seed=seed).with_decoys.weights for seed in (0, 0, 1))
    assert (one != again).nnz == 0
    assert (one != other).nnz > 0


def test_few_ocrs_on_other_chromosomes():
    """Then those of the same chromosome far away are decoys too; if there are none, weights of the gene's own OCRs alone remain."""
    counts, features, y, table, genes = simulated()
    own = fit((counts[:, :300], features, y, table.iloc[:300], genes), distance=200_000).with_decoys.weights
    assert (np.diff(own.indptr) == np.diff(near_genes(table.iloc[:300], genes, 200_000).indptr)).all()
    far = table.copy()
    far.loc[table["chrom"] != "chr1", ["start", "end"]] += 50_000_000
    weights = fit((counts, features, y, far.assign(chrom="chr1"), genes), distance=200_000).with_decoys.weights
    assert (np.diff(weights.indptr) > np.diff(own.indptr)).all()
