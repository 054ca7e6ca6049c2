"""Rows of count matrices, wherever they lie, as sparse float32 chunks."""

from __future__ import annotations

from ._count_kind import count_kind
from ._prepare import prepare_rows
from ._rows import iter_rows, shape_of

__all__ = ["count_kind", "iter_rows", "prepare_rows", "shape_of"]
