"""Region-set, the default model: the vector of a network over open regions, combined with spectral components of the counts.

`mixture.py` describes how both are combined, and `scfound_atac.nn.region_set` the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._logging import logger
from ..data import prepare_rows
from .kind import Basis, Embedded, Kind, Openness, Request, is_known
from .linear import embed_by_profiles
from .mixture import DEFAULT_MIX, MixtureBasis, embed_mixture
from .pca import PCA
from .peak_sets import peak_sets, sums_of_batches
from .reader import CellReader
from .regions import check_known, factor_table, idf_table, read_factors, read_idf

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from ..genome import KnownRegions
    from ..hub import Checkpoint
    from .options import BatchSize
    from .reader import Changes

_OCRS_PER_BLOCK = 65_536  # number of OCRs that go through the network at a time; it bounds memory
_CHUNK = 4_096  # number of cells that are read at a time for heads


class RegionSet(Kind):
    """A set encoder over the open regions of a cell (`scfound_atac.nn.RegionSetNet`)."""

    poolings = ("mixture", "reconstruction")
    batch_poolings = ("mixture",)
    is_backbone = True

    def _pooling(self, pooling: str, n_components: int | None) -> str:
        if pooling == "auto" and n_components is None:
            return "reconstruction"
        pooling = super()._pooling(pooling, n_components)
        if pooling == "mixture" and n_components is None:
            msg = "A mixture has no vector of one number per OCR. Set n_components, or pooling='reconstruction' for the predicted profile."
            raise ValueError(msg)
        return pooling

    def embed(self, cells: Cells, request: Request, basis: Basis | None = None) -> Embedded:
        """The mixture of both views of a cell, or the predicted profile."""
        known = self.checkpoint.region_table().lookup(cells.ocrs)
        order = self.genome_order(cells)
        if request.pooling == "reconstruction":
            return self._reconstruction(cells, request, basis, known, order)
        check_known(known, self.name, needed=False)
        kept = is_known(order, cells.n_ocrs)
        fitted, batches = None, _Batches()
        if request.batches is not None:
            batches = (
                _fit_batches(cells, request.batches, kept) if basis is None else _known_batches(basis, request.batches)
            )
        if basis is not None:
            components, _ = basis.axes(cells.ocrs, order)
            axes = np.zeros((cells.n_ocrs, components.shape[1]), dtype=np.float32)
            axes[order] = components
            fitted = MixtureBasis(
                read_idf(basis.record, cells.ocrs),
                axes,
                basis.record["rotation"],
                basis.record["shift"],
                read_factors(basis.record, cells.ocrs) if batches.table is not None else None,
            )
        vectors, fitted, variance_ratio = embed_mixture(
            cells,
            NetworkVectors(self.checkpoint, known),
            mix=DEFAULT_MIX if self.checkpoint.mix is None else self.checkpoint.mix,
            kept=kept,
            n_components=request.n_components,  # type: ignore[arg-type]
            fit_rows=request.fit_rows(cells),
            basis=fitted,
            batches=batches.numbers,
            tie=batches.tie,
            anchors=None if basis is None else basis.vectors,
            seed=request.seed,
            progress=request.progress,
        )
        tables: dict[str, Any] = {
            "idf": idf_table(fitted.idf, cells.ocrs),
            "rotation": fitted.rotation,
            "shift": fitted.shift,
        }
        if fitted.factors is not None and batches.table is not None:
            tables |= {"batches": batches.table, "batch_factors": factor_table(fitted.factors, cells.ocrs)}
        params: dict[str, Any] = {
            "device": "cpu",
            "precision": "fp32",
            "fraction_known": float(known.found[order].mean()),
        }
        if batches.tie is not None:
            params["n_shared_regions"] = batches.n_regions
        return Embedded(
            vectors,
            order,
            PCA(np.zeros(len(order), dtype=np.float32), fitted.axes[order]),
            variance_ratio,
            params=params,
            tables=tables,
        )

    def _reconstruction(
        self, cells: Cells, request: Request, basis: Basis | None, known: KnownRegions, order: NDArray[np.int64]
    ) -> Embedded:
        """The predicted log fold change of each OCR over the mean cell, or the principal components of it."""
        check_known(known, self.name, needed=True)
        reader = NetworkVectors(self.checkpoint, known, reconstruction=True)
        return embed_by_profiles(cells, request, basis, reader, None, known, order)

    def openness(self, cells: Cells, request: Request) -> Openness:
        """Openness by groups of cells from the embedding; the prediction of the network counts as additional cells of a group."""
        from .impute import group_openness

        known = self.checkpoint.region_table().lookup(cells.ocrs)
        reader = NetworkVectors(self.checkpoint, known, reconstruction=True) if known.found.any() else None
        return group_openness(self, cells, request, reader)

    def reader(
        self, cells: Cells, *, device: str = "auto", batch_size: BatchSize = "auto", seed: int = 0, exact: bool = False
    ) -> CellReader:
        """The cell vectors of the network, scaled to length 1."""
        self.check_device(device, "auto", batch_size)
        known = self.checkpoint.region_table().lookup(cells.ocrs)
        check_known(known, self.name, needed=False)
        return RegionSetReader(NetworkVectors(self.checkpoint, known))

    def classifier(self, cells: Cells, n_classes: int, *, paper: bool, crop_size: int | None, seed: int) -> Any:
        """See `Kind.classifier`."""
        from .classifier import RegionSetClassifier

        return RegionSetClassifier(self.checkpoint, cells, n_classes)

    def finetune_defaults(self, n_cells: int) -> dict[str, Any]:
        """A higher learning rate, as the network is small, and batches whose size grows with the number of cells."""
        return {"lr": 1e-3, "batch_size": min(max(n_cells // 20, 16), 256)}


@dataclass(frozen=True)
class _Batches:
    """The batches of cells as `embed_mixture` takes them, and the table of batches that is stored."""

    numbers: NDArray[np.int64] | None = None
    table: pd.DataFrame | None = None
    tie: csr_matrix | None = None
    n_regions: int = 0


def _fit_batches(cells: Cells, batches: NDArray[np.str_], kept: NDArray[np.bool_]) -> _Batches:
    """Number the batches, and find out which OCRs each measured."""
    names, numbers = np.unique(batches, return_inverse=True)
    found = peak_sets(cells.ocrs, sums_of_batches(cells, numbers, len(names), kept))
    table = pd.DataFrame(
        {
            "n_cells": np.bincount(numbers),
            "n_ocrs_measured": found.n_measured,
            "fraction_shared": found.fraction_shared,
        },
        index=pd.Index(names.astype(object)),
    )
    if found.tie is not None:
        lowest = table["fraction_shared"].min()
        of = (
            f"the {len(names)} batches have peaks of their own ({table['n_ocrs_measured'].min()} to {table['n_ocrs_measured'].max()} of "
            f"{cells.n_ocrs} OCRs)"
        )
        if found.n_regions:
            logger.info(
                "%s: their counts are compared in %d shared regions, which hold %.0f %% of the counts or more in each batch",
                of,
                found.n_regions,
                100 * lowest,
            )
        else:
            logger.warning(
                "%s, of which too few overlap to compare counts: cells are compared only by what is known of their regions",
                of,
            )
    return _Batches(numbers, table, found.tie, found.n_regions)


def _known_batches(basis: Basis, batches: NDArray[np.str_]) -> _Batches:
    """Number the batches of a query: those of the basis as there, new ones from -1 down."""
    names, numbers = np.unique(batches, return_inverse=True)
    table = basis.record.get("batches")
    place = np.full(len(names), -1) if table is None else table.index.astype(str).get_indexer(names)
    place[place < 0] = -1 - np.arange((place < 0).sum())
    return _Batches(place[numbers], table)


class NetworkVectors:
    """Cell vectors and keys of a `RegionSetNet`. They need a sparse product and a small network, for which a CPU is enough.

    For an embedding, vectors are scaled to length 1, because the contrastive objective trains their directions. For a `reconstruction`
    they are not scaled; their products with the keys are the log fold change of each region.
    """

    def __init__(self, checkpoint: Checkpoint, known: KnownRegions, *, reconstruction: bool = False) -> None:
        self.net, self.preparation, self.reconstruction = checkpoint.net, dict(checkpoint.preparation), reconstruction
        self._features = known.features
        self.messages = self._of_ocrs(self.net.messages)
        if not known.found.any():  # all messages are equal then, and their sum only reflects depth
            self.messages = np.zeros_like(self.messages)

    @cached_property
    def keys(self) -> NDArray[np.float32]:
        """The profile of each entry of a cell vector, (L, d): profiles of cells are vectors times ``keys.T``."""
        return self._of_ocrs(self.net.keys)

    def _of_ocrs(self, part: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[np.float32]:
        """One output of the network for all OCRs, computed in blocks, because hidden layers are wider than the output."""
        import torch

        blocks = np.array_split(self._features, -(-len(self._features) // _OCRS_PER_BLOCK))
        with torch.inference_mode():
            parts = [part(self.net.embed_ocrs(None, None, None, torch.from_numpy(block))).numpy() for block in blocks]
        return np.concatenate(parts)

    def read(self, counts: csr_matrix, weighted: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `ProfileReader`; the network only reads the counts."""
        return self(counts)

    def __call__(self, counts: csr_matrix) -> NDArray[np.float32]:
        """Cell vectors of counts: (cells, L) -> (cells, d)."""
        return self.of_sums(prepare_rows(counts, **self.preparation) @ self.messages)

    def of_sums(self, total: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cell vectors of sums of messages: (cells, d + 1) -> (cells, d)."""
        import torch

        with torch.inference_mode():
            vectors = self.net.summarise(torch.from_numpy(total)).numpy()
        if not self.reconstruction:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


class RegionSetReader(CellReader):
    """Cell vectors by sums of messages. A changed copy of a cell differs from it by the messages of the OCRs that change."""

    def __init__(self, network: NetworkVectors) -> None:
        self._network = network

    chunk_size = _CHUNK

    def prepare(self, counts: csr_matrix) -> csr_matrix:
        """See `CellReader.prepare`."""
        return prepare_rows(counts, **self._network.preparation)

    def vectors(self, values: csr_matrix, names: NDArray[np.object_]) -> NDArray[np.float32]:
        """See `CellReader.vectors`."""
        return self._network.of_sums(values @ self._network.messages)

    def changed(
        self, values: csr_matrix, names: NDArray[np.object_], copies: Changes
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `CellReader.changed`."""
        # In double precision: of a sum from which its only message is taken nothing may stay.
        messages = self._network.messages.astype(np.float64)
        total = values.astype(np.float64) @ messages
        changed = total[copies.cell] + copies.added.astype(np.float64) @ messages
        before, after = (self._network.of_sums(x.astype(np.float32)) for x in (total, changed))
        return before, after
