"""Pretrained models: list, fetch, check, load and convert them."""

from __future__ import annotations

from ..data import Vocabularies
from ._fetch import fetch
from .checkpoint import Checkpoint, save
from .loading import convert, load
from .registry import list_models

__all__ = ["Checkpoint", "Vocabularies", "convert", "fetch", "list_models", "load", "save"]
