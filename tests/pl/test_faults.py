"""What cannot be drawn is told, what is odd is drawn sensibly, and nothing of the user's is changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

import scfound_atac as sfa
from scfound_atac.train.run_folder import LOG

CALLS: dict[str, Callable[[Any], Any]] = {
    "links": lambda a, **k: sfa.pl.links(a, "MS4A1", **k),
    "perturbation": lambda a, **k: sfa.pl.perturbation(a, "MS4A1", **k),
    "confusion": lambda a, **k: sfa.pl.confusion(a, "cell_type", **k),
    "calibration": lambda a, **k: sfa.pl.calibration(a, "cell_type", **k),
    "rna_prediction": lambda a, **k: sfa.pl.rna_prediction(a, "MS4A1", **k),
    "embedding_comparison": lambda a, **k: sfa.pl.embedding_comparison(a, ["X_umap", "X_tsne"], "cell_type", **k),
}
OF_CELLS = [name for name in CALLS if name != "rna_prediction"]


def all_axes(drawn: Any) -> list[Axes]:
    return list(drawn.values()) if isinstance(drawn, dict) else drawn if isinstance(drawn, list) else [drawn]


# ---------------------------------------------------------------- what all have in common


@pytest.mark.parametrize("name", OF_CELLS)
def test_cells_are_unchanged_and_a_mudata_gives_the_same(name: str, adata: AnnData, mdata: md.MuData) -> None:
    before, whole = adata.copy(), mdata.copy()
    own, other = all_axes(CALLS[name](adata, show=False)), all_axes(CALLS[name](mdata, show=False))
    assert_equal(adata, before, exact=True)
    assert_equal(mdata["atac"], whole["atac"], exact=True)
    assert list(mdata.mod) == list(whole.mod)
    assert [ax.get_title() for ax in own] == [ax.get_title() for ax in other]


def test_mudata_with_expression_is_unchanged(mdata: md.MuData) -> None:
    before = mdata.copy()
    sfa.pl.rna_prediction(mdata, "MS4A1", color="cell_type", show=False)
    for modality in before.mod:
        assert_equal(mdata[modality], before[modality], exact=True)


@pytest.mark.parametrize("name", CALLS)
def test_other_modality(name: str, mdata: md.MuData) -> None:
    renamed = md.MuData({"peaks": mdata["atac"], "rna": mdata["rna"], "rna_predicted": mdata["rna_predicted"]})
    assert all_axes(CALLS[name](renamed, modality="peaks", show=False))
    with pytest.raises(KeyError, match="no modality 'atac'"):
        CALLS[name](renamed, show=False)


@pytest.mark.parametrize("name", CALLS)
def test_saved_and_shown(name: str, mdata: md.MuData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    file = tmp_path / "new" / "picture.png"
    assert CALLS[name](mdata, show=True, save=file) is None
    assert file.stat().st_size
    assert shown == [1]
    for wrong in ({"show": "yes"}, {"save": 3}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))}= takes"):
            CALLS[name](mdata, **wrong)


def test_show_and_save_as_in_scanpy(adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scanpy import settings

    shown: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    monkeypatch.chdir(tmp_path)  # scanpy writes into ./figures
    draw = CALLS["confusion"]
    assert draw(adata) is None
    draw(adata, show=False, save=True)
    draw(adata, show=False, save="_mine.png")
    draw(adata, show=False, save="_v1.2")
    files = ["confusion.pdf", "confusion_mine.png", "confusion_v1.2.pdf"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == files
    assert shown == [1]
    (tmp_path / "figures" / files[0]).unlink()
    try:  # pytest's monkeypatch cannot undo these
        settings.autoshow, settings.autosave = False, True
        assert draw(adata) is not None
    finally:
        settings.autoshow, settings.autosave = True, False
    assert (tmp_path / "figures" / files[0]).stat().st_size


def test_without_a_screen_nothing_is_warned(adata: AnnData) -> None:
    assert CALLS["confusion"](adata, show=True) is None  # warnings are errors here


@pytest.mark.parametrize("name", ["perturbation", "confusion", "calibration"])
def test_axes_of_the_user(name: str, make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    adata = make.cells()
    adata.uns["sfa_perturbation"] = make.perturbation(["all"])
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown"))
    figure, (left, right) = plt.subplots(1, 2)
    assert CALLS[name](adata, ax=right) is right
    assert not left.has_data()
    assert right.has_data()
    assert plt.fignum_exists(figure.number)
    with pytest.raises(TypeError, match="ax= takes the axes"):
        CALLS[name](adata, ax=figure)


@pytest.mark.parametrize("name", CALLS)
def test_size(name: str, mdata: md.MuData) -> None:
    drawn = all_axes(CALLS[name](mdata, figsize=(7, 5), show=False))
    assert tuple(drawn[0].figure.get_size_inches()) == (7, 5)
    with pytest.raises(ValueError, match="two numbers above 0"):
        CALLS[name](mdata, figsize=(0, 5), show=False)


@pytest.mark.parametrize("name", sfa.pl.__all__)
def test_shape_of_functions(name: str) -> None:
    parameters = inspect.signature(getattr(sfa.pl, name)).parameters
    assert {"show", "save", "figsize"} <= set(parameters)
    assert parameters["show"].default is None
    options = [
        p for p in parameters.values() if p.name in ("show", "save", "figsize", "ax", "title", "modality", "key")
    ]
    assert all(p.kind is p.KEYWORD_ONLY for p in options)


@pytest.mark.parametrize("name", [*CALLS])
def test_no_cells_object(name: str) -> None:
    with pytest.raises(TypeError, match="must be an AnnData"):
        CALLS[name](pd.DataFrame(), show=False)


# ---------------------------------------------------------------- links


def test_links_show_what_the_table_says(adata: AnnData) -> None:
    axes = sfa.pl.links(adata, "MS4A1", groups=["monocyte", "T cell"], min_value=0.3, show=False)
    assert list(axes) == ["links monocyte", "accessibility monocyte", "links T cell", "accessibility T cell", "genes"]
    table = adata.uns["sfa_links"]
    own = table[(table["gene"] == "MS4A1") & (table["group"] == "T cell")]
    (arcs,) = [x for x in axes["links T cell"].collections if isinstance(x, LineCollection)]
    heights = sorted(max(path.vertices[:, 1]) for path in arcs.get_paths())
    expected = own[(own["probability"] >= 0.3) & (own["distance"] != 50)]["probability"]  # one OCR holds the TSS
    np.testing.assert_allclose(heights, sorted(expected))
    bars = sorted(bar.get_height() for bar in axes["accessibility T cell"].patches)
    np.testing.assert_allclose(bars, sorted(own["accessibility"]))
    assert axes["links T cell"].get_ylim() == axes["links monocyte"].get_ylim()


def test_links_by_ensembl_id_and_in_colours_of_scanpy(adata: AnnData) -> None:
    adata.uns["cell_type_colors"] = ["#111111", "#222222", "#333333"]
    gene_id = adata.uns["sfa_links"].query("gene == 'CD79A'")["gene_id"].iloc[0]
    axes = sfa.pl.links(adata, gene_id, show=False)
    assert to_hex(axes["accessibility T cell"].patches[0].get_facecolor()) == "#222222"
    adata.uns["cell_type_colors"] = ["#111111", "no colour", "#333333"]
    axes = sfa.pl.links(adata, gene_id, show=False)
    assert to_hex(axes["accessibility T cell"].patches[0].get_facecolor()) == "#d55e00"


def test_links_without_groups_and_without_probability(adata: AnnData, make: SimpleNamespace) -> None:
    table = make.links(["all"])
    adata.uns["sfa_links"] = table.assign(probability=np.nan, score=table["score"] - 0.1)
    adata.uns["sfa_links_params"] = {"groupby": "none"}
    axes = sfa.pl.links(adata, "MS4A1", show=False)
    assert list(axes) == ["links all", "accessibility all", "genes"]
    assert any("arcs: score" in text.get_text() for text in axes["genes"].figure.texts)
    low, high = axes["links all"].get_ylim()
    assert low == -high  # negative links hang below the line
    del adata.uns["sfa_links_params"]
    assert sfa.pl.links(adata, "MS4A1", show=False)


def test_links_on_a_scale_below_zero(adata: AnnData) -> None:
    """Minus the logarithm of the distance: the nearest OCR has the highest arc."""
    table = adata.uns["sfa_links"]
    adata.uns["sfa_links"] = table.assign(probability=np.nan, score=-np.log10(table["distance"].abs()))
    ax = sfa.pl.links(adata, "MS4A1", groups="T cell", show=False)["links T cell"]
    (arcs,) = [x for x in ax.collections if isinstance(x, LineCollection)]
    reach = [np.ptp(path.vertices[:, 0]) for path in arcs.get_paths()]
    heights = [path.vertices[:, 1].max() for path in arcs.get_paths()]
    assert np.argmin(reach) == np.argmax(heights)
    assert min(heights) > 0
    assert ax.get_ylim()[0] == 0


def test_links_with_odd_values(adata: AnnData) -> None:
    table = adata.uns["sfa_links"]
    for change in (
        {"probability": 0.5},
        {"probability": 0.0},
        {"accessibility": 0.0},
        {"accessibility": np.nan},
        {"probability": table["probability"].where(table.index % 2 == 0)},
    ):
        adata.uns["sfa_links"] = table.assign(**change)
        assert sfa.pl.links(adata, "MS4A1", show=False)
    adata.uns["sfa_links"] = table.iloc[:1]
    assert sfa.pl.links(adata, "MS4A1", show=False)
    adata.uns["sfa_links"] = table
    axes = sfa.pl.links(adata, "MS4A1", min_value=2, show=False)
    assert "no links" in [text.get_text() for text in axes["links T cell"].texts]
    empty = sfa.datasets.genes().query("name == 'MS4A1'")
    assert sfa.pl.links(adata, "MS4A1", genes=empty, show=False)


def test_faults_of_links(adata: AnnData) -> None:
    table = adata.uns["sfa_links"]
    with pytest.raises(KeyError, match=r"adata.uns\['sfa_links'\] has no link to 'NOGENE'.*'CD79A', 'MS4A1'"):
        sfa.pl.links(adata, "NOGENE")
    with pytest.raises(TypeError, match="gene= takes"):
        sfa.pl.links(adata, ["MS4A1"])
    with pytest.raises(KeyError, match="no group 'B' in .*'naive B'"):
        sfa.pl.links(adata, "MS4A1", groups="B")
    with pytest.raises(ValueError, match="groups= is empty"):
        sfa.pl.links(adata, "MS4A1", groups=[])
    with pytest.raises(KeyError, match="value='q' is no column"):
        sfa.pl.links(adata, "MS4A1", value="q")
    with pytest.raises(KeyError, match="value='gene' is no column"):
        sfa.pl.links(adata, "MS4A1", value="gene")
    with pytest.raises(ValueError, match="window=0 must be"):
        sfa.pl.links(adata, "MS4A1", window=0)
    with pytest.raises(KeyError, match="no table 'other': run sfa.tl.link_enhancers"):
        sfa.pl.links(adata, "MS4A1", key="other")
    others = sfa.datasets.genes().query("name == 'CD22'")
    with pytest.raises(KeyError, match="table of genes has no 'MS4A1'"):
        sfa.pl.links(adata, "MS4A1", genes=others)
    adata.uns["sfa_links"] = table.assign(probability=np.nan, score=np.nan)
    with pytest.raises(ValueError, match="No link to MS4A1 has a score"):
        sfa.pl.links(adata, "MS4A1")
    adata.uns["sfa_links"] = table.iloc[:0]
    with pytest.raises(ValueError, match="no rows"):
        sfa.pl.links(adata, "MS4A1")
    adata.uns["sfa_links"] = table.drop(columns="score")
    with pytest.raises(ValueError, match="lacks the column.*score"):
        sfa.pl.links(adata, "MS4A1")
    adata.uns["sfa_links"] = {"gene": "MS4A1"}
    with pytest.raises(TypeError, match="is a dict"):
        sfa.pl.links(adata, "MS4A1")
    del adata.uns["sfa_links"]
    with pytest.raises(KeyError, match="run sfa.tl.link_enhancers"):
        sfa.pl.links(adata, "MS4A1")


# ---------------------------------------------------------------- perturbation


def test_perturbation_draws_the_strongest_on_top(adata: AnnData) -> None:
    table = adata.uns["sfa_perturbation"]
    ax = sfa.pl.perturbation(adata, "MS4A1", groups="T cell", n_top=5, show=False)
    own = table[(table["gene"] == "MS4A1") & (table["group"] == "T cell")]
    expected = own.reindex(own["change"].abs().sort_values(ascending=False).index).head(5)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], 100 * expected["relative_change"])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert [label.split()[0] for label in labels] == list(expected["ocr"])
    assert any("kb)" in label for label in labels)
    assert ax.get_title(loc="left") == "MS4A1 in T cell"


def test_perturbation_of_sets_and_of_unknown_genes(adata: AnnData, make: SimpleNamespace) -> None:
    table = make.perturbation(["all"]).astype({"ocr": str, "gene": str})
    adata.uns["sfa_perturbation"] = table.assign(ocr=np.where(table["ocr"].str.contains("chr11"), "near", "far"))
    assert sfa.pl.perturbation(adata, "MS4A1", show=False)
    assert sfa.pl.perturbation(adata, show=False)
    with pytest.raises(ValueError, match="has a place on chr11"):
        sfa.pl.perturbation(adata, "MS4A1", kind="genome")
    adata.uns["sfa_perturbation"] = table.assign(gene="NOGENE")
    assert sfa.pl.perturbation(adata, "NOGENE", show=False)
    with pytest.raises(KeyError, match="table of genes has no 'NOGENE'"):
        sfa.pl.perturbation(adata, kind="genome")


def test_perturbation_with_odd_values(adata: AnnData, make: SimpleNamespace) -> None:
    table = make.perturbation(["all"])
    for change in ({"relative_change": 0.0}, {"relative_change": table["relative_change"].where(table.index % 2 == 0)}):
        adata.uns["sfa_perturbation"] = table.assign(**change)
        for kind in ("bars", "genome", "heatmap"):
            assert sfa.pl.perturbation(adata, "MS4A1", kind=kind, show=False)
    adata.uns["sfa_perturbation"] = table.iloc[:1]
    for kind in ("bars", "genome", "heatmap"):
        assert sfa.pl.perturbation(adata, kind=kind, show=False)
    adata.var_names = [f"peak{i}" for i in range(adata.n_vars)]  # names without coordinates, which are in var
    adata.uns["sfa_perturbation"] = table.iloc[:7].assign(ocr=list(adata.var_names[:7]))
    assert sfa.pl.perturbation(adata, kind="genome", show=False)


def test_faults_of_perturbation(adata: AnnData) -> None:
    for argument, value, match in (
        ("genes", "NOGENE", "no gene 'NOGENE'"),
        ("groups", ["B"], "no group 'B'"),
        ("ocrs", "chr1:1-2", "no OCR 'chr1:1-2'"),
        ("key", "other", "run sfa.tl.perturb_ocrs"),
    ):
        with pytest.raises(KeyError, match=match):
            sfa.pl.perturbation(adata, **{argument: value})
    with pytest.raises(TypeError, match="genes= takes"):
        sfa.pl.perturbation(adata, 3)
    with pytest.raises(ValueError, match="kind='pie' is not known"):
        sfa.pl.perturbation(adata, kind="pie")
    with pytest.raises(ValueError, match="value='score' is not known"):
        sfa.pl.perturbation(adata, value="score")
    with pytest.raises(ValueError, match="n_top=0"):
        sfa.pl.perturbation(adata, n_top=0)
    with pytest.raises(ValueError, match="one gene in one group. Pass genes="):
        sfa.pl.perturbation(adata, kind="bars")
    with pytest.raises(ValueError, match="one gene in one group. Pass groups="):
        sfa.pl.perturbation(adata, "MS4A1", kind="genome")
    with pytest.raises(ValueError, match="leave out ax="):
        sfa.pl.perturbation(adata, ax=plt.figure().subplots())
    adata.uns["sfa_perturbation"] = adata.uns["sfa_perturbation"].assign(relative_change=np.nan)
    with pytest.raises(ValueError, match="no finite relative_change.*value='change'"):
        sfa.pl.perturbation(adata)
    assert sfa.pl.perturbation(adata, value="change", show=False)


# ---------------------------------------------------------------- confusion and calibration


def test_confusion_is_the_table(adata: AnnData) -> None:
    adata.obs["other"] = (
        adata.obs["cell_type"].astype(object).map({"T cell": "lymphocyte", "naive B": "B", "monocyte": None})
    )
    ax = sfa.pl.confusion(adata, "cell_type", "other", show=False)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["B", "lymphocyte", "unknown"]
    np.testing.assert_array_equal(ax.images[0].get_array(), 100 * np.eye(3))
    assert ax.get_title() == ""
    ax = sfa.pl.confusion(adata, "cell_type", "cell_type", normalize=False, numbers=False, show=False)
    np.testing.assert_array_equal(ax.images[0].get_array(), 80 * np.eye(3))
    assert list(ax.texts) == []
    assert ax.get_title() == "100 % of 240 cells as labelled"


@pytest.mark.parametrize("n", [1, 30])
def test_confusion_of_few_cells_and_one_label(adata: AnnData, n: int) -> None:
    few = adata[adata.obs["cell_type"] == "T cell"][:n].copy()
    ax = sfa.pl.confusion(few, "cell_type", "cell_type_best", show=False)
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"T cell ({n})"]


def test_faults_of_confusion(adata: AnnData) -> None:
    with pytest.raises(KeyError, match="no column 'depth_pred'"):
        sfa.pl.confusion(adata, "depth")
    with pytest.raises(KeyError, match="no column 'nothing'"):
        sfa.pl.confusion(adata, "nothing")
    adata.obs["none"] = pd.Series([None] * adata.n_obs, index=adata.obs_names, dtype=object)
    with pytest.raises(ValueError, match=r"None of the 240 cells has a label in adata.obs\['none'\]"):
        sfa.pl.confusion(adata, "none", "cell_type")
    with pytest.raises(ValueError, match="None of the 0 cells"):
        sfa.pl.confusion(adata[:0].copy(), "cell_type")


def test_calibration_says_the_error(adata: AnnData) -> None:
    ax = sfa.pl.calibration(adata, "cell_type", n_bins=10, title="Mine", show=False)
    sure, right = (
        adata.obs["cell_type_confidence"],
        adata.obs["cell_type"].astype(str) == adata.obs["cell_type_best"].astype(str),
    )
    expected = sfa.bench.expected_calibration_error(sure, right, 10)
    assert ax.texts[0].get_text() == f"ECE {expected:.3f}\naccuracy {right.mean():.3f}\n240 cells"
    assert sum(bar.get_height() for bar in ax.child_axes[0].patches) == 240
    adata.uns["cell_type_annotation"] = {
        "term_ids": np.array(["CL:1"])
    }  # named without a reference: confidence of the name
    ax = sfa.pl.calibration(adata, "cell_type", show=False)
    n_named = int((adata.obs["cell_type_pred"] != "unknown").sum())
    assert ax.texts[0].get_text().endswith(f"{n_named} cells")


def test_calibration_of_constant_values_and_one_cell(adata: AnnData) -> None:
    adata.obs["cell_type_confidence"] = 1.0
    assert sfa.pl.calibration(adata, "cell_type", show=False)
    assert sfa.pl.calibration(adata[:1].copy(), "cell_type", "cell_type", "cell_type_confidence", show=False)
    adata.obs["cell_type_confidence"] = np.where(np.arange(adata.n_obs) < 3, 0.5, np.nan)
    assert sfa.pl.calibration(adata, "cell_type", show=False).texts[0].get_text().endswith("3 cells")


def test_faults_of_calibration(adata: AnnData) -> None:
    with pytest.raises(KeyError, match="no column 'nothing'"):
        sfa.pl.calibration(adata, "cell_type", confidence_key="nothing")
    with pytest.raises(ValueError, match=r"obs\['cell_type'\] holds no numbers"):
        sfa.pl.calibration(adata, "cell_type", confidence_key="cell_type")
    with pytest.raises(ValueError, match="n_bins=0"):
        sfa.pl.calibration(adata, "cell_type", n_bins=0)
    adata.obs["term"] = adata.obs["cell_type"].astype(str) + "s"
    with pytest.raises(ValueError, match="none could be right"):
        sfa.pl.calibration(adata, "cell_type", "term", "cell_type_confidence")
    adata.obs["cell_type_confidence"] *= 3
    with pytest.raises(ValueError, match="not in \\[0, 1\\]"):
        sfa.pl.calibration(adata, "cell_type")
    adata.obs["cell_type_confidence"] = np.nan
    with pytest.raises(ValueError, match="No cell of adata has a label"):
        sfa.pl.calibration(adata, "cell_type")


# ---------------------------------------------------------------- expression


def test_rna_prediction_of_an_anndata(mdata: md.MuData) -> None:
    adata, predicted = mdata["atac"].copy(), mdata["rna_predicted"]
    adata.obsm["rna_predicted"] = predicted.to_df()
    adata.uns["rna_predicted"] = predicted.uns["rna_predicted"] | {"genes": predicted.var}
    assert list(sfa.pl.rna_prediction(adata, show=False)) == ["genes"]
    with pytest.raises(ValueError, match="AnnData has no measured expression"):
        sfa.pl.rna_prediction(adata, "MS4A1")


def test_rna_prediction_with_many_pairs_and_constant_genes(mdata: md.MuData, monkeypatch: pytest.MonkeyPatch) -> None:
    from scfound_atac.pl import _rna_prediction

    monkeypatch.setattr(_rna_prediction, "_MAX_DOTS", 100)
    axes = sfa.pl.rna_prediction(mdata, show=False)
    assert any(type(x).__name__ == "PolyCollection" for x in axes["cells"].collections)
    mdata["rna"].X[:, 0] = 1.0
    mdata["rna_predicted"].var["pearson"] = np.nan
    axes = sfa.pl.rna_prediction(mdata, "MS4A1", show=False)
    assert "not defined" in axes["cells"].get_title(loc="right")
    assert [text.get_text() for text in axes["genes"].texts] == ["no gene has one"]
    some = mdata["rna"][:50].copy()  # cells without expression are left out
    part = md.MuData({"atac": mdata["atac"], "rna": some, "rna_predicted": mdata["rna_predicted"]})
    axes = sfa.pl.rna_prediction(part, "CD79A", color="cell_type", show=False)
    (dots,) = [x for x in axes["cells"].collections if isinstance(x, PathCollection)]
    assert len(dots.get_offsets()) == 50


def test_faults_of_rna_prediction(mdata: md.MuData) -> None:
    with pytest.raises(KeyError, match="'NOGENE' was not predicted"):
        sfa.pl.rna_prediction(mdata, "NOGENE")
    with pytest.raises(ValueError, match="color= colours the cells of one gene"):
        sfa.pl.rna_prediction(mdata, color="cell_type")
    with pytest.raises(KeyError, match="no column 'nothing'"):
        sfa.pl.rna_prediction(mdata, "MS4A1", color="nothing")
    for key in ("other", "rna"):
        with pytest.raises(KeyError, match=f"no predicted expression '{key}'. Run sfa.tl.predict_rna"):
            sfa.pl.rna_prediction(mdata, key=key)
    with pytest.raises(KeyError, match="no modality 'gex'"):
        sfa.pl.rna_prediction(mdata, rna_modality="gex")
    with pytest.raises(KeyError, match="no predicted expression"):
        sfa.pl.rna_prediction(mdata["atac"])


# ---------------------------------------------------------------- training


def test_training_takes_what_has_a_history(make: SimpleNamespace, tmp_path: Path) -> None:
    history = make.history()
    epochs = [{"epoch": i + 1, "loss": 1 / (i + 1), "validation_macro_f1": i / 9} for i in range(9)]
    scvi = {
        name: pd.DataFrame({name: np.arange(3.0)}, index=pd.Index(range(3), name="epoch"))
        for name in ("train_loss_epoch", "train_loss_step", "validation_loss", "kl_weight")
    }
    history.to_csv(tmp_path / LOG, index=False)
    for run, titles, steps in (
        (history, ["loss", "masked", "learning rate"], "step"),
        (tmp_path, ["loss", "masked", "learning rate"], "step"),
        (str(tmp_path / LOG), ["loss", "masked", "learning rate"], "step"),
        (SimpleNamespace(history=history), ["loss", "masked", "learning rate"], "step"),
        (SimpleNamespace(report={"history": epochs}), ["loss", "macro f1"], "epoch"),
        ({"history": epochs, "accuracy": 0.9}, ["loss", "macro f1"], "epoch"),
        (epochs, ["loss", "macro f1"], "epoch"),
        (scvi, ["loss", "KL weight"], "epoch"),
        (SimpleNamespace(history=scvi), ["loss", "KL weight"], "epoch"),
        ({"loss": [3, 2, 1], "epoch": [1, 2, 3]}, ["loss"], "epoch"),
        ({"loss": [3, 2, 1]}, ["loss"], "epoch"),
        ({"loss": [3.0]}, ["loss"], "epoch"),
    ):
        axes = all_axes(sfa.pl.training(run, show=False))
        assert [ax.get_title(loc="left") for ax in axes] == titles
        assert {ax.get_xlabel() for ax in axes} == {steps}
        plt.close("all")
    axes = sfa.pl.training(epochs, show=False)
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["validation", "best: 0.889"]
    ax = sfa.pl.training(history, keys=["tokens"], title="Tokens", show=False)
    assert isinstance(ax, Axes)


def test_faults_of_training(make: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="run= takes a trained model"):
        sfa.pl.training(3)
    with pytest.raises(FileNotFoundError, match="has no log.csv"):
        sfa.pl.training(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        sfa.pl.training(tmp_path / "nothing")
    for empty in (SimpleNamespace(history=None), SimpleNamespace(report={}), SimpleNamespace(report={"history": []})):
        with pytest.raises(ValueError, match="SimpleNamespace has no history: it is not trained yet"):
            sfa.pl.training(empty)
    for empty in ([], {}):
        with pytest.raises(ValueError, match="The history is empty"):
            sfa.pl.training(empty)
    with pytest.raises(ValueError, match="no rows"):
        sfa.pl.training(make.history().iloc[:0])
    with pytest.raises(KeyError, match="no value 'nothing' in the history"):
        sfa.pl.training(make.history(), keys="nothing")
    with pytest.raises(ValueError, match="no finite values of 'loss'"):
        sfa.pl.training({"loss": [np.nan, np.nan]})


# ---------------------------------------------------------------- benchmark


def test_benchmark_means_repeated_rows(make: SimpleNamespace) -> None:
    table = make.scores()
    before = table.copy()
    again = pd.concat([table, table.assign(knn=table["knn"] + 0.2)])
    ax = sfa.pl.benchmark(again[again["fraction"] == 1], scores="knn", show=False)
    one = table[table["fraction"] == 1]
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array())[:, 0], one["knn"] + 0.1)
    assert "±0.100" in [text.get_text() for text in ax.texts]
    pd.testing.assert_frame_equal(table, before)


def test_benchmark_with_odd_tables(make: SimpleNamespace) -> None:
    table = make.scores()
    for odd in (
        table.iloc[:1],
        table.assign(knn=0.5, kmeans_nmi=0.5, kmeans_ari=0.5),
        table.drop(columns=[name for name in table if name.endswith("_sd")]),
        table.assign(knn=np.nan),
        table.assign(data="pbmc").drop(index=[0]),  # a method that was not run everywhere
    ):
        for kind in ("heatmap", "dots"):
            assert sfa.pl.benchmark(odd, kind=kind, title="A title", show=False)
            plt.close("all")


def test_faults_of_benchmark(make: SimpleNamespace) -> None:
    table = make.scores()
    with pytest.raises(TypeError, match="table= takes"):
        sfa.pl.benchmark({"method": ["lsi"]})
    with pytest.raises(KeyError, match="no column.*method"):
        sfa.pl.benchmark(table.drop(columns="method"))
    with pytest.raises(KeyError, match="no score 'nmi'"):
        sfa.pl.benchmark(table, scores="nmi")
    with pytest.raises(KeyError, match="none of the scores"):
        sfa.pl.benchmark(table[["method", "fraction", "smooth"]])
    with pytest.raises(ValueError, match="no rows"):
        sfa.pl.benchmark(table.iloc[:0])
    with pytest.raises(ValueError, match="no finite values of knn"):
        sfa.pl.benchmark(table.assign(knn=np.nan), scores="knn")
    with pytest.raises(ValueError, match="kind='bars' is not known"):
        sfa.pl.benchmark(table, kind="bars")


# ---------------------------------------------------------------- embeddings


def dots(ax: Axes) -> PathCollection:
    return next(x for x in ax.collections if isinstance(x, PathCollection))


def test_embeddings_are_coloured_alike(adata: AnnData) -> None:
    adata.uns["cell_type_colors"] = ["#111111", "#222222", "#333333"]
    axes = sfa.pl.embedding_comparison(adata, ["X_umap", "X_tsne"], "cell_type", titles=["A", "B"], show=False)
    assert [ax.get_title() for ax in axes] == ["A", "B"]
    np.testing.assert_array_equal(dots(axes[0]).get_facecolor(), dots(axes[1]).get_facecolor())
    where = {tuple(point): i for i, point in enumerate(adata.obsm["X_umap"])}
    rows = [where[tuple(point)] for point in dots(axes[0]).get_offsets().data]
    colors = [to_hex(color) for color in dots(axes[0]).get_facecolor()]
    assert colors == [
        f"#{c}{c}" for c in np.array(["111", "222", "333"])[adata.obs["cell_type"].cat.codes.to_numpy()[rows]]
    ]


def test_embedding_of_cells_without_a_value(adata: AnnData) -> None:
    adata.obs["depth"] = adata.obs["depth"].where(adata.obs["depth"] > 0.5)
    adata.obs["some"] = adata.obs["cell_type"].where(adata.obs["cell_type"] != "T cell")
    adata.obs["flag"] = adata.obs["depth"] > 0.7
    adata.obs["none"] = np.nan
    for color in ("depth", "some", "flag", "none"):
        ax = sfa.pl.embedding_comparison(adata, "X_umap", color, show=False)
        assert sum(len(x.get_offsets()) for x in ax.collections) == adata.n_obs
    assert sfa.pl.embedding_comparison(adata[:1].copy(), "X_umap", "cell_type", show=False)
    assert sfa.pl.embedding_comparison(adata, "X_umap", "depth", n_columns=1, point_size=4, show=False)


def test_embedding_of_the_mudata_itself(mdata: md.MuData) -> None:
    mdata.obsm["X_joint"] = mdata["atac"].obsm["X_umap"] * 2
    mdata.obs["batch"] = "a"
    ax = sfa.pl.embedding_comparison(mdata, "X_joint", "batch", show=False)
    assert len(dots(ax).get_offsets()) == mdata.n_obs


def stand_in_umap(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """UMAP takes seconds to be compiled: two components instead of it, and the arguments with which it is called."""
    import scanpy as sc

    called: list[tuple[int, int]] = []

    def umap(cells: AnnData, random_state: int) -> None:
        called[-1] = (called[-1][0], random_state)
        cells.obsm["X_umap"] = cells.obsm["points"][:, :2]

    monkeypatch.setattr(sc.pp, "neighbors", lambda cells, n_neighbors, **k: called.append((n_neighbors, -1)))
    monkeypatch.setattr(sc.tl, "umap", umap)
    return called


def test_wide_embeddings_become_umaps(adata: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    called = stand_in_umap(monkeypatch)
    before = adata.copy()
    axes = sfa.pl.embedding_comparison(adata, ["X_sfa", "X_umap"], "cell_type", n_neighbors=7, seed=3, show=False)
    assert called == [(7, 3)]
    assert [ax.get_xlabel() for ax in axes] == ["UMAP 1", "UMAP 1"]
    assert_equal(adata, before, exact=True)
    sfa.pl.embedding_comparison(adata[:6].copy(), "X_sfa", "cell_type", show=False)
    assert called[-1] == (5, 0)


@pytest.mark.slow  # UMAP is compiled
def test_umap_is_that_of_the_seed(adata: AnnData) -> None:
    before = adata.copy()
    first, again, other = (
        dots(sfa.pl.embedding_comparison(adata, "X_sfa", "depth", seed=seed, show=False)).get_offsets().data
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(again, axis=0))
    assert not np.allclose(np.sort(first, axis=0), np.sort(other, axis=0))
    assert_equal(adata, before, exact=True)
    assert sfa.pl.embedding_comparison(adata[:5].copy(), "X_sfa", "depth", show=False)


def test_faults_of_embeddings(adata: AnnData) -> None:
    with pytest.raises(KeyError, match=r"no embedding 'X_pca' in adata.obsm. It has 'X_sfa'"):
        sfa.pl.embedding_comparison(adata, ["X_umap", "X_pca"], "cell_type")
    with pytest.raises(KeyError, match="no column 'nothing'"):
        sfa.pl.embedding_comparison(adata, "X_umap", "nothing")
    with pytest.raises(ValueError, match="titles= takes a title for each of the 1"):
        sfa.pl.embedding_comparison(adata, "X_umap", "cell_type", titles=["a", "b"])
    with pytest.raises(ValueError, match="n_columns=0"):
        sfa.pl.embedding_comparison(adata, "X_umap", "cell_type", n_columns=0)
    with pytest.raises(ValueError, match="no cells"):
        sfa.pl.embedding_comparison(adata[:0].copy(), "X_umap", "cell_type")
    with pytest.raises(ValueError, match="2 cell.*too few for a UMAP"):
        sfa.pl.embedding_comparison(adata[:2].copy(), "X_sfa", "cell_type")
    adata.obsm["one"] = np.zeros((adata.n_obs, 1))
    with pytest.raises(ValueError, match="at least two components"):
        sfa.pl.embedding_comparison(adata, "one", "cell_type")
    adata.obsm["names"] = pd.DataFrame({"a": "x", "b": "y"}, index=adata.obs_names)
    with pytest.raises(ValueError, match="holds no numbers"):
        sfa.pl.embedding_comparison(adata, "names", "cell_type")
    adata.obsm["X_umap"][3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite in 1 of 240 cells .first: 'cell3'"):
        sfa.pl.embedding_comparison(adata, "X_umap", "cell_type")


def test_predicted_genes_with_a_suffix(mdata: md.MuData) -> None:
    """As `sfa.tl.predict_rna` names them with `gene_suffix`."""
    expected = sfa.pl.rna_prediction(mdata, "MS4A1", show=False)
    predicted = mdata["rna_predicted"].copy()
    predicted.var["gene"] = predicted.var_names.to_numpy(dtype=object)
    predicted.var_names = predicted.var_names + "_predicted"
    renamed = md.MuData({"atac": mdata["atac"], "rna": mdata["rna"], "rna_predicted": predicted})
    found = sfa.pl.rna_prediction(renamed, "MS4A1", show=False)
    assert list(found) == list(expected)
    for name, ax in expected.items():
        assert found[name].get_title(loc="right") == ax.get_title(loc="right")
