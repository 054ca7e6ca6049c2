"""Models on the region table without a network: ``biosample-prior`` and ``biosample-mix``.

Both describe the L OCRs by factors F (L, d), which summarise in which of 180 human tissues and cell types a region is open. With x_i (L,)
the TF-IDF of cell i, o_i (L,) its open OCRs as 0/1, and weights w_j = log(1 + idf_j)::

    biosample-prior: sum over j of o_ij w_j F_j / sum over j of o_ij w_j
    biosample-mix:   x_i and, in addition, F (F^T F + r I)^(-1) F^T x_i, the profile imputed by ridge regression

`profiles.py` describes the following steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .kind import Basis, Embedded, Kind, Openness, Request, is_known
from .pca import PCA
from .profiles import ProfileSpace, embed_profiles
from .regions import check_known, idf_table, read_idf

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from ..genome import KnownRegions
    from .profiles import ProfileReader

# Ridge penalty of the imputed profile, as a fraction of the mean variance of a factor.
_RIDGE = 0.1


class _Linear(Kind):
    """Base class of both models."""

    poolings = ("profile",)
    needs_regions: ClassVar[bool]
    """Whether the model cannot be used if no region is known."""
    factors: ClassVar[type]

    def embed(self, cells: Cells, request: Request, basis: Basis | None = None) -> Embedded:
        """Profiles of cells, then PCA."""
        order = self.genome_order(cells)
        known = self.checkpoint.region_table().lookup(cells.ocrs)
        check_known(known, self.name, needed=self.needs_regions)
        return embed_by_profiles(cells, request, basis, self.factors(known.factors), self.checkpoint.mix, known, order)

    def openness(self, cells: Cells, request: Request) -> Openness:
        """Openness by groups of cells from the embedding; only the cells of a group determine how open an OCR is in it."""
        from .impute import group_openness

        return group_openness(self, cells, request, None)


def embed_by_profiles(
    cells: Cells,
    request: Request,
    basis: Basis | None,
    reader: ProfileReader,
    mix: float | None,
    known: KnownRegions,
    order: NDArray[np.int64],
) -> Embedded:
    """Embed cells by their profiles, on the axes of `basis` if there is one; see `embed_profiles` for `reader` and `mix`."""
    axes = space = None
    if basis is not None:
        axes, space = profile_basis(basis, cells, order)
    vectors, axes, space = embed_profiles(
        cells,
        reader,
        mix=mix,
        kept=is_known(order, cells.n_ocrs),
        n_components=request.n_components,  # type: ignore[arg-type]
        fit_rows=request.fit_rows(cells),
        axes=axes,
        space=space,
        seed=request.seed,
        progress=request.progress,
    )
    return Embedded(
        vectors if axes is not None else vectors[:, order],
        order,
        None if axes is None else PCA(axes.mean[order], axes.components[order]),
        None if axes is None else axes.variance_ratio,
        is_profile=axes is None,
        params={
            "device": "cpu",
            "precision": "fp32",
            "fraction_known": float(known.found[order].mean()),
            "signal": space.signal,
            "knowledge": space.knowledge,
        },
        tables={"idf": idf_table(space.idf, cells.ocrs)},
    )


def profile_basis(basis: Basis, cells: Cells, order: NDArray[np.int64]) -> tuple[PCA, ProfileSpace]:
    """Axes and space of an earlier embedding, with OCRs in the order of `cells`."""
    components, mean = basis.axes(cells.ocrs, order)
    weights = (float(basis.record["params"][name]) for name in ("signal", "knowledge"))
    space = ProfileSpace(read_idf(basis.record, cells.ocrs), *weights)
    return PCA(_at(mean, order, cells.n_ocrs), _at(components, order, cells.n_ocrs)), space


def _at(values: NDArray[np.float32], order: NDArray[np.int64], n_ocrs: int) -> NDArray[np.float32]:
    """Values of the OCRs `order`, placed among all OCRs, (n_ocrs, ...), and 0 elsewhere."""
    whole = np.zeros((n_ocrs, *values.shape[1:]), dtype=np.float32)
    whole[order] = values
    return whole


def orthonormal(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """The orthonormal columns nearest to `keys` K (L, d), with which distances between profiles equal those between cell vectors.

    They are ``K (K^T K)^(-1/2)``, computed by eigenvectors of ``K^T K``; directions with an eigenvalue of 0, up to rounding, are dropped.
    """
    values, vectors = np.linalg.eigh(keys.T.astype(np.float64) @ keys)
    is_there = values > 1e-9 * values.max()
    inverse_root = np.divide(
        1, np.sqrt(values, where=is_there, out=np.ones_like(values)), where=is_there, out=np.zeros_like(values)
    )
    return (keys @ ((vectors * inverse_root) @ vectors.T)).astype(np.float32)


class MeanFactors:
    """Mean of the factors of the open OCRs of a cell, weighted by the logarithm of inverse document frequency.

    Keys are orthonormal, so that PCA of the profiles equals PCA of the cell vectors.
    """

    def __init__(self, factors: NDArray[np.float32]) -> None:
        self.factors, self.keys = factors, orthonormal(factors)

    def read(self, counts: csr_matrix, weighted: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `ProfileReader`."""
        is_open = counts.astype(np.float32, copy=True)
        is_open.data[:] = 1
        weight = np.log1p(idf)  # (L,)
        total = is_open @ weight  # (n_cells,)
        return (is_open @ (self.factors * weight[:, None])) / np.maximum(total, 1e-9)[:, None]


class RidgeFactors:
    """The profile imputed from the factors, by ridge regression of the TF-IDF of a cell on the factors of its OCRs."""

    def __init__(self, factors: NDArray[np.float32]) -> None:
        self.keys = factors
        gram = (factors.T @ factors).astype(np.float64)  # (d, d)
        penalty = _RIDGE * np.trace(gram) / len(gram)
        self.solve = np.linalg.inv(gram + max(penalty, 1e-9) * np.eye(len(gram))).astype(np.float32)

    def read(self, counts: csr_matrix, weighted: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `ProfileReader`."""
        return (weighted @ self.keys) @ self.solve


class BiosamplePrior(_Linear):
    """The mean of the factors of the open regions of a cell."""

    needs_regions = True
    factors = MeanFactors


class BiosampleMix(_Linear):
    """The TF-IDF of a cell plus the profile that is imputed from the factors of its regions."""

    needs_regions = False
    factors = RidgeFactors
