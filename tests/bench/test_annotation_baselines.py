from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.bench._annotation_baselines import ANNOTATION_METHODS

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

TYPES = ("b", "mono", "t")


def accuracy(truth: pd.Series, probabilities: pd.DataFrame) -> float:
    return float(sfa.bench.annotation_scores(truth, probabilities.idxmax(axis=1), probabilities)["accuracy"])


@pytest.fixture(scope="module")
def labels(pair: tuple[MuData, MuData]) -> dict[str, pd.DataFrame]:
    return sfa.bench.annotation_baselines(*pair, "cell_type")


def test_planted_types_are_found(pair: tuple[MuData, MuData], labels: dict[str, pd.DataFrame]) -> None:
    test = pair[1]["atac"]
    assert tuple(labels) == ANNOTATION_METHODS
    for name, probabilities in labels.items():
        assert probabilities.index.equals(test.obs_names)
        assert tuple(probabilities.columns) == TYPES
        assert np.allclose(probabilities.sum(axis=1), 1)
        assert (probabilities >= 0).all(axis=None)
        assert accuracy(test.obs["cell_type"], probabilities) > 0.85, name


def test_the_order_of_ocrs_and_further_ones_do_not_matter(
    pair: tuple[MuData, MuData], labels: dict[str, pd.DataFrame]
) -> None:
    reference, query = pair[0]["atac"], pair[1]["atac"]
    shuffled = query[:, np.random.default_rng(0).permutation(query.n_vars)].copy()
    further = ad.concat(
        [shuffled, AnnData(np.ones((60, 2)), shuffled.obs, pd.DataFrame(index=["chr1:5-9", "chr1:15-19"]))], axis=1
    )
    further.X = sparse.csc_matrix(further.X)
    again = sfa.bench.annotation_baselines(reference, further, "cell_type")
    for name, probabilities in labels.items():
        np.testing.assert_allclose(again[name], probabilities, atol=1e-4, err_msg=name)


def test_a_query_cell_is_labelled_alone_as_among_others(
    pair: tuple[MuData, MuData], labels: dict[str, pd.DataFrame]
) -> None:
    one = sfa.bench.annotation_baselines(pair[0]["atac"], pair[1]["atac"][7].copy(), "cell_type")
    for name, probabilities in labels.items():
        np.testing.assert_allclose(one[name], probabilities.iloc[[7]], atol=1e-5, err_msg=name)


def test_objects_are_only_read_and_the_same_seed_gives_the_same(pair: tuple[MuData, MuData]) -> None:
    reference, query = (mdata["atac"].copy() for mdata in pair)
    reference.layers["counts"], reference.X = reference.X, None
    query.layers["counts"], query.X = query.X, None
    before = reference.layers["counts"].copy()
    first, again = (
        sfa.bench.annotation_baselines(reference, query, "cell_type", layer="counts", methods=["lsi-logistic"], seed=3)
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(first["lsi-logistic"], again["lsi-logistic"])
    assert (reference.layers["counts"] != before).nnz == 0
    assert not reference.obsm
    assert not reference.uns.keys() - {"genome"}


@pytest.mark.parametrize("dtype", ["object", "category"])
def test_missing_labels_are_left_out(pair: tuple[MuData, MuData], dtype: str) -> None:
    reference, query = pair[0]["atac"].copy(), pair[1]["atac"]
    types = reference.obs["cell_type"].astype(object)
    types.iloc[:30:2], types.iloc[1:30:2] = np.nan, ""
    reference.obs["cell_type"] = types.astype(dtype)
    found = sfa.bench.annotation_baselines(reference, query, "cell_type")
    expected = sfa.bench.annotation_baselines(pair[0]["atac"][30:].copy(), query, "cell_type")
    for name, probabilities in expected.items():
        pd.testing.assert_frame_equal(found[name], probabilities)


def test_a_type_with_one_cell_is_kept(pair: tuple[MuData, MuData]) -> None:
    reference, query = pair[0]["atac"].copy(), pair[1]["atac"]
    reference.obs["cell_type"] = ["rare", *reference.obs["cell_type"].iloc[1:]]
    for name, probabilities in sfa.bench.annotation_baselines(reference, query, "cell_type").items():
        assert list(probabilities) == ["b", "mono", "rare", "t"]
        assert np.isfinite(probabilities.to_numpy()).all()
        assert accuracy(query.obs["cell_type"], probabilities) > 0.75, name


def test_few_cells_and_types_of_one_cell_only(pair: tuple[MuData, MuData]) -> None:
    for n in (2, 3, 5):
        few = pair[0]["atac"][:n].copy()
        few.obs["cell_type"] = [f"type{i}" for i in range(n)]
        for probabilities in sfa.bench.annotation_baselines(few, pair[1]["atac"], "cell_type").values():
            assert probabilities.shape == (60, n)
            assert np.allclose(probabilities.sum(axis=1), 1)


def test_cells_without_counts_are_labelled_too(pair: tuple[MuData, MuData]) -> None:
    reference, query = (mdata["atac"].copy() for mdata in pair)
    for adata in (reference, query):
        adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(adata.n_obs) != 4)[:, None])
    for name, probabilities in sfa.bench.annotation_baselines(reference, query, "cell_type").items():
        assert np.isfinite(probabilities.to_numpy()).all()
        assert accuracy(query.obs["cell_type"], probabilities) > 0.8, name


