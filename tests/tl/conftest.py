from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def in_form(tmp_path: Path) -> Callable[..., tuple[ad.AnnData, str | None]]:
    """From cells with counts in CSR to the same counts in another form, and the layer they are in."""

    def convert(
        adata: ad.AnnData, form: Literal["csc", "dense", "array", "int", "layer", "backed"]
    ) -> tuple[ad.AnnData, str | None]:
        if form == "csc":
            adata.X = adata.X.tocsc()
        elif form == "dense":
            adata.X = adata.X.toarray()
        elif form == "array":
            adata.X = sparse.csr_array(adata.X)
        elif form == "int":
            adata.X = adata.X.astype(np.uint8)
        elif form == "layer":
            adata.layers["counts"], adata.X = adata.X, adata.X * 0
            return adata, "counts"
        else:
            adata.write_h5ad(tmp_path / "cells.h5ad")
            return ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"), None
        return adata, None

    return convert
