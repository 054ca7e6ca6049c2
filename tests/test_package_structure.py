"""What holds for the package as a whole."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

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
        ("scfound_atac.model", ("torch", "scvi", "matplotlib")),
        ("scfound_atac.train.pretrain", ("scanpy", "scvi")),
        ("scfound_atac.pp", ("torch", "scvi", "matplotlib")),
        ("scfound_atac.tl", ("torch", "scvi", "matplotlib")),
    ],
)
def test_imports_stay_light(module: str, forbidden: tuple[str, ...]) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules, sep='\\n')").splitlines()
    assert sorted(set(forbidden) & set(loaded)) == []


def test_import_loads_little_and_nothing_of_others() -> None:
    """What makes an import slow are other packages; counting modules is sure on a busy machine, as a clock is not."""
    before, after = (
        set(run_python(f"import sys, {name}; print(*sys.modules)").split()) for name in ("os", "scfound_atac")
    )
    packages = {module.partition(".")[0] for module in after - before}
    assert packages - sys.stdlib_module_names == {"scfound_atac"}
    assert len(after - before) < 150


@pytest.mark.parametrize("subpackage", ["pp", "tl"])
def test_shape_of_public_functions(subpackage: str) -> None:
    module = import_module(f"scfound_atac.{subpackage}")
    functions = [value for name in module.__all__ if inspect.isfunction(value := getattr(module, name))]
    assert functions
    for function in functions:
        signature = inspect.signature(function)
        parameters = signature.parameters
        first, *options = parameters.values()
        assert first.name == "adata", function
        optional = {option for option in options if option.default is not inspect.Parameter.empty}
        assert {option.name for option in optional if option.kind is not option.KEYWORD_ONLY} == set(), function
        assert "copy" not in parameters or parameters["copy"].default is False, function
        unannotated = [p.name for p in parameters.values() if p.annotation is inspect.Parameter.empty]
        assert unannotated == [], function
        assert signature.return_annotation is not inspect.Signature.empty, function
        assert inspect.getdoc(function), function


def test_subpackages_are_attributes() -> None:
    assert set(dir(sfa)) == set(sfa.__all__)
    for name in sfa.__all__:
        assert getattr(sfa, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sfa.nothing
