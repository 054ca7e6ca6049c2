"""Foundation models for single-cell ATAC-seq on AnnData and MuData.

Sub-packages load on first use, so that ``import scfound_atac as sfa`` stays fast and free of torch, scvi-tools and matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from . import bench, datasets, genome, get, hub, model, nn, pl, pp, tl
    from ._settings import settings

try:
    __version__ = version("scfound-atac")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = ["__version__", "bench", "datasets", "genome", "get", "hub", "model", "nn", "pl", "pp", "settings", "tl"]

_SUBPACKAGES = frozenset(__all__) - {"__version__", "settings"}


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return import_module(f".{name}", __name__)
    if name == "settings":
        return import_module("._settings", __name__).settings
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
