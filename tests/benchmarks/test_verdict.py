from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from verdict import verdict


def table() -> pd.DataFrame:
    """Two sets, two depths; `new` wins but for one setting, which `lsi` wins by more than its deviation."""
    rows = []
    for data in ("marrow", "blood"):
        for fraction in (1.0, 0.1):
            lsi = 0.8 if (data, fraction) == ("blood", 1.0) else 0.5
            for method, value in (("lsi", lsi), ("spectral", 0.4), ("new", 0.7)):
                rows.append(
                    {
                        "data": data,
                        "method": method,
                        "fraction": fraction,
                        "smooth": False,
                        "kmeans_nmi": value,
                        "kmeans_nmi_sd": 0.02,
                    }
                    | {"knn": value - 0.1, "knn_sd": 0.2}
                )
    return pd.DataFrame(rows)


def test_verdict() -> None:
    text = verdict(table(), "new")
    assert text.startswith("**new, without smoothing, against methods without smoothing**")
    assert (
        "- KMeans NMI: best or within one sd of the best in 3 of 4 settings; mean 0.700, strictly best (lsi: 0.575).\n"
        in text
    )
    assert "  - blood at 100 %: 0.700, lsi 0.800 ± 0.020\n" in text
    assert (
        "- kNN accuracy: best or within one sd of the best in 4 of 4 settings; mean 0.600, strictly best (lsi: 0.475)."
        in text
    )
    assert "not the best (new: 0.700)" in verdict(table(), "lsi")


def test_verdict_with_smoothing_compares_across() -> None:
    both = pd.concat([table(), table().assign(smooth=True, kmeans_nmi=lambda t: t["kmeans_nmi"] + 0.15)])
    text = verdict(both, "new", scores=["kmeans_nmi"])
    assert text.count("**new, ") == 4
    plain_against_all = text.split("**new, without smoothing, against methods in either way**")[1]
    assert "blood at 100 %: 0.700, lsi, smoothed 0.950 ± 0.020" in plain_against_all
    assert "not the best (lsi, smoothed: 0.725)" in plain_against_all


def test_verdict_leaves_out_what_is_incomplete() -> None:
    rows = table()
    missing = rows[~((rows["method"] == "lsi") & (rows["data"] == "blood"))]
    assert "not in every setting, left out: lsi." in verdict(missing, "new")
    assert "lsi has not been run in every setting" in verdict(missing, "lsi")


def test_unknown_method() -> None:
    with pytest.raises(KeyError, match="no method 'old' in the table. Methods: .'lsi', 'new', 'spectral'"):
        verdict(table(), "old")
