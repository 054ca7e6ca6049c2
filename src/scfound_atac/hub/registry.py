"""The registry of pretrained models, `registry.yaml`, as frozen dataclasses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .._docs import shared_docs

if TYPE_CHECKING:
    import os

    import pandas as pd

DEFAULT_MODEL = "region-set"
"""The model of `scfound_atac.tl.embed` and of all that builds on it, unless another is named."""

REGISTRY_FILE = Path(__file__).with_name("registry.yaml")
BUNDLED_DIR = Path(__file__).with_name("bundled")

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # model and file names become paths below the cache folder
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One file of a model: its URL, and its sha256 (None: recorded at the first download)."""

    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class ModelEntry:
    """A model of the registry."""

    name: str
    description: str
    licence: str
    source: str
    revision: str
    model_class: str
    bundled: str | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    @property
    def is_annotator(self) -> bool:
        """Whether this is no network but a trained annotator, for `scfound_atac.tl.annotate`."""
        return self.model_class == "CellAnnotator"

    @property
    def bundled_dir(self) -> Path | None:
        """Folder of the weights inside the package; None for a model that is downloaded."""
        return None if self.bundled is None else BUNDLED_DIR / self.bundled


def _check_name(value: object, what: str) -> str:
    if not isinstance(value, str) or not _SAFE_NAME.fullmatch(value):
        msg = f"Registry: {what} {value!r} is not a plain name (letters, digits, '.', '_', '-'; no path)."
        raise ValueError(msg)
    return value


def _parse_file(model: str, name: str, fields: Mapping[str, Any]) -> FileEntry:
    entry = FileEntry(**fields)
    if entry.sha256 is not None and not _SHA256.fullmatch(entry.sha256):
        msg = f"Registry: sha256 of {model}/{name} must be 64 lower-case hexadecimal digits or null, got {entry.sha256!r}."
        raise ValueError(msg)
    return entry


def _parse_model(name: str, fields: Mapping[str, Any]) -> ModelEntry:
    _check_name(name, "model name")
    try:
        files = {
            _check_name(file, f"file of model {name!r}"): _parse_file(name, file, spec)
            for file, spec in fields["files"].items()
        }
        entry = ModelEntry(name=name, **{**fields, "files": MappingProxyType(files)})
    except (AttributeError, KeyError, TypeError) as error:
        msg = f"Registry: model {name!r} is incomplete or has an unknown field ({error})."
        raise ValueError(msg) from error
    if entry.bundled is not None:
        _check_name(entry.bundled, f"bundled folder of model {name!r}")
    if (entry.bundled is None) == (not entry.files):
        msg = f"Registry: model {name!r} must either be bundled or have files to download."
        raise ValueError(msg)
    return entry


def read_registry(path: str | os.PathLike[str] | None = None) -> dict[str, ModelEntry]:
    """Read the entries of a registry file, by name of the model.

    Parameters
    ----------
    path
        A YAML file in the form of ``hub/registry.yaml`` of the package, which is the default.

    Raises
    ------
    ValueError
        If the file does not have this form.
    """
    import yaml

    content = yaml.safe_load(Path(path or REGISTRY_FILE).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        msg = f"Registry {str(path)!r} is not a mapping from model names to entries."
        raise ValueError(msg)
    return {name: _parse_model(name, fields) for name, fields in content.items()}


def get_entry(name: str, registry: str | os.PathLike[str] | Mapping[str, ModelEntry] | None = None) -> ModelEntry:
    """Entry of one model; raises KeyError, with the known names and the closest one, for an unknown name."""
    entries = registry if isinstance(registry, Mapping) else read_registry(registry)
    if name not in entries:
        close = get_close_matches(name, entries, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        known = ", ".join(sorted(entries))
        msg = f"No model {name!r} in the registry.{hint} Known models: {known}. A folder of weights is loaded by its path."
        raise KeyError(msg)
    return entries[name]


@shared_docs
def list_models(*, cache_dir: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """List the pretrained models that can be used by name.

    Nothing is downloaded or opened; only the registry is read, and it is checked which files exist.

    Parameters
    ----------
    cache_dir
        {cache_dir}

    Returns
    -------
    One row per model, indexed by name: ``model_class``, ``description``, ``licence``, ``source``, ``revision``, and ``available``:
    ``"bundled"`` (in the package), ``"cached"`` (downloaded before) or ``"download"`` (the first use needs a network).
    """
    import pandas as pd

    from .._settings import settings

    root = settings.cache_dir if cache_dir is None else Path(cache_dir).expanduser()

    def available(entry: ModelEntry) -> str:
        if entry.bundled is not None:
            return "bundled"
        return "cached" if all((root / entry.name / file).is_file() for file in entry.files) else "download"

    columns = ("model_class", "description", "licence", "source", "revision")
    rows = {
        name: {**{column: getattr(entry, column) for column in columns}, "available": available(entry)}
        for name, entry in read_registry().items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")
