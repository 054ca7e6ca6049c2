"""Small real data."""

from __future__ import annotations

from ._pbmc import pbmc_multiome_sample

__all__ = ["pbmc_multiome_sample"]
