"""Models that one generation of the stack saved are opened by the other; `tests/fixtures/make_stacks.py` made them with each."""

from __future__ import annotations

import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scfound_atac.model import ChromFound, EpiFoundation, RegionSet

SAVED = Path(__file__).parents[1] / "fixtures" / "stacks"
STACKS = sorted(path.name for path in SAVED.iterdir() if path.is_dir())
CLASSES = {"chromfound": ChromFound, "epifoundation": EpiFoundation, "region_set": RegionSet}
TRAIN = {"batch_size": 10, "accelerator": "cpu", "devices": 1}


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")


def unpack(stack: str, name: str, folder: Path) -> Path:
    with tarfile.open(SAVED / stack / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def vectors(model: Any, *cells: Any) -> np.ndarray:
    options = {"n_components": None} if isinstance(model, ChromFound) else {}
    return model.get_latent_representation(*cells, **options)


def test_there_is_another_stack() -> None:
    own = "scvi_" + ".".join(version("scvi-tools").split(".")[:2])
    assert [stack for stack in STACKS if stack != own]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", CLASSES)
def test_saved_by_another_stack(stack: str, name: str, tmp_path: Path) -> None:
    """With its cells and its registry; it says the same of them, can be trained further, and be the reference of a query."""
    folder, cls = unpack(stack, name, tmp_path), CLASSES[name]
    with np.load(SAVED / stack / "vectors.npz") as file:
        expected = file[name]
    model = cls.load(folder, None, "cpu")
    np.testing.assert_allclose(vectors(model), expected, rtol=1e-4, atol=1e-5)
    assert list(model.get_state_registry("batch").categorical_mapping) == ["ann", "bob"]
    assert dict(model.summary_stats) | {"n_batch": 2, "n_labels": 2, "n_cells": 30} == dict(model.summary_stats)
    assert cls.load_registry(folder)["scvi_version"].startswith(stack.removeprefix("scvi_"))
    query = cls.load_query_data(model.adata.copy(), folder, accelerator="cpu")
    np.testing.assert_allclose(vectors(query), expected, rtol=1e-4, atol=1e-5)
    model.train(1, **TRAIN)
    assert np.isfinite(model.history["validation_loss"].to_numpy()).all()
    bare = cls.load(folder, False)
    np.testing.assert_allclose(vectors(bare, query.adata), expected, rtol=1e-4, atol=1e-5)
