"""A network with what is needed to feed it, and the folder it is stored in."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._paths import as_path, make_folder
from ..genome import load_region_table
from ._vocabularies import check_vocabularies, write_vocabularies

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from ..data import Vocabularies
    from ..genome import RegionTable

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT_VERSION = 1
REGIONS_FILE = "region_table.npz"
LINEAR_MODELS = ("BiosamplePrior", "BiosampleMix")
PEAK_SET_MODELS = ("EpiFoundation",)
CHROMOSOME_VOCABULARY = ("pad", *(f"chr{i}" for i in range(1, 23)), "chrX", "chrY")
# How the authors prepare a cell: total counts scaled, then log1p.
DEFAULT_PREPARATION = {"target_sum": 1e4, "log1p": True}


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained network, ready for `scfound_atac.tl.embed`.

    Attributes
    ----------
    net
        The network, in evaluation mode on CPU; None for the linear models.
    name
        Registry name or folder name.
    sha256
        Checksum of the weights file; for the linear models, of configuration and region table.
    chromosomes
        The chromosome vocabulary in the order of its ids; id 0 is padding.
    preparation
        How a cell's counts are prepared: ``target_sum`` and ``log1p``.
    training
        What is recorded of the training run; empty if nothing is.
    model_class
        ``"ChromFound"``, ``"RegionSet"``, ``"EpiFoundation"``, or one of the linear models `LINEAR_MODELS`.
    mix
        For models of region knowledge: size of the profile told by the regions beside the cell's own TF-IDF; None leaves TF-IDF out.
    regions
        The region table that the weights were trained with; None is the package's.
    vocabularies
        Of an EpiFoundation network: what the ids of its tables stand for.
    """

    net: Any
    name: str
    sha256: str
    chromosomes: tuple[str, ...] = CHROMOSOME_VOCABULARY
    preparation: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_PREPARATION))
    training: Mapping[str, Any] = field(default_factory=dict)
    model_class: str = "ChromFound"
    mix: float | None = None
    regions: Path | None = None
    vocabularies: Vocabularies | None = None

    def region_table(self) -> RegionTable:
        """The table that tells this model about regions."""
        return load_region_table(self.regions)

    def chromosome_ids(self, chrom: np.ndarray) -> np.ndarray:
        """Vocabulary ids (n,) int64 of chromosome names (n,); -1 where the vocabulary has no such chromosome."""
        ids = {name: i for i, name in enumerate(self.chromosomes) if i > 0}
        return np.fromiter((ids.get(name, -1) for name in chrom), dtype=np.int64, count=len(chrom))


def sha256_of(path: Path) -> str:
    """Checksum of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(
    net: nn.Module,
    folder: str | Path,
    *,
    chromosomes: tuple[str, ...] = CHROMOSOME_VOCABULARY,
    preparation: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    mix: float | None = None,
    regions: Path | None = None,
    vocabularies: Vocabularies | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a network as ``model.safetensors`` and ``config.json``, the form that `scfound_atac.hub.load` opens.

    Parameters
    ----------
    net
        The network.
    folder
        Where to write; made if absent.
    chromosomes
        Chromosome vocabulary of the network, padding first.
    preparation
        ``target_sum`` and ``log1p`` the network was trained with.
    training
        Facts about the training run, JSON-serialisable.
    mix
        See `Checkpoint`.
    regions
        Region table to put beside the weights, if they were trained with another than the package's.
    vocabularies
        Of an EpiFoundation network, which cannot be saved without; one JSON file each, named as the authors name them.
    overwrite
        Replace weights that are already there, and their region table.

    Returns
    -------
    The folder.

    Raises
    ------
    FileExistsError
        If the folder holds weights and `overwrite` is False.
    ValueError
        If `vocabularies` are missing, not wanted or do not fit the network.
    """
    from safetensors.torch import save_file

    from ..nn.networks import model_class_of

    folder = as_path(folder, "folder")
    if not overwrite and (folder / WEIGHTS_FILE).exists():
        msg = f"{folder / WEIGHTS_FILE} exists. Pass overwrite=True to replace it."
        raise FileExistsError(msg)
    model_class = model_class_of(net)
    if (vocabularies is not None) != (model_class in PEAK_SET_MODELS):
        there = "needs" if vocabularies is None else "has no"
        msg = f"A network of class {model_class} {there} vocabularies: pass those of the checkpoint it came from, or None."
        raise ValueError(msg)
    if vocabularies is not None:
        check_vocabularies(vocabularies, net.config, folder)
    make_folder(folder, "folder")
    config = {
        "format_version": FORMAT_VERSION,
        "model_class": model_class,
        "network": net.config.to_dict(),  # type: ignore[union-attr, operator]
        "chromosomes": list(chromosomes),
        "preparation": dict(preparation or DEFAULT_PREPARATION),
        "training": dict(training or {}),
    }
    if mix is not None:
        config["mix"] = mix
    text = json.dumps(config, indent=2) + "\n"  # before any file is touched: it fails on what JSON cannot hold
    save_file({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, folder / WEIGHTS_FILE)
    if regions is not None and regions.resolve() != (folder / REGIONS_FILE).resolve():
        shutil.copyfile(regions, folder / REGIONS_FILE)
    elif regions is None and overwrite:  # the table of the weights that were replaced
        (folder / REGIONS_FILE).unlink(missing_ok=True)
    if vocabularies is not None:
        write_vocabularies(vocabularies, folder)
    (folder / CONFIG_FILE).write_text(text)
    return folder
