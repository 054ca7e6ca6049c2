from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scfound_atac.hub.registry import FileEntry, get_entry, list_models, read_registry

GOOD = """
tiny:
  description: a model
  model_class: ChromFound
  licence: MIT
  source: nowhere
  revision: "1"
  bundled: null
  files:
    weights.bin: {url: "http://127.0.0.1/weights.bin", sha256: null}
"""


def test_package_registry() -> None:
    registry = read_registry()
    assert {"chromfound", "chromfound-bmmc"} <= set(registry)
    released = registry["chromfound"]
    assert set(released.files) == {"model.pt", "chromfd_pretrain.yaml", "chromosome_vocab.yaml"}
    assert all(entry.url.startswith("https://") for entry in released.files.values())
    assert released.bundled_dir is None
    assert registry["chromfound-bmmc"].bundled_dir is not None
    assert all("/" not in name for name in registry)


def test_entries_are_frozen() -> None:
    entry = get_entry("chromfound")
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.name = "other"
    with pytest.raises(TypeError):
        entry.files["more"] = FileEntry("http://127.0.0.1/")


def test_read_a_file(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(GOOD)
    assert get_entry("tiny", path).files == {"weights.bin": FileEntry("http://127.0.0.1/weights.bin")}


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("weights.bin:", "../weights.bin:", "not a plain name"),
        ("tiny:", "a/b:", "not a plain name"),
        ("bundled: null", "bundled: ../x", "not a plain name"),
        ("bundled: null", "bundled: tiny", "either be bundled or have files"),
        ("sha256: null", "sha256: abc", "64 lower-case hexadecimal digits"),
        ("licence: MIT", "license: MIT", "incomplete or has an unknown field"),
        ("  files:", "  others:", "incomplete or has an unknown field"),
        ("{url:", "{adress:", "incomplete or has an unknown field"),
    ],
)
def test_bad_registry(tmp_path: Path, old: str, new: str, match: str) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=match):
        read_registry(path)


def test_registry_is_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text("- tiny")
    with pytest.raises(ValueError, match="not a mapping"):
        read_registry(path)


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match=r"Did you mean 'chromfound'\?.*Known models: .*chromfound, chromfound-bmmc"):
        get_entry("chromfuond")
    with pytest.raises(KeyError, match="No model 'zzz' in the registry. Known models"):
        get_entry("zzz")


def test_list_models(tmp_path: Path) -> None:
    table = list_models(cache_dir=tmp_path)
    assert table.index.name == "name"
    assert table.loc["chromfound-bmmc", "available"] == "bundled"
    assert table.loc["chromfound", "available"] == "download"
    assert table.loc["chromfound", "licence"] == "Apache-2.0"
    (tmp_path / "chromfound").mkdir()
    for file in get_entry("chromfound").files:
        (tmp_path / "chromfound" / file).touch()
    assert list_models(cache_dir=tmp_path).loc["chromfound", "available"] == "cached"
