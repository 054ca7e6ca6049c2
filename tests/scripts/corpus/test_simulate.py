"""Simulated studies: what any of them must satisfy, on random biosamples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from random_ocrs import MAX_WIDTH, MIN_WIDTH, random_ocrs
from scfound_atac.genome import CHROMOSOME_SIZES, genome_order
from simulate import StudyDesign, biosample_similarity, random_design, simulate_study

N_BIOSAMPLES = 8
PLAIN = StudyDesign(
    n_biosamples=4,
    mixture_share=0.0,
    alike=0.0,
    type_sigma=0.0,
    bias_sigma=0.0,
    common=1.0,
    dropout=0.0,
    noise=0.0,
    leak=0.0,
    depth_sigma=0.0,
    median_open=300,
    counts="fragments",
    width=500,
)


@pytest.fixture(scope="module")
def bins() -> pd.DataFrame:
    """Bins of 500 bases, 1,000 on each of three chromosomes, the last ones at the chromosome's very end."""
    rng = np.random.default_rng(0)
    parts = []
    for chrom in ("chr1", "chr21", "chrX"):
        size = CHROMOSOME_SIZES["GRCh38"][chrom]
        start = np.sort(rng.choice(size // 500 - 2, 998, replace=False)) * 500
        start = np.concatenate([[0], start[start > 0], [size - 1000, size - 500]])
        parts.append(pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def biosamples(bins: pd.DataFrame) -> sparse.csr_matrix:
    """Two families of four related biosamples."""
    rng = np.random.default_rng(1)
    family = rng.random((2, len(bins))) < 0.3
    is_open = family[np.arange(N_BIOSAMPLES) // 4] ^ (rng.random((N_BIOSAMPLES, len(bins))) < 0.05)
    return sparse.csr_matrix(is_open * rng.integers(1, 256, is_open.shape), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_any_study_is_well_formed(biosamples: sparse.csr_matrix, bins: pd.DataFrame, seed: int) -> None:
    names = [f"sample {row}" for row in range(N_BIOSAMPLES)]
    adata = simulate_study(biosamples, bins, n_cells=300, n_ocrs=1200, seed=seed, names=names)
    assert 0 < adata.n_vars <= 1200
    assert adata.n_obs == 300
    assert adata.X.dtype == np.uint8
    assert adata.X.has_canonical_format
    assert (adata.X.data > 0).all()
    var = adata.var
    assert (var["start"] >= 0).all()
    assert (var["end"] <= var["chrom"].map(CHROMOSOME_SIZES["GRCh38"])).all()
    assert (np.diff(genome_order(var)) == 1).all()
    assert not var.index.has_duplicates
    same = var["chrom"].to_numpy()[1:] == var["chrom"].to_numpy()[:-1]
    assert (var["start"].to_numpy()[1:] >= var["end"].to_numpy()[:-1])[same].all()
    width = var["end"] - var["start"]
    assert width.min() >= MIN_WIDTH
    assert width.max() <= MAX_WIDTH
    assert (var.index == var["chrom"] + ":" + var["start"].astype(str) + "-" + var["end"].astype(str)).all()
    n_open = np.diff(adata.X.indptr)
    np.testing.assert_array_equal(adata.obs["n_open"], n_open)
    share = np.bincount(adata.X.indices, minlength=adata.n_vars) / 300
    np.testing.assert_allclose(var["fraction_open"], share, atol=1e-6)
    assert set(adata.obs["biosample"]) <= set(names)
    mixed = (adata.obs["biosample_2"] != "").to_numpy()
    assert (adata.obs["mixture"].to_numpy()[~mixed] == 0).all()
    assert (adata.obs["mixture"] <= 0.5).all()
    assert (adata.obs["biosample"].astype(str) != adata.obs["biosample_2"].astype(str)).all()


def test_same_seed_same_study(biosamples: sparse.csr_matrix, bins: pd.DataFrame) -> None:
    first, again, other = (simulate_study(biosamples, bins, n_cells=100, n_ocrs=800, seed=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first.var, again.var)
    pd.testing.assert_frame_equal(first.obs, again.obs)
    assert (first.X != again.X).nnz == 0
    assert first.shape != other.shape or (first.X != other.X).nnz > 0


def test_dense_and_sparse_biosamples_agree(biosamples: sparse.csr_matrix, bins: pd.DataFrame) -> None:
    dense = simulate_study(biosamples.toarray(), bins, n_cells=50, n_ocrs=500)
    assert (dense.X != simulate_study(biosamples, bins, n_cells=50, n_ocrs=500).X).nnz == 0


def test_openness_rises_with_rank(bins: pd.DataFrame) -> None:
    apart = bins.iloc[::4].reset_index(drop=True)
    rank = np.random.default_rng(0).choice([0, 1, 85, 170, 255], len(bins))
    ranks = sparse.csr_matrix(rank[None, :].astype(np.uint8))
    adata = simulate_study(ranks, bins, n_cells=3000, ocrs=apart, chosen=[0], design=replace(PLAIN, median_open=100))
    share = adata.var["fraction_open"].groupby(rank[::4]).mean()
    assert share[0] == 0
    assert (np.diff(share) > 0).all()
    assert share[255] / share[1] == pytest.approx(PLAIN.fold, rel=0.25)


@pytest.mark.parametrize("median_open", [20, 150, 300])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_depth_is_as_asked(
    biosamples: sparse.csr_matrix, bins: pd.DataFrame, median_open: float, dropout: float
) -> None:
    design = replace(PLAIN, median_open=median_open, dropout=dropout, depth_sigma=0.2, noise=0.1, leak=0.1)
    n_open = simulate_study(biosamples, bins, n_cells=400, n_ocrs=1500, design=design).obs["n_open"]
    assert n_open.median() == pytest.approx(median_open, rel=0.15)


@pytest.mark.parametrize("n_ocrs", [10, 650, 3_000, 100_000])
def test_random_designs_have_depths_in_range(n_ocrs: int) -> None:
    depths = np.array([random_design(n_ocrs, seed=seed).median_open for seed in range(300)])
    assert depths.min() >= min(200, 0.29 * n_ocrs)
    assert depths.max() <= min(30_000, 0.3 * n_ocrs + 1)
    assert random_design(n_ocrs, seed=7) == random_design(n_ocrs, seed=7)


@pytest.mark.parametrize(("counts", "highest"), [("binary", 1), ("fragments", 50), ("insertions", 50)])
def test_kinds_of_counts(biosamples: sparse.csr_matrix, bins: pd.DataFrame, counts: str, highest: int) -> None:
    design = replace(PLAIN, counts=counts, median_open=100)
    values = simulate_study(biosamples, bins, n_cells=500, n_ocrs=1500, design=design).X.data
    assert 1 <= values.max() <= highest
    # Most fragments end twice in an OCR of 500 bases, and few OCRs hold two fragments.
    assert ((values == 2).mean() > 0.4) == (counts == "insertions")


def test_a_cell_looks_like_its_biosample(biosamples: sparse.csr_matrix, bins: pd.DataFrame) -> None:
    adata = simulate_study(biosamples, bins, n_cells=200, ocrs=bins, chosen=[0, 1, 4], design=PLAIN)
    is_open = biosamples.toarray() > 0
    for cell, row in zip(adata.X, adata.obs["biosample"].astype(int), strict=True):
        assert is_open[row, cell.indices].all()


def test_mixtures_are_of_relatives(biosamples: sparse.csr_matrix, bins: pd.DataFrame) -> None:
    design = replace(PLAIN, mixture_share=0.5)
    adata = simulate_study(biosamples, bins, n_cells=600, ocrs=bins, chosen=list(range(8)), design=design)
    mixed = adata.obs[adata.obs["biosample_2"] != ""]
    assert 0.4 < len(mixed) / 600 < 0.6
    # Each of the two families has four members: the three nearest are the rest of the family.
    family = mixed["biosample"].astype(int) // 4
    assert (family == mixed["biosample_2"].astype(str).astype(int) // 4).all()


def test_dropped_domains_hold_nothing(biosamples: sparse.csr_matrix, bins: pd.DataFrame) -> None:
    # One cell's OCRs in one domain are open together or not at all.
    start = np.arange(20) * 1_000 + 1_000_000
    near = pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 500})
    ranks = sparse.csr_matrix(np.full((1, 20), 200, dtype=np.uint8))
    design = replace(PLAIN, dropout=0.4, median_open=7)
    n_open = simulate_study(ranks, near, n_cells=500, ocrs=near, chosen=[0], design=design).obs["n_open"]
    assert (n_open == 0).mean() == pytest.approx(0.4, abs=0.07)
    assert n_open[n_open > 0].min() > 2


def test_similarity_tells_families(biosamples: sparse.csr_matrix) -> None:
    similarity = biosample_similarity(biosamples)
    np.testing.assert_allclose(np.diag(similarity), 1)
    np.testing.assert_allclose(similarity, similarity.T)
    assert similarity[:4, :4].min() > similarity[:4, 4:].max()


def test_related_studies_stay_in_the_family(biosamples: sparse.csr_matrix, bins: pd.DataFrame) -> None:
    design = replace(PLAIN, n_biosamples=2, related=True)
    for seed in range(5):
        adata = simulate_study(biosamples, bins, n_cells=60, n_ocrs=300, seed=seed, design=design)
        assert adata.obs["biosample"].astype(int).floordiv(4).nunique() == 1


def test_overlapping_ocrs_are_merged(bins: pd.DataFrame) -> None:
    # Every bin of a stretch: peaks overlap everywhere.
    start = np.arange(3_000) * 500
    tiles = pd.DataFrame({"chrom": "chr2", "start": start, "end": start + 500})
    options = {"n_ocrs": 1500, "closed_share": 0.0, "selection": 0.0}
    for width in (None, 500):
        rng = np.random.default_rng(0)
        ocrs = random_ocrs(tiles, np.ones(3_000, dtype=np.float32), width=width, rng=rng, **options)
        assert (ocrs["start"].to_numpy()[1:] >= ocrs["end"].to_numpy()[:-1]).all()
        assert ((ocrs["end"] - ocrs["start"]) <= (width or MAX_WIDTH)).all()


def test_strong_bins_are_preferred(bins: pd.DataFrame) -> None:
    signal = np.where(np.arange(len(bins)) % 2, 9.0, 1.0).astype(np.float32)
    strong = []
    for selection in (0.0, 1.0):
        options = {"n_ocrs": 200, "closed_share": 0.0, "width": 500, "rng": np.random.default_rng(0)}
        ocrs = random_ocrs(bins, signal, selection=selection, **options)
        centre = (ocrs["start"] + 250).to_numpy()
        rows = [
            int(np.argmin(np.where(bins["chrom"] == chrom, np.abs(bins["start"] + 250 - middle), np.inf)))
            for chrom, middle in zip(ocrs["chrom"], centre, strict=True)
        ]
        strong.append((signal[rows] > 1).mean())
    assert strong[0] < 0.6
    assert strong[1] > 0.8


def test_refusals(biosamples: sparse.csr_matrix, bins: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="columns, bins has"):
        simulate_study(biosamples, bins[:-1], n_cells=1, n_ocrs=10)
    with pytest.raises(ValueError, match="of at least 1"):
        simulate_study(biosamples, bins, n_cells=0, n_ocrs=10)
    with pytest.raises(ValueError, match="of at least 1"):
        simulate_study(biosamples, bins, n_cells=10)
    with pytest.raises(ValueError, match="one name per row"):
        simulate_study(biosamples, bins, n_cells=1, n_ocrs=10, names=["a"])
