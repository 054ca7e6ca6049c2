"""Correlation of accessibility and expression: scores, p and q on cells with one link, with none, and with types and depths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import sparse, stats

from scfound_atac.inference import correlation_links as module
from scfound_atac.inference.correlation_links import CorrelationLinks, correlation_links, false_discovery
from scfound_atac.inference.matched_null import FAR, Places

N_WINDOW = 200  # candidates of the first gene
TYPES = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)


@dataclass(frozen=True)
class Multiome:
    counts: sparse.csr_matrix
    expression: np.ndarray
    ocr: np.ndarray
    gene: np.ndarray
    ocrs: Places
    genes: Places
    breadth: np.ndarray

    def links(self, **options: int) -> CorrelationLinks:
        return correlation_links(
            self.counts,
            self.expression,
            self.ocr,
            self.gene,
            ocrs=self.ocrs,
            genes=self.genes,
            breadth=self.breadth,
            **options,
        )


def multiome(
    seed: int,
    *,
    n_cells: int = 500,
    n_ocrs: int = 1200,
    n_genes: int = 20,
    structured: bool = True,
    driver: bool = False,
) -> Multiome:
    """Cells in which no OCR acts on a gene, but for OCR 50 on gene 0 with `driver`.

    With `structured`, cells have depths that differ and are common to both modalities, and a type: half of the genes and up to 40 % of the
    OCRs are higher in cells of one type, narrow OCRs more often.
    """
    rng = np.random.default_rng(seed)
    chromosome = np.sort(rng.integers(2, 11, n_ocrs))
    chromosome[:N_WINDOW] = 1
    of_gene = rng.integers(1, 11, n_genes)
    of_gene[0] = 1
    breadth = rng.random(n_ocrs)
    rate, level = np.exp(rng.normal(-1.5, 0.8, (n_ocrs, 1))), np.exp(rng.normal(0, 1, (n_genes, 1)))
    if structured:
        kind = rng.choice(len(TYPES), n_cells, p=TYPES)
        depth = np.exp(rng.normal(0, 0.5, n_cells))
        of_ocr = np.where(rng.random(n_ocrs) < 0.4 * (1 - breadth), rng.integers(len(TYPES), size=n_ocrs), -1)
        of_level = np.where(rng.random(n_genes) < 0.5, rng.integers(len(TYPES), size=n_genes), -1)
        rate = rate * depth * np.exp(2.4 * (of_ocr[:, None] == kind))
        level = level * depth * np.exp(rng.normal(0, 0.3, n_cells)) * np.exp(2.4 * (of_level[:, None] == kind))
    counts = rng.poisson(np.broadcast_to(rate, (n_ocrs, n_cells))).T.astype(np.float32)
    transcripts = rng.poisson(np.broadcast_to(level, (n_genes, n_cells))).T
    if driver:
        activity = rng.gamma(1, 1, n_cells)
        counts[:, 50] = rng.poisson(0.4 * activity)
        transcripts[:, 0] = rng.poisson(2 * activity)
    # 1,000 transcripts of other genes, which do not depend on the activity
    total = transcripts[:, 1:].sum(axis=1, keepdims=True) + 1000 * (depth[:, None] if structured else 1)
    expression = np.log1p(transcripts / total * 1000).astype(np.float32)
    ocr, gene = np.nonzero(chromosome[:, None] == of_gene)
    position = np.arange(n_ocrs) * 10_000
    return Multiome(
        sparse.csr_matrix(counts),
        expression,
        ocr,
        gene,
        Places(chromosome, position),
        Places(of_gene, np.zeros(n_genes, dtype=np.int64)),
        breadth,
    )


def test_scores_are_correlations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of the pairs and the size of the blocks, dense or sparse."""
    cells = multiome(0, n_cells=200, n_ocrs=300, n_genes=9)
    counts = cells.counts.toarray()
    scaled = np.log1p(counts / counts.sum(axis=1, keepdims=True) * np.median(counts.sum(axis=1)))
    expected = [
        np.corrcoef(scaled[:, i], cells.expression[:, g])[0, 1] for i, g in zip(cells.ocr, cells.gene, strict=True)
    ]
    found = cells.links()
    np.testing.assert_allclose(found.score, expected, atol=2e-6)
    order = np.random.default_rng(0).permutation(len(cells.ocr))
    for threshold in (0, 1):
        monkeypatch.setattr(module, "_DENSE", threshold)
        monkeypatch.setattr(module, "_GENES_PER_BLOCK", 2)
        monkeypatch.setattr(module, "_BLOCK_ENTRIES", 1000)
        shuffled = replace(cells, ocr=cells.ocr[order], gene=cells.gene[order]).links()
        for name in ("score", "z", "p", "q"):
            np.testing.assert_allclose(getattr(shuffled, name), getattr(found, name)[order], rtol=1e-3, atol=1e-5)


