"""What every kind of model offers to the rest of the package, and what is handed to and fro.

A kind is one file: a subclass of `Kind` with the few methods below. `kinds.py` lists them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from .._arguments import check_single
from .._logging import logger
from ..data.factors import region_factors
from ..data.fit_rows import N_FIT_CELLS, fit_rows
from ..genome import genome_order
from .options import refuse_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from ..hub import Checkpoint
    from .classifier import CellClassifier
    from .options import BatchSize, Precision
    from .pca import PCA

N_COMPONENTS = 50
"""Components of an embedding, unless a number is asked for."""


@dataclass(frozen=True)
class Request:
    """How cells are to be embedded or imputed; ``"auto"`` leaves the choice to the kind of model, see `scfound_atac.tl.embed`."""

    pooling: str = "auto"
    n_components: int | Literal["auto"] | None = "auto"
    recipe: Literal["auto", "chromfound"] | Mapping[str, Any] | None = "auto"
    n_fit_cells: int = N_FIT_CELLS
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: BatchSize = "auto"
    seed: int = 0
    progress: bool = True

    def fit_rows(self, cells: Cells) -> NDArray[np.int64]:
        """The cells that PCA, and what else depends on the cells together, is fitted to."""
        return fit_rows(cells.names, self.n_fit_cells, self.seed)


@dataclass(frozen=True)
class Basis:
    """Axes that an earlier embedding of other cells left behind.

    Attributes
    ----------
    ocrs
        Coordinates of the OCRs of those cells, shape (n,).
    components, mean
        Axes (n, k) and what is subtracted before projecting (n,).
    record
        What stands beside them in ``uns``.
    """

    ocrs: pd.DataFrame
    components: NDArray[np.float32]
    mean: NDArray[np.float32]
    record: Mapping[str, Any]

    def axes(self, ocrs: pd.DataFrame, order: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Components and mean of the OCRs `order` of `ocrs`, (len(order), k) and (len(order),).

        Raises
        ------
        ValueError
            If these are not the OCRs that the axes were fitted to.
        """
        here = pd.MultiIndex.from_frame(ocrs[["chrom", "start", "end"]].iloc[order])
        there = pd.MultiIndex.from_frame(self.ocrs[["chrom", "start", "end"]])
        place = there.get_indexer(here)
        n_used = int(self.record["params"]["n_ocrs_used"])
        if (place < 0).any() or len(here) != n_used:
            missing = ", ".join(f"{c}:{s}-{e}" for c, s, e in here[place < 0][:3])
            msg = (
                f"basis has other OCRs ({n_used} there, {len(here)} here, {int((place < 0).sum())} of these unknown there"
                f"{': ' + missing if missing else ''}). Bring the query to the reference's OCRs with sfa.pp.map_ocrs(adata, basis)."
            )
            raise ValueError(msg)
        return self.components[place], self.mean[place]


@dataclass(frozen=True)
class Embedded:
    """An embedding, and what is to be written beside it.

    Attributes
    ----------
    vectors
        Shape (n_cells, k); or (n_cells, len(order)), one number per OCR, if `is_profile`.
    order
        Numbers of the OCRs that took part, in genome order.
    axes
        Components and mean with one row for each of `order`, if the axes refer to OCRs.
    variance_ratio
        Fraction of the variance along each component, if it was found here.
    is_profile
        Whether `vectors` hold one number per OCR.
    params, tables, columns
        What goes to ``uns[...]["params"]``, to ``uns`` beside it, and to ``obs`` (names without the key in front).
    """

    vectors: NDArray[np.float32]
    order: NDArray[np.int64]
    axes: PCA | None = None
    variance_ratio: NDArray[np.float64] | None = None
    is_profile: bool = False
    params: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Openness:
    """How open each OCR is expected to be in a cell.

    Attributes
    ----------
    of
        Turns counts of some cells (cells, n_ocrs) and their row numbers into expected openness up to a factor per cell, (cells, n_ocrs).
    order
        Numbers of the OCRs that take part, in genome order.
    params
        What goes to ``uns[...]["params"]``.
    """

    of: Callable[[csr_matrix, slice | NDArray[np.int64]], NDArray[np.float32]]
    order: NDArray[np.int64]
    params: dict[str, Any]


