"""Model classes in the manner of scvi-tools: setup_anndata, train, get_..., save, load."""

from __future__ import annotations

from ._chromfound import ChromFound

__all__ = ["ChromFound"]
