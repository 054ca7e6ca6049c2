"""Perturbed cells: shared work gives what complete runs give, and the definition is the same for every kind of model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scfound_atac.data import Cells
from scfound_atac.inference.features import CellFeatures
from scfound_atac.inference.kinds import kind_of
from scfound_atac.inference.local import LocalView
from scfound_atac.inference.perturbation import changed_features, mean_effects
from scfound_atac.inference.reader import CellReader, changes

BACKBONES = ("region-set", "chromfound", "epifoundation")


@pytest.fixture(scope="module")
def cells(make_labelled) -> Cells:
    return Cells.read(make_labelled(12, n_ocrs=200))


def sets_of(*sets: list[int], n_ocrs: int = 200) -> sparse.csr_matrix:
    table = np.zeros((len(sets), n_ocrs), dtype=np.float32)
    for row, ocrs in zip(table, sets, strict=True):
        row[ocrs] = 1
    return sparse.csr_matrix(table)


SETS = (*([i] for i in range(0, 200, 9)), [3, 4, 5, 6], list(range(100, 140)))


def test_changes_are_those_of_a_dense_table(cells):
    counts, sets = cells.to_memory(), sets_of(*SETS)
    copies = changes(counts, sets, 0.5)
    plain = counts.toarray()
    wanted = [(c, p) for c in range(12) for p in range(len(SETS)) if plain[c, SETS[p]].any()]
    assert list(zip(copies.cell, copies.perturbation, strict=True)) == wanted
    for row, (c, p) in zip((counts[copies.cell] + copies.added).toarray(), wanted, strict=True):
        after = plain[c].copy()
        after[SETS[p]] *= 0.5
        np.testing.assert_allclose(row, after)
    np.testing.assert_allclose(copies.added_to(counts * 3).toarray(), copies.added.toarray() * 3)
    assert len(changes(counts, sets, 1.0)) == 0
    assert len(changes(counts * 0, sets, 0.0)) == 0


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_shared_work_gives_what_complete_runs_give(tiny_backbones, cells, backbone, factor):
    reader = kind_of(tiny_backbones[backbone]).reader(cells, device="cpu", exact=True)
    values = reader.prepare(cells.to_memory())
    copies = changes(values, sets_of(*SETS), factor)
    before, after = reader.changed(values, cells.names, copies)
    slow_before, slow_after = CellReader.changed(reader, values, cells.names, copies)
    np.testing.assert_allclose(before, slow_before, atol=1e-5)
    np.testing.assert_allclose(after, slow_after, atol=1e-4)
    moved = np.abs(slow_after - slow_before[copies.cell]).max(axis=1)
    if backbone == "epifoundation" and factor > 0:  # it only reads what is open
        assert moved.max() < 1e-5
    else:
        assert np.median(moved) > 1e-3  # ten times what is allowed as an error
        assert np.abs(after - before[copies.cell]).max(axis=1)[moved > 1e-3].min() > 5e-4


@pytest.mark.parametrize("backbone", BACKBONES)
def test_slow_path_is_that_of_cells_with_closed_ocrs(tiny_backbones, cells, backbone):
    """The definition itself, by hand: values of one OCR are 0 in the input of the network."""
    reader = kind_of(tiny_backbones[backbone]).reader(cells, device="cpu", exact=True)
    values = reader.prepare(cells.to_memory())
    ocr = int(np.argmax(np.diff(values.tocsc().indptr)))
    copies = changes(values, sets_of([ocr]), 0.0)
    closed = values.toarray()
    closed[:, ocr] = 0
    want = reader.vectors(sparse.csr_matrix(closed), cells.names)
    _, after = CellReader.changed(reader, values, cells.names, copies)
    assert len(copies) == (cells.to_memory()[:, [ocr]].toarray() > 0).sum()
    np.testing.assert_allclose(after, want[copies.cell], atol=1e-6)


def test_region_set_without_its_only_open_ocr(tiny_backbones, cells):
    reader = kind_of(tiny_backbones["region-set"]).reader(cells)
    one = sparse.csr_matrix(([2.0], ([0], [7])), shape=(1, 200), dtype=np.float32)
    values = reader.prepare(one)
    _, after = reader.changed(values, cells.names[:1], changes(values, sets_of([7]), 0.0))
    np.testing.assert_allclose(after, reader.vectors(values * 0, cells.names[:1]), atol=1e-6)


def test_chromfound_leaves_scaffolds_out(tiny_backbones, make_labelled):
    adata = make_labelled(12, n_ocrs=200)
    adata.var["chrom"] = ["chrM", "KI270728.1", *adata.var["chrom"][2:].astype(str)]
    adata.var_names = [f"peak_{i}x" for i in range(200)]
    adata.X = sparse.hstack([np.ones((12, 2), dtype=np.float32), adata.X[:, 2:]]).tocsr()
    cells = Cells.read(adata)
    reader = kind_of(tiny_backbones["chromfound"]).reader(cells, device="cpu")
    values = reader.prepare(cells.to_memory())
    before, after = reader.changed(values, cells.names, changes(values, sets_of([0], [1], [0, 1]), 0.0))
    np.testing.assert_array_equal(after, np.repeat(before, 3, axis=0))
    copies = changes(values, sets_of([0, 5], [5]), 0.0)
    _, after = reader.changed(values, cells.names, copies)
    with_both = np.flatnonzero((copies.perturbation == 0) & np.isin(copies.cell, copies.cell[copies.perturbation == 1]))
    np.testing.assert_allclose(after[with_both], after[copies.perturbation == 1], atol=1e-6)


def test_measured_view_of_copies(tiny_backbones, cells):
    features = CellFeatures.fit(tiny_backbones["region-set"], cells, n_components=8)
    counts = cells.to_memory()
    (part,) = changed_features(features, cells, sets_of(*SETS), 0.0, progress=False)
    plain = features(cells, progress=False)
    np.testing.assert_allclose(part.before, plain.all(), atol=1e-5)
    for i in range(0, len(part.cell), 7):
        closed = counts[part.cell[i]].toarray()
        closed[:, SETS[part.perturbation[i]]] = 0
        copy = Cells(sparse.csr_matrix(closed), None, cells.ocrs, cells.names[:1], cells.is_empty[:1])
        np.testing.assert_allclose(part.after[i, 16:], features.view(copy)[0], atol=1e-5)


def test_mean_effects_of_groups(tiny_backbones, cells):
    features = CellFeatures.fit(tiny_backbones["region-set"], cells, n_components=8)
    width = 16 + features.view.axes.shape[1]
    weights = np.random.default_rng(0).standard_normal((width, 3)).astype(np.float32)
    groups = np.array([0, 1, -1, 3] * 3)

    def parts(**options):
        return changed_features(features, cells, sets_of(*SETS), 2.0, progress=False, **options)

    def effects(share):
        sizes = {"n_perturbations": len(SETS), "n_groups": 4, "n_genes": 3}
        return mean_effects(parts(share=share), lambda x: x @ weights, None, groups=groups, **sizes)

    fast, slow = effects(True), effects(False)
    np.testing.assert_allclose(fast.change, slow.change, atol=1e-4, equal_nan=True)
    assert np.nanmax(np.abs(slow.change)) > 1e-2
    assert list(fast.n_cells) == [3, 3, 0, 3]
    assert np.isnan(fast.before[2]).all()
    assert np.isnan(fast.change[:, 2]).all()
    # by hand
    total, n = np.zeros((len(SETS), 3)), np.zeros(len(SETS))
    for part in parts():
        for cell, p, after in zip(part.cell, part.perturbation, part.after, strict=True):
            if groups[part.rows[cell]] == 1:
                total[p] += after @ weights - part.before[cell] @ weights
                n[p] += 1
    np.testing.assert_allclose(fast.change[:, 1], total / 3, atol=1e-6)
    np.testing.assert_array_equal(fast.n_changed[:, 1], n)


def test_local_part_of_an_effect(tiny_backbones, cells):
    """It is linear in values that are scaled to the total of the unchanged cell."""
    table = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    view = LocalView(cells.ocrs, 30.0, sparse.csc_matrix(table), np.array([0.5, 0.2], dtype=np.float32))
    reader = view.of(cells.ocrs)
    genes = np.array([1, 0])
    sizes = {"n_perturbations": len(SETS), "n_groups": 1, "n_genes": 2, "groups": np.zeros(12, dtype=np.int64)}
    features = CellFeatures(tiny_backbones["region-set"], None)
    parts = changed_features(features, cells, sets_of(*SETS), 0.0, reader, progress=False)
    found = mean_effects(parts, lambda x: np.ones((len(x), 2)), lambda values: reader.sums(values, genes), **sizes)
    counts = cells.to_memory().toarray()
    values = np.log1p(counts * 30 / counts.sum(axis=1, keepdims=True))
    want = np.array([-(values[:, some] @ table[some][:, genes]).mean(axis=0) for some in SETS])
    np.testing.assert_allclose(found.change[:, 0], want, atol=1e-5)
    np.testing.assert_allclose(found.before[0], 1 + (values @ table[:, genes]).mean(axis=0), rtol=1e-5)
    plain = reader.predict(reader.prepare(cells.to_memory()), genes)
    np.testing.assert_allclose(plain, values @ table[:, genes] - [0.2, 0.5], rtol=1e-4, atol=1e-5)
