"""Genome coordinates: names, chromosomes, intervals, overlap, liftover and genome builds. All coordinates are 0-based and half-open."""

from __future__ import annotations

from ._chromosomes import CHROMOSOME_SIZES, CHROMOSOMES, chromosome_ids, genome_order, normalize_chromosomes
from ._gene_weights import gene_weights
from ._genes import read_genes, transcription_starts
from ._intervals import best_overlaps, overlaps
from ._liftover import Chain, liftover, read_chain
from .build import check_genome
from .names import parse_names
from .ocrs import get_ocrs, ocr_names
from .promoter_table import read_promoters, select_genes
from .regions import KnownRegions, RegionTable, load_region_table

__all__ = [
    "CHROMOSOMES",
    "CHROMOSOME_SIZES",
    "Chain",
    "KnownRegions",
    "RegionTable",
    "best_overlaps",
    "check_genome",
    "chromosome_ids",
    "gene_weights",
    "genome_order",
    "get_ocrs",
    "liftover",
    "load_region_table",
    "normalize_chromosomes",
    "ocr_names",
    "overlaps",
    "parse_names",
    "read_chain",
    "read_genes",
    "read_promoters",
    "select_genes",
    "transcription_starts",
]
