"""The interface of all kinds of models, and the records that it exchanges with the rest of the package.

A kind of model is a file with a subclass of `Kind`, which has the methods below. `kinds.py` lists all kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

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
    from .reader import CellReader

N_COMPONENTS = 50
"""Default number of components of an embedding."""


@dataclass(frozen=True)
class Request:
    """Options of embedding or imputing cells, see `scfound_atac.tl.embed`; ``"auto"`` leaves the choice to the kind of model."""

    pooling: str = "auto"
    n_components: int | Literal["auto"] | None = "auto"
    recipe: Literal["auto", "chromfound"] | Mapping[str, Any] | None = "auto"
    n_fit_cells: int = N_FIT_CELLS
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: BatchSize = "auto"
    seed: int = 0
    progress: bool = True
    batches: NDArray[np.str_] | None = None
    """Name of the batch of each cell, if the embedding is to be free of them."""

    def fit_rows(self, cells: Cells) -> NDArray[np.int64]:
        """Row numbers of the cells to which PCA and other steps that depend on several cells are fitted."""
        return fit_rows(cells.names, self.n_fit_cells, self.seed)


@dataclass(frozen=True)
class Basis:
    """Axes from an earlier embedding of other cells.

    Attributes
    ----------
    ocrs
        Coordinates of the OCRs of those cells, shape (n,).
    components, mean
        Axes (n, k), and the mean that is subtracted before projecting (n,).
    record
        The record of this embedding in ``uns``.
    vectors
        The embedding of those cells, (n_cells, k).
    """

    ocrs: pd.DataFrame
    components: NDArray[np.float32]
    mean: NDArray[np.float32]
    record: Mapping[str, Any]
    vectors: NDArray[np.float32] | None = None

    def axes(self, ocrs: pd.DataFrame, order: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Components and mean of the OCRs `order` of `ocrs`, (len(order), k) and (len(order),).

        Raises
        ------
        ValueError
            If the axes were fitted to other OCRs.
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
    """An embedding, and the values to be written with it.

    Attributes
    ----------
    vectors
        Vectors of cells, shape (n_cells, k); or one number per OCR, (n_cells, len(order)), if `is_profile`.
    order
        Numbers of the OCRs that were used, in genome order.
    axes
        Components and mean with a row for each OCR of `order`, if the axes refer to OCRs.
    variance_ratio
        Fraction of the variance along each component, if the components were fitted to these cells.
    is_profile
        Whether `vectors` hold one number per OCR.
    params, tables, columns
        Entries for ``uns[...]["params"]``, for ``uns[...]``, and for ``obs`` (names without the prefix of the key).
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
    """The expected openness of OCRs in cells.

    Attributes
    ----------
    of
        Function from counts of some cells (cells, n_ocrs) and their row numbers to expected openness (cells, n_ocrs), up to a factor per
        cell.
    order
        Numbers of the OCRs that are used, in genome order.
    params
        Entries for ``uns[...]["params"]``.
    """

    of: Callable[[csr_matrix, slice | NDArray[np.int64]], NDArray[np.float32]]
    order: NDArray[np.int64]
    params: dict[str, Any]


