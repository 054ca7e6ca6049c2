"""Bring one file to this machine, once, and check it every time."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ._logging import logger

_ADVICE = (
    "Try again; if it fails again, the file was changed at its source or on the way: do not use it, and tell the maintainers of "
    "scfound-atac."
)


def _sha256(path: Path) -> str:
    import pooch

    return pooch.file_hash(str(path), alg="sha256")


def _download(url: str, path: Path, expected: str | None, *, progress: bool, advice: str) -> str:
    """Download to a private folder beside the target and move the checked file into place; returns its sha256.

    The parts are pooch's; ``pooch.retrieve`` would also keep the temporary file's permissions, which shut out all other users of a
    shared cache, and print its own messages.
    """
    import pooch
    from requests.exceptions import RequestException

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as private:
        partial = Path(private) / path.name
        try:
            pooch.HTTPDownloader(progressbar=progress)(url, str(partial), None)
        except RequestException as error:
            checksum = f" with sha256 {expected}" if expected else ""
            msg = (
                f"Could not download {url} ({error}). "
                f"Without a network, get the file on another machine and put it here by hand{checksum}: {str(path)!r}."
            )
            raise ConnectionError(msg) from error
        got = _sha256(partial)
        if expected is not None and got != expected:
            msg = (
                f"{url} gave a file with another checksum than {path.name!r} must have: expected sha256 {expected}, got {got}. The "
                f"download was removed. {advice}"
            )
            raise ValueError(msg)
        partial.replace(path)
    return got


def fetch_file(path: Path, url: str, expected: str | None, *, progress: bool, advice: str = _ADVICE) -> str:
    """Make sure that `path`, in a folder that exists, holds the file of a URL.

    A file that is there with the right sha256 is used as it is, without asking the network; a damaged one is downloaded again.

    Parameters
    ----------
    path
        Where the file belongs.
    url
        Where it is downloaded from.
    expected
        The sha256 it must have; None takes any.
    progress
        Show a progress bar.
    advice
        What to do when the download has another checksum, for the message.

    Returns
    -------
    The file's sha256.

    Raises
    ------
    ValueError
        The download has another checksum than `expected`. It was removed.
    ConnectionError
        The network or the server failed, or the download ended early. Nothing partial is left; the message says where to put the file by
        hand.
    """
    got = _sha256(path) if path.is_file() else None
    if got is not None and expected is not None and got != expected:
        logger.warning(
            "%s is damaged or of another version (sha256 %s, expected %s): downloading it again", path, got, expected
        )
        got = None
    if got is None:
        got = _download(url, path, expected, progress=progress, advice=advice)
        logger.info("downloaded %s (sha256 %s)", path, got)
    return got
