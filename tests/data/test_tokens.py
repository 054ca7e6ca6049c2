"""Cells to tokens of a vocabulary."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scfound_atac.data import Tokenizer, Vocabularies
from scfound_atac.genome import parse_names

VOCABULARY = ["<cls>", "chr1-100-200", "<pad>", "chr2-100-200", "chr1-150-400", "chr1-50-500"]
OCRS = ["chr1:100-200", "1_90_160", "chr1:450-600", "chr3:100-200", "chr2-0-101", "chr2:199-300"]
NEAREST = [
    1,
    5,
    5,
    None,
    3,
    3,
]  # the last of them with the first: the widest peak shares all 70 bases of the second OCR


def vocabularies(**changes: object) -> Vocabularies:
    peaks = {name: i for i, name in enumerate(VOCABULARY)}
    return Vocabularies(**{"peaks": peaks, "chromosomes": {"<cls>": 2, "chr1": 0, "2": 1}, **changes})


def tokenizer(ocrs: list[str] = OCRS, **kwargs: int) -> Tokenizer:
    return Tokenizer(vocabularies(), parse_names(ocrs), **{"max_tokens": 10, **kwargs})


def cells(*rows: list[int]) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array(rows, dtype=np.float32))


def test_each_ocr_stands_for_its_peak() -> None:
    names = np.array([f"c{i}" for i in range(6)], dtype=object)
    found = tokenizer()(sparse.csr_matrix(np.eye(6, dtype=np.float32) * 3), names)
    assert [list(tokens) for tokens in found] == [[] if t is None else [t] for t in NEAREST]


def test_ocrs_of_one_peak_are_one_token() -> None:
    rows = cells([1, 1, 2, 0, 5, 1], [0, 0, 0, 1, 0, 0])
    assert [list(t) for t in tokenizer()(rows, np.array(["a", "b"], dtype=object))] == [[1, 3, 5], []]


def test_coverage() -> None:
    coverage = tokenizer().coverage(cells([1, 1, 2, 0, 5, 1], [0, 0, 0, 1, 0, 0], [0] * 6))
    assert list(coverage.n_tokens) == [3, 0, 0]
    assert list(coverage.n_open) == [5, 1, 0]
    assert list(coverage.n_lost) == [0, 1, 0]
    assert list(coverage.n_ambiguous) == [2, 0, 0]
    assert coverage.fraction_ocrs == pytest.approx(5 / 6)
    assert coverage.fraction_vocabulary == pytest.approx(3 / 4)
    assert coverage.fraction_open == pytest.approx(5 / 6)


def test_nothing_open_and_nothing_known() -> None:
    assert np.isnan(tokenizer().coverage(cells([0] * 6)).fraction_open)
    assert tokenizer(["chr9:1-2"]).coverage(cells([1])).fraction_open == 0


def test_too_many_peaks() -> None:
    """The part that is read depends on the name of the cell and the seed, not on the cells or the order of OCRs around it."""
    rng = np.random.default_rng(0)
    names = [f"chr{1 + i % 3}-{1000 * i}-{1000 * i + 500}" for i in range(60)]
    vocabulary = Vocabularies(peaks={name: i for i, name in enumerate(["<cls>", *names])})
    ocrs, rows = parse_names(names), sparse.csr_matrix((rng.random((4, 60)) < 0.7).astype(np.float32))
    cell_names = np.array(list("abcd"), dtype=object)

    def read(seed: int, cell_order: list[int], ocr_order: list[int]) -> dict[str, list[int]]:
        tokenize = Tokenizer(vocabulary, ocrs.iloc[ocr_order], max_tokens=20, seed=seed)
        found = tokenize(rows[cell_order][:, ocr_order].tocsr(), cell_names[cell_order])
        return {name: list(tokens) for name, tokens in zip(cell_names[cell_order], found, strict=True)}

    plain = read(0, [0, 1, 2, 3], list(range(60)))
    assert all(len(tokens) == 20 == len(set(tokens)) for tokens in plain.values())
    assert all(set(tokens) <= set(1 + rows[i].indices) for i, tokens in enumerate(plain.values()))
    assert read(0, [2, 0, 3, 1], list(rng.permutation(60))) == plain
    assert read(1, [0, 1, 2, 3], list(range(60))) != plain
    assert len({tuple(np.array(tokens) - 1) for tokens in plain.values()}) == 4


def test_chromosome_of_every_row() -> None:
    known = vocabularies(chromosomes={"<cls>": 2, "chr1": 0, "2": 1, "<pad>": 3})
    assert list(known.peak_chromosomes) == [2, 0, 3, 1, 0, 0]
    assert list(vocabularies(chromosomes={}).peak_chromosomes) == [0] * 6
    with pytest.raises(ValueError, match="lacks chr2"):
        _ = vocabularies(chromosomes={"chr1": 0}).peak_chromosomes
    pd.testing.assert_series_equal(known.ocrs["id"], pd.Series([1, 3, 4, 5], name="id"))


def test_genes() -> None:
    known = vocabularies(genes={"A": 0, "B": 1}, gene_chromosomes={"A": "chr2"})
    assert [list(ids) for ids in known.gene_ids(["A", "A"])] == [[0, 0], [1, 1]]
    for gene in ("B", "C"):
        with pytest.raises(KeyError, match=f"1 of 2 genes are not in the vocabulary, among them {gene}"):
            known.gene_ids(["A", gene])
