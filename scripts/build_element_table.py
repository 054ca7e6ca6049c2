"""Build ``element_table.npz``: the regulatory elements of REMO v1 with their cell types, and elements of progenitors and stem cells.

Needs packages that the library does not: ``pip install remopy==1.1.0 pyarrow cellxgene-ontology-guide==1.11.1 zstandard``.

    python scripts/build_element_table.py --data DIR

1. Elements, modules, GC and cell types are those of REMO v1 as ``remopy`` ships them (Artistic License 2.0). Types of a module are in its
   order. Bounds are rounded outwards to 10 bases; names of types are replaced by ids of the Cell Ontology.
2. REMO lacks blood progenitors, red cells, platelets and stem cells. For each of ADDED, the N_MARKED bins of ``biosamples.h5ad`` (in
--data)
   whose signal is most specific for its bulk samples are found, and the elements that overlap one are marked. From the bins of a progenitor
   those that are open in its mature descendants (DESCENDANTS) are left out, because else these would be called progenitors.
3. Each element gets a class, by the fraction of the bulk samples in which it is open and by the mean rank of its signal there. Within a
class,
   the mean weight of a cell type is what chance gives.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scfound_atac.genome import CHROMOSOMES, get_ocrs, overlaps
from scfound_atac.genome.elements import BUNDLED_ELEMENTS, NO_TYPE, UNIT, ElementTable

OUT = Path(__file__).parents[1] / "src" / "scfound_atac" / "genome" / BUNDLED_ELEMENTS
N_MARKED = 8_000
ADDED = {
    "hematopoietic precursor cell": (
        "HSC",
        "MPP",
        "LMPP",
        "HSC G-CSF-mobilized (female)",
        "HSC G-CSF-mobilized (male)",
        "Cd34mobilized",
    ),
    "common lymphoid progenitor": ("CLP",),
    "granulocyte monocyte progenitor cell": ("GMP-A", "GMP-B", "GMP-C"),
    "erythroid lineage cell": ("Ery",),
    "megakaryocyte": ("Mega",),
    "embryonic stem cell": ("H1 cells", "H9 cells", "iPS DF 6.9", "iPS DF 19.11", "H9es", "Ips", "H7hesc", "H1hesc"),
}
DESCENDANTS = {
    "common lymphoid progenitor": ("B", "primary B cells", "Cd20"),
    "granulocyte monocyte progenitor cell": ("Mono", "primary monocytes", "Monocytescd14ro01746", "mDC", "pDC"),
}
# Bounds of the classes: fraction of bulk samples in which an element is open, and mean rank of its signal (1 to 255) there.
OPENNESS = (1e-9, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 0.95)
STRENGTH = (85, 115)
_BLOOD = ("Blood", "Bone Marrow")


def folder_of(package: str) -> Path:
    """Folder of the data of a package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        msg = f"{package} is not installed; see the first lines of this script."
        raise SystemExit(msg)
    return Path(next(iter(found.submodule_search_locations))) / "data"


def read_remo(folder: Path) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Elements, the module of each, and the table of modules."""
    with gzip.open(folder / "REMOv1_GRCh38.bed.gz", "rt") as file:
        elements = pd.read_csv(file, sep="\t", header=None, names=["chrom", "start", "end", "name"])
    module = elements.pop("name").str.rsplit("-", n=1).str[1].astype(np.int64).to_numpy() - 1
    modules = pd.read_parquet(folder / "metadata.parquet")
    assert (modules["REMO"] == [f"REMOv1.GRCh38-{i + 1}" for i in range(len(modules))]).all()
    return elements, module, modules


def type_ids(folder: Path, names: list[str]) -> list[str]:
    """Cell Ontology id of each type of REMO: that of its name or, if the ontology has another name, that in REMO."""
    ontology = read_ontology()
    by_name = {entry["label"]: key for key, entry in ontology.items() if not entry["deprecated"]}
    by_modules = {frozenset(v): k for k, v in json.loads((folder / "cl_ids.json").read_text()).items()}
    of_type = json.loads((folder / "terms.json").read_text())
    return [by_name.get(name, by_modules[frozenset(of_type[name])]) for name in names]


def read_ontology() -> dict:
    """The Cell Ontology of cellxgene-ontology-guide."""
    import zstandard

    path = sorted(folder_of("cellxgene_ontology_guide").glob("CL-ontology-*.json.zst"))[-1]
    with path.open("rb") as file:
        return json.loads(zstandard.ZstdDecompressor().stream_reader(file).read())


def ranked_types(modules: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Numbers of the types of each module in the order of REMO, (n_modules, 5)."""
    number = {name: i for i, name in enumerate(names)}
    ranked = np.full((len(modules), 5), NO_TYPE, dtype=np.uint8)
    for i, text in enumerate(modules["CL"]):
        types = [number[name] for name in text.split(" | ")] if text else []
        ranked[i, : len(types)] = types
    return ranked


