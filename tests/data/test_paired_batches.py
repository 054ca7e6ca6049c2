"""Batches of paired cells: what they hold, what they depend on, and what they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from scfound_atac.data import Vocabularies
from scfound_atac.data.paired_batches import PairedBatches, PairedCells
from scfound_atac.data.set_batches import pad

N_CELLS, N_PEAKS, N_GENES = 100, 50, 30
VOCABULARIES = Vocabularies(
    peaks={"<cls>": 7} | {f"chr1-{100 * i}-{100 * i + 50}": i for i in range(N_PEAKS + 1) if i != 7},
    chromosomes={"<cls>": 0, "chr1": 1},
)


@pytest.fixture(scope="module")
def cells() -> PairedCells:
    rng = np.random.default_rng(0)
    peaks = np.setdiff1d(np.arange(N_PEAKS + 1), [7]).astype(np.int32)
    tokens = [np.sort(rng.choice(peaks, n, replace=False)) for n in rng.integers(1, N_PEAKS, N_CELLS)]
    levels = sparse.random(N_CELLS, N_GENES, density=0.3, random_state=0, format="csr")
    levels.data[:] = rng.integers(1, 10, levels.nnz)
    genes = np.arange(N_GENES) + 4
    return PairedCells(tokens, sparse.csr_matrix(levels, dtype=np.uint8), genes, genes % 2, np.arange(N_CELLS) % 3)


def batches(cells: PairedCells, **changes: Any) -> PairedBatches:
    options = {"n_cells": 8, "max_tokens": 1000, "max_genes": 1000}
    return PairedBatches(cells, VOCABULARIES, **(options | changes))


def test_every_cell_once_per_epoch(cells: PairedCells) -> None:
    data = batches(cells)
    assert data.n_batches == 13
    for epoch in range(3):
        rows = np.concatenate([data.rows(13 * epoch + i) for i in range(13)])
        assert len(rows) == 104
        assert set(rows) == set(range(N_CELLS))
    assert not np.array_equal(data.rows(0), data.rows(13))


def test_cells_of_a_batch_are_of_like_length(cells: PairedCells) -> None:
    data = batches(cells)
    padded, random = [], []
    lengths = np.array([len(tokens) for tokens in cells.tokens])
    order = np.random.default_rng(0).permutation(N_CELLS)
    for i in range(12):
        padded.append(np.ptp(lengths[data.rows(i)]))
        random.append(np.ptp(lengths[order[8 * i : 8 * i + 8]]))
    assert np.mean(padded) < 0.5 * np.mean(random)


def test_what_a_batch_holds(cells: PairedCells) -> None:
    data = batches(cells)
    batch = data[3]
    rows = data.rows(3)
    is_peak = batch["is_peak"].numpy()
    assert (batch["peaks"][:, 0] == 7).all()
    np.testing.assert_array_equal(is_peak.sum(1), [1 + len(cells.tokens[row]) for row in rows])
    assert batch["n_tokens"] == is_peak.sum() - len(rows)
    np.testing.assert_array_equal(batch["peak_chromosomes"].numpy() > 0, batch["peaks"].numpy() != 7)
    np.testing.assert_array_equal(batch["batch"], rows % 3)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(batch["peaks"][i][1:][is_peak[i, 1:]], cells.tokens[row])
        there = batch["is_gene"][i].numpy()
        genes, level = batch["genes"][i].numpy()[there], batch["level"][i].numpy()[there]
        expected = cells.levels[row].toarray()[0]
        np.testing.assert_array_equal(level, expected[genes - 4])
        np.testing.assert_array_equal(batch["gene_chromosomes"][i].numpy()[there], genes % 2)
        assert (level > 0).sum() == (level == 0).sum() == min((expected > 0).sum(), (expected == 0).sum())
        assert len(set(genes)) == len(genes)


def test_limits_of_peaks_and_genes(cells: PairedCells) -> None:
    data = batches(cells, max_tokens=10, max_genes=6)
    for i in range(data.n_batches):
        batch, rows = data[i], data.rows(i)
        assert batch["peaks"].shape[1] <= 11
        assert batch["n_tokens"] == sum(min(10, len(cells.tokens[row])) for row in rows)
        assert (batch["is_gene"].sum(1) == 6).all()
        assert ((batch["level"] > 0).sum(1) == 3).all()
        for row, peaks in zip(rows, batch["peaks"].numpy()[:, 1:], strict=True):
            assert set(peaks) - {7} <= set(cells.tokens[row])
    long = int(np.argmax([len(tokens) for tokens in cells.tokens]))
    drawn = {
        tuple(sorted(data[i]["peaks"][data.rows(i) == long][0].tolist())) for i in range(60) if long in data.rows(i)
    }
    assert len(drawn) > 1  # another part each time


def test_a_batch_depends_on_seed_and_number_alone(cells: PairedCells) -> None:
    forward, backward = batches(cells, max_tokens=10), batches(cells, max_tokens=10)
    expected = [forward[i] for i in range(20)]
    for i in reversed(range(20)):
        found = backward[i]
        assert set(found) == set(expected[i])
        assert all(np.array_equal(found[name], expected[i][name]) for name in found)
    assert not np.array_equal(batches(cells, seed=1).rows(0), forward.rows(0))


def test_validation(cells: PairedCells) -> None:
    """The same draws whatever the seed, and a mean over batches that is a mean over cells."""
    data = batches(cells, validation=True)
    other = batches(cells, validation=True, seed=5)
    value, total = np.arange(N_CELLS) ** 2, []
    for i in range(data.n_batches):
        assert all(np.array_equal(data[i][name], other[i][name]) for name in data[i])
        np.testing.assert_array_equal(data[i]["genes"], data[i + data.n_batches]["genes"])
        total.append((data[i]["weight"].numpy() * value[data.rows(i)]).mean())
    assert np.mean(total) == pytest.approx(value.mean(), rel=1e-6)


@pytest.mark.parametrize("validation", [False, True])
def test_parts_of_processes(cells: PairedCells, validation: bool) -> None:
    whole = batches(cells, validation=validation, max_tokens=10)
    parts = [batches(cells, validation=validation, max_tokens=10, rank=rank, world_size=2) for rank in (0, 1)]
    for i in (0, 5, 12):
        expected, found = whole[i], [part[i] for part in parts]
        for name in ("weight", "batch"):
            merged = np.stack([part[name] for part in found], axis=1).ravel()
            np.testing.assert_array_equal(merged, expected[name])
        assert {part["n_tokens"] for part in found} == {expected["n_tokens"]}
        for rank, part in enumerate(found):
            genes = expected["genes"][rank::2][expected["is_gene"][rank::2]]
            np.testing.assert_array_equal(part["genes"][part["is_gene"]], genes)


def test_few_cells(cells: PairedCells) -> None:
    few = cells[np.arange(5)]
    assert batches(few).n_cells == 5
    assert batches(few, world_size=2).n_cells == 4
    assert len(batches(cells[np.array([3])])[0]["weight"]) == 1
    with pytest.raises(ValueError, match="There are 1 cells for 2 processes"):
        batches(cells[np.array([3])], world_size=2)
    with pytest.raises(ValueError, match="must be a multiple of the number of processes"):
        batches(cells, n_cells=7, world_size=2)


def test_checksum(cells: PairedCells) -> None:
    assert cells.checksum() == cells[np.arange(N_CELLS)].checksum()
    assert cells.checksum() != cells[np.arange(N_CELLS)[::-1]].checksum()


def test_pad() -> None:
    padded, is_there = pad([np.array([3, 4]), np.array([5]), np.array([], dtype=np.int64)], 9)
    np.testing.assert_array_equal(padded, [[3, 4], [5, 9], [9, 9]])
    np.testing.assert_array_equal(is_there, [[True, True], [True, False], [False, False]])
