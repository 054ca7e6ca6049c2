"""Models to train: five classes, and pretraining on a corpus.

The classes are used in two ways. `RegionSet`, `ChromFound` and `EpiFoundation` are models of scvi-tools: ``setup_anndata(adata)``,
``model = ChromFound(adata)``, ``model.train()``, ``get_latent_representation()``, ``save``, ``load``, ``load_query_data``. `EpiFoundation`
is bound to a MuData (``setup_mudata``). Its batches are sets of peaks and of genes, so it is trained by the loop of `pretrain`, and not by
the trainer of Lightning. `RegionSet` is derived from PEAKVI and has nearly all of it; it is bound to its OCRs, while the others read any.

`CellAnnotator` and `RNAPredictor` keep fit-and-predict, as whoever comes from scikit-learn expects it. They are not bound to data and need
no ``setup_anndata``: they learn from one object and are applied to another, ``model = CellAnnotator(backbone)``,
``model.train(reference, ...)``, ``model.predict(query)``. Their ``history`` has the form of scvi-tools, a table per value. The training
loops are in `scfound_atac.train`.

Every class is imported when it is first used: pretraining does not need scvi-tools, whose import takes seconds in each process of a
cluster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..train.pretrain import pretrain
    from ._cell_annotator import CellAnnotator
    from ._chromfound import ChromFound
    from ._epifoundation import EpiFoundation
    from ._region_set import RegionSet
    from ._rna_predictor import RNAPredictor

__all__ = ["CellAnnotator", "ChromFound", "EpiFoundation", "RNAPredictor", "RegionSet", "pretrain"]

_MODULES = {
    "CellAnnotator": "._cell_annotator",
    "ChromFound": "._chromfound",
    "EpiFoundation": "._epifoundation",
    "RNAPredictor": "._rna_predictor",
    "RegionSet": "._region_set",
    "pretrain": "..train.pretrain",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
