"""A folder with a head and its backbone: ``model.safetensors`` and ``config.json`` of the backbone, and the files of the head.

The heads in the package are kept small: in place of a backbone they have the name of one that is in the package, too, and large arrays are
stored in whole numbers from -127 to 127, with a unit per column. ``scripts/build_bone_marrow_annotator.py`` writes them in this form.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..hub import load, save
from ..hub.checkpoint import WEIGHTS_FILE
from ..inference.features import CellFeatures, MeasuredView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_FORMAT_VERSION = 1
UNIT = ".unit"
"""Ends the name of the units of an array that is stored in whole numbers."""
_FACTS, _ARRAYS, _VIEW_OCRS, _OCRS = "head.json", "head.safetensors", "view_ocrs.tsv.gz", "head_ocrs.tsv.gz"


@dataclass(frozen=True)
class HeadFolder:
    """The stored parts of a head.

    Attributes
    ----------
    kind
        Name of the class of the head.
    features
        The features that the head reads, including the backbone.
    facts
        Values that JSON can hold.
    arrays
        Arrays by their name, ``group/field``.
    ocrs
        OCRs to which the head is tied, if it is.
    """

    kind: str
    features: CellFeatures
    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray]
    ocrs: pd.DataFrame | None = None

    def group(self, name: str) -> dict[str, NDArray]:
        """The arrays of one group by the name of their field."""
        return {key.removeprefix(f"{name}/"): x for key, x in self.arrays.items() if key.startswith(f"{name}/")}


def write_head_folder(saved: HeadFolder, folder: str | Path, *, overwrite: bool) -> Path:
    """Write a head and its backbone.

    Raises
    ------
    FileExistsError
        If there is a model and `overwrite` is False.
    """
    from safetensors.numpy import save_file

    checkpoint, view = saved.features.checkpoint, saved.features.view
    text = json.dumps({"format_version": _FORMAT_VERSION, "kind": saved.kind, **saved.facts}, indent=2) + "\n"
    folder = save(
        checkpoint.net,
        folder,
        chromosomes=checkpoint.chromosomes,
        preparation=checkpoint.preparation,
        training=checkpoint.training,
        mix=checkpoint.mix,
        regions=checkpoint.regions,
        vocabularies=checkpoint.vocabularies,
        overwrite=overwrite,
    )
    arrays = dict(saved.arrays)
    for name, table in ((_VIEW_OCRS, view.ocrs if view else None), (_OCRS, saved.ocrs)):
        if table is not None:
            table.to_csv(folder / name, sep="\t", index=False)
        else:
            (folder / name).unlink(missing_ok=True)
    if view:
        arrays |= {"view/idf": view.idf, "view/axes": view.axes}
    save_file({name: np.asarray(x, order="C") for name, x in arrays.items()}, folder / _ARRAYS)
    (folder / _FACTS).write_text(text)
    return folder


def read_head_folder(folder: str | Path, kind: str) -> HeadFolder:
    """Open a folder that `write_head_folder` wrote.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the folder holds another kind of head, or a file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not isinstance(folder, str | os.PathLike):
        msg = f"A saved {kind} is opened by the path of its folder; got {type(folder).__name__}."
        raise TypeError(msg)
    folder = Path(folder)
    missing = [name for name in (_FACTS, _ARRAYS) if not (folder / name).is_file()]
    if missing:
        msg = f"{folder} holds no saved {kind}: {', '.join(missing)} is missing."
        raise FileNotFoundError(msg)
    try:
        facts = json.loads((folder / _FACTS).read_text())
        arrays = load_file(folder / _ARRAYS)
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        msg = f"{folder} is damaged ({error}). Save the model again."
        raise ValueError(msg) from error
    if not isinstance(facts, dict) or facts.get("kind") != kind:
        msg = f"{folder} holds a {facts.get('kind') if isinstance(facts, dict) else 'something else'}, not a {kind}."
        raise ValueError(msg)
    if facts["format_version"] > _FORMAT_VERSION:
        msg = f"{folder} was written by a newer version of the package; run `pip install -U scfound-atac`."
        raise ValueError(msg)
    backbone = facts.get("backbone")
    if backbone is None and not (folder / WEIGHTS_FILE).is_file():
        msg = f"{folder} holds no saved {kind}: {WEIGHTS_FILE} is missing."
        raise FileNotFoundError(msg)
    arrays = {name: _whole(name, arrays) for name in arrays if not name.endswith(UNIT)}
    view = None
    if "view/idf" in arrays:
        view = MeasuredView(_read_ocrs(folder / _VIEW_OCRS), arrays.pop("view/idf"), arrays.pop("view/axes"))
    ocrs = _read_ocrs(folder / _OCRS) if (folder / _OCRS).is_file() else None
    return HeadFolder(kind, CellFeatures(load(backbone or folder), view), facts, arrays, ocrs)


def _whole(name: str, arrays: Mapping[str, NDArray]) -> NDArray:
    """The array in single precision, if it is stored in whole numbers."""
    unit = arrays.get(name + UNIT)
    return arrays[name] if unit is None else arrays[name].astype(np.float32) * unit


def _read_ocrs(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", dtype={"chrom": str, "start": np.int64, "end": np.int64})
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        msg = f"{path} is damaged ({error}). Save the model again."
        raise ValueError(msg) from error
