"""Does it beat LSI here? Baselines, scores and one protocol for all embeddings."""

from __future__ import annotations

from ._compare import compare
from ._report import report, verdict
from ._scores import clustering_scores, knn_accuracy
from ._spectral import spectral
from ._thin_counts import thin_counts

__all__ = ["clustering_scores", "compare", "knn_accuracy", "report", "spectral", "thin_counts", "verdict"]
