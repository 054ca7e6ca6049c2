"""Every picture beside the one that was looked at, without its text; and the text by itself: nothing cut off, nothing on top of another.

New pictures are written by ``SFA_WRITE_PICTURES=1 pytest tests/pl/test_pictures.py``. Look at them before they are committed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import scfound_atac as sfa

BASELINE = Path(__file__).with_name("baseline")
DPI = 40
# Root of the mean squared difference, of 255. The same plot of other random data differs by at least 11 (`test_other_data_is_seen`); with
# the pinned versions of either Python the difference is 0. Half of 11 leaves room for another rounding of some lines.
TOLERANCE = 5.5
TYPES = ["naive B", "T cell", "monocyte"]


def single_group(make: Any, seed: int) -> Any:
    adata = make.cells(seed)
    adata.uns["sfa_perturbation"] = make.perturbation(["all"], seed)
    return adata


def many_groups(make: Any, seed: int) -> Any:
    adata = make.cells(seed)
    rng = np.random.default_rng(seed)
    adata.obs["cluster"] = [f"cluster number {i}" for i in rng.integers(0, 22, adata.n_obs)]
    return adata


PICTURES: dict[str, Callable[[Any, int], Any]] = {
    "links": lambda m, s: sfa.pl.links(m.cells(s), "MS4A1", show=False),
    "links_one_group": lambda m, s: sfa.pl.links(
        m.cells(s), "CD79A", groups="T cell", value="abc", window=40_000, show=False
    ),
    "perturbation_bars": lambda m, s: sfa.pl.perturbation(single_group(m, s), "MS4A1", show=False),
    "perturbation_genome": lambda m, s: sfa.pl.perturbation(single_group(m, s), "MS4A1", kind="genome", show=False),
    "perturbation_heatmap": lambda m, s: sfa.pl.perturbation(m.cells(s), show=False),
    "perturbation_one_gene": lambda m, s: sfa.pl.perturbation(m.cells(s), "MS4A1", value="change", show=False),
    "confusion": lambda m, s: sfa.pl.confusion(m.cells(s), "cell_type", show=False),
    "confusion_counts": lambda m, s: sfa.pl.confusion(m.cells(s), "cell_type", normalize=False, show=False),
    "calibration": lambda m, s: sfa.pl.calibration(m.cells(s), "cell_type", show=False),
    "rna_prediction_gene": lambda m, s: sfa.pl.rna_prediction(m.mudata(s), "MS4A1", color="cell_type", show=False),
    "rna_prediction": lambda m, s: sfa.pl.rna_prediction(m.mudata(s), show=False),
    "training": lambda m, s: sfa.pl.training(m.history(s), show=False),
    "benchmark": lambda m, s: sfa.pl.benchmark(m.scores(s), show=False),
    "benchmark_dots": lambda m, s: sfa.pl.benchmark(m.scores(s), kind="dots", show=False),
    "embedding_comparison": lambda m, s: sfa.pl.embedding_comparison(
        m.cells(s), ["X_umap", "X_tsne"], "cell_type", show=False
    ),
    "embedding_comparison_numbers": lambda m, s: sfa.pl.embedding_comparison(m.cells(s), "X_umap", "depth", show=False),
    "embedding_comparison_many": lambda m, s: sfa.pl.embedding_comparison(
        many_groups(m, s), "X_umap", "cluster", show=False
    ),
}


def figure_of(drawn: Any) -> Figure:
    ax = next(iter(drawn.values())) if isinstance(drawn, dict) else drawn[0] if isinstance(drawn, list) else drawn
    assert isinstance(ax, Axes)
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure


class Seen(NamedTuple):
    """A picture without its text, and its text: what is written, where, and whether it is upright."""

    path: Path
    size: tuple[float, float]
    written: list[tuple[str, tuple[float, float, float, float], bool]]


def see(drawn: Any, path: Path) -> Seen:
    figure = figure_of(drawn)
    figure.canvas.draw()  # makes the labels of ticks, and places everything
    every = figure.findobj(Text)
    beyond = {
        id(text)
        for ax in figure.findobj(Axes)
        for axis in (ax.xaxis, ax.yaxis)
        for tick in axis.get_major_ticks()
        for text in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    seen = [text for text in every if text.get_visible() and text.get_text().strip() and id(text) not in beyond]
    seen = [text for text in seen if not isinstance(text.axes, Axes) or text.axes.get_visible()]
    boxes = [text.get_window_extent() for text in seen]
    written = [
        (text.get_text(), (box.x0, box.x1, box.y0, box.y1), text.get_rotation() % 90 == 0)
        for text, box in zip(seen, boxes, strict=True)
        if box.width and box.height
    ]
    size = (float(figure.bbox.x1), float(figure.bbox.y1))
    for text in every:
        text.set_visible(False)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return Seen(path, size, written)


_SEEN: dict[str, Seen] = {}


@pytest.fixture
def seen(request: pytest.FixtureRequest, make: Any, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The picture of that name, which is drawn once."""
    name = request.param
    if name not in _SEEN:
        _SEEN[name] = see(PICTURES[name](make, 0), tmp_path_factory.mktemp(name) / f"{name}.png")
    return _SEEN[name]


