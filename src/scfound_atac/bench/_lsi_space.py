"""Training and test cells in the LSI space of the training cells, and nearest neighbours in it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.sparse import vstack

from ..data.tfidf import inverse_document_frequency, tfidf, without_depth

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    Floats: TypeAlias = NDArray[np.float32]


class LSISpace:
    """Representations of training and test cells, fitted on the training cells only or on both, and computed when first needed."""

    def __init__(
        self, train: sparse.csr_matrix, test: sparse.csr_matrix, n_components: int, seed: int, *, joint: bool = False
    ) -> None:
        if min(train.shape) < 2:
            msg = f"Baselines need at least 2 training cells and 2 OCRs, got {train.shape[0]} x {train.shape[1]}."
            raise ValueError(msg)
        if n_components < 1:
            msg = f"n_components={n_components} must be at least 1."
            raise ValueError(msg)
        self._depth = np.log1p(np.asarray(train.sum(axis=1, dtype=np.float64)).ravel())
        if not self._depth.any():
            msg = "The training cells have no counts."
            raise ValueError(msg)
        self._n_components, self._seed, self._joint = n_components, seed, joint
        idf = inverse_document_frequency(vstack([train, test], format="csr") if joint else train)
        self.tfidf = tfidf(train, idf), tfidf(test, idf)

    @cached_property
    def unit_rows(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """TF-IDF with each cell scaled to unit length, (n_cells, n_ocrs)."""
        from sklearn.preprocessing import normalize

        train, test = self.tfidf
        return normalize(train), normalize(test)

    @cached_property
    def lsi(self) -> tuple[Floats, Floats]:
        """Components as in `scfound_atac.pp.lsi`, without those that reflect the depth of the training cells, (n_cells, n_components)."""
        from sklearn.decomposition import TruncatedSVD

        train, test = self.tfidf
        svd = TruncatedSVD(min(self._n_components + 1, *(n - 1 for n in train.shape)), random_state=self._seed)
        svd.fit(vstack([train, test], format="csr") if self._joint else train)
        of_train = svd.transform(train).astype(np.float32)
        kept = without_depth(of_train, self._depth)[: self._n_components]
        # Both are projected in the same way, so that a training cell among the test cells gets the same coordinates.
        return tuple((cells @ svd.components_[kept].T).astype(np.float32) for cells in (train, test))

    @cached_property
    def standardised(self) -> tuple[Floats, Floats]:
        """LSI components, standardised to mean 0 and variance 1 over the training cells."""
        from sklearn.preprocessing import StandardScaler

        train, test = self.lsi
        scaler = StandardScaler().fit(train)
        return scaler.transform(train), scaler.transform(test)


def nearest(train: Floats, test: Floats, n_neighbors: int) -> NDArray[np.int64]:
    """Row numbers of the nearest training cells by cosine distance, the nearest first, (n_test, n_neighbors)."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(n_neighbors, len(train)), metric="cosine", algorithm="brute").fit(train)
    return index.kneighbors(test, return_distance=False)
