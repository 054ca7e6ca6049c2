from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scfound_atac.genome import RegionTable, load_region_table


def _table() -> RegionTable:
    bins = pd.DataFrame({"chrom": ["chr1", "chr1", "chr2"], "start": [100, 600, 100], "end": [600, 1100, 600]})
    quantised = np.array([[10, 20, -30], [1, 2, 3]], dtype=np.int8)
    step = np.array([0.5, 2.0], dtype=np.float32)
    return RegionTable(bins, quantised, step, np.array([5, 10, 20], dtype=np.uint8), 20)


def _ocrs(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


def test_factors_are_the_mean_over_overlapping_bins_weighted_by_bases() -> None:
    known = _table().lookup(_ocrs(("chr2", 0, 700), ("chr1", 500, 900), ("chr1", 2000, 2500), ("chr1", 599, 600)))
    assert known.factors[0] == pytest.approx([-15.0, 6.0])
    assert known.factors[1] == pytest.approx([0.25 * 5 + 0.75 * 10, 0.25 * 2 + 0.75 * 4])  # 100 and 300 bases
    assert known.factors[3] == pytest.approx([5.0, 2.0])
    assert known.openness == pytest.approx([1.0, 0.25 * 0.25 + 0.75 * 0.5, 0.0, 0.25])
    assert known.found.tolist() == [True, True, False, True]


def test_an_unknown_region_has_zero_factors() -> None:
    known = _table().lookup(_ocrs(("chr1", 1100, 1200), ("chr9", 0, 10)))
    assert not known.factors.any()
    assert not known.found.any()


def test_features_add_openness_and_found() -> None:
    known = _table().lookup(_ocrs(("chr1", 100, 600), ("chr3", 5, 6)))
    assert known.features.shape == (2, _table().n_features)
    assert known.features[:, :2] == pytest.approx(known.factors)
    assert known.features[:, 3].tolist() == [1.0, 0.0]
    assert known.features[0, 2] > known.features[1, 2]


def test_order_of_the_ocrs_and_chromosome_naming_do_not_matter() -> None:
    ocrs = _ocrs(("chr1", 500, 900), ("chr2", 0, 700), ("chr1", 0, 150))
    known = _table().lookup(ocrs)
    turned = _table().lookup(ocrs.iloc[::-1].assign(chrom=["1", "2", "1"]))
    assert np.array_equal(turned.features[::-1], known.features)


def test_save_and_load(tmp_path) -> None:
    table = _table()
    table.save(tmp_path / "table.npz")
    again = RegionTable.load(tmp_path / "table.npz")
    pd.testing.assert_frame_equal(again.bins, table.bins, check_dtype=False)
    assert np.array_equal(again.quantised, table.quantised)
    assert np.array_equal(again.step, table.step)
    assert (again.n_biosamples, again.n_factors) == (20, 2)


def test_another_file_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="not a region table: it has no bins_per_chromosome"):
        RegionTable.load(tmp_path / "other.npz")


def test_the_bundled_table_is_small_and_whole() -> None:
    from scfound_atac.genome.regions import bundled_table

    table = load_region_table()
    assert bundled_table().stat().st_size < 20e6
    assert len(table.bins) == table.quantised.shape[1] == len(table.n_open) > 1_000_000
    assert table.n_open.min() >= 5
    assert (table.bins["end"] > table.bins["start"]).all()
    assert load_region_table() is table


def test_neighbours_in_factor_space_are_open_together(data_dir) -> None:
    """Factors stand for the biosamples: regions with the nearest factors are open in more of the same ones than any others."""
    import anndata as ad

    table = load_region_table()
    biosamples = ad.read_h5ad(data_dir / "biosamples.h5ad", backed="r")
    rows = np.sort(np.random.default_rng(0).choice(biosamples.n_vars, 400, replace=False))
    is_open = (biosamples[:, rows].to_memory().X.toarray() > 0).astype(float)
    biosamples.file.close()
    factors = table.lookup(biosamples.var.iloc[rows][["chrom", "start", "end"]].reset_index(drop=True)).factors
    both = is_open.T @ is_open
    size = is_open.sum(axis=0)
    jaccard = both / (size[:, None] + size - both)
    factors /= np.linalg.norm(factors, axis=1, keepdims=True)
    similarity = factors @ factors.T - 2 * np.eye(len(rows))
    nearest = jaccard[np.arange(len(rows)), similarity.argmax(axis=1)].mean()
    anyone = jaccard[~np.eye(len(rows), dtype=bool)].mean()
    assert nearest > 2 * anyone
