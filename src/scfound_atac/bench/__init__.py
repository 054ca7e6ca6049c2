"""Benchmarks: baselines, scores, and one protocol that compares all embeddings with LSI on the same cells."""

from __future__ import annotations

from ..scores import annotation_scores, expected_calibration_error, expression_scores, gene_scores
from ._annotation_baselines import annotation_baselines
from ._compare import compare
from ._integration import integration
from ._report import report
from ._rna_baselines import rna_baselines
from ._scores import clustering_scores, knn_accuracy
from ._thin_counts import thin_counts

__all__ = [
    "annotation_baselines",
    "annotation_scores",
    "clustering_scores",
    "compare",
    "expected_calibration_error",
    "expression_scores",
    "gene_scores",
    "integration",
    "knn_accuracy",
    "report",
    "rna_baselines",
    "thin_counts",
]
