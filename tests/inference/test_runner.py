from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scfound_atac.genome import genome_order
from scfound_atac.hub import Checkpoint
from scfound_atac.inference.chromfound import Runner


def run(checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix, **options) -> np.ndarray:
    return Runner(checkpoint, ocrs, device="cpu", **options)(values)


@pytest.mark.parametrize("pooling", ["hidden_mean", "reconstruction"])
def test_equals_the_network(
    checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix, pooling: str
) -> None:
    order = genome_order(ocrs)
    columns = ocrs.iloc[order]
    net = checkpoint.net
    with torch.inference_mode():
        ids = torch.from_numpy(checkpoint.chromosome_ids(columns["chrom"].to_numpy()))
        places = net.embed_ocrs(ids, torch.tensor(columns["start"].to_numpy()), torch.tensor(columns["end"].to_numpy()))
        hidden = net(torch.from_numpy(values.toarray()[:, order]), places)
        expected = net.pool(hidden) if pooling == "hidden_mean" else net.reconstruct(hidden)
    runner = Runner(checkpoint, ocrs, pooling=pooling, device="cpu", batch_size=len(hidden))
    np.testing.assert_array_equal(runner.order, order)
    np.testing.assert_allclose(runner(values), expected.numpy(), atol=1e-5)
    assert np.ptp(runner(values), axis=0).max() > 1e-3  # cells differ, so the comparisons of this file can fail


@pytest.mark.parametrize("batch_size", [1, 5, 24, 1000, np.int64(7), "auto"])
def test_batch_size_does_not_show(
    checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix, batch_size
) -> None:
    expected = run(checkpoint, ocrs, values, batch_size=24)
    np.testing.assert_allclose(run(checkpoint, ocrs, values, batch_size=batch_size), expected, atol=1e-5)


def test_column_order_does_not_show(checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix) -> None:
    columns = np.random.default_rng(2).permutation(len(ocrs))
    found = run(checkpoint, ocrs.iloc[columns], values[:, columns])
    np.testing.assert_allclose(found, run(checkpoint, ocrs, values), atol=1e-6)


def test_unsorted_rows(checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix) -> None:
    backwards = sparse.csr_matrix(values[:, ::-1])[:, ::-1].tocsr()
    np.testing.assert_array_equal(run(checkpoint, ocrs, backwards), run(checkpoint, ocrs, values))


def test_unknown_chromosomes_are_left_out(
    checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix, caplog
) -> None:
    foreign = pd.DataFrame({"chrom": ["chrM", "GL000194.1"], "start": [100, 900], "end": [600, 1400]})
    more = pd.concat([foreign, ocrs], ignore_index=True)
    wide = sparse.hstack([sparse.csr_matrix(np.full((values.shape[0], 2), 9.0, dtype=np.float32)), values]).tocsr()
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        runner = Runner(checkpoint, more, device="cpu")
    assert "2 of 72 OCRs are left out" in caplog.text
    assert "chrM, GL000194.1" in caplog.text
    np.testing.assert_array_equal(runner.order, genome_order(ocrs) + 2)
    np.testing.assert_array_equal(runner(wide), run(checkpoint, ocrs, values))


def test_only_unknown_chromosomes(checkpoint: Checkpoint, ocrs: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="None of the 70 OCRs lies on a chromosome the model knows"):
        Runner(checkpoint, ocrs.assign(chrom="chrM"), device="cpu")


def test_no_cells_and_empty_cells(checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix) -> None:
    assert run(checkpoint, ocrs, values[:0]).shape == (0, len(ocrs))
    empty = run(checkpoint, ocrs, sparse.csr_matrix((3, len(ocrs)), dtype=np.float32))
    assert np.isfinite(empty).all()
    np.testing.assert_allclose(empty[0], empty[2], atol=1e-6)


def test_bf16_is_near(checkpoint: Checkpoint, ocrs: pd.DataFrame, values: sparse.csr_matrix) -> None:
    exact, rounded = (run(checkpoint, ocrs, values, precision=p, pooling="reconstruction") for p in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_auto_precision_on_cpu_is_fp32(checkpoint: Checkpoint, ocrs: pd.DataFrame) -> None:
    assert Runner(checkpoint, ocrs, device="cpu").bf16 is False


def test_a_network_in_training_mode_runs_in_evaluation_mode(checkpoint: Checkpoint, ocrs: pd.DataFrame, values) -> None:
    expected = run(checkpoint, ocrs, values)
    checkpoint.net.train()
    np.testing.assert_array_equal(run(checkpoint, ocrs, values), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "Unknown pooling 'max'"),
        ({"precision": "fp16"}, "Unknown precision 'fp16'"),
        ({"device": "quantum"}, "Unknown device 'quantum'"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"batch_size": -3}, "batch_size must be a positive integer"),
        ({"batch_size": 2.5}, "batch_size must be a positive integer"),
        ({"batch_size": "all"}, "batch_size must be a positive integer"),
    ],
    ids=str,
)
def test_unknown_options(checkpoint: Checkpoint, ocrs: pd.DataFrame, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Runner(checkpoint, ocrs, **{"device": "cpu", **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_here(checkpoint: Checkpoint, ocrs: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="torch sees no CUDA GPU"):
        Runner(checkpoint, ocrs, device="cuda")
    assert Runner(checkpoint, ocrs, device="auto").device.type == "cpu"
