"""What holds for the package as a whole."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import scfound_atac as sfa
from scfound_atac.inference import kinds

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
        ("scfound_atac.pl", ("torch", "scvi", "scanpy", "matplotlib")),
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


SOURCE = Path(sfa.__file__).parent


def imports(file: Path) -> list[str]:
    """Modules of the package that a file imports, written from the package's root: ``data.cells``."""
    room = file.relative_to(SOURCE).with_suffix("").parts[:-1]
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = room[: len(room) - node.level + 1]
            found.append(".".join((*above, *(node.module or "").split("."))).strip("."))
    return found


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda x: str(x.relative_to(SOURCE)))
def test_rooms_do_not_read_the_private_files_of_others(file: Path) -> None:
    room = file.relative_to(SOURCE).parts[0]
    others = [name for name in imports(file) if "." in name and not name.startswith(f"{room}.")]
    assert [name for name in others if any(part.startswith("_") for part in name.split(".")[1:])] == []


@pytest.mark.parametrize("room", ["bench", "model", "pl", "pp", "tl"])
def test_kinds_of_models_are_named_in_one_table(room: str) -> None:
    """What a model can do is asked of its kind; a comparison with the name of a class would be a second table."""
    names = {*kinds.KINDS} - {"ChromFound", "EpiFoundation", "RegionSet"}  # classes of `model` have these names
    for file in (SOURCE / room).glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not names & texts, file
        compared = [
            node for node in ast.walk(tree) if isinstance(node, ast.Compare) and "model_class" in ast.unparse(node)
        ]
        allowed = {"_chromfound.py", "_epifoundation.py", "_region_set.py"} if room == "model" else set()
        assert not compared or file.name in allowed, file


@pytest.mark.parametrize("subpackage", ["pp", "tl"])
def test_shape_of_public_functions(subpackage: str) -> None:
    module = import_module(f"scfound_atac.{subpackage}")
    functions = [value for name in module.__all__ if inspect.isfunction(value := getattr(module, name))]
    assert functions
    for function in functions:
        signature = inspect.signature(function)
        parameters = signature.parameters
        first, *options = parameters.values()
        assert first.name == ("mdata" if first.annotation == "MuData" else "adata"), function
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
