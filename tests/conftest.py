"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from anndata import AnnData
from scipy import sparse


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    waiting = [item for item in items if item.get_closest_marker("gpu")]
    if waiting:
        import torch

        if not torch.cuda.is_available():
            for item in waiting:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


CORPUS_SIZES = {"simulated": ((70, 50), 300), "real": ((60,), 120)}  # cells per file, OCRs


def _directory(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{what} not available: set {variable} to its directory")
    return Path(value)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Directory of the real cells used by tests and benchmarks."""
    return _directory("SCFOUND_ATAC_TEST_DATA", "real test data")


@pytest.fixture(scope="session")
def oracle_dir() -> Path:
    """Directory of the reference outputs of the released model code."""
    return _directory("SCFOUND_ATAC_TEST_ORACLES", "reference outputs")


def _two_kinds_of_cells(n_cells: int, n_ocrs: int, rng: np.random.Generator) -> AnnData:
    """OCRs of one half of the genome are open in cells of one kind, those of the other half in the other."""
    kind = rng.integers(2, size=n_cells)
    place = np.arange(n_ocrs)
    rate = np.where((place < n_ocrs // 2)[None, :] == kind[:, None], 0.6, 0.05)
    counts = rng.poisson(rate).astype(np.uint8)
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    var = pd.DataFrame({"chrom": np.where(place < n_ocrs // 2, "chr1", "chr7"), "start": 1_000_000 + 10_000 * place})
    var["end"] = var["start"] + 500
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    var["fraction_open"] = (counts > 0).mean(0).astype(np.float32)
    obs = pd.DataFrame({"biosample": np.array(["liver", "brain"])[kind]}, index=[f"cell{i}" for i in range(n_cells)])
    return AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


@pytest.fixture(scope="session")
def typed_cells() -> Callable[..., AnnData]:
    """Simulates cells of types of the element table: OCRs are elements, and those of a cell's type are ten times as often open."""
    from scfound_atac.genome.elements import load_element_table

    table = load_element_table()
    chrom = np.repeat([f"chr{x}" for x in (*range(1, 23), "X", "Y")], table.n_per_chromosome)

    def simulate(n_cells: Mapping[str, int], *, n_open: int, n_ocrs: int = 20_000, seed: int = 0) -> AnnData:
        rng = np.random.default_rng(seed)
        elements = np.sort(rng.choice(len(table.start), n_ocrs, replace=False))
        types = table.types[elements]
        base = rng.lognormal(0, 0.5, n_ocrs)
        rows = []
        for name, n in n_cells.items():
            rate = base * (1 + 9 * types[:, [table.type_names.index(name)]].toarray()[:, 0])
            rows += [np.unique(rng.choice(n_ocrs, n_open, p=rate / rate.sum())) for _ in range(n)]
        indptr = np.append(0, np.cumsum([len(row) for row in rows]))
        counts = sparse.csr_matrix((np.ones(indptr[-1], np.float32), np.concatenate(rows), indptr), (len(rows), n_ocrs))
        var = pd.DataFrame({"chrom": chrom[elements], "start": table.start[elements], "end": table.end[elements]})
        var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
        truth = np.repeat(list(n_cells), list(n_cells.values()))
        obs = pd.DataFrame({"truth": truth}, index=[f"cell{i}" for i in range(len(rows))])
        return AnnData(counts, obs=obs, var=var)

    return simulate


@pytest.fixture(scope="session")
def write_corpus() -> Callable[..., Path]:
    """Writes a small corpus of a simulated study in two files and a real one in one file."""

    def write(folder: Path, suffix: str = ".h5ad") -> Path:
        folder.mkdir(parents=True)
        rng, studies = np.random.default_rng(0), []
        for kind, (sizes, n_ocrs) in CORPUS_SIZES.items():
            files = [f"{kind}_{number}{suffix}" for number in range(len(sizes))]
            for name, n_cells in zip(files, sizes, strict=True):
                adata = _two_kinds_of_cells(n_cells, n_ocrs, rng)
                (adata.write_zarr if suffix == ".zarr" else adata.write_h5ad)(folder / name)
            study = {"name": kind, "kind": kind, "files": files, "n_cells": sum(sizes), "n_ocrs": n_ocrs, "weight": 1.0}
            studies.append({**study, "source": "made up", "licence": "CC0", "blood": False})
        description = {"format_version": 1, "seed": 0, "studies": studies}
        (folder / "corpus.yaml").write_text(yaml.safe_dump(description))
        return folder

    return write


@pytest.fixture(scope="session")
def corpus_folder(write_corpus: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus, to be read only."""
    return write_corpus(tmp_path_factory.mktemp("corpora") / "corpus")


@pytest.fixture(scope="session")
def make_epifoundation() -> Callable[..., Any]:
    """Makes a small untrained EpiFoundation network and its vocabularies, with ids of special tokens that are not the usual ones."""

    def make(n_peaks: int = 200, **sizes: Any) -> tuple[Any, Any]:
        import torch

        from scfound_atac.data import Vocabularies
        from scfound_atac.nn import EpiFoundationConfig, EpiFoundationNet

        rng = np.random.default_rng(0)
        chroms = ("chr1", "chr2", "chr10", "chrX")
        names = [f"{chroms[i % 4]}-{1_000_000 + 10_000 * i}-{1_000_600 + 10_000 * i}" for i in range(n_peaks)]
        names = [str(name) for name in rng.permutation([*names, "<pad>", "<cls>"])]
        genes = ["<pad>", *(f"GENE{i}" for i in range(12))]
        vocabularies = Vocabularies(
            peaks={name: i for i, name in enumerate(names)},
            chromosomes={name: i for i, name in enumerate(("chrX", "<cls>", "chr10", "<pad>", "chr2", "chr1"))},
            genes={gene: i for i, gene in enumerate(genes)},
            gene_chromosomes={gene: chroms[i % 4] for i, gene in enumerate(genes[1:])},
            cell_types={"b": 0, "t": 1, "nk": 2},
            batches={"one": 0, "two": 1} if sizes.get("n_batches") else {},
        )
        tables = {"n_peaks": n_peaks + 2, "n_genes": 13, "n_chromosomes": 6, "n_cell_types": 3, "n_bins": 2}
        small = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_feed_forward": 24, "d_query": 8, "max_tokens": 150}
        torch.manual_seed(0)
        net = EpiFoundationNet(EpiFoundationConfig(**(tables | small | sizes)))
        for norm in (net.peak_norm, net.gene_norm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        return net.eval(), vocabularies

    return make


@pytest.fixture(scope="session")
def make_labelled() -> Callable[..., AnnData]:
    """Makes cells of planted types over OCRs of which the region table knows most; each type has OCRs of its own."""
    from scfound_atac.datasets import pbmc_multiome_sample

    var = pbmc_multiome_sample()["atac"].var[["chrom", "start", "end"]]

    def make(
        n_cells: int = 160, types: tuple[str, ...] = ("B", "Mono", "NK", "T"), *, n_ocrs: int = 400, seed: int = 0
    ) -> AnnData:
        rng = np.random.default_rng(seed)
        kind = rng.permutation(np.arange(n_cells) % len(types))
        place = np.random.default_rng(7).permutation(len(var))[:n_ocrs]  # the same OCRs whatever the seed
        group = {"B": 0, "Mono": 1, "NK": 2, "T": 3}
        own = np.arange(n_ocrs)[None, :] % 5 == np.array([group[types[k]] for k in kind])[:, None]
        counts = sparse.csr_matrix(rng.poisson(np.where(own, 0.5, 0.08)).astype(np.float32))
        obs = pd.DataFrame({"cell_type": np.array(types)[kind]}, index=[f"s{seed}_cell{i}" for i in range(n_cells)])
        return AnnData(counts, obs=obs, var=var.iloc[place].copy(), uns={"genome": "GRCh38"})

    return make


@pytest.fixture(scope="session")
def tiny_backbones(make_labelled: Callable[..., AnnData]) -> dict[str, Any]:
    """A small untrained network of each kind; the EpiFoundation's vocabulary is the OCRs of `make_labelled`."""
    import torch

    from scfound_atac import nn
    from scfound_atac.data.build_vocabularies import build_vocabularies
    from scfound_atac.genome import load_region_table
    from scfound_atac.hub import Checkpoint

    torch.manual_seed(0)
    chromfound = nn.ChromFoundConfig(
        d_model=16, n_layers=1, n_heads=2, window_size=32, shift_size=16, d_mlp=16, d_low=8, position_temperature=1e5
    )
    region_set = nn.RegionSetConfig(n_factors=load_region_table().n_features, d_cell=16, d_hidden=16)
    vocabularies = replace(build_vocabularies(make_labelled(2).var, (), {}), genes={})
    sizes = {f"n_{name}": len(getattr(vocabularies, name)) for name in ("peaks", "chromosomes")}
    epifoundation = nn.EpiFoundationConfig(**sizes, d_model=16, n_layers=1, n_heads=2, d_feed_forward=16)
    raw = {"target_sum": None, "log1p": True}
    return {
        "region-set": Checkpoint(
            nn.RegionSetNet(region_set).eval(), "tiny", "", preparation=raw, model_class="RegionSet"
        ),
        "chromfound": Checkpoint(nn.ChromFoundNet(chromfound).eval(), "tiny", ""),
        "epifoundation": Checkpoint(
            nn.EpiFoundationNet(epifoundation).eval(),
            "tiny",
            "",
            model_class="EpiFoundation",
            vocabularies=vocabularies,
        ),
    }


@pytest.fixture(scope="session")
def kill_after_checkpoint() -> Callable[[Sequence[str], Mapping[str, str], Path], None]:
    """Run a command, and kill it without warning a moment after the file of its first checkpoint is there."""

    def run(command: Sequence[str], environment: Mapping[str, str], checkpoint: Path) -> None:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not checkpoint.exists():
            assert process.poll() is None, "ended before its first checkpoint"
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    return run
