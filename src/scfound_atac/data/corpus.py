"""Read blocks of cells from the files of many studies."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from .._anndata import check_values
from ..genome import genome_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

CORPUS_FILE = "corpus.yaml"
FORMAT_VERSION = 1
_REQUIRED = {"name": str, "kind": str, "files": list, "n_cells": int, "n_ocrs": int, "weight": int | float}


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The group of an h5ad file or a zarr store.

    The file is opened for each block: this takes well under a millisecond on a local disk, and no handle has to survive a fork.
    """
    if path.suffix == ".zarr":
        import zarr

        yield zarr.open_group(path, mode="r")
        return
    import h5py

    with h5py.File(path, "r") as file:
        yield file


@dataclass(frozen=True)
class Study:
    """Cells with one OCR set, in one or more files.

    Attributes
    ----------
    name, kind, source, licence, blood
        Description of the study in ``corpus.yaml``; `kind` is ``"real"`` or ``"simulated"``.
    files
        AnnData files (``.h5ad`` or ``.zarr``) with counts in ``X``, stored by row, in shuffled order.
    weight
        Relative frequency of batches from this study.
    file_sizes
        Number of cells in each file.
    """

    name: str
    kind: str
    files: tuple[Path, ...]
    weight: float
    n_ocrs: int
    file_sizes: tuple[int, ...]
    source: str = ""
    licence: str = ""
    blood: bool = False
    _first: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_first", np.concatenate([[0], np.cumsum(self.file_sizes)]).astype(np.int64))

    @property
    def n_cells(self) -> int:
        """Number of cells in all files."""
        return int(self._first[-1])

    def first_row(self, file: int) -> int:
        """Number of the first cell of a file within the study."""
        return int(self._first[file])

    def read(self, first: int, n: int) -> sparse.csr_matrix:
        """Counts of cells `first` to ``first + n``: (n, n_ocrs) float32. Only these cells are read.

        Raises
        ------
        ValueError
            If the cells do not exist, or their values are not counts.
        """
        if first < 0 or n < 1 or first + n > self.n_cells:
            msg = f"Study {self.name!r} has {self.n_cells} cells; asked for {first} to {first + n}."
            raise ValueError(msg)
        blocks = []
        for file, (begin, end) in enumerate(zip(self._first[:-1], self._first[1:], strict=True)):
            low, high = max(first, begin), min(first + n, end)
            if low < high:
                blocks.append(self._read_file(self.files[file], int(low - begin), int(high - begin)))
        return blocks[0] if len(blocks) == 1 else sparse.vstack(blocks, format="csr")

    def _read_file(self, path: Path, low: int, high: int) -> sparse.csr_matrix:
        with _open(path) as group:
            matrix = group["X"]
            indptr = np.asarray(matrix["indptr"][low : high + 1], dtype=np.int64)
            stored = slice(int(indptr[0]), int(indptr[-1]))
            data = np.asarray(matrix["data"][stored], dtype=np.float32)
            indices = np.asarray(matrix["indices"][stored], dtype=np.int32)
        rows = sparse.csr_matrix((data, indices, indptr - indptr[0]), shape=(high - low, self.n_ocrs))
        check_values(rows, f"{path.name}, cells {low} to {high}")
        if not np.array_equal(data, np.rint(data)):
            msg = f"{path.name} holds values that are not whole, such as {data[data != np.rint(data)][0]}; a corpus holds raw counts."
            raise ValueError(msg)
        return rows

    @cached_property
    def ocrs(self) -> pd.DataFrame:
        """``chrom``, ``start``, ``end`` of the OCRs, in genome order, and ``fraction_open``, the fraction of cells with a read there.

        Raises
        ------
        ValueError
            If the files of the study have different OCRs, or these are not in genome order.
        """
        coordinates = ("chrom", "start", "end")
        tables = [_read_columns(path, "var", (*coordinates, "fraction_open")) for path in self.files]
        for path, table in zip(self.files[1:], tables[1:], strict=True):
            if any(not table[name].equals(tables[0][name]) for name in coordinates):
                msg = f"{path} has other OCRs than {self.files[0].name}; the files of a study must have the same."
                raise ValueError(msg)
        if not np.array_equal(genome_order(tables[0]), np.arange(self.n_ocrs)):
            msg = f"The OCRs of {self.files[0]} are not in genome order; write adata[:, genome_order(adata.var)]."
            raise ValueError(msg)
        return tables[0]

    @cached_property
    def biosamples(self) -> NDArray[np.object_]:
        """Biosample of each cell, (n_cells,); None for real cells, which have none."""
        if self.kind != "simulated":
            return np.full(self.n_cells, None, dtype=object)
        column = [_read_columns(path, "obs", ("biosample",))["biosample"].to_numpy(dtype=object) for path in self.files]
        return np.concatenate(column)