def test_annotation_that_cannot_be_done(pair: tuple[MuData, MuData]) -> None:
    reference, query = (mdata["atac"].copy() for mdata in pair)
    baselines = sfa.bench.annotation_baselines
    with pytest.raises(ValueError, match="Unknown methods \\['lda'\\].*lsi-logistic"):
        baselines(reference, query, "cell_type", methods=["lsi-knn", "lda"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="methods is empty"):
        baselines(reference, query, "cell_type", methods=[])
    with pytest.raises(KeyError, match="no column 'louvain'.*cell_type"):
        baselines(reference, query, "louvain")
    with pytest.raises(
        ValueError, match=r"1 of the 180 OCRs.*chr1:1000000-1000500.*sfa\.pp\.map_ocrs\(query, reference\)"
    ):
        baselines(reference, query[:, 1:].copy(), "cell_type")
    with pytest.raises(ValueError, match="query has 0 cells"):
        baselines(reference, query[:0].copy(), "cell_type")
    with pytest.raises(ValueError, match="n_components=0"):
        baselines(reference, query, "cell_type", n_components=0)
    with pytest.raises(ValueError, match=r"reference\.obs\['cell_type'\] has 1 label.*'b'"):
        baselines(reference[reference.obs["cell_type"] == "b"].copy(), query, "cell_type")
    repeated = query.copy()
    repeated.var_names = [*query.var_names[:-1], query.var_names[0]]
    with pytest.raises(ValueError, match="of the test cells repeat in query: \\['chr1:1000000-1000500'\\]"):
        baselines(reference, repeated, "cell_type")
    query.X = -query.X
    with pytest.raises(ValueError, match="negative"):
        baselines(reference, query, "cell_type")
    reference.X = sparse.csr_matrix(reference.shape)
    with pytest.raises(ValueError, match="training cells have no counts"):
        baselines(reference, pair[1], "cell_type")


@pytest.mark.slow
def test_bone_marrow(data_dir: Path) -> None:
    """A part of the cells, from one donor to the other: types are told, and better than by the commonest of them."""
    cells = ad.read_h5ad(data_dir / "bone_marrow_atac.h5ad")
    donor = {
        name: cells[cells.obs["donor"] == name][::step].copy() for name, step in (("BMMC_D6T1", 8), ("BMMC_D5T1", 4))
    }
    reference, query = donor["BMMC_D6T1"], donor["BMMC_D5T1"]
    found = sfa.bench.annotation_baselines(reference, query, "cell_type", n_components=30)
    truth = query.obs["cell_type"]
    scores = pd.DataFrame({name: sfa.bench.annotation_scores(truth, p.idxmax(axis=1), p) for name, p in found.items()})
    assert (scores.loc["accuracy"] > truth.value_counts(normalize=True).max() + 0.05).all()
    assert (scores.loc["auc"] > 0.8).all()
    assert (scores.loc["ece"] < 0.25).all()
    assert scores.loc["macro_f1"].max() > 0.35


def test_axes_of_both(pair: tuple[MuData, MuData], labels: dict[str, pd.DataFrame]) -> None:
    joint = sfa.bench.annotation_baselines(*pair, "cell_type", joint=True)
    for name, probabilities in joint.items():
        assert accuracy(pair[1]["atac"].obs["cell_type"], probabilities) > 0.85, name
        assert name == "lsi-knn" or not np.array_equal(probabilities, labels[name]), name
