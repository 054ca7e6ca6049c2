"""Region features as input of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..genome import RegionTable


def region_factors(ocrs: pd.DataFrame, n_factors: int, table: RegionTable) -> NDArray[np.float32]:
    """Features of OCRs from `table` for a network, (n_ocrs, n_factors).

    Raises
    ------
    ValueError
        If the table has another number of features than the network expects.
    """
    features = table.lookup(ocrs).features
    if features.shape[1] != n_factors:
        msg = f"The network expects n_factors={n_factors} features per region, the region table gives {features.shape[1]}."
        raise ValueError(msg)
    return features
