from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import yaml
from scipy import sparse

from scfound_atac.data.corpus import Corpus


@pytest.fixture
def folder(corpus_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus_folder, tmp_path / "corpus"))


def describe(folder: Path, **changes: Any) -> Path:
    """Change the first study of the description; None removes a key."""
    path = folder / "corpus.yaml"
    description = yaml.safe_load(path.read_text())
    study = {**description["studies"][0], **changes}
    description["studies"][0] = {key: value for key, value in study.items() if value is not None}
    path.write_text(yaml.safe_dump(description))
    return folder


def whole(folder: Path, name: str) -> np.ndarray:
    """All cells of a study."""
    return np.concatenate([ad.read_h5ad(path).X.toarray() for path in sorted(folder.glob(f"{name}_*.h5ad"))])


@pytest.mark.parametrize(("first", "n"), [(0, 1), (0, 70), (65, 12), (69, 2), (70, 50), (0, 120), (119, 1)])
def test_rows_of_one_and_of_two_files(corpus_folder: Path, first: int, n: int) -> None:
    rows = Corpus(corpus_folder).studies[0].read(first, n)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows.toarray(), whole(corpus_folder, "simulated")[first : first + n])


@pytest.mark.parametrize(("first", "n"), [(-1, 2), (0, 0), (119, 2)])
def test_rows_that_do_not_exist(corpus_folder: Path, first: int, n: int) -> None:
    with pytest.raises(ValueError, match="has 120 cells; asked for"):
        Corpus(corpus_folder).studies[0].read(first, n)


def test_description_is_kept(corpus_folder: Path) -> None:
    corpus = Corpus(corpus_folder / "corpus.yaml")
    simulated, real = corpus.studies
    assert (simulated.name, simulated.kind, simulated.n_cells, simulated.n_ocrs) == ("simulated", "simulated", 120, 300)
    assert (real.kind, real.file_sizes, real.licence, real.blood) == ("real", (60,), "CC0", False)
    assert corpus.n_cells == 180
    assert list(real.ocrs.columns) == ["chrom", "start", "end", "fraction_open"]
    assert len(real.ocrs) == 120


def test_biosamples_of_simulated_cells_alone_are_labels(corpus_folder: Path) -> None:
    corpus = Corpus(corpus_folder)
    assert corpus.biosamples == ("brain", "liver")
    simulated, real = corpus.labels
    files = [ad.read_h5ad(corpus_folder / f"simulated_{i}.h5ad").obs["biosample"] for i in range(2)]
    expected = [("brain", "liver").index(name) for column in files for name in column]
    assert simulated.tolist() == expected
    assert set(real.tolist()) == {-1}


