"""Rows of count matrices, wherever they lie, as sparse float32 chunks or as tokens of a vocabulary."""

from __future__ import annotations

from .._rows import iter_rows, shape_of
from ._cells import Cells
from ._prepare import prepare_rows
from ._tokens import Coverage, Tokenizer
from ._vocabularies import Vocabularies

__all__ = ["Cells", "Coverage", "Tokenizer", "Vocabularies", "iter_rows", "prepare_rows", "shape_of"]
