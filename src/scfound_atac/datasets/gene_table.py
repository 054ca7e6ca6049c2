"""A table of human genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import os

    import pandas as pd

Genes: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | None"


def genes() -> pd.DataFrame:
    """The table of 20,666 human genes on GRCh38 that functions with ``genes=None`` use; it is part of the package.

    The collapsed gene bounds of the Activity-by-Contact model, broadinstitute/ABC-Enhancer-Gene-Prediction (MIT): one row per gene symbol,
    from its first to its last transcribed base, in genome order; 18,942 are protein-coding.

    Returns
    -------
    Table with ``chrom``, ``start``, ``end`` (0-based, half-open), ``name`` (symbol), ``strand``, ``id`` (Ensembl), ``type``. It is a copy,
    which can be changed and passed on as ``genes=``.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> genes = sfa.datasets.genes()
    >>> sfa.tl.gene_activity(adata, genes=genes[genes["type"] == "protein_coding"])
    """
    from ..genome.gene_table import load_gene_table

    return load_gene_table()


def given_or_bundled(table: Genes) -> str | os.PathLike[str] | pd.DataFrame:
    """The given table, or that of the package if None was given."""
    return genes() if table is None else table
