"""A table of human genes, downloaded on request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .._docs import shared_docs
from .._download import fetch_file
from .._settings import settings

if TYPE_CHECKING:
    import os

    import pandas as pd

Genes: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | None"

_FILE = "genes_grch38.bed"
_URL = (
    "https://raw.githubusercontent.com/broadinstitute/ABC-Enhancer-Gene-Prediction/885d08566ebd7a3d3b792011bc3e624fa2aadc20/"
    "reference/hg38/CollapsedGeneBounds.hg38.bed"
)
_SHA256 = "b63b8cd30cdff6756316b080b85a5b1006333157dde1baae70c4a4285afd55c7"
_NAMES = {"#chr": "chrom", "Ensembl_ID": "id", "gene_type": "type"}
_COLUMNS = ["chrom", "start", "end", "name", "strand", "id", "type"]


@shared_docs
def genes(*, cache_dir: str | os.PathLike[str] | None = None, progress: bool | None = None) -> pd.DataFrame:
    """Download the table of 20,666 genes on GRCh38 for gene activity (1.3 MB, once).

    The collapsed gene bounds of the Activity-by-Contact model, broadinstitute/ABC-Enhancer-Gene-Prediction (MIT): one row per gene symbol,
    from its first to its last transcribed base; 18,942 are protein-coding. After the download, functions with ``genes=None`` use it, also
    without a network.

    Parameters
    ----------
    cache_dir
        Folder of downloads; ``scfound_atac.settings.cache_dir`` by default. Functions with ``genes=None`` only use the default folder; pass
        them the table if it is elsewhere.
    progress
        {progress}

    Returns
    -------
    Table with ``chrom``, ``start``, ``end`` (0-based, half-open), ``name`` (symbol), ``strand``, ``id`` (Ensembl), ``type``.

    Raises
    ------
    ConnectionError
        If there is no network; the message says where to copy the file by hand.
    ValueError
        If the download has a wrong checksum. It is removed.
    """
    import pandas as pd

    path = genes_path(cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    fetch_file(path, _URL, _SHA256, progress=settings.progress_bar if progress is None else progress)
    return pd.read_csv(path, sep="\t").rename(columns=_NAMES)[_COLUMNS]


def genes_path(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Path of the file of `genes`, whether or not it exists."""
    return (settings.cache_dir if cache_dir is None else Path(cache_dir).expanduser()) / "genes" / _FILE


def given_or_downloaded(genes: Genes) -> str | os.PathLike[str] | pd.DataFrame:
    """The given table, or the path of the downloaded one if None was given. Nothing is downloaded here.

    Raises
    ------
    FileNotFoundError
        If None was given and nothing was downloaded before.
    """
    if genes is not None:
        return genes
    path = genes_path()
    if not path.is_file():
        msg = (
            "No table of genes was downloaded to this machine. sfa.datasets.genes() downloads it once (1.3 MB); or pass "
            "the path of a BED file, or a DataFrame with chrom, start, end, name and strand, as genes=."
        )
        raise FileNotFoundError(msg)
    return path
