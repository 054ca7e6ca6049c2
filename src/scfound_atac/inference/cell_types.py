"""Cell types of cells without a reference, from the regulatory elements that are open in them.

Glossary
    n, L    cells, OCRs
    T       cell types that the element table knows
    C       classes of elements: how often and how strongly they are open in bulk samples
    p       counts of a cell as 0/1, divided by their number and averaged over the cell and its neighbours (n, L)
    A       weight of each type in each OCR (L, T)

For a cell and a type t::

    S_t = sum over j of p_j A_jt                          what is open of the type
    E_t = sum over j of p_j mean(A_t | class of j)        what chance gives: OCRs that are open as often and as strongly elsewhere
    M_t = mean of S_t over cells                          what the data set as a whole has open of it

Both differences, S - E and S - M, count. The first names a cell also where all cells are alike; the second takes out what the choice of
OCRs and the laboratory add to every cell. Each is measured in two ways: against its noise, and as a change in proportion::

    z  = (S - E) / sqrt(N V_t)
    lo = log((E + shrink(S - E)) / E)      shrink(x) moves x towards 0 by two standard deviations sqrt(N V_t)

``V_t`` is the variance of A_t within classes. ``N = sum over domains of (sum of p_j over OCRs j of the domain)^2`` is the noise of a sum
over OCRs if what is known were dealt out to domains of the genome by chance: it falls with the depth of a cell, with its number of
neighbours, and with the number of OCRs and domains that the peak set has. It is estimated with random signs of domains.

The logit of a type is a weighted sum of the four numbers, of z its cube root, and "none of them" has a logit of its own. The weights were
learned from cells whose type is known: one bone-marrow donor, and cells simulated from bulk samples of primary cells
(``scripts/fit_cell_types.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax
from tqdm.auto import tqdm

from ..data import is_open, prepare_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..data import Cells
    from ..genome.elements import KnownElements

# Bases of a domain. OCRs of a gene's surroundings are open together and known for the same types, so that they are not independent.
_DOMAIN = 100_000
# Number of random signs per domain: N is known up to a quarter of its value, its logarithm being what matters.
_N_SIGNS = 32
# Added to S, E and M in proportions, so that types with few elements in a peak set do not win by chance. It is a twentieth of a typical E.
_MIN_WEIGHT = 5e-4
# Standard deviations by which a difference is shrunk.
_SHRINK = 2.0
# Minimum variance of A_t, for types of which a class has no element.
_MIN_VARIANCE = 1e-5
# Cells per neighbour: with fewer cells, neighbours are of other types.
_CELLS_PER_NEIGHBOR = 10
# Number of cells among which neighbours are sought, which bounds time.
_NEIGHBOR_CELLS = 20_000
_CHUNK = 4_096
# Information of a typical cell; it only sets where the learned weights are read.
_TYPICAL_INFORMATION = 2.5

FEATURES = ("z_expected", "z_mean", "lo_expected", "lo_mean")


class Signals(NamedTuple):
    """Sums over the open OCRs of cells, each a row of p times a matrix with a row per OCR; they can be averaged over cells.

    Attributes
    ----------
    types
        S, (n, T).
    classes
        Fraction of the open OCRs in each class, (n, C).
    signs
        Sums of random signs of domains, (n, _N_SIGNS).
    """

    types: NDArray[np.float32]
    classes: NDArray[np.float32]
    signs: NDArray[np.float32]

    def averaged(self, neighbors: csr_matrix) -> Signals:
        """Averages over neighbours, whose weights (n, n) add up to 1 in each row."""
        return Signals(*(np.asarray(neighbors @ x) for x in self))


def shares(counts: csr_matrix) -> csr_matrix:
    """Rows of p of single cells: 1 for each open OCR, divided by their number."""
    return prepare_rows(is_open(counts), target_sum=1.0, log1p=False)


def read_signals(
    cells: Cells, known: KnownElements, n_classes: int, *, seed: int = 0, progress: bool = True
) -> Signals:
    """Stream cells into sums over their open OCRs; those of empty cells are 0."""
    from scipy.sparse import csr_matrix

    # 1. Matrices with a row per OCR: classes as 0/1 columns, and signs that all OCRs of a domain share.
    is_known = np.flatnonzero(known.stratum >= 0)
    classes = csr_matrix(
        (np.ones(len(is_known), np.float32), (is_known, known.stratum[is_known])), shape=(cells.n_ocrs, n_classes)
    )
    chrom = pd.factorize(cells.ocrs["chrom"].to_numpy())[0].astype(np.int64)
    domain = pd.factorize((chrom << 32) + cells.ocrs["start"].to_numpy() // _DOMAIN)[0]
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1, 1], np.float32), size=(domain.max() + 1, _N_SIGNS))[domain]
    signs[~known.found] = 0  # an OCR without an element adds nothing to S
    # 2. Rows of p times these, in chunks.
    out = Signals(*(np.zeros((len(cells), k), np.float32) for k in (known.types.shape[1], n_classes, _N_SIGNS)))
    with tqdm(total=len(cells), unit="cells", disable=not progress, desc="cell types") as bar:
        for rows, chunk in cells.iter_rows(chunk_size=_CHUNK):
            p = shares(chunk)
            out.types[rows] = (p @ known.types).toarray()
            out.classes[rows] = (p @ classes).toarray()
            out.signs[rows] = p @ signs
            bar.update(chunk.shape[0])
    return out


def n_averaged(n_cells: int, n_neighbors: int) -> int:
    """Number of cells to average over, the cell itself included: at most `n_neighbors`, fewer if there are few cells, 1 for no average."""
    n = min(n_neighbors, n_cells // _CELLS_PER_NEIGHBOR)
    return n if n > 1 else 1


def neighborhoods(vectors: NDArray[np.float32] | None, n_cells: int, n_neighbors: int, seed: int = 0) -> csr_matrix:
    """Weights (n, n) that average over each cell and its nearest cells; fewer than `n_neighbors` if there are few cells."""
    from scipy.sparse import csr_matrix, identity
    from sklearn.neighbors import NearestNeighbors

    n_neighbors = n_averaged(n_cells, n_neighbors)
    if vectors is None or n_neighbors == 1:
        return identity(n_cells, dtype=np.float32, format="csr")
    some = np.arange(n_cells)
    if n_cells > _NEIGHBOR_CELLS:
        some = np.sort(np.random.default_rng(seed).choice(n_cells, _NEIGHBOR_CELLS, replace=False))
    nearest = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(vectors[some])
    found = some[nearest.kneighbors(vectors, return_distance=False)]
    itself = np.arange(n_cells)
    beside = np.where((found == itself[:, None]).cumsum(axis=1) > 0, np.roll(found, -1, axis=1), found)[
        :, : n_neighbors - 1
    ]
    columns = np.column_stack([itself, beside])  # (n, n_neighbors)
    weights = np.full(columns.size, 1 / n_neighbors, dtype=np.float32)
    return csr_matrix((weights, columns.ravel(), np.arange(0, columns.size + 1, n_neighbors)), shape=(n_cells, n_cells))


class Evidence(NamedTuple):
    """What speaks for each type in each cell.

    Attributes
    ----------
    features
        The four numbers of the module's description for each type, (n, T, 4).
    information
        ``log10(1 / N)`` of S - E: the number of domains that tell of a cell, on a logarithmic scale, (n,).
    """

    features: NDArray[np.float32]
    information: NDArray[np.float32]


def weigh_evidence(
    signals: Signals, mean: Signals, expected: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> Evidence:
    """Compare what is open of each type with what chance gives, and with the data set.

    Parameters
    ----------
    signals
        Of n cells, averaged over neighbours.
    mean
        Of the data set: means over all cells that are not empty, with one row.
    expected
        Mean and variance of the weight of each type in each class, both (C, T).
    """
    # 1. Expected sums and variances by the classes of the open OCRs.
    e = signals.classes @ expected[0]  # (n, T)
    v = np.maximum(signals.classes @ expected[1], _MIN_VARIANCE)
    # 2. Noise of both differences.
    n_expected = (signals.signs**2).mean(axis=1, keepdims=True)  # (n, 1)
    n_mean = ((signals.signs - mean.signs) ** 2).mean(axis=1, keepdims=True)
    # 3. Both differences, each in two ways.
    pairs = ((e, n_expected), (np.broadcast_to(mean.types, e.shape), n_mean))
    parts = []
    for base, noise in pairs:
        difference, deviation = signals.types - base, np.sqrt(noise * v)
        z = np.divide(difference, deviation, out=np.zeros_like(difference), where=deviation > 0)
        shrunk = np.sign(difference) * np.maximum(np.abs(difference) - _SHRINK * deviation, 0)
        low = np.log((np.maximum(base + shrunk, 0) + _MIN_WEIGHT) / (base + _MIN_WEIGHT))
        # z has no upper bound, as it grows with depth; its cube root keeps types with many elements from winning by that alone.
        parts.append((np.cbrt(z), low))
    (z_expected, lo_expected), (z_mean, lo_mean) = parts
    information = -np.log10(np.maximum(n_expected[:, 0], 1e-12))
    features = np.stack([z_expected, z_mean, lo_expected, lo_mean], axis=2).astype(np.float32)
    return Evidence(features, information.astype(np.float32))


@dataclass(frozen=True)
class TypeWeights:
    """Learned weights of the evidence.

    Attributes
    ----------
    features
        Weight of each of `FEATURES`.
    added
        Added to the logit of types that come from sorted bulk samples instead of REMO.
    none
        Logit of "none of the types".
    sharpness
        Logits are multiplied by ``exp(sharpness * (information - 2.5))``, because a cell of which a thousand domains tell is known better
        than one of which ten do.
    """

    features: NDArray[np.float64]
    added: float
    none: float
    sharpness: float

    def probabilities(
        self, evidence: Evidence, *, n_added: int, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Probability of each type, and of none in the last column, (n, T + 1); of the types outside `allowed` (T,) it is 0."""
        logits = evidence.features @ self.features  # (n, T)
        logits[:, logits.shape[1] - n_added :] += self.added
        if allowed is not None:
            logits[:, ~allowed] = -np.inf
        logits = np.column_stack([logits, np.full(len(logits), self.none)])
        return softmax(logits * np.exp(self.sharpness * (evidence.information - _TYPICAL_INFORMATION))[:, None], axis=1)

    @classmethod
    def load(cls, path: Path) -> TypeWeights:
        """Read the weights that ``scripts/fit_cell_types.py`` wrote."""
        facts = json.loads(path.read_text(encoding="utf-8"))
        features = np.array([facts["features"][name] for name in FEATURES])
        return cls(features, facts["added"], facts["none"], facts["sharpness"])


@cache
def load_type_weights() -> TypeWeights:
    """The weights in the package, which are read only once."""
    return TypeWeights.load(Path(__file__).with_name("cell_types.json"))
