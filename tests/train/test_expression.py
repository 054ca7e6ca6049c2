"""Measured expression as a target: cells, genes, scales, and who is held out."""

from __future__ import annotations

import warnings

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scfound_atac.pp import bin_expression
from scfound_atac.train.expression import N_LEVELS, read_expression, split_cells

N_CELLS, N_GENES = 40, 6


def make_pair(values: np.ndarray | None = None) -> md.MuData:
    rng = np.random.default_rng(0)
    cells, genes = [f"cell{i}" for i in range(N_CELLS)], [f"G{i}" for i in range(N_GENES)]
    counts = rng.poisson(2.0, (N_CELLS, N_GENES)).astype(np.float32) if values is None else values
    atac = AnnData(sparse.csr_matrix(rng.poisson(0.5, (N_CELLS, 4)).astype(np.float32)), obs=pd.DataFrame(index=cells))
    atac.var_names = [f"chr1:{i}000-{i}500" for i in range(1, 5)]
    rna = AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))
    return paired(atac, rna)


def paired(atac: AnnData, rna: AnnData) -> md.MuData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return md.MuData({"atac": atac, "rna": rna})


def read(mdata: md.MuData, **kwargs):
    given = {"modality": "rna", "layer": None, "genes": None, "binned": False} | kwargs
    return read_expression(mdata, mdata["atac"], **given)


