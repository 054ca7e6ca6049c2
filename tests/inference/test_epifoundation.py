"""Buckets of cells, and vectors that do not depend on them."""

from __future__ import annotations

import numpy as np
import pytest

from scfound_atac.hub import Checkpoint
from scfound_atac.inference.epifoundation import PeakSetRunner, buckets


@pytest.mark.parametrize(("max_cells", "max_tokens"), [(1000, 10**9), (7, 10**9), (1000, 500), (3, 50)])
def test_buckets_hold_every_cell_once(max_cells: int, max_tokens: int) -> None:
    lengths = np.random.default_rng(0).geometric(0.02, size=300)
    found = list(buckets(lengths, max_cells, max_tokens))
    assert sorted(np.concatenate(found)) == list(range(300))
    for rows in found:
        assert len(rows) <= max_cells
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= max_tokens
        assert lengths[rows].min() >= 0.9 * lengths[rows].max()


@pytest.fixture(scope="module")
def checkpoint(make_epifoundation) -> Checkpoint:
    net, vocabularies = make_epifoundation()
    return Checkpoint(net, "tiny", "", model_class="EpiFoundation", vocabularies=vocabularies)


def test_batches_do_not_matter(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(0)
    cells = [
        np.sort(rng.choice(checkpoint.vocabularies.ocrs["id"], n, replace=False)) for n in rng.integers(0, 150, 40)
    ]
    cells[3] = cells[3][:0]
    together = PeakSetRunner(checkpoint, device="cpu")(cells)
    assert np.isfinite(together).all()
    for batch_size in (1, 7):
        np.testing.assert_allclose(
            PeakSetRunner(checkpoint, device="cpu", batch_size=batch_size)(cells), together, atol=1e-5
        )
    runner = PeakSetRunner(checkpoint, device="cpu")
    np.testing.assert_allclose(np.concatenate([runner([cell]) for cell in cells]), together, atol=1e-5)
    runner.max_tokens = 300
    np.testing.assert_allclose(runner(cells[::-1])[::-1], together, atol=1e-5)


def test_no_cells(checkpoint: Checkpoint) -> None:
    assert PeakSetRunner(checkpoint, device="cpu")([]).shape == (0, 16)


def test_bf16_is_near(checkpoint: Checkpoint) -> None:
    cells = [checkpoint.vocabularies.ocrs["id"].to_numpy()[:n] for n in (5, 50)]
    exact = PeakSetRunner(checkpoint, device="cpu")(cells)
    np.testing.assert_allclose(PeakSetRunner(checkpoint, device="cpu", precision="bf16")(cells), exact, atol=0.1)


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="no vocabularies"):
        PeakSetRunner(Checkpoint(None, "x", ""), device="cpu")
