"""Speed of pretraining: tokens per second forward, backward and update, and what a second process brings.

CPU: ChromFound at several crop lengths in fp32, beside this machine's own fp32 matrix-product speed, timed in turn. A backward pass is
counted as two forward passes. Then one process against two (gloo), each with one thread and the same number of cells, so that twice the
speed is the most there is to gain.
CUDA, if present: the same lengths in bf16, with activations kept and computed again.

    python benchmarks/training.py --lengths 2048 8192 32768
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from scfound_atac.nn import ChromFoundConfig, ChromFoundNet
from scfound_atac.nn.objectives import Objectives
from throughput import Gemm, flops_per_token

N_FACTORS = 50
PASSES = 3  # one forward, two in the backward pass


def batch_of(n_cells: int, length: int, device: str) -> dict[str, torch.Tensor]:
    """Cells with five per cent of their OCRs open."""
    generator = torch.Generator().manual_seed(0)
    counts = (torch.rand(n_cells, length, generator=generator) < 0.05).int()
    start = torch.arange(length) * 5_000
    batch = {
        "chromosome": torch.ones(length, dtype=torch.long),
        "start": start,
        "end": start + 500,
        "fraction_open": torch.full((length,), 0.05),
        "factors": torch.randn(length, N_FACTORS, generator=generator),
        "counts": counts,
        "total": counts.sum(1),
        "label": torch.full((n_cells,), -1),
        "seed": torch.arange(n_cells),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


class Trainer:
    """One network with its optimizer and the batch it sees over and over."""

    def __init__(self, n_cells: int, length: int, device: str = "cpu", *, again: bool = False) -> None:
        torch.manual_seed(0)
        net = ChromFoundNet(ChromFoundConfig(n_factors=N_FACTORS))
        net.checkpoint_activations = again
        self.config, self.device = net.config, device
        plan = Objectives(net, {"denoise": 1.0}).to(device)
        self.plan = DistributedDataParallel(plan) if dist.is_initialized() else plan
        self.optimizer = torch.optim.AdamW(plan.parameters())
        self.batch = batch_of(n_cells, length, device)

    def step(self) -> float:
        """Seconds of one update."""
        began = time.perf_counter()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda"):
            loss, _ = self.plan(self.batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.plan.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def report_cpu(lengths: list[int], repeats: int) -> None:
    flops = PASSES * flops_per_token(ChromFoundConfig())
    print(f"CPU, fp32, {torch.get_num_threads()} threads, {flops / 1e6:.2f} MFLOP per token, objective denoise")
    print(f"{'OCRs':>9}  {'cells':>5}  {'tokens/s':>10}  {'GFLOP/s':>8}  {'GEMM peak':>9}  {'share':>6}")
    for length in lengths:
        n_cells = max(1, 16_384 // length)
        trainer, gemm = Trainer(n_cells, length), Gemm()
        trainer.step()
        best = float("inf")
        for _ in range(repeats):
            gemm.measure()
            best = min(best, trainer.step())
        speed = n_cells * length / best
        print(
            f"{length:>9,}  {n_cells:>5}  {speed:>10,.0f}  {speed * flops / 1e9:>8.1f}  "
            f"{gemm.peak / 1e9:>9.1f}  {speed * flops / gemm.peak:>6.2f}"
        )


def report_processes(length: int, repeats: int) -> None:
    """One process and two, one thread each, two cells per process."""
    print(f"\nData parallel over gloo, {length:,} OCRs, 2 cells and 1 thread per process")
    speeds = {}
    for n in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(n)}
        environment |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__)), "--worker", "--lengths", str(length), "--repeats", str(repeats)]
        workers = [
            subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(n)
        ]
        output = [worker.communicate()[0] for worker in workers]
        speeds[n] = float(output[0].split()[-1])
        print(
            f"{n:>9} {'process' if n == 1 else 'processes'}  {speeds[n]:>10,.0f} tokens/s  {speeds[n] / speeds[1]:>5.2f} x"
        )


def worker(length: int, repeats: int) -> None:
    """One of the processes; prints tokens per second over all of them."""
    dist.init_process_group("gloo")
    trainer = Trainer(2, length)
    trainer.step()
    seconds = []
    for _ in range(repeats):
        dist.barrier()
        seconds.append(trainer.step())
    print(2 * length * dist.get_world_size() / min(seconds))
    dist.destroy_process_group()


def report_cuda(lengths: list[int], repeats: int) -> None:
    print(f"\n{torch.cuda.get_device_name()}, bf16, objective denoise")
    print(f"{'OCRs':>9}  {'cells':>5}  {'activations':>11}  {'tokens/s':>12}  {'memory':>10}")
    for length in lengths:
        for again in (False, True):
            n_cells = max(1, 131_072 // length)
            torch.cuda.reset_peak_memory_stats()
            trainer = Trainer(n_cells, length, "cuda", again=again)
            trainer.step()
            best = min(trainer.step() for _ in range(repeats))
            memory = torch.cuda.max_memory_allocated() / 2**30
            print(
                f"{length:>9,}  {n_cells:>5}  {'again' if again else 'kept':>11}  {n_cells * length / best:>12,.0f}  {memory:>6.1f} GiB"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32_768])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.lengths[0], arguments.repeats)
        return
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before this program\n")
    report_cpu(arguments.lengths, arguments.repeats)
    report_processes(arguments.lengths[0], 5 * arguments.repeats)  # short steps, so that one of them is not interrupted
    if torch.cuda.is_available():
        report_cuda(arguments.lengths, arguments.repeats)
    else:
        print("\nNo CUDA device here: GPU speed not measured.")


if __name__ == "__main__":
    main()
