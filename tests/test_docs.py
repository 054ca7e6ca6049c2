"""The API page and the public names are the same list, and code on the pages calls what there is."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import scfound_atac as sfa

ROOT = Path(__file__).parents[1]
API_PAGE = ROOT / "docs" / "api.md"
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


def calls_on_pages() -> dict[str, ast.Call]:
    """Calls of the package in the Python code of README and documentation, by page and text."""
    found = {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            calls = (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call))
            found |= {
                f"{page.name}: {ast.unparse(call)}": call
                for call in calls
                if re.fullmatch(r"sfa(\.\w+)+", ast.unparse(call.func))
            }
    return found


@pytest.mark.parametrize("where", calls_on_pages())
def test_code_on_pages_calls_what_there_is(where: str) -> None:
    call = calls_on_pages()[where]
    value = sfa
    for part in ast.unparse(call.func).split(".")[1:]:
        value = getattr(value, part)
    names = [keyword.arg for keyword in call.keywords if keyword.arg is not None]
    inspect.signature(value).bind(*call.args, **dict.fromkeys(names))
