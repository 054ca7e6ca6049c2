"""Small real data sets."""

from __future__ import annotations

from ._pbmc import pbmc_multiome_sample
from .gene_table import genes

__all__ = ["genes", "pbmc_multiome_sample"]
