"""Read what the functions of `tl` wrote as tables."""

from __future__ import annotations

__all__: list[str] = []
