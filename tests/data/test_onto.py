from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.data import Cells
from scfound_atac.data.onto import onto


def cells_at(starts, counts) -> ad.AnnData:
    var = pd.DataFrame({"chrom": "chr1", "start": starts, "end": np.asarray(starts) + 500})
    var.index = [f"chr1:{a}-{a + 500}" for a in starts]
    adata = ad.AnnData(sparse.csr_matrix(np.asarray(counts, dtype=np.float32)), var=var, uns={"genome": "GRCh38"})
    adata.obs_names = [f"cell{i}" for i in range(adata.n_obs)]
    return adata


def test_counts_are_those_of_map_ocrs() -> None:
    query = cells_at([1000, 1600, 9000, 20_000], [[1, 2, 0, 3], [0, 0, 4, 0], [0, 0, 0, 1]])
    target = cells_at([50_000, 1400, 20_100], [[1, 1, 1]])
    mapped, coverage = onto(Cells.read(query), Cells.read(target).ocrs, "basis")
    np.testing.assert_array_equal(mapped.to_memory().toarray(), sfa.pp.map_ocrs(query, target).X.toarray())
    np.testing.assert_array_equal(mapped.is_empty, [False, True, False])
    assert coverage == {"fraction_basis": 2 / 3, "fraction_ocrs": 3 / 4, "fraction_open": 4 / 5}


def test_no_overlap() -> None:
    query, target = cells_at([1000], [[1]]), cells_at([50_000], [[1]])
    with pytest.raises(ValueError, match=r"No OCR of adata overlaps one of basis \(1 and 1 OCRs\)"):
        onto(Cells.read(query), Cells.read(target).ocrs, "basis")
