"""Texts of parameters that several public functions have, and the decorator that puts them into docstrings.

A docstring holds a placeholder on a line of its own, below the name of the parameter::

    seed
        {seed}

and `shared_docs` puts the text of `PARAMETERS` in its place, so that ``help()`` and the pages show it.
"""

from __future__ import annotations

import re
from typing import TypeVar

T = TypeVar("T")

PARAMETERS = {
    # data
    "adata_counts": """\
Cells x OCRs with counts; or a MuData, of which the modality `modality` is used.""",
    "adata_grch38": """\
Cells x OCRs with counts or 0/1, on GRCh38: coordinates (0-based, half-open) in ``var`` or in the names. The matrix may be dense, CSR, CSC,
backed, zarr or dask. Of a MuData the modality `modality` is used.""",
    "layer": """\
Layer with the counts; ``X`` if None.""",
    "genome": """\
Genome build of the OCRs, ``"GRCh38"``, if it cannot be recognised. If None, ``uns["genome"]`` is read, and without it the build is
recognised from the coordinates.""",
    "modality": """\
Name of the accessibility modality of a MuData; ``"atac"`` if None.""",
    "labels_key": """\
Column of ``obs`` with the labels. Cells without a label are left out.""",
    "copy": """\
Return a changed copy and leave `adata` as it is, instead of writing into it.""",
    # models
    "model": """\
Name of a model from `scfound_atac.hub.list_models`, folder of a model (saved by this package, or released by the authors), or a loaded
checkpoint. The default is part of the package and needs no download.""",
    "backbone": """\
The pretrained network: ``"region-set"``, a ChromFound or an EpiFoundation model. Give a name from `scfound_atac.hub.list_models`, a folder,
or a loaded checkpoint.""",
    "measured": """\
Use the spectral components of the counts in addition to the vector of the backbone. Without them, predictions rest on the backbone
alone.""",
    # computing
    "batch_size": """\
Cells per forward pass; ``"auto"`` chooses it by the memory of the device.""",
    "device": """\
``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; ``"auto"`` uses CUDA if there is a GPU.""",
    "precision": """\
``"fp32"``, ``"bf16"`` or ``"auto"``. ``"auto"`` uses bf16 on a GPU that supports it, if its result agrees with fp32 on the first batch;
EpiFoundation uses fp32.""",
    "seed": """\
Random seed; the same seed gives the same result on the same machine.""",
    "progress": """\
Show a progress bar; ``scfound_atac.settings.progress_bar`` by default.""",
    # pictures
    "ax": """\
Axes to draw into; a new figure if None.""",
    "figsize": """\
Width and height of a new figure in inches.""",
    "show": """\
Show the figure. None does as ``scanpy.settings.autoshow`` says, and does not show axes that were passed as `ax`.""",
    "save": """\
Write the figure to a file. True, or text that is added to the name of the function (``"_mine.png"``), writes into
``scanpy.settings.figdir``, as in scanpy; a `pathlib.Path` is the file itself.""",
    # files
    "cache_dir": """\
Folder of downloads; ``scfound_atac.settings.cache_dir`` by default.""",
    "saved_folder": """\
Folder that `save` wrote.""",
    "dir_path": """\
Folder to write to; it is created if it does not exist.""",
    "overwrite": """\
Replace a model that is already in the folder.""",
}

_PLACEHOLDER = re.compile(r"^(?P<indent> *)\{(?P<name>\w+)\}$", flags=re.MULTILINE)


def shared_docs(documented: T) -> T:
    """Fill the placeholders in the docstring of a function or class; the object itself is returned.

    Raises
    ------
    KeyError
        If there is no text for a placeholder.
    ValueError
        If a placeholder shares its line with other text, so that it would stay as it is.
    """
    if documented.__doc__ is not None:  # python -OO removes docstrings
        documented.__doc__ = _PLACEHOLDER.sub(_text, documented.__doc__)
        if left := re.search(rf"\{{({'|'.join(PARAMETERS)})\}}", documented.__doc__):
            msg = f"{left[0]} has to stand on a line of its own."
            raise ValueError(msg)
    return documented


def _text(found: re.Match[str]) -> str:
    return "\n".join(found["indent"] + line for line in PARAMETERS[found["name"]].split("\n"))
