"""Places to write to, tried before any work."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any


def as_path(path: Any, argument: str) -> Path:
    """The path that was given as `argument`, with ``~`` resolved.

    Raises
    ------
    TypeError
        If it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        msg = f"{argument}= takes a path, as text or pathlib.Path; got {type(path).__name__}."
        raise TypeError(msg)
    return Path(path).expanduser()


def make_folder(path: Any, argument: str) -> Path:
    """A folder that can be written to, made if absent.

    Raises
    ------
    TypeError
        If `path` is no path.
    FileExistsError
        If there is a file of that name.
    PermissionError
        If nothing can be written there.
    """
    folder = as_path(path, argument)
    if folder.exists() and not folder.is_dir():
        msg = f"{argument}={str(folder)!r} is a file, and a folder is wanted. Give another path."
        raise FileExistsError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The folder {argument}={str(folder)!r} cannot be made ({error.strerror}). Give another path."
        raise type(error)(msg) from error
    check_writable(folder, argument)
    return folder


def check_writable(folder: Path, argument: str) -> None:
    """`PermissionError` or another `OSError` if no file can be made in `folder`."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"Nothing can be written to the folder {str(folder)!r} of {argument}= ({error.strerror}). Give another path."
        raise type(error)(msg) from error
