"""Train the annotator ``bone-marrow`` of the package on one donor, and write it in little space.

    python scripts/build_bone_marrow_annotator.py --data DIR --out src/scfound_atac/hub/bundled/bone-marrow

DIR holds ``bone_marrow_atac.h5ad``. Only cells of donor BMMC_D6T1 are read. What is stored of single cells are the coordinates of 1,000 of
them along the directions in which classes differ, which novelty is measured to.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from safetensors.numpy import load_file, save_file

import scfound_atac as sfa
from scfound_atac.model._head_folder import UNIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scfound_atac.train.linear_head import LinearHead

DONOR, KEY, BACKBONE = "BMMC_D6T1", "cell_type", "region-set"
# Names of the published clusters (Granja et al. 2019). Clusters of one type are joined.
NAMES = {
    "01_HSC": "hematopoietic stem cell",
    "05_CMP.LMPP": "common myeloid or lympho-myeloid progenitor",
    "06_CLP.1": "common lymphoid progenitor",
    "07_GMP": "granulocyte-monocyte progenitor",
    "11_CD14.Mono.1": "CD14 monocyte",
    "12_CD14.Mono.2": "CD14 monocyte",
    "15_CLP.2": "common lymphoid progenitor",
    "16_Pre.B": "pre-B cell",
    "17_B": "B cell",
    "19_CD8.N": "CD8 naive T cell",
    "20_CD4.N1": "CD4 naive T cell",
    "21_CD4.N2": "CD4 naive T cell",
    "22_CD4.M": "CD4 memory T cell",
    "23_CD8.EM": "CD8 effector memory T cell",
    "24_CD8.CM": "CD8 central memory T cell",
    "25_NK": "NK cell",
}
N_REFERENCE = 1_000
# Arrays with at least so many rows are stored in whole numbers.
MIN_ROWS = 500


def with_fewer_cells(head: LinearHead) -> LinearHead:
    """A head with fewer reference cells. All cells are then farther from them, by a factor that thresholds share."""
    rows = np.random.default_rng(0).permutation(len(head.reference))
    kept, others = rows[:N_REFERENCE], head.reference[rows[N_REFERENCE:]]
    fewer = replace(head, reference=head.reference[kept])
    identity = {
        "center": np.zeros(others.shape[1], np.float32),
        "projection": np.eye(others.shape[1], dtype=np.float32),
    }
    farther = np.median(replace(fewer, **identity).distance(others)) / np.median(
        replace(head, **identity).distance(others, skip=1)
    )
    scale = np.float32(farther)
    return replace(fewer, thresholds=head.thresholds * scale, typical=head.typical * scale)


def in_whole_numbers(x: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    unit = np.maximum(np.abs(x).max(axis=0), 1e-12) / 127
    return np.round(x / unit).astype(np.int8), unit.astype(np.float32)


def shrink(folder: Path) -> None:
    """Remove the backbone, of which the name is kept, and store long tables in whole numbers."""
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    facts = folder / "head.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"backbone": BACKBONE}, indent=2) + "\n")
    path = folder / "head.safetensors"
    arrays = {}
    for name, x in load_file(path).items():
        if x.ndim == 2 and len(x) >= MIN_ROWS:
            arrays[name], arrays[name + UNIT] = in_whole_numbers(x)
        else:
            arrays[name] = x
    save_file(arrays, path)
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with bone_marrow_atac.h5ad")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    marrow = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
    reference = marrow[marrow.obs["donor"] == DONOR].copy()
    reference.obs[KEY] = reference.obs[KEY].astype(str).map(NAMES)
    annotator = sfa.model.CellAnnotator(BACKBONE).train(reference, KEY)
    annotator._heads = {name: with_fewer_cells(head) for name, head in annotator._heads.items()}
    shrink(annotator.save(args.out, overwrite=True))
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{args.out}: {size / 1e6:.2f} MB; {annotator.report}")


if __name__ == "__main__":
    main()
