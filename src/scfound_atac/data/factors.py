"""What is known of regions, for networks that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..genome import RegionTable


def region_factors(ocrs: pd.DataFrame, n_factors: int, table: RegionTable) -> NDArray[np.float32]:
    """What a network is told of OCRs: the features that `table` knows of them, (n_ocrs, n_factors).

    Raises
    ------
    ValueError
        If the table knows more or less than the network expects.
    """
    features = table.lookup(ocrs).features
    if features.shape[1] != n_factors:
        msg = f"The network expects n_factors={n_factors} features per region, the region table gives {features.shape[1]}."
        raise ValueError(msg)
    return features
