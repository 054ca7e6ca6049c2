"""EpiFoundation on a CPU: cells in buckets of like length, against the same network padded to the longest cell of the data set.

A small network with random weights reads the same cells both ways; the time is that of the network alone, the best of some rounds taken in
turn, since machines are shared. Depths are those of a data set, or, without one, log-normal with the skew of bone-marrow cells.

    python benchmarks/epifoundation_cpu.py --data bone_marrow_atac.h5ad
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from scfound_atac.data import Vocabularies
from scfound_atac.hub import Checkpoint
from scfound_atac.inference.epifoundation import PeakSetRunner
from scfound_atac.nn import EpiFoundationConfig, EpiFoundationNet

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MEDIAN, SIGMA = 147, 0.53  # open OCRs of 12,230 bone-marrow cells: their median, and the spread of the logarithm


def depths(path: str | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """Open OCRs of every cell of the data set, and thereby its longest cell."""
    if path is None:
        return np.maximum(rng.lognormal(np.log(MEDIAN), SIGMA, 12_230).astype(np.int64), 1)
    import anndata as ad

    return np.diff(ad.read_h5ad(path).X.tocsr().indptr).astype(np.int64)


def make_checkpoint(n_peaks: int, d_model: int, n_layers: int) -> Checkpoint:
    names = [f"chr{1 + i % 22}-{1000 * i}-{1000 * i + 500}" for i in range(n_peaks)]
    special = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}
    vocabularies = Vocabularies(
        peaks=special | {name: i for i, name in enumerate(names, start=4)},
        chromosomes=special | {f"chr{i}": i + 3 for i in range(1, 23)},
    )
    torch.manual_seed(0)
    config = EpiFoundationConfig(
        n_peaks=n_peaks + 4, n_chromosomes=26, d_model=d_model, n_layers=n_layers, d_feed_forward=2 * d_model
    )
    return Checkpoint(
        EpiFoundationNet(config).eval(), "random", "", model_class="EpiFoundation", vocabularies=vocabularies
    )


def padded(runner: PeakSetRunner, cells: list[NDArray[np.int64]], length: int) -> NDArray[np.float32]:
    """The same cells in the order in which they come, every one padded to `length` tokens."""
    vectors, n = [], max(1, runner.max_tokens // length)
    for first in range(0, len(cells), n):
        batch = cells[first : first + n]
        peaks, is_token = np.full((len(batch), length), 0), np.zeros((len(batch), length), dtype=bool)
        for row, tokens in enumerate(batch):
            peaks[row, 0] = runner.vocabularies.peaks["<cls>"]
            peaks[row, 1 : 1 + len(tokens)] = tokens
            is_token[row, : 1 + len(tokens)] = True
        chromosomes = runner.vocabularies.peak_chromosomes[peaks]
        with torch.inference_mode():
            inputs = (torch.from_numpy(x) for x in (peaks, chromosomes, is_token))
            vectors.append(runner.net(*inputs).numpy())
    return np.concatenate(vectors)


def timed(function: Callable[[], NDArray[np.float32]]) -> tuple[float, NDArray[np.float32]]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="h5ad file of cells x OCRs")
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rng = np.random.default_rng(0)
    n_open = depths(args.data, rng)
    longest = int(n_open.max())
    checkpoint = make_checkpoint(10 * longest, args.d_model, args.layers)
    peaks = checkpoint.vocabularies.ocrs["id"].to_numpy()  # type: ignore[union-attr]
    cells = [np.sort(rng.choice(peaks, n, replace=False)) for n in rng.choice(n_open, args.cells, replace=False)]
    runner = PeakSetRunner(checkpoint, device="cpu")

    ways = {"padded": lambda: padded(runner, cells, longest + 1), "buckets": lambda: runner(cells)}
    best, results = dict.fromkeys(ways, np.inf), {}
    for _ in range(args.rounds):
        for name, way in ways.items():
            seconds, results[name] = timed(way)
            best[name] = min(best[name], seconds)

    print(f"CPU, {args.threads} thread(s), fp32; {args.layers} layers of width {args.d_model}, random weights")
    print(f"open OCRs per cell: median {np.median(n_open):.0f}, mean {n_open.mean():.0f}, longest {longest}")
    for name, seconds in best.items():
        print(f"{name:>8} {seconds:8.2f} s {args.cells / seconds:8.1f} cells/s")
    print(
        f"faster by {best['padded'] / best['buckets']:.1f}; largest difference of a vector entry "
        f"{np.abs(results['padded'] - results['buckets']).max():.1e}"
    )


if __name__ == "__main__":
    main()
