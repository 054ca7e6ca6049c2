"""One vector of fixed size per cell, whatever its OCR set: what a head that is to survive another OCR set can be trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm.auto import tqdm

from ..data import Tokenizer, iter_rows, prepare_rows
from ._peak_sets import PeakSetRunner, check_coverage, embed_peak_sets
from ._readers import cell_reader
from ._runner import Runner, check_options, resolve_device

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..hub import Checkpoint
    from ._cells import Cells

_CHUNK = 4_096  # cells
BACKBONES = ("RegionSet", "ChromFound", "EpiFoundation")


def check_backbone(checkpoint: Checkpoint) -> None:
    """Refuse a model without a network.

    Raises
    ------
    ValueError
        If it is none of the `BACKBONES`.
    """
    if checkpoint.model_class not in BACKBONES:
        msg = (
            f"Model {checkpoint.name!r} is a {checkpoint.model_class} and cannot be a backbone: use 'region-set', a ChromFound or an "
            "EpiFoundation."
        )
        raise ValueError(msg)


def cell_vectors(
    checkpoint: Checkpoint,
    cells: Cells,
    *,
    device: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    seed: int = 0,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Vectors of cells that depend on each cell's open OCRs alone, not on the OCR set around them.

    Region-set: the cell vector, of length 1. ChromFound: the hidden states of the open OCRs, weighted by their values. EpiFoundation: the
    vector of the cell token.

    Parameters
    ----------
    checkpoint
        The backbone.
    cells
        What to read.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    batch_size
        Most cells per forward pass.
    seed
        Chooses the peaks of cells that have too many for EpiFoundation.
    progress
        Show a progress bar.

    Returns
    -------
    Shape (n_cells, d), float32.

    Raises
    ------
    ValueError
        If the model has no network, or hardly any of the open OCRs is in the vocabulary of an EpiFoundation.
    """
    check_backbone(checkpoint)
    if checkpoint.model_class == "EpiFoundation":
        runner = PeakSetRunner(checkpoint, device=device, batch_size=batch_size)
        tokenizer = Tokenizer(runner.vocabularies, cells.ocrs, max_tokens=runner.net.config.max_tokens, seed=seed)
        check_coverage(tokenizer.coverage(cells.matrix), checkpoint.name, len(cells.ocrs))
        return embed_peak_sets(cells.matrix, tokenizer, runner, cells.names, progress=progress)
    if checkpoint.model_class == "ChromFound":
        network = Runner(checkpoint, cells.ocrs, pooling="cell_vector", device=device, batch_size=batch_size)
        size, step = checkpoint.net.config.d_model, max(network.batch_size, 16)

        def read(chunk: csr_matrix) -> NDArray[np.float32]:
            return network(prepare_rows(chunk, **checkpoint.preparation))

    else:
        check_options("auto", batch_size)
        resolve_device(device)
        reader = cell_reader(checkpoint, checkpoint.region_table().lookup(cells.ocrs))
        size, step = checkpoint.net.config.d_cell, _CHUNK
        no_idf = np.zeros(0, dtype=np.float32)  # the network has no use for it

        def read(chunk: csr_matrix) -> NDArray[np.float32]:
            return reader(chunk, chunk, no_idf)

    vectors = np.empty((len(cells), size), dtype=np.float32)
    with tqdm(total=len(cells), unit="cells", disable=not progress, desc="reading cells") as bar:
        for rows, chunk in iter_rows(cells.matrix, chunk_size=step):
            vectors[rows] = read(chunk)
            bar.update(chunk.shape[0])
    return vectors