def test_only_the_rows_asked_for_are_read(corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the matrix no more values leave the file than the cells have."""
    study, read = Corpus(corpus_folder).studies[0], []
    plain = h5py.Dataset.__getitem__

    def counted(dataset: h5py.Dataset, key: Any, **options: Any) -> Any:
        values = plain(dataset, key, **options)
        read.append((dataset.name, np.size(values)))
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    rows = study.read(30, 4)
    assert dict(read) == {"/X/indptr": 5, "/X/data": rows.nnz, "/X/indices": rows.nnz}


def test_zarr(corpus_folder: Path, write_corpus: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    stores, files = Corpus(write_corpus(tmp_path / "zarr", ".zarr")), Corpus(corpus_folder)
    for store, file in zip(stores.studies, files.studies, strict=True):
        np.testing.assert_array_equal(store.read(20, 40).toarray(), file.read(20, 40).toarray())
        assert store.ocrs.equals(file.ocrs)
    assert stores.biosamples == files.biosamples


def test_studies_without_weight_are_left_out(folder: Path) -> None:
    assert [study.name for study in Corpus(describe(folder, weight=0.0)).studies] == ["real"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_cells": None}, "study 1 lacks n_cells"),
        ({"n_cells": 119}, "study 1 (simulated): 119 cells x 300 OCRs expected, the files hold"),
        ({"n_ocrs": 301}, "120 cells x 301 OCRs expected"),
        ({"n_cells": "many"}, "n_cells is 'many'"),
        ({"kind": "bulk"}, "kind is 'bulk'; use 'real' or 'simulated'"),
        ({"weight": -1.0}, "a weight of at least 0"),
        ({"files": []}, "needs files"),
        ({"files": ["simulated_0.h5ad", "real_0.h5ad"], "n_cells": 130}, "the files hold [(70, 300), (60, 120)]"),
    ],
)
def test_descriptions_that_are_wrong(folder: Path, changes: dict[str, Any], message: str) -> None:
    import re

    with pytest.raises(ValueError, match=re.escape(message)):
        Corpus(describe(folder, **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studies: [", "is not YAML"),
        ("a: 1", "does not describe a corpus"),
        ("{format_version: 9, studies: []}", "reads 1"),
    ],
)
def test_files_that_describe_no_corpus(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "corpus.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Corpus(tmp_path)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No corpus.yaml"):
        Corpus(tmp_path / "nowhere")
    (folder / "simulated_1.h5ad").unlink()
    with pytest.raises(FileNotFoundError, match="simulated_1.h5ad"):
        Corpus(folder)


def rewrite(folder: Path, name: str, change: Callable[[ad.AnnData], ad.AnnData | None]) -> Corpus:
    path = folder / name
    adata = ad.read_h5ad(path)
    changed = change(adata)
    (adata if changed is None else changed).write_h5ad(path)
    return Corpus(folder)


def by_column(adata: ad.AnnData) -> None:
    adata.X = adata.X.tocsc()


def negative(adata: ad.AnnData) -> None:
    adata.X = adata.X.astype(np.float32)
    adata.X.data[0] = -1


def half(adata: ad.AnnData) -> None:
    adata.X = adata.X.astype(np.float32)
    adata.X.data[0] = 0.5


def dense(adata: ad.AnnData) -> None:
    adata.X = adata.X.toarray()


def shifted(adata: ad.AnnData) -> None:
    adata.var["start"] += 1


@pytest.mark.parametrize(
    ("change", "message"), [(by_column, "csc_matrix; write it by row"), (dense, "write it by row")]
)
def test_matrices_not_stored_by_row(folder: Path, change: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rewrite(folder, "simulated_0.h5ad", change)


@pytest.mark.parametrize(("change", "message"), [(negative, "negative"), (half, "not whole")])
def test_values_that_are_no_counts(folder: Path, change: Callable, message: str) -> None:
    study = rewrite(folder, "simulated_0.h5ad", change).studies[0]
    study.read(1, 69)
    with pytest.raises(ValueError, match=message):
        study.read(0, 2)


def test_files_with_other_ocrs(folder: Path) -> None:
    study = rewrite(folder, "simulated_1.h5ad", shifted).studies[0]
    with pytest.raises(ValueError, match="simulated_1.h5ad has other OCRs"):
        _ = study.ocrs


def test_ocrs_out_of_order(folder: Path) -> None:
    study = rewrite(folder, "real_0.h5ad", lambda adata: adata[:, ::-1].copy()).studies[1]
    with pytest.raises(ValueError, match="not in genome order"):
        _ = study.ocrs


def test_column_that_is_missing(folder: Path) -> None:
    def nameless(adata: ad.AnnData) -> None:
        del adata.obs["biosample"]

    with pytest.raises(ValueError, match="no obs column biosample"):
        _ = rewrite(folder, "simulated_0.h5ad", nameless).biosamples


def test_a_file_that_is_no_anndata(folder: Path) -> None:
    (folder / "simulated_0.h5ad").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not an AnnData file"):
        Corpus(folder)


def test_counts_survive_as_they_are(folder: Path) -> None:
    """Eight-bit counts up to 255 are read exactly."""

    def largest(adata: ad.AnnData) -> None:
        counts = sparse.lil_matrix(adata.X)
        counts[3, 5] = 255
        adata.X = counts.tocsr()

    assert rewrite(folder, "simulated_0.h5ad", largest).studies[0].read(3, 1)[0, 5] == 255


def test_weights_of_a_run_by_name_and_kind(corpus_folder: Path) -> None:
    simulated, real = Corpus(corpus_folder).studies
    only_real = Corpus(corpus_folder, {"simulated": 0}).studies
    assert [study.name for study in only_real] == [real.name]
    changed = Corpus(corpus_folder, {"real": 7}).studies
    assert [study.weight for study in changed] == [simulated.weight, 7]
    with pytest.raises(ValueError, match="no study and no kind of studies named liver"):
        Corpus(corpus_folder, {"liver": 1})