@pytest.mark.parametrize("seen", PICTURES, indirect=True)
def test_picture_is_the_one_that_was_looked_at(seen: Seen) -> None:
    baseline = BASELINE / seen.path.name
    if os.environ.get("SFA_WRITE_PICTURES"):
        BASELINE.mkdir(exist_ok=True)
        shutil.copy(seen.path, baseline)
    assert compare_images(str(baseline), str(seen.path), tol=TOLERANCE) is None


@pytest.mark.parametrize("name", PICTURES)
def test_other_data_is_seen(name: str, make: Any, tmp_path: Path) -> None:
    other = see(PICTURES[name](make, 1), tmp_path / f"{name}.png")
    assert compare_images(str(BASELINE / f"{name}.png"), str(other.path), tol=TOLERANCE) is not None


def test_pictures_are_small_and_all_used() -> None:
    files = list(BASELINE.iterdir())
    assert {file.stem for file in files} == set(PICTURES)
    assert sum(file.stat().st_size for file in files) < 300_000


@pytest.mark.parametrize("seen", PICTURES, indirect=True)
def test_text_is_whole_and_does_not_overlap(seen: Seen) -> None:
    slack = 1.5  # pixels: extents include the space around letters
    width, height = seen.size
    upright = [(text, box) for text, box, is_upright in seen.written if is_upright]
    cut = [
        text
        for text, (x0, x1, y0, y1) in upright
        if x0 < -slack or y0 < -slack or x1 > width + slack or y1 > height + slack
    ]
    assert cut == []
    overlapping = [
        (a, b)
        for i, (a, p) in enumerate(upright)
        for b, q in upright[i + 1 :]
        if min(p[1], q[1]) - max(p[0], q[0]) > 2 * slack and min(p[3], q[3]) - max(p[2], q[2]) > 2 * slack
    ]
    assert overlapping == []


LABELS = {
    "links": {"Links to MS4A1", "arcs: probability, bars: accessibility", "MS4A1", *TYPES, "Position on chr11 (Mb)"},
    "links_one_group": {
        "Links to CD79A",
        "arcs: abc, bars: accessibility",
        "CD79A",
        "ARHGEF1",
        "Position on chr19 (Mb)",
    },
    "perturbation_bars": {"MS4A1", "Change of predicted expression (%)"},
    "perturbation_genome": {"MS4A1", "Change of\npredicted expression (%)", "Position on chr11 (Mb)"},
    "perturbation_heatmap": {"MS4A1", "CD79A", *TYPES, "Change of predicted\nexpression (%)"},
    "perturbation_one_gene": {"MS4A1", *TYPES, "Change of predicted\nexpression"},
    "confusion": {
        "naive B (80)",
        "unknown",
        "Predicted (cell_type_pred)",
        "Label (cell_type)",
        "Cells of the label (%)",
    },
    "confusion_counts": {"monocyte (80)", "Cells"},
    "calibration": {"Confidence", "Fraction of cells that are right", "Cells"},
    "rna_prediction_gene": {"MS4A1", "Measured expression", "Predicted expression", "MS4A1 0.80", *TYPES},
    "rna_prediction": {"20 genes", "19 genes, 1 without", "Correlation of a gene on held-out cells"},
    "training": {"loss", "masked", "learning rate", "training", "validation", "step"},
    "benchmark": {"lsi", "spectral", "default", "KMeans NMI", "kNN accuracy", "20 % of the counts", "Score"},
    "benchmark_dots": {"lsi", "KMeans NMI", "kNN accuracy", "100 % of the counts"},
    "embedding_comparison": {"X_umap", "X_tsne", "UMAP 1", "TSNE 2", "cell_type", *TYPES},
    "embedding_comparison_numbers": {"X_umap", "depth"},
    "embedding_comparison_many": {"cluster", "cluster number 21"},
}


@pytest.mark.parametrize("seen", PICTURES, indirect=True)
def test_labels(seen: Seen) -> None:
    written = {text for text, *_ in seen.written}
    assert LABELS[seen.path.stem] <= written, sorted(written)
