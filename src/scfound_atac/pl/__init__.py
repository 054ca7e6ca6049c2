"""Plots. All take `show` and `save` as those of scanpy do, and return axes if nothing is shown; matplotlib is imported on first use."""

from __future__ import annotations

from ._benchmark import benchmark
from ._calibration import calibration
from ._confusion import confusion
from ._embedding_comparison import embedding_comparison
from ._links import links
from ._perturbation import perturbation
from ._rna_prediction import rna_prediction
from ._training import training

__all__ = [
    "benchmark",
    "calibration",
    "confusion",
    "embedding_comparison",
    "links",
    "perturbation",
    "rna_prediction",
    "training",
]
