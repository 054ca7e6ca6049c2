"""The human genes in the package: bounds, symbols, strands, Ensembl ids and types, on GRCh38.

They are the collapsed gene bounds of the Activity-by-Contact model (broadinstitute/ABC-Enhancer-Gene-Prediction, MIT), one row per symbol;
``scripts/build_gene_table.py`` packs them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ._chromosomes import CHROMOSOMES
from .line import of_chromosomes

BUNDLED_GENES = "gene_table.npz"
_COLUMNS = ["chrom", "start", "end", "name", "strand", "id", "type"]


def pack(genes: pd.DataFrame, path: Path) -> int:
    """Write the genes on known chromosomes, in genome order, to `path`; their number is returned."""
    number = {name: i for i, name in enumerate(CHROMOSOMES)}
    genes = genes[genes["chrom"].isin(CHROMOSOMES)].assign(number=lambda x: x["chrom"].map(number))
    genes = genes.sort_values(["number", "start", "end", "name"])
    types, kinds = pd.factorize(genes["type"], sort=True)
    np.savez_compressed(
        path,
        n_per_chromosome=np.bincount(genes["number"], minlength=len(CHROMOSOMES)),
        start=genes["start"].to_numpy(np.int32),
        length=(genes["end"] - genes["start"]).to_numpy(np.int32),
        is_plus=np.packbits(genes["strand"] == "+"),
        type=types.astype(np.uint8),
        types="\n".join(kinds),
        names="\n".join(genes["name"]),
        ids="\n".join(genes["id"]),
    )
    return len(genes)


def load_gene_table() -> pd.DataFrame:
    """The genes: ``chrom``, ``start``, ``end`` (0-based, half-open), ``name``, ``strand``, ``id`` and ``type``, in genome order."""
    return _load().copy()


@cache
def _load() -> pd.DataFrame:
    with np.load(Path(__file__).with_name(BUNDLED_GENES)) as file:
        start = file["start"].astype(np.int64)
        is_plus = np.unpackbits(file["is_plus"])[: len(start)].astype(bool)
        table = pd.DataFrame(
            {
                "chrom": np.array(CHROMOSOMES, dtype=object)[of_chromosomes(file["n_per_chromosome"]) - 1],
                "start": start,
                "end": start + file["length"],
                "name": str(file["names"]).split("\n"),
                "strand": np.where(is_plus, "+", "-").astype(object),
                "id": str(file["ids"]).split("\n"),
                "type": np.array(str(file["types"]).split("\n"), dtype=object)[file["type"]],
            }
        )
        return table[_COLUMNS]
