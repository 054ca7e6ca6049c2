"""`sfa.tl.link_enhancers(method="perturbation")` on simulated cells, with predictors that have a local part and one that has none."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.inference import perturbation_links

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
N_CANDIDATES = 200
GENES = ["CD4", "LAG3", "GAPDH", "ACTB", "B2M", "MYC", "TP53", "KRAS", "NOGENE"]


def train(mdata: md.MuData, local: int | None = 500_000) -> sfa.model.RNAPredictor:
    sfa.settings.progress_bar = False
    return sfa.model.RNAPredictor(local=local).train(mdata, max_epochs=3, device="cpu")


def link(data, predictor, genes="CD4", **kwargs) -> pd.DataFrame:
    sfa.tl.link_enhancers(data, genes=genes, method="perturbation", predictor=predictor, **kwargs)
    return sfa.get.links(data)


@pytest.fixture(scope="module")
def mdata(multiome: Callable[..., md.MuData]) -> md.MuData:
    """To be read only."""
    return multiome()


@pytest.fixture(scope="module")
def predictor(mdata) -> sfa.model.RNAPredictor:
    return train(mdata)


@pytest.mark.parametrize(("seed", "local"), [(1, 500_000), (2, 500_000), (3, 250_000)])
def test_the_planted_link_is_first(seed: int, local: int, multiome: Callable[..., md.MuData]) -> None:
    mdata = multiome(seed)
    planted = mdata["atac"].uns["planted"]
    links = link(mdata, train(mdata, local))
    assert len(links) == N_CANDIDATES
    distance = links.set_index("ocr")["distance"]
    assert distance[planted] <= local
    assert links["ocr"][0] == planted
    assert links["p"][0] == links["p"].min()
    assert links["q"][0] < 0.05
    assert (links["q"][1:] < 0.05).mean() <= 0.01
    assert links["probability"].isna().all()


@pytest.mark.parametrize(
    ("local", "n_seeds"),
    [(250_000, 2), *(pytest.param(local, n, marks=pytest.mark.slow) for local, n in ((500_000, 20), (None, 2)))],
)
def test_without_a_link_there_is_none(local: int | None, n_seeds: int, multiome: Callable[..., md.MuData]) -> None:
    """With 250,000, some pairs have weights and are compared with decoys, and others have none and are compared with other OCRs."""
    found = []
    for seed in range(n_seeds):
        mdata = multiome(seed, is_linked=False)
        found.append(link(mdata, train(mdata, local), genes=None, groupby="cell_type"))
    links = pd.concat(found)
    assert (links["q"] < 0.05).mean() <= 0.01
    assert (links["p"] < 0.05).mean() < 0.1
    assert (links["p"] < 0.5).mean() == pytest.approx(0.5, abs=0.15)
    assert set(links["gene"].unique()) <= set(GENES)


def test_scores_are_changes(mdata: md.MuData) -> None:
    """Of a predictor without local part the score is what `perturb_ocrs` says."""
    predictor, data = train(mdata, None), mdata.copy()
    links = link(data, predictor, groupby="cell_type")
    ocrs = list(links["ocr"].unique()[::20])
    sfa.tl.perturb_ocrs(data, predictor=predictor, ocrs=ocrs, genes=["CD4"], groupby="cell_type", device="cpu")
    changes = sfa.get.perturbation(data).set_index(["group", "ocr"])["change"].abs()
    scores = links.set_index(["group", "ocr"])["score"]
    np.testing.assert_allclose(scores.loc[changes.index], changes, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_without_expression_and_from_a_folder(mdata: md.MuData, predictor, tmp_path) -> None:
    data, atac = mdata.copy(), mdata["atac"].copy()
    expected = link(data, predictor, groupby="cell_type")
    found = link(atac, predictor.save(tmp_path / "model"), groupby="cell_type")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)
    assert atac.uns["sfa_links_params"]["method"] == "perturbation"
    assert set(found["group"]) == {"T", "B"}
    assert (found.groupby("group", observed=True)["q"].min() < 0.05).all()
    atac.write_h5ad(tmp_path / "x.h5ad")
    back = sfa.get.links(ad.read_h5ad(tmp_path / "x.h5ad"))
    pd.testing.assert_frame_equal(back, found, check_categorical=False)


def test_other_ocrs_and_closed_ones(mdata: md.MuData, predictor) -> None:
    """OCRs in another order take the weights of those that they overlap; those that are closed have no p."""
    expected = link(mdata.copy(), predictor).set_index("ocr")
    atac = mdata["atac"][:, ::-1].copy()
    closed = expected.index[5]
    counts = atac.X.toarray()
    counts[:, atac.var_names.get_loc(closed)] = 0
    atac.X = sparse.csr_matrix(counts)
    found = link(atac, predictor).set_index("ocr")
    assert found["score"][closed] == 0
    assert found[["p", "q"]].isna().sum().tolist() == [1, 1]
    assert found.index[0] == expected.index[0]
    np.testing.assert_allclose(found["score"].iloc[:3], expected["score"].loc[found.index[:3]], rtol=0.05)


@pytest.mark.slow
def test_blocks_change_nothing(mdata: md.MuData, monkeypatch) -> None:
    """Of OCRs that are perturbed at a time, and of genes whose changes by null OCRs are held in memory."""
    predictor = train(mdata, 250_000)
    expected = link(mdata.copy(), predictor, genes=None, groupby="cell_type")
    assert expected["gene"].nunique() > 1
    monkeypatch.setattr(perturbation_links, "_OCRS_PER_BLOCK", 50)
    monkeypatch.setattr(perturbation_links, "_CHANGES", 1)
    found = link(mdata.copy(), predictor, genes=None, groupby="cell_type")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-2, atol=1e-5)


def test_genes_that_the_predictor_does_not_know(mdata: md.MuData, predictor, caplog) -> None:
    data = mdata.copy()
    with caplog.at_level(logging.INFO, logger="scfound_atac"):
        links = link(data, predictor, genes=["CD4", "ING4", "PTMS"])
    assert "2 of 3 genes are not known to the predictor and get no links" in caplog.text
    assert set(links["gene"]) == {"CD4"}
    before = mdata["atac"].copy()
    with pytest.raises(
        ValueError, match=r"The predictor knows none of the 1 genes \(ING4, ...\); predictor.genes lists the 9"
    ):
        link(before, predictor, genes="ING4")
    assert_equal(before, mdata["atac"])


def test_predictors_that_cannot_be_used(mdata: md.MuData, predictor, tmp_path) -> None:
    atac = mdata["atac"].copy()
    with pytest.raises(RuntimeError, match="not trained: call train"):
        link(atac, sfa.model.RNAPredictor())
    with pytest.raises(FileNotFoundError, match="holds no saved RNAPredictor"):
        link(atac, tmp_path)
    with pytest.raises(TypeError, match="opened by the path of its folder; got int"):
        link(atac, 5)
    with pytest.raises(ValueError, match="has no probabilities"):
        link(atac, predictor, min_probability=0.5)
    old = sfa.model.RNAPredictor.load(predictor.save(tmp_path / "model"))
    old._with_decoys = None
    old = sfa.model.RNAPredictor.load(old.save(tmp_path / "old"))  # as folders were before there were decoys
    assert old.predict(atac[:5], device="cpu").equals(predictor.predict(atac[:5], device="cpu"))
    with pytest.raises(ValueError, match="trained by a version that knew no decoys"):
        link(atac, old)
    assert_equal(atac, mdata["atac"])


def test_few_ocrs_elsewhere(caplog, multiome: Callable[..., md.MuData]) -> None:
    """Without OCRs on other chromosomes there is no null: scores without p, and a warning."""
    data = multiome(n_elsewhere=10)
    with caplog.at_level(logging.WARNING, logger="scfound_atac"):
        links = link(data, train(data, 250_000))
    assert "1 of 1 genes have links without p" in caplog.text
    assert links[["p", "q"]].isna().all(axis=None)
    assert links["score"].gt(0).any()
