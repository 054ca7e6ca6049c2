"""Features of pairs against their formulas, written out one pair at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scfound_atac.genome import load_region_table, read_promoters, select_genes
from scfound_atac.genome.elements import load_element_table
from scfound_atac.genome.gene_table import load_gene_table
from scfound_atac.genome.line import along_genome
from scfound_atac.inference.landscape import signal_of
from scfound_atac.inference.link_features import FEATURES, contact, describe_pairs, features_of, middles, pairs_within

WINDOW = 300_000


@pytest.fixture(scope="module")
def ocrs() -> pd.DataFrame:
    """Every third bin of 5 Mb around CD4, in no order."""
    bins = load_region_table().bins
    here = bins[(bins["chrom"] == "chr12") & bins["start"].between(4_300_000, 9_300_000)].iloc[::3]
    return here.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def genes() -> pd.DataFrame:
    table = read_promoters(load_gene_table())
    return table.iloc[select_genes(table, ["CD4", "LAG3", "GAPDH"])[0]].reset_index(drop=True)


@pytest.fixture(scope="module")
def described(ocrs: pd.DataFrame, genes: pd.DataFrame):
    tss = along_genome(genes["chrom"], genes["tss"])
    return describe_pairs(ocrs, tss, pairs_within(ocrs, tss, WINDOW))


@pytest.fixture(scope="module")
def values(ocrs: pd.DataFrame) -> np.ndarray:
    return np.random.default_rng(0).poisson(2, len(ocrs)).astype(float)


def test_pairs_are_all_within_the_window(ocrs: pd.DataFrame, genes: pd.DataFrame, described) -> None:
    middle = (ocrs["start"] + ocrs["end"]) // 2
    expected = {
        (i, k) for k, tss in enumerate(genes["tss"]) for i in range(len(ocrs)) if abs(middle[i] - tss) <= WINDOW
    }
    assert set(zip(described.ocr.tolist(), described.start.tolist(), strict=True)) == expected
    assert described.distance.tolist() == [
        abs(middle[i] - genes["tss"][k]) for i, k in zip(described.ocr, described.start, strict=True)
    ]


def test_features_by_hand(ocrs: pd.DataFrame, genes: pd.DataFrame, described, values: np.ndarray) -> None:
    features, abc, promoter = features_of(described, values)
    found = pd.DataFrame(features, columns=FEATURES)
    table, bins = load_region_table(), load_region_table().bins
    here = (bins["chrom"] == "chr12").to_numpy()
    middle = ((bins["start"] + bins["end"]) // 2).to_numpy()
    breadth, strength = table.n_open / table.n_biosamples, table.strength / 255
    signal = signal_of(described.bins, values)
    signal = signal[np.searchsorted(described.bins.middle, along_genome(bins["chrom"], middle))]
    all_genes = load_gene_table()
    everyone = all_genes[all_genes["chrom"] == "chr12"]
    starts = np.where(everyone["strand"] == "+", everyone["start"], everyone["end"] - 1)

    def promoter_bins(tss: int) -> np.ndarray:
        return here & (bins["end"] > tss - 500).to_numpy() & (bins["start"] < tss + 501).to_numpy()

    def best(x: np.ndarray, where: np.ndarray) -> float:
        return float(x[where].max()) if where.any() else 0.0

    measured = np.diff(described.bins.spread.indptr) > 0
    measured = measured[np.searchsorted(described.bins.middle, along_genome(bins["chrom"], middle))]
    for k, tss in enumerate(genes["tss"]):
        expected = best(signal, promoter_bins(tss)) if measured[promoter_bins(tss)].any() else np.nan
        assert promoter[k] == pytest.approx(expected, nan_ok=True)
    breadths = np.array([best(breadth, promoter_bins(x)) for x in starts]) + 0.05
    for row in np.random.default_rng(1).choice(len(found), 25, replace=False):
        ocr, tss = ocrs.iloc[described.ocr[row]], int(genes["tss"][described.start[row]])
        bin_ = int(np.flatnonzero(here & (bins["start"] == ocr["start"]).to_numpy())[0])
        d = abs(middle[bin_] - tss)
        assert found["signal"][row] == pytest.approx(-np.log(1.03 - signal[bin_]), abs=1e-5)
        near = here & (np.abs(middle - middle[bin_]) <= 10_000)
        assert found["signal_nearby"][row] == pytest.approx(np.log1p(signal[near].sum()), rel=1e-4)
        assert found["breadth"][row] == pytest.approx(breadth[bin_], rel=1e-5)
        assert found["promoter_strength"][row] == pytest.approx(max(best(strength, promoter_bins(tss)), 0.2), rel=1e-5)
        low, high = sorted((middle[bin_], tss))
        between = here & (middle >= low + 600) & (middle < high - 600) & (breadth > 0.85)
        assert found["n_open_everywhere"][row] == pytest.approx(np.log1p(between.sum()), abs=1e-5)
        away = np.abs(starts - middle[bin_])
        own = contact(np.array([d]))[0] * (best(breadth, promoter_bins(tss)) + 0.05)
        total = (contact(away) * breadths)[away <= 5_000_000].sum()
        assert found["log_gene_share"][row] == pytest.approx(np.log(own / (0.05 + total)), rel=1e-4)
        elements = load_element_table()
        a = elements.lookup(bins.iloc[[bin_]].reset_index(drop=True)).types.toarray()[0]
        b = elements.lookup(
            pd.DataFrame({"chrom": ["chr12"], "start": [tss - 500], "end": [tss + 501]})
        ).types.toarray()[0]
        cosine = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)
        assert found["type_similarity"][row] == pytest.approx(cosine, abs=1e-4)
        reach = here & (np.abs(middle - tss) <= 5_000_000)
        share = signal[bin_] * contact(np.array([d]))[0] / (signal[reach] * contact(np.abs(middle[reach] - tss))).sum()
        assert abc[row] == pytest.approx(share, rel=1e-4)


def test_shares_of_a_gene_add_up_to_one(ocrs: pd.DataFrame, genes: pd.DataFrame, values: np.ndarray) -> None:
    tss = along_genome(genes["chrom"], genes["tss"])
    described = describe_pairs(ocrs, tss, pairs_within(ocrs, tss, 5_000_000))
    _, abc, _ = features_of(described, values)
    assert np.bincount(described.start, weights=abc) == pytest.approx(np.ones(len(tss)), abs=1e-4)


def test_order_of_ocrs_does_not_matter(ocrs: pd.DataFrame, genes: pd.DataFrame, described, values: np.ndarray) -> None:
    order = np.random.default_rng(2).permutation(len(ocrs))
    tss = along_genome(genes["chrom"], genes["tss"])
    other = ocrs.iloc[order].reset_index(drop=True)
    again = describe_pairs(other, tss, pairs_within(other, tss, WINDOW))
    first = features_of(described, values)
    second = features_of(again, values[order])
    place = {(order[i], k): row for row, (i, k) in enumerate(zip(again.ocr, again.start, strict=True))}
    rows = [place[i, k] for i, k in zip(described.ocr, described.start, strict=True)]
    assert np.array_equal(first.features, second.features[rows])


def test_an_ocr_without_bins_has_no_pair() -> None:
    ocrs = pd.DataFrame({"chrom": ["chrM", "GL000009.2"], "start": [5, 5], "end": [300, 300]})
    tss = along_genome(["chr1"], [300])
    assert all(len(x) == 0 for x in pairs_within(ocrs, tss, 500_000))
    described = describe_pairs(ocrs, tss, pairs_within(ocrs, tss, 500_000))
    features, abc, promoter = features_of(described, np.ones(2))
    assert np.isnan(promoter).all()
    assert features.shape == (0, len(FEATURES))
    assert len(abc) == 0


def test_contact() -> None:
    assert contact(np.array([0, 5000])).tolist() == [1, 1]
    assert contact(np.array([500_000]))[0] == pytest.approx(100**-1.024)


def test_middles(ocrs: pd.DataFrame) -> None:
    assert (middles(ocrs) == along_genome(ocrs["chrom"], (ocrs["start"] + ocrs["end"]) // 2)).all()
