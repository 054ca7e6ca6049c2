"""Prior knowledge of regulatory elements: the cell types in which each is active.

The table is a packed form of REMO v1 (Lim, Tan, Stuart 2025, bioRxiv 10.64898/2025.12.10.692786; Artistic License 2.0, whose text lies
beside it): 1.5 million elements in 340,069 modules of elements that are open in the same cells, each module with up to five cell types, the
most specific first. It differs from the original in that bounds are rounded outwards to 10 bases, and in that elements of progenitors and
stem cells were added, which the original lacks; they come from sorted bulk samples. ``scripts/build_element_table.py`` makes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .line import along_genome, of_chromosomes, on_line

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

BUNDLED_ELEMENTS = "element_table.npz"
NO_TYPE = 255
"""Fills the places of a module with fewer than five types."""
UNIT = 10
"""Bases to which bounds are rounded."""
# Weight of the first to the fifth type of a module. The order is that of REMO, from the most to the least specific; the weights fall as
# slowly as the order allows, and were not tuned.
RANK_WEIGHTS = (1.0, 0.8, 0.6, 0.5, 0.4)


class KnownElements(NamedTuple):
    """What the table knows of a set of OCRs, one row per OCR; means over the elements that an OCR overlaps, by the common bases.

    Attributes
    ----------
    types
        Weight of each cell type, sparse (n_ocrs, n_types), float32.
    found
        Whether the OCR overlaps an element, (n_ocrs,).
    element, module
        Numbers of the element with most common bases and of its module, -1 for none, both (n_ocrs,).
    gc
        Percentage of G and C in that module, NaN for none, (n_ocrs,).
    stratum
        Class of the element by how often and how strongly it is open in bulk samples, -1 for none, (n_ocrs,).
    """

    types: csr_matrix
    found: NDArray[np.bool_]
    element: NDArray[np.int64]
    module: NDArray[np.int64]
    gc: NDArray[np.float32]
    stratum: NDArray[np.int64]


@dataclass(frozen=True)
class ElementTable:
    """Elements, their modules, and the cell types of these.

    Attributes
    ----------
    n_per_chromosome
        Number of elements on each of chr1 to chr22, chrX and chrY.
    start, end
        Bounds on GRCh38, 0-based and half-open, in genome order, (n_elements,).
    module
        Module of each element, (n_elements,).
    ranked
        Up to five types of each module, the most specific first, `NO_TYPE` for none, (n_modules, 5).
    gc
        Percentage of G and C of each module, (n_modules,).
    stratum
        Class of each element by how often and how strongly it is open in bulk samples, (n_elements,).
    marked
        For each type that was added to those of REMO, the numbers of its elements.
    type_ids, type_names
        Cell Ontology id and name of each type, first those of REMO.
    tissues
        Types that occur in each tissue, by their numbers.
    """

    n_per_chromosome: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    module: NDArray[np.int32]
    ranked: NDArray[np.uint8]
    gc: NDArray[np.uint8]
    stratum: NDArray[np.uint8]
    marked: tuple[NDArray[np.int32], ...]
    type_ids: tuple[str, ...]
    type_names: tuple[str, ...]
    tissues: dict[str, tuple[int, ...]]

    @property
    def n_types(self) -> int:
        """Number of cell types."""
        return len(self.type_ids)

    @property
    def n_strata(self) -> int:
        """Number of classes of elements."""
        return int(self.stratum.max()) + 1

    @cached_property
    def types(self) -> csr_matrix:
        """Weights of the types of each element, (n_elements, n_types)."""
        from scipy.sparse import csr_matrix

        n_modules, n_ranks = self.ranked.shape
        is_type = self.ranked != NO_TYPE
        weights = np.broadcast_to(np.array(RANK_WEIGHTS[:n_ranks], dtype=np.float32), self.ranked.shape)[is_type]
        indptr = np.append(0, np.cumsum(is_type.sum(axis=1)))
        shape = (n_modules, self.n_types)
        of_modules = csr_matrix((weights, self.ranked[is_type].astype(np.int32), indptr), shape=shape)[self.module]
        if not self.marked:
            return of_modules
        rows = np.concatenate(self.marked)
        first = self.n_types - len(self.marked)
        columns = np.repeat(np.arange(first, self.n_types), [len(x) for x in self.marked])
        added = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=of_modules.shape)
        return (of_modules + added).tocsr()

    @cached_property
    def _bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and ends on a single line along the genome; both rise."""
        chromosome = of_chromosomes(self.n_per_chromosome)
        return on_line(chromosome, self.start), on_line(chromosome, self.end)

    def overlaps(self, ocrs: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All pairs of an OCR and an element that overlap, by OCR: their numbers, and the bases they have in common, each (n_pairs,)."""
        # Elements do not overlap by more than the rounding, so that those of an OCR are neighbours.
        starts, ends = self._bounds
        low, high = (along_genome(ocrs["chrom"], ocrs[name]) for name in ("start", "end"))
        first = np.searchsorted(ends, low, side="right")
        n = np.maximum(np.searchsorted(starts, high, side="left") - first, 0)
        ocr = np.repeat(np.arange(len(ocrs)), n)
        element = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + first[ocr]
        shared = np.minimum(ends[element], high[ocr]) - np.maximum(starts[element], low[ocr])
        return ocr, element, shared

    def lookup(self, ocrs: pd.DataFrame) -> KnownElements:
        """Look up OCRs: ``chrom``, ``start``, ``end`` on GRCh38, in any order and of any width."""
        from scipy.sparse import csr_matrix

        # 1. Overlapping pairs, and weights that add up to 1 for each OCR.
        ocr, element, shared = self.overlaps(ocrs)
        n = len(ocrs)
        total = np.bincount(ocr, weights=shared, minlength=n)
        mean = csr_matrix((shared / total[ocr], (ocr, element)), shape=(n, len(self.start)), dtype=np.float32)
        # 2. The element with most bases in common; the first of several.
        best = np.full(n, -1, dtype=np.int64)
        order = np.lexsort((-element, shared, ocr))
        best[ocr[order]] = element[order]  # the last one of each OCR stays
        found = best >= 0
        module = np.where(found, self.module[best], -1)
        return KnownElements(
            types=(mean @ self.types).tocsr(),
            found=found,
            element=best,
            module=module,
            gc=np.where(found, self.gc[module], np.nan).astype(np.float32),
            stratum=np.where(found, self.stratum[best].astype(np.int64), -1),
        )

    def expected(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and variance of the weight of each type over the elements of each class, both (n_strata, n_types)."""
        from scipy.sparse import csr_matrix

        n = np.bincount(self.stratum, minlength=self.n_strata)
        rows = np.arange(len(self.stratum))
        ones = np.ones(len(rows), dtype=np.float64)
        member = csr_matrix((ones, (self.stratum, rows)), shape=(self.n_strata, len(rows)))
        mean = (member @ self.types).toarray() / np.maximum(n, 1)[:, None]
        square = (member @ self.types.power(2)).toarray() / np.maximum(n, 1)[:, None]
        return mean.astype(np.float32), np.maximum(square - mean**2, 0).astype(np.float32)

    def save(self, path: str | Path) -> None:
        """Write the table as a compressed ``npz`` file to `path`. Bytes of different weight are apart, because that compresses best."""
        is_first = np.diff(of_chromosomes(self.n_per_chromosome), prepend=0) > 0
        previous = np.where(is_first, 0, np.roll(self.end, 1))
        newest = np.maximum.accumulate(self.module)
        np.savez_compressed(
            path,
            n_per_chromosome=self.n_per_chromosome,
            gap=_planes((self.start - previous) // UNIT + 1),
            width=_planes((self.end - self.start) // UNIT),
            module=_planes(newest - self.module),
            is_new=np.packbits(np.diff(newest, prepend=-1) > 0),
            ranked=np.ascontiguousarray(self.ranked.T),
            gc=self.gc,
            stratum=self.stratum,
            marked=np.concatenate([np.diff(x, prepend=0) for x in self.marked]).astype(np.int32),
            n_marked=np.array([len(x) for x in self.marked]),
            about=json.dumps({"ids": self.type_ids, "names": self.type_names, "tissues": self.tissues}),
        )

    @classmethod
    def load(cls, path: str | Path) -> ElementTable:
        """Read the table that `save` wrote to `path`."""
        with np.load(path) as file:
            per_chromosome = file["n_per_chromosome"]
            width = _joined(file["width"]) * UNIT
            steps = (_joined(file["gap"]) - 1) * UNIT + width  # from the end of an element to that of the next
            end = np.concatenate([np.cumsum(x) for x in np.split(steps, np.cumsum(per_chromosome)[:-1])])
            newest = np.cumsum(np.unpackbits(file["is_new"])[: len(end)], dtype=np.int64) - 1
            about = json.loads(str(file["about"]))
            return cls(
                n_per_chromosome=per_chromosome,
                start=end - width,
                end=end,
                module=(newest - _joined(file["module"])).astype(np.int32),
                ranked=np.ascontiguousarray(file["ranked"].T),
                gc=file["gc"],
                stratum=file["stratum"],
                marked=tuple(
                    np.cumsum(x, dtype=np.int32) for x in np.split(file["marked"], np.cumsum(file["n_marked"])[:-1])
                ),
                type_ids=tuple(about["ids"]),
                type_names=tuple(about["names"]),
                tissues={tissue: tuple(types) for tissue, types in about["tissues"].items()},
            )


def _planes(values: NDArray) -> NDArray[np.uint8]:
    """Bytes of whole numbers from 0 to 2^24 - 1, the lowest first, (3, n)."""
    return np.stack([(values >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)])


def _joined(planes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The numbers of `_planes`, (n,)."""
    return sum(plane.astype(np.int64) << shift for plane, shift in zip(planes, (0, 8, 16), strict=True))


@cache
def load_element_table() -> ElementTable:
    """The element table of the package, which is read only once."""
    return ElementTable.load(Path(__file__).with_name(BUNDLED_ELEMENTS))
