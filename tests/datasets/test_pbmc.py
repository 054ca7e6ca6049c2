from __future__ import annotations

import numpy as np

from scfound_atac.datasets import pbmc_multiome_sample


def test_pbmc_multiome_sample():
    data = pbmc_multiome_sample()
    atac, rna = data.mod["atac"], data.mod["rna"]
    assert atac.shape == (3000, 662)
    assert rna.shape == (3000, 51)
    assert list(atac.obs_names) == list(rna.obs_names)
    assert atac.X.dtype == np.uint8
    assert atac.uns["genome"] == "GRCh38"
    assert "CC BY 4.0" in atac.uns["licence"]
    assert atac.obs["cell_type"].nunique() == 13
