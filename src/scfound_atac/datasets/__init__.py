"""Small real data."""

from __future__ import annotations

from ._genes import genes
from ._pbmc import pbmc_multiome_sample

__all__ = ["genes", "pbmc_multiome_sample"]
