"""Stream cells through a network: batching, device, precision, PCA."""

from __future__ import annotations

from ._mixture import MixtureBasis, embed_mixture
from ._pca import PCA
from ._peak_sets import PeakSetRunner, embed_peak_sets
from ._profiles import ProfileSpace, embed_profiles
from ._readers import cell_reader
from ._runner import Runner
from ._stream import Basis, Embedding, embed_matrix

__all__ = [
    "PCA",
    "Basis",
    "Embedding",
    "MixtureBasis",
    "PeakSetRunner",
    "ProfileSpace",
    "Runner",
    "cell_reader",
    "embed_matrix",
    "embed_mixture",
    "embed_peak_sets",
    "embed_profiles",
]
