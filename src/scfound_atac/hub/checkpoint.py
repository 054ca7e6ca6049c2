"""A network with everything that is needed to apply it, and the folder in which it is stored."""

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
# How the authors prepare a cell: scale it to the same total, then log1p.
DEFAULT_PREPARATION = {"target_sum": 1e4, "log1p": True}


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained network, ready for `scfound_atac.tl.embed`.

    Attributes
    ----------
    net
        The network, in evaluation mode on the CPU; None for the linear models.
    name
        Name in the registry, or name of the folder.
    sha256
        Checksum of the weights file; for the linear models, of configuration and region table.
    chromosomes
        The chromosome vocabulary in the order of its ids; id 0 is padding.
    preparation
        How counts are prepared: ``target_sum`` and ``log1p``.
    training
        Record of the training run; may be empty.
    model_class
        ``"ChromFound"``, ``"RegionSet"``, ``"EpiFoundation"``, or one of the linear models `LINEAR_MODELS`.
    mix
        For linear models on the region table: weight of the profile from the table relative to TF-IDF, or None for no TF-IDF. For
        region-set: weight of the cell vector relative to the counts, or None for the default.
    regions
        File of the region table with which the weights were trained; None for that of the package.
    vocabularies
        Vocabularies of an EpiFoundation network, which map names to ids.
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
        """The region table of this model."""
        return load_region_table(self.regions)

    def chromosome_ids(self, chrom: np.ndarray) -> np.ndarray:
        """Ids (n,) int64 of the chromosome names `chrom` (n,); -1 for chromosomes that are not in the vocabulary."""
        ids = {name: i for i, name in enumerate(self.chromosomes) if i > 0}
        return np.fromiter((ids.get(name, -1) for name in chrom), dtype=np.int64, count=len(chrom))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
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
    prefix: str | None = None,
) -> Path:
    """Write a network as ``model.safetensors`` and ``config.json``, for `scfound_atac.hub.load`.

    Parameters
    ----------
    net
        The network.
    folder
        Folder to write to; it is created if it does not exist.
    chromosomes
        Chromosome vocabulary of the network; the first entry is padding.
    preparation
        ``target_sum`` and ``log1p`` with which the network was trained.
    training
        Record of the training run, with values that JSON can hold.
    mix
        See `Checkpoint`.
    regions
        Region table to store with the weights, if they were trained with another one than that of the package.
    vocabularies
        Vocabularies of an EpiFoundation network, which must be given; each becomes a JSON file with the name that the authors use.
    overwrite
        Replace weights that are already in the folder, and their region table.
    prefix
        Text before the name of each file, so that a folder can hold several networks.

    Returns
    -------
    The folder.

    Raises
    ------
    FileExistsError
        If the folder holds weights and `overwrite` is False.
    ValueError
        If `vocabularies` are missing, do not fit the network, or are given for a network that has none.
    """
    from safetensors.torch import save_file

    from ..nn.networks import model_class_of

    folder = as_path(folder, "folder")
    weights, table = (folder / f"{prefix or ''}{name}" for name in (WEIGHTS_FILE, REGIONS_FILE))
    if not overwrite and weights.exists():
        msg = f"{weights} exists. Pass overwrite=True to replace it."
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
    text = (
        json.dumps(config, indent=2) + "\n"
    )  # before any file is written, as it fails for values that JSON cannot hold
    save_file({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, weights)
    if regions is not None and regions.resolve() != table.resolve():
        shutil.copyfile(regions, table)
    elif regions is None and overwrite:  # it belongs to the replaced weights
        table.unlink(missing_ok=True)
    if vocabularies is not None:
        write_vocabularies(vocabularies, folder, prefix or "")
    (folder / f"{prefix or ''}{CONFIG_FILE}").write_text(text)
    return folder
