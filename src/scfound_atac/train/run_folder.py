"""The files of a training run: checkpoint, log and curves."""

from __future__ import annotations

import csv
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CHECKPOINT = "last.ckpt"
LOG = "log.csv"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state`. If the process is killed meanwhile, the old file is kept."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU; only tensors and plain values are loaded, and no code."""
    return torch.load(path, map_location="cpu", weights_only=True)


def log_tables(path: Path) -> dict[str, pd.DataFrame]:
    """The values of a log in the form of scvi-tools: for each value a table with one column, over the steps that have it."""
    log = pd.read_csv(path).set_index("step")
    tables = {str(name): log[[name]].dropna().astype(float) for name in log}
    return {name: table for name, table in tables.items() if len(table)}


class RunLog:
    """One row per step in ``log.csv``, and the same curves for TensorBoard if it is installed.

    Parameters
    ----------
    folder
        Folder of the run.
    columns
        Names of the values; the first is ``step``.
    n_steps_done
        Number of steps of the checkpoint from which the run continues. Later rows belong to steps that were lost, and are removed.
    """

    def __init__(self, folder: Path, columns: tuple[str, ...], n_steps_done: int) -> None:
        path, self.columns = folder / LOG, columns
        kept = _rows_until(path, n_steps_done) if n_steps_done else []
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *kept])
        partial.replace(path)
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)
        self._board: Any = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=n_steps_done + 1)

    def write(self, row: Mapping[str, float]) -> None:
        """Append a row; columns without a value are empty."""
        # The text of a float is exact, so that two logs can be compared.
        self._writer.writerow([row.get(name, "") for name in self.columns])
        self._file.flush()
        if self._board:
            for name, value in row.items():
                if name not in ("step", "tokens", "seconds"):
                    self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board:
            self._board.close()


def _rows_until(path: Path, step: int) -> list[list[str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row for row in rows if row and row[0].isdigit() and int(row[0]) <= step]
