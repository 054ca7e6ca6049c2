"""What heads read of a cell: it must not depend on the OCR set, order or storage."""

from __future__ import annotations

import numpy as np
import pytest

from scfound_atac import hub
from scfound_atac.data import Cells
from scfound_atac.inference.features import CellFeatures, MeasuredView
from scfound_atac.inference.kinds import kind_of

BACKBONES = ("region-set", "chromfound", "epifoundation")


@pytest.fixture(scope="module")
def adata(make_labelled):
    return make_labelled(60)


def vectors(checkpoint, adata, **kwargs) -> np.ndarray:
    kind = kind_of(checkpoint)
    kind.check_backbone()
    return kind.cell_vectors(Cells.read(adata), device="cpu", progress=False, **kwargs)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_vectors_do_not_depend_on_batches_or_order(tiny_backbones, adata, backbone):
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)
    checkpoint = tiny_backbones[backbone]
    plain = vectors(checkpoint, adata)
    assert plain.shape == (60, 16)
    np.testing.assert_allclose(vectors(checkpoint, adata[rows][:, columns].copy()), plain[rows], atol=1e-5)
    if backbone != "region-set":
        np.testing.assert_allclose(vectors(checkpoint, adata, batch_size=7), plain, atol=1e-5)


@pytest.mark.parametrize("backbone", ["region-set", "epifoundation"])
def test_vectors_of_sets_do_not_depend_on_closed_ocrs(tiny_backbones, adata, backbone):
    some = adata[:5].copy()
    is_open = np.asarray(some.X.sum(0)).ravel() > 0
    np.testing.assert_allclose(
        vectors(tiny_backbones[backbone], some[:, is_open].copy()), vectors(tiny_backbones[backbone], some), atol=1e-5
    )


def test_not_every_model_is_a_backbone(adata):
    with pytest.raises(ValueError, match="biosample-mix.*cannot be a backbone: use 'region-set'"):
        vectors(hub.load("biosample-mix"), adata)


def test_measured_view_of_other_ocrs(adata, make_labelled):
    cells = Cells.read(adata)
    view = MeasuredView.fit(cells, np.arange(60), n_components=8)
    plain = view(cells)
    assert plain.shape == (60, 8)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, rtol=1e-5)
    shifted = adata.copy()
    shifted.var["start"] += 10
    shifted.var_names = [f"peak{i}" for i in range(adata.n_vars)]
    np.testing.assert_allclose(view(Cells.read(shifted)), plain, atol=1e-5)
    assert view.coverage(shifted.var) > 0.99
    half = adata[:, ::2].copy()
    assert view.coverage(half.var) == pytest.approx(0.5, abs=0.02)
    cosine = (view(Cells.read(half)) * plain).sum(1)
    assert cosine.mean() > 0.5
    elsewhere = adata.copy()
    elsewhere.var = elsewhere.var.assign(chrom="chr21", start=10_000_000 + 1000 * np.arange(adata.n_vars))
    elsewhere.var["end"] = elsewhere.var["start"] + 500
    elsewhere.var_names = [f"peak{i}" for i in range(adata.n_vars)]
    assert view.coverage(elsewhere.var) < 0.05
    assert np.isfinite(view(Cells.read(elsewhere))).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_measured_view_of_few_cells(adata, n):
    cells = Cells.read(adata[:n].copy())
    view = MeasuredView.fit(cells, np.arange(n), n_components=50)
    assert view(Cells.read(adata)).shape[1] < n
    assert np.isfinite(view(Cells.read(adata))).all()


def test_features_stand_side_by_side(tiny_backbones, adata):
    cells = Cells.read(adata)
    features = CellFeatures.fit(tiny_backbones["region-set"], cells)
    read = features(cells, device="cpu", progress=False)
    assert read.known.shape == (60, 16)
    k = read.measured.shape[1]
    assert 3 < k <= 50
    assert read.all().shape == (60, 16 + k)
    assert read.fraction_ocrs == 1
    alone = CellFeatures.fit(tiny_backbones["region-set"], cells, measured=False)(cells, progress=False)
    assert alone.measured is None
    np.testing.assert_array_equal(alone.all(), read.known)


def test_features_without_shared_ocrs(tiny_backbones, adata, make_labelled):
    columns = np.arange(adata.n_vars)
    features = CellFeatures.fit(tiny_backbones["region-set"], Cells.read(adata[:, columns < 390].copy()))
    read = features(Cells.read(adata[:, columns >= 380].copy()), progress=False)
    assert read.measured is None
    assert 0 < read.fraction_ocrs < 0.05
    assert read.all().shape == (60, 16)


def test_axes_of_reference_and_query(tiny_backbones, adata, make_labelled):
    checkpoint, cells = tiny_backbones["region-set"], Cells.read(adata)
    query = make_labelled(40, seed=1)
    both = CellFeatures.fit(checkpoint, cells, query=Cells.read(query), n_components=8).view
    alone = CellFeatures.fit(checkpoint, cells, n_components=8).view
    assert both.axes.shape == (400, 8)
    assert not np.allclose(both.idf, alone.idf)
    # OCRs that the query lacks have no weight; the order of its OCRs does not matter
    half = query[:, ::-2].copy()
    shared = CellFeatures.fit(checkpoint, cells, query=Cells.read(half), n_components=8).view
    assert (shared.idf[::2] == 0).all() != (shared.idf[1::2] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(shared(Cells.read(half)), axis=1), 1, rtol=1e-5)
    # a query with hardly any OCR of the reference changes nothing
    few = query[:, :10].copy()
    same = CellFeatures.fit(checkpoint, cells, query=Cells.read(few), n_components=8).view
    np.testing.assert_array_equal(same.axes, alone.axes)


def test_reference_and_query_share_the_cells_that_are_fitted(tiny_backbones, adata, make_labelled, monkeypatch):
    seen = []
    fit = MeasuredView.fit.__func__

    def watched(cls, cells, rows, **kwargs):
        seen.append((len(rows), len(kwargs["query"][1])))
        return fit(cls, cells, rows, **kwargs)

    monkeypatch.setattr(MeasuredView, "fit", classmethod(watched))
    cells = Cells.read(adata)
    for n_query, n_fit_cells in ((100, 60), (20, 60), (100, 400)):
        query = Cells.read(make_labelled(n_query, seed=1))
        CellFeatures.fit(tiny_backbones["region-set"], cells, query=query, n_fit_cells=n_fit_cells)
    assert seen == [(30, 30), (40, 20), (60, 100)]
