"""Settings for all calls: the folder of downloads, and whether progress bars are shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _read_flag(variable: str, *, default: bool) -> bool:
    value = os.environ.get(variable, "").strip().lower()
    if not value:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    msg = f"Environment variable {variable}={value!r} is neither true nor false. Set it to 1 or 0."
    raise ValueError(msg)


@dataclass
class Settings:
    """Settings of the package; the only instance is `scfound_atac.settings`.

    An assigned value takes precedence over the environment variable, and that over the default. Environment variables are read when a
    value is used, not when the package is imported.
    """

    _cache_dir: Path | None = None
    _progress_bar: bool | None = None

    @property
    def cache_dir(self) -> Path:
        """Folder of downloaded weights and data: ``SCFOUND_ATAC_CACHE_DIR``, or else the cache folder of the operating system.

        Assign a path to change it, or None to reset it. The folder is created at the first download.
        """
        if self._cache_dir is not None:
            return self._cache_dir
        if value := os.environ.get("SCFOUND_ATAC_CACHE_DIR"):
            return Path(value).expanduser()
        import pooch

        return Path(pooch.os_cache("scfound_atac"))

    @cache_dir.setter
    def cache_dir(self, value: str | os.PathLike[str] | None) -> None:
        if value is None:
            self._cache_dir = None
            return
        if not isinstance(value, str | os.PathLike) or not str(value):
            msg = f"settings.cache_dir must be a path or None, got {value!r}."
            raise TypeError(msg)
        path = Path(value).expanduser()
        if path.exists() and not path.is_dir():
            msg = f"settings.cache_dir must be a folder, and {str(path)!r} is a file."
            raise ValueError(msg)
        self._cache_dir = path

    @property
    def progress_bar(self) -> bool:
        """Whether progress bars are shown: ``SCFOUND_ATAC_PROGRESS_BAR`` (1 or 0), or else True."""
        if self._progress_bar is not None:
            return self._progress_bar
        return _read_flag("SCFOUND_ATAC_PROGRESS_BAR", default=True)

    @progress_bar.setter
    def progress_bar(self, value: bool | None) -> None:
        if value is not None and not isinstance(value, bool):
            msg = f"settings.progress_bar must be True, False or None, got {value!r}."
            raise TypeError(msg)
        self._progress_bar = value

    def __repr__(self) -> str:
        return f"Settings(cache_dir={str(self.cache_dir)!r}, progress_bar={self.progress_bar})"


settings = Settings()
