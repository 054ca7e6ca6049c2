"""Rows of count matrices, wherever they lie, as sparse float32 chunks."""

from __future__ import annotations

from .._rows import iter_rows, shape_of
from ._prepare import prepare_rows

__all__ = ["iter_rows", "prepare_rows", "shape_of"]
