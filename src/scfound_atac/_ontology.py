"""The part of the Cell Ontology above the cell types that the package knows: names, synonyms, and the tree.

The file ``cell_ontology.json`` is made by ``scripts/build_cell_ontology.py`` from the Cell Ontology (Diehl et al. 2016; CC BY 4.0).
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Terms that say what a cell does or looks like, not what it is: they are never given as the name of a cell.
_PROPERTIES = frozenset(
    (
        "cell",
        "eukaryotic cell",
        "nucleate cell",
        "single nucleate cell",
        "multinucleate cell",
        "syncytial cell",
        "motile cell",
        "secretory cell",
        "stuff accumulating cell",
        "contractile cell",
        "neuron associated cell",
        "electrically active cell",
        "electrically responsive cell",
        "electrically signaling cell",
        "precursor cell",
        "progenitor cell",
        "stem cell",
        "perivascular cell",
        "bone cell",
        "embryonic cell (metazoa)",
    )
)


@dataclass(frozen=True)
class CellOntology:
    """Terms by their id: names, synonyms and parents."""

    names: dict[str, str]
    synonyms: dict[str, tuple[str, ...]]
    parents: dict[str, tuple[str, ...]]

    @cached_property
    def _by_text(self) -> dict[str, str]:
        """Ids by name, synonym and id in lower case; a name goes before a synonym of another term."""
        texts = {text.lower(): term for term, given in self.synonyms.items() for text in given}
        texts |= {term.lower(): term for term in self.names}
        return texts | {name.lower(): term for term, name in self.names.items()}

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}

        def ancestors(term: str) -> frozenset[str]:
            if term not in found:
                found[term] = frozenset((term,)).union(*(ancestors(parent) for parent in self.parents[term]))
            return found[term]

        return {term: ancestors(term) for term in self.names}

    def ancestors(self, term: str) -> frozenset[str]:
        """The term itself and all terms above it."""
        return self._ancestors[term]

    def is_type(self, term: str) -> bool:
        """Whether a term says what a cell is, so that it can be its name; ``"motile cell"`` does not."""
        return self.names[term] not in _PROPERTIES

    def find(self, text: str) -> str | None:
        """Id of a term by its id, name or synonym, in any case, also in the plural or without "cell"; None if there is none."""
        wanted = text.strip().lower()
        singular = [wanted.removesuffix("s"), wanted.removesuffix("es")]
        spellings = (wanted, wanted.replace("_", ":"), *singular, f"{wanted} cell", f"{singular[0]} cell")
        return next((self._by_text[x] for x in spellings if x in self._by_text), None)

    def similar(self, text: str, others: Iterable[str] = ()) -> list[str]:
        """Names, synonyms and `others` that resemble a text, for messages."""
        known = {name.lower(): name for name in [*self.names.values(), *others]}
        known |= {x: self.names[term] for x, term in self._by_text.items() if x not in known}
        close = difflib.get_close_matches(text.strip().lower(), known, n=5, cutoff=0.6)
        return list(dict.fromkeys(known[x] for x in close))[:3]


@cache
def load_cell_ontology() -> CellOntology:
    """The ontology in the package, which is read only once."""
    terms = json.loads(Path(__file__).with_name("cell_ontology.json").read_text(encoding="utf-8"))
    return CellOntology(
        names={term: facts["name"] for term, facts in terms.items()},
        synonyms={term: tuple(facts["synonyms"]) for term, facts in terms.items()},
        parents={term: tuple(facts["parents"]) for term, facts in terms.items()},
    )
