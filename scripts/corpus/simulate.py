"""Simulated single-cell studies: cells drawn from the accessibility of bulk biosamples.

The forms of the distributions were fitted to bone-marrow cells whose types have a sorted bulk sample
(``benchmarks/simulator_check.py``): the rate of fragments in an open bin rises exponentially with the rank of its bulk signal,
about tenfold from the lowest rank to the highest, and is higher where many biosamples are open; a good quarter of the fragments
lie in OCRs closed in the bulk sample, half of them wherever, half in OCRs that other biosamples have open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from random_ocrs import random_ocrs
from scfound_atac.genome import chromosome_ids, ocr_names, overlaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_MAX_RANK = 255
_OPENNESS_POWER = 1.5
# Relatedness is told from every eighth bin: the ranking of neighbours is the same and the product eight times cheaper.
_SIMILARITY_STEP = 8
_N_PARTNERS = 3
_FRAGMENTS_PER_CHUNK = 4_000_000
_DOMAIN = 100_000
_KINSHIP_POWER = 2
_MIN_OPEN, _MAX_OPEN, _MAX_SHARE = 10, 30_000, 0.6


@dataclass(frozen=True)
class StudyDesign:
    """What differs between studies."""

    n_biosamples: int = 10
    """Biosamples in the study."""
    related: bool = True
    """Whether they are neighbours of one of them, or any."""
    composition: float = 2.0
    """Dirichlet parameter of the share of cells per biosample; small is uneven."""
    mixture_share: float = 0.2
    """Share of cells between two related biosamples."""
    fold: float = 10.0
    """Rate of fragments at the highest rank over the rate at the lowest."""
    common: float = 5.0
    """Rate of fragments in a bin open in all biosamples over that in one open in few, at the same rank."""
    dropout: float = 0.1
    """Share of 100 kb domains without fragments in a cell; each cell has its own."""
    noise: float = 0.14
    """Mean share of a cell's fragments spread over all OCRs, by their width."""
    leak: float = 0.12
    """Mean share of a cell's fragments drawn to what other biosamples have open."""
    background_sigma: float = 0.25
    """Log standard deviation of both shares over cells."""
    bias_sigma: float = 0.8
    """Log standard deviation of a factor of each OCR, the same in all cells of the study."""
    type_sigma: float = 0.05
    """Log standard deviation of a factor of each OCR in each biosample: the study's cells are not quite the bulk sample's."""
    alike: float = 0.8
    """Share of a biosample's profile that is a mean over its relatives in the study: bulk samples differ by more than cells do."""
    median_open: float = 2_000.0
    """Median number of open OCRs per cell."""
    depth_sigma: float = 0.55
    """Log standard deviation of the number of open OCRs over cells."""
    counts: Literal["insertions", "fragments", "binary"] = "insertions"
    """What is counted: transposase insertions (one or two per fragment), fragments, or only whether there is any."""
    closed_share: float = 0.2
    """Share of OCRs that are open in no biosample of the study."""
    selection: float = 0.5
    """Preference of the peak set for strong regions; 0 is none."""
    width: int | None = None
    """Bases of every OCR, or None for varying widths."""


