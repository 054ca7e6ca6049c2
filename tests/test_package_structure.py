"""What holds for the package as a whole."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from time import perf_counter

import pytest

import scfound_atac as sfa

SLOW_PACKAGES = ("lightning", "matplotlib", "numba", "scanpy", "scvi", "torch")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("scfound_atac", SLOW_PACKAGES),
        ("scfound_atac.genome", ("torch", "scvi", "scanpy", "matplotlib")),
        ("scfound_atac.nn", ("anndata", "mudata", "scanpy", "scvi", "matplotlib")),
        ("scfound_atac.pp", ("torch", "scvi", "matplotlib")),
        ("scfound_atac.tl", ("torch", "scvi", "matplotlib")),
    ],
)
def test_imports_stay_light(module: str, forbidden: tuple[str, ...]) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules, sep='\\n')").splitlines()
    assert sorted(set(forbidden) & set(loaded)) == []


def test_import_takes_less_than_a_second() -> None:
    def seconds(code: str) -> float:
        start = perf_counter()
        run_python(code)
        return perf_counter() - start

    interpreter = min(seconds("pass") for _ in range(3))
    assert min(seconds("import scfound_atac") for _ in range(3)) - interpreter < 1


def public_functions() -> list[tuple[str, Callable[..., object]]]:
    modules = [(short, import_module(f"scfound_atac.{short}")) for short in ("pp", "tl", "pl")]
    return [
        (f"{short}.{name}", getattr(module, name))
        for short, module in modules
        for name in getattr(module, "__all__", ())
        if inspect.isfunction(getattr(module, name))
    ]


@pytest.mark.parametrize(("name", "function"), public_functions(), ids=lambda value: value if isinstance(value, str) else "")
def test_shape_of_public_functions(name: str, function: Callable[..., object]) -> None:
    signature = inspect.signature(function)
    first, *options = signature.parameters.values()
    assert first.name == "adata"
    assert {option.name for option in options if option.kind is not inspect.Parameter.KEYWORD_ONLY} == set()
    if "copy" in signature.parameters:
        assert signature.parameters["copy"].default is False
    unannotated = [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
    assert unannotated == []
    assert signature.return_annotation is not inspect.Signature.empty
    assert inspect.getdoc(function), f"{name} has no docstring"


def test_subpackages_are_attributes() -> None:
    assert set(dir(sfa)) == set(sfa.__all__)
    for name in sfa.__all__:
        assert getattr(sfa, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sfa.nothing
