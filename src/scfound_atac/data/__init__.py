"""Cells as input of models: read and checked once, as sparse float32 chunks or as tokens of a vocabulary."""

from __future__ import annotations

from .._rows import iter_rows, shape_of
from .cells import Cells
from .prepare import is_open, prepare_rows
from .tokens import Coverage, Tokenizer
from .vocabularies import Vocabularies

__all__ = ["Cells", "Coverage", "Tokenizer", "Vocabularies", "is_open", "iter_rows", "prepare_rows", "shape_of"]
