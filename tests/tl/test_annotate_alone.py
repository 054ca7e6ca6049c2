"""`sfa.tl.annotate` without a reference, on cells that are simulated from the element table and on real ones."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scfound_atac as sfa

TYPES = ("hepatocyte", "astrocyte", "classical monocyte", "naive B cell")
WRITTEN = [f"cell_type_{name}" for name in ("pred", "best", "confidence", "novelty", "pred_ontology_term_id")]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    sfa.settings.progress_bar = False


@pytest.fixture(scope="module")
def mixture(typed_cells):
    return typed_cells(dict.fromkeys(TYPES, 60), n_open=300)


def test_names_are_right_and_survive_h5ad(mixture, tmp_path) -> None:
    cells = mixture.copy()
    assert sfa.tl.annotate(cells) is None
    assert (cells.obs["cell_type_best"].astype(str) == cells.obs["truth"]).mean() > 0.95
    named = cells.obs["cell_type_pred"] != "unknown"
    assert named.mean() > 0.9
    p, record = cells.obsm["cell_type_probabilities"], cells.uns["cell_type_annotation"]
    assert (p.shape, p.dtype) == ((240, 150), np.float32)
    np.testing.assert_allclose(p.sum(axis=1) + cells.obs["cell_type_novelty"], 1, atol=1e-5)
    assert (cells.obs["cell_type_confidence"][named] >= 0.8).all()
    assert cells.obs["cell_type_pred_ontology_term_id"][named].str.startswith("CL:").all()
    assert record["labels"][p[0].argmax()] == cells.obs["cell_type_best"].iloc[0]
    cells.copy().write_h5ad(tmp_path / "a.h5ad")  # writing makes categories of texts
    assert_equal(ad.read_h5ad(tmp_path / "a.h5ad").uns["cell_type_annotation"]["evidence"], record["evidence"])
    cells.obs = cells.obs.drop(columns=WRITTEN)
    del cells.obsm["cell_type_probabilities"], cells.uns["cell_type_annotation"]
    assert_equal(cells, mixture)


def test_one_type_alone_is_named(typed_cells) -> None:
    cells = typed_cells({"astrocyte": 60}, n_open=300)
    sfa.tl.annotate(cells)
    assert (cells.obs["cell_type_best"] == "astrocyte").mean() > 0.9


@pytest.mark.parametrize("n_cells", [1, 10])
def test_few_cells(typed_cells, n_cells) -> None:
    cells = typed_cells({"hepatocyte": n_cells}, n_open=800)
    sfa.tl.annotate(cells)
    assert (cells.obs["cell_type_best"] == "hepatocyte").all()


def test_knowledge_dealt_out_by_chance_names_nothing(mixture) -> None:
    # The same counts on other regions: what is open says nothing of any type.
    cells = mixture.copy()
    order = np.random.default_rng(0).permutation(cells.n_vars)
    cells.var = cells.var.iloc[order]
    sfa.tl.annotate(cells)
    assert (cells.obs["cell_type_pred"] == "unknown").mean() > 0.9


def test_fifty_ocrs_are_too_few_to_be_sure(mixture) -> None:
    cells = mixture[:, :50].copy()
    cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()
    sfa.tl.annotate(cells, genome="GRCh38")
    wrong = (cells.obs["cell_type_pred"] != "unknown") & (cells.obs["cell_type_pred"].astype(str) != cells.obs["truth"])
    assert wrong.mean() < 0.2


def test_empty_cells_are_unknown(mixture) -> None:
    cells = mixture[:60].copy()
    counts = cells.X.tolil()
    counts[:2] = 0
    cells.X = sparse.csr_matrix(counts)
    sfa.tl.annotate(cells)
    assert (cells.obs["cell_type_pred"].iloc[:2] == "unknown").all()
    assert (cells.obs["cell_type_best"].iloc[:2] == "unknown").all()
    assert cells.obs["cell_type_confidence"].isna().tolist() == [True, True, *[False] * 58]
    assert np.isnan(cells.obsm["cell_type_probabilities"][:2]).all()
    alone = mixture[2:60].copy()
    sfa.tl.annotate(alone)
    np.testing.assert_allclose(
        alone.obsm["cell_type_probabilities"], cells.obsm["cell_type_probabilities"][2:], atol=1e-5
    )


@pytest.mark.slow
def test_order_of_cells_and_ocrs_does_not_matter(mixture) -> None:
    cells, turned = mixture[::3].copy(), mixture[::3][::-1, ::-1].copy()
    sfa.tl.annotate(cells, n_neighbors=0)
    sfa.tl.annotate(turned, n_neighbors=0)
    # Signs of domains depend on the order of OCRs, so that the noise is only estimated alike.
    assert (turned.obs["cell_type_best"][cells.obs_names] == cells.obs["cell_type_best"]).mean() > 0.95
    again = mixture[::3].copy()
    sfa.tl.annotate(again, n_neighbors=0)
    assert_equal(again, cells)


def test_candidates_restrict_the_names(mixture) -> None:
    cells = mixture.copy()
    sfa.tl.annotate(cells, candidates=["Blood"])
    blood = cells.obs["truth"].isin(["classical monocyte", "naive B cell"])
    assert (cells.obs["cell_type_best"][blood].astype(str) == cells.obs["truth"][blood]).mean() > 0.95
    assert not cells.obs["cell_type_best"].isin(["hepatocyte", "astrocyte"]).any()
    assert cells.uns["cell_type_annotation"]["params"]["candidates"].tolist() == ["Blood"]


def test_evidence_per_group(mixture) -> None:
    cells = mixture.copy()
    cells.obs["cluster"] = pd.Categorical(cells.obs["truth"].where(cells.obs["truth"] != "astrocyte"))
    sfa.tl.annotate(cells, groupby="cluster")
    table = cells.uns["cell_type_annotation"]["evidence"]
    assert set(table["group"]) == set(TYPES) - {"astrocyte"}
    first = table.drop_duplicates("group")
    assert (first["type"] == first["group"]).all()
    assert (first["fold"] > 1.5).all()
    assert (first["fold_in_data"] > 1.5).all()
    assert first["ocrs"].str.match(r"chr\w+:\d+-\d+").all()
    assert first["genes"].str.len().all()


@pytest.mark.slow
def test_terms_of_cellxgene_stay_and_those_of_an_earlier_call_go(mixture) -> None:
    cells = mixture[::4].copy()
    cells.obs["cell_type_ontology_term_id"] = "CL:0000000"  # a column that files of CELLxGENE have
    sfa.tl.annotate(cells)
    assert (cells.obs["cell_type_ontology_term_id"] == "CL:0000000").all()
    assert "cell_type_pred_ontology_term_id" in cells.obs
    sfa.tl.annotate(cells, labels_key="truth", key_added="cell_type")
    assert "cell_type_pred_ontology_term_id" not in cells.obs


def test_mudata(mixture) -> None:
    import mudata as md

    plain = sfa.tl.annotate(mixture, copy=True)
    mdata = md.MuData({"atac": mixture.copy()})
    sfa.tl.annotate(mdata)
    assert_equal(mdata["atac"].obs[WRITTEN], plain.obs[WRITTEN])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"candidates": ["Blod"]}, ValueError, "Did you mean"),
        ({"candidates": []}, ValueError, "candidates= is empty"),
        ({"candidates": 3}, TypeError, "candidates= takes names"),
        ({"min_confidence": 0.4}, ValueError, "min_confidence=0.4 must be above 0.5"),
        ({"n_neighbors": -1}, ValueError, "n_neighbors=-1"),
        ({"groupby": "nothing"}, KeyError, "no column 'nothing'"),
        ({"mode": "finetune"}, ValueError, "mode= needs labelled cells"),
        ({"max_epochs": 3}, ValueError, "max_epochs= needs labelled cells"),
        ({"reference_layer": "x"}, ValueError, "reference_layer= needs labelled cells"),
        ({"labels_key": "truth", "candidates": ["Blood"]}, ValueError, "without a reference"),
    ],
)
def test_errors_leave_the_cells_as_they_were(mixture, options, error, match) -> None:
    cells = mixture[:40].copy()
    before = cells.copy()
    with pytest.raises(error, match=match):
        sfa.tl.annotate(cells, **options)
    assert_equal(cells, before)


def test_ocrs_without_any_known_type(mixture) -> None:
    cells = mixture[:20, :30].copy()
    cells.var_names = [f"chrY:{20_000 + 1_000 * i}-{20_500 + 1_000 * i}" for i in range(30)]
    cells.var = cells.var[[]]
    with pytest.raises(ValueError, match="lies in a region with a known cell type"):
        sfa.tl.annotate(cells, genome="GRCh38")


@pytest.mark.slow
def test_lineages_of_a_real_donor(data_dir) -> None:
    # Donor D5T1 was never trained on; benchmarks/annotate_without_reference.py has the scores, of which these leave some room.
    marrow = ad.read_h5ad(data_dir / "bone_marrow_atac.h5ad")
    cells = marrow[marrow.obs["donor"] == "BMMC_D5T1"].copy()
    sfa.tl.annotate(cells)
    best = cells.obs["cell_type_best"].astype(str)
    truth = cells.obs["cell_type"].astype(str)
    right = {
        "17_B": best.str.contains("B cell"),
        "12_CD14.Mono.2": best.str.contains("monocyte"),
        "22_CD4.M": best.str.contains("T cell"),
        "25_NK": best == "natural killer cell",
    }
    assert {label: bool(is_right[truth == label].mean() > 0.9) for label, is_right in right.items()} == dict.fromkeys(
        right, True
    )
