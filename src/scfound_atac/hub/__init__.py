"""Pretrained weights: find, fetch, check, load, convert."""

from __future__ import annotations

from ..data import Vocabularies
from ._checkpoint import Checkpoint, save
from ._fetch import fetch
from ._load import convert, load
from ._registry import list_models

__all__ = ["Checkpoint", "Vocabularies", "convert", "fetch", "list_models", "load", "save"]
