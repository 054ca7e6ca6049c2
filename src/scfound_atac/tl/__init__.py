"""Tools: what a model says about cells."""

from __future__ import annotations

from ._embed import embed

__all__ = ["embed"]
