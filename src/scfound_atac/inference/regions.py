"""What models of region knowledge share: whether regions are known at all, and OCR weights that are kept by the OCRs' names."""

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
    """Refuse OCRs of which the model `name` knows none, if it has nothing else to go by, and otherwise say so in the log.

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
    logger.warning("%s: cells are compared by their counts alone", msg)


def idf_table(idf: NDArray[np.float32], ocrs: pd.DataFrame) -> pd.DataFrame:
    """Weights by the names of their OCRs, so that they can lie in ``uns``, which is not sorted with ``var``."""
    return pd.DataFrame({"idf": idf}, index=ocr_names(ocrs))


def read_idf(record: Mapping[str, Any], ocrs: pd.DataFrame) -> NDArray[np.float32]:
    """Weights of `ocrs` from a table of `idf_table`; 0 for those that it does not hold."""
    return record["idf"]["idf"].reindex(ocr_names(ocrs)).fillna(0).to_numpy(dtype=np.float32)
