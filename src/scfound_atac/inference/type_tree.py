"""How exactly a cell can be named: the most specific term of the Cell Ontology whose probability holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from .._ontology import load_cell_ontology
from ..genome.elements import load_element_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .._ontology import CellOntology
    from ..genome.elements import ElementTable


@dataclass(frozen=True)
class TypeTree:
    """The types of the element table, and the terms above them.

    Attributes
    ----------
    terms
        Ids, from specific to general: by the number of types below, then by depth.
    members
        Whether a type is a term or lies below it, (n_terms, n_types).
    """

    terms: tuple[str, ...]
    members: NDArray[np.bool_]
    ontology: CellOntology
    table: ElementTable

    def name(self, term: int) -> str:
        """Name of the term of this number."""
        return self.ontology.names[self.terms[term]]

    def decide(
        self, probabilities: NDArray[np.float64], threshold: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The most specific term of each cell that is as probable as `threshold`, -1 if none is, and its probability, both (n,).

        Parameters
        ----------
        probabilities
            Of each type and, in the last column, of none of them, (n, n_types + 1).
        threshold
            Above one half, so that two terms that exclude each other cannot both reach it.
        """
        of_terms = probabilities[:, :-1] @ self.members.T  # (n, n_terms)
        holds = of_terms >= threshold
        term = np.where(holds.any(axis=1), holds.argmax(axis=1), -1)
        probability = np.where(term >= 0, of_terms[np.arange(len(term)), term], of_terms.max(axis=1))
        return term, np.minimum(probability, 1.0)

    def allowed(self, candidates: Iterable[str]) -> NDArray[np.bool_]:
        """Mask of the types that candidates stand for: names or ids of terms, whose children are included, or tissues.

        Raises
        ------
        ValueError
            If a candidate is neither a tissue nor a term that stands for a type.
        """
        mask = np.zeros(self.table.n_types, dtype=bool)
        tissues = {tissue.lower(): types for tissue, types in self.table.tissues.items()}
        number = {term: i for i, term in enumerate(self._all_terms)}
        for candidate in candidates:
            term = self.ontology.find(candidate)
            if candidate.strip().lower() in tissues:
                mask[list(tissues[candidate.strip().lower()])] = True
            elif term in number:
                mask |= self._all_members[number[term]]
            else:
                close = self.ontology.similar(candidate, self.table.tissues)
                hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
                msg = (
                    f"candidates= has {candidate!r}, which is neither a tissue nor a cell type that is known. {hint}Tissues: "
                    f"{', '.join(sorted(self.table.tissues))}. Types are terms of the Cell Ontology, by name, synonym or id ('CL:0000084')."
                )
                raise ValueError(msg)
        return mask

    @cached_property
    def _all_terms(self) -> list[str]:
        return sorted({a for term in self.table.type_ids for a in self.ontology.ancestors(term)})

    @cached_property
    def _all_members(self) -> NDArray[np.bool_]:
        return _members(self._all_terms, self.table, self.ontology)


def _members(terms: Iterable[str], table: ElementTable, ontology: CellOntology) -> NDArray[np.bool_]:
    above = [ontology.ancestors(term) for term in table.type_ids]
    return np.array([[term in ancestors for ancestors in above] for term in terms])


@cache
def load_type_tree() -> TypeTree:
    """The tree of the types in the package. Of terms with the same types below, only the lowest is a name."""
    table, ontology = load_element_table(), load_cell_ontology()
    terms = sorted({a for term in table.type_ids for a in ontology.ancestors(term) if ontology.is_type(a)})
    members = _members(terms, table, ontology)
    depth = [len(ontology.ancestors(term)) for term in terms]
    order = sorted(range(len(terms)), key=lambda i: (members[i].sum(), -depth[i], terms[i]))
    kept, seen = [], set()
    for i in order:
        if (key := members[i].tobytes()) not in seen:
            seen.add(key)
            kept.append(i)
    return TypeTree(tuple(terms[i] for i in kept), members[kept], ontology, table)
