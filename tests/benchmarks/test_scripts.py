"""Benchmarks and scripts call what there is: they are run by hand and seldom, and would otherwise fall behind the package."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import scfound_atac as sfa

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "scripts").rglob("*.py")])


def value_of(path: str) -> Any:
    """What ``sfa.a.b`` stands for."""
    value = sfa
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    return value


def is_of_package(node: ast.AST) -> bool:
    """Whether a node is ``sfa.a.b``, and not an attribute of what a call returned."""
    return isinstance(node, ast.Attribute) and re.fullmatch(r"sfa(\.\w+)+", ast.unparse(node)) is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_imported_is_there(path: Path) -> None:
    """Also inside functions, where nothing would be noticed before they are called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scfound_atac"):
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"line {node.lineno}: {node.module} has no {alias.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_called_is_there_and_takes_the_arguments(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and is_of_package(node.func):
            call = ast.unparse(node.func)
            if any(isinstance(x, ast.Starred) for x in node.args):
                value_of(call)
                continue
            names = [keyword.arg for keyword in node.keywords]
            signature = inspect.signature(value_of(call))
            given = dict.fromkeys(name for name in names if name is not None)
            bind = signature.bind_partial if None in names else signature.bind  # **options may hold the others
            try:
                bind(*node.args, **given)
            except TypeError as error:
                pytest.fail(f"line {node.lineno}: {call}: {error}")
        elif is_of_package(node):
            value_of(ast.unparse(node))


def test_files_are_found() -> None:
    assert {"zero_shot", "imputation", "demo", "train_bundled", "simulate"} <= {path.stem for path in FILES}
