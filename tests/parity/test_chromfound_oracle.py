"""The network against the outputs of the released code, from inside and through `tl.embed`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import scfound_atac as sfa
from scfound_atac import hub
from scfound_atac.nn import chromfound, selective_scan
from scfound_atac.nn.cpu import encoder

TOLERANCE = 1e-4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per reference file, so that new lengths and configurations are picked up by being there."""
    if "case_file" not in metafunc.fixturenames:
        return
    root = Path(os.environ.get("SCFOUND_ATAC_TEST_ORACLES") or "missing")
    files = sorted(root.glob("chromfound*/case_L*.npz"))
    missing = [
        pytest.param(
            None, id="none", marks=pytest.mark.skip(reason="no reference outputs: set SCFOUND_ATAC_TEST_ORACLES")
        )
    ]
    metafunc.parametrize("case_file", [pytest.param(f, id=f"{f.parent.name}-{f.stem}") for f in files] or missing)


@pytest.fixture(scope="module")
def checkpoint():
    """Loads a folder once for all its cases."""
    loaded: dict[Path, hub.Checkpoint] = {}

    def load(folder: Path) -> hub.Checkpoint:
        if folder not in loaded:
            loaded[folder] = hub.load(folder)
        return loaded[folder]

    return load


def read(case_file: Path) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array) for key, array in np.load(case_file).items()}


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_layers(case_file: Path, checkpoint, backend: str, grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain layers, with and without the graph; the compiled forward pass is set aside."""
    monkeypatch.setattr(encoder, "supports", lambda *_: False)
    monkeypatch.setattr(chromfound, "selective_scan", partial(selective_scan, backend=backend))
    check(checkpoint(case_file.parent).net, read(case_file), grad=grad)


def test_default_path(case_file: Path, checkpoint) -> None:
    check(checkpoint(case_file.parent).net, read(case_file), grad=False)


def check(net: sfa.nn.ChromFoundNet, case: dict[str, torch.Tensor], *, grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        hidden = net(case["value"].float(), net.embed_ocrs(case["chromosome"], case["start"], case["end"]))
        found = {"hidden_first_cell": hidden[0], "pooled": net.pool(hidden), "reconstruction": net.reconstruct(hidden)}
    assert hidden.requires_grad == grad
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.detach(), case[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("pooling", "expected"), [("hidden_mean", "pooled"), ("reconstruction", "reconstruction")])
def test_embed(case_file: Path, checkpoint, pooling: str, expected: str) -> None:
    case = {key: t.numpy() for key, t in read(case_file).items()}
    chromosomes = checkpoint(case_file.parent).chromosomes
    columns = np.random.default_rng(0).permutation(case["value"].shape[1])
    var = pd.DataFrame(
        {
            "chrom": [chromosomes[i] for i in case["chromosome"][columns]],
            "start": case["start"][columns],
            "end": case["end"][columns],
        },
        index=[f"ocr_{i}" for i in columns],
    )
    adata = AnnData(case["value"][:, columns], var=var, uns={"genome": "GRCh38"})
    sfa.tl.embed(
        adata,
        model=case_file.parent,
        recipe=None,
        n_components=None,
        pooling=pooling,
        device="cpu",
        precision="fp32",
    )
    np.testing.assert_allclose(adata.obsm["X_sfa"], case[expected][:, columns], atol=TOLERANCE, rtol=0)
