from __future__ import annotations

import pandas as pd
import pytest

import scfound_atac as sfa


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


SCORES = ("kmeans_nmi", "knn")


def test_report() -> None:
    text = sfa.bench.report(table(), scores=SCORES)
    marrow, blood = text.split("### blood")
    assert marrow.startswith("### marrow\n\n| counts | smoothing | method | KMeans NMI | kNN accuracy |\n")
    assert "| 100 % | no | new | **0.700 ± 0.020** | **0.600 ± 0.200** |" in marrow
    assert "| 100 % | no | lsi | 0.500 ± 0.020 | 0.400 ± 0.200 |" in marrow
    assert marrow.strip().endswith("LSI beats all other methods nowhere in KMeans NMI; nowhere in kNN accuracy.")
    assert "| 100 % | no | lsi | **0.800 ± 0.020** | **0.700 ± 0.200** |" in blood
    assert blood.endswith("LSI beats all other methods in KMeans NMI at 100 %; in kNN accuracy at 100 %.")


def test_report_without_deviations_and_sets() -> None:
    part = table().query("data == 'marrow'").drop(columns=["data", "knn_sd"])
    text = sfa.bench.report(part, scores=SCORES)
    assert text.startswith("| counts |")
    assert "| 10 % | no | new | **0.700 ± 0.020** | **0.600** |" in text


def test_errors() -> None:
    with pytest.raises(KeyError, match="no columns .'kmeans_ari'"):
        sfa.bench.report(table())