class Kind(ABC):
    """A kind of model, bound to one checkpoint.

    Subclasses say what they have, and implement `embed`; `openness`, `cell_vectors` and `classifier` where they say that they have them.
    """

    poolings: ClassVar[tuple[str, ...]]
    """What can be read from the model; the first is the default."""
    n_components: ClassVar[int | None] = N_COMPONENTS
    """Components if none are asked for; None is the model's own vector."""
    has_recipe: ClassVar[bool] = False
    """Whether counts can be prepared in other ways than the model's own."""
    runs_on_devices: ClassVar[bool] = False
    """Whether device, precision and batch size are options."""
    has_basis: ClassVar[bool] = True
    """Whether axes are fitted to the cells, so that another embedding's may be used instead."""
    is_backbone: ClassVar[bool] = False
    """Whether heads can be trained on its cell vectors."""
    has_openness: ClassVar[bool] = True
    """Whether the model gives a number for every OCR, so that cells can be imputed."""
    has_paper_head: ClassVar[bool] = False
    """Whether the model's paper describes a head for cell types."""
    paper_head_is_tied: ClassVar[bool] = False
    """Whether that head can only read the OCRs that it was trained on."""
    takes_crops: ClassVar[bool] = False
    """Whether it can be fine-tuned on stretches of neighbouring OCRs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.checkpoint.name

    # ------------------------------------------------------------- options

    def settle(self, request: Request) -> Request:
        """Fill in what was left to the model, and refuse options that this kind of model does not have.

        Raises
        ------
        ValueError
            If an option is not one of the model's.
        """
        check_single(pooling=request.pooling, n_components=request.n_components)
        if not isinstance(request.recipe, Mapping):
            check_single(recipe=request.recipe)
        if not self.has_recipe and request.recipe != "auto":
            msg = (
                f"Model {self.name!r} has no option recipe={request.recipe!r}: it takes counts and prepares them as it was trained. Leave "
                "recipe out; ChromFound models have it."
            )
            raise ValueError(msg)
        self.check_device(request.device, request.precision, request.batch_size)
        n = self.n_components if request.n_components == "auto" else request.n_components
        if n is not None and (not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1):
            msg = f"n_components must be at least 1, or None for the whole vector; got {n!r}."
            raise ValueError(msg)
        return replace(request, n_components=n, pooling=self._pooling(request.pooling, n))

    def check_device(self, device: str, precision: str, batch_size: object) -> None:
        """Refuse device, precision and batch size if the model has no such options."""
        if not self.runs_on_devices:
            refuse_options(self.name, device, precision, batch_size)

    def _pooling(self, pooling: str, n_components: int | None) -> str:
        if pooling == "auto":
            return self.poolings[0]
        if pooling not in self.poolings:
            msg = f"Unknown pooling {pooling!r} for model {self.name!r}; use 'auto' or one of {self.poolings}."
            raise ValueError(msg)
        return pooling

    def check_backbone(self) -> None:
        """Refuse a model without a network.

        Raises
        ------
        ValueError
            If no head can be trained on it.
        """
        if not self.is_backbone:
            msg = f"Model {self.name!r} has no network and cannot be a backbone: use 'region-set', a ChromFound or an EpiFoundation model."
            raise ValueError(msg)

    def check_openness(self) -> None:
        """Refuse a model that has no output per OCR.

        Raises
        ------
        ValueError
            If nothing can be imputed with it.
        """
        if not self.has_openness:
            msg = (
                f"Model {self.name!r} reads which peaks are open and has no output per OCR. Impute with "
                "sfa.tl.impute(adata, model='region-set') or a ChromFound model."
            )
            raise ValueError(msg)

    # ------------------------------------------------------------- cells

    def genome_order(self, cells: Cells) -> NDArray[np.int64]:
        """Numbers of the OCRs that the model knows, in genome order; the others are warned of."""
        return known_in_genome_order(cells.ocrs, self.checkpoint.chromosome_ids(cells.ocrs["chrom"].to_numpy()))

    @abstractmethod
    def embed(self, cells: Cells, request: Request, basis: Basis | None = None) -> Embedded:
        """Embed cells as a settled `request` says, on the axes of `basis` if there is one."""

    def openness(self, cells: Cells, request: Request) -> Openness:
        """Expected openness of every OCR in every cell, for imputation; of kinds that have it."""
        raise TypeError(type(self).__name__)

    def cell_vectors(
        self,
        cells: Cells,
        *,
        device: str = "auto",
        batch_size: BatchSize = "auto",
        seed: int = 0,
        progress: bool = True,
    ) -> NDArray[np.float32]:
        """Vectors (n_cells, d) that depend on each cell's open OCRs alone, not on the OCR set around them: what heads of backbones read.

        `seed` chooses the peaks of cells that have more than the network reads.
        """
        raise TypeError(type(self).__name__)

    def classifier(
        self, cells: Cells, n_classes: int, *, paper: bool, crop_size: int | None, seed: int
    ) -> CellClassifier:
        """A copy of a backbone with a new head for `n_classes` cell types, to be fine-tuned on `cells`."""
        raise TypeError(type(self).__name__)

    def finetune_defaults(self, n_cells: int) -> dict[str, Any]:
        """Options of fine-tuning on `n_cells` where this kind of model wants others than the rest."""
        return {}


def known_in_genome_order(ocrs: pd.DataFrame, chromosome: NDArray[np.int64]) -> NDArray[np.int64]:
    """Columns in genome order without those on chromosomes that the model does not know (ids below 1), which are warned of.

    Raises
    ------
    ValueError
        If it knows none.
    """
    order = genome_order(ocrs)
    order = order[chromosome[order] > 0]
    n_left_out = len(ocrs) - len(order)
    if len(order) == 0:
        msg = f"None of the {len(ocrs)} OCRs lies on a chromosome the model knows (chr1..chr22, chrX, chrY)."
        raise ValueError(msg)
    if n_left_out:
        names = ", ".join(map(str, ocrs["chrom"][chromosome <= 0].unique()[:3]))
        logger.warning(
            "%d of %d OCRs are left out: the model does not know their chromosomes (%s)", n_left_out, len(ocrs), names
        )
    return order


def ocr_columns(checkpoint: Checkpoint, ocrs: pd.DataFrame, order: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """What a network over OCRs is told of the OCRs `order`, by name and in the order of its arguments.

    ``chromosome`` (ids of the vocabulary), ``start`` and ``end``, each (len(order),), and ``factors`` (len(order), n_factors) if the
    network reads what is known of regions.
    """
    columns = {
        "chromosome": checkpoint.chromosome_ids(ocrs["chrom"].to_numpy()),
        "start": ocrs["start"].to_numpy(),
        "end": ocrs["end"].to_numpy(),
    }
    if n_factors := checkpoint.net.config.n_factors:
        columns["factors"] = region_factors(ocrs, n_factors, checkpoint.region_table())
    return {name: column[order] for name, column in columns.items()}


def is_known(order: NDArray[np.int64], n_ocrs: int) -> NDArray[np.bool_]:
    """Which of `n_ocrs` OCRs are among the numbers `order`."""
    known = np.zeros(n_ocrs, dtype=bool)
    known[order] = True
    return known
