"""EpiFoundation against the outputs of the released code, from inside and through `tl.embed`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import scfound_atac as sfa
from scfound_atac import hub

TOLERANCE = 1e-5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per reference folder, so that new configurations and vocabularies are picked up by being there."""
    if "oracle" not in metafunc.fixturenames:
        return
    root = Path(os.environ.get("SCFOUND_ATAC_TEST_ORACLES") or "missing")
    folders = sorted(path.parent for path in root.glob("epifoundation*/*/case*.npz"))
    skip = pytest.mark.skip(reason="no reference outputs: set SCFOUND_ATAC_TEST_ORACLES")
    metafunc.parametrize("oracle", [pytest.param(f, id=f.name) for f in folders] or [pytest.param(None, marks=skip)])


@pytest.fixture(scope="module")
def opened():
    """Loads a folder once for all its tests."""
    known: dict[Path, tuple[hub.Checkpoint, dict[str, torch.Tensor]]] = {}

    def load(folder: Path) -> tuple[hub.Checkpoint, dict[str, torch.Tensor]]:
        if folder not in known:
            case = np.load(next(folder.glob("case*.npz")))
            known[folder] = hub.load(folder), {key: torch.from_numpy(array) for key, array in case.items()}
        return known[folder]

    return load


def outputs(checkpoint: hub.Checkpoint, case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    net, config = checkpoint.net, checkpoint.net.config
    cell, _ = net.encode(
        case["atac_ids"], case["atac_chrs"], case["atac_ids"] != checkpoint.vocabularies.peaks["<pad>"]
    )
    found = {"cell_emb": cell}
    batch = case["batch_id"] if config.n_batches else None
    if config.n_genes:
        genes = net.embed_genes(case["rna_ids"], case["rna_chrs"])
    if config.n_bins:
        found["mvc_pred"] = net.predict_expression(cell, genes, batch)
    if config.value_decoder:
        found["value_pred"] = net.predict_values(cell, genes, batch)
    if config.n_cell_types:
        found["cell_pred"] = net.predict_cell_types(cell)
    return found


def expected(case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: case[name] for name in ("cell_emb", "mvc_pred", "value_pred", "cell_pred") if name in case}


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
def test_network(oracle: Path, opened, grad: bool) -> None:
    checkpoint, case = opened(oracle)
    with torch.set_grad_enabled(grad):
        found = outputs(checkpoint, case)
    assert found.keys() == expected(case).keys()
    for name, tensor in expected(case).items():
        torch.testing.assert_close(found[name].detach(), tensor, atol=TOLERANCE, rtol=TOLERANCE)


def test_gene_ids_come_from_the_vocabularies(oracle: Path, opened) -> None:
    checkpoint, case = opened(oracle)
    names = {i: gene for gene, i in checkpoint.vocabularies.genes.items()}
    ids, chromosomes = checkpoint.vocabularies.gene_ids([names[i] for i in case["rna_ids"][0].tolist()])
    np.testing.assert_array_equal(ids, case["rna_ids"][0])
    np.testing.assert_array_equal(chromosomes, case["rna_chrs"][0])


def test_converted(oracle: Path, opened, tmp_path: Path) -> None:
    checkpoint, case = opened(oracle)
    ours = hub.load(hub.convert(oracle, tmp_path / "ours"))
    assert (ours.net.config, ours.vocabularies) == (checkpoint.net.config, checkpoint.vocabularies)
    with torch.inference_mode():
        for name, tensor in outputs(checkpoint, case).items():
            assert torch.equal(outputs(ours, case)[name], tensor)


@pytest.mark.parametrize("form", ["names", "columns"])
def test_embed(oracle: Path, opened, form: str) -> None:
    checkpoint, case = opened(oracle)
    accessible = case["accessible"].numpy()
    columns = np.random.default_rng(0).permutation(accessible.shape[1])
    ocrs = checkpoint.vocabularies.ocrs.iloc[columns]
    var = pd.DataFrame({"#Chromosome": ocrs["chrom"], "hg38_Start": ocrs["start"], "hg38_End": ocrs["end"]}).set_axis(
        [f"peak{i}" for i in columns], axis=0
    )
    if form == "names":
        var = pd.DataFrame(index=sfa.genome.ocr_names(ocrs))
    adata = AnnData(sparse.csr_matrix(accessible[:, columns]), var=var, uns={"genome": "GRCh38"})
    sfa.tl.embed(adata, model=oracle, device="cpu")
    np.testing.assert_allclose(adata.obsm["X_sfa"], case["cell_emb"], atol=TOLERANCE, rtol=TOLERANCE)
