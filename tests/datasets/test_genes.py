"""The table of genes in the package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd

import scfound_atac as sfa
from scfound_atac.datasets.gene_table import given_or_bundled
from scfound_atac.genome.gene_table import pack

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_gene_table.py"


def test_table() -> None:
    genes = sfa.datasets.genes()
    assert list(genes) == ["chrom", "start", "end", "name", "strand", "id", "type"]
    assert genes["name"].is_unique
    row = genes.set_index("name").loc["TP53"]
    assert row[["chrom", "strand", "type"]].tolist() == ["chr17", "-", "protein_coding"]
    assert row["id"].startswith("ENSG00000141510")
    assert (genes["type"] == "protein_coding").sum() == 18_942


def test_a_changed_copy_does_not_change_the_table() -> None:
    genes = sfa.datasets.genes()
    genes.loc[0, "name"] = "changed"
    assert sfa.datasets.genes().loc[0, "name"] != "changed"


def test_read_genes_takes_it() -> None:
    genes = sfa.datasets.genes()
    pd.testing.assert_frame_equal(sfa.genome.read_genes(given_or_bundled(None)), genes)
    assert given_or_bundled(genes) is genes


def test_it_is_the_table_of_the_source(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "genome" / "genes_grch38.bed"
    spec = importlib.util.spec_from_file_location("build_gene_table", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == script.SHA256
    source = pd.read_csv(path, sep="\t").rename(columns=script.NAMES)
    genes = sfa.datasets.genes()
    on_chromosomes = source[source["chrom"].isin(genes["chrom"].unique())]
    both = genes.merge(on_chromosomes[list(genes)], how="inner", on=list(genes))
    assert len(both) == len(genes) == len(on_chromosomes)
    assert pack(source, tmp_path / "genes.npz") == len(genes)
