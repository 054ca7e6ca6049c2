"""Blood cells, in the package."""

from __future__ import annotations

import warnings
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mudata import MuData


def pbmc_multiome_sample() -> MuData:
    """3,000 blood cells: 662 OCRs in windows around 51 genes, and the expression of these genes.

    A seeded sample of 10x Genomics' granulocyte-sorted PBMC multiome (CC BY 4.0), windows of 100 kb to either side as shipped in
    the Python package chromatinhd 0.4.3 (MIT).

    Returns
    -------
    ``mod["atac"]`` with raw counts (uint8 CSR, 3,000 x 662, GRCh38) and ``mod["rna"]`` with denoised expression (not counts; 3,000 x
    51); ``obs["cell_type"]`` has 13 types.
    """
    import mudata

    with as_file(files(__package__) / "pbmc_multiome_sample.h5mu") as path, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MuData 0.3 announces a default of 0.4 at every read
        return mudata.read_h5mu(path)
