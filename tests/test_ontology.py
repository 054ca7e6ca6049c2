from __future__ import annotations

import pytest

from scfound_atac._ontology import load_cell_ontology
from scfound_atac.genome.elements import load_element_table


@pytest.mark.parametrize("text", ["T cell", "t cells", "T-lymphocyte", "CL:0000084", "cl_0000084", " T cell ", "T"])
def test_a_term_is_found_by_name_synonym_and_id(text) -> None:
    assert load_cell_ontology().find(text) == "CL:0000084"


def test_what_is_no_term() -> None:
    ontology = load_cell_ontology()
    assert ontology.find("T sell") is None
    assert "T cell" in ontology.similar("T sell")
    assert ontology.similar("qqqqqq") == []


def test_ancestors() -> None:
    ontology = load_cell_ontology()
    names = {ontology.names[term] for term in ontology.ancestors(ontology.find("naive B cell"))}
    assert {"naive B cell", "B cell", "lymphocyte", "leukocyte", "cell"} <= names
    assert "T cell" not in names


def test_every_type_is_a_term_and_all_terms_lie_above_one() -> None:
    ontology, table = load_cell_ontology(), load_element_table()
    assert set(table.type_ids) <= set(ontology.names)
    assert [ontology.names[term] for term in table.type_ids] == list(table.type_names)
    assert set(ontology.names) == {above for term in table.type_ids for above in ontology.ancestors(term)}


def test_properties_are_no_types() -> None:
    ontology = load_cell_ontology()
    assert not ontology.is_type(ontology.find("motile cell"))
    assert ontology.is_type(ontology.find("leukocyte"))
    assert all(ontology.is_type(term) for term in load_element_table().type_ids)