class Corpus:
    """A folder with ``corpus.yaml`` and the files it lists.

    Parameters
    ----------
    folder
        The folder, or its ``corpus.yaml``.
    weights
        Weights that replace those in ``corpus.yaml``, by name or kind of a study (``"real"``, ``"simulated"``); 0 leaves a study out.

    Attributes
    ----------
    studies
        The studies with a weight above zero.

    Raises
    ------
    FileNotFoundError
        If ``corpus.yaml`` or a file it lists is missing.
    ValueError
        If the description is incomplete or does not match the files, or `weights` has an unknown name.
    """

    def __init__(self, folder: str | Path, weights: Mapping[str, float] | None = None) -> None:
        folder = Path(folder)
        self.folder = folder.parent if folder.name == CORPUS_FILE else folder
        path = self.folder / CORPUS_FILE
        if not path.is_file():
            msg = f"No {CORPUS_FILE} in {self.folder}: give the folder of a corpus."
            raise FileNotFoundError(msg)
        described = _description(path)
        studies = [_study(self.folder, number, entry) for number, entry in enumerate(described["studies"])]
        weights = weights or {}
        if unknown := set(weights) - {name for study in studies for name in (study.name, study.kind)}:
            msg = f"{path} has no study and no kind of studies named {', '.join(sorted(unknown))}."
            raise ValueError(msg)
        studies = [
            replace(study, weight=weights.get(study.name, weights.get(study.kind, study.weight))) for study in studies
        ]
        self.studies = tuple(study for study in studies if study.weight > 0)
        if not self.studies:
            msg = f"{path} lists no study with a weight above 0."
            raise ValueError(msg)

    @property
    def n_cells(self) -> int:
        """Number of cells in all studies."""
        return sum(study.n_cells for study in self.studies)

    @cached_property
    def biosamples(self) -> tuple[str, ...]:
        """Sorted biosamples of the simulated cells; `labels` are their numbers."""
        return tuple(sorted({name for study in self.studies for name in study.biosamples if name is not None}))

    @cached_property
    def labels(self) -> tuple[NDArray[np.int64], ...]:
        """For each study, the number of the biosample of each cell, or -1."""
        number = {name: i for i, name in enumerate(self.biosamples)}
        return tuple(
            np.fromiter((number.get(name, -1) for name in study.biosamples), dtype=np.int64, count=study.n_cells)
            for study in self.studies
        )


def _description(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is not YAML: {error}"
        raise ValueError(msg) from error
    if not isinstance(described, dict) or not isinstance(described.get("studies"), list):
        msg = f"{path} does not describe a corpus: expected format_version and a list of studies."
        raise ValueError(msg)
    if described.get("format_version") != FORMAT_VERSION:
        msg = f"{path} has format_version {described.get('format_version')!r}; this version reads {FORMAT_VERSION}."
        raise ValueError(msg)
    return described


def _study(folder: Path, number: int, entry: Any) -> Study:
    where = f"{folder / CORPUS_FILE}, study {number + 1}"
    if not isinstance(entry, dict) or (missing := [key for key in _REQUIRED if key not in entry]):
        msg = f"{where} lacks {', '.join(missing) if isinstance(entry, dict) else 'everything: it is no mapping'}."
        raise ValueError(msg)
    where = f"{where} ({entry['name']})"
    for key, kind in _REQUIRED.items():
        if not isinstance(entry[key], kind) or isinstance(entry[key], bool):
            msg = f"{where}: {key} is {entry[key]!r}."
            raise ValueError(msg)
    if entry["kind"] not in ("real", "simulated"):
        msg = f"{where}: kind is {entry['kind']!r}; use 'real' or 'simulated'."
        raise ValueError(msg)
    if entry["weight"] < 0 or not entry["files"]:
        msg = f"{where}: needs files and a weight of at least 0."
        raise ValueError(msg)
    files = tuple(folder / name for name in entry["files"])
    if absent := [str(path) for path in files if not path.exists()]:
        msg = f"{where}: no such file: {', '.join(absent[:3])}."
        raise FileNotFoundError(msg)
    shapes = [_shape(path) for path in files]
    n_cells = sum(shape[0] for shape in shapes)
    if n_cells != entry["n_cells"] or any(shape[1] != entry["n_ocrs"] for shape in shapes):
        msg = f"{where}: {entry['n_cells']} cells x {entry['n_ocrs']} OCRs expected, the files hold {shapes[:3]}."
        raise ValueError(msg)
    return Study(
        name=entry["name"],
        kind=entry["kind"],
        files=files,
        weight=float(entry["weight"]),
        n_ocrs=entry["n_ocrs"],
        file_sizes=tuple(shape[0] for shape in shapes),
        source=str(entry.get("source", "")),
        licence=str(entry.get("licence", "")),
        blood=bool(entry.get("blood", False)),
    )


def _shape(path: Path) -> tuple[int, int]:
    try:
        with _open(path) as group:
            matrix = group["X"]
            encoding, shape = matrix.attrs.get("encoding-type"), matrix.attrs.get("shape")
    except (OSError, KeyError) as error:
        msg = f"{path} is not an AnnData file with a matrix X ({error})."
        raise ValueError(msg) from error
    if encoding != "csr_matrix":
        msg = f"{path} stores X as {encoding}; write it by row: adata.X = scipy.sparse.csr_matrix(adata.X)."
        raise ValueError(msg)
    return int(shape[0]), int(shape[1])


def _read_columns(path: Path, table: str, names: tuple[str, ...]) -> pd.DataFrame:
    from anndata.io import read_elem

    with _open(path) as group:
        if absent := [name for name in names if name not in group[table]]:
            msg = f"{path} has no {table} column {', '.join(absent)}."
            raise ValueError(msg)
        columns = {name: pd.Series(np.asarray(read_elem(group[table][name]))) for name in names}
    return pd.DataFrame(columns)
