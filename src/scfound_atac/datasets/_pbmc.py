"""Blood cells that are part of the package."""

from __future__ import annotations

import warnings
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mudata import MuData


def pbmc_multiome_sample() -> MuData:
    """3,000 blood cells: 662 OCRs in windows around 51 genes, and the expression of these genes.

    A random sample of the granulocyte-sorted PBMC multiome of 10x Genomics (CC BY 4.0), with windows of 100 kb on either side of each
    gene, as shipped in the Python package chromatinhd 0.4.3 (MIT).

    Returns
    -------
    ``mod["atac"]`` with raw counts (uint8 CSR, 3,000 x 662, GRCh38) and ``mod["rna"]`` with denoised expression (not counts; 3,000 x
    51); ``obs["cell_type"]`` has 13 types.
    """
    import mudata

    with as_file(files(__package__) / "pbmc_multiome_sample.h5mu") as path, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MuData 0.3 warns about a default of 0.4 at every read
        return mudata.read_h5mu(path)
