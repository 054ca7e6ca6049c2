from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scfound_atac.inference.peak_sets import measured, peak_sets

N = 600


def sums(rate: np.ndarray, depths, seed: int = 0) -> np.ndarray:
    """Counts of batches of some depth in OCRs, (n_batches, n_ocrs)."""
    rate = rate / rate.sum(axis=1, keepdims=True)
    return np.random.default_rng(seed).poisson(rate * np.array(depths, dtype=float)[:, None]).astype(float)


def rates(n: int = N) -> np.ndarray:
    return np.random.default_rng(1).gamma(1.0, size=n) + 0.02


def test_own_columns_are_recognised() -> None:
    has = np.zeros((2, N), dtype=bool)
    has[0, :400] = has[1, 250:] = True
    found = measured(sums(rates() * has, [30_000, 20_000]))
    assert (found == has).mean() > 0.97


@pytest.mark.parametrize("depths", [(30_000, 30_000), (30_000, 300), (30_000, 20), (300, 20, 5)])
def test_batches_on_the_same_ocrs_measured_all(depths) -> None:
    """Also small ones, in which most OCRs have no counts."""
    counts = sums(np.tile(rates(), (len(depths), 1)), depths)
    found = measured(counts)
    assert found[:, counts.any(axis=0)].mean() > 0.98
    assert peak_sets(places(), counts).region is None


def test_a_small_batch_with_ocrs_of_its_own() -> None:
    """No single OCR of the other batch could tell, as less than one count is expected in each."""
    has = np.zeros((2, N), dtype=bool)
    has[0, :300] = has[1, 300:] = True
    counts = sums(rates() * has, [30_000, 150])
    found = measured(counts)
    assert not found[1, :300].any()
    assert found[1, 300:][counts[1, 300:] > 0].all()


def test_a_batch_without_a_cell_type_measured_its_ocrs() -> None:
    """A fifth of the OCRs are open in a type that the second batch lacks, with little background elsewhere."""
    rate = np.tile(rates(), (2, 1))
    rate[1, : N // 5] *= 0.15
    found = measured(sums(rate, [60_000, 20_000]))
    assert found.mean() > 0.97


def places(n: int = N) -> pd.DataFrame:
    start = 10_000 * np.arange(n)
    return pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 500})


def test_shifted_split_and_merged_ocrs_are_tied() -> None:
    """The second batch has every OCR shifted, every third in two halves, and two as one; it lacks the last hundred."""
    a = places()
    rate = rates()
    rows, values, partner = [], [], []
    for i in range(N - 100):
        start, end = int(a["start"][i]) + 40, int(a["end"][i]) - 30
        if i == 4:
            rows.append(("chr1", start, int(a["end"][5])))
            values.append(rate[4] + rate[5])
            partner.append(4)
        elif i == 5:
            continue
        elif i % 3 == 0:
            rows += [("chr1", start, start + 200), ("chr1", start + 200, end)]
            values += [rate[i] / 2] * 2
            partner += [i, i]
        else:
            rows.append(("chr1", start, end))
            values.append(rate[i])
            partner.append(i)
    b = pd.DataFrame(rows, columns=["chrom", "start", "end"])
    both = pd.concat([a, b], ignore_index=True)
    rate = np.zeros((2, len(both))), np.array(values)
    rate[0][0, :N] = rates()
    rate[0][1, N:] = rate[1]
    counts = sums(rate[0], [100_000, 100_000])
    found = peak_sets(both, counts)
    assert found.region is not None
    open_in_both = (counts[1, N:] > 0) & (counts[0, partner] > 0)
    np.testing.assert_array_equal(found.region[N:][open_in_both], found.region[partner][open_in_both])
    assert found.region[4] == found.region[5] >= 0
    assert (found.region[N - 100 : N] == -1).all()
    assert found.n_regions == len(np.unique(found.region[found.region >= 0]))
    assert found.n_measured[0] == pytest.approx(N, abs=5)
    lost = counts[0, N - 100 : N].sum() / counts[0].sum()
    assert found.fraction_shared[0] == pytest.approx(1 - lost, abs=0.01)
    assert found.fraction_shared[1] > 0.99
    np.testing.assert_array_equal(
        counts @ found.tie, [np.bincount(found.region[found.region >= 0], row[found.region >= 0]) for row in counts]
    )


def test_nothing_in_common() -> None:
    has = np.zeros((2, N), dtype=bool)
    has[0, : N // 2] = has[1, N // 2 :] = True
    found = peak_sets(places(), sums(rates() * has, [30_000, 30_000]))
    assert found.n_regions == 0
    assert (found.region == -1).all()
    np.testing.assert_array_equal(found.fraction_shared, 0)
    assert found.tie.shape == (N, 1)
    assert found.tie.nnz == 0


def test_many_batches_share_what_most_of_them_measured() -> None:
    has = np.random.default_rng(0).random((20, N)) < 0.9
    found = peak_sets(places(), sums(rates() * has, [50_000] * 20))
    n = has.sum(axis=0)
    assert (found.region[n >= 17] >= 0).mean() > 0.95
    assert (found.region[(n <= 14) & (rates() > 0.3)] == -1).all()
