from __future__ import annotations

import logging

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal

import scfound_atac as sfa

pytestmark = pytest.mark.filterwarnings("ignore:Cannot join columns:UserWarning")


@pytest.fixture
def apart() -> md.MuData:
    """Six cells of accessibility, eight of expression in another order; five are the same, and names differ."""
    rng = np.random.default_rng(0)
    barcodes = ["AAACAGCC", "AAACATGC", "AAACCGGA", "TTTGCGCA", "TTTGGGCA", "CCCGGGCA"]
    atac = AnnData(rng.poisson(1.0, (6, 4)).astype(np.float32), obs=pd.DataFrame({"n": range(6)}))
    atac.obs_names = [f"{x}-1" for x in barcodes]
    rna = AnnData(rng.poisson(1.0, (8, 3)).astype(np.float32), obs=pd.DataFrame({"m": range(8)}))
    rna.obs_names = [f"{x}-1_rna" for x in [*barcodes[4::-1], "GGGGGGGG", "TATATATA", "GAGAGAGA"]]
    atac.var_names, rna.var_names = [f"chr1:{i}00-{i}50" for i in range(4)], ["A", "B", "C"]
    mdata = md.MuData({"atac": atac, "rna": rna})
    mdata.obs["donor"] = pd.Categorical(["x"] * 6 + ["y"] * 8)
    mdata.uns["study"] = {"name": "s"}
    return mdata


def test_pairs(apart: md.MuData, caplog: pytest.LogCaptureFixture) -> None:
    before = apart.copy()
    with caplog.at_level(logging.INFO, logger="scfound_atac"):
        paired = sfa.pp.pair_cells(apart)
    assert "paired 5 cells, 5 of them renamed; 1 of accessibility and 3 of 'rna' are alone" in caplog.text
    assert paired.n_obs == 9
    assert list(paired["atac"].obs_names) == list(apart["atac"].obs_names)
    assert list(paired["rna"].obs_names[:5]) == list(apart["atac"].obs_names[4::-1])
    assert list(paired["rna"].obs_names[5:]) == list(apart["rna"].obs_names[5:])
    np.testing.assert_array_equal(paired["rna"].X, before["rna"].X)
    assert list(paired["rna"].obs["m"]) == list(range(8))
    donors = paired.obs["donor"]
    assert set(donors[apart["atac"].obs_names]) == {"x"}
    assert set(donors[apart["rna"].obs_names[5:]]) == {"y"}
    assert paired.uns["study"]["name"] == "s"
    # what is given stays as it was, also when the result changes
    paired["rna"].X[:] = 9
    paired.uns["study"]["name"] = "t"
    for name in ("atac", "rna"):
        assert_equal(apart[name], before[name])
    assert list(apart.obs_names) == list(before.obs_names)
    assert apart.uns["study"]["name"] == "s"


def test_values_of_expression_where_accessibility_has_none(apart: md.MuData) -> None:
    apart.obs["donor"] = pd.Series(["r"] * 8, index=apart["rna"].obs_names).reindex(apart.obs_names)
    apart.obs["whole"] = np.arange(14)
    found = sfa.pp.pair_cells(apart).obs
    assert list(found["donor"].isna()) == [*[False] * 5, True, *[False] * 3]
    assert found["whole"].dtype.kind == "i"


def test_result_can_be_written(apart: md.MuData, tmp_path) -> None:
    sfa.pp.pair_cells(apart).write(tmp_path / "paired.h5mu")
    assert md.read_h5mu(tmp_path / "paired.h5mu").n_obs == 9


def test_faults(apart: md.MuData) -> None:
    with pytest.raises(TypeError, match="Expected MuData with both modalities as mdata"):
        sfa.pp.pair_cells(apart["atac"])
    with pytest.raises(TypeError, match="mdata must be an AnnData"):
        sfa.pp.pair_cells(3)
    with pytest.raises(KeyError, match="no modality 'genes'"):
        sfa.pp.pair_cells(apart, rna_modality="genes")
    with pytest.raises(KeyError, match="no modality 'peaks'"):
        sfa.pp.pair_cells(apart, modality="peaks")
    other = AnnData(apart["rna"].X, obs=pd.DataFrame(index=[f"c{i}" for i in range(8)]))
    with pytest.raises(ValueError, match=r"No cells can be paired: mdata\["):
        sfa.pp.pair_cells(md.MuData({"atac": apart["atac"], "rna": other}))
    twice = apart["rna"].copy()
    twice.obs_names = ["AAACAGCC-1"] * 8
    with (
        pytest.warns(UserWarning, match="not unique"),
        pytest.raises(ValueError, match="Names of cells repeat in mdata"),
    ):
        sfa.pp.pair_cells(md.MuData({"atac": apart["atac"], "rna": twice}))


def test_functions_that_need_pairs_say_so(apart: md.MuData, caplog: pytest.LogCaptureFixture) -> None:
    from scfound_atac.train.paired_data import paired_names

    with pytest.raises(
        ValueError, match=r"5 names differ by more than the barcode.*mdata = sfa.pp.pair_cells\(mdata\).*5 pairs"
    ):
        paired_names(apart["atac"], apart["rna"])
    paired = sfa.pp.pair_cells(apart)
    assert len(paired_names(paired["atac"], paired["rna"])) == 5
    assert "pair_cells" not in caplog.text
    first, *others = apart["rna"].obs_names
    apart["rna"].obs_names = [first.removesuffix("_rna"), *others]
    assert len(paired_names(apart["atac"], apart["rna"])) == 1
    assert "only 1 cells of mdata have both modalities. 4 names differ" in caplog.text
