from __future__ import annotations

from pathlib import Path

import pytest

from scfound_atac._settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCFOUND_ATAC_CACHE_DIR", raising=False)
    monkeypatch.delenv("SCFOUND_ATAC_PROGRESS_BAR", raising=False)


def test_defaults() -> None:
    settings = Settings()
    assert "scfound_atac" in str(settings.cache_dir)
    assert settings.progress_bar is True


def test_public_instance() -> None:
    import scfound_atac as sfa

    assert isinstance(sfa.settings, Settings)


def test_environment_is_read_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings()
    monkeypatch.setenv("SCFOUND_ATAC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "off")
    assert settings.cache_dir == tmp_path
    assert settings.progress_bar is False


def test_assignment_wins_and_none_resets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_CACHE_DIR", str(tmp_path / "env"))
    settings = Settings()
    settings.cache_dir = str(tmp_path / "mine")
    settings.progress_bar = False
    assert settings.cache_dir == tmp_path / "mine"
    assert not settings.cache_dir.exists()  # asking does not make folders
    assert settings.progress_bar is False
    settings.cache_dir = None
    settings.progress_bar = None
    assert settings.cache_dir == tmp_path / "env"
    assert settings.progress_bar is True


@pytest.mark.parametrize("value", [3, "", b"folder"])
def test_cache_dir_wrong_type(value: object) -> None:
    settings = Settings()
    with pytest.raises(TypeError, match="cache_dir must be a path or None"):
        settings.cache_dir = value


def test_cache_dir_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings()
    with pytest.raises(ValueError, match="is a file"):
        settings.cache_dir = tmp_path / "file"


@pytest.mark.parametrize("value", [1, "yes"])
def test_progress_bar_wrong_type(value: object) -> None:
    settings = Settings()
    with pytest.raises(TypeError, match="progress_bar must be True, False or None"):
        settings.progress_bar = value


def test_progress_bar_wrong_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "maybe")
    with pytest.raises(ValueError, match="SCFOUND_ATAC_PROGRESS_BAR='maybe'.*Set it to 1 or 0"):
        _ = Settings().progress_bar
