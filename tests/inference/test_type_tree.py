from __future__ import annotations

import numpy as np
import pytest

from scfound_atac.genome.elements import load_element_table
from scfound_atac.inference.type_tree import load_type_tree


def probabilities(**of_types: float) -> np.ndarray:
    """One cell; what is left over is the probability of none."""
    table = load_element_table()
    p = np.zeros((1, table.n_types + 1))
    for name, value in of_types.items():
        p[0, table.type_names.index(name.replace("_", " "))] = value
    p[0, -1] = 1 - p.sum()
    return p


@pytest.mark.parametrize(
    ("p", "name"),
    [
        (probabilities(naive_B_cell=0.9), "naive B cell"),
        (probabilities(naive_B_cell=0.5, memory_B_cell=0.4), "mature B cell"),
        (probabilities(naive_B_cell=0.5, natural_killer_cell=0.4), "lymphocyte"),
        (probabilities(naive_B_cell=0.45, classical_monocyte=0.45), "mononuclear leukocyte"),
        (probabilities(naive_B_cell=0.45, hepatocyte=0.45), None),
        (probabilities(naive_B_cell=0.7), None),
    ],
)
def test_the_most_specific_term_that_holds(p, name) -> None:
    tree = load_type_tree()
    term, probability = tree.decide(p, 0.8)
    assert (None if term[0] < 0 else tree.name(term[0])) == name
    if name is not None:
        assert probability[0] == pytest.approx(0.9)
    else:
        assert probability[0] < 0.8


def test_a_name_says_what_a_cell_is_and_is_given_once() -> None:
    tree = load_type_tree()
    names = [tree.name(i) for i in range(len(tree.terms))]
    assert "motile cell" not in names
    assert "cell" not in names
    assert len({m.tobytes() for m in tree.members}) == len(tree.terms)
    assert set(tree.table.type_ids) <= set(tree.terms)  # every type can be named


def test_candidates() -> None:
    tree = load_type_tree()
    names = np.array(tree.table.type_names)
    assert set(names[tree.allowed(["B cell"])]) == {
        "B cell",
        "memory B cell",
        "naive B cell",
        "transitional stage B cell",
    }
    blood = set(names[tree.allowed(["blood"])])
    assert {"classical monocyte", "megakaryocyte"} <= blood
    assert "hepatocyte" not in blood
    assert set(names[tree.allowed(["CL:0000182", "Blood"])]) == blood | {"hepatocyte"}


@pytest.mark.parametrize("text", ["Blod", "hepatocite", "xyz", ""])
def test_a_candidate_that_does_not_exist(text) -> None:
    with pytest.raises(ValueError, match="neither a tissue nor a cell type"):
        load_type_tree().allowed([text])


def test_hint_for_a_misspelt_candidate() -> None:
    with pytest.raises(ValueError, match="Did you mean 'hepatocyte'"):
        load_type_tree().allowed(["hepatocite"])
