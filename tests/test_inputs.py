"""What users hand over: every fault against every public function that it concerns.

Rows are faults: something is done to clean cells, and either the result must be that of the clean ones, or an error must name the object.
Columns are functions and the argument by which they are given the cells. Whatever happens, the user's object must stay as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scfound_atac as sfa

pytestmark = pytest.mark.filterwarnings("ignore")

PRIOR = "biosample-prior"
GENES = 8
PLACE = "{chrom}:{start}-{end}"
EPOCHS = {"max_epochs": 1, "device": "cpu"}


# ---------------------------------------------------------------- clean cells, and what is trained on them


def rna_of(atac: AnnData) -> AnnData:
    rng = np.random.default_rng(1)
    names = ["ACTB", "B2M", "GAPDH", "MALAT1", "TMSB4X", *(f"GENE{i}" for i in range(GENES - 5))]
    return AnnData(
        sparse.csr_matrix(rng.poisson(1.5, (atac.n_obs, GENES)).astype(np.float32)),
        obs=pd.DataFrame(index=atac.obs_names.copy()),
        var=pd.DataFrame(index=names),
    )


def paired(atac: AnnData) -> md.MuData:
    return md.MuData({"atac": atac, "rna": rna_of(atac)})


@dataclass(frozen=True)
class World:
    """What stays the same for all faults; to be read only."""

    clean: AnnData
    annotator: Any
    predictor: Any
    chromfound: Any
    epifoundation: Any
    genes: pd.DataFrame


@pytest.fixture(scope="module")
def world(make_labelled, tiny_backbones) -> World:
    sfa.settings.progress_bar = False
    clean = make_labelled(64, n_ocrs=200)
    clean.layers["counts"] = clean.X.copy()
    backbone = tiny_backbones["region-set"]
    annotator = sfa.model.CellAnnotator(backbone).train(clean, "cell_type", device="cpu")
    predictor = sfa.model.RNAPredictor(backbone, head="mlp").train(paired(clean.copy()), **EPOCHS)
    genes = clean.var.assign(name=[f"G{i}" for i in range(clean.n_vars)], strand="+").reset_index(drop=True)
    return World(clean, annotator, predictor, tiny_backbones["chromfound"], tiny_backbones["epifoundation"], genes)


@pytest.fixture
def cells(world) -> AnnData:
    return world.clean.copy()


# ---------------------------------------------------------------- columns: functions


@dataclass(frozen=True)
class Column:
    """A function and the argument by which it is given cells."""

    call: Callable[..., Any]
    """Takes the world, what the user hands over, and further arguments; returns an array."""
    role: str = "adata"
    places: bool = True
    """Whether coordinates are needed."""
    counts: bool = True
    """Whether values must be whole numbers."""
    labels: bool = False
    layer: str = "layer"
    """Name of the argument that chooses the layer; empty if there is none."""
    writes: bool = False
    on_disk: bool = True
    """Whether cells may lie on disk."""
    mudata: bool = True
    paired: bool = False
    """Whether expression must be there too."""


def atac_of(data: Any) -> AnnData:
    return data["atac"] if isinstance(data, md.MuData) else data


def dense(values: Any) -> np.ndarray:
    return np.asarray(values.todense() if sparse.issparse(values) else values, dtype=np.float64)


def embed(w, a, **k):
    done = sfa.tl.embed(a, model=PRIOR, n_components=5, **k)
    return atac_of(done if k.get("copy") else a).obsm["X_sfa"]


def embed_basis(w, a, **k):
    query = w.clean.copy()
    sfa.tl.embed(query, model=PRIOR, basis=a, **k)
    return query.obsm["X_sfa"]


def annotate(w, a, **k):
    done = sfa.tl.annotate(a, annotator=w.annotator, device="cpu", **k)
    return atac_of(done if k.get("copy") else a).obsm["cell_type_probabilities"]


def annotate_reference(w, a, labels_key="cell_type", **k):
    query = w.clean.copy()
    sfa.tl.annotate(
        query, reference=a, labels_key=labels_key, model=w.annotator.checkpoint, device="cpu", key_added="x", **k
    )
    return query.obsm["x_probabilities"]


def annotate_alone(w, a, **k):
    done = sfa.tl.annotate(a, device="cpu", key_added="alone", n_neighbors=0, **k)
    return atac_of(done if k.get("copy") else a).obsm["alone_probabilities"]


def describe_ocrs(w, a, **k):
    done = sfa.tl.describe_ocrs(a, **k)
    return atac_of(done if k.get("copy") else a).var[["sfa_gc", "sfa_tss_distance"]].dropna(how="all").to_numpy()


def predict_rna(w, a, **k):
    done = sfa.tl.predict_rna(a, predictor=w.predictor, device="cpu", **k)
    a = done if k.get("copy") else a
    return dense(a["rna_predicted"].X if isinstance(a, md.MuData) else a.obsm["rna_predicted"])


def predict_rna_reference(w, a, **k):
    query = w.clean.copy()
    sfa.tl.predict_rna(query, reference=a, head="mlp", model=w.predictor.checkpoint, **EPOCHS, **k)
    return dense(query.obsm["rna_predicted"])


def perturb_ocrs(w, a, **k):
    k = {"ocrs": [PLACE.format(**w.clean.var.iloc[i]) for i in (3, 50, 120)]} | k
    done = sfa.tl.perturb_ocrs(a, predictor=w.predictor, device="cpu", **k)
    return sfa.get.perturbation(done if k.get("copy") else a)[["before", "change"]].to_numpy()


def perturb_ocrs_groups(w, a, labels_key="cell_type", **k):
    return perturb_ocrs(w, a, groupby=labels_key, **({"copy": True} | k))


def link_enhancers(w, a, **k):
    starts = w.genes.iloc[[5, 60, 130]].assign(end=lambda x: x["start"] + 1)
    done = sfa.tl.link_enhancers(a, genes=starts, **k)
    links = sfa.get.links(done if k.get("copy") else a)
    return links.sort_values(["group", "gene", "start", "end"])[["score", "abc", "accessibility"]].to_numpy(np.float64)


def link_enhancers_groups(w, a, labels_key="cell_type", **k):
    return link_enhancers(w, a, groupby=labels_key, **({"copy": True} | k))


def impute(w, a, **k):
    done = sfa.tl.impute(a, model=PRIOR, **k)
    values = dense(atac_of(done if k.get("copy") else a).layers["sfa_imputed"])
    return values[:, values.any(axis=0)]


def gene_activity(w, a, **k):
    done = sfa.tl.gene_activity(a, genes=w.genes, **k)
    a = done if k.get("copy") else a
    return dense(a["gene_activity"].X if isinstance(a, md.MuData) else a.obsm["gene_activity"])


def pp_obsm(function, key):
    def call(w, a, **k):
        done = function(a, n_components=5, **k)
        return np.abs(atac_of(done if k.get("copy") else a).obsm[key])

    return call


def pp_layer(function, key, **options):
    def call(w, a, **k):
        done = function(a, **options, **k)
        values = dense(atac_of(done if k.get("copy") else a).layers[key])
        return values[:, values.any(axis=0)]

    return call


def filter_cells(w, a, **k):
    return atac_of(sfa.pp.filter_cells(a, min_ocrs=2, copy=True, **k)).obs["n_ocrs"].to_numpy()


def filter_ocrs(w, a, **k):
    return np.sort(atac_of(sfa.pp.filter_ocrs(a, copy=True, **k)).var["n_cells"])[-50:]


def filter_ocrs_groups(w, a, labels_key="cell_type", **k):
    return np.sort(atac_of(sfa.pp.filter_ocrs(a, copy=True, groupby=labels_key, **k)).var["n_cells"])[-50:]


def recipe(w, a, labels_key="cell_type", **k):
    done = sfa.pp.recipe_chromfound(a, min_ocrs=1, groupby=labels_key, aggregate=False, copy=True, **k)
    values = dense(atac_of(done).layers["chromfound_input"])
    return values[:, values.any(axis=0)]


def map_ocrs(w, a, **k):
    return dense(sfa.pp.map_ocrs(a, w.clean, **k).X)


def map_ocrs_target(w, a, **k):
    return dense(sfa.pp.map_ocrs(w.clean, a, **k).X)


def parse_ocrs(w, a, **k):
    done = atac_of(sfa.pp.parse_ocrs(a, copy=True)).var
    return done["start"].dropna().to_numpy(np.float64)[-200:]


def compare(w, a, labels_key="cell_type", **k):
    table = sfa.bench.compare(a, labels_key, methods=["lsi"], fractions=[1.0], smooth=[False], n_seeds=1, **k)
    return table[["kmeans_nmi", "knn", "n_cells", "n_labels"]].to_numpy(float)


def integration(w, a, labels_key="cell_type", **k):
    """Without scib-metrics, which is optional: its scores are no matter of the input."""

    def scores(vectors, labels, batches, before):
        found = {"spread": float(np.abs(vectors).mean()), "n": len(np.unique(labels)) + len(np.unique(batches))}
        return found | dict.fromkeys(("bio", "batch", "total"), 0.0)

    k = {"batch_key": labels_key, "methods": ["lsi"], "n_components": 5} | k
    room = "scfound_atac.bench._integration"
    with mock.patch.multiple(room, _require=lambda *_: None, integration_scores=scores):
        return sfa.bench.integration(a, labels_key, **k)[["spread", "n", "n_cells"]].to_numpy(float)


def baselines_reference(w, a, labels_key="cell_type", **k):
    found = sfa.bench.annotation_baselines(a, w.clean, labels_key, methods="lsi-knn", n_components=5, **k)
    return found["lsi-knn"].to_numpy()


def baselines_query(w, a, **k):
    found = sfa.bench.annotation_baselines(w.clean, a, "cell_type", methods="lsi-knn", n_components=5, **k)
    return found["lsi-knn"].to_numpy()


def rna_baselines_train(w, a, labels_key="cell_type", **k):
    k = {"labels_key": labels_key, "methods": "cell-type-mean", "n_components": 5} | k
    expression = None if isinstance(a, md.MuData) else rna_of(w.clean).to_df()
    return sfa.bench.rna_baselines(a, w.clean, expression=expression, **k)["cell-type-mean"].to_numpy()


def rna_baselines_test(w, a, **k):
    k = {"labels_key": "cell_type", "methods": ["cell-type-mean-true", "gene-activity"], "n_components": 5} | k
    genes = w.genes.assign(name=["ACTB", "B2M", *(f"X{i}" for i in range(len(w.genes) - 2))])
    found = sfa.bench.rna_baselines(paired(w.clean.copy()), a, genes=genes, **k)
    return np.hstack([table.to_numpy() for table in found.values()])


def thin_counts(w, a, **k):
    return dense(sfa.bench.thin_counts(a, 0.5, **k).X)


def chromfound(w, a, **k):
    sfa.model.ChromFound.setup_anndata(a, **k)
    model = sfa.model.ChromFound(a, checkpoint=w.chromfound)
    return model.get_latent_representation(n_components=5)


def epifoundation_setup(w, a, **k):
    sfa.model.EpiFoundation.setup_mudata(a, **k)
    model = sfa.model.EpiFoundation(a, config={"d_model": 8, "n_layers": 1, "n_heads": 1, "d_feed_forward": 8})
    return model.get_latent_representation()


def epifoundation(w, a, **k):
    return sfa.model.EpiFoundation(checkpoint=w.epifoundation).get_latent_representation(a, **k)


def annotator_train(w, a, labels_key="cell_type", **k):
    model = sfa.model.CellAnnotator(w.annotator.checkpoint).train(a, labels_key, device="cpu", **k)
    return model.predict(w.clean, device="cpu").probabilities.to_numpy()


def annotator_predict(w, a, **k):
    return w.annotator.predict(a, device="cpu", **k).probabilities.to_numpy()


def predictor_train(w, a, **k):
    model = sfa.model.RNAPredictor(w.predictor.checkpoint, head="mlp").train(a, **EPOCHS, **k)
    return model.predict(w.clean, device="cpu").to_numpy()


def predictor_predict(w, a, **k):
    return w.predictor.predict(a, device="cpu", **k).to_numpy()


COLUMNS = {
    "embed": Column(embed, writes=True),
    "embed basis": Column(embed_basis, role="basis", counts=False, layer=""),
    "annotate": Column(annotate, writes=True),
    "annotate reference": Column(annotate_reference, role="reference", labels=True, layer="reference_layer"),
    "annotate alone": Column(annotate_alone, writes=True),
    "describe_ocrs": Column(describe_ocrs, counts=False, layer=""),
    "predict_rna": Column(predict_rna, writes=True),
    "predict_rna reference": Column(predict_rna_reference, role="reference", layer="reference_layer", paired=True),
    "perturb_ocrs": Column(perturb_ocrs, writes=True),
    "perturb_ocrs groupby": Column(perturb_ocrs_groups, labels=True, on_disk=False),
    "link_enhancers": Column(link_enhancers, counts=False, writes=True),
    "link_enhancers groupby": Column(link_enhancers_groups, counts=False, labels=True, on_disk=False),
    "impute": Column(impute, writes=True),
    "gene_activity": Column(gene_activity, counts=False, writes=True),
    "lsi": Column(pp_obsm(sfa.pp.lsi, "X_lsi"), places=False, counts=False, writes=True),
    "spectral": Column(pp_obsm(sfa.pp.spectral, "X_spectral"), places=False, counts=False, writes=True),
    "aggregate_neighbors": Column(
        pp_layer(sfa.pp.aggregate_neighbors, "neighbor_sum", n_neighbors=2), places=False, counts=False, writes=True
    ),
    "filter_cells": Column(filter_cells, places=False, counts=False, on_disk=False),
    "filter_ocrs": Column(filter_ocrs, places=False, counts=False, on_disk=False),
    "filter_ocrs groupby": Column(filter_ocrs_groups, places=False, counts=False, labels=True, on_disk=False),
    "recipe_chromfound": Column(recipe, places=False, labels=True, on_disk=False),
    "map_ocrs": Column(map_ocrs, counts=False),
    "map_ocrs target": Column(map_ocrs_target, role="target", counts=False, layer=""),
    "parse_ocrs": Column(parse_ocrs, counts=False, layer="", on_disk=False),
    "compare": Column(compare, places=False, labels=True),
    "integration": Column(integration, places=False, labels=True),
    "annotation_baselines reference": Column(
        baselines_reference, role="reference", places=False, counts=False, labels=True
    ),
    "annotation_baselines query": Column(baselines_query, role="query", places=False, counts=False),
    "rna_baselines train": Column(rna_baselines_train, role="train", places=False, counts=False, labels=True),
    "rna_baselines test": Column(rna_baselines_test, role="test", counts=False),
    "thin_counts": Column(thin_counts, places=False),
    "ChromFound": Column(chromfound, mudata=False, on_disk=False),
    "EpiFoundation setup": Column(epifoundation_setup, role="mdata", counts=False, layer="", paired=True),
    "EpiFoundation": Column(epifoundation, counts=False, layer=""),
    "CellAnnotator.train": Column(annotator_train, role="reference", labels=True),
    "CellAnnotator.predict": Column(annotator_predict),
    "RNAPredictor.train": Column(predictor_train, role="mdata", paired=True),
    "RNAPredictor.predict": Column(predictor_predict),
}


def given(column: Column, atac: Any, world: World | None = None) -> Any:
    if (
        column.role == "basis"
        and world is not None
        and isinstance(atac, AnnData | md.MuData)
        and "atac" in getattr(atac, "mod", ["atac"])
    ):
        own, basis = world.clean.copy(), atac_of(atac)
        sfa.tl.embed(own, model=PRIOR, n_components=5)
        for key, axes in own.varm.items():
            basis.varm[key] = np.resize(axes, (basis.n_vars, axes.shape[1]))
        basis.uns["sfa"] = own.uns["sfa"]
    return paired(atac) if column.paired and isinstance(atac, AnnData) else atac


def assert_as_it_was(data: Any, before: Any) -> None:
    if isinstance(data, md.MuData):
        assert list(data.mod) == list(before.mod)
        for name in data.mod:
            assert_as_it_was(data.mod[name], before.mod[name])
        assert list(data.obs) == list(before.obs)
        assert list(data.uns) == list(before.uns)
    elif isinstance(data, AnnData):
        assert_equal(data, before, exact=True)
        assert type(data.X) is type(before.X)


@pytest.fixture(scope="module")
def expected(world) -> Callable[[str], np.ndarray]:
    """The result with clean cells."""
    found: dict[str, np.ndarray] = {}

    def result(name: str) -> np.ndarray:
        if name not in found:
            found[name] = COLUMNS[name].call(world, given(COLUMNS[name], world.clean.copy(), world))
        return found[name]

    return result


# ---------------------------------------------------------------- rows that must give the same result


def with_genes(a: AnnData, *, places: bool) -> AnnData:
    """10x ARC: genes before the peaks."""
    rng, n = np.random.default_rng(3), 40
    var = a.var.iloc[:n].assign(start=a.var["start"].iloc[:n] - 3000, end=a.var["end"].iloc[:n] + 20_000)
    var.index = ["ACTB", "GAPDH", *(f"GENE{i}" for i in range(n - 2))]
    both = pd.concat([var, a.var])
    both["feature_types"] = ["Gene Expression"] * n + ["Peaks"] * a.n_vars
    if not places:
        both = both[["feature_types"]]
    counts = sparse.hstack([rng.poisson(3, (a.n_obs, n)).astype(np.float32), a.X]).tocsr()
    return AnnData(counts, obs=a.obs, var=both, uns=a.uns, layers={"counts": counts.copy()})


def set_var(**columns: Callable[[pd.DataFrame], Any]) -> Callable[[AnnData], AnnData]:
    def change(a: AnnData) -> AnnData:
        a.var = a.var.assign(**{name: value(a.var) for name, value in columns.items()})
        return a

    return change


def renamed(form: str, *, keep: bool = False) -> Callable[[AnnData], AnnData]:
    def change(a: AnnData) -> AnnData:
        v = a.var
        a.var_names = [form.format(c=c, n=c[3:], s=s, e=e) for c, s, e in zip(v.chrom, v.start, v.end, strict=True)]
        a.var = a.var if keep else a.var[[]]
        return a

    return change


def hg19_beside_hg38(a: AnnData) -> AnnData:
    v = a.var
    shift = np.random.default_rng(0).integers(40_000, 90_000, len(v))
    a.var = pd.DataFrame(
        {"chrom": v.chrom, "start": v.start + shift, "end": v.end + shift, "hg38_start": v.start, "hg38_end": v.end},
        index=v.index,
    )
    a.var_names = [f"peak_number_{'x' * (i % 7 + 1)}{i}" for i in range(a.n_vars)]
    return a


def from_r(a: AnnData) -> AnnData:
    v = a.var
    a.var = pd.DataFrame(
        {"seqnames": v.chrom, "start": v.start + 1, "end": v.end, "width": v.end - v.start, "strand": "*"},
        index=v.index,
    )
    return a


def without_some_places(a: AnnData) -> AnnData:
    a.var[["start", "end"]] = a.var[["start", "end"]].astype(float)
    a.var.iloc[::3, [a.var.columns.get_loc(name) for name in ("start", "end")]] = np.nan
    a.var["chrom"] = a.var["chrom"].astype(object)
    a.var.iloc[::3, a.var.columns.get_loc("chrom")] = np.nan
    return a


def genome_array(a: AnnData) -> AnnData:
    a.uns["genome"] = np.array(["hg38"] * 3, dtype=object)
    return a


def on_disk(a: AnnData, mode: str = "r") -> AnnData:
    path = Path(a.uns.pop("folder")) / "cells.h5ad"
    a.write_h5ad(path)
    return ad.read_h5ad(path, backed=mode)


def dense_x(a: AnnData) -> AnnData:
    a.X = a.X.toarray()
    return a


def csc_int(a: AnnData) -> AnnData:
    a.X = a.X.tocsc().astype(np.int32)
    return a


def view(a: AnnData) -> AnnData:
    return ad.concat([a, a[:3].copy()], merge="same", uns_merge="same", index_unique="-", keys=["", "again"])[:64]


SAME = {
    "genes beside peaks": lambda a: with_genes(a, places=False),
    "genes with places beside peaks": lambda a: with_genes(a, places=True),
    "hg19 columns beside hg38 columns": hg19_beside_hg38,
    "columns of R": from_r,
    "missing places in columns": without_some_places,
    "columns that the names contradict": lambda a: set_var(
        start=lambda v: v.start + 1_000_000, end=lambda v: v.end + 1_000_000
    )(renamed("{c}:{s}-{e}", keep=True)(a)),
    "names of Seurat": renamed("{c}-{s}-{e}"),
    "names without chr": renamed("{n}:{s}-{e}"),
    "names of bytes": renamed("b'{c}':{s}-{e}"),
    "names with the build": renamed("GRCh38.{c}:{s}-{e}"),
    "genome as an array": genome_array,
    "backed": on_disk,
    "dense": dense_x,
    "CSC of integers": csc_int,
    "a view": view,
}
# By name are OCRs matched there, and other names are other OCRs.
BY_NAME = ("annotation_baselines reference", "annotation_baselines query", "rna_baselines train", "rna_baselines test")


# These train something, and read cells by the same door as the others: three rows show that they do.
TRAINING = (
    "annotate reference",
    "CellAnnotator.train",
    "predict_rna reference",
    "RNAPredictor.train",
    "EpiFoundation setup",
    "compare",
    "integration",
    *BY_NAME,
)
OF_TRAINING = ("genes beside peaks", "columns that the names contradict", "missing places in columns", "backed")


def applies(row: str, name: str) -> bool:
    column = COLUMNS[name]
    if name in TRAINING and row not in OF_TRAINING:
        return False
    if row.startswith("backed") and (not column.on_disk or column.paired):
        return False
    if name == "ChromFound" and row == "a view":  # scvi-tools refuses views itself
        return False
    if name in BY_NAME and (row.startswith("names") or "hg19" in row or "contradict" in row or row == "a view"):
        return False
    if name == "embed basis" and (row == "a view" or "genes" in row or row.startswith("backed")):
        return False
    changes_places = row not in ("backed", "backed r+", "dense", "CSC of integers", "a view") and "genes" not in row
    return column.places or not changes_places


LONG = ("annotate alone", "compare")  # columns that take a second each
CLEAN = [
    pytest.param(row, name, marks=pytest.mark.slow if name in LONG else ())
    for row in SAME
    for name in COLUMNS
    if applies(row, name)
]


@pytest.mark.parametrize(("row", "name"), CLEAN, ids=lambda x: x)
def test_result_is_that_of_clean_cells(row, name, cells, world, expected, tmp_path) -> None:
    column = COLUMNS[name]
    if row.startswith("backed"):
        cells.uns["folder"] = str(tmp_path)
    atac = SAME[row](cells)
    data = given(column, atac, world)
    matrix = atac.X if not atac.isbacked else None
    order = list(atac.var_names)
    result = column.call(world, data)
    if name == "embed basis" and "genes" in row:
        pytest.skip("its axes have other rows")
    np.testing.assert_allclose(result, expected(name), rtol=1e-3, atol=1e-4)
    assert list(atac.var_names) == order
    if matrix is not None and row != "a view":
        assert atac.X is matrix


# ---------------------------------------------------------------- rows that must be refused


@dataclass(frozen=True)
class Refused:
    """A fault, the error that must come, and the functions that it concerns."""

    change: Callable[[AnnData], Any]
    error: type[Exception] | tuple[type[Exception], ...]
    match: str
    """With {role} for what the user calls the object, and {layer} for the argument that chooses the layer."""
    concerns: Callable[[Column], bool] = lambda column: True


def put(a: AnnData, **slots: Any) -> AnnData:
    for name, value in slots.items():
        setattr(a, name, value)
    return a


def normalised(a: AnnData, cells: slice = slice(None)) -> AnnData:
    values = a.X.toarray()
    values[cells] = np.log1p(values[cells])
    return put(a, X=sparse.csr_matrix(values))


def with_nan(a: AnnData) -> AnnData:
    a.X.data[3] = -np.inf
    return a


def no_layers(a: AnnData) -> AnnData:
    a.layers.clear()
    return a


def expression(a: AnnData) -> AnnData:
    rna = rna_of(a)
    rna.obs = a.obs
    return rna


def hg19(a: AnnData) -> AnnData:
    a.uns["genome"] = "hg19"
    return a


def only_fragments(a: AnnData) -> AnnData:
    empty = AnnData(obs=a.obs, uns=a.uns)
    empty.obsm["fragment_paired"] = sparse.csr_matrix((a.n_obs, 1000))
    return empty


def unplaced(a: AnnData) -> AnnData:
    a.var = pd.DataFrame(index=[f"GENE{'x' * (i % 5)}{i}A" for i in range(a.n_vars)])
    return a


def two_sets(a: AnnData) -> AnnData:
    """Names say one place and columns another; neither is recognised, as none is open anywhere."""
    n = a.n_vars
    a.var = pd.DataFrame({"chrom": "chr1", "start": np.arange(n) * 1000 + 5_000, "end": np.arange(n) * 1000 + 5_500})
    a.var_names = [f"chr1:{i * 1000 + 900_000}-{i * 1000 + 900_500}" for i in range(n)]
    return a


def repeated(a: AnnData) -> AnnData:
    a.var.iloc[1] = a.var.iloc[0]
    a.var_names = [f"peak{i}x" for i in range(a.n_vars)]
    return a


def lazily(a: AnnData) -> Any:
    folder = Path(a.uns.pop("folder"))
    a.write_zarr(folder / "cells.zarr")
    return ad.experimental.read_lazy(folder / "cells.zarr")


class Snap:
    """Stands for an AnnData of SnapATAC2."""

    __module__ = "snapatac2._snapatac2"
    shape = (3, 4)

    def to_memory(self) -> None: ...


Snap.__name__ = "AnnData"


def peaks_modality(a: AnnData) -> md.MuData:
    return md.MuData({"peaks": a, "rna": rna_of(a)})


NONE_MEANS_SOMETHING = (embed_basis, annotate_reference, predict_rna_reference, epifoundation)


def is_alone(column: Column) -> bool:
    return not column.paired


REFUSED = {
    "a path": Refused(lambda a: "cells.h5ad", TypeError, r"{role} must be .*is a path.*{role} = anndata\.read_h5ad"),
    "a table": Refused(
        lambda a: a.to_df(),
        TypeError,
        r"{role} must be .*DataFrame.*{role} = anndata\.AnnData\({role}\)",
        lambda c: c.role != "target",
    ),
    "a list": Refused(lambda a: [a, a], TypeError, r"{role} must be .*list"),
    "None": Refused(
        lambda a: None, TypeError, r"{role} must be .*NoneType", lambda c: c.call not in NONE_MEANS_SOMETHING
    ),
    "raw": Refused(ad.Raw, TypeError, r"{role} must be .*{role} = {role}\.to_adata"),
    "SnapATAC2": Refused(lambda a: Snap(), TypeError, r"{role} must be .*snapatac2.*{role} = {role}\.to_memory\(\)"),
    "lazy": Refused(lazily, TypeError, r"{role} was opened by .*read_lazy.*{role} = {role}\.to_memory", is_alone),
    "a MuData with another name": Refused(
        peaks_modality, KeyError, r"MuData given as {role} has no modality 'atac'.*'peaks'.*modalit", lambda c: c.mudata
    ),
    "transposed": Refused(
        lambda a: a.T.copy(), ValueError, r"{role} looks transposed.*{role} = {role}\.T\.copy", is_alone
    ),
    "transposed in a MuData": Refused(
        lambda a: md.MuData({"atac": a.T.copy()}),
        ValueError,
        r'{role}\["atac"\] looks transposed.*{role}\.mod\["atac"\] = {role}\["atac"\]\.T\.copy',
        lambda c: is_alone(c) and c.mudata,
    ),
    "only fragments": Refused(
        only_fragments, ValueError, r"{role}.* has 64 cells and 0 OCRs, only fragments", is_alone
    ),
    "no columns": Refused(lambda a: a[:, :0].copy(), ValueError, r"{role}.* has 64 cells and 0 OCRs"),
    "no cells": Refused(
        lambda a: a[:0].copy(), ValueError, r"{role} has 0 cells", lambda c: is_alone(c) and c.layer != ""
    ),
    "no X and no layer": Refused(
        lambda a: put(no_layers(a), X=None), ValueError, r"{role}.*no peak matrix", lambda c: c.layer != ""
    ),
    "no X but a layer": Refused(
        lambda a: put(a, X=None),
        ValueError,
        r"{role}.*\.X is None\. Pass {layer}= one of \['counts'\]",
        lambda c: c.layer != "",
    ),
    "normalised": Refused(
        normalised,
        ValueError,
        r"{role}.*\.X holds values that are not whole.*Pass {layer}= a layer with counts \(layers: \['counts'\]\)",
        lambda c: c.counts,
    ),
    "normalised without layers": Refused(
        lambda a: normalised(no_layers(a)),
        ValueError,
        r"^(?!.*\[\]).*{role}.*\.X holds values that are not whole",
        lambda c: c.counts,
    ),
    "normalised in some cells": Refused(
        lambda a: normalised(a, slice(5, 9)),
        ValueError,
        r"{role}.*not whole numbers in [1-4] of 64 cells",
        lambda c: c.counts,
    ),
    "NaN": Refused(
        with_nan, ValueError, r"{role}.*\.X has 1 values that are negative.*{layer}=", lambda c: c.layer != ""
    ),
    "expression instead": Refused(expression, ValueError, r"{role}.*(named like genes|no peak matrix|genes)"),
    "features without places": Refused(
        unplaced, ValueError, r"None of the 200 features of {role}.* has coordinates", lambda c: c.places
    ),
    "another build": Refused(hg19, ValueError, r"OCRs of {role}.* are declared to be on hg19", lambda c: c.places),
    "names against columns": Refused(two_sets, ValueError, r"{role}.*names and columns disagree", lambda c: c.places),
    "repeated places": Refused(repeated, ValueError, r"repeat the coordinates.*{role}", lambda c: c.places),
    "labels that are measurements": Refused(
        lambda a: put(a, obs=a.obs.assign(cell_type=np.random.default_rng(0).random(a.n_obs))),
        ValueError,
        r"{role}\.obs\['cell_type'\] holds no labels",
        lambda c: c.labels,
    ),
    "labels that mean none": Refused(
        lambda a: put(a, obs=a.obs.assign(cell_type=["NA", "Unknown"] * (a.n_obs // 2))),
        ValueError,
        r"(?i){role}\.obs\['cell_type'\].*0 label|cell_type.* 0 types",
        lambda c: c.labels and c.call not in (filter_ocrs_groups,),
    ),
    "no column of labels": Refused(
        lambda a: put(a, obs=a.obs[[]]), KeyError, r"no column 'cell_type' in {role}\.obs", lambda c: c.labels
    ),
    "a view of backed cells": Refused(
        lambda a: on_disk(a)[:50],
        ValueError,
        r"{role} is a view of a backed.*{role} = {role}\.to_memory",
        lambda c: c.writes,
    ),
    "cells on disk": Refused(
        on_disk,
        ValueError,
        r"{role} is .*backed.*{role} = {role}\.to_memory",
        lambda c: not c.on_disk and c.call not in (chromfound,),
    ),
}
NEEDS_FOLDER = ("lazy", "a view of backed cells", "cells on disk")


@pytest.mark.parametrize(
    ("row", "name"),
    [(row, name) for row in REFUSED for name in COLUMNS if REFUSED[row].concerns(COLUMNS[name])],
    ids=lambda x: x,
)
def test_fault_is_told(row, name, cells, world, tmp_path) -> None:
    column, fault = COLUMNS[name], REFUSED[row]
    if row in NEEDS_FOLDER:
        cells.uns["folder"] = str(tmp_path)
    data = given(column, fault.change(cells), world)
    can_copy = isinstance(data, AnnData | md.MuData) and row not in NEEDS_FOLDER
    before = data.copy() if can_copy else None
    match = fault.match.format(role=column.role, layer=column.layer)
    with pytest.raises(fault.error, match=match):
        column.call(world, data)
    if before is not None:
        assert_as_it_was(data, before)


# ---------------------------------------------------------------- labels


def labelled(values: Callable[[np.ndarray], Any], mdata: str = "") -> Callable[[AnnData], tuple[Any, str]]:
    """Labels in another form; in the table of the MuData under the name `mdata` if there is one."""

    def change(a: AnnData) -> tuple[Any, str]:
        column = values(a.obs["cell_type"].astype(str).to_numpy(dtype=object))
        a.obs = a.obs[[]].assign(**({} if mdata else {"cell_type": column}))
        if not mdata:
            return a, "cell_type"
        both = paired(a)
        both.obs[mdata] = column
        return both, mdata

    return change


def with_nones(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[::9] = ["NA", None, "Unknown", np.nan, "unassigned", "", "nan", "N/A"][: len(values[::9])]
    return values


def with_gaps(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[::9] = None
    return values


CODES = {"B": 0, "Mono": 1, "NK": 2, "T": 3}
LABELS = {
    "categories": (lambda x: x, labelled(pd.Categorical)),
    "text that means none": (with_gaps, labelled(with_nones)),
    "nullable text": (with_gaps, labelled(lambda x: pd.array(with_gaps(x), dtype="string"))),
    "numbers with gaps": (
        lambda x: with_gaps(np.array([str(CODES[v]) for v in x], dtype=object)),
        labelled(lambda x: np.array([np.nan if v is None else float(CODES[v]) for v in with_gaps(x)])),
    ),
    "a column of the MuData": (lambda x: x, labelled(lambda x: x, "cell_type")),
    "a column of the MuData with a prefix": (lambda x: x, labelled(lambda x: x, "atac:cell_type")),
}


@pytest.mark.parametrize("name", [name for name, column in COLUMNS.items() if column.labels])
@pytest.mark.parametrize("row", LABELS)
def test_labels_mean_the_same_everywhere(row, name, cells, world) -> None:
    plain, change = LABELS[row]
    clean = cells.copy()
    clean.obs["cell_type"] = plain(clean.obs["cell_type"].astype(str).to_numpy(dtype=object))
    data, key = change(cells)
    before = data.copy()
    call = COLUMNS[name].call
    np.testing.assert_allclose(call(world, data, labels_key=key), call(world, clean), rtol=1e-4, atol=1e-5)
    assert_as_it_was(data, before)


SCORES = {
    "clustering_scores": lambda x, y: sfa.bench.clustering_scores(x, y, n_seeds=1),
    "knn_accuracy": lambda x, y: sfa.bench.knn_accuracy(x, y, n_seeds=1),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_labels_of_scores(score, world) -> None:
    points, labels = world.clean.X[:, :9].toarray(), world.clean.obs["cell_type"].to_numpy(dtype=object)
    codes = np.array([float(CODES[x]) for x in labels])
    np.testing.assert_allclose(score(points, codes), score(points, np.array([str(int(x)) for x in codes])))
    with pytest.raises(ValueError, match="8 cells have no label .*'NA'"):
        score(points, with_nones(labels))
    with pytest.raises(ValueError, match="labels holds no labels"):
        score(points, np.random.default_rng(0).random(len(points)))
    with pytest.raises(TypeError, match="labels= takes one label per cell.*AnnData"):
        score(points, world.clean)


def test_labels_of_annotation_scores() -> None:
    truth = ["B", "T", "NA", None, "Unknown", "B"]
    scores = sfa.bench.annotation_scores(truth, ["B", "T", "B", "B", "B", "nan"])
    assert scores["n_cells"] == 3
    assert scores["unknown"] == pytest.approx(1 / 3)


# ---------------------------------------------------------------- in a MuData


@pytest.mark.parametrize(
    "name",
    [name for name, column in COLUMNS.items() if column.mudata and not column.paired and column.role not in ("basis",)],
)
def test_modality_of_a_mudata(name, world, expected) -> None:
    data = paired(world.clean.copy())
    np.testing.assert_allclose(COLUMNS[name].call(world, data), expected(name), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, column in COLUMNS.items() if column.writes])
def test_copy_leaves_the_original(name, cells, world, expected) -> None:
    before = cells.copy()
    np.testing.assert_allclose(COLUMNS[name].call(world, cells, copy=True), expected(name), rtol=1e-3, atol=1e-4)
    assert_as_it_was(cells, before)


@pytest.mark.parametrize("name", [name for name, column in COLUMNS.items() if column.writes])
def test_backed_cells_cannot_be_copied(name, cells, world, tmp_path) -> None:
    cells.uns["folder"] = str(tmp_path)
    with pytest.raises(ValueError, match=r"adata is backed .*copy=False.*adata = adata\.to_memory"):
        COLUMNS[name].call(world, on_disk(cells), copy=True)


# ---------------------------------------------------------------- arguments of a wrong type

OBJECTS = {"a list": [1, 2], "a column": pd.Series([1, 2])}
ARGUMENTS = {
    "embed": (
        "layer",
        "recipe",
        "pooling",
        "n_components",
        "n_fit_cells",
        "batch_key",
        "batch_size",
        "precision",
        "seed",
        "key_added",
    ),
    "annotate": ("layer", "seed", "key_added", "batch_size", "modality"),
    "annotate reference": ("labels_key", "mode", "n_neighbors", "reference_layer"),
    "annotate alone": ("layer", "seed", "candidates", "groupby", "min_confidence"),
    "predict_rna": ("layer", "seed", "key_added", "batch_size"),
    "predict_rna reference": ("split_key", "binned", "rna_layer", "rna_modality", "reference_layer"),
    "perturb_ocrs": ("layer", "to", "groupby", "key_added", "batch_size", "modality"),
    "link_enhancers": ("layer", "groupby", "window", "method", "n_cells", "use_rep", "seed", "rna_layer", "key_added"),
    "impute": ("layer", "n_kept", "threshold", "out", "seed", "key_added"),
    "gene_activity": ("layer", "upstream", "downstream", "weights", "normalize", "key_added"),
    "lsi": ("layer", "seed", "key_added"),
    "spectral": ("layer", "seed", "key_added"),
    "aggregate_neighbors": ("layer", "n_components", "seed", "key_added"),
    "filter_cells": ("layer", "max_ocrs"),
    "filter_ocrs": ("layer", "min_cells", "groupby"),
    "filter_ocrs groupby": ("min_fraction",),
    "recipe_chromfound": ("layer", "target_sum", "log1p", "seed", "max_ocrs"),
    "map_ocrs": ("layer", "min_overlap", "min_coverage", "min_kept"),
    "compare": ("labels_key", "layer", "n_components", "n_cells", "seed", "name"),
    "integration": (
        *("labels_key", "batch_key", "layer", "n_components", "n_cells", "seed"),
        *("max_epochs", "rna_modality", "rna_layer"),
    ),
    "annotation_baselines reference": ("labels_key", "layer", "seed"),
    "rna_baselines train": ("labels_key", "layer", "rna_layer", "seed"),
    "thin_counts": ("layer", "seed"),
    "ChromFound": ("layer",),
    "EpiFoundation setup": ("layer", "atac_layer", "rna_layer", "batch_key", "labels_key"),
    "CellAnnotator.train": ("labels_key", "layer", "mode", "n_neighbors", "early_stopping", "early_stopping_patience"),
    "RNAPredictor.train": (
        "split_key",
        "binned",
        "layer",
        "rna_layer",
        "lr",
        "early_stopping",
        "early_stopping_patience",
    ),
    "RNAPredictor.predict": ("layer", "genes"),
}


@pytest.mark.parametrize(("name", "argument"), [(name, each) for name in ARGUMENTS for each in ARGUMENTS[name]])
@pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS)
def test_argument_of_a_wrong_type(name, argument, value, cells, world) -> None:
    data = given(COLUMNS[name], cells, world)
    before = data.copy()
    with pytest.raises((TypeError, ValueError), match=rf"{argument}\b"):
        COLUMNS[name].call(world, data, **{argument: value})
    assert_as_it_was(data, before)


WRONG = {
    "n_components as text": (lambda a: sfa.tl.embed(a, model=PRIOR, n_components="50"), "n_components"),
    "n_components as a float": (
        lambda a: sfa.pp.lsi(a, n_components=5.0),
        "n_components= takes a whole number; got 5.0",
    ),
    "n_components True": (
        lambda a: sfa.pp.spectral(a, n_components=True),
        "n_components= takes a whole number; got True",
    ),
    "n_components negative": (lambda a: sfa.pp.lsi(a, n_components=-3), "n_components=-3"),
    "seed None": (lambda a: sfa.tl.embed(a, model=PRIOR, seed=None), "seed= takes a whole number; got None"),
    "seed negative": (lambda a: sfa.pp.lsi(a, seed=-1), "seed=-1 must be at least 0"),
    "copy as text": (lambda a: sfa.pp.lsi(a, copy="yes"), "copy= takes True or False"),
    "key_added a number": (lambda a: sfa.tl.embed(a, model=PRIOR, key_added=3), "key_added= takes a name"),
    "key_added with a slash": (lambda a: sfa.pp.bin_expression(a, key_added="a/b"), "key_added='a/b' cannot be stored"),
    "model None": (lambda a: sfa.tl.embed(a, model=None), "model= takes a name.*NoneType"),
    "model as cells": (sfa.model.CellAnnotator, "model= takes a name.*AnnData"),
    "annotator as cells": (lambda a: sfa.tl.annotate(a, annotator=a), "CellAnnotator is opened by .*AnnData"),
    "predictor as a number": (lambda a: sfa.tl.predict_rna(a, predictor=3), "RNAPredictor is opened by .*int"),
    "local as text": (lambda a: sfa.model.RNAPredictor(local="far"), "local= takes a whole number, or None"),
    "ocrs as a table": (
        lambda a: sfa.tl.perturb_ocrs(a, predictor="x", ocrs=a.var),
        "ocrs= takes names of OCRs.*DataFrame",
    ),
    "ocrs as cells": (lambda a: sfa.tl.perturb_ocrs(a, predictor="x", ocrs=a), "ocrs= takes names of OCRs.*AnnData"),
    "genes as one text": (
        lambda a: sfa.tl.predict_rna(paired(a), genes="ACTB"),
        r"genes=\['ACTB'\] for this gene alone",
    ),
    "genes as a table": (lambda a: sfa.tl.predict_rna(paired(a), genes=a.var), "genes= takes a list.*DataFrame"),
    "genes as names": (lambda a: sfa.tl.gene_activity(a, genes=["ACTB"]), "genes= got list"),
    "methods a number": (lambda a: sfa.bench.compare(a, "cell_type", methods=3), "methods= takes names"),
    "methods a number for integration": (
        lambda a: sfa.bench.integration(a, "cell_type", "cell_type", methods=3),
        "methods= takes names",
    ),
    "methods unknown": (lambda a: sfa.bench.annotation_baselines(a, a, "cell_type", methods=["x"]), "Unknown methods"),
    "target a number": (lambda a: sfa.pp.map_ocrs(a, 3), "target must be .*int"),
    "target a dict": (lambda a: sfa.pp.map_ocrs(a, {"a": 1}), "target must be .*dict"),
    "target a set": (lambda a: sfa.pp.map_ocrs(a, set(a.var_names)), "target must be .*set"),
    "target empty": (lambda a: sfa.pp.map_ocrs(a, []), "target must be .*empty list"),
    "target twice": (
        lambda a: sfa.pp.map_ocrs(a, [*a.var_names, *a.var_names[:2]]),
        r"2 names .*dict\.fromkeys\(target\)",
    ),
    "target with numbers": (lambda a: sfa.pp.map_ocrs(a, [1, 2]), "target must be .*list"),
    "smooth as text": (lambda a: sfa.bench.compare(a, "cell_type", smooth="yes"), "smooth= takes"),
    "fractions of text": (lambda a: sfa.bench.compare(a, "cell_type", fractions=["x"]), "fractions must be"),
    "MuData for ChromFound": (
        lambda a: sfa.model.ChromFound.setup_anndata(paired(a)),
        r"adata must be an AnnData.*\[.atac.\]",
    ),
    "layer read and written": (
        lambda a: sfa.tl.impute(a, model=PRIOR, layer="counts", key_added="counts"),
        "is the layer that is read",
    ),
    "layer of the user": (
        lambda a: sfa.tl.impute(a, model=PRIOR, key_added="counts"),
        r"adata\.layers\['counts'\] is there already",
    ),
    "record of another tool": (
        lambda a: sfa.tl.embed(a, model=PRIOR, key_added="genome"),
        r"adata\.uns\['genome'\] is there already",
    ),
    "modality of the user": (
        lambda a: sfa.tl.gene_activity(paired(a), key_added="rna", genes=a.var),
        "has a modality 'rna'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_argument(name, cells) -> None:
    call, match = WRONG[name]
    before = cells.copy()
    with pytest.raises((TypeError, ValueError), match=match):
        call(cells)
    assert_as_it_was(cells, before)


def _bed(a: AnnData, folder: Path) -> str:
    lines = "\n".join("\t".join(map(str, row)) for row in a.var[["chrom", "start", "end"]].itertuples(index=False))
    (folder / "peaks.bed").write_text(f"# peaks\ntrack name=x\n{lines}\n")
    return str(folder / "peaks.bed")


TARGETS = {
    "MuData": lambda a, folder: paired(a),
    "Index": lambda a, folder: a.var_names,
    "Series": lambda a, folder: pd.Series(a.var_names, index=range(5, 5 + a.n_vars)),
    "array": lambda a, folder: a.var_names.to_numpy(),
    "generator": lambda a, folder: (name for name in a.var_names),
    "table": lambda a, folder: a.var,
    "BED with comments": _bed,
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_targets(target, cells, world, expected, tmp_path) -> None:
    result = sfa.pp.map_ocrs(cells, target(world.clean.copy(), tmp_path))
    np.testing.assert_array_equal(dense(result.X), expected("map_ocrs"))


# ---------------------------------------------------------------- what cannot be written is told before the work

UNWRITABLE = {
    "mixed objects": (
        lambda n: {"x": [1, "a"] * (n // 2)},
        TypeError,
        r"adata\.obs\['x'\] cannot be written.*astype\(str\)",
    ),
    "lists": (lambda n: {"x": [[1]] * n}, TypeError, r"adata\.obs\['x'\] cannot be written"),
    "dates": (lambda n: {"x": pd.to_datetime(["2020"] * n)}, TypeError, r"adata\.obs\['x'\] cannot be written"),
    "nullable floats": (
        lambda n: {"x": pd.array([0.5, None] * (n // 2), dtype="Float64")},
        TypeError,
        r"adata\.obs\['x'\]",
    ),
    "a slash": (lambda n: {"a/b": 1}, ValueError, r"adata\.obs has a column 'a/b'.*rename"),
    "a number as a name": (lambda n: {3: 1}, TypeError, "must be named by text"),
    "a reserved name": (lambda n: {"_index": 1}, ValueError, "'_index'"),
}
WRITABLE = {
    "text with gaps": lambda n: ["a", None] * (n // 2),
    "text with NaN": lambda n: ["a", np.nan] * (n // 2),
    "nullable text": lambda n: pd.array(["a", None] * (n // 2), dtype="string"),
    "nullable integers": lambda n: pd.array([1, None] * (n // 2), dtype="Int64"),
    "nullable booleans": lambda n: pd.array([True, None] * (n // 2), dtype="boolean"),
    "categories with gaps": lambda n: pd.Categorical(["a", None] * (n // 2)),
    "nothing": lambda n: [None] * n,
}


def no_work(*args: Any, **kwargs: Any) -> None:
    pytest.fail("work was begun")


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("row", UNWRITABLE)
def test_tables_that_files_cannot_hold(row, suffix, cells, tmp_path, monkeypatch) -> None:
    columns, error, match = UNWRITABLE[row]
    if row in ("mixed objects", "lists") and suffix == ".zarr":
        pytest.skip("written as text there")
    for name, values in columns(cells.n_obs).items():
        cells.obs[name] = values
    monkeypatch.setattr("scfound_atac.data.cells.Cells.read", no_work)
    with pytest.raises(error, match=match):
        sfa.tl.impute(cells, model=PRIOR, out=tmp_path / f"out{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("row", WRITABLE)
def test_tables_that_files_can_hold(row, suffix, cells, tmp_path) -> None:
    cells.obs["x"] = WRITABLE[row](cells.n_obs)
    cells.obs.index.name = "x"
    before = cells.copy()
    sfa.tl.impute(cells, model=PRIOR, out=tmp_path / f"out{suffix}")
    assert_as_it_was(cells, before)
    read = (ad.read_h5ad if suffix == ".h5ad" else ad.read_zarr)(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(read.obs["x"].isna(), cells.obs["x"].isna())


def test_folders_that_cannot_be_written_to(cells, world, tmp_path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_text("something")
    with pytest.raises(FileExistsError, match="is a file, and a folder is wanted"):
        world.annotator.save(file)
    with pytest.raises(FileExistsError, match="is a file, and a folder is wanted"):
        world.predictor.save(file)
    mdata = paired(cells)
    sfa.model.EpiFoundation.setup_mudata(mdata)
    model = sfa.model.EpiFoundation(mdata, config={"d_model": 8, "n_layers": 1, "n_heads": 1, "d_feed_forward": 8})
    with pytest.raises(FileExistsError, match="output=.* is a file, and a folder is wanted"):
        model.train(max_steps=1, output=file)
    with pytest.raises(IsADirectoryError, match="is a folder, and a CSV file is wanted"):
        sfa.bench.compare(cells, "cell_type", methods=["lsi"], out=tmp_path)
    monkeypatch.setattr("scfound_atac._paths.TemporaryFile", _denied)
    with pytest.raises(PermissionError, match="Nothing can be written to the folder .* of out="):
        sfa.tl.impute(cells, model=PRIOR, out=tmp_path / "out.h5ad")
    with pytest.raises(PermissionError, match="Nothing can be written to the folder .* of out="):
        sfa.bench.compare(cells, "cell_type", methods=["lsi"], out=tmp_path / "out.csv")


def _denied(dir: Path) -> None:
    raise PermissionError(13, "Permission denied")


# ---------------------------------------------------------------- designs that mislead


@pytest.mark.parametrize("name", ["embed", "annotate", "impute", "map_ocrs", "annotate reference"])
def test_samples_side_by_side_are_told(name, cells, world, caplog) -> None:
    shifted = cells.copy()
    shifted.var = cells.var[["chrom"]].assign(start=cells.var["start"] + 90, end=cells.var["end"] + 90)
    shifted.var_names = [f"{c}:{s}-{e}" for c, s, e in shifted.var.itertuples(index=False)]
    both = ad.concat({"a": cells, "b": shifted}, join="outer", merge="first", index_unique="-")
    both.uns["genome"] = "GRCh38"
    COLUMNS[name].call(world, both)
    assert f"{COLUMNS[name].role}: Cells fall into 2 groups" in caplog.text
    assert "sfa.pp.map_ocrs" in caplog.text
