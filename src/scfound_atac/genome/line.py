"""A single line for all positions of a genome, so that intervals of all chromosomes can be searched at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._chromosomes import CHROMOSOMES, chromosome_ids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Bits for a position: no chromosome is nearly as long, so that chromosomes lie on the line with gaps between them.
_SPAN = 40


def along_genome(chrom: Iterable[Any], position: Any) -> NDArray[np.int64]:
    """Positions on a single line, on which chromosomes follow each other with large gaps; scaffolds lie before chr1."""
    return on_line(chromosome_ids(chrom), np.asarray(position, dtype=np.int64))


def on_line(chromosome: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same for numbers of chromosomes, as `chromosome_ids` gives them."""
    return (chromosome << _SPAN) + position


def of_chromosomes(n_per_chromosome: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of chromosomes of rows that are sorted by them, given how many rows each has."""
    return np.repeat(np.arange(1, len(CHROMOSOMES) + 1), n_per_chromosome)


def same_chromosome(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether two positions on the line lie on one chromosome."""
    return a >> _SPAN == b >> _SPAN


def chromosome_of(line: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the chromosomes of places on the line."""
    return line >> _SPAN


def place_of(line: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of chromosomes, and positions on these, of places on the line: the inverse of `on_line`."""
    return chromosome_of(line), line & ((1 << _SPAN) - 1)