def random_design(n_ocrs: int, *, seed: int = 0) -> StudyDesign:
    """Draw a study's design.

    Parameters
    ----------
    n_ocrs
        OCRs of the study. The median number of open ones is 0.4 to 20 % of them, and from 200 to 30,000; of few OCRs it is
        up to 30 %, so that no cell is near empty.
    seed
        Same seed, same design.
    """
    rng = np.random.default_rng(seed)
    lowest = min(max(0.004 * n_ocrs, 200), 0.3 * n_ocrs, 30_000)
    highest = max(min(0.2 * n_ocrs, 30_000), lowest)
    return StudyDesign(
        n_biosamples=round(np.exp(rng.uniform(np.log(3), np.log(40)))),
        related=bool(rng.random() < 0.5),
        composition=float(np.exp(rng.uniform(np.log(0.7), np.log(5)))),
        mixture_share=float(rng.choice([0.0, rng.uniform(0.05, 0.4)])),
        fold=float(np.exp(rng.uniform(np.log(6), np.log(20)))),
        common=float(np.exp(rng.uniform(np.log(2), np.log(8)))),
        dropout=float(rng.uniform(0, 0.2)),
        noise=float(rng.uniform(0.02, 0.15)),
        leak=float(rng.uniform(0.03, 0.18)),
        background_sigma=float(rng.uniform(0.1, 0.4)),
        bias_sigma=float(rng.uniform(0.5, 1.0)),
        type_sigma=float(rng.uniform(0, 0.3)),
        alike=float(rng.uniform(0.1, 0.9)),
        median_open=float(np.exp(rng.uniform(np.log(lowest), np.log(highest)))),
        depth_sigma=float(rng.uniform(0.3, 0.8)),
        counts=str(rng.choice(["insertions", "fragments", "binary"], p=[0.5, 0.25, 0.25])),  # type: ignore[arg-type]
        closed_share=float(rng.uniform(0.05, 0.4)),
        selection=float(rng.uniform(0, 1)),
        width=int(rng.choice([500, 501, 300, 1000])) if rng.random() < 0.4 else None,
    )


def biosample_similarity(biosamples: csr_matrix) -> NDArray[np.float64]:
    """Relatedness of biosamples: cosine of their open bins, weighted by how few biosamples have a bin open.

    Parameters
    ----------
    biosamples
        Shape (biosamples, bins); 0 is closed. Every eighth bin is used.

    Returns
    -------
    Shape (biosamples, biosamples), between 0 and 1.
    """
    is_open = sparse.csr_matrix(biosamples)[:, ::_SIMILARITY_STEP] > 0
    n_open = np.asarray(is_open.sum(axis=0)).ravel()
    idf = np.log1p(is_open.shape[0] / np.maximum(n_open, 1))
    weighted = sparse.csr_matrix(is_open.astype(np.float64)) @ sparse.diags(idf)
    norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    product = (weighted @ weighted.T).toarray()
    return product / np.maximum(np.outer(norm, norm), 1e-12)


