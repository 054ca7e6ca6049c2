from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scfound_atac.data.tfidf import inverse_document_frequency, tfidf


@pytest.fixture
def counts() -> sparse.csr_matrix:
    x = np.random.default_rng(0).poisson(0.6, (20, 12)).astype(np.float32)
    x[4] = 0
    x[:, 5] = 0
    return sparse.csr_matrix(x)


def test_equals_the_formula(counts) -> None:
    x = counts.toarray().astype(np.float64)
    idf = len(x) / (1 + (x > 0).sum(axis=0))
    np.testing.assert_allclose(inverse_document_frequency(counts), idf, rtol=1e-6)
    expected = np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1) * idf)
    found = tfidf(counts, inverse_document_frequency(counts))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)
    assert found.dtype == np.float32


def test_an_empty_cell_stays_empty_and_an_ocr_never_open_has_a_finite_weight(counts) -> None:
    idf = inverse_document_frequency(counts)
    assert idf[5] == counts.shape[0]
    assert tfidf(counts, idf)[4].nnz == 0


def test_left_out_ocrs_are_zero_and_do_not_change_the_others(counts) -> None:
    idf = inverse_document_frequency(counts)
    without = idf.copy()
    without[2] = 0
    expected = tfidf(counts, idf).toarray()
    expected[:, 2] = 0
    np.testing.assert_array_equal(tfidf(counts, without).toarray(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64, np.bool_])
def test_number_type_does_not_matter_and_counts_stay(counts, dtype) -> None:
    binary = (counts > 0).astype(np.float32)
    other = binary.astype(dtype)
    before = other.copy()
    idf = inverse_document_frequency(other)
    np.testing.assert_allclose(tfidf(other, idf).toarray(), tfidf(binary, idf).toarray(), rtol=1e-6)
    assert other.dtype == before.dtype
    np.testing.assert_array_equal(other.toarray(), before.toarray())


def test_totals_beyond_a_byte() -> None:
    counts = sparse.csr_matrix(np.full((3, 4), 200, dtype=np.uint8))
    np.testing.assert_allclose(tfidf(counts, np.ones(4, np.float32)).toarray(), np.log1p(1e4 / 4), rtol=1e-6)
