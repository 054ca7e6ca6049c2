"""Find the OCRs among the features of a table, as objects of 10x hold genes and peaks together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._arguments import settable
from .._logging import logger
from .names import Reading, readable, scan_names
from .ocrs import coordinate_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pattern in advice to users. Names of genes may also end in two numbers, but these are small.
_PLACE = r"[:_-][\d,]+[_-][\d,]{3,}$"
_COLUMNS = ("featuretypes", "featuretype")
# Names of kinds of features in Cell Ranger, muon and other tools, in lower case and without separators.
_PEAKS = ("peaks", "peak", "atac", "atacseq", "scatac", "chromatinaccessibility", "accessibility", "ocr", "ocrs")
_OTHERS = (
    "geneexpression",
    "gene",
    "genes",
    "gex",
    "rna",
    "expression",
    "antibodycapture",
    "adt",
    "protein",
    "proteins",
    "crisprguidecapture",
    "multiplexingcapture",
    "antigencapture",
    "hto",
    "vdj",
    "custom",
)


def _plain(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if text.startswith(("b'", 'b"')):
        text = text[2:-1]
    return "".join(sign for sign in text.lower() if sign.isalnum())


def _kinds(values: pd.Series) -> NDArray[np.int8]:
    """1 for peaks, 0 for features of another kind, -1 for missing and unknown values."""
    codes, unique = pd.factorize(values.astype(object), use_na_sentinel=True)
    said = {**dict.fromkeys(_PEAKS, 1), **dict.fromkeys(_OTHERS, 0)}
    # A missing value has code -1 and therefore gets the last entry.
    return np.array([*(said.get(_plain(value), -1) for value in unique), -1], dtype=np.int8)[codes]


def _declared_kinds(var: pd.DataFrame) -> tuple[Any, NDArray[np.int8]] | None:
    """The first column that distinguishes peaks from other features, and the kinds in it."""
    for column in var.columns:
        if _plain(column) in _COLUMNS:
            kinds = _kinds(var[column])
            if (kinds >= 0).any():
                return column, kinds
    return None


def _named(names: pd.Index) -> str:
    return ", ".join(repr(name) for name in names[:3])


def peak_columns(var: pd.DataFrame, role: str = "adata") -> NDArray[np.bool_] | None:
    """Find out which of n features are peaks.

    A column such as ``feature_types`` of Cell Ranger decides. Where it has no value, features with coordinates in their name are peaks.

    Parameters
    ----------
    var
        Table with one row per feature.
    role
        Name of the object with these features, for messages.

    Returns
    -------
    Mask of shape (n,), or None if all features are peaks. The number of features that are left out is logged.

    Raises
    ------
    ValueError
        If no feature is a peak, or some names have coordinates and others do not, and no column says which features are peaks.
    """
    if not len(var):
        return None
    declared = _declared_kinds(var)
    if declared is None:
        _refuse_mixed(var, role)
        return None
    column, kinds = declared
    silent = kinds < 0
    is_peak = kinds == 1
    if silent.any():
        is_peak[silent] = readable(var.index[silent])
    where = f"{role}.var[{column!r}]"
    if not is_peak.any():
        found = pd.Series(var[column]).astype(str).value_counts().iloc[:3]
        msg = (
            f"{role} has no peak matrix: by {where} none of its {len(var)} features is a peak "
            f"({', '.join(f'{name!r}: {n}' for name, n in found.items())}). Read the peaks too, as sc.read_10x_h5(path, gex_only=False) "
            f'does; if these features are peaks, say so: {where} = "Peaks".'
        )
        raise ValueError(msg)
    if is_peak.all():
        return None
    left_out = ~is_peak
    logger.warning(
        "%d of %d features of %s are no peaks by %s and are left out, among them %s",
        left_out.sum(),
        len(var),
        role,
        where,
        _named(var.index[left_out]),
    )
    return is_peak


def _refuse_mixed(var: pd.DataFrame, role: str) -> None:
    """Raise ValueError if some names hold coordinates and others look like names of genes."""
    reading = scan_names(var.index).reading
    # Ambiguous names count as peaks here; they are refused, with advice, when coordinates are read.
    is_place, is_word = reading >= Reading.UNCLEAR, reading == Reading.NONE
    is_place &= reading != Reading.GUESSED
    if is_word.all():
        _refuse_genes(var, role)
    if not is_word.any() or not is_place.any():
        return
    n_words = int(is_word.sum())
    if coordinate_columns(var) is None:
        msg = (
            f"{n_words} of {len(var)} features of {role} hold no coordinates in their names and look like genes or other features, among "
            f"them {_named(var.index[is_word])}; other names are of the form chr1:100-200. Keep the peaks alone: "
            f"{settable(role)} = {role}[:, {role}.var_names.str.contains({_PLACE!r})].copy(); or say what each feature is: "
            f'{role}.var["feature_types"] = ... ("Peaks" or "Gene Expression").'
        )
    else:
        msg = (
            f"Names of {len(var) - n_words} of {len(var)} features of {role} hold coordinates and those of {n_words} do not, among them "
            f"{_named(var.index[is_word])}: are these genes, whose places the columns give? Say what each feature is: "
            f'{role}.var["feature_types"] = ... ("Peaks" or "Gene Expression"; all "Peaks" if all are peaks), or keep the peaks alone: '
            f"{settable(role)} = {role}[:, {role}.var_names.str.contains({_PLACE!r})].copy()."
        )
    raise ValueError(msg)


# Genes that any table of expression of human or mouse has.
_WELL_KNOWN = frozenset(("ACTB", "B2M", "EEF1A1", "GAPDH", "MALAT1", "RPLP0", "RPS18", "TMSB4X"))


def _refuse_genes(var: pd.DataFrame, role: str) -> None:
    """ValueError if all names are those of genes."""
    is_id = var.index.astype(str).str.fullmatch(r"ENS[A-Z]*G\d{11}(?:\.\d+)?")
    if is_id.mean() > 0.5 or len(_WELL_KNOWN.intersection(var.index.astype(str).str.upper())) >= 3:
        msg = (
            f"The features of {role} are named like genes ({_named(var.index)}): it holds expression, and chromatin accessibility (cells x "
            f'peaks) is needed. If these features are peaks, say so: {role}.var["feature_types"] = "Peaks".'
        )
        raise ValueError(msg)
