"""A CSV file to which the rows of a comparison are appended as they are finished."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._paths import make_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TEXT = ("data", "method", "weights", "labels")


class FinishedRows:
    """Rows of earlier runs, and the file to which new ones are appended; without a path nothing is read or written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        if path is None:
            return
        if path.is_dir():
            msg = f"out={str(path)!r} is a folder, and a CSV file is wanted: out={str(path / 'comparison.csv')!r}."
            raise IsADirectoryError(msg)
        make_folder(path.parent, "out")
        if path.is_file() and path.stat().st_size:
            self._rows = _read(path)
        with path.open("a"):  # a file that cannot be written to is told before anything is computed
            pass

    def find(self, run: Mapping[str, Any]) -> dict[str, Any] | None:
        """The finished row with the same values as `run`, if there is one."""
        return next((row for row in self._rows if all(_same(row.get(key), run[key]) for key in run)), None)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(pd.DataFrame([row]).to_csv(index=False, header=file.tell() == 0))


def _read(path: Path) -> list[dict[str, Any]]:
    """All rows; an incomplete last line, left by an interrupted run, is removed from the file."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    columns = whole.partition("\n")[0].split(",")
    if not {*_TEXT, "seconds"} <= set(columns):
        msg = f"{path} is not a table of sfa.bench.compare: its columns are {columns[:5]} ... Choose another file."
        raise ValueError(msg)
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    table = pd.read_csv(StringIO(whole), dtype=dict.fromkeys(_TEXT, str))
    return table.fillna(dict.fromkeys(_TEXT, "")).to_dict("records")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and bool(np.isclose(a, b, rtol=1e-6, atol=0))
    return bool(a == b)
