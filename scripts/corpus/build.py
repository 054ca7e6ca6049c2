"""Build the training corpus of this package's own weights: real cells and simulated studies, as a folder of h5ad files.

    python scripts/corpus/build.py DIR CORPUS --n-studies 60

``docs/corpus.md`` describes what it writes. The form of a corpus, which may hold any cells, is defined in
``src/scfound_atac/data/corpus.py``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from scipy import sparse

from scfound_atac._logging import logger
from scfound_atac.genome import chromosome_ids, genome_order, get_ocrs, ocr_names
from simulate import StudyDesign, biosample_similarity, random_design, simulate_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

TRAINING_DONORS = ("BMMC_D6T1",)
"""Donors of the bone-marrow cells that may be trained on; the others are for testing."""

BLOOD_SOURCE = "sorted haematopoiesis"
"""Source of the sorted blood samples, all of which are blood."""

BLOOD_BIOSAMPLES = frozenset(
    (
        # Roadmap: primary cells; the thymus is T cells for the most part
        "primary monocytes",
        "primary B cells",
        "primary T cells, cord blood",
        "primary T cells",
        "primary NK cells",
        "HSC G-CSF-mobilized (female)",
        "HSC G-CSF-mobilized (male)",
        "fetal thymus",
        # ENCODE: primary cells
        "Cd20",
        "Cd34mobilized",
        "Monocytescd14ro01746",
        "Th0",
        "Th1",
        "Th2",
        # ENCODE: leukaemias (CLL, CMK, HL-60, Jurkat, K562, NB4) and lymphoblastoid lines
        "Cll",
        "Cmk",
        "Hl60",
        "Jurkat",
        "K562",
        "Nb4",
        "Gm06990",
        "Gm12864",
        "Gm12865",
        "Gm12878",
        "Gm12891",
        "Gm12892",
        "Gm18507",
        "Gm19238",
        "Gm19239",
        "Gm19240",
    )
)
"""DNase-seq biosamples that are blood, or lines that come of it."""

EVALUATION_DESIGN = StudyDesign(mixture_share=0.0, alike=0.3, type_sigma=0.2, median_open=10_000)
"""Deep cells that are much like their bulk samples, as cell lines are."""

_CELLS_PER_FILE = 4_000
_OCR_RANGE = (2_000, 100_000)
_SIMULATED_SOURCE = "simulated from ENCODE and Roadmap DNase-seq and sorted blood ATAC-seq (Corces et al. 2016)"


class Source(NamedTuple):
    """A real study of the corpus."""

    name: str
    file: str
    weight: float
    source: str
    licence: str
    blood: bool = False
    binary: bool = False


REAL_STUDIES = (
    Source("bone_marrow", "bone_marrow_atac.h5ad", 40.0, "Granja et al. 2019, GSE139369", "MIT", blood=True),
    Source("a549_multiome", "a549_multiome.h5mu", 8.0, "Cao et al. 2018 (sci-CAR), GSE117089", "GPL-3", binary=True),
    Source("bmmc_multiome_1", "bmmc_multiome_1.h5mu", 4.0, "NeurIPS 2021 challenge, GSE194122", "MIT", blood=True),
    Source("bmmc_multiome_2", "bmmc_multiome_2.h5mu", 4.0, "NeurIPS 2021 challenge, GSE194122", "MIT", blood=True),
)


class Biosamples(NamedTuple):
    """Bulk biosamples to simulate from."""

    ranks: csr_matrix
    bins: pd.DataFrame
    names: list[str]
    is_blood: NDArray[np.bool_]


def build_corpus(
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    n_studies: int = 60,
    cells_per_study: int = 2_000,
    exclude: Sequence[str] = (),
    with_blood: bool = True,
    hold_out: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Write a corpus of real and simulated studies.

    Parameters
    ----------
    data_dir
        Folder with ``biosamples.h5ad`` and the real cells.
    out_dir
        Folder to write: ``corpus.yaml`` (written last) and h5ad files with shuffled cells. It must not hold a corpus yet.
    n_studies
        Simulated studies.
    cells_per_study
        Cells of each simulated study. Real studies are taken whole.
    exclude
        Real studies to leave out: names, or what several names begin with (``"bmmc_multiome"`` for both pairs).
    with_blood
        If False, no blood enters, neither cells nor bulk biosamples (:data:`BLOOD_BIOSAMPLES`, :data:`BLOOD_SOURCE`).
    hold_out
        Names of biosamples to leave out, to be tested on.
    seed
        Same seed, same corpus.

    Returns
    -------
    One row per study: ``name``, ``kind``, ``n_cells``, ``n_ocrs``, ``weight``, ``blood``, ``n_open`` (median open OCRs per
    cell), ``megabytes``.

    Raises
    ------
    ValueError
        If a name is unknown, ``out_dir`` holds a corpus, or a test donor's cells would get in.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    real = _real_studies(exclude, with_blood=with_blood)
    if (out_dir / "corpus.yaml").exists():
        msg = f"{out_dir} already holds a corpus. Choose another folder, or delete that one."
        raise ValueError(msg)
    if n_studies < 0 or cells_per_study < 1 or n_studies + len(real) == 0:
        msg = f"n_studies={n_studies}, cells_per_study={cells_per_study}: nothing to write. Ask for at least one study and cell."
        raise ValueError(msg)
    biosamples = read_biosamples(data_dir / "biosamples.h5ad", with_blood=with_blood, hold_out=hold_out)
    out_dir.mkdir(parents=True, exist_ok=True)

    studies, rows = [], []
    for source in real:
        adata = _shuffled(read_real_study(data_dir, source), np.random.default_rng([seed, 2]))
        entry = _write(adata, out_dir, source.name, kind="real", weight=source.weight, blood=source.blood)
        studies.append(entry | {"source": source.source, "licence": source.licence})
        rows.append(_summary(entry, adata, out_dir))
    similarity = biosample_similarity(biosamples.ranks)
    blood_names = {name for name, blood in zip(biosamples.names, biosamples.is_blood, strict=True) if blood}
    rng = np.random.default_rng([seed, 3])
    for number, study_seed in enumerate(rng.integers(0, 2**31, n_studies)):
        n_ocrs = int(np.exp(rng.uniform(*np.log(_OCR_RANGE))))
        adata = simulate_study(
            biosamples.ranks,
            biosamples.bins,
            n_cells=cells_per_study,
            n_ocrs=n_ocrs,
            seed=int(study_seed),
            names=biosamples.names,
            design=random_design(n_ocrs, seed=int(study_seed)),
            similarity=similarity,
        )
        used = {*adata.obs["biosample"], *adata.obs["biosample_2"]}
        blood = not used.isdisjoint(blood_names)
        entry = _write(adata, out_dir, f"simulated_{number:03d}", kind="simulated", weight=1.0, blood=blood)
        studies.append(entry | {"source": _SIMULATED_SOURCE, "licence": "public data"})
        rows.append(_summary(entry, adata, out_dir))
        logger.info("%s: %d cells x %d OCRs", entry["name"], adata.n_obs, adata.n_vars)
    text = yaml.safe_dump({"format_version": 1, "seed": seed, "studies": studies}, sort_keys=False, width=140)
    (out_dir / "corpus.yaml").write_text(text, encoding="utf-8")
    return pd.DataFrame(rows)


def evaluation_study(
    data_dir: str | Path,
    names: Sequence[str],
    *,
    n_cells: int = 3_000,
    n_ocrs: int = 60_000,
    design: StudyDesign = EVALUATION_DESIGN,
    seed: int = 0,
) -> AnnData:
    """Simulate a labelled study of biosamples that a corpus held out.

    Parameters
    ----------
    data_dir
        Folder with ``biosamples.h5ad``.
    names
        Biosamples of the study, in about equal shares.
    n_cells
        Cells.
    n_ocrs
        OCRs.
    design
        What the study is like: by default deep cells, about 10,000 OCRs open, much as their bulk samples.
    seed
        Same seed, same study.

    Returns
    -------
    What :func:`simulate_study` returns: counts of insertions, labels in ``obs["biosample"]``.
    """
    biosamples = read_biosamples(Path(data_dir) / "biosamples.h5ad")
    _refuse_unknown(names, biosamples.names)
    return simulate_study(
        biosamples.ranks,
        biosamples.bins,
        n_cells=n_cells,
        n_ocrs=n_ocrs,
        seed=seed,
        names=biosamples.names,
        design=design,
        chosen=[biosamples.names.index(name) for name in names],
        proportions=np.ones(len(names)),
        similarity=np.eye(len(biosamples.names)),
    )


def is_blood(obs: pd.DataFrame) -> NDArray[np.bool_]:
    """Which bulk biosamples are blood, bone marrow, thymus, or lines that come of them.

    Parameters
    ----------
    obs
        Columns ``biosample`` and ``source`` of ``biosamples.h5ad``.

    Returns
    -------
    One truth value per row.
    """
    return (obs["biosample"].isin(BLOOD_BIOSAMPLES) | (obs["source"] == BLOOD_SOURCE)).to_numpy(dtype=bool)


def read_biosamples(path: Path, *, with_blood: bool = True, hold_out: Sequence[str] = ()) -> Biosamples:
    """Read the bulk biosamples that may be used.

    Parameters
    ----------
    path
        ``biosamples.h5ad``.
    with_blood
        If False, leave out every blood sample.
    hold_out
        Names of biosamples to leave out.

    Raises
    ------
    ValueError
        If a name is not in the file.
    """
    import anndata as ad

    adata = ad.read_h5ad(path)
    names = adata.obs["biosample"].astype(str)
    _refuse_unknown(hold_out, list(names))
    blood = is_blood(adata.obs)
    keep = ~names.isin(list(hold_out)).to_numpy()
    if not with_blood:
        keep &= ~blood
    ranks = sparse.csr_matrix(adata.X)[np.flatnonzero(keep)]
    return Biosamples(ranks, get_ocrs(adata.var).reset_index(drop=True), list(names[keep]), blood[keep])


def read_real_study(data_dir: Path, source: Source) -> AnnData:
    """Counts of a real study's cells that may be trained on, OCRs in genome order.

    Parameters
    ----------
    data_dir
        Folder with the file.
    source
        Which one. Of the bone-marrow cells only those of :data:`TRAINING_DONORS` are read.

    Returns
    -------
    AnnData with uint8 counts, ``var`` as in the corpus, and the labels of the source in ``obs``.

    Raises
    ------
    ValueError
        If cells of a test donor are left, or values are no counts.
    """
    from anndata import AnnData

    adata = _read_atac(data_dir / source.file)
    if source.name == "bone_marrow":
        adata = adata[adata.obs["donor"].isin(TRAINING_DONORS).to_numpy()].copy()
    _refuse_test_donors(adata)
    counts = sparse.csr_matrix(adata.X)
    counts.eliminate_zeros()
    if source.binary:
        counts.data = np.ones_like(counts.data)
    if (counts.data != np.round(counts.data)).any() or (counts.data < 0).any():
        msg = f"{source.file} holds values that are no counts, such as {counts.data[:3]}. Mark it as binary."
        raise ValueError(msg)
    counts.data = np.minimum(counts.data, 255).astype(np.uint8)
    ocrs = get_ocrs(adata.var)
    order = genome_order(ocrs)
    order = order[(chromosome_ids(ocrs["chrom"]) > 0)[order]]
    ocrs = ocrs.iloc[order]
    counts = sparse.csr_matrix(counts[:, order])
    counts.sort_indices()
    fraction = np.bincount(counts.indices, minlength=counts.shape[1]) / counts.shape[0]
    kept = [column for column in ("cell_type", "donor", "batch") if column in adata.obs]
    obs = adata.obs[kept].assign(n_open=np.diff(counts.indptr).astype(np.int64))
    var = ocrs.set_axis(ocr_names(ocrs), axis=0).assign(fraction_open=fraction.astype(np.float32))
    return AnnData(counts, obs=obs, var=var)


def _real_studies(exclude: Sequence[str], *, with_blood: bool) -> list[Source]:
    left_out = {
        source.name: [item for item in exclude if source.name == item or source.name.startswith(f"{item}_")]
        for source in REAL_STUDIES
    }
    unknown = set(exclude) - {item for items in left_out.values() for item in items}
    if unknown:
        msg = f"No real study is called {', '.join(sorted(unknown))}; there are {', '.join(left_out)}."
        raise ValueError(msg)
    return [source for source in REAL_STUDIES if not left_out[source.name] and (with_blood or not source.blood)]


def _refuse_unknown(wanted: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in set(names)]
    if unknown:
        msg = f"No biosample is called {', '.join(unknown[:3])}. Names are in obs['biosample'] of biosamples.h5ad."
        raise ValueError(msg)


def _refuse_test_donors(adata: AnnData) -> None:
    donors = set(adata.obs["donor"].astype(str)) if "donor" in adata.obs else set()
    if donors - set(TRAINING_DONORS):
        msg = f"Cells of {', '.join(sorted(donors - set(TRAINING_DONORS)))} are for testing and may not enter a corpus."
        raise ValueError(msg)


def _read_atac(path: Path) -> AnnData:
    import anndata as ad

    if path.suffix != ".h5mu":
        return ad.read_h5ad(path)
    import h5py

    # The modality by itself: reading the whole file would warn about names shared by the modalities.
    with h5py.File(path, "r") as file:
        return ad.io.read_elem(file["mod/atac"])


def _shuffled(adata: AnnData, rng: np.random.Generator) -> AnnData:
    return adata[rng.permutation(adata.n_obs)].copy()


def _write(adata: AnnData, out_dir: Path, name: str, *, kind: str, weight: float, blood: bool) -> dict[str, Any]:
    """Write a study in shards of some thousand cells; return its entry."""
    _refuse_test_donors(adata)
    n_files = -(-adata.n_obs // _CELLS_PER_FILE)
    files = []
    for number, rows in enumerate(np.array_split(np.arange(adata.n_obs), n_files)):
        file = f"{name}_{number}.h5ad" if n_files > 1 else f"{name}.h5ad"
        shard = adata[rows[0] : rows[-1] + 1].copy()
        shard.var["chrom"] = shard.var["chrom"].astype("category")
        shard.write_h5ad(out_dir / file, compression="lzf")
        files.append(file)
    return {
        "name": name,
        "kind": kind,
        "files": files,
        "n_cells": int(adata.n_obs),
        "n_ocrs": int(adata.n_vars),
        "weight": weight,
        "blood": bool(blood),
    }


def _summary(entry: dict[str, Any], adata: AnnData, out_dir: Path) -> dict[str, Any]:
    size = sum((out_dir / file).stat().st_size for file in entry["files"]) / 1e6
    kept = {key: entry[key] for key in ("name", "kind", "n_cells", "n_ocrs", "weight", "blood")}
    return kept | {"n_open": float(np.median(adata.obs["n_open"])), "megabytes": size}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, build the corpus, print what is in it."""
    parser = argparse.ArgumentParser(description="Build a corpus of real and simulated cells.")
    parser.add_argument("data", type=Path, help="folder with biosamples.h5ad and the real cells")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--n-studies", type=int, default=60, help="simulated studies")
    parser.add_argument("--cells-per-study", type=int, default=2_000, help="cells of each simulated study")
    parser.add_argument("--exclude", action="append", default=[], help="real study to leave out; may be repeated")
    parser.add_argument("--hold-out", action="append", default=[], help="biosample to leave out; may be repeated")
    parser.add_argument(
        "--blood", action=argparse.BooleanOptionalAction, default=True, help="let blood in, bulk and single cells"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    try:
        summary = build_corpus(
            args.data,
            args.out,
            n_studies=args.n_studies,
            cells_per_study=args.cells_per_study,
            exclude=args.exclude,
            with_blood=args.blood,
            hold_out=args.hold_out,
            seed=args.seed,
        )
    except (ValueError, OSError) as error:  # what is wrong with the arguments or the files, as one line
        sys.exit(f"Error: {error}")
    print(summary.to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
