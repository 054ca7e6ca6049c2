"""Chromosome names, lengths and order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

CHROMOSOMES: tuple[str, ...] = (*(f"chr{number}" for number in range(1, 23)), "chrX", "chrY")
"""The chromosomes that models know, in genome order. The number of a chromosome is its position here + 1; 0 is padding."""

# fmt: off
_GRCH38_LENGTHS = (
    248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636, 138394717, 133797422,
    135086622, 133275309, 114364328, 107043718, 101991189, 90338345, 83257441, 80373285, 58617616, 64444167,
    46709983, 50818468, 156040895, 57227415,
)
_HG19_LENGTHS = (
    249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022, 141213431, 135534747,
    135006516, 133851895, 115169878, 107349540, 102531392, 90354753, 81195210, 78077248, 59128983, 63025520,
    48129895, 51304566, 155270560, 59373566,
)
# fmt: on

CHROMOSOME_SIZES: dict[str, dict[str, int]] = {
    "GRCh38": dict(zip(CHROMOSOMES, _GRCH38_LENGTHS, strict=True)),
    "hg19": dict(zip(CHROMOSOMES, _HG19_LENGTHS, strict=True)),
}
"""Number of bases of each chromosome, for each genome build."""

_BUILD = re.compile(
    r"(?:grch38(?:[._-]?p\d+)?(?:-20\d\d-[a-z])?|hg38(?:[._-]?p\d+)?)[._:#-]+(?=[A-Za-z0-9])", re.IGNORECASE
)
_SPELLED_OUT = re.compile(r"(?:chr|chrom|chromosome)?[ _]?0?(\d+|x|y|m|mt)(?:\.0+)?", re.IGNORECASE)
_TEXT_OF_BYTES = re.compile(r"""b(['"])(.*)\1""")
# Versions of the RefSeq accessions (NC_000001.11, ...) of GRCh38; other versions belong to other builds.
# fmt: off
_REFSEQ_VERSIONS = (11, 12, 12, 12, 10, 12, 14, 11, 12, 11, 10, 12, 11, 9, 10, 10, 11, 10, 10, 11, 9, 11, 11, 10)
# fmt: on
_NUMBERS = {name[3:].lower(): name for name in CHROMOSOMES} | {"23": "chrX", "24": "chrY", "m": "chrM", "mt": "chrM"}
_ACCESSIONS = (
    {f"nc_{i:06d}.{version}": CHROMOSOMES[i - 1] for i, version in enumerate(_REFSEQ_VERSIONS, start=1)}
    | {f"cm{663 + i:06d}.2": name for i, name in enumerate(CHROMOSOMES)}
    | {"nc_012920.1": "chrM", "j01415.2": "chrM"}
)


def without_build(name: str) -> str:
    """The name of a contig without a prefix such as ``GRCh38_`` or ``hg38.``."""
    return _BUILD.sub("", name, count=1) if _BUILD.match(name) else name


def _known_chromosome(name: str) -> str | None:
    stem = without_build(name).lower()
    spelled = _SPELLED_OUT.fullmatch(stem)
    return _NUMBERS.get(spelled[1]) if spelled else _ACCESSIONS.get(stem)


def is_chromosome(name: str) -> bool:
    """Whether a name means chr1 to chr22, X, Y or M."""
    return _known_chromosome(name) is not None


def _normalize_one(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    elif isinstance(value, int | float | np.number):
        value = str(int(value)) if float(value).is_integer() else str(value)
    name = str(value).strip()
    text_of_bytes = _TEXT_OF_BYTES.fullmatch(name)
    if text_of_bytes:
        name = text_of_bytes[2]
    return _known_chromosome(name) or without_build(name)


def normalize_chromosomes(values: Iterable[Any]) -> NDArray[np.object_]:
    """Convert chromosome names to the spelling of UCSC.

    Parameters
    ----------
    values
        Names (``"chr1"``, ``"1"``, ``b"chrX"``, ``"b'chr1'"``, ``"MT"``, ``"GRCh38_chr1"``, ``"hg38.chr1"``, or the accessions of
        GRCh38 such as ``"NC_000001.11"``) or numbers (1 to 22, 23 for X, 24 for Y, also as floats), of any length n. Case is ignored.

    Returns
    -------
    Array of n strings: ``"chr1"`` to ``"chr22"``, ``"chrX"``, ``"chrY"``, ``"chrM"``; other contigs keep their name.
    """
    codes, unique = pd.factorize(pd.Series(values, copy=False), use_na_sentinel=False)
    return np.array([_normalize_one(value) for value in unique], dtype=object)[codes]


def chromosome_ids(chrom: Iterable[Any]) -> NDArray[np.int64]:
    """Convert chromosome names to the numbers that models use.

    Parameters
    ----------
    chrom
        Chromosome names or numbers in any spelling that :func:`normalize_chromosomes` knows, of length n.

    Returns
    -------
    Array of n numbers: 1 to 22, X = 23, Y = 24; 0 for chrM, scaffolds and anything else.
    """
    codes, unique = pd.factorize(normalize_chromosomes(chrom))
    numbers = {name: number for number, name in enumerate(CHROMOSOMES, start=1)}
    return np.array([numbers.get(name, 0) for name in unique], dtype=np.int64)[codes]


def genome_order(ocrs: pd.DataFrame) -> NDArray[np.int64]:
    """Sort OCRs along the genome.

    Parameters
    ----------
    ocrs
        Table with columns ``chrom``, ``start``, ``end`` and n rows.

    Returns
    -------
    Permutation of n row numbers: chr1 to chr22, X, Y, then other contigs by name; within a chromosome by start, then by end. Equal OCRs
    keep their order.
    """
    names = normalize_chromosomes(ocrs["chrom"])
    ids = chromosome_ids(names)
    # All scaffolds have number 0, so they are sorted by name, and come last.
    contig = pd.factorize(np.where(ids > 0, "", names), sort=True)[0]
    major = np.where(ids > 0, ids, len(CHROMOSOMES) + contig)
    return np.lexsort((ocrs["end"].to_numpy(), ocrs["start"].to_numpy(), major)).astype(np.int64, copy=False)
