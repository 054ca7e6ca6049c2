"""The table of links, put together from the groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..genome import chromosome_ids, load_region_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..inference.link_features import Pairs
    from ..inference.links import Scored
    from ..inference.matched_null import Places

_PER = 1e4  # accessibility is given per so many counts of a group


def places_of(
    ocrs: pd.DataFrame, promoters: pd.DataFrame, gene: NDArray[np.int64]
) -> tuple[Places, Places, NDArray[np.float32]]:
    """Where OCRs and genes lie, and the fraction of the biosamples in which each OCR is open, for a null of like OCRs elsewhere.

    Of a gene with several starts, the first stands for all: null OCRs are on other chromosomes. `gene` is the number of the gene of each
    start.
    """
    from ..inference.matched_null import Places

    tss = promoters.iloc[np.unique(gene, return_index=True)[1]]
    middle = ((ocrs["start"] + ocrs["end"]) // 2).to_numpy()
    return (
        Places(chromosome_ids(ocrs["chrom"]), middle),
        Places(chromosome_ids(tss["chrom"]), tss["tss"].to_numpy()),
        load_region_table().lookup(ocrs).openness,
    )


def nearest_starts(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], gene: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of each OCR with the nearest start of each gene, by gene and OCR; `gene` is the number of the gene of each start."""
    ocr, start, distance = pairs
    order = np.lexsort((distance, ocr, gene[start]))
    ocr, start, distance = ocr[order], start[order], distance[order]
    of = gene[start]
    is_first = np.append(True, (ocr[1:] != ocr[:-1]) | (of[1:] != of[:-1])) if len(ocr) else np.zeros(0, dtype=bool)
    return ocr[is_first], start[is_first], distance[is_first]


def columns_of_genes(names: pd.Index, promoters: pd.DataFrame) -> NDArray[np.int64]:
    """Number among `names` of the gene of each start of transcription, by symbol or else by Ensembl id, -1 for none."""
    columns = names.get_indexer(promoters["name"]) if names.is_unique else np.full(len(promoters), -1)
    ids = pd.Index(names.astype(str).str.partition(".").get_level_values(0)) if len(names) else names
    if ids.is_unique:
        by_id = ids.get_indexer(promoters["id"].astype(str).str.partition(".")[0])
        columns = np.where(columns < 0, by_id, columns)
    return columns.astype(np.int64)


def links_of_group(
    described: Pairs,
    group: int,
    sums: NDArray[np.float64],
    abc: NDArray[np.float32],
    scored: Scored,
    kept: NDArray[np.bool_] | slice,
) -> dict[str, NDArray[Any]]:
    """Columns of those links of a group that are kept."""
    ocr = described.ocr[kept]
    accessibility = (_PER * sums / max(sums.sum(), 1e-12)).astype(np.float32)
    columns = {
        "start_": described.start[kept].astype(np.int32),
        "ocr": ocr.astype(np.int32),
        "group": np.full(len(ocr), group, dtype=np.int32),
        "distance": described.distance[kept].astype(np.int32),
        "accessibility": accessibility[ocr],
        "abc": abc[kept],
    }
    given = {name: values for name, values in scored._asdict().items() if values is not None}
    return columns | {name: np.asarray(values, dtype=np.float32)[kept] for name, values in given.items()}


def as_table(
    parts: list[dict[str, NDArray[Any]]], ocrs: pd.DataFrame, promoters: pd.DataFrame, groups: list[str]
) -> pd.DataFrame:
    """The parts of all groups as one table; texts are categories, so that a million rows stay small.

    Genes without a link are categories too, which tells them from genes that were not asked for.
    """
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    start, ocr, group = columns.pop("start_"), columns.pop("ocr"), columns.pop("group")
    table = {
        "gene": _categories(promoters["name"], start),
        "gene_id": _categories(promoters["id"], start),
        "ocr": _categories(ocrs.index.to_series(), ocr).remove_unused_categories(),
        "chrom": _categories(ocrs["chrom"], ocr).remove_unused_categories(),
        "start": ocrs["start"].to_numpy(np.int64)[ocr],
        "end": ocrs["end"].to_numpy(np.int64)[ocr],
        "group": pd.Categorical.from_codes(group, groups),
    }
    return pd.DataFrame(table | columns)


def _categories(texts: pd.Series, rows: NDArray[np.integer]) -> pd.Categorical:
    """The texts of `rows`, with all texts as categories."""
    codes, values = pd.factorize(texts.astype(str).to_numpy(dtype=object))
    return pd.Categorical.from_codes(codes[rows], values)
