"""Download a file once, and check it at every use."""

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
    """Download into a private folder next to the target, check the file and move it to the target. Returns its sha256.

    It is built from parts of pooch. ``pooch.retrieve`` itself would keep the permissions of the temporary file, which exclude other users
    of a shared cache, and print its own messages.
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
                f"Without a network, download the file on another machine and copy it here by hand{checksum}: {str(path)!r}."
            )
            raise ConnectionError(msg) from error
        got = _sha256(partial)
        if expected is not None and got != expected:
            msg = (
                f"{url} returned a file with a wrong checksum for {path.name!r}: expected sha256 {expected}, got {got}. The "
                f"download was removed. {advice}"
            )
            raise ValueError(msg)
        partial.replace(path)
    return got


def fetch_file(path: Path, url: str, expected: str | None, *, progress: bool, advice: str = _ADVICE) -> str:
    """Make sure that `path`, in an existing folder, is the file of a URL.

    A file with the correct sha256 is used without network access; a damaged one is downloaded again.

    Parameters
    ----------
    path
        Path of the file.
    url
        Address to download it from.
    expected
        Its sha256; None accepts any.
    progress
        Show a progress bar.
    advice
        Advice for the message about a wrong checksum.

    Returns
    -------
    The sha256 of the file.

    Raises
    ------
    ValueError
        If the download has another checksum than `expected`. It is removed.
    ConnectionError
        If the network or the server fails, or the download ends early. No partial file is left; the message says where to copy the file
        by hand.
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
