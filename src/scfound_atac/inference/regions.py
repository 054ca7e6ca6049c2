"""Functions for models on the region table: whether any region is known, and weights of OCRs that are stored by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._logging import logger
from ..genome import ocr_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ..genome import KnownRegions


def check_known(known: KnownRegions, name: str, *, needed: bool) -> None:
    """Refuse OCRs of which the model `name` knows none if knowledge is `needed`, and log a warning otherwise.

    Raises
    ------
    ValueError
        If knowledge is `needed` and there is none.
    """
    if known.found.any():
        return
    msg = f"None of the {len(known.found)} OCRs overlaps a region that model {name!r} knows"
    if needed:
        msg += ". Check coordinates and genome build (sfa.pp.liftover_ocrs), or use a model that reads the counts themselves."
        raise ValueError(msg)
    logger.warning("%s: cells are compared by their counts only", msg)


def idf_table(idf: NDArray[np.float32], ocrs: pd.DataFrame) -> pd.DataFrame:
    """Weights with the names of their OCRs, for ``uns``, whose entries are not sorted together with ``var``."""
    return pd.DataFrame({"idf": idf}, index=ocr_names(ocrs))


def read_idf(record: Mapping[str, Any], ocrs: pd.DataFrame) -> NDArray[np.float32]:
    """Weights of `ocrs` from a table of `idf_table`; 0 for OCRs that are not in it."""
    return record["idf"]["idf"].reindex(ocr_names(ocrs)).fillna(0).to_numpy(dtype=np.float32)


def factor_table(factors: NDArray[np.float32], ocrs: pd.DataFrame) -> pd.DataFrame:
    """Factors of batches (n_batches, n_ocrs) with the names of OCRs; batches are numbered, as their names may not be usable in files."""
    return pd.DataFrame(factors.T, index=ocr_names(ocrs), columns=[str(i) for i in range(len(factors))])


def read_factors(record: Mapping[str, Any], ocrs: pd.DataFrame) -> NDArray[np.float32]:
    """Factors of `ocrs` from a table of `factor_table`, (n_batches, n_ocrs); 1 for OCRs that are not in it."""
    table = record["batch_factors"].reindex(ocr_names(ocrs)).fillna(1)
    return np.ascontiguousarray(table.to_numpy(dtype=np.float32).T)
