"""Download the files of a model once, and check them at every use."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .._docs import shared_docs
from .._download import fetch_file
from .._settings import settings
from .registry import get_entry

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from .registry import FileEntry, ModelEntry

PINS_FILE = "pins.json"


def _read_pins(folder: Path) -> dict[str, str]:
    path = folder / PINS_FILE
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        msg = f"{str(path)!r} holds the checksums of earlier downloads and cannot be read ({error}). Delete the folder to download anew."
        raise ValueError(msg) from error


def _write_pin(folder: Path, file: str, sha256: str) -> None:
    """Add one checksum. The old file is kept until the new one is complete."""
    pins = _read_pins(folder) | {file: sha256}
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=folder, prefix=".pins-", suffix=".json", delete=False
    ) as handle:
        json.dump(pins, handle, indent=2, sort_keys=True)
    Path(handle.name).replace(folder / PINS_FILE)


def _fetch_file(folder: Path, file: str, entry: FileEntry, *, progress: bool) -> None:
    path = folder / file
    if entry.sha256 is not None:
        fetch_file(path, entry.url, entry.sha256, progress=progress)
        return
    advice = (
        "The source publishes no checksum; the expected one was recorded when the file was first downloaded on this machine, so the source "
        f"has changed since. To accept the new file, delete the folder {str(folder)!r} and fetch again."
    )
    pin = _read_pins(folder).get(file)
    got = fetch_file(path, entry.url, pin, progress=progress, advice=advice)
    if pin is None:
        _write_pin(folder, file, got)


@shared_docs
def fetch(
    name: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    registry: str | os.PathLike[str] | Mapping[str, ModelEntry] | None = None,
    progress: bool | None = None,
) -> Path:
    """Make the files of a pretrained model available on this machine.

    Files that exist with the correct sha256 are used without network access. Missing files are downloaded into a private folder, checked,
    and then moved to ``<cache_dir>/<name>/<file>``. A model that is part of the package needs no download.

    If a source publishes no checksum for a file, the sha256 of the first download (or of a file that was copied by hand) is recorded in
    ``<cache_dir>/<name>/pins.json``, and later downloads must have the same.

    Parameters
    ----------
    name
        Name in the registry, see :func:`~scfound_atac.hub.list_models`.
    cache_dir
        {cache_dir}
    registry
        A registry file in YAML, or entries by name; that of the package by default.
    progress
        {progress}

    Returns
    -------
    The folder that holds all files of the model.

    Raises
    ------
    KeyError
        If the model is unknown; the message lists the known ones.
    ValueError
        If a download has a wrong checksum. It is removed.
    ConnectionError
        If the network or the server fails, or the download ends early. No partial file is left; the message says where to copy the file
        by hand.
    FileNotFoundError
        If the model should be part of the package and is missing.
    """
    model = get_entry(name, registry)
    if model.bundled_dir is not None:
        if not model.bundled_dir.is_dir():
            msg = f"Model {name!r} is part of the package, but {str(model.bundled_dir)!r} is missing. Install scfound-atac again."
            raise FileNotFoundError(msg)
        return model.bundled_dir

    folder = (settings.cache_dir if cache_dir is None else Path(cache_dir).expanduser()) / model.name
    folder.mkdir(parents=True, exist_ok=True)
    show = settings.progress_bar if progress is None else progress
    for file, entry in model.files.items():
        _fetch_file(folder, file, entry, progress=show)
    return folder
