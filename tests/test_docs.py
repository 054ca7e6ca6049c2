"""The API page and the public names are the same list."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import scfound_atac as sfa

API_PAGE = Path(__file__).parents[1] / "docs" / "api.md"
SUBPACKAGES = sorted(set(sfa.__all__) - {"__version__", "settings"})


def names_on_page() -> list[str]:
    """What the summaries list, and the constants, which are described on the page itself."""
    page = API_PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. autosummary::\n(.*?)```", page, flags=re.DOTALL)
    listed = [
        line.strip() for block in blocks for line in block.splitlines() if line.strip() and ":toctree:" not in line
    ]
    return listed + re.findall(r"^- `([\w.]+)`:", page, flags=re.MULTILINE)


def test_no_name_twice() -> None:
    names = names_on_page()
    assert len(names) == len(set(names))
    assert {name.partition(".")[0] for name in names} <= {*SUBPACKAGES, "settings"}


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_page_lists_public_names(subpackage: str) -> None:
    public = set(import_module(f"scfound_atac.{subpackage}").__all__)
    listed = {name.partition(".")[2] for name in names_on_page() if name.startswith(f"{subpackage}.")}
    assert listed == public


@pytest.mark.parametrize("name", names_on_page())
def test_listed_names_are_documented(name: str) -> None:
    value = sfa
    for part in name.split("."):
        value = getattr(value, part)
    if callable(value):
        assert value.__doc__
