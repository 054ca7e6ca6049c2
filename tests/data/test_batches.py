from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from scfound_atac.data.batches import CorpusBatches
from scfound_atac.data.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(corpus_folder: Path) -> Corpus:
    return Corpus(corpus_folder)


def make(corpus: Corpus, **options: Any) -> CorpusBatches:
    return CorpusBatches(corpus, **{"n_cells": 8, "crop_size": 100, "validation_fraction": 0.2, **options})


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_batch_depends_on_seed_and_number_alone(corpus: Corpus) -> None:
    batches, again = make(corpus), make(corpus)
    expected = [batches[i] for i in range(6)]
    for i in (5, 2, 2, 0):
        assert same(again[i], expected[i])
    assert not same(expected[0], expected[1])
    assert not same(expected[0], make(corpus, seed=1)[0])


def test_workers_read_the_same_batches(corpus: Corpus) -> None:
    batches = make(corpus)
    loader = DataLoader(batches, sampler=range(3, 9), batch_size=None, num_workers=2)
    for i, batch in zip(range(3, 9), loader, strict=True):
        assert same(batch, batches[i])


@pytest.mark.parametrize("crop", ["neighbours", "random"])
def test_batch_is_what_the_files_hold(corpus: Corpus, crop: str) -> None:
    batches = make(corpus, crop=crop, with_labels=True)
    for i in range(12):
        place, batch = batches.place(i), batches[i]
        study = corpus.studies[place.study]
        cells = study.read(0, study.n_cells).toarray()
        np.testing.assert_array_equal(batch["counts"], cells[place.rows][:, place.columns])
        np.testing.assert_array_equal(batch["total"], cells[place.rows].sum(1))
        np.testing.assert_array_equal(batch["label"], corpus.labels[place.study][place.rows])
        ocrs = study.ocrs.iloc[place.columns]
        np.testing.assert_array_equal(batch["start"], ocrs["start"])
        np.testing.assert_array_equal(batch["chromosome"], ocrs["chrom"].str[3:].astype(int))
        assert np.all(np.diff(place.columns) >= 1)
        if crop == "neighbours":
            assert np.all(np.diff(place.columns) == 1)


def test_random_crops_skip_ocrs(corpus: Corpus) -> None:
    batches = make(corpus, crop="random", crop_size=50)
    assert all(np.diff(batches.place(i).columns).max() > 1 for i in range(10))


def test_small_studies_give_more_cells(corpus: Corpus) -> None:
    """Length buckets: about the same number of tokens whatever the OCR set."""
    shapes = {tuple(make(corpus, crop_size=240)[i]["counts"].shape) for i in range(20)}
    assert shapes == {(8, 240), (16, 120)}
    assert {tuple(make(corpus, crop_size=None)[i]["counts"].shape) for i in range(20)} == {(8, 300), (8, 120)}


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_out_the_batch(corpus: Corpus, world_size: int) -> None:
    parts = [make(corpus, rank=rank, world_size=world_size) for rank in range(world_size)]
    for i in range(6):
        expected, found = make(corpus)[i], [part[i] for part in parts]
        assert {len(part["counts"]) for part in found} == {len(expected["counts"]) // world_size}
        for name in ("counts", "total", "label", "seed"):
            assert torch.equal(torch.cat([part[name] for part in found]), expected[name])
        assert all(torch.equal(part["start"], expected["start"]) for part in found)


def test_uneven_split_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="n_cells .8. must be a multiple of the number of processes .3."):
        make(corpus, world_size=3)


def test_held_out_cells_are_never_trained_on(corpus: Corpus) -> None:
    held_out = {0: {*range(56, 70), *range(110, 120)}, 1: set(range(48, 60))}
    for validation in (False, True):
        batches, seen = make(corpus, validation=validation), {0: set(), 1: set()}
        for i in range(200):
            place = batches.place(i)
            seen[place.study] |= set(place.rows.tolist())
        for study, rows in held_out.items():
            everything = set(range(corpus.studies[study].n_cells))
            assert seen[study] == (rows if validation else everything - rows)


def test_validation_batches_do_not_follow_the_seed(corpus: Corpus) -> None:
    assert same(make(corpus, validation=True)[3], make(corpus, validation=True, seed=7)[3])


def test_nothing_held_out_for_validation(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="no cells for validation"):
        make(corpus, validation=True, validation_fraction=0.001)


def test_cells_are_equally_likely(corpus: Corpus) -> None:
    """Also at the ends of files; each cell of a study within five standard deviations of the mean."""
    batches, seen = make(corpus, n_cells=4), Counter()
    for i in range(4000):
        place = batches.place(i)
        if place.study == 0:
            seen.update(place.rows.tolist())
    counts = np.array(list(seen.values()))
    assert len(counts) == 56 + 40
    # blocks of 4 cells: the count of a cell is binomial in blocks, not in cells
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


def test_studies_by_weight(corpus: Corpus) -> None:
    from dataclasses import replace

    heavy = Corpus(corpus.folder)
    heavy.studies = (replace(heavy.studies[0], weight=3.0), heavy.studies[1])
    share = np.mean([make(heavy).place(i).study == 0 for i in range(2000)])
    assert abs(share - 0.75) < 0.05


def test_seeds_of_cells_differ(corpus: Corpus) -> None:
    seeds = torch.cat([make(corpus)[i]["seed"] for i in range(20)])
    assert len(seeds.unique()) == len(seeds)
    assert (seeds >= 0).all()


def test_labels_only_on_request(corpus: Corpus) -> None:
    assert all((make(corpus)[i]["label"] == -1).all() for i in range(5))


def test_factors_follow_the_crop(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def factors(ocrs: Any, n_factors: int, table: Any) -> np.ndarray:
        return np.repeat(ocrs["start"].to_numpy(dtype=np.float32)[:, None], n_factors, axis=1)

    monkeypatch.setattr("scfound_atac.data.batches.region_factors", factors)
    batch = make(corpus, n_factors=3)[0]
    assert torch.equal(batch["factors"], batch["start"].float()[:, None].expand(-1, 3))
