"""Vocabularies of new models."""

from __future__ import annotations

import logging

import pandas as pd
import pytest

from scfound_atac.data.build_vocabularies import build_vocabularies
from scfound_atac.genome import parse_names

OCRS = ["chrX-5-10", "chr2:300-400", "chr2:100-200", "GL000009.2:1-100", "chr1:1000-1500", "chrM:1-100"]


def test_as_they_are_released(caplog) -> None:
    table = {"A": "2", "B": "chrX", "C": "chrM", "D": None}
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        vocabularies = build_vocabularies(parse_names(OCRS), ["B", "A", "D", "C", "E"], table, ["one", "two"])
    special = ["<pad>", "<mask>", "<cls>", "<eos>"]
    assert list(vocabularies.peaks) == [*special, "chr1-1000-1500", "chr2-100-200", "chr2-300-400", "chrX-5-10"]
    assert list(vocabularies.peaks.values()) == list(range(8))
    assert list(vocabularies.chromosomes) == [*special, *(f"chr{i}" for i in range(1, 23)), "chrX", "chrY", "<unk>"]
    assert list(vocabularies.genes) == [*special, "B", "A", "D", "C", "E"]
    unknown = dict.fromkeys("DCE", "<unk>")
    assert vocabularies.gene_chromosomes == {"B": "chrX", "A": "chr2"} | unknown
    assert dict(vocabularies.batches) == {"one": 0, "two": 1}
    assert "2 OCRs on other chromosomes" in caplog.text
    assert "3 of 5 genes have no chromosome among chr1-22, X, Y, for example D, C, E" in caplog.text
    ids, chromosomes = vocabularies.gene_ids(["A", "D"])
    assert list(ids) == [5, 6]
    assert list(chromosomes) == [vocabularies.chromosomes["chr2"], vocabularies.chromosomes["<unk>"]]
    assert list(vocabularies.peak_chromosomes[4:]) == [4, 5, 5, 26]


def test_order_of_ocrs_does_not_matter_and_tables_of_genes_may_be_series() -> None:
    genes = pd.Series(["chr1", 23], index=["A", "B"], dtype=object)
    one = build_vocabularies(parse_names(OCRS), ["A", "B"], genes)
    other = build_vocabularies(parse_names(OCRS[::-1]), ["A", "B"], genes.astype("category"))
    assert one == other
    assert one.gene_chromosomes == {"A": "chr1", "B": "chrX"}


def test_no_known_chromosome() -> None:
    with pytest.raises(ValueError, match="None of the 1 OCRs lies on chr1"):
        build_vocabularies(parse_names(["chrM:1-100"]), ["A"], {})
