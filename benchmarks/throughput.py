"""Speed and memory of ChromFound's forward pass, and of the selective scan alone.

CPU: tokens (cells x OCRs) per second, the share of this machine's own fp32 matrix-product speed, peak memory, per sequence length. The
matrix product is timed in turn with the forward pass, since machines are shared and their clocks move; the best of both counts.
CUDA: cells per second at 264,533 OCRs, the size of the authors' notebook (4.4 cells/s on an A100).

    python benchmarks/throughput.py --lengths 10000 65536 262144 --device auto
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import torch

from scfound_atac.nn import ChromFoundConfig, ChromFoundNet
from scfound_atac.nn.selective_scan import available_backends, selective_scan

if TYPE_CHECKING:
    from collections.abc import Callable

AUTHORS_OCRS = 264_533
AUTHORS_CELLS_PER_SECOND = 4.4
GEMM_SIZES = ((2048, 512, 512), (4096, 1024, 1024), (2048, 2048, 2048))  # (rows, inner, columns)


def flops_per_token(config: ChromFoundConfig) -> int:
    """Multiplications and additions of matrix products, attention, convolution and scan; not norms and activations."""
    width, low, inner, states = config.d_model, config.d_low, config.expand * config.d_low, config.d_state
    macs = 3 * width * width + 2 * config.window_size * width + width * width  # qkv, scores and values, projection
    macs += 2 * width * config.d_mlp + 2 * width * low  # MLP, down and up
    macs += (
        low * 2 * inner
        + inner * config.d_conv
        + inner * (config.dt_rank + 2 * states)
        + config.dt_rank * inner
        + inner * low
    )
    macs += 3 * inner * states  # decay x step, state update, read-out
    return 2 * (config.n_layers * macs + 2 * width)


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def random_input(net: ChromFoundNet, n_cells: int, length: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse accessibility, and the embedding of random OCRs in genome order."""
    torch.manual_seed(0)
    value = torch.rand(n_cells, length, device=device) * (torch.rand(n_cells, length, device=device) < 0.1)
    chromosome = torch.sort(torch.randint(1, 25, (length,), device=device)).values
    start = torch.randint(0, 200_000_000, (length,), device=device)
    with torch.inference_mode():
        return value, net.embed_ocrs(chromosome, start, start + 500)


class Gemm:
    """Best speed of a square-ish fp32 matrix product seen so far."""

    def __init__(self) -> None:
        self.pairs = [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in GEMM_SIZES]
        self.peak = 0.0

    def measure(self) -> None:
        """Run every size three times."""
        for a, b in self.pairs:
            for _ in range(3):
                elapsed = seconds(lambda a=a, b=b: a @ b)  # type: ignore[misc]
                self.peak = max(self.peak, 2 * a.shape[0] * a.shape[1] * b.shape[1] / elapsed)


def cpu_length(length: int, repeats: int) -> dict[str, float]:
    """One sequence length, batch 1."""
    net, gemm = ChromFoundNet().eval(), Gemm()
    value, ocrs = random_input(net, 1, length, "cpu")
    with torch.inference_mode():
        net.pool(net(value, ocrs))  # compiles
        best = float("inf")
        for _ in range(repeats):
            gemm.measure()
            best = min(best, seconds(lambda: net.pool(net(value, ocrs))))
        gemm.measure()
    # kilobytes on Linux, bytes on macOS
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    flops = flops_per_token(net.config) * length / best
    return {"tokens": length / best, "flops": flops, "peak": gemm.peak, "memory": memory}


def report_cpu(lengths: list[int], repeats: int) -> None:
    """A table row per length; each in its own process, so that peak memory is that length's own."""
    print(
        f"CPU, fp32, batch 1, {torch.get_num_threads()} threads, {flops_per_token(ChromFoundConfig()) / 1e6:.2f} MFLOP per token"
    )
    print(
        f"{'OCRs':>9}  {'tokens/s':>10}  {'s/cell':>7}  {'GFLOP/s':>8}  {'GEMM peak':>9}  {'share':>6}  {'peak memory':>11}"
    )
    for length in lengths:
        command = [sys.executable, __file__, "--one-length", str(length), "--repeats", str(repeats)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{length:>9,}  {row['tokens']:>10,.0f}  {length / row['tokens']:>7.2f}  {row['flops'] / 1e9:>8.0f}  "
            f"{row['peak'] / 1e9:>9.0f}  {row['flops'] / row['peak']:>6.2f}  {row['memory'] / 2**30:>7.2f} GiB"
        )


