"""Convert coordinates from one genome build to another with a UCSC chain file."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ._chromosomes import normalize_chromosomes

_GZIP = b"\x1f\x8b"


class _Block(NamedTuple):
    """An alignment without gaps: base ``x`` of the source is base ``slope * x + offset`` of the destination."""

    source: str
    start: int
    end: int
    destination: str
    slope: int
    offset: int
    chain: int


@dataclass(frozen=True)
class _Segments:
    """Sorted, disjoint blocks of one source chromosome, as arrays of equal length."""

    start: np.ndarray
    end: np.ndarray
    destination: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    chain: np.ndarray


@dataclass(frozen=True)
class Chain:
    """Alignment of two genome builds, as returned by :func:`read_chain`.

    Attributes
    ----------
    segments
        Aligned segments of each source chromosome.
    source_sizes, destination_sizes
        Number of bases of each chromosome of both builds.
    """

    segments: dict[str, _Segments]
    source_sizes: dict[str, int]
    destination_sizes: dict[str, int]


def _disjoint(blocks: list[_Block]) -> _Segments:
    """Cut overlapping blocks so that each base has one destination; later blocks take precedence."""
    edges = np.unique(np.array([(block.start, block.end) for block in blocks]))
    owner = np.full(len(edges), -1)
    first = np.searchsorted(edges, [block.start for block in blocks])
    last = np.searchsorted(edges, [block.end for block in blocks])
    for number, (low, high) in enumerate(zip(first, last, strict=True)):
        owner[low:high] = number
    owned = np.flatnonzero(owner >= 0)
    chosen = [blocks[number] for number in owner[owned]]
    return _Segments(
        start=edges[owned],
        end=edges[owned + 1],
        destination=np.array([block.destination for block in chosen], dtype=object),
        slope=np.array([block.slope for block in chosen], dtype=np.int64),
        offset=np.array([block.offset for block in chosen], dtype=np.int64),
        chain=np.array([block.chain for block in chosen], dtype=np.int64),
    )


def read_chain(path: str | Path, *, inverted: bool = False) -> Chain:
    """Read a UCSC chain file.

    Parameters
    ----------
    path
        Chain file, plain or gzipped.
    inverted
        Read the alignment in the opposite direction, from the destination of the chain to its source. If several chains cover a base,
        the one with the highest score is used.

    Raises
    ------
    ValueError
        If the file is not a chain file.
    """
    raw = Path(path).read_bytes()
    lines = (gzip.decompress(raw) if raw.startswith(_GZIP) else raw).decode().splitlines()
    blocks: list[tuple[float, _Block]] = []
    sizes: tuple[dict[str, int], dict[str, int]] = ({}, {})
    try:
        for line in lines:
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            if fields[0] == "chain":
                score, source, destination, strand = float(fields[1]), fields[2], fields[7], fields[9]
                source_at, destination_at, number = int(fields[5]), int(fields[10]), int(fields[12])
                length_source, length_destination = int(fields[3]), int(fields[8])
                sizes[0][source], sizes[1][destination] = length_source, length_destination
                continue
            size = int(fields[0])
            if strand == "+":
                slope, offset, mapped = 1, destination_at - source_at, destination_at
            else:  # coordinates on the minus strand are counted from the end of the chromosome
                slope, offset = -1, length_destination - 1 - destination_at + source_at
                mapped = length_destination - destination_at - size
            if inverted:
                block = _Block(destination, mapped, mapped + size, source, slope, -slope * offset, number)
            else:
                block = _Block(source, source_at, source_at + size, destination, slope, offset, number)
            blocks.append((score, block))
            if len(fields) == 3:
                source_at += size + int(fields[1])
                destination_at += size + int(fields[2])
    except (IndexError, ValueError, UnboundLocalError) as error:
        msg = f"{path} is not a UCSC chain file: cannot read the line {line[:80]!r}."
        raise ValueError(msg) from error
    if not blocks:
        msg = f"{path} is not a UCSC chain file: it contains no chain."
        raise ValueError(msg)
    by_source: dict[str, list[_Block]] = {}
    for _, block in sorted(blocks, key=lambda item: item[0]):
        by_source.setdefault(block.source, []).append(block)
    source_sizes, destination_sizes = sizes[::-1] if inverted else sizes
    return Chain({name: _disjoint(group) for name, group in by_source.items()}, source_sizes, destination_sizes)


def _segment_of(segments: _Segments, base: np.ndarray) -> np.ndarray:
    """Row number of the segment that contains each base, or -1."""
    row = np.searchsorted(segments.start, base, side="right") - 1
    return np.where((row >= 0) & (base < segments.end[row]), row, -1)


def liftover(ocrs: pd.DataFrame, chain: str | Path | Chain, *, tolerance: float = 0.1) -> pd.DataFrame:
    """Move intervals to another genome build.

    An interval is moved if its first and its last base lie in the same chain and its length changes by at most `tolerance`.

    Parameters
    ----------
    ocrs
        Table with columns ``chrom``, ``start``, ``end`` (0-based, half-open) and n rows.
    chain
        UCSC chain file, plain or gzipped, or the result of :func:`read_chain`.
    tolerance
        Maximum change of length, as a fraction of the old length.

    Returns
    -------
    Table with the index of `ocrs` and columns ``chrom``, ``start``, ``end`` (nullable ``Int64``), which are None and ``<NA>`` for
    intervals that have no counterpart in the new build.
    """
    if not isinstance(chain, Chain):
        chain = read_chain(chain)
    names = normalize_chromosomes(ocrs["chrom"])
    start, end = ocrs["start"].to_numpy(np.int64), ocrs["end"].to_numpy(np.int64)
    chrom = np.full(len(ocrs), None, dtype=object)
    positions = np.zeros((2, len(ocrs)), dtype=np.int64)
    for name, segments in chain.segments.items():
        rows = np.flatnonzero(names == name)
        first, last = _segment_of(segments, start[rows]), _segment_of(segments, end[rows] - 1)
        kept = (first >= 0) & (last >= 0) & (segments.chain[first] == segments.chain[last])
        rows, first, last = rows[kept], first[kept], last[kept]
        one = segments.slope[first] * start[rows] + segments.offset[first]
        other = segments.slope[last] * (end[rows] - 1) + segments.offset[last]
        low, high = np.minimum(one, other), np.maximum(one, other) + 1
        length = end[rows] - start[rows]
        kept = np.abs(high - low - length) <= tolerance * length
        chrom[rows[kept]] = segments.destination[first[kept]]
        positions[:, rows[kept]] = low[kept], high[kept]
    lost = np.array([value is None for value in chrom], dtype=bool)
    return pd.DataFrame(
        {
            "chrom": pd.Series(chrom, dtype=object, index=ocrs.index),
            "start": pd.arrays.IntegerArray(positions[0], lost.copy()),
            "end": pd.arrays.IntegerArray(positions[1], lost),
        },
        index=ocrs.index,
    )
