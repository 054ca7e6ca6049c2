"""`sfa.get.perturbation`: rows of the table, and what is said if there are none."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import scfound_atac as sfa


@pytest.fixture
def adata() -> ad.AnnData:
    adata = ad.AnnData(np.zeros((2, 3), dtype=np.float32))
    names = pd.MultiIndex.from_product([["o1", "o2"], ["A", "B"], ["x", "y", "z"]], names=["ocr", "gene", "group"])
    table = names.to_frame(index=False).astype("category")
    adata.uns["sfa_perturbation"] = table.assign(
        n_cells=3, before=1.0, after=1.5, change=np.arange(12) / 10, relative_change=0.5
    )
    return adata


def test_rows(adata):
    assert len(sfa.get.perturbation(adata)) == 12
    assert list(sfa.get.perturbation(adata, ocr="o2", gene="A", group=["z", "x"])["change"]) == [0.6, 0.8]
    assert set(sfa.get.perturbation(adata, gene=pd.Index(["B"]))["gene"]) == {"B"}
    mdata = md.MuData({"peaks": adata})
    assert len(sfa.get.perturbation(mdata, modality="peaks", group="y")) == 4


def test_it_is_a_copy(adata):
    for table in (sfa.get.perturbation(adata), sfa.get.perturbation(adata, gene="A")):
        table["change"] = 7.0
    assert adata.uns["sfa_perturbation"]["change"].max() < 2


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"ocr": "o3"}, KeyError, r"has no ocr 'o3'; it has 2: o1, o2\."),
        ({"gene": ["A", "C"]}, KeyError, "has no gene 'C'; it has 2: A, B"),
        ({"group": "all"}, KeyError, "has no group 'all'; it has 3: x, y, z"),
        (
            {"key": "mine"},
            KeyError,
            r"adata.uns\['mine'\] is not there. Run sfa.tl.perturb_ocrs first",
        ),
        ({"key": "other"}, KeyError, r"adata.uns\['other'\] holds something else than its table"),
        ({"key": 3}, TypeError, "key= takes the name of a table"),
        ({"gene": 3}, TypeError, "gene= takes a name or a list of names"),
        ({"gene": [3]}, TypeError, "gene= takes a name or a list of names"),
    ],
)
def test_errors(adata, kwargs, error, message):
    adata.uns["other"] = {"a": 1}
    with pytest.raises(error, match=message):
        sfa.get.perturbation(adata, **kwargs)


def test_wrong_object(adata):
    with pytest.raises(TypeError, match="must be an AnnData"):
        sfa.get.perturbation(adata.uns["sfa_perturbation"])
    with pytest.raises(KeyError, match="no modality 'atac'"):
        sfa.get.perturbation(md.MuData({"peaks": adata}))
