"""Docstrings of everything public: no placeholder is left, and every parameter is documented."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import scfound_atac as sfa
from scfound_atac._docs import PARAMETERS, shared_docs

ROOMS = [sfa.bench, sfa.datasets, sfa.genome, sfa.get, sfa.hub, sfa.model, sfa.nn, sfa.pl, sfa.pp, sfa.tl]
IS_SEEN = {"self", "cls", "args", "kwargs"}  # not documented one by one


def own_methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods that the class itself defines, unbound."""
    for name, member in vars(cls).items():
        function = getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def public() -> Iterator[Any]:
    for room in ROOMS:
        names = getattr(room, "__all__", [name for name in vars(room) if not name.startswith("_")])
        for name in names:
            value = getattr(room, name)
            if not (inspect.isfunction(value) or inspect.isclass(value)) or not value.__module__.startswith(
                "scfound_atac"
            ):
                continue
            label = f"{room.__name__.rpartition('.')[2]}.{name}"
            yield pytest.param(value, id=label)
            if inspect.isclass(value):
                for method, function in own_methods(value):
                    yield pytest.param(function, id=f"{label}.{method}")


PUBLIC = list(public())


def section(doc: str, *titles: str) -> str:
    """The text below a title of a numpy-style docstring, up to the next one."""
    for title in titles:
        if found := re.search(rf"^{title}\n-+\n(.*?)(?=^\S[^\n]*\n---|\Z)", doc, flags=re.DOTALL | re.MULTILINE):
            return found[1]
    return ""


@pytest.mark.parametrize("what", PUBLIC)
def test_no_placeholder_is_left(what: Any) -> None:
    doc = inspect.getdoc(what)
    assert doc, "it has no docstring"
    assert not re.search(r"^\s*\{\w+\}\s*$", doc, flags=re.MULTILINE)


def names_in(doc: str, *titles: str) -> set[str]:
    lines = re.findall(r"^(\S.*)$", section(doc, *titles), flags=re.MULTILINE)
    return {name.strip(" *") for line in lines for name in line.partition(" : ")[0].split(",")}


# Networks are documented by a glossary and by shapes, not by lists of parameters.
@pytest.mark.parametrize("what", [param for param in PUBLIC if not param.id.startswith("nn.")])
def test_every_parameter_is_documented(what: Any) -> None:
    doc = inspect.getdoc(what) or ""
    wanted = set(inspect.signature(what).parameters) - IS_SEEN
    if inspect.isfunction(what) and not section(
        doc, "Parameters"
    ):  # a short function names its arguments in its sentence
        documented = set(re.findall(r"`(\w+)`", doc))
    else:
        documented = names_in(doc, "Parameters", "Attributes")
        unknown = names_in(doc, "Parameters") - wanted - IS_SEEN
        assert not unknown, f"the signature has no {sorted(unknown)}"
    assert wanted <= documented, f"not documented: {sorted(wanted - documented)}"


def test_placeholders_are_filled_at_their_indent() -> None:
    @shared_docs
    def function(seed: int) -> int:
        """Do.

        Parameters
        ----------
        seed
            {seed}
        """
        return seed

    assert f"        seed\n            {PARAMETERS['seed']}\n" in str(function.__doc__)
    assert function(3) == 3


def test_an_unknown_placeholder_is_an_error() -> None:
    def function() -> None:
        """Do.

        {nothing_of_that_name}
        """

    with pytest.raises(KeyError, match="nothing_of_that_name"):
        shared_docs(function)


def test_without_docstrings() -> None:
    def function() -> None: ...

    assert shared_docs(function) is function
