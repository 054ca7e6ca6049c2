"""Name cells by what is known of their open regions: evidence, probabilities, names, and the table that says why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..genome import ocr_names
from ..genome.elements import load_element_table
from ..genome.promoters import load_promoters
from .cell_types import Signals, load_type_weights, n_averaged, neighborhoods, read_signals, shares, weigh_evidence
from .kinds import kind_of
from .type_tree import load_type_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..data import Cells
    from ..genome.elements import KnownElements
    from ..hub import Checkpoint
    from .kind import Request

UNKNOWN = "unknown"
# Number of cells to which the embedding is fitted: enough to find neighbours of a type, in a quarter of the time of `embed`.
_N_FIT_CELLS = 5_000
# Number of types, and of OCRs of each, in the table of evidence of a group.
_TYPES_PER_GROUP, _OCRS_PER_TYPE = 3, 5


@dataclass(frozen=True)
class NamedCells:
    """Names of cells.

    Attributes
    ----------
    names, terms
        Name and Cell Ontology id of the most specific term whose probability holds, ``"unknown"`` and ``""`` for none, (n,).
    best
        Name of the most probable type, also for unknown cells; ``"unknown"`` for cells without an open OCR, (n,).
    confidence
        Probability of the term; of unknown cells that of their most probable term. NaN without an open OCR, (n,).
    none
        Probability that the cell is of none of the types, (n,).
    probabilities
        Of each type, (n, n_types).
    fraction_known
        Fraction of the OCRs that overlap an element.
    """

    names: NDArray[np.object_]
    terms: NDArray[np.object_]
    best: NDArray[np.object_]
    confidence: NDArray[np.float64]
    none: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    fraction_known: float
    known: KnownElements


def name_cells(
    cells: Cells,
    checkpoint: Checkpoint,
    *,
    allowed: NDArray[np.bool_] | None,
    min_confidence: float,
    n_neighbors: int,
    request: Request,
) -> NamedCells:
    """Name cells without a reference.

    Parameters
    ----------
    cells
        Cells to name.
    checkpoint
        Model in whose embedding neighbours are sought.
    allowed
        Mask of the types that are possible, (n_types,); all if None.
    min_confidence
        Minimum probability of a name.
    n_neighbors
        Number of cells over which evidence is averaged, the cell itself included.
    request
        Options of the embedding.

    Raises
    ------
    ValueError
        If no OCR overlaps an element of the table, or no cell has an open OCR.
    """
    table, tree = load_element_table(), load_type_tree()
    known = table.lookup(cells.ocrs)
    there = np.flatnonzero(~cells.is_empty)
    _refuse_unknown(cells, known, len(there))

    # 1. Sums over open OCRs, averaged over neighbours in the embedding.
    kept = cells if len(there) == len(cells) else cells.subset(there)
    own = read_signals(kept, known, table.n_strata, seed=request.seed, progress=request.progress)
    vectors = None
    if (
        np.ptp(own.signs, axis=0).any() and n_averaged(len(kept), n_neighbors) > 1
    ):  # without a spread all cells are equal
        kind = kind_of(checkpoint)
        vectors = kind.embed(kept, kind.settle(replace(request, n_fit_cells=_N_FIT_CELLS))).vectors
    signals = own.averaged(neighborhoods(vectors, len(kept), n_neighbors, request.seed))

    # 2. Evidence, probabilities, and the most specific terms that hold.
    mean = Signals(*(x.mean(axis=0, keepdims=True) for x in own))
    evidence = weigh_evidence(signals, mean, table.expected())
    probabilities = np.full((len(cells), table.n_types + 1), np.nan)
    probabilities[there] = load_type_weights().probabilities(evidence, n_added=len(table.marked), allowed=allowed)
    term, confidence = tree.decide(np.nan_to_num(probabilities), min_confidence)
    confidence[cells.is_empty] = np.nan

    all_names = np.array([*(tree.name(i) for i in range(len(tree.terms))), UNKNOWN], dtype=object)
    best = np.asarray(table.type_names, dtype=object)[np.nan_to_num(probabilities[:, :-1]).argmax(axis=1)]
    best[cells.is_empty] = UNKNOWN
    return NamedCells(
        names=all_names[term],
        terms=np.array([*tree.terms, ""], dtype=object)[term],
        best=best,
        confidence=confidence,
        none=probabilities[:, -1],
        probabilities=probabilities[:, :-1].astype(np.float32),
        fraction_known=float(known.found.mean()),
        known=known,
    )


def _refuse_unknown(cells: Cells, known: KnownElements, n_there: int) -> None:
    if not known.types.nnz:
        msg = (
            f"None of the {cells.n_ocrs} OCRs of {cells.role} lies in a region with a known cell type, so its cells cannot be named. "
            "Check the coordinates and the genome build (sfa.pp.liftover_ocrs), or pass labelled cells as reference=."
        )
        raise ValueError(msg)
    if not n_there:
        msg = f"No cell of {cells.role} has an open OCR, so there is nothing to name."
        raise ValueError(msg)


def evidence_table(cells: Cells, named: NamedCells, codes: NDArray[np.int64], groups: Sequence[str]) -> pd.DataFrame:
    """What speaks for the three most probable types of each group of cells.

    Parameters
    ----------
    cells
        The cells.
    named
        Their names.
    codes
        Number of the group of each cell, -1 for cells outside all groups, (n,).
    groups
        Names of the groups.

    Returns
    -------
    One row per group and type, the most probable first: ``group``, ``n_cells``, ``type``, ``term_id``, ``probability`` (mean over cells),
    ``fold`` (weight of the type in the open OCRs of the group over what chance gives), ``fold_in_data`` (the same over all cells),
    ``n_ocrs`` (number of OCRs of the type that are open in the group), ``ocrs`` and ``genes`` (those that contribute most, and the nearest
    promoters).
    """
    table, known = load_element_table(), named.known
    codes = np.where(cells.is_empty, -1, codes)
    profiles, n_cells = _profiles(cells, codes, len(groups))
    expected = table.expected()[0]
    mean = profiles.T @ n_cells / max(n_cells.sum(), 1)  # (n_ocrs,)
    is_known = known.stratum >= 0
    in_data = known.types.T @ mean
    rows = []
    for g, name in enumerate(groups):
        if not n_cells[g]:
            continue
        profile = profiles[g]
        probability = np.nanmean(named.probabilities[codes == g], axis=0)
        weight = known.types.T @ profile
        chance = np.bincount(known.stratum[is_known], weights=profile[is_known], minlength=len(expected)) @ expected
        contrast = profile - mean if (n_cells > 0).sum() > 1 else profile
        for t in np.argsort(-probability, kind="stable")[:_TYPES_PER_GROUP]:
            of_type = known.types[:, [t]].toarray()[:, 0]
            top = np.argsort(-contrast * of_type, kind="stable")[:_OCRS_PER_TYPE]
            top = top[(contrast * of_type)[top] > 0]
            rows.append(
                {
                    "group": name,
                    "n_cells": int(n_cells[g]),
                    "type": table.type_names[t],
                    "term_id": table.type_ids[t],
                    "probability": float(probability[t]),
                    "fold": float(weight[t] / max(chance[t], 1e-12)),
                    "fold_in_data": float(weight[t] / max(in_data[t], 1e-12)),
                    "n_ocrs": int(((profile > 0) & (of_type > 0)).sum()),
                    **_described(cells.ocrs.iloc[top]),
                }
            )
    return pd.DataFrame(rows)


def _described(ocrs: pd.DataFrame) -> dict[str, Any]:
    genes = [gene for gene in load_promoters().nearest(ocrs)[0] if gene] if len(ocrs) else []
    return {"ocrs": ", ".join(ocr_names(ocrs)), "genes": ", ".join(dict.fromkeys(genes))}


def _profiles(cells: Cells, codes: NDArray[np.int64], n_groups: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean over the cells of each group of their open OCRs divided by the number of these, (n_groups, n_ocrs), and numbers of cells."""
    from scipy.sparse import csr_matrix

    profiles = np.zeros((n_groups, cells.n_ocrs))
    for rows, chunk in cells.iter_rows():
        used = np.flatnonzero(codes[rows] >= 0)
        member = csr_matrix((np.ones(len(used)), (codes[rows][used], used)), shape=(n_groups, chunk.shape[0]))
        profiles += (member @ shares(chunk)).toarray()
    n_cells = np.bincount(codes[codes >= 0], minlength=n_groups)
    return profiles / np.maximum(n_cells, 1)[:, None], n_cells
