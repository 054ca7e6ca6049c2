"""The table of all kinds of models. The rest of the package finds them only through it.

To add a kind, write a file with a subclass of `Kind` (see `kind.py`), and add a line here. If it has a network of its own, put that into a
file of `scfound_atac.nn`, and add a line to `nn/networks.py`, so that its weights can be loaded and saved.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..hub import Checkpoint
    from .kind import Kind

# Class of model in ``config.json`` -> file and class here. Files are imported when needed: linear models need no torch.
KINDS = {
    "RegionSet": (".region_set", "RegionSet"),
    "BiosamplePrior": (".linear", "BiosamplePrior"),
    "BiosampleMix": (".linear", "BiosampleMix"),
    "ChromFound": (".chromfound", "ChromFound"),
    "EpiFoundation": (".epifoundation", "EpiFoundation"),
}


def kind_of(checkpoint: Checkpoint) -> Kind:
    """The kind of model of a checkpoint, bound to it."""
    file, name = KINDS[checkpoint.model_class]
    return getattr(import_module(file, __package__), name)(checkpoint)