def simulate_study(
    biosamples: csr_matrix | NDArray[np.uint8],
    bins: pd.DataFrame,
    *,
    n_cells: int,
    n_ocrs: int | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    design: StudyDesign | None = None,
    ocrs: pd.DataFrame | None = None,
    chosen: Sequence[int] | None = None,
    proportions: Sequence[float] | NDArray[np.float64] | None = None,
    similarity: NDArray[np.float64] | None = None,
) -> AnnData:
    """Simulate one single-cell study.

    The study has its own OCRs (:func:`random_ocrs`), some of the biosamples, and cells that each are of one biosample or lie
    between two related ones. A cell's fragments fall on OCRs with a rate that rises with the rank of the bulk signal, times a
    factor of the OCR, plus background; their number is set so that the number of open OCRs is log-normal over cells.

    Parameters
    ----------
    biosamples
        Rank of the signal, shape (biosamples, bins), 1 to 255, 0 where closed.
    bins
        Columns ``chrom``, ``start``, ``end`` of the bins, GRCh38; 0-based, half-open.
    n_cells
        Cells to draw.
    n_ocrs
        OCRs wanted (a few less where bins are scarce); not needed with ``ocrs``.
    seed
        Same seed, same study.
    names
        Names of the biosamples; their row numbers by default.
    design
        What the study is like; by default drawn by :func:`random_design`.
    ocrs
        A given OCR set (columns ``chrom``, ``start``, ``end``, in genome order) instead of a random one.
    chosen
        Rows of the biosamples in the study, instead of random ones.
    proportions
        Expected share of cells for each of ``chosen``; drawn by default.
    similarity
        What :func:`biosample_similarity` returns, to compute it once for many studies.

    Returns
    -------
    AnnData with ``X`` (uint8 CSR, cells x OCRs); ``var`` in genome order with ``chrom``, ``start``, ``end`` and
    ``fraction_open`` (share of cells with a count); ``obs`` with ``biosample`` (the main one), ``biosample_2`` (``""`` if
    none), ``mixture`` (share of the second, at most 0.5) and ``n_open``. The rows are in random order.

    Raises
    ------
    ValueError
        If shapes do not fit together, or numbers are out of range.
    """
    from anndata import AnnData

    matrix = sparse.csr_matrix(biosamples)
    wanted = len(ocrs) if ocrs is not None else n_ocrs or 0
    labels = _check(matrix, bins, n_cells, wanted, names)
    rng = np.random.default_rng([seed, 1])
    if design is None:
        design = random_design(wanted, seed=seed)
    if similarity is None:
        similarity = biosample_similarity(matrix)
    rows = _choose_biosamples(design, similarity, rng) if chosen is None else np.asarray(chosen, dtype=np.int64)

    rates = _rates(matrix[rows], design.fold)
    if ocrs is None:
        signal = np.asarray(rates.mean(axis=0), dtype=np.float32).ravel()
        ocrs = random_ocrs(
            bins,
            signal,
            n_ocrs=wanted,
            closed_share=design.closed_share,
            selection=design.selection,
            width=design.width,
            rng=rng,
        )
    else:
        ocrs = ocrs[["chrom", "start", "end"]].set_axis(ocr_names(ocrs), axis=0)
    kin = similarity[np.ix_(rows, rows)]
    sources = _sources(matrix, bins, rates, ocrs, kin, design, rng)

    if proportions is None:
        weight = rng.dirichlet(np.full(len(rows), design.composition))
    else:
        weight = np.asarray(proportions, dtype=np.float64)
    main = rng.choice(len(rows), n_cells, p=weight / weight.sum())
    second, share = _partners(main, kin, design, rng)
    depth = _depths(sources, main, design, n_cells, rng)
    counts = _draw_counts(sources, main, second, share, depth, design, ocrs, rng)

    n_open = np.diff(counts.indptr)
    fraction = np.bincount(counts.indices, minlength=counts.shape[1]) / n_cells
    named = np.append(labels[rows], "")
    obs = pd.DataFrame(
        {
            "biosample": pd.Categorical(named[main]),
            "biosample_2": pd.Categorical(named[second]),
            "mixture": share.astype(np.float32),
            "n_open": n_open.astype(np.int64),
        },
        index=pd.Index([f"cell_{number}" for number in range(n_cells)]),
    )
    return AnnData(counts, obs=obs, var=ocrs.assign(fraction_open=fraction.astype(np.float32)))


def _check(
    matrix: csr_matrix,
    bins: pd.DataFrame,
    n_cells: int,
    n_ocrs: int,
    names: Sequence[str] | None,
) -> NDArray[np.object_]:
    """Refuse what does not fit together; return the names of the biosamples."""
    if matrix.shape[1] != len(bins):
        msg = f"biosamples has {matrix.shape[1]} columns, bins has {len(bins)} rows. Pass the bins of the matrix: adata.var."
        raise ValueError(msg)
    if n_cells < 1 or n_ocrs < 1:
        msg = (
            f"{n_cells} cells x {n_ocrs} OCRs were asked for. Pass n_cells and n_ocrs (or a table ocrs=) of at least 1."
        )
        raise ValueError(msg)
    labels = np.array([str(row) for row in range(matrix.shape[0])] if names is None else list(names), dtype=object)
    if len(labels) != matrix.shape[0]:
        msg = f"There are {len(labels)} names for {matrix.shape[0]} biosamples. Pass one name per row."
        raise ValueError(msg)
    return labels


