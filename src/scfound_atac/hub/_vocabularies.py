"""Read and write the vocabularies of peak-set models, one JSON file each, in the form of the authors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.vocabularies import CLS, Vocabularies

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class _File:
    name: str
    rows: str
    """Field of the configuration with the number of tokens; the vocabulary is needed if it is not 0."""


_FILES = {
    "peaks": _File("atac_vocab.json", "n_peaks"),
    "chromosomes": _File("chr_vocab.json", "n_chromosomes"),
    "genes": _File("rna_vocab.json", "n_genes"),
    "cell_types": _File("cell_vocab.json", "n_cell_types"),
    "batches": _File("batch_vocab.json", "n_batches"),
}
_GENE_CHROMOSOMES = "gene2chr.json"


def read_vocabularies(folder: Path, network: Any, prefix: str = "") -> Vocabularies:
    """Read the vocabularies that a network needs, and check their sizes.

    Parameters
    ----------
    folder
        Folder of the weights.
    network
        Configuration of the network.
    prefix
        Text before the name of each file.

    Raises
    ------
    FileNotFoundError
        If a file that the network needs is missing; the message names it.
    ValueError
        If a file is damaged, or does not fit the weights.
    """
    needed = {field: f"{prefix}{file.name}" for field, file in _FILES.items() if getattr(network, file.rows)}
    if network.n_genes and network.n_chromosomes:
        needed["gene_chromosomes"] = f"{prefix}{_GENE_CHROMOSOMES}"
    missing = [name for name in needed.values() if not (folder / name).is_file()]
    if missing:
        msg = (
            f"{folder} lacks the vocabulary {', '.join(missing)}: without it, the meaning of the ids of these weights is unknown. "
            "Copy the file(s) from the source of the weights."
        )
        raise FileNotFoundError(msg)
    vocabularies = Vocabularies(**{field: _read(folder / name) for field, name in needed.items()})
    check_vocabularies(vocabularies, network, folder)
    return vocabularies


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is damaged ({error}). Download it again."
        raise ValueError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path} is not a vocabulary: expected a JSON object with a value for each token."
        raise ValueError(msg)
    return content


def check_vocabularies(vocabularies: Vocabularies, network: Any, folder: Path) -> None:
    """Refuse vocabularies that do not fit a network.

    Raises
    ------
    ValueError
        If one does not fit; the message names its file in `folder`.
    """
    for field, file in _FILES.items():
        _check_ids(getattr(vocabularies, field), getattr(network, file.rows), folder / file.name)
    path = folder / _FILES["peaks"].name
    for field in ("peaks", "chromosomes"):
        tokens = getattr(vocabularies, field)
        if tokens and CLS not in tokens:
            msg = f"{folder / _FILES[field].name} has no {CLS!r}, the token whose state is the cell vector."
            raise ValueError(msg)
    try:
        vocabularies.peak_chromosomes  # noqa: B018 - computed here first, where the message can name the file
    except ValueError as error:
        msg = f"{path} does not fit: {error}"
        raise ValueError(msg) from error
    if not all(isinstance(chrom, str) for chrom in vocabularies.gene_chromosomes.values()):
        msg = f"{folder / _GENE_CHROMOSOMES} must give the name of a chromosome for each gene."
        raise ValueError(msg)


def _check_ids(tokens: Mapping[str, int], n_rows: int, path: Path) -> None:
    if len(tokens) != n_rows:
        msg = f"{path} lists {len(tokens)} tokens, the weights hold {n_rows}."
        raise ValueError(msg)
    ids = list(tokens.values())
    if not all(type(i) is int for i in ids) or sorted(ids) != list(range(n_rows)):
        msg = f"{path} must give every token a different id, from 0 to {n_rows - 1}."
        raise ValueError(msg)


def write_vocabularies(vocabularies: Vocabularies, folder: Path, prefix: str = "") -> None:
    """Write the vocabularies that are not empty, in the form that `read_vocabularies` reads."""
    names = {field: file.name for field, file in _FILES.items()} | {"gene_chromosomes": _GENE_CHROMOSOMES}
    for field, name in names.items():
        content = getattr(vocabularies, field)
        # The file of chromosomes is also needed if no gene has one.
        if content or (field == "gene_chromosomes" and vocabularies.genes):
            (folder / f"{prefix}{name}").write_text(json.dumps(dict(content), indent=1) + "\n", encoding="utf-8")
