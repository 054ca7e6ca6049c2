"""PCA of cells as profiles over OCRs: the counts of a cell plus what is known of its open regions.

The profile of cell i is ``a T_i + b u_i K'``, with

    T   TF-IDF of the counts, each cell scaled to length 1      (n_cells, L), sparse
    u   cell vectors                                            (n_cells, d)
    K   keys: the profile of each entry of a cell vector        (L, d)
    a   signal, b  knowledge: two numbers, see `_weights`

Profiles are never computed explicitly. PCA only needs their products with vectors, whose cost is the open OCRs plus d numbers per OCR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from tqdm.auto import tqdm

from ..data.tfidf import inverse_document_frequency, tfidf
from .pca import PCA, signs
from .spectral import unit_length

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import LinearOperator

    from ..data import Cells

# Profiles up to this size are computed explicitly; the iterative solver needs more cells and OCRs than components.
_DENSE_ENTRIES = 200_000
_NO_VARIANCE = 1e-10  # what rounding leaves of the variance of equal cells, as a fraction of their sum of squares


class ProfileReader(Protocol):
    """Computes cell vectors from counts and from what is known of the regions."""

    @property
    def keys(self) -> NDArray[np.float32]:
        """The profile of each entry of a cell vector, (L, d)."""

    def read(self, counts: csr_matrix, weighted: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cell vectors (cells, d) from counts and their TF-IDF (cells, L), given the OCRs' inverse document frequency (L,)."""


@dataclass(frozen=True)
class ProfileSpace:
    """How profiles are composed for one OCR set, as determined on the cells to which PCA is fitted.

    Attributes
    ----------
    idf
        Inverse document frequency of the OCRs, 0 for OCRs that are left out, shape (L,).
    signal, knowledge
        Factors of TF-IDF and of the low-rank part.
    """

    idf: NDArray[np.float32]
    signal: float
    knowledge: float


@dataclass(frozen=True)
class _Profiles:
    """Profiles of some cells: ``signal * weighted + vectors @ keys.T``, (cells, L)."""

    weighted: csr_matrix
    vectors: NDArray[np.float32]
    keys: NDArray[np.float32]
    signal: float

    def times(self, x: NDArray) -> NDArray:
        """Product with x (L, k)."""
        return self.signal * (self.weighted @ x) + self.vectors @ (self.keys.T @ x)

    def transposed_times(self, y: NDArray) -> NDArray:
        """Product of the transpose with y (cells, k)."""
        return self.signal * (self.weighted.T @ y) + self.keys @ (self.vectors.T @ y)

    def mean(self) -> NDArray[np.float64]:
        return self.transposed_times(np.full(self.weighted.shape[0], 1 / self.weighted.shape[0]))

    def dense(self) -> NDArray[np.float32]:
        return self.signal * self.weighted.toarray() + self.vectors @ self.keys.T