def split(groups: list | None = None, *, n: int = N_CELLS, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of three parts, by the groups if there are any."""
    names = pd.Index([f"cell{i}" for i in range(n)])
    atac = AnnData(np.ones((n, 1), dtype=np.float32), obs=pd.DataFrame(index=names))
    if groups is not None:
        atac.obs["donor"] = groups
    mdata = paired(atac, atac.copy()) if groups is None else md.MuData({"atac": atac})
    return split_cells(mdata, atac, names, split_key=None if groups is None else "donor", seed=seed)


# ---------------------------------------------------------------- expression


def test_counts_are_normalised_and_other_values_are_not():
    mdata = make_pair()
    counts = mdata["rna"].X.toarray()
    target = read(mdata)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(target.values, np.log1p(counts / total * 1e4), rtol=1e-5)
    assert (target.scale, target.genes) == ("log1p", list(mdata["rna"].var_names))
    denoised = counts / 7 - 0.1  # negative too
    as_it_is = read(make_pair(denoised.astype(np.float32)))
    assert as_it_is.scale == "as it is"
    np.testing.assert_allclose(as_it_is.values, denoised, rtol=1e-5)


def test_levels_are_those_of_bin_expression():
    mdata = make_pair()
    target = read(mdata, binned=True)
    rna = mdata["rna"].copy()
    bin_expression(rna, n_bins=N_LEVELS, key_added="levels")
    assert target.scale == "levels"
    np.testing.assert_array_equal(target.values, np.asarray(rna.layers["levels"].todense()))


def test_levels_do_not_depend_on_the_genes_asked_for():
    mdata = make_pair()
    np.testing.assert_array_equal(
        read(mdata, binned=True, genes=["G4", "G1"]).values, read(mdata, binned=True).values[:, [4, 1]]
    )
    np.testing.assert_allclose(read(mdata, genes=["G4", "G1"]).values, read(mdata).values[:, [4, 1]])


def test_negative_values_have_no_levels():
    mdata = make_pair(np.random.default_rng(0).normal(size=(N_CELLS, N_GENES)).astype(np.float32))
    with pytest.raises(ValueError, match=r"rna.*levels.*negative.*gene"):
        read(mdata, binned=True)


@pytest.mark.parametrize("form", ["csc", "dense", "layer"])
def test_form_does_not_matter(form):
    mdata, layer = make_pair(), None
    expected = read(mdata).values
    rna = mdata["rna"]
    if form == "layer":
        rna.layers["counts"], rna.X, layer = rna.X.copy(), rna.X * 0, "counts"
    else:
        rna.X = rna.X.tocsc() if form == "csc" else rna.X.toarray()
    np.testing.assert_array_equal(read(mdata, layer=layer).values, expected)


def test_cells_are_paired_by_name_in_the_order_of_accessibility():
    mdata = make_pair()
    expected = pd.DataFrame(read(mdata).values, mdata["atac"].obs_names)
    rng = np.random.default_rng(1)
    atac = mdata["atac"][rng.permutation(N_CELLS)[:30]].copy()
    rna = mdata["rna"][rng.permutation(N_CELLS)[:25]].copy()
    target = read(paired(atac, rna))
    assert list(target.names) == [name for name in atac.obs_names if name in set(rna.obs_names)]
    np.testing.assert_array_equal(target.values, expected.loc[target.names])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value):
    values = np.ones((N_CELLS, N_GENES), dtype=np.float32)
    values[3, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite values, the first in gene G2"):
        read(make_pair(values))


def test_refuses_what_cannot_be_paired():
    mdata = make_pair()
    with pytest.raises(TypeError, match="Expected MuData"):
        read_expression(mdata["atac"], mdata["atac"], modality="rna", layer=None, genes=None, binned=False)
    with pytest.raises(KeyError, match="1 of 2 genes are not in modality 'rna', among them MISSING"):
        read(mdata, genes=["G0", "MISSING"])
    with pytest.raises(ValueError, match="no genes"):
        read(mdata, genes=[])
    with pytest.raises(ValueError, match="1 genes repeat"):
        read(mdata, genes=["G0", "G0"])
    with pytest.raises(KeyError, match="no modality 'expression'"):
        read(mdata, modality="expression")
    with pytest.raises(KeyError, match="no layer"):
        read(mdata, layer="counts")
    other = mdata["rna"].copy()
    other.obs_names = [f"other{i}" for i in range(N_CELLS)]
    with pytest.raises(ValueError, match="No cell has both modalities"):
        read(paired(mdata["atac"].copy(), other))


@pytest.mark.parametrize(("axis", "what"), [("var_names", "genes of modality 'rna'"), ("obs_names", "cells of")])
def test_repeated_names(axis, what):
    mdata = make_pair()
    names = getattr(mdata["rna"], axis).to_list()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setattr(mdata["rna"], axis, [names[1], *names[1:]])
    with pytest.raises(ValueError, match=f"1 {what}.*repeat"):
        read(mdata)


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("n", [6, 40, 1000])
def test_by_cell(n):
    parts = split(n=n)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(n))
    assert len(parts["test"]) == len(parts["validation"]) == max(2, n // 10)
    for name, rows in split(n=n).items():
        np.testing.assert_array_equal(rows, parts[name])
    assert n < 40 or list(split(n=n, seed=1)["test"]) != list(parts["test"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [[4] * 10, [30, 4, 3, 3], [20, 10, 10], [3] * 3], ids=str)
def test_no_group_is_in_two_parts(sizes, seed):
    groups = np.random.default_rng(0).permutation(np.repeat([f"d{i}" for i in range(len(sizes))], sizes))
    parts = split(list(groups), n=sum(sizes), seed=seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(sum(sizes)))
    of_part = {name: set(groups[rows]) for name, rows in parts.items()}
    assert sum(map(len, of_part.values())) == len(sizes)
    assert groups[0] in set.union(*of_part.values())
    if max(sizes) > min(sizes):
        assert "d0" in of_part["train"]
    if len(sizes) == 10:  # one group is 10 %
        assert [len(of_part[name]) for name in ("train", "validation", "test")] == [8, 1, 1]


def test_of_two_groups_the_smaller_one_is_for_testing():
    groups = np.array(["a"] * 12 + ["b"] * 28)
    parts = split(list(groups))
    assert set(groups[parts["test"]]) == {"a"}
    assert len(parts["test"]) == 12
    assert len(parts["validation"]) == 3
    assert set(groups[parts["validation"]]) == set(groups[parts["train"]]) == {"b"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"] * N_CELLS, "has one group, 'a'"),
        (["a"] * 20 + ["b"] * 18 + [None] * 2, "2 of 40 cells have no 'donor', among them cell38, cell39"),
        (["a"] * 39 + ["b"], "leave too few cells.*1 for test"),
    ],
)
def test_groups_that_cannot_be_split(groups, message):
    with pytest.raises(ValueError, match=message):
        split(groups)


def test_split_key_may_be_missing_or_stand_in_the_mudata():
    mdata = make_pair()
    names = mdata["atac"].obs_names
    with pytest.raises(KeyError, match="no column 'donor'"):
        split_cells(mdata, mdata["atac"], names, split_key="donor", seed=0)
    mdata.obs["donor"] = np.repeat(["a", "b", "c", "d"], N_CELLS // 4)
    parts = split_cells(mdata, mdata["atac"], names, split_key="donor", seed=0)
    assert [len(rows) for rows in parts.values()] == [20, 10, 10]


def test_too_few_cells():
    with pytest.raises(ValueError, match="5 cells with both modalities are too few"):
        split(n=5)
