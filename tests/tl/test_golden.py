"""What the models in the package say of the cells in the package, number by number.

Other tests compare two calls, so that a changed table, mixture, preparation or set of weights changes both and passes. The numbers here
were written down once. They do not depend on the signs of components, nor on rotations of components that are about equally large:
distances and lengths in the whole space, variance ratios that are well apart, probabilities. With one and two threads, with OpenBLAS's
kernels for CPUs of 2008, and with torch without vector instructions, they agreed to six digits.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import scfound_atac as sfa
from scfound_atac.genome import load_region_table
from scfound_atac.hub import load

N_CELLS, N_QUERY = 600, 400
PAIRS = np.array([(0, 1), (0, 2), (3, 50), (100, 500), (222, 599), (7, 311)])
# Rounding in float32 reaches 1e-6 of these numbers; another release of LAPACK or of a compiler may add to that. A constant or a table that
# differs by hundredths moves them by more, see `test_embed_notices_a_change`.
RTOL = 5e-4

EMBEDDED: dict[str, dict[str, Any]] = {
    "region-set": {
        "distances": [0.036629, 0.044476, 0.034276, 0.058930, 0.049962, 0.057059],
        "variance_ratio": [0.289929, 0.105864, 0.074480],
        "sum_of_ratios": 0.918031,
        "sum_of_squares": 0.847290,
        "knn_accuracy": 0.5983,
    },
    "biosample-mix": {
        "distances": [0.035175, 0.041900, 0.032530, 0.042502, 0.040128, 0.041661],
        "variance_ratio": [0.073238, 0.031647, 0.028077],
        "sum_of_ratios": 0.487785,
        "sum_of_squares": 0.585832,
        "knn_accuracy": 0.5500,
    },
    "biosample-prior": {
        "distances": [1.292802, 1.217637, 1.053995, 1.985351, 1.664417, 2.539387],
        "variance_ratio": [0.295081, 0.193871, 0.095787],
        "sum_of_ratios": 1.0,
        "sum_of_squares": 1712.512,
        "knn_accuracy": 0.5633,
    },
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")
        logging.getLogger("scfound_atac").setLevel(logging.ERROR)
        yield
        logging.getLogger("scfound_atac").setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def pbmc() -> AnnData:
    """To be read only."""
    return sfa.datasets.pbmc_multiome_sample()["atac"]


def described(adata: AnnData) -> dict[str, Any]:
    """What is compared of an embedding."""
    vectors, ratio = adata.obsm["X_sfa"].astype(np.float64), adata.uns["sfa"]["variance_ratio"]
    labels = adata.obs["cell_type"].to_numpy(str)
    found = cross_val_predict(KNeighborsClassifier(15), vectors, labels, cv=5)
    return {
        "distances": np.linalg.norm(vectors[PAIRS[:, 0]] - vectors[PAIRS[:, 1]], axis=1),
        "variance_ratio": ratio[:3],
        "sum_of_ratios": ratio.sum(),
        "sum_of_squares": (vectors**2).sum(),
        "knn_accuracy": (found == labels).mean(),
    }


def embedded(pbmc: AnnData, model: Any, **options: Any) -> AnnData:
    adata = pbmc[:N_CELLS].copy()
    sfa.tl.embed(adata, model=model, **options)
    return adata


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of the quantities that are not as expected."""
    # A neighbour at equal distance may be another one elsewhere: two cells of 600.
    tolerance = {"knn_accuracy": {"rtol": 0, "atol": 2.5 / N_CELLS}}
    exact = {"rtol": RTOL, "atol": 0}
    return [
        name for name, value in expected.items() if not np.allclose(found[name], value, **tolerance.get(name, exact))
    ]


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")  # of scikit-learn, on the folds
@pytest.mark.parametrize("model", EMBEDDED)
def test_embed(pbmc: AnnData, model: str):
    adata = embedded(pbmc, model)
    found = described(adata)
    assert not differences(found, EMBEDDED[model]), found
    params = adata.uns["sfa"]["params"]
    assert params["fraction_known"] == pytest.approx(611 / 662)
    assert params["n_ocrs_used"] == 662
    if model == "biosample-mix":
        assert (params["signal"], params["knowledge"]) == pytest.approx((0.0472076, 0.0485695), rel=RTOL)


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_embed_notices_a_change(pbmc: AnnData, tmp_path: Path):
    """Another region table, mixture, preparation or network shows, even if it differs by hundredths."""
    import torch

    default = load("region-set")
    altered = load("region-set").net
    with torch.no_grad():
        next(altered.parameters()).mul_(1.02)
    whole = load_region_table()
    near = whole._near(pbmc.var)
    table = replace(whole, bins=whole.bins.iloc[near], quantised=whole.quantised[:, near], n_open=whole.n_open[near])
    table.save(tmp_path / "same.npz")
    replace(table, step=whole.step * np.where(np.arange(whole.n_factors) == 0, 1.05, 1)).save(tmp_path / "other.npz")
    same = embedded(pbmc, replace(default, regions=tmp_path / "same.npz"))
    assert not differences(described(same), EMBEDDED["region-set"])
    changed = {
        "table": embedded(pbmc, replace(default, regions=tmp_path / "other.npz")),
        "table, linear prior": embedded(pbmc, replace(load("biosample-prior"), regions=tmp_path / "other.npz")),
        "table, linear mix": embedded(pbmc, replace(load("biosample-mix"), regions=tmp_path / "other.npz")),
        "mix": embedded(pbmc, replace(default, mix=0.5)),
        "a little of mix": embedded(pbmc, replace(default, mix=0.68)),
        "preparation": embedded(pbmc, replace(default, preparation={"target_sum": 1e4, "log1p": True})),
        "weights": embedded(pbmc, replace(default, net=altered)),
        "linear mix": embedded(pbmc, replace(load("biosample-mix"), mix=0.5)),
    }
    for what, adata in changed.items():
        model = {"linear mix": "biosample-mix", "linear prior": "biosample-prior"}.get(what.removeprefix("table, "))
        expected = EMBEDDED[model or "region-set"]
        assert differences(described(adata), expected), what