def embed_profiles(
    cells: Cells,
    reader: ProfileReader,
    *,
    mix: float | None,
    kept: NDArray[np.bool_],
    n_components: int | None,
    fit_rows: NDArray[np.int64],
    axes: PCA | None = None,
    space: ProfileSpace | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[NDArray[np.float32], PCA | None, ProfileSpace]:
    """Stream cells into profiles and reduce them by PCA.

    Parameters
    ----------
    cells
        Cells to embed.
    reader
        Computes cell vectors and keys.
    mix
        Weight of the low-rank part relative to TF-IDF, both centred and scaled to unit Frobenius norm over the fitted cells; None for only
        the low-rank part, without scaling.
    kept
        Mask of the OCRs that are used, shape (n_ocrs,).
    n_components
        Number of principal components, or None for the profiles themselves (dense).
    fit_rows
        Row numbers of the cells to which norms and PCA are fitted.
    axes, space
        Axes and space of an earlier fit, to be used instead.
    seed
        Random seed of the start vector of the iterative solver.
    progress
        Show a progress bar.

    Returns
    -------
    The embedding, its axes (None if `n_components` is None), and the space of the profiles; OCRs in the order of `cells`.
    """
    keys = reader.keys * kept[:, None]
    if space is None or (axes is None and n_components is not None):
        counts = only(cells.to_memory(np.sort(fit_rows)), kept)
        idf = np.where(kept, inverse_document_frequency(counts), 0).astype(np.float32)
        weighted = unit_length(tfidf(counts, idf))
        vectors = reader.read(counts, weighted, idf)
        space = ProfileSpace(idf, *_weights(weighted, vectors, keys, mix))
        if n_components is not None:
            axes = _fit(_Profiles(weighted, vectors, space.knowledge * keys, space.signal), n_components, seed)

    vectors_to_out = space.knowledge * keys.T  # (d, L), or (d, n_components) below
    if n_components is None:
        out = np.empty((len(cells), cells.n_ocrs), dtype=np.float32)
    else:
        assert axes is not None
        out = np.empty((len(cells), axes.components.shape[1]), dtype=np.float32)
        signal_to_out, vectors_to_out = space.signal * axes.components, vectors_to_out @ axes.components
        shift = axes.mean @ axes.components
    with tqdm(total=len(cells), unit="cells", disable=not progress, desc="embedding") as bar:
        for index, chunk in cells.iter_rows():
            rows = only(chunk, kept)
            weighted = unit_length(tfidf(rows, space.idf))
            out[index] = reader.read(rows, weighted, space.idf) @ vectors_to_out
            out[index] += space.signal * weighted if n_components is None else weighted @ signal_to_out - shift
            bar.update(chunk.shape[0])
    return out, axes if n_components is not None else None, space


def only(rows: csr_matrix, kept: NDArray[np.bool_]) -> csr_matrix:
    """Rows in which columns that are not `kept` (n_columns,) are set to 0."""
    if kept.all():
        return rows
    rows = rows.copy()
    rows.data[~kept[rows.indices]] = 0
    rows.eliminate_zeros()
    return rows


def _weights(
    weighted: csr_matrix, vectors: NDArray[np.float32], keys: NDArray[np.float32], mix: float | None
) -> tuple[float, float]:
    """Factors that scale both parts, centred, to Frobenius norms 1 and `mix`. A part that is equal in all cells is not scaled."""
    if mix is None:
        return 0.0, 1.0
    vectors, gram = vectors.astype(np.float64), keys.T.astype(np.float64) @ keys
    centred = vectors - vectors.mean(axis=0)
    low_rank = _inverse_norm(np.sum((centred.T @ centred) * gram), np.sum((vectors.T @ vectors) * gram))
    mean = np.asarray(weighted.mean(axis=0, dtype=np.float64)).ravel()
    squares = np.sum(weighted.data.astype(np.float64) ** 2)
    return _inverse_norm(squares - weighted.shape[0] * (mean @ mean), squares), mix * low_rank


def _inverse_norm(variance: float, squares: float) -> float:
    return 1 / float(np.sqrt(variance)) if variance > _NO_VARIANCE * squares else 1.0


def _fit(profiles: _Profiles, n_components: int, seed: int) -> PCA:
    """Principal axes of the profiles P (n_cells, L): right singular vectors of P minus its mean."""
    from scipy.sparse.linalg import LinearOperator, svds

    n_cells, n_ocrs = profiles.weighted.shape
    if n_cells < 2:
        msg = f"PCA needs at least two cells, got {n_cells}. Pass n_components=None for the whole vector, or basis= a fitted reference."
        raise ValueError(msg)
    n_components = min(n_components, n_cells - 1, n_ocrs)

    # 1. The variance, without forming P: the sum of squares less what the mean takes.
    mean = profiles.mean()  # (L,)
    squares = _sum_of_squares(profiles)
    total = squares - n_cells * float(mean @ mean)
    if not total > _NO_VARIANCE * squares:
        msg = "All cells have the same profile, so PCA has no components. Check that the matrix is not constant."
        raise ValueError(msg)

    # 2. The singular vectors, by the cheapest of three ways.
    if profiles.signal == 0:  # low rank alone: a problem of as many dimensions as a cell vector
        basis_of_keys, scale = np.linalg.qr(profiles.keys.astype(np.float64))
        vectors = profiles.vectors - profiles.vectors.mean(axis=0, dtype=np.float64)
        _, values, axes = np.linalg.svd(vectors @ scale.T, full_matrices=False)
        values, axes = values[:n_components], (axes @ basis_of_keys.T)[:n_components]
    elif n_cells * n_ocrs <= _DENSE_ENTRIES or n_components > min(n_cells, n_ocrs) // 4:
        _, values, axes = np.linalg.svd(profiles.dense().astype(np.float64) - mean, full_matrices=False)
        values, axes = values[:n_components], axes[:n_components]
    else:
        by_column = profiles.weighted.T.tocsr()  # twice as fast as a transposed product

        def transposed_times(y: NDArray) -> NDArray:
            return profiles.signal * (by_column @ y) + profiles.keys @ (profiles.vectors.T @ y)

        centred: LinearOperator = LinearOperator(
            (n_cells, n_ocrs),
            dtype=np.float64,
            matvec=lambda x: profiles.times(x.ravel()) - mean @ x.ravel(),
            rmatvec=lambda y: transposed_times(y.ravel()) - mean * y.sum(),
        )
        start = np.random.default_rng(seed).standard_normal(min(n_cells, n_ocrs))
        _, values, axes = svds(centred, k=n_components, v0=start, tol=1e-4)
        values, axes = values[::-1], axes[::-1]

    # 3. Only axes that rounding did not make, each with a sign that does not depend on the solver.
    keep = values**2 > _NO_VARIANCE * total
    values, components = values[keep], axes[keep].T
    components *= signs(components)
    return PCA(
        mean=mean.astype(np.float32),
        components=np.ascontiguousarray(components, dtype=np.float32),
        variance=values**2 / (n_cells - 1),
        variance_ratio=values**2 / total,
    )


def _sum_of_squares(profiles: _Profiles) -> float:
    """Squared Frobenius norm of the profiles."""
    vectors, keys = profiles.vectors.astype(np.float64), profiles.keys.astype(np.float64)
    own = profiles.signal**2 * float(np.sum(profiles.weighted.data.astype(np.float64) ** 2))
    low_rank = float(np.sum((vectors.T @ vectors) * (keys.T @ keys)))
    both = 2 * profiles.signal * float(np.sum((profiles.weighted @ keys) * vectors))
    return own + low_rank + both
