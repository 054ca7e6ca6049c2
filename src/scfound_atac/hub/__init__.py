"""Pretrained models: list, fetch, check, load and convert them."""

from __future__ import annotations

from ..data import Vocabularies
from ._fetch import fetch
from ._registry import list_models
from .checkpoint import Checkpoint, save
from .loading import convert, load

__all__ = ["Checkpoint", "Vocabularies", "convert", "fetch", "list_models", "load", "save"]
