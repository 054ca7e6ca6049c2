"""Stream cells through a network: batching, device, precision, PCA."""

from __future__ import annotations

from ._pca import PCA
from ._runner import Runner
from ._stream import Basis, Embedding, embed_matrix

__all__ = ["PCA", "Basis", "Embedding", "Runner", "embed_matrix"]
