"""Plots. All take `ax`, `show` and `save` as those of scanpy do, and return axes; matplotlib is imported on first use."""

from __future__ import annotations

__all__: list[str] = []
