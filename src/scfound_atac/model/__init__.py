"""Model classes in the manner of scvi-tools: setup_anndata, train, get_..., save, load; and pretraining over a corpus.

Loaded when first used: pretraining does without scvi-tools, whose import takes seconds on every process of a cluster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..train.pretrain import pretrain
    from ._cell_annotator import CellAnnotator
    from ._chromfound import ChromFound
    from ._epifoundation import EpiFoundation
    from ._rna_predictor import RNAPredictor

__all__ = ["CellAnnotator", "ChromFound", "EpiFoundation", "RNAPredictor", "pretrain"]

_MODULES = {
    "CellAnnotator": "._cell_annotator",
    "ChromFound": "._chromfound",
    "EpiFoundation": "._epifoundation",
    "RNAPredictor": "._rna_predictor",
    "pretrain": "..train.pretrain",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
