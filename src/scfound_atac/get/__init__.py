"""Read what the functions of `tl` wrote as tables."""

from __future__ import annotations

from ._links import links
from ._perturbation import perturbation

__all__ = ["links", "perturbation"]
