from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scfound_atac.train.history import joined_history
from scfound_atac.train.lightning import CellCrops, CellDataModule

N_CELLS, N_OCRS = 50, 30
# Entry (i, j) is 100 i + j + 1, so that a value tells its cell and its OCR.
TABLE = (100 * np.arange(N_CELLS)[:, None] + np.arange(N_OCRS) + 1).astype(np.float32)
TOTAL = TABLE.sum(1) + 7  # of which `TABLE` may be a part


@pytest.fixture
def values() -> sparse.csr_matrix:
    return sparse.csr_matrix(TABLE)


def batches(module: CellDataModule, epoch: int = 0) -> list[dict]:
    module.trainer = SimpleNamespace(current_epoch=epoch)
    return list(module.train_dataloader())


def cells_of(batch: dict) -> list[int]:
    return (batch["value"][:, 0] // 100).int().tolist()


@pytest.mark.parametrize(("train_size", "n_train"), [(0.9, 45), (0.5, 25), (1.0, 50), (0.001, 1), (0.99, 50)])
def test_split(values: sparse.csr_matrix, train_size: float, n_train: int) -> None:
    module = CellDataModule(values, TOTAL, batch_size=8, train_size=train_size)
    assert (module.n_train, module.n_val) == (n_train, N_CELLS - n_train)
    assert sorted([*module.train_idx, *module.val_idx]) == list(range(N_CELLS))


def test_split_follows_the_seed(values: sparse.csr_matrix) -> None:
    first, again, other = (CellDataModule(values, TOTAL, batch_size=8, train_size=0.7, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.val_idx, again.val_idx)
    assert not np.array_equal(first.val_idx, other.val_idx)


def test_epoch_sees_every_training_cell_once(values: sparse.csr_matrix) -> None:
    module = CellDataModule(values, TOTAL, batch_size=8, train_size=0.7)
    seen = batches(module)
    assert [len(batch["value"]) for batch in seen] == [8, 8, 8, 8, 3]
    assert sorted(cell for batch in seen for cell in cells_of(batch)) == module.train_idx.tolist()


def test_validation_batches_are_the_same_each_time(values: sparse.csr_matrix) -> None:
    module = CellDataModule(values, TOTAL, batch_size=4, train_size=0.7, crop_size=7)
    first, again = list(module.val_dataloader()), list(module.val_dataloader())
    assert [cell for batch in first for cell in cells_of(batch)] == module.val_idx.tolist()
    for a, b in zip(first, again, strict=True):
        assert a["first"] == b["first"]
        assert torch.equal(a["value"], b["value"])


def test_no_validation_cells(values: sparse.csr_matrix) -> None:
    assert CellDataModule(values, TOTAL, batch_size=8, train_size=1.0).val_dataloader() == []


@pytest.mark.parametrize(("crop_size", "width"), [(None, N_OCRS), (7, 7), (1, 1), (N_OCRS, N_OCRS), (1000, N_OCRS)])
def test_crops_are_neighbours_within_the_genome(values: sparse.csr_matrix, crop_size: int | None, width: int) -> None:
    module = CellDataModule(values, TOTAL, batch_size=8, crop_size=crop_size)
    for epoch in range(5):
        for batch in batches(module, epoch):
            first = batch["first"]
            assert 0 <= first <= N_OCRS - width
            assert batch["value"].dtype == torch.float32
            expected = TABLE[cells_of(batch)][:, first : first + width]
            np.testing.assert_array_equal(batch["value"].numpy(), expected)


def test_crops_reach_both_ends(values: sparse.csr_matrix) -> None:
    crops = CellCrops(values, TOTAL, crop_size=25)
    firsts = set()
    for crops.epoch in range(60):
        firsts.add(crops[[0, 1]]["first"])
    assert firsts == set(range(6))


def test_same_seed_same_batches(values: sparse.csr_matrix) -> None:
    def run(seed: int, epoch: int) -> list:
        module = CellDataModule(values, TOTAL, batch_size=8, crop_size=7, seed=seed)
        return [(batch["first"], batch["value"].tolist()) for batch in batches(module, epoch)]

    assert run(0, 0) == run(0, 0)
    assert run(0, 3) == run(0, 3)
    assert run(0, 0) != run(0, 1)
    assert run(0, 0) != run(1, 0)


def test_total_is_that_of_the_whole_cell(values: sparse.csr_matrix) -> None:
    module = CellDataModule(values, TOTAL, batch_size=8, crop_size=7, train_size=0.7)
    for batch in batches(module):
        np.testing.assert_array_equal(batch["total"].numpy(), TOTAL[cells_of(batch)])


@pytest.mark.parametrize("shuffle", [True, False])
def test_split_into_three(values: sparse.csr_matrix, shuffle: bool) -> None:
    module = CellDataModule(values, TOTAL, batch_size=8, train_size=0.6, validation_size=0.3, shuffle_set_split=shuffle)
    parts = [module.train_idx, module.val_idx, module.test_idx]
    assert [len(part) for part in parts] == [30, 15, 5]
    assert sorted(np.concatenate(parts)) == list(range(N_CELLS))
    assert (list(module.val_idx) == list(range(15))) != shuffle


def test_last_batch(values: sparse.csr_matrix) -> None:
    def sizes(batch_size: int) -> list[int]:
        module = CellDataModule(values, TOTAL, batch_size=batch_size, train_size=0.7, drop_last=True)
        return [len(batch["value"]) for batch in batches(module)]

    assert sizes(8) == [8, 8, 8, 8]
    assert sizes(100) == [35]  # there is always a batch


def table(name: str, epochs: list[int]) -> pd.DataFrame:
    return pd.DataFrame({name: np.asarray(epochs, dtype=object)}, index=pd.Index(epochs, name="epoch"))


def test_history_is_joined() -> None:
    before = {"a": table("a", [0, 1, 2]), "b": table("b", [1])}
    further = joined_history(before, {"a": table("a", [0, 1]), "c": table("c", [1])}, resumed=False)
    assert {name: list(x.index) for name, x in further.items()} == {"a": [0, 1, 2, 3, 4], "b": [1], "c": [4]}
    resumed = joined_history(before, {"a": table("a", [2, 3]), "c": table("c", [3])}, resumed=True)
    assert {name: list(x.index) for name, x in resumed.items()} == {"a": [0, 1, 2, 3], "b": [1], "c": [3]}
    assert all(x.index.name == "epoch" for x in (*further.values(), *resumed.values()))
    assert list(before["a"].index) == [0, 1, 2]
    assert joined_history(None, {}, resumed=False) == {}
