"""Signals on bins do not depend on how peaks were called."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scfound_atac.genome import load_region_table
from scfound_atac.genome.line import along_genome
from scfound_atac.inference.landscape import bins_of, lead_bins, signal_of
from scfound_atac.inference.link_features import middles


def ocrs_of(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


@pytest.fixture(scope="module")
def three_bins() -> pd.DataFrame:
    """Three neighbouring bins of the table."""
    bins = load_region_table().bins
    joined = (bins["end"].to_numpy()[:-1] == bins["start"].to_numpy()[1:]) & (
        bins["chrom"].to_numpy()[:-1] == bins["chrom"].to_numpy()[1:]
    )
    first = int(np.flatnonzero(joined[:-1] & joined[1:])[0])
    return bins.iloc[first : first + 3].reset_index(drop=True)


def test_bins_themselves_keep_their_values(three_bins: pd.DataFrame) -> None:
    bins = bins_of(three_bins)
    signal = bins.spread @ np.array([3.0, 1.0, 2.0])
    assert signal[bins.bin] == pytest.approx([3, 1, 2], rel=1e-6)
    assert (np.diff(bins.middle) >= 0).all()
    assert len(bins.middle) == len(load_region_table().bins)


def test_a_tile_is_shared_out_by_what_is_open_elsewhere(three_bins: pd.DataFrame) -> None:
    tile = ocrs_of((three_bins["chrom"][0], three_bins["start"][0], three_bins["end"][2]))
    bins = bins_of(tile)
    signal = (bins.spread @ np.array([6.0]))[bins.bin]
    width = (three_bins["end"] - three_bins["start"]).to_numpy()
    weight = width * (bins.strength[bins.bin] + 1 / 255)
    assert signal == pytest.approx(6 * weight / weight.sum() * 500 / width, rel=1e-5)


def test_a_peak_between_two_bins_has_its_density_in_both(three_bins: pd.DataFrame) -> None:
    """500 counts on 250 bases of each of two bins are 500 counts per bin, if both are equally open elsewhere."""
    middle = three_bins["end"][0]
    peak = bins_of(ocrs_of((three_bins["chrom"][0], middle - 250, middle + 250)))
    even = peak._replace(strength=np.full_like(peak.strength, 0.5))
    assert even.ocr.tolist() == [0, 0]
    weight = peak.strength[peak.bin] + 1 / 255
    assert (peak.spread @ np.array([500.0]))[peak.bin] == pytest.approx(2 * 500 * weight / weight.sum(), rel=1e-5)


def test_an_ocr_that_is_in_no_bin_is_one_of_its_own() -> None:
    bins = bins_of(
        ocrs_of(
            ("chr1", 123_000_000, 123_000_400),
            ("chr2", 240_000_000, 240_000_300),
            ("chrM", 5, 300),
            ("KI270728.1", 5, 300),
        )
    )
    assert (bins.row[bins.bin[np.isin(bins.ocr, [0])]] == -1).all()
    assert bins.breadth[bins.bin[bins.ocr == 0]].tolist() == [0]
    assert not np.isin(bins.ocr, [2, 3]).any()


def test_signals_are_ranks() -> None:
    ocrs = load_region_table().bins.iloc[1000:1100].reset_index(drop=True)
    bins = bins_of(ocrs)
    values = np.random.default_rng(0).permutation(100) / 7
    signal = signal_of(bins, values)
    assert np.array_equal(np.argsort(signal[bins.bin]), np.argsort(values))
    assert np.array_equal(signal, signal_of(bins, 1e6 * values))  # the unit does not matter
    assert signal.max() == pytest.approx(1 - 0.5 / 99, abs=1e-6)  # 99 are open
    assert signal[bins.bin][values == 0].tolist() == [0]
    assert (signal_of(bins, np.zeros(100)) == 0).all()


def test_no_more_bins_are_open_than_in_a_sample() -> None:
    """Many cells have counts nearly everywhere."""
    ocrs = load_region_table().bins
    ocrs = ocrs[ocrs["chrom"] == "chr21"].reset_index(drop=True)
    signal = signal_of(bins_of(ocrs), np.arange(1.0, len(ocrs) + 1))
    assert (signal > 0).sum() == pytest.approx(0.15 * len(ocrs), abs=1)


def test_the_lead_is_the_strongest_bin_and_then_the_nearest(three_bins: pd.DataFrame) -> None:
    whole = ocrs_of((three_bins["chrom"][0], three_bins["start"][0], three_bins["end"][2]))
    bins, middle = bins_of(whole), middles(whole)
    signal = np.zeros(len(bins.middle), dtype=np.float32)
    assert (
        bins.middle[lead_bins(bins, signal, middle)[0]]
        == along_genome(three_bins["chrom"], three_bins[["start", "end"]].mean(axis=1).astype(int))[1]
    )
    signal[bins.bin[2]] = 0.5
    assert lead_bins(bins, signal, middle).tolist() == [bins.bin[2]]
    assert lead_bins(bins_of(ocrs_of(("chrM", 1, 9))), signal, np.array([5])).tolist() == [-1]