def test_same_seed_same_result() -> None:
    cells = multiome(0, n_cells=100)
    first, second, other = cells.links(seed=1), cells.links(seed=1), cells.links(seed=2, n_null=50)
    np.testing.assert_array_equal(first.p, second.p)
    np.testing.assert_array_equal(first.score, other.score)
    assert not np.array_equal(first.p, other.p)


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("n_genes", [1, 20])
def test_one_link_is_first_of_200_candidates(structured: bool, n_genes: int) -> None:
    for seed in range(5):
        cells = multiome(seed, n_cells=600, n_genes=n_genes, structured=structured, driver=True)
        found = cells.links(seed=seed)
        candidates = np.flatnonzero(cells.gene == 0)
        assert len(candidates) == N_WINDOW
        best = candidates[found.p[candidates].argmin()]
        assert cells.ocr[best] == 50
        assert found.score[best] > 0.2
        assert found.q[best] < 0.05
        assert found.p[best] < 1e-4


@pytest.mark.parametrize("structured", [False, True])
def test_nothing_is_found_where_nothing_is(structured: bool) -> None:
    """Of 20 sets of cells, also with types and depths, for which p of the normal distribution would be wrong."""
    p, q, z = [], [], []
    for seed in range(20):
        found = multiome(seed, structured=structured).links(seed=seed)
        p.append(found.p)
        q.append(np.mean(found.q < 0.05))
        z.append(found.z)
    assert max(q) <= 0.01
    assert np.mean(np.array(q) > 0) <= 0.15
    together = np.concatenate(p)
    assert 0.03 < np.mean(together < 0.05) < 0.07
    assert stats.kstest(together, "uniform").statistic < 0.05
    assert np.mean(together < 1e-3) < 1.5e-3
    if structured:
        assert np.mean(stats.norm.sf(np.concatenate(z)) < 1e-3) > 5e-3


def test_one_chromosome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "scfound_atac")
    cells = multiome(0, n_genes=5)
    alone = replace(
        cells,
        ocrs=Places(np.ones(1200, dtype=np.int64), cells.ocrs.position),
        genes=Places(np.ones(5, dtype=np.int64), np.zeros(5, dtype=np.int64)),
    )
    found = alone.links()
    assert (cells.ocrs.position > FAR).sum() > 600
    assert np.isfinite(found.p).all()
    assert 0.01 < np.mean(found.p < 0.05) < 0.1
    assert (
        "5 of 5 genes have few OCRs on other chromosomes to compare with; those of their own beyond 5 Mb" in caplog.text
    )


def test_no_null(caplog: pytest.LogCaptureFixture) -> None:
    cells = multiome(0, n_genes=5)
    near = replace(cells, ocrs=Places(cells.ocrs.chromosome * 0 + 1, cells.ocrs.position // 1000))
    near = replace(near, genes=Places(np.ones(5, dtype=np.int64), np.zeros(5, dtype=np.int64)))
    found = near.links()
    assert np.isfinite(found.score).all()
    assert np.isnan(found.p).all()
    assert np.isnan(found.q).all()
    assert "5 of 5 genes have fewer than 30 null OCRs, and no p" in caplog.text


def test_what_does_not_vary_has_no_score() -> None:
    cells = multiome(0, n_cells=80)
    counts, expression = cells.counts.toarray(), cells.expression.copy()
    counts[:, 10] = 0
    expression[:, 0] = 0.1
    expression[:, 3] = 0
    counts[5] = 0  # an empty cell
    found = replace(cells, counts=sparse.csr_matrix(counts), expression=expression).links()
    never = (cells.ocr == 10) | np.isin(cells.gene, [0, 3]) | ~counts.any(axis=0)[cells.ocr]
    for values in (found.score, found.z, found.p, found.q):
        np.testing.assert_array_equal(np.isnan(values), never)


def test_no_pairs() -> None:
    cells = multiome(0, n_cells=50)
    found = replace(cells, ocr=cells.ocr[:0], gene=cells.gene[:0]).links()
    assert len(found.score) == len(found.p) == len(found.q) == 0


def test_q() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03])
    np.testing.assert_allclose(false_discovery(p), [0.03, np.nan, 0.04, 0.04])
    assert np.isnan(false_discovery(np.full(2, np.nan))).all()