class Kind(ABC):
    """A kind of model, bound to one checkpoint.

    Subclasses declare by class variables what they support. They implement `embed`, and `openness`, `reader` and `classifier` if they
    support them.
    """

    poolings: ClassVar[tuple[str, ...]]
    """Outputs of the model; the first is the default."""
    n_components: ClassVar[int | None] = N_COMPONENTS
    """Default number of components; None stands for the vector of the model itself."""
    has_recipe: ClassVar[bool] = False
    """Whether the preparation of counts can be changed."""
    runs_on_devices: ClassVar[bool] = False
    """Whether device, precision and batch size are options."""
    has_basis: ClassVar[bool] = True
    """Whether axes are fitted to the cells, so that those of another embedding can be used instead."""
    is_backbone: ClassVar[bool] = False
    """Whether heads can be trained on its cell vectors."""
    batch_poolings: ClassVar[tuple[str, ...]] = ()
    """Outputs that can be computed without the batches of cells."""
    has_openness: ClassVar[bool] = True
    """Whether the model gives a number for every OCR, so that cells can be imputed."""
    has_paper_head: ClassVar[bool] = False
    """Whether the model's paper describes a head for cell types."""
    paper_head_is_tied: ClassVar[bool] = False
    """Whether this head can only read the OCRs on which it was trained."""
    takes_crops: ClassVar[bool] = False
    """Whether the model can be fine-tuned on stretches of neighbouring OCRs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.checkpoint.name

    # ------------------------------------------------------------- options

    def settle(self, request: Request) -> Request:
        """Replace ``"auto"`` by the choice of the model, and refuse options that this kind of model does not have.

        Raises
        ------
        ValueError
            If the model does not have an option or value.
        """
        check_single(pooling=request.pooling, n_components=request.n_components)
        if not isinstance(request.recipe, Mapping):
            check_single(recipe=request.recipe)
        if not self.has_recipe and request.recipe != "auto":
            msg = (
                f"Model {self.name!r} has no option recipe={request.recipe!r}: it takes counts and prepares them as in its training. Leave "
                "out recipe=; ChromFound models have it."
            )
            raise ValueError(msg)
        self.check_device(request.device, request.precision, request.batch_size)
        n = self.n_components if request.n_components == "auto" else request.n_components
        if n is not None and (not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1):
            msg = f"n_components must be at least 1, or None for the whole vector; got {n!r}."
            raise ValueError(msg)
        return replace(request, n_components=n, pooling=self._pooling(request.pooling, n))

    def check_device(self, device: str, precision: str, batch_size: object) -> None:
        """Refuse device, precision and batch size if the model does not have these options."""
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
            If no head can be trained on the model.
        """
        if not self.is_backbone:
            msg = f"Model {self.name!r} has no network and cannot be a backbone: use 'region-set', a ChromFound or an EpiFoundation model."
            raise ValueError(msg)

    def check_openness(self) -> None:
        """Refuse a model that has no output per OCR.

        Raises
        ------
        ValueError
            If the model cannot be used for imputation.
        """
        if not self.has_openness:
            msg = (
                f"Model {self.name!r} reads which peaks are open and has no output per OCR. Impute with "
                "sfa.tl.impute(adata, model='region-set') or a ChromFound model."
            )
            raise ValueError(msg)

    # ------------------------------------------------------------- cells

    def genome_order(self, cells: Cells) -> NDArray[np.int64]:
        """Numbers of the OCRs on known chromosomes in genome order; for others a warning is logged."""
        return known_in_genome_order(cells.ocrs, self.checkpoint.chromosome_ids(cells.ocrs["chrom"].to_numpy()))

    @abstractmethod
    def embed(self, cells: Cells, request: Request, basis: Basis | None = None) -> Embedded:
        """Embed cells with the options of a settled `request`, on the axes of `basis` if there is one."""

    def openness(self, cells: Cells, request: Request) -> Openness:
        """Expected openness of every OCR in every cell, for imputation; only for kinds with `has_openness`."""
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
        """Vectors of cells for heads, (n_cells, d), which only depend on the open OCRs of a cell and not on the OCR set.

        `seed` chooses the peaks of cells that have more than the network reads.
        """
        reader = self.reader(cells, device=device, batch_size=batch_size, seed=seed)
        parts = []
        with tqdm(total=len(cells), unit="cells", disable=not progress, desc="reading cells") as bar:
            for rows, chunk in cells.iter_rows(chunk_size=reader.chunk_size):
                parts.append(reader.vectors(reader.prepare(chunk), cells.names[rows]))
                bar.update(chunk.shape[0])
        return np.concatenate(parts)

    def reader(
        self, cells: Cells, *, device: str = "auto", batch_size: BatchSize = "auto", seed: int = 0, exact: bool = False
    ) -> CellReader:
        """What reads the vectors of `cells` and of changed copies of them; `exact` forbids rounding that small changes would drown in."""
        raise TypeError(type(self).__name__)

    def classifier(
        self, cells: Cells, n_classes: int, *, paper: bool, crop_size: int | None, seed: int
    ) -> CellClassifier:
        """A copy of the backbone with a new head for `n_classes` cell types, for fine-tuning on `cells`."""
        raise TypeError(type(self).__name__)

    def finetune_defaults(self, n_cells: int) -> dict[str, Any]:
        """Options of fine-tuning on `n_cells` cells for which this kind of model has other defaults."""
        return {}


def known_in_genome_order(ocrs: pd.DataFrame, chromosome: NDArray[np.int64]) -> NDArray[np.int64]:
    """Column numbers in genome order, without chromosomes that the model does not know (ids below 1), for which a warning is logged.

    Raises
    ------
    ValueError
        If the model knows none of the chromosomes.
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
    """Input of a network about the OCRs `order`, by name and in the order of its arguments.

    ``chromosome`` (ids of the vocabulary), ``start`` and ``end``, each (len(order),), and ``factors`` (len(order), n_factors) if the
    network reads the region table.
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
    """Mask (n_ocrs,) of the OCRs whose numbers are in `order`."""
    known = np.zeros(n_ocrs, dtype=bool)
    known[order] = True
    return known
