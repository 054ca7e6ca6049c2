"""`map_ocrs`: counts of one OCR set on another one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set, Sized
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

from .._anndata import get_atac, role_of
from .._arguments import check_arguments
from .._docs import shared_docs
from .._logging import logger
from ..data import Cells
from ..data.cells import read_columns
from ..data.onto import transfer_matrix
from ..genome import best_overlaps, ocr_names
from ..genome.bed import read_bed_ocrs
from ..genome.build import declared_genome
from ..genome.ocrs import read_ocrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from ..hub import Checkpoint

    Target: TypeAlias = AnnData | MuData | pd.DataFrame | Sequence[str] | Checkpoint | str | Path


_CELLS = re.compile(r"\.(?:h5ad|h5mu|h5|zarr|loom)/?$", re.IGNORECASE)
_BED = re.compile(r"\.(?:bed|narrowpeak|broadpeak)(?:\.gz)?$", re.IGNORECASE)


def _target_var(target: Target, modality: str | None) -> pd.DataFrame:
    """Table with checked coordinates, one row per OCR, of whatever was given as target."""
    from anndata import AnnData, Raw
    from mudata import MuData

    if isinstance(target, AnnData | MuData | Raw) or hasattr(target, "to_memory"):
        atac = get_atac(target, modality, "target")
        declared = declared_genome(atac.uns.get("genome")) or "GRCh38"
        columns, ocrs = read_columns(atac, role_of(target, modality, "target"), declared)
        return _with_coordinates(atac.var.iloc[columns], ocrs)
    if isinstance(target, pd.DataFrame):
        return _named(target)
    if isinstance(target, str | Path) or hasattr(
        target, "vocabularies"
    ):  # a checkpoint, recognised without importing torch
        return _of_path_or_model(target)  # type: ignore[arg-type]
    if isinstance(target, Iterable) and not isinstance(target, Mapping | Set | bytes):
        names = list(target)
        if names and all(isinstance(name, str | bytes) for name in names):
            texts = [_text(name) for name in names]
            if repeated := [name for name, n in Counter(texts).items() if n > 1]:
                msg = (
                    f"{len(repeated)} names stand in target more than once, among them {repeated[:3]}. Keep one of each: target = "
                    "list(dict.fromkeys(target))."
                )
                raise ValueError(msg)
            return _named(pd.DataFrame(index=pd.Index(texts, dtype=object)))
    given = "an empty " if isinstance(target, Sized) and not len(target) else ""
    msg = (
        "target must be an AnnData or MuData, a table with coordinates, a list of OCR names, the path of a BED file, or a model with a "
        f"vocabulary of peaks; got {given}{type(target).__name__}."
    )
    raise TypeError(msg)


def _of_path_or_model(target: str | Path | Checkpoint) -> pd.DataFrame:
    if isinstance(target, str | Path):
        if _CELLS.search(str(target)):
            get_atac(target, role="target")  # says how to read it
        if Path(target).is_file() or _BED.search(str(target)):
            return _named(read_bed_ocrs(target))
    from ..hub.loading import as_checkpoint

    checkpoint = as_checkpoint(target)
    if checkpoint.vocabularies is None:
        msg = f"Model {checkpoint.name!r} has no vocabulary of peaks: it reads any OCR set, so no mapping is needed."
        raise ValueError(msg)
    return _named(checkpoint.vocabularies.ocrs)


def _named(var: pd.DataFrame) -> pd.DataFrame:
    """A table of OCRs with coordinates and names; it is taken to be on GRCh38 if it does not declare another build."""
    ocrs = read_ocrs(var, genome="GRCh38", role="target", is_table=True)
    named = _with_coordinates(var, ocrs)
    if isinstance(var.index, pd.RangeIndex):
        named.index = ocr_names(ocrs)
    return named


def _with_coordinates(var: pd.DataFrame, ocrs: pd.DataFrame) -> pd.DataFrame:
    return var.assign(**{name: ocrs[name].to_numpy() for name in ocrs})


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


@shared_docs
def map_ocrs(
    adata: AnnData | MuData,
    target: AnnData | MuData | pd.DataFrame | Sequence[str] | Checkpoint | str | Path,
    *,
    min_overlap: int = 1,
    min_coverage: float = 0.0,
    min_kept: float = 0.0,
    layer: str | None = None,
    modality: str | None = None,
) -> AnnData:
    """Map the counts of cells to another OCR set by overlap.

    Each OCR is assigned to the target OCR with which it has most bases in common; among equals to the one with the same coordinates, or
    else to the first in `target`. Values of OCRs with the same target are added, so binary values may exceed 1 afterwards. OCRs
    without a target are lost.

    Parameters
    ----------
    adata
        Cells x OCRs on GRCh38 with counts in ``X`` or `layer`, in memory or backed. It is not changed.
    target
        The OCRs to map to: an AnnData or MuData (its ``var``), a table with coordinates, a list of names, or the path of a BED file. Or a
        model with a vocabulary of peaks (EpiFoundation), as a checkpoint, a folder or a name: its peaks are the target, and ``var["id"]``
        of the result holds their numbers in the vocabulary.
    min_overlap
        Minimum number of bases that an OCR and its target have in common.
    min_coverage
        Minimum fraction of the length of an OCR that its target covers, 0 to 1.
    min_kept
        Minimum fraction of the open OCRs over all cells that have a target, 0 to 1; if it is not reached, ValueError is raised.
    layer
        {layer}
    modality
        {modality}

    Returns
    -------
    New AnnData, cells x target OCRs, CSR float32, with the ``obs``, ``obsm`` and ``obsp`` of `adata`, ``var`` of the target, and with

    `.obs["map_ocrs_counts_kept"]`, `.obs["map_ocrs_open_kept"]`
        Fraction of the cell's counts, and of its open OCRs, that have a target; NaN for an empty cell.
    `.obs["map_ocrs_counts_lost"]`, `.obs["map_ocrs_open_lost"]`
        Fraction that has none.
    `.obs["map_ocrs_counts_ambiguous"]`, `.obs["map_ocrs_open_ambiguous"]`
        Fraction that is kept and comes from OCRs that overlap several target OCRs.
    `.uns["map_ocrs"]`
        Numbers of OCRs that are kept, lost and ambiguous, of target OCRs and of those with counts, fractions over all cells, and the
        thresholds.
    `.uns["genome"]`
        ``"GRCh38"``.

    Raises
    ------
    ValueError
        If one of the sets is not on GRCh38, nothing overlaps, a smaller fraction than `min_kept` has a target, a threshold is out of range,
        a value is not a count, or the model has no vocabulary of peaks.
    KeyError
        If the layer, modality or model does not exist.
    """
    from anndata import AnnData

    check_arguments(min_overlap=min_overlap, min_coverage=min_coverage, min_kept=min_kept)
    if min_overlap < 1 or not 0 <= min_coverage <= 1 or not 0 <= min_kept <= 1:
        msg = f"min_overlap={min_overlap} must be at least 1 base, min_coverage={min_coverage} and min_kept={min_kept} between 0 and 1."
        raise ValueError(msg)
    atac = get_atac(adata, modality)
    var = _target_var(target, modality)
    cells = Cells.read(adata, layer=layer, modality=modality, values="any")
    source = cells.ocrs

    best = best_overlaps(source, var, min_overlap=min_overlap, min_coverage=min_coverage)
    if best.empty:
        msg = (
            f"No OCR overlaps the target ({len(source)} and {len(var)} OCRs). Compare the genome builds, or lower min_overlap and "
            "min_coverage."
        )
        raise ValueError(msg)
    kept, ambiguous = np.zeros((2, len(source)), dtype=bool)
    kept[best["a"]] = True
    ambiguous[best["a"]] = best["n_targets"] > 1
    transfer = transfer_matrix(best, len(source), len(var))

    fates = np.column_stack([kept, ~kept, ambiguous]).astype(np.float64)
    chunks, counts, n_open = [], [], []
    for _, chunk in cells.iter_rows():
        chunks.append(chunk @ transfer)
        # float64, so that sums of many counts are exact
        is_open = sparse.csr_matrix((np.ones(chunk.nnz), chunk.indices, chunk.indptr), chunk.shape)
        counts.append(
            np.column_stack([chunk.astype(np.float64) @ fates, np.asarray(chunk.sum(axis=1, dtype=np.float64))])
        )
        n_open.append(np.column_stack([is_open @ fates, np.diff(chunk.indptr)]))

    obs = atac.obs.copy()
    summary: dict[str, int | float] = {
        "n_ocrs": len(source),
        "n_ocrs_kept": int(kept.sum()),
        "n_ocrs_lost": int((~kept).sum()),
        "n_ocrs_ambiguous": int(ambiguous.sum()),
        "n_target_ocrs": len(var),
        "n_target_ocrs_reached": int(best["b"].nunique()),
        "min_overlap": int(min_overlap),
        "min_coverage": float(min_coverage),
    }
    for what, parts in (("counts", counts), ("open", n_open)):
        sums = np.concatenate(parts) if parts else np.zeros((0, 4))
        total = sums.sum(axis=0)
        for column, name in enumerate(("kept", "lost", "ambiguous")):
            empty = np.full(len(sums), np.nan)
            obs[f"map_ocrs_{what}_{name}"] = np.divide(sums[:, column], sums[:, 3], out=empty, where=sums[:, 3] > 0)
            summary[f"{what}_{name}"] = float(total[column] / total[3]) if total[3] else float("nan")
    if summary["open_kept"] < min_kept:  # NaN, and so not refused, if no OCR is open at all
        msg = (
            f"Only {summary['open_kept']:.1%} of the open OCRs ({kept.mean():.1%} of the {len(source)} OCRs) overlap one of the {len(var)} "
            f"target OCRs, and min_kept={min_kept:.0%}. Check that coordinates are GRCh38 (hg19: sfa.pp.liftover_ocrs), lower "
            "min_overlap or min_coverage, or take another target."
        )
        raise ValueError(msg)
    result = AnnData(
        X=sparse.vstack(chunks, format="csr") if chunks else sparse.csr_matrix((0, len(var)), dtype=np.float32),
        obs=obs,
        var=var,
        obsm={key: value.copy() for key, value in atac.obsm.items()},
        obsp={key: value.copy() for key, value in atac.obsp.items()},
        uns={"genome": "GRCh38", "map_ocrs": summary},
    )
    logger.info(
        "%d of %d OCRs (%.1f %% of counts) were mapped to %d of %d target OCRs; %d overlapped several",
        summary["n_ocrs_kept"],
        len(source),
        100 * summary["counts_kept"],
        summary["n_target_ocrs_reached"],
        len(var),
        summary["n_ocrs_ambiguous"],
    )
    return result
