"""Cell vectors from what is known of a cell's open regions."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .._logging import logger
from ..data._prepare import prepare_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..genome import KnownRegions
    from ..hub import Checkpoint
    from ._profiles import CellReader

# Ridge penalty of the imputed profile, as a share of the mean variance of a factor.
_RIDGE = 0.1
_OCRS_PER_BLOCK = 65_536


def orthonormal(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """The orthonormal columns nearest to `keys` (L, d), so that distances between profiles are those between cell vectors."""
    values, vectors = np.linalg.eigh(keys.T.astype(np.float64) @ keys)
    is_there = values > 1e-9 * values.max()
    inverse_root = np.divide(
        1, np.sqrt(values, where=is_there, out=np.ones_like(values)), where=is_there, out=np.zeros_like(values)
    )
    return (keys @ ((vectors * inverse_root) @ vectors.T)).astype(np.float32)


class MeanFactors:
    """The linear prior: mean of the factors of a cell's open OCRs, each weighted by its inverse document frequency.

    Keys are orthonormal, so that PCA of the profiles is PCA of the cell vectors.
    """

    def __init__(self, factors: NDArray[np.float32]) -> None:
        self.factors, self.keys = factors, orthonormal(factors)

    def __call__(self, counts: csr_matrix, weighted: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `CellReader`."""
        is_open = counts.astype(np.float32, copy=True)
        is_open.data[:] = 1
        weight = np.log1p(idf)
        total = is_open @ weight
        return (is_open @ (self.factors * weight[:, None])) / np.maximum(total, 1e-9)[:, None]


class RidgeFactors:
    """The profile imputed from the factors: ridge regression of a cell's TF-IDF over its OCRs on their factors."""

    def __init__(self, factors: NDArray[np.float32]) -> None:
        self.keys = factors
        gram = (factors.T @ factors).astype(np.float64)
        penalty = _RIDGE * np.trace(gram) / len(gram)
        self.solve = np.linalg.inv(gram + max(penalty, 1e-9) * np.eye(len(gram))).astype(np.float32)

    def __call__(self, counts: csr_matrix, weighted: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `CellReader`."""
        return (weighted @ self.keys) @ self.solve


class NetworkVectors:
    """Cell vectors and keys of a `RegionSetNet`; a sparse product and a small network, so that a CPU is enough.

    For an embedding, vectors have length 1: cells are compared by the direction of their vectors, which is what the contrastive
    objective trains. For a `reconstruction` they are as the network gives them; times the keys, the log fold change of each region.
    """

    def __init__(self, checkpoint: Checkpoint, features: NDArray[np.float32], *, reconstruction: bool = False) -> None:
        self.net, self.preparation, self.reconstruction = checkpoint.net, dict(checkpoint.preparation), reconstruction
        self._features = features
        self.messages = self._of_ocrs(self.net.messages)

    @cached_property
    def keys(self) -> NDArray[np.float32]:
        """See `CellReader`."""
        return self._of_ocrs(self.net.keys)

    def _of_ocrs(self, part: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[np.float32]:
        """A part of what the network makes of the OCRs, some at a time: hidden layers are wider than what is kept of them."""
        import torch

        blocks = np.array_split(self._features, -(-len(self._features) // _OCRS_PER_BLOCK))
        with torch.inference_mode():
            parts = [part(self.net.embed_ocrs(None, None, None, torch.from_numpy(block))).numpy() for block in blocks]
        return np.concatenate(parts)

    def __call__(self, counts: csr_matrix, weighted: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `CellReader`."""
        import torch

        total = prepare_rows(counts, **self.preparation) @ self.messages
        with torch.inference_mode():
            vectors = self.net.summarise(torch.from_numpy(total)).numpy()
        if not self.reconstruction:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def cell_reader(checkpoint: Checkpoint, known: KnownRegions, *, reconstruction: bool = False) -> CellReader:
    """What reads the cells of an OCR set, of which its region table knows `known`, to embed them or to reconstruct their profiles.

    Raises
    ------
    ValueError
        If nothing is known of any OCR and the model has nothing else to go by.
    """
    if not known.found.any():
        msg = f"None of the {len(known.found)} OCRs overlaps a region that model {checkpoint.name!r} knows"
        if checkpoint.model_class == "BiosamplePrior" or reconstruction:
            msg += ". Check coordinates and genome build (sfa.pp.liftover_ocrs), or use a model that reads the counts themselves."
            raise ValueError(msg)
        logger.warning("%s: cells are compared by their counts alone", msg)
    if checkpoint.model_class == "BiosamplePrior":
        return MeanFactors(known.factors)
    if checkpoint.model_class == "BiosampleMix":
        return RidgeFactors(known.factors)
    reader = NetworkVectors(checkpoint, known.features, reconstruction=reconstruction)
    if not known.found.any():  # all messages are the same: what is left to read from them is depth
        reader.messages = np.zeros_like(reader.messages)
    return reader
