"""Build ``cell_ontology.json``: the part of the Cell Ontology above the cell types that the package knows.

Needs ``pip install cellxgene-ontology-guide==1.11.1 zstandard`` (MIT), which ships the Cell Ontology (CC BY 4.0) in 98 MB of ontologies. Of
each type in ``element_table.npz`` and of its ancestors, the id, the name, synonyms and parents are kept.

    python scripts/build_cell_ontology.py
"""

from __future__ import annotations

import json
from pathlib import Path

from build_element_table import read_ontology

from scfound_atac.genome.elements import load_element_table

OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "cell_ontology.json"


def main() -> None:
    """Read the ontology, keep what is needed, write it."""
    ontology = read_ontology()
    kept = set(load_element_table().type_ids)
    kept |= {ancestor for term in kept for ancestor in ontology[term]["ancestors"]}
    terms = {
        term: {
            "name": ontology[term]["label"],
            "synonyms": sorted(set(ontology[term].get("synonyms") or ()) - {ontology[term]["label"]}),
            "parents": sorted(a for a, steps in ontology[term]["ancestors"].items() if steps == 1),
        }
        for term in sorted(kept)
    }
    lines = ",\n".join(f"{json.dumps(term)}: {json.dumps(facts, ensure_ascii=False)}" for term, facts in terms.items())
    OUT.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{OUT}: {len(terms)} terms, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
