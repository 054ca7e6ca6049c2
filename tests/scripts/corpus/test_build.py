"""The script that builds the corpus, on a small folder of the same files; and with the real donors where they are at hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

import build as script
from build import (
    BLOOD_BIOSAMPLES,
    BLOOD_SOURCE,
    EVALUATION_DESIGN,
    REAL_STUDIES,
    build_corpus,
    evaluation_study,
    is_blood,
    read_biosamples,
    read_real_study,
)
from scfound_atac.data.corpus import Corpus
from scfound_atac.genome import genome_order

NAMES = ["Hepg2", "Huh7", "Mcf7", "Caco2", "Hff", "K562", "Jurkat", "B", "CD4"]
SOURCES = ["ENCODE"] * 7 + [BLOOD_SOURCE] * 2


def small_atac(n_cells: int, seed: int, *, highest: float = 4) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    # not in genome order, and with chrM and a scaffold
    chrom = rng.permutation(np.repeat(["chr2", "chr1", "chrX", "chrM", "KI270728.1"], 20))
    start = np.arange(100) * 1_000
    names = [f"{c}:{s}-{s + 500}" for c, s in zip(chrom, start, strict=True)]
    var = pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500}, index=names)
    counts = sparse.csr_matrix(rng.integers(0, highest, (n_cells, 100)).astype(np.float32))
    return ad.AnnData(counts, obs=pd.DataFrame(index=[f"s{seed}_{i}" for i in range(n_cells)]), var=var)


@pytest.fixture(scope="module")
def small_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine biosamples; bone marrow of two donors; normalised A549 values; two pairs."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    start = np.sort(rng.choice(200_000, 4_000, replace=False)) * 500
    bins = pd.DataFrame({"chrom": np.repeat(["chr1", "chr2"], 2_000), "start": start % 200_000_000})
    bins = bins.assign(end=bins["start"] + 500).drop_duplicates(ignore_index=True)
    bins.index = bins.index.astype(str)
    ranks = rng.integers(1, 256, (9, len(bins))) * (rng.random((9, len(bins))) < 0.3)
    obs = pd.DataFrame({"biosample": NAMES, "source": SOURCES}, index=[f"sample_{i}" for i in range(9)])
    ad.AnnData(sparse.csr_matrix(ranks.astype(np.uint8)), obs=obs, var=bins).write_h5ad(folder / "biosamples.h5ad")

    marrow = small_atac(60, 1)
    marrow.obs["donor"] = ["BMMC_D6T1", "BMMC_D5T1"] * 30
    marrow.obs["cell_type"] = "x"
    marrow.write_h5ad(folder / "bone_marrow_atac.h5ad")
    a549 = small_atac(50, 2)
    a549.X.data *= 0.7
    for name, adata in {
        "a549_multiome": a549,
        "bmmc_multiome_1": small_atac(40, 3),
        "bmmc_multiome_2": small_atac(40, 4),
    }.items():
        with h5py.File(folder / f"{name}.h5mu", "w") as file:
            ad.io.write_elem(file.create_group("mod"), "atac", adata)
    return folder


def build(small_dir: Path, out: Path, **options: Any) -> pd.DataFrame:
    return build_corpus(small_dir, out, **({"n_studies": 3, "cells_per_study": 40} | options))


def read_all(out: Path) -> dict[str, list[ad.AnnData]]:
    described = yaml.safe_load((out / "corpus.yaml").read_text(encoding="utf-8"))
    return {study["name"]: [ad.read_h5ad(out / file) for file in study["files"]] for study in described["studies"]}


@pytest.fixture(scope="module")
def corpus_dir(small_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "new"
    build(small_dir, out)
    return out


def test_format(corpus_dir: Path) -> None:
    described = yaml.safe_load((corpus_dir / "corpus.yaml").read_text(encoding="utf-8"))
    assert described["format_version"] == 1
    assert [study["kind"] for study in described["studies"]] == ["real"] * 4 + ["simulated"] * 3
    for study in described["studies"]:
        assert set(study) == {"name", "kind", "files", "n_cells", "n_ocrs", "weight", "source", "licence", "blood"}
        shards = [ad.read_h5ad(corpus_dir / file) for file in study["files"]]
        assert sum(shard.n_obs for shard in shards) == study["n_cells"]
        for shard in shards:
            assert isinstance(shard.X, sparse.csr_matrix)
            assert shard.X.dtype == np.uint8
            assert shard.n_vars == study["n_ocrs"]
            assert (np.diff(genome_order(shard.var)) == 1).all()
            assert shard.var["chrom"].isin(["chr1", "chr2", "chrX"]).all()
            assert shard.var[["start", "end"]].dtypes.eq(np.int64).all()
            assert shard.var["fraction_open"].dtype == np.float32
            np.testing.assert_array_equal(shard.obs["n_open"], np.diff(shard.X.indptr))
            assert ("biosample" in shard.obs) == (study["kind"] == "simulated")


def test_reader_reads_it(corpus_dir: Path) -> None:
    corpus = Corpus(corpus_dir)
    assert corpus.n_cells == 30 + 50 + 40 + 40 + 3 * 40
    assert set(corpus.biosamples) <= set(NAMES)
    for study in corpus.studies:
        assert study.read(0, study.n_cells).shape == (study.n_cells, len(study.ocrs))


def test_real_cells_keep_their_counts(small_dir: Path, corpus_dir: Path) -> None:
    (written,) = read_all(corpus_dir)["bmmc_multiome_1"]
    with h5py.File(small_dir / "bmmc_multiome_1.h5mu") as file:
        source = ad.io.read_elem(file["mod/atac"])
    assert sorted(written.obs_names) == sorted(source.obs_names)
    assert list(written.obs_names) != list(source.obs_names)  # shuffled
    assert written.n_vars == 60  # neither chrM nor the scaffold
    expected = source[written.obs_names, written.var_names].X
    assert (expected != written.X).nnz == 0
    (a549,) = read_all(corpus_dir)["a549_multiome"]
    assert set(a549.X.data) == {1}


def test_test_donor_never_enters(small_dir: Path, corpus_dir: Path) -> None:
    marrow = ad.read_h5ad(small_dir / "bone_marrow_atac.h5ad")
    testing = set(marrow.obs_names[marrow.obs["donor"] == "BMMC_D5T1"])
    (written,) = read_all(corpus_dir)["bone_marrow"]
    assert set(written.obs["donor"]) == {"BMMC_D6T1"}
    assert len(written) == 30
    for shards in read_all(corpus_dir).values():
        assert testing.isdisjoint(*(shard.obs_names for shard in shards))


def test_test_donor_is_refused_elsewhere(small_dir: Path, tmp_path: Path) -> None:
    # A file that should not hold the donor, and does.
    bad = small_atac(10, 5)
    bad.obs["donor"] = "BMMC_D5T1"
    with h5py.File(tmp_path / "bmmc_multiome_1.h5mu", "w") as file:
        ad.io.write_elem(file.create_group("mod"), "atac", bad)
    with pytest.raises(ValueError, match="BMMC_D5T1 are for testing"):
        read_real_study(tmp_path, REAL_STUDIES[2])


def test_values_that_are_no_counts_are_refused(small_dir: Path) -> None:
    with pytest.raises(ValueError, match="no counts"):
        read_real_study(small_dir, REAL_STUDIES[1]._replace(binary=False))


def test_without_blood(small_dir: Path, tmp_path: Path) -> None:
    summary = build(small_dir, tmp_path, n_studies=5, with_blood=False)
    assert not summary["blood"].any()
    studies = read_all(tmp_path)
    assert {name for name in studies if not name.startswith("simulated")} == {"a549_multiome"}
    used = {name for name, (adata,) in studies.items() if "biosample" in adata.obs for name in adata.obs["biosample"]}
    assert used <= {"Hepg2", "Huh7", "Mcf7", "Caco2", "Hff"}


def test_exclude_and_hold_out(small_dir: Path, tmp_path: Path) -> None:
    build(small_dir, tmp_path, n_studies=5, exclude=["bmmc_multiome", "a549_multiome"], hold_out=["Hepg2", "B"])
    studies = read_all(tmp_path)
    assert {name for name in studies if not name.startswith("simulated")} == {"bone_marrow"}
    for name, (adata,) in studies.items():
        if name.startswith("simulated"):
            assert {"Hepg2", "B"}.isdisjoint({*adata.obs["biosample"], *adata.obs["biosample_2"]})


def test_same_seed_same_corpus(small_dir: Path, corpus_dir: Path, tmp_path: Path) -> None:
    build(small_dir, tmp_path)
    assert (tmp_path / "corpus.yaml").read_bytes() == (corpus_dir / "corpus.yaml").read_bytes()
    before, after = read_all(corpus_dir), read_all(tmp_path)
    for name in before:
        for first, again in zip(before[name], after[name], strict=True):
            assert (first.X != again.X).nnz == 0
            assert list(first.obs_names) == list(again.obs_names)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"exclude": ["k562"]}, "No real study is called k562; there are bone_marrow"),
        ({"hold_out": ["HepG2"]}, "No biosample is called HepG2"),
        ({"cells_per_study": 0}, "nothing to write"),
    ],
)
def test_refusals_write_nothing(small_dir: Path, tmp_path: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(small_dir, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_corpus_is_not_overwritten(small_dir: Path, corpus_dir: Path) -> None:
    with pytest.raises(ValueError, match="already holds a corpus"):
        build(small_dir, corpus_dir)


def test_evaluation_study(small_dir: Path) -> None:
    design = replace(EVALUATION_DESIGN, median_open=100)
    adata = evaluation_study(small_dir, ["Hepg2", "B"], n_cells=100, n_ocrs=500, design=design)
    assert set(adata.obs["biosample"]) == {"Hepg2", "B"}
    assert (adata.obs["mixture"] == 0).all()
    with pytest.raises(ValueError, match="No biosample is called hepg2"):
        evaluation_study(small_dir, ["hepg2"])


@pytest.mark.slow
def test_command_line(small_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--n-studies", "1", "--cells-per-study", "20", "--no-blood", "--hold-out", "Mcf7", "--hold-out", "Hff"]
    command = [sys.executable, script.__file__, str(small_dir), str(out), *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "simulated_000" in printed
    studies = yaml.safe_load((out / "corpus.yaml").read_text())["studies"]
    assert sum(study["n_cells"] for study in studies) == 70
    assert set(ad.read_h5ad(out / studies[-1]["files"][0]).obs["biosample"]) <= {"Hepg2", "Huh7", "Caco2"}


def test_errors_of_the_command_line_are_one_line(small_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^Error: No real study is called marrow; there are bone_marrow"):
        script.main([str(small_dir), str(tmp_path / "out"), "--exclude", "marrow"])


def test_real_donors(data_dir: Path) -> None:
    adata = read_real_study(data_dir, REAL_STUDIES[0])
    marrow = ad.read_h5ad(data_dir / "bone_marrow_atac.h5ad", backed="r")
    names, donor = marrow.obs_names, marrow.obs["donor"].astype(str)
    marrow.file.close()
    assert set(adata.obs_names) == set(names[donor == "BMMC_D6T1"])
    assert set(adata.obs_names).isdisjoint(names[donor == "BMMC_D5T1"])


def test_real_blood_names(data_dir: Path) -> None:
    with h5py.File(data_dir / "biosamples.h5ad") as file:
        obs = ad.io.read_elem(file["obs"])
    assert set(obs["biosample"]) >= BLOOD_BIOSAMPLES
    assert is_blood(obs).sum() == len(BLOOD_BIOSAMPLES) + 16


def test_biosamples_keep_names_and_rows_together(small_dir: Path) -> None:
    everything = read_biosamples(small_dir / "biosamples.h5ad")
    some = read_biosamples(small_dir / "biosamples.h5ad", with_blood=False, hold_out=["Mcf7"])
    assert some.names == ["Hepg2", "Huh7", "Caco2", "Hff"]
    assert not some.is_blood.any()
    rows = [everything.names.index(name) for name in some.names]
    assert (some.ranks != everything.ranks[rows]).nnz == 0