def specific_bins(ranks: sparse.csr_matrix, samples: np.ndarray, sorted_blood: np.ndarray, name: str) -> np.ndarray:
    """The bins that are most specific for one of ADDED.

    The mean signal in its samples, minus the mean over all others; for blood, half of what is subtracted is the mean over the other sorted
    blood samples, which are few among 180.
    """
    signal = ranks.astype(np.float32)
    signal.data = 0.3 + 0.7 * signal.data / 255

    def mean(rows: np.ndarray) -> np.ndarray:
        return np.asarray(signal[rows].mean(axis=0)).ravel()

    own = np.isin(samples, ADDED[name])
    others = mean(~own)
    if name != "embryonic stem cell":
        others = 0.5 * others + 0.5 * mean(~own & sorted_blood)
    score = mean(own) - others
    if name in DESCENDANTS:
        score[ranks[np.isin(samples, DESCENDANTS[name])].getnnz(axis=0) > 0] = -np.inf
    return np.argsort(-score, kind="stable")[:N_MARKED]


def mean_over_bins(elements: pd.DataFrame, bins: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Mean of `values` over the bins that each element overlaps, 0 where there is none."""
    shared = overlaps(elements, bins)
    weight = shared["n_bases"].to_numpy()
    total = np.bincount(shared["a"], weights=weight, minlength=len(elements))
    summed = np.bincount(shared["a"], weights=weight * values[shared["b"].to_numpy()], minlength=len(elements))
    return np.divide(summed, total, out=np.zeros(len(elements)), where=total > 0)


def main() -> None:
    """Read the command line, build the table, write it."""
    parser = argparse.ArgumentParser(description="Build the table of regulatory elements.")
    parser.add_argument("--data", type=Path, required=True, help="directory of biosamples.h5ad")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()

    folder = folder_of("remopy")
    elements, module, modules = read_remo(folder)
    names = sorted({name for text in modules["CL"] if text for name in text.split(" | ")})
    ids = type_ids(folder, names)
    ontology = read_ontology()
    by_name = {entry["label"]: key for key, entry in ontology.items() if not entry["deprecated"]}

    # Genome order, and modules numbered by their first element.
    order = np.lexsort((elements["start"], elements["chrom"].map({c: i for i, c in enumerate(CHROMOSOMES)})))
    elements, module = elements.iloc[order].reset_index(drop=True), module[order]
    seen, first = np.unique(module, return_index=True)
    assert (np.diff(first) > 0).all()
    assert (seen == np.arange(len(modules))).all()

    biosamples = ad.read_h5ad(args.data / "biosamples.h5ad")
    bins = get_ocrs(biosamples.var)[["chrom", "start", "end"]].reset_index(drop=True)
    ranks = sparse.csr_matrix(biosamples.X)
    samples = biosamples.obs["biosample"].astype(str).to_numpy()
    sorted_blood = (biosamples.obs["source"] == "sorted haematopoiesis").to_numpy()
    n_open = np.bincount(ranks.indices, minlength=ranks.shape[1])
    strength = np.bincount(ranks.indices, weights=ranks.data, minlength=ranks.shape[1]) / np.maximum(n_open, 1)
    openness = mean_over_bins(elements, bins, n_open / len(samples))
    level = np.digitize(openness, OPENNESS)
    strong = np.digitize(mean_over_bins(elements, bins, strength), STRENGTH)
    stratum = np.where(level == 0, 0, 1 + (level - 1) * (len(STRENGTH) + 1) + strong)

    marked = []
    for name in ADDED:
        chosen = bins.iloc[specific_bins(ranks, samples, sorted_blood, name)]
        marked.append(np.unique(overlaps(elements, chosen)["a"].to_numpy()).astype(np.int32))
        print(f"{name}: {len(marked[-1]):,} elements")
    number = {name: i for i, name in enumerate(names)}
    tissues = {
        tissue: [number[name] for name in types if name in number]
        for tissue, types in json.loads((folder / "tissues.json").read_text()).items()
        if tissue != "unmapped"
    }
    for tissue in _BLOOD:
        tissues[tissue] += range(len(names), len(names) + len(ADDED) - 1)
    all_ids = [*ids, *(by_name[name] for name in ADDED)]
    table = ElementTable(
        n_per_chromosome=np.array([(elements["chrom"] == c).sum() for c in CHROMOSOMES]),
        start=elements["start"].to_numpy(np.int64) // UNIT * UNIT,
        end=-(-elements["end"].to_numpy(np.int64) // UNIT) * UNIT,
        module=module.astype(np.int32),
        ranked=ranked_types(modules, names),
        gc=np.round(modules["GC_mean"].to_numpy()).astype(np.uint8),
        stratum=stratum.astype(np.uint8),
        marked=tuple(marked),
        type_ids=tuple(all_ids),
        type_names=tuple(ontology[key]["label"] for key in all_ids),
        tissues=tissues,
    )
    table.save(args.out)
    print(f"{args.out}: {len(elements):,} elements, {table.n_types} types, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
