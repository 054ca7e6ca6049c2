"""A modality is added to a MuData whatever its common tables look like."""

from __future__ import annotations

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scfound_atac.tl._add_modality import add_modality

NAMES = [f"cell{i}" for i in range(6)]


def make(index_names: tuple[str | None, str | None]) -> md.MuData:
    """Two modalities with names of the index as given, and columns in the common tables."""
    modalities = {}
    for number, (key, name) in enumerate(zip(("atac", "rna"), index_names, strict=True)):
        obs = pd.DataFrame({"kind": list("aabbcc")}, index=pd.Index(NAMES, name=name))
        var = pd.DataFrame(index=[f"{key}{i}" for i in range(3 + number)])
        modalities[key] = AnnData(np.ones((6, len(var)), dtype=np.float32), obs=obs, var=var)
    mdata = md.MuData(modalities)
    mdata.obs["donor"] = ["one", "two"] * 3
    mdata.var["used"] = np.arange(mdata.n_vars) > 2
    return mdata


@pytest.mark.parametrize("copy", [False, True], ids=["as it is", "copied"])
@pytest.mark.parametrize("index_names", [(None, None), ("cell", "cell"), ("cell", None)], ids=str)
def test_common_tables_keep_their_columns(index_names, copy) -> None:
    mdata = make(index_names)
    mdata = mdata.copy() if copy else mdata
    for width in (2, 5):  # the second replaces the first
        var = pd.DataFrame(index=[f"gene{i}" for i in range(width)])
        add_modality(mdata, "more", AnnData(np.zeros((6, width), np.float32), obs=mdata["atac"].obs.copy(), var=var))
        assert mdata.shape == (6, 3 + 4 + width)
        assert mdata.obs_names.tolist() == NAMES
        assert mdata.obs["donor"].tolist() == ["one", "two"] * 3
        assert mdata.var.loc[["atac0", "rna0", "rna3"], "used"].tolist() == [False, True, True]
        assert mdata["more"].shape == (6, width)
        assert mdata[2:].copy()["more"].shape == (4, width)
    assert mdata["atac"].obs_names.name == index_names[0]
    assert mdata["rna"].obs_names.name == index_names[1]
