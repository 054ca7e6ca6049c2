"""What users train: four classes, and pretraining over a corpus.

They keep three contracts. `ChromFound` is a scvi-tools model: ``setup_anndata(adata)``, ``model = ChromFound(adata)``, ``model.train()``,
``get_latent_representation()``, ``save``, ``load``. `EpiFoundation` is used in the same order on a MuData (``setup_mudata``), but does not
derive from scvi-tools' classes: its batches are sets of peaks and of genes, and its training goes through the numbered loop that
`pretrain` uses. `CellAnnotator` and `RNAPredictor` are not bound to data: they learn from one object and are applied to another,
``model = CellAnnotator(backbone)``, ``model.train(reference, ...)``, ``model.predict(query)``. The steps themselves are taken in
`scfound_atac.train`.

All is loaded when first used: pretraining does without scvi-tools, whose import takes seconds on every process of a cluster.
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