# ---------------------------------------------------------------- imputation

# Cell, OCR, and expected openness. Groups come from k-means, whose steps sum in another order elsewhere: hundredths, not thousandths.
IMPUTED = [
    (0, 247, 0.89986),
    (0, 280, 0.71596),
    (0, 388, 0.39397),
    (100, 646, 0.58179),
    (400, 247, 0.78409),
    (400, 490, 0.59478),
    (400, 462, 0.30959),
]


def test_impute(pbmc: AnnData):
    adata = pbmc[:N_CELLS].copy()
    sfa.tl.impute(adata)
    imputed = adata.layers["sfa_imputed"]
    params = adata.uns["sfa_imputed"]["params"]
    assert (params["n_kept"], params["n_groups"]) == (117, 20)
    assert imputed.nnz == 597 * 117  # three cells have no open OCR
    cells, ocrs, expected = zip(*IMPUTED, strict=True)
    np.testing.assert_allclose(np.asarray(imputed[list(cells), list(ocrs)]).ravel(), expected, atol=0.01)
    assert imputed.sum() == pytest.approx(19046.8, rel=2e-3)
    assert imputed.power(2).sum() == pytest.approx(9527.1, rel=2e-3)
    np.testing.assert_array_equal(
        imputed[100, [642, 647]].toarray(), [[1, 1]]
    )  # the depth of this cell goes beyond probability 1


# ---------------------------------------------------------------- annotation

CONFIDENCES = [0.45000, 0.46519, 0.61337, 0.52964, 0.34617, 0.47287]
NOVELTIES = [2.86687, 2.59066, 2.61511, 2.53736, 2.62204, 2.85087]
REPORT = {"held_out_accuracy": 0.69492, "held_out_auc": 0.93145, "temperature": 6.17406, "novelty_threshold": 4.57177}


def test_annotate(pbmc: AnnData):
    reference, query = pbmc[:N_CELLS].copy(), pbmc[N_CELLS : N_CELLS + N_QUERY].copy()
    query.obs = query.obs.rename(columns={"cell_type": "truth"})
    sfa.tl.annotate(query, reference=reference, labels_key="cell_type")
    predicted = query.obs["cell_type_pred"].astype(str)
    accuracy = (predicted == query.obs["truth"].astype(str)).mean()
    assert accuracy == pytest.approx(0.6500, abs=2.5 / N_QUERY)
    np.testing.assert_allclose(query.obs["cell_type_confidence"].iloc[:6], CONFIDENCES, atol=2e-3)
    np.testing.assert_allclose(query.obs["cell_type_novelty"].iloc[:6], NOVELTIES, rtol=2e-3)
    assert query.obs["cell_type_confidence"].mean() == pytest.approx(0.58317, abs=1e-3)
    report = query.uns["cell_type_annotation"]["report"]
    assert {name: report[name] for name in REPORT} == pytest.approx(REPORT, abs=0.01)
    assert query.obsm["cell_type_probabilities"].shape == (N_QUERY, 12)
