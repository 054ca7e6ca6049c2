"""`calibration`: how often predictions are right, by how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._anndata import get_atac, get_column, role_of
from .._docs import shared_docs
from .._keys import annotation_keys
from ..scores import expected_calibration_error
from ._figure import (
    BLUE,
    FAINT,
    INK,
    SMALL,
    bare,
    check_at_least,
    check_output,
    figure_of,
    finish,
    new_axes,
    read_names,
    size_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_Z = 1.96  # 95 % of a normal distribution


@shared_docs
def calibration(
    adata: AnnData | MuData,
    labels_key: str,
    predicted_key: str | None = None,
    confidence_key: str | None = None,
    *,
    n_bins: int = 15,
    modality: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
) -> Axes | None:
    """Draw how often predicted labels are right, by their confidence.

    Each point stands for the cells of one bin of confidence; its bar is the 95 % interval of Wilson for the fraction that is right. Points
    on the diagonal are calibrated, and those below it are too confident. The histogram above shows how many cells are in each bin. Cells
    without a label or without a prediction are left out.

    Parameters
    ----------
    adata
        Cells with labels, predictions and their confidence, for example after `scfound_atac.tl.annotate`. It is not changed.
    labels_key
        Column of ``obs`` with the labels.
    predicted_key
        Column of ``obs`` with the predictions to which the confidence belongs. By default ``"<labels_key>_best"``, or
        ``"<labels_key>_pred"`` if cells were named without a reference, or if there is no other.
    confidence_key
        Column of ``obs`` with a confidence from 0 to 1; by default that of `predicted_key`, which ends in ``"_confidence"``.
    n_bins
        Number of bins of equal width, also of the expected calibration error (`scfound_atac.bench.expected_calibration_error`).
    modality
        {modality}
    title
        Title of the picture; none by default.
    ax
        {ax}
    figsize
        {figsize}
    show
        {show}
    save
        {save}

    Returns
    -------
    If the figure is not shown, its axes; the histogram is an inset of them (``ax.child_axes[0]``).

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If no cell has a label, a prediction and a confidence, a confidence is not in [0, 1], or no label is among the predictions.

    Examples
    --------
    >>> import scfound_atac as sfa
    >>> sfa.tl.annotate(query, reference=reference, labels_key="cell_type")
    >>> sfa.pl.calibration(query, "cell_type")
    """
    check_output(show, save)
    check_at_least("n_bins", n_bins, 1)
    atac, role = get_atac(adata, modality), role_of(adata, modality)
    true = read_names(adata, atac, labels_key, role, "labels_key")
    if predicted_key is None:
        predicted_key = _predicted_column(atac, labels_key)
    guess = read_names(adata, atac, predicted_key, role, "predicted_key")
    if confidence_key is None:
        prefix = str(predicted_key).removesuffix("_best").removesuffix("_pred")
        confidence_key = annotation_keys(prefix or "cell_type").confidence
    column = get_column(adata, atac, confidence_key, role, "confidence_key")
    try:
        sure = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        msg = (
            f"{role}.obs[{confidence_key!r}] holds no numbers. Give the column with the confidence as confidence_key=."
        )
        raise ValueError(msg) from error
    kept = true.notna().to_numpy() & guess.notna().to_numpy() & np.isfinite(sure)
    if not kept.any():
        msg = (
            f"No cell of {role} has a label ({labels_key!r}), a prediction ({predicted_key!r}) and a confidence ({confidence_key!r}), so "
            "there is nothing to draw."
        )
        raise ValueError(msg)
    y, p = true[kept].astype(object).to_numpy(), guess[kept].astype(object).to_numpy()
    if not set(y) & set(p):
        msg = (
            f"None of the labels in {role}.obs[{labels_key!r}] ({', '.join(map(repr, sorted(set(y))[:3]))}) is among the predictions "
            f"({', '.join(map(repr, sorted(set(p))[:3]))}), so none could be right. Bring both to the same names first."
        )
        raise ValueError(msg)
    sure, right = sure[kept], (y == p).astype(np.float64)
    error_of = expected_calibration_error(sure, right, n_bins)  # refuses what is not in [0, 1]

    bin_of = np.clip(np.ceil(np.minimum(sure, 1.0) * n_bins).astype(int) - 1, 0, n_bins - 1)
    n = np.bincount(bin_of, minlength=n_bins)
    filled = n > 0
    confidence = np.bincount(bin_of, sure, minlength=n_bins)[filled] / n[filled]
    accuracy = np.bincount(bin_of, right, minlength=n_bins)[filled] / n[filled]
    low, high = _wilson(accuracy, n[filled])

    drawn, given = new_axes(ax, size_of(figsize, (4.2, 4.8)))
    drawn.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    drawn.vlines(confidence, low, high, color=BLUE, linewidth=1.2, alpha=0.6, zorder=2)
    drawn.plot(confidence, accuracy, "o-", color=BLUE, markersize=4.5, linewidth=1.2, zorder=3)
    drawn.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    drawn.set_xlabel("Confidence", fontsize=SMALL + 1)
    drawn.set_ylabel("Fraction of cells that are right", fontsize=SMALL + 1)
    said = f"ECE {error_of:.3f}\naccuracy {right.mean():.3f}\n{len(sure):,} cells"
    drawn.text(0.04, 0.96, said, transform=drawn.transAxes, va="top", fontsize=SMALL, color=INK)
    bare(drawn, "left", "bottom")
    above = drawn.inset_axes((0, 1.03, 1, 0.18), sharex=drawn)
    above.bar((np.arange(n_bins) + 0.5) / n_bins, n, 0.94 / n_bins, color=BLUE, alpha=0.5, linewidth=0)
    above.set_ylabel("Cells", fontsize=SMALL)
    above.locator_params(axis="y", nbins=2, integer=True)
    bare(above, "left", "bottom")
    above.tick_params(axis="x", labelbottom=False, length=0)
    if title:
        above.set_title(title, fontsize=SMALL + 2, fontweight="bold")
    return finish(drawn, figure_of(drawn), "calibration", show=show, save=save, given=given)


def _predicted_column(atac: AnnData, labels_key: str) -> str:
    """The column of the labels to which the confidence belongs: see `scfound_atac.tl.annotate`."""
    keys = annotation_keys(labels_key)
    record = atac.uns.get(keys.uns)
    without_reference = hasattr(record, "keys") and "term_ids" in record
    return keys.best if keys.best in atac.obs and not without_reference else keys.labels


def _wilson(fraction: NDArray[np.float64], n: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of a fraction that was found in `n` cells (Wilson 1927)."""
    middle = fraction + _Z**2 / (2 * n)
    half = _Z * np.sqrt(fraction * (1 - fraction) / n + _Z**2 / (4 * n**2))
    return (middle - half) / (1 + _Z**2 / n), (middle + half) / (1 + _Z**2 / n)
