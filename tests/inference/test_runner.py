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
    return Runner(checkpoint, ocrs, **({"device": "cpu"} | options))(values)


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


# On a GPU, and with its memory

# Convolutions of a GPU multiply with ten bits (TF32) unless they are told not to.
GPU_CLOSE = 5e-3


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Makes a forward pass of more than `most` cells fail as on a GPU; the sizes that were tried."""
    tried, forward = [], Runner._run

    def run_if_it_fits(self: Runner, values: torch.Tensor, *, bf16: bool) -> torch.Tensor:
        tried.append(len(values))
        if len(values) > most:
            msg = "CUDA out of memory."
            raise torch.cuda.OutOfMemoryError(msg)
        return forward(self, values, bf16=bf16)

    monkeypatch.setattr(Runner, "_run", run_if_it_fits)
    return tried


def test_batches_are_halved_until_they_fit(checkpoint, ocrs, values, monkeypatch, caplog) -> None:
    expected = run(checkpoint, ocrs, values, batch_size=16)
    tried = short_of_memory(monkeypatch, 5)
    runner = Runner(checkpoint, ocrs, device="cpu", batch_size=16)
    with caplog.at_level("INFO", logger="scfound_atac"):
        found = runner(values)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert tried == [16, 8, 4, 4, 4, 4, 4, 4]  # 24 cells, none of them twice
    assert runner.batch_size == 4
    assert "Not enough GPU memory: using 4 cells per batch from here on" in caplog.text
    runner(values[:8])
    assert tried[8:] == [4, 4]  # what fits is remembered


def test_memory_that_is_short_in_the_middle(checkpoint, ocrs, values, monkeypatch) -> None:
    """Another process took the memory after the first batch: cells that are done are kept."""
    expected = run(checkpoint, ocrs, values, batch_size=16)
    calls, forward = [], Runner._run

    def run_once_short(self: Runner, values: torch.Tensor, *, bf16: bool) -> torch.Tensor:
        calls.append(len(values))
        if len(calls) == 2:
            msg = "CUDA out of memory."
            raise torch.cuda.OutOfMemoryError(msg)
        return forward(self, values, bf16=bf16)

    monkeypatch.setattr(Runner, "_run", run_once_short)
    found = Runner(checkpoint, ocrs, device="cpu", batch_size=16)(values)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert calls == [16, 8, 8]


def test_one_cell_that_does_not_fit(checkpoint, ocrs, values, monkeypatch) -> None:
    tried = short_of_memory(monkeypatch, 0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Runner(checkpoint, ocrs, device="cpu", batch_size=8)(values)
    assert tried == [8, 4, 2, 1]


@pytest.fixture
def little_memory():
    """At most 200 MiB of the GPU."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + 200 * 2**20) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.gpu
def test_a_full_gpu(checkpoint, little_memory, caplog) -> None:
    """256 cells of 4,000 OCRs take about a gigabyte, a cell a few megabytes."""
    rng = np.random.default_rng(0)
    start = 10_000 * np.arange(4_000)
    many = pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 500})
    cells = sparse.random(256, 4_000, 0.05, "csr", dtype=np.float32, random_state=rng)
    runner = Runner(checkpoint, many, device="cuda", precision="fp32", batch_size=256)
    with caplog.at_level("INFO", logger="scfound_atac"):
        found = runner(cells)
    assert "Not enough GPU memory" in caplog.text
    assert 1 <= runner.batch_size < 256
    expected = Runner(checkpoint, many, device="cpu", batch_size=8)(cells[-16:])
    np.testing.assert_allclose(found[-16:], expected, atol=GPU_CLOSE * np.abs(expected).max())


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["hidden_mean", "reconstruction", "cell_vector"])
def test_gpu_equals_cpu(checkpoint, ocrs, values, pooling) -> None:
    expected = run(checkpoint, ocrs, values, pooling=pooling)
    found = run(checkpoint, ocrs, values, pooling=pooling, device="cuda", precision="fp32")
    np.testing.assert_allclose(found, expected, atol=GPU_CLOSE * np.abs(expected).max())


@pytest.mark.gpu
def test_bf16_of_a_gpu_is_near(checkpoint, ocrs, values) -> None:
    exact, rounded = (
        run(checkpoint, ocrs, values, precision=p, device="cuda", pooling="reconstruction") for p in ("fp32", "bf16")
    )
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.gpu
def test_auto_precision_keeps_its_promise(checkpoint, ocrs, values) -> None:
    """bf16 is taken only if the vector of each cell of the first batch agrees with that of fp32."""
    runner = Runner(checkpoint, ocrs, device="cuda", batch_size=len(np.diff(values.indptr)))
    if not torch.cuda.is_bf16_supported():
        assert runner.bf16 is False
        return
    assert runner.bf16 is None
    found = runner(values)
    assert runner.bf16 in (True, False)
    exact = run(checkpoint, ocrs, values, device="cuda", precision="fp32")
    if not runner.bf16:
        np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())
    a, b = found - found.mean(0), exact - exact.mean(0)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    assert cosine.min() >= 0.998  # 0.999 is asked for; atomics of a GPU add in another order each time


@pytest.mark.gpu
def test_a_network_goes_from_one_device_to_the_other(checkpoint, ocrs, values) -> None:
    expected = run(checkpoint, ocrs, values)
    run(checkpoint, ocrs, values, device="cuda")
    np.testing.assert_allclose(run(checkpoint, ocrs, values, device="cpu"), expected, atol=1e-6)