def _choose_biosamples(
    design: StudyDesign, similarity: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Any, or a random half of the neighbourhood of one."""
    n_all = len(similarity)
    n_chosen = min(design.n_biosamples, n_all)
    if not design.related:
        return rng.choice(n_all, n_chosen, replace=False)
    anchor = rng.integers(n_all)
    nearest = np.argsort(-similarity[anchor], kind="stable")[: 2 * n_chosen]
    others = rng.choice(nearest[nearest != anchor], min(n_chosen, n_all) - 1, replace=False)
    return np.append(anchor, others)


def _rates(ranks: csr_matrix, fold: float) -> csr_matrix:
    """Relative rate of fragments in every open bin: 1 at rank 0, ``fold`` at rank 255, exponential between."""
    table = np.exp(np.log(fold) * np.arange(_MAX_RANK + 1) / _MAX_RANK).astype(np.float32)
    return sparse.csr_matrix((table[ranks.data], ranks.indices, ranks.indptr), shape=ranks.shape)


def _sources(
    matrix: csr_matrix,
    bins: pd.DataFrame,
    rates: csr_matrix,
    ocrs: pd.DataFrame,
    similarity: NDArray[np.float64],
    design: StudyDesign,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Distribution over OCRs of a fragment from each biosample, and from the background in the last row.

    An OCR collects from the bins under it, each by the share of the bin that it covers.
    """
    shared = overlaps(bins, ocrs)
    lengths = (bins["end"].to_numpy(np.int64) - bins["start"].to_numpy(np.int64))[shared["a"]]
    cover = sparse.csr_matrix(
        ((shared["n_bases"] / lengths).to_numpy(np.float32), (shared["a"], shared["b"])), shape=(len(bins), len(ocrs))
    )
    bias = np.exp(rng.normal(0, design.bias_sigma, len(ocrs)))
    share = np.bincount(matrix.indices, minlength=matrix.shape[1]) / matrix.shape[0]
    own = (rates @ sparse.diags(design.common**share).astype(np.float32) @ cover).toarray().astype(np.float64) * bias
    own *= np.exp(rng.normal(0, design.type_sigma, own.shape))
    own /= np.maximum(own.sum(axis=1, keepdims=True), 1e-12)
    kin = np.maximum(similarity, 0) ** _KINSHIP_POWER
    own = (1 - design.alike) * own + design.alike * (kin / kin.sum(axis=1, keepdims=True)) @ own
    leak = bias * (cover.T @ share) ** _OPENNESS_POWER
    noise = bias * (ocrs["end"] - ocrs["start"]).to_numpy(np.float64)
    background = design.noise * noise / noise.sum() + design.leak * leak / max(leak.sum(), 1e-12)
    if not background.any():
        background = noise
    # A biosample without any signal in these OCRs has cells of background alone.
    own = np.where(own.sum(axis=1, keepdims=True) > 0, own, background)
    sources = np.vstack([own, background])
    return sources / sources.sum(axis=1, keepdims=True)


def _partners(
    main: NDArray[np.int64], similarity: NDArray[np.float64], design: StudyDesign, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Second biosample of each cell (-1 if none), and its share: the smaller part of a flat Dirichlet draw."""
    n_types = len(similarity)
    mixed = rng.random(len(main)) < design.mixture_share
    if n_types == 1:
        mixed[:] = False
    order = np.argsort(-(similarity - 2 * np.eye(n_types)), axis=1, kind="stable")
    pick = rng.integers(0, max(min(_N_PARTNERS, n_types - 1), 1), len(main))
    second = np.where(mixed, order[main, pick], -1)
    share = np.where(mixed, rng.dirichlet([1, 1], len(main)).min(axis=1), 0.0)
    return second, share


def _depths(
    sources: NDArray[np.float64], main: NDArray[np.int64], design: StudyDesign, n_cells: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Expected fragments per cell for a log-normal number of open OCRs.

    The number of open OCRs saturates as fragments rise; the relation is computed for the study's average cell and inverted.
    """
    n_ocrs = sources.shape[1]
    background = min(design.noise + design.leak, 1.0)
    # Fragments of dropped domains are drawn too, and taken away later.
    present = np.bincount(main, minlength=len(sources) - 1) / n_cells
    mean = (1 - background) * (present @ sources[:-1]) + background * sources[-1]
    fragments = np.geomspace(1, 200 * max(n_ocrs, 10), 48)
    opened = (1 - design.dropout) * np.array([-np.expm1(-number * mean).sum() for number in fragments])
    wanted = design.median_open * np.exp(rng.normal(0, design.depth_sigma, n_cells))
    wanted = np.clip(wanted, min(_MIN_OPEN, 0.1 * n_ocrs), min(_MAX_OPEN, _MAX_SHARE * n_ocrs, 0.9 * opened[-1]))
    return np.exp(np.interp(wanted, opened, np.log(fragments)))


def _draw_counts(
    sources: NDArray[np.float64],
    main: NDArray[np.int64],
    second: NDArray[np.int64],
    share: NDArray[np.float64],
    depth: NDArray[np.float64],
    design: StudyDesign,
    ocrs: pd.DataFrame,
    rng: np.random.Generator,
) -> csr_matrix:
    """Fragments, one by one, then what is counted of them.

    A Poisson number of fragments put on OCRs by a multinomial is a Poisson count in each OCR, at the cost of the fragments
    instead of cells x OCRs.
    """
    n_ocrs = sources.shape[1]
    cumulated = np.cumsum(sources, axis=1)
    cumulated /= cumulated[:, -1:]
    background = (design.noise + design.leak) * np.exp(rng.normal(0, design.background_sigma, len(main)))
    background = np.minimum(background, 0.9)
    part = np.stack([(1 - background) * (1 - share), (1 - background) * share, background], axis=1)
    n_fragments = rng.multinomial(np.maximum(rng.poisson(depth), 1), part)
    source = np.stack([main, second, np.full(len(main), len(sources) - 1)], axis=1)
    both_ends = _both_ends((ocrs["end"] - ocrs["start"]).to_numpy(np.float64))

    block = np.cumsum(n_fragments.sum(axis=1)) // _FRAGMENTS_PER_CHUNK
    domain = chromosome_ids(ocrs["chrom"]) * 10_000 + ocrs["start"].to_numpy(np.int64) // _DOMAIN
    salt = rng.integers(2**62)
    blocks = []
    for cells in np.split(np.arange(len(main)), np.flatnonzero(np.diff(block)) + 1):
        local = np.tile(np.arange(len(cells))[:, None], (1, 3))
        flat_source, flat_cell, flat_n = source[cells].ravel(), local.ravel(), n_fragments[cells].ravel()
        keys = []
        for row in np.unique(flat_source[flat_n > 0]):
            here = (flat_source == row) & (flat_n > 0)
            cell = np.repeat(flat_cell[here], flat_n[here])
            keys.append(cell * n_ocrs + np.searchsorted(cumulated[row], rng.random(len(cell)), side="right"))
        key = np.concatenate(keys)
        key = key[_uniform((cells[key // n_ocrs] << 32) + domain[key % n_ocrs] + salt) >= design.dropout]
        key.sort()
        first = np.flatnonzero(np.diff(key, prepend=-1))
        number = np.diff(first, append=len(key))
        cell, ocr = np.divmod(key[first], n_ocrs)
        if design.counts == "insertions":
            number += rng.binomial(number, both_ends[ocr])
        elif design.counts == "binary":
            number[:] = 1
        indptr = np.searchsorted(cell, np.arange(len(cells) + 1))
        data = np.minimum(number, 255).astype(np.uint8)
        blocks.append(sparse.csr_matrix((data, ocr.astype(np.int32), indptr), shape=(len(cells), n_ocrs)))
    return sparse.csr_matrix(sparse.vstack(blocks, format="csr"))


def _uniform(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each key, the same whenever the key is: the finaliser of MurmurHash3."""
    bits = keys.astype(np.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        bits ^= bits >> np.uint64(33)
        bits *= np.uint64(factor)
    bits ^= bits >> np.uint64(33)
    return (bits >> np.uint64(11)) / 2.0**53


def _both_ends(width: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance that a fragment with one end in an OCR has the other in it too: 0.57 at 500 bases, 0.88 at 860, as in real cells."""
    return -np.expm1(-((width / 550) ** 1.7))
