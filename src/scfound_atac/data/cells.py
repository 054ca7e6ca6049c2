"""Read and check the cells that a user passes to any function of the package, so that all models can read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._anndata import NotFoundError, check_values, get_atac, get_column, get_matrix, no_matrix, role_of
from .._arguments import settable
from .._logging import logger
from .._rows import iter_rows, shape_of
from ..genome.features import peak_columns
from ..genome.names import looks_transposed, scan_names
from ..genome.ocrs import coordinate_columns, read_ocrs
from ._design import check_design

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# Number of cells by which the design of a data set is judged; it bounds time and memory.
_DESIGN_CELLS = 2_000


@dataclass(frozen=True)
class Cells:
    """Checked cells: a matrix, the coordinates of its OCRs, and the names of the cells.

    Attributes
    ----------
    matrix
        Counts in the form in which the user has them, shape (n_cells, n_vars); `scfound_atac.data.iter_rows` reads them.
    columns
        Numbers of the columns of `matrix` that are OCRs, shape (n_ocrs,); None if all are. An object of 10x multiome cells, for example,
        contains genes and peaks.
    ocrs
        The OCRs: ``chrom``, ``start``, ``end`` on GRCh38, 0-based and half-open; or only an index of names if coordinates were not
        requested.
    names
        Names of the cells, shape (n_cells,).
    is_empty
        Whether a cell has no open OCR, shape (n_cells,).
    role
        Name of the object, for messages.
    source
        The object of the user and the AnnData in it, for reading columns of ``obs``; None for a subset.
    """

    matrix: Any
    columns: NDArray[np.int64] | None
    ocrs: pd.DataFrame
    names: NDArray[np.object_]
    is_empty: NDArray[np.bool_]
    role: str = "adata"
    source: tuple[Any, AnnData] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_ocrs(self) -> int:
        """Number of OCRs."""
        return len(self.ocrs)

    @property
    def n_vars(self) -> int:
        """Number of columns of `matrix`, including those that are not OCRs."""
        return shape_of(self.matrix)[1]

    @classmethod
    def read(
        cls,
        data: Any,
        *,
        layer: str | None = None,
        genome: str | None = None,
        modality: str | None = None,
        role: str = "adata",
        layer_argument: str = "layer",
        values: Literal["counts", "any"] = "counts",
        or_else: str = "",
        coordinates: bool = True,
    ) -> Cells:
        """Read and check cells. Every function of the package that takes cells calls this method.

        The complete matrix is read once, so that an invalid value is found before any work.

        Parameters
        ----------
        data
            AnnData, MuData, or `Cells` that were read before, which are returned unchanged.
        layer
            Layer with the values; ``X`` if None.
        genome
            Genome build, if it cannot be recognised; by default ``uns["genome"]`` is read.
        modality
            Name of the accessibility modality of a MuData; ``"atac"`` if None.
        role, layer_argument
            Names of the arguments `data` and `layer` in the calling function, for messages.
        values
            ``"counts"`` refuses values that are not whole numbers; ``"any"`` accepts all values that are finite and not negative.
        or_else
            Text that is appended to the message about values that are not counts, with another solution.
        coordinates
            Whether coordinates of OCRs are needed.

        Raises
        ------
        TypeError
            If `data` is neither AnnData nor MuData, or not in memory.
        KeyError
            If the layer or modality does not exist.
        ValueError
            If there are no cells or no peaks, coordinates cannot be used or are not on GRCh38, values are negative, infinite or NaN, or
            counts are required and values are not counts.
        """
        if isinstance(data, Cells):
            return data
        adata = get_atac(data, modality, role)
        role = role_of(data, modality, role)
        if adata.n_vars == 0:
            raise ValueError(no_matrix(adata, role))
        matrix = get_matrix(adata, layer, role, layer_argument)
        if adata.n_obs == 0:
            msg = f"Nothing to read: {role} has 0 cells and {adata.n_vars} OCRs."
            raise ValueError(msg)
        columns, var = peaks_of(adata, role)
        if coordinates:
            ocrs = read_ocrs(var, genome=genome, uns_genome=adata.uns.get("genome"), role=role)
        else:
            ocrs = pd.DataFrame(index=var.index)
        names = adata.obs_names.to_numpy(dtype=object)
        cells = cls(matrix, columns, ocrs, names, np.zeros(len(names), dtype=bool), role, (data, adata))
        where = f"{role}.X" if layer is None else f"{role}.layers[{layer!r}]"
        others = [name for name in adata.layers if name != layer]
        sample = cells._check(where, values, layer_argument, others, or_else)
        if coordinates and (warning := check_design(sample, ocrs)):
            logger.warning("%s: %s", role, warning)
        return cells

    def _check(self, where: str, values: str, layer_argument: str, layers: list[str], or_else: str) -> csr_matrix:
        """Check every value, mark empty cells, and return the cells by which the design is judged."""
        from scipy.sparse import vstack

        n_cells = len(self)
        is_sampled = np.ones(n_cells, dtype=bool)
        if n_cells > _DESIGN_CELLS:
            is_sampled[:] = False
            is_sampled[np.random.default_rng(0).choice(n_cells, _DESIGN_CELLS, replace=False)] = True
        is_whole = np.ones(n_cells, dtype=bool)
        sample = []
        for rows, chunk in self.iter_rows():
            check_values(chunk, where, rows=rows, layer_argument=layer_argument)
            self.is_empty[rows] = np.diff(chunk.indptr) == 0
            if (fraction := chunk.data != np.round(chunk.data)).any():
                is_whole[rows] = np.bincount(_row_numbers(chunk)[fraction], minlength=chunk.shape[0]) == 0
            sample.append(chunk[is_sampled[rows]])
        if values == "counts" and not is_whole.all():
            raise ValueError(self._no_counts(where, is_whole, layer_argument, layers, or_else))
        return vstack(sample, format="csr")

    def _no_counts(
        self, where: str, is_whole: NDArray[np.bool_], layer_argument: str, layers: list[str], or_else: str
    ) -> str:
        """The message about values that are not counts, in all cells or in some."""
        wrong = np.flatnonzero(~is_whole)
        if (is_whole & ~self.is_empty).any():
            what = (
                f"{where} holds values that are not whole numbers in {len(wrong)} of {len(self)} cells (the first are rows "
                f"{wrong[:3].tolist()}) and counts in the others. Were normalised samples and counts put together?"
            )
        else:
            what = (
                f"{where} holds values that are not whole numbers, so it is already normalised, and counts are needed."
            )
        binarise = f"{self.role}.layers['binary'] = ({where} > 0).astype('float32')"
        if layers:
            fix = f"Pass {layer_argument}= a layer with counts (layers: {layers})"
        elif self.source is not None and (raw := self.source[1].raw) is not None and raw.n_vars == self.n_vars:
            kept = f"{self.role}.layers['counts'] = {self.role}.raw.X"
            fix = f"If {self.role}.raw holds the counts, take them ({kept}; {layer_argument}='counts')"
        else:
            fix = f"Put the counts into a layer and pass {layer_argument}= its name"
        return f"{what} {fix}, or binarise ({binarise}; {layer_argument}='binary'){or_else}."

    def iter_rows(
        self, *, chunk_size: int = 1024, rows: NDArray[np.integer] | None = None
    ) -> Iterator[tuple[slice | NDArray[np.int64], csr_matrix]]:
        """Chunks of cells with only their OCRs, (cells, n_ocrs); otherwise like `scfound_atac.data.iter_rows`."""
        for index, chunk in iter_rows(self.matrix, chunk_size=chunk_size, rows=rows):
            yield index, chunk if self.columns is None else chunk[:, self.columns]

    def find_ocrs(self, names: Sequence[str], argument: str = "ocrs") -> NDArray[np.int64]:
        """Numbers of OCRs by their names, or by coordinates in any spelling that names may have.

        Parameters
        ----------
        names
            Names of OCRs, or texts with coordinates such as ``"chr1:100-600"``.
        argument
            Name of the argument in the calling function, for messages.

        Raises
        ------
        KeyError
            If an OCR is not among those of the cells.
        ValueError
            If several OCRs have a name that is asked for.
        """
        wanted = pd.Index(names, dtype=object)
        index = self.ocrs.index
        repeated = wanted[wanted.isin(index[index.duplicated()])]
        if len(repeated):
            msg = f"{argument}: several OCRs of {self.role} are named {repeated[0]!r}. Give coordinates, such as 'chr1:100-600', instead."
            raise ValueError(msg)
        found = index[~index.duplicated()].get_indexer(wanted)
        found = np.where(found >= 0, np.flatnonzero(~index.duplicated())[found], -1)
        if (found < 0).any():
            other = np.flatnonzero(found < 0)
            read = scan_names([wanted[i] for i in other])
            places = pd.MultiIndex.from_frame(self.ocrs[["chrom", "start", "end"]])
            at = places.get_indexer(pd.MultiIndex.from_frame(read.ocrs[["chrom", "start", "end"]]))
            found[other] = np.where(read.is_read, at, -1)
        if (found < 0).any():
            missing = wanted[found < 0]
            msg = (
                f"{len(missing)} of {len(wanted)} OCRs of {argument}= are not in {self.role}, among them "
                f"{', '.join(map(repr, missing[:3]))}. Give names of {self.role}.var_names, or coordinates of OCRs that are there; "
                "sfa.pp.map_ocrs brings cells to other OCRs."
            )
            raise NotFoundError(msg)
        return found.astype(np.int64)

    def to_memory(self, rows: NDArray[np.integer] | None = None) -> csr_matrix:
        """The counts of the cells `rows`, or of all, (n_cells, n_ocrs), float32."""
        from scipy.sparse import csr_matrix, vstack

        chunks = [chunk for _, chunk in self.iter_rows(rows=rows)]
        return vstack(chunks, format="csr") if chunks else csr_matrix((0, self.n_ocrs), dtype=np.float32)

    def subset(self, rows: NDArray[np.integer]) -> Cells:
        """The cells `rows` in memory, with only their OCRs."""
        return Cells(self.to_memory(rows), None, self.ocrs, self.names[rows], self.is_empty[rows], self.role)

    def as_anndata(self, rows: NDArray[np.integer] | None = None) -> AnnData:
        """The cells `rows`, or all, as an object with nothing but their counts, the OCRs' rows of ``var``, and the genome build."""
        from anndata import AnnData

        assert self.source is not None
        adata = self.source[1]
        var = adata.var if self.columns is None else adata.var.iloc[self.columns]
        obs = adata.obs[[]] if rows is None else adata.obs[[]].iloc[rows]
        uns = {"genome": adata.uns["genome"]} if "genome" in adata.uns else {}
        return AnnData(self.to_memory(rows), obs=obs.copy(), var=var.copy(), uns=uns)

    @property
    def index(self) -> pd.Index:
        """Names of the cells as the index of a table."""
        return pd.Index(self.names) if self.source is None else self.source[1].obs_names

    def column(self, key: str, argument: str = "labels_key") -> pd.Series:
        """The column `key` of ``obs`` of the AnnData, or else of the MuData around it; see `scfound_atac._anndata.get_column`."""
        assert self.source is not None
        return get_column(*self.source, key, self.role, argument)

    def var_columns(self, ocrs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of OCRs -> numbers of their columns in `matrix`."""
        return ocrs if self.columns is None else self.columns[ocrs]

    def to_var(self, values: NDArray[np.float32], ocrs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Values of the OCRs `ocrs`, (len(ocrs), ...), as rows for all columns of `matrix`, (n_vars, ...), and 0 elsewhere."""
        whole = np.zeros((self.n_vars, *values.shape[1:]), dtype=np.float32)
        whole[self.var_columns(ocrs)] = values
        return whole

    def widen(self, block: csr_matrix) -> csr_matrix:
        """Values of OCRs, (cells, n_ocrs), with a column for each column of `matrix`, (cells, n_vars)."""
        from scipy.sparse import csr_matrix

        if self.columns is None:
            return block
        return csr_matrix((block.data, self.columns[block.indices], block.indptr), shape=(block.shape[0], self.n_vars))

    def warn_of_empty(self, consequence: str) -> None:
        """Log a warning with the number of cells without an open OCR, if there are any, and with the consequence."""
        if n_empty := int(self.is_empty.sum()):
            logger.warning("%d of %d cells have no open OCR and %s", n_empty, len(self), consequence)


def read_columns(
    adata: AnnData, role: str = "adata", genome: str | None = None
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Column numbers and coordinates of the OCRs of an object, without reading its matrix.

    Raises
    ------
    ValueError
        If there are no peaks, or coordinates cannot be used or are not on GRCh38.
    """
    columns, var = peaks_of(adata, role)
    ocrs = read_ocrs(var, genome=genome, uns_genome=adata.uns.get("genome"), role=role)
    return np.arange(adata.n_vars) if columns is None else columns, ocrs


def peaks_of(adata: AnnData, role: str) -> tuple[NDArray[np.int64] | None, pd.DataFrame]:
    """Numbers of the columns that are peaks, None if all are, and their rows of ``var``.

    Raises
    ------
    ValueError
        If there are no peaks, or they are in the rows.
    """
    if adata.n_vars == 0:
        raise ValueError(no_matrix(adata, role))
    is_turned = coordinate_columns(adata.obs) is not None and coordinate_columns(adata.var) is None
    if looks_transposed(adata.obs_names, adata.var_names, has_columns=is_turned):
        msg = (
            f"{role} looks transposed: its {adata.n_obs} observations look like OCRs ({adata.obs_names[0]!r}) and its variables "
            f"do not ({adata.var_names[0]!r}). Cells belong in the rows: {settable(role)} = {role}.T.copy()."
        )
        raise ValueError(msg)
    is_peak = peak_columns(adata.var, role)
    if is_peak is None:
        return None, adata.var
    columns = np.flatnonzero(is_peak)
    return columns, adata.var.iloc[columns]


def _row_numbers(chunk: csr_matrix) -> NDArray[np.int64]:
    return np.repeat(np.arange(chunk.shape[0]), np.diff(chunk.indptr))
