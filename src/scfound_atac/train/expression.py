"""Measured expression as a target: cells and genes, scale, and the division into training, validation and test cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._anndata import NotFoundError, check_values, count_kind, get_atac, get_column, get_matrix, role_of
from .._labels import is_label
from .._logging import logger
from ..data import iter_rows, prepare_rows
from ..data.expression_levels import bin_rows
from .paired_data import paired_names, refuse_repeated
from .peak_to_gene import N_LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

Scale = Literal["log1p", "as it is", "levels"]
_TARGET_SUM = 1e4
_HELD_OUT = 0.1  # fraction of the cells for validation, and for testing
_MIN_EACH = 2  # minimum number of cells of each part; a correlation needs two


@dataclass(frozen=True)
class Expression:
    """Expression of the cells of a MuData that have both modalities.

    Attributes
    ----------
    names
        Names of the cells with both modalities, in the order of the accessibility modality.
    genes
        Names of the genes.
    values
        Expression on `scale`, shape (n_cells, n_genes), float32.
    scale
        ``"log1p"``: counts scaled to 10,000 per cell and ``log(1 + x)``. ``"as it is"``: the given values, which
        are not counts. ``"levels"``: 10 levels by the quantiles of the non-zero values of each cell.
    """

    names: pd.Index
    genes: list[str]
    values: NDArray[np.float32]
    scale: Scale


def gene_names(genes: Any) -> list[str]:
    """Names of genes as a user gives them: a list, an array, an index or a column of text.

    Raises
    ------
    TypeError
        If it is one name, or no collection of names.
    """
    wanted = "genes= takes a list of names of genes"
    if isinstance(genes, str | bytes):
        msg = f"{wanted}, and got one text: genes=[{genes!r}] for this gene alone."
        raise TypeError(msg)
    if not isinstance(genes, Iterable) or isinstance(genes, Mapping | pd.DataFrame) or hasattr(genes, "obs_names"):
        msg = f"{wanted}; got {type(genes).__name__}."
        raise TypeError(msg)
    names = list(genes)
    if wrong := [name for name in names if not isinstance(name, str)]:
        msg = f"{wanted}; it holds {wrong[0]!r:.40}, which is {type(wrong[0]).__name__}."
        raise TypeError(msg)
    return [str(name) for name in names]


def read_expression(
    mdata: MuData,
    atac: AnnData,
    *,
    modality: str,
    layer: str | None,
    genes: Sequence[str] | None,
    binned: bool,
    role: str = "mdata",
) -> Expression:
    """Read expression and check it; `role` is what the MuData is called in messages.

    Raises
    ------
    ValueError
        If names repeat, no cell has both modalities, values are NaN or infinite, or values are negative and levels are requested.
    KeyError
        If genes, the modality or the layer do not exist.
    TypeError
        If `mdata` is not a MuData.
    """
    from mudata import MuData

    if not isinstance(mdata, MuData):
        msg = (
            f"Expected MuData with accessibility and expression as {role}, got {type(mdata).__name__}: "
            f"{role} = mudata.MuData({{'atac': atac, 'rna': rna}})."
        )
        raise TypeError(msg)
    rna = get_atac(mdata, modality, role, modality_argument="rna_modality", holds="expression")
    where = role_of(mdata, modality, role)
    own = next(role_of(mdata, name, role) for name, mod in mdata.mod.items() if mod is atac)
    refuse_repeated(atac.obs_names, "cells with accessibility", f"{own}.obs_names_make_unique()")
    refuse_repeated(rna.obs_names, f"cells of modality {modality!r}", f"{where}.obs_names_make_unique()")
    refuse_repeated(rna.var_names, f"genes of modality {modality!r}", f"{where}.var_names_make_unique()")
    wanted = gene_names(rna.var_names if genes is None else genes)
    refuse_repeated(pd.Index(wanted), "genes", "genes=list(dict.fromkeys(genes))")
    columns = rna.var_names.get_indexer(wanted)
    if (columns < 0).any():
        missing = [gene for gene, column in zip(wanted, columns, strict=True) if column < 0]
        some = ", ".join(missing[:3])
        msg = f"{len(missing)} of {len(wanted)} genes are not in modality {modality!r}, among them {some}; see {where}.var_names."
        raise NotFoundError(msg)
    if not wanted:
        msg = f"{where} has no genes to predict."
        raise ValueError(msg)
    names = paired_names(atac, rna, role)
    if n_alone := atac.n_obs - len(names):
        logger.info("%d of %d cells have no expression and are left out of training", n_alone, atac.n_obs)
    matrix = get_matrix(rna, layer, where, "rna_layer")
    is_counts = count_kind(matrix) != "normalised"
    values = np.empty((len(names), len(wanted)), dtype=np.float32)
    for rows, chunk in iter_rows(matrix, rows=rna.obs_names.get_indexer(names)):
        _refuse_not_finite(chunk, where, rna)
        scaled = chunk
        if binned:
            check_values(chunk, f"{where}, of which levels are to be predicted,", rows=rows, column="gene")
            scaled = bin_rows(chunk, N_LEVELS)
        elif is_counts:
            scaled = prepare_rows(chunk, target_sum=_TARGET_SUM, log1p=True)
        values[names.get_indexer(rna.obs_names[rows])] = scaled[:, columns].toarray()
    scale: Scale = "levels" if binned else "log1p" if is_counts else "as it is"
    return Expression(names, wanted, values, scale)


def _refuse_not_finite(chunk: Any, where: str, rna: AnnData) -> None:
    if not np.isfinite(chunk.data).all():
        gene = rna.var_names[chunk.indices[~np.isfinite(chunk.data)][0]]
        msg = f"{where} holds NaN or infinite values, the first in gene {gene}. Leave these cells or genes out."
        raise ValueError(msg)


def split_cells(
    mdata: MuData, atac: AnnData, names: pd.Index, *, split_key: str | None, seed: int, role: str = "mdata"
) -> dict[str, NDArray[np.int64]]:
    """Divide the cells `names` into 80 % for training, 10 % for validation and 10 % for testing.

    Cells are drawn one by one, or by groups of `split_key`, such as donors: no group is in two parts, and the largest is for training. If
    there are two groups, the smaller one is for testing, and validation cells are drawn from the other one.

    Raises
    ------
    KeyError
        If the column `split_key` does not exist.
    ValueError
        If there are too few cells, only one group, or cells without a group.
    """
    n = len(names)
    n_held_out = max(_MIN_EACH, round(_HELD_OUT * n))
    if n < 3 * _MIN_EACH:
        msg = f"{n} cells with both modalities are too few to train, validate and test; at least {3 * _MIN_EACH} are needed."
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if split_key is None:
        return _parts(order[:n_held_out], order[n_held_out : 2 * n_held_out], n)
    groups = get_column(mdata, atac, split_key, role, "split_key").reindex(names)
    codes, labels = pd.factorize(groups.where(is_label(groups)))
    if (codes < 0).any():
        some = ", ".join(map(str, names[codes < 0][:3]))
        msg = f"{(codes < 0).sum()} of {n} cells have no {split_key!r}, among them {some}. Fill in {role}.obs, or leave these cells out."
        raise ValueError(msg)
    if len(labels) < 2:
        msg = f"{role}.obs[{split_key!r}] has one group, {labels[0]!r}: nothing to hold out. Use split_key=None to split by cell."
        raise ValueError(msg)
    sizes = np.bincount(codes)
    largest = sizes.argmax()
    if len(labels) == 2:
        rest = order[codes[order] == largest]
        n_validation = max(_MIN_EACH, round(len(rest) * _HELD_OUT / (1 - _HELD_OUT)))
        parts = [np.flatnonzero(codes != largest), rest[:n_validation]]
        logger.info(
            "two groups of %r: %r is for testing, validation takes cells of the other", split_key, labels[1 - largest]
        )
    else:
        shuffled = rng.permutation(np.flatnonzero(np.arange(len(labels)) != largest))
        first, parts = 0, []
        for n_left in (1, 0):  # groups that validation must be left
            last = first + 1
            while sizes[shuffled[first:last]].sum() < n_held_out and last < len(shuffled) - n_left:
                last += 1
            parts.append(np.flatnonzero(np.isin(codes, shuffled[first:last])))
            first = last
    split = _parts(parts[0], parts[1], n)
    if min(map(len, split.values())) < _MIN_EACH:
        found = ", ".join(f"{len(rows)} for {name}" for name, rows in split.items())
        msg = (
            f"The groups of {role}.obs[{split_key!r}] leave too few cells, {found}: at least {_MIN_EACH} each. Use split_key=None or "
            "larger groups."
        )
        raise ValueError(msg)
    return split


def _parts(test: NDArray[np.int64], validation: NDArray[np.int64], n: int) -> dict[str, NDArray[np.int64]]:
    train = np.setdiff1d(np.arange(n), np.concatenate([test, validation]))
    return {"train": train, "validation": np.sort(validation), "test": np.sort(test)}
