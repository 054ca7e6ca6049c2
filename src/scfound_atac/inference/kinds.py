"""The one table of kinds of models: what is written here is all that the rest of the package knows of them.

To add a kind, write its file (a subclass of `Kind`, see `kind.py`) and a line here. A kind with a network of its own has that in a file of
`scfound_atac.nn`, with a line in `nn/networks.py`, by which weights are loaded and saved.
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
    """What can be done with a checkpoint."""
    file, name = KINDS[checkpoint.model_class]
    return getattr(import_module(file, __package__), name)(checkpoint)