def step_by_step(
    delta: torch.Tensor, u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """The recurrence as a plain loop over the length."""
    state, outputs = torch.zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        state = torch.exp(step * A) * state + step * B[:, None, :, t] * u[:, :, t, None]
        outputs.append((state * C[:, None, :, t]).sum(-1))
    return torch.stack(outputs, -1)


def report_scan(length: int, repeats: int) -> None:
    """The scan alone at the released size (64 channels, 16 states), batch 1."""
    torch.manual_seed(0)
    u, delta = torch.randn(2, 1, 64, length)
    B, C = torch.randn(2, 1, 16, length)
    delta, A = delta.abs() * 0.1, -torch.rand(64, 16) * 4
    best = {"loop": float("inf"), "torch": float("inf"), "numba": float("inf")}
    with torch.inference_mode():
        selective_scan(u, delta, A, B, C, backend="numba")  # compiles
        for _ in range(repeats):
            best["loop"] = min(best["loop"], seconds(lambda: step_by_step(delta, u, A, B, C)))
            best["torch"] = min(best["torch"], seconds(lambda: selective_scan(u, delta, A, B, C, backend="torch")))
            for _ in range(20):  # short, so that one of them is not interrupted
                best["numba"] = min(best["numba"], seconds(lambda: selective_scan(u, delta, A, B, C, backend="numba")))
    print(f"\nSelective scan, batch 1, 64 channels, 16 states, {length:,} steps")
    for name, elapsed in best.items():
        print(
            f"{name:>9}  {elapsed / length * 1e6:>8.3f} us/step  {best['loop'] / elapsed:>6.0f} x the step-by-step loop"
        )


def report_cuda(repeats: int) -> None:
    """Cells per second per batch size, precision and scan back end."""
    from unittest.mock import patch

    print(
        f"\n{torch.cuda.get_device_name()}, {AUTHORS_OCRS:,} OCRs; authors on an A100: {AUTHORS_CELLS_PER_SECOND} cells/s"
    )
    print(f"{'scan':>6}  {'precision':>9}  {'batch':>5}  {'cells/s':>8}  {'vs authors':>10}  {'memory':>10}")
    net = ChromFoundNet().eval().cuda()
    for backend in [name for name in available_backends() if name != "numba"]:
        for dtype in (torch.float32, torch.bfloat16):
            for batch in (1, 2, 4, 8, 16):
                value, ocrs = random_input(net, batch, AUTHORS_OCRS, "cuda")
                torch.cuda.reset_peak_memory_stats()

                def forward(value: torch.Tensor = value, ocrs: torch.Tensor = ocrs) -> None:
                    net.pool(net(value, ocrs))
                    torch.cuda.synchronize()

                def scan(*args: torch.Tensor, _backend: str = backend, **options: bool) -> torch.Tensor:
                    return selective_scan(*args, backend=_backend, **options)  # type: ignore[arg-type]

                with (
                    torch.inference_mode(),
                    torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32),
                    patch("scfound_atac.nn.chromfound.selective_scan", scan),
                ):
                    try:
                        forward()
                        speed = batch / min(seconds(forward) for _ in range(repeats))
                    except torch.cuda.OutOfMemoryError:
                        print(f"{backend:>6}  {str(dtype)[6:]:>9}  {batch:>5}  out of memory")
                        break
                memory, ratio = torch.cuda.max_memory_allocated() / 2**30, speed / AUTHORS_CELLS_PER_SECOND
                print(
                    f"{backend:>6}  {str(dtype)[6:]:>9}  {batch:>5}  {speed:>8.2f}  {ratio:>8.1f} x  {memory:>6.1f} GiB"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[10_000, 65_536, 262_144])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one-length", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_length:
        print(json.dumps(cpu_length(arguments.one_length, arguments.repeats)))
        return
    if arguments.device in ("auto", "cpu"):
        report_cpu(arguments.lengths, arguments.repeats)
        report_scan(length=16_384, repeats=arguments.repeats)
    if torch.cuda.is_available() and arguments.device != "cpu":
        report_cuda(arguments.repeats)
    elif arguments.device != "cpu":
        print("\nNo CUDA device here: GPU speed not measured.")


if __name__ == "__main__":
    main()
