from __future__ import annotations

import numpy as np
import pytest

from scfound_atac.data.factors import region_factors
from scfound_atac.genome import load_region_table


def test_features_of_the_table() -> None:
    table = load_region_table()
    ocrs = table.bins.iloc[1000:1005]
    features = table.lookup(ocrs).features
    np.testing.assert_array_equal(region_factors(ocrs, features.shape[1], table), features)


def test_table_of_another_width() -> None:
    table = load_region_table()
    with pytest.raises(ValueError, match="expects n_factors=7 features per region, the region table gives"):
        region_factors(table.bins.iloc[:3], 7, table)
