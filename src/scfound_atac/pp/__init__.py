"""Preprocessing: filters, coordinates, pairs of cells, mapping between OCR sets, and linear embeddings."""

from __future__ import annotations

from ._aggregate_neighbors import aggregate_neighbors
from ._bin_expression import bin_expression
from ._filter_cells import filter_cells
from ._filter_ocrs import filter_ocrs
from ._liftover_ocrs import liftover_ocrs
from ._lsi import lsi
from ._map_ocrs import map_ocrs
from ._pair_cells import pair_cells
from ._parse_ocrs import parse_ocrs
from ._recipe_chromfound import recipe_chromfound
from ._spectral import spectral

__all__ = [
    "aggregate_neighbors",
    "bin_expression",
    "filter_cells",
    "filter_ocrs",
    "liftover_ocrs",
    "lsi",
    "map_ocrs",
    "pair_cells",
    "parse_ocrs",
    "recipe_chromfound",
    "spectral",
]
