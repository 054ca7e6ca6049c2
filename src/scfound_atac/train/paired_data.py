"""What EpiFoundation reads from MuData: what was set up, tokens, levels of expression, batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .._anndata import check_values, get_atac, get_column, get_matrix, role_of
from .._labels import is_label
from .._logging import logger
from ..data import Cells, Tokenizer, iter_rows
from ..data.cells import read_columns
from ..data.expression_levels import bin_rows
from ..data.paired_batches import PairedCells
from ..data.pairing import match_names
from ..data.vocabularies import is_special
from .peak_to_gene import n_levels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from ..data import Vocabularies
    from ..hub import Checkpoint

SETUP_KEY = "epifoundation_setup"
"""Key of ``mdata.uns`` in which `EpiFoundation.setup_mudata` stores the setup, so that it is kept in files."""
DEFAULT_SETUP = {"atac": "atac", "rna": "rna"}
# Names by which `scvi.model.MULTIVI.setup_mudata` calls the modalities.
_MODALITIES_OF_SCVI = {"atac_layer": "atac", "layer": "atac", "rna_layer": "rna"}
_FEW_PAIRS = 0.5  # fraction of the cells of the smaller modality below which names are looked at closely


def make_setup(
    mdata: Any,
    modalities: Mapping[str, str],
    given: Mapping[str, str | None],
    labels_key: str | None = None,
    layer_argument: str = "layer",
) -> dict[str, str]:
    """Check the arguments of `EpiFoundation.setup_mudata`, and return the modalities and the arguments that are not None.

    Labels are not part of the setup, because nothing is read from them.
    """
    from mudata import MuData

    if not isinstance(mdata, MuData):
        get_atac(mdata, role="mdata")  # says what to do about anything but an AnnData
        msg = f"Expected MuData, got {type(mdata).__name__}: mudata.MuData({{'atac': atac, 'rna': rna}}) makes one."
        raise TypeError(msg)
    modalities = {_MODALITIES_OF_SCVI.get(name, name): modality for name, modality in modalities.items()}
    of_batches = modalities.pop("batch_key", None)
    if unknown := set(modalities) - set(DEFAULT_SETUP):
        msg = f"modalities must map 'atac' and 'rna' to names of modalities; {', '.join(sorted(unknown))} is neither."
        raise ValueError(msg)
    setup = DEFAULT_SETUP | dict(modalities) | {name: value for name, value in given.items() if value is not None}
    if of_batches not in (None, setup["atac"]):
        key = given.get("batch_key")
        msg = (
            f"Batches are read from the accessibility modality or from mdata.obs, not from {of_batches!r}: "
            f"mdata.obs[{key!r}] = mdata[{of_batches!r}].obs[{key!r}], and leave batch_key out of modalities."
        )
        raise ValueError(msg)
    atac = get_atac(mdata, setup["atac"], "mdata", modality_argument="modalities")
    rna = get_atac(mdata, setup["rna"], "mdata", modality_argument="modalities", holds="expression")
    read_columns(atac, role_of(mdata, setup["atac"], "mdata"), setup.get("genome"))
    get_matrix(atac, setup.get("layer"), role_of(mdata, setup["atac"], "mdata"), layer_argument)
    get_matrix(rna, setup.get("rna_layer"), role_of(mdata, setup["rna"], "mdata"), "rna_layer")
    refuse_repeated(atac.obs_names, f"cells of modality {setup['atac']!r}", "obs_names_make_unique()")
    refuse_repeated(rna.obs_names, f"cells of modality {setup['rna']!r}", "obs_names_make_unique()")
    refuse_repeated(rna.var_names, f"genes of modality {setup['rna']!r}", "var_names_make_unique()")
    if "batch_key" in setup:
        _batch_labels(mdata, atac, setup["batch_key"], atac.obs_names.intersection(rna.obs_names))
    if labels_key is not None:
        get_column(mdata, atac, labels_key, "mdata", "labels_key")
    return setup


def column_of(mdata: MuData, modality: str, key: str | None) -> tuple[str | None, str | None]:
    """Where a column of ``obs`` is: the modality, or None for the MuData itself, and its name there.

    Raises
    ------
    ValueError
        If cells have no value, which scvi-tools cannot register.
    """
    if key is None:
        return None, None
    own = key.removeprefix(f"{modality}:")
    found = next(((modality, name) for name in (key, own) if name in mdata[modality].obs), (None, key))
    values = (mdata if found[0] is None else mdata[modality]).obs[found[1]]
    if values.isna().any():
        some = ", ".join(map(str, values.index[values.isna()][:3]))
        n_missing = int(values.isna().sum())
        msg = f"{n_missing} cells have no value in mdata.obs[{key!r}], among them {some}. Fill them in, or leave these cells out."
        raise ValueError(msg)
    return found


def read_setup(stored: Mapping[str, object]) -> dict[str, str]:
    """The setup in ``mdata.uns`` or in a saved model; before version 0.2 the layer of accessibility was called ``"atac_layer"``."""
    return {"layer" if name == "atac_layer" else name: str(value) for name, value in stored.items()}


def setup_arguments(setup: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `EpiFoundation.setup_mudata` that give this setup, by which it is told in a registry of scvi-tools."""
    named = {name: setup.get(name) for name in ("batch_key", "layer", "rna_layer", "genome")}
    return {**named, "modalities": {name: setup[name] for name in DEFAULT_SETUP}}


def setup_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The setup that these arguments give, without those that are None."""
    named = {name: arguments.get(name) for name in ("batch_key", "layer", "rna_layer", "genome")}
    given = {name: value for name, value in named.items() if value is not None}
    return {**DEFAULT_SETUP, **arguments["modalities"], **given}


@dataclass(frozen=True)
class DataReader:
    """Reads data as they were set up for a network.

    Attributes
    ----------
    checkpoint
        The network and its vocabularies.
    setup
        What `make_setup` gave.
    """

    checkpoint: Checkpoint
    setup: Mapping[str, str]

    @property
    def vocabularies(self) -> Vocabularies:
        """Names of the ids in the tables of the network."""
        vocabularies = self.checkpoint.vocabularies
        if vocabularies is None:
            msg = f"Model {self.checkpoint.name!r} has no vocabularies: open it with sfa.hub.load."
            raise ValueError(msg)
        return vocabularies

    def check(self, mdata: MuData) -> None:
        """Refuse data whose genes or batches do not match the vocabularies of the network."""
        name, vocabularies = self.checkpoint.name, self.vocabularies
        if self.checkpoint.net.config.n_genes and not self.known_genes(mdata):
            genes = get_atac(mdata, self.setup["rna"]).var_names
            theirs = [gene for gene in vocabularies.genes if not is_special(gene)]
            msg = (
                f"None of the {len(genes)} genes ({', '.join(map(str, genes[:3]))}, ...) is in the vocabulary of model {name!r} "
                f"({', '.join(theirs[:3])}, ...). Name genes as it does: mdata[{self.setup['rna']!r}].var_names = ..."
            )
            raise ValueError(msg)
        if bool(vocabularies.batches) != ("batch_key" in self.setup):
            was, now = ("with", "without") if vocabularies.batches else ("without", "with")
            msg = (
                f"Model {name!r} was trained {was} batches, and the data are set up {now} batch_key. "
                "Call setup_mudata again to match it."
            )
            raise ValueError(msg)

    def known_genes(self, mdata: MuData | None) -> list[str]:
        """Genes that the network can predict: those of the data, or all of the vocabulary without data."""
        vocabularies = self.vocabularies
        genes = vocabularies.genes if mdata is None else get_atac(mdata, self.setup["rna"]).var_names
        return [gene for gene in genes if gene in vocabularies.known_genes]

    def cells(self, data: MuData | AnnData, genome: str | None, role: str = "mdata") -> Cells:
        """The accessibility of the cells, checked; every value above zero counts as open."""
        declared = next((x for x in (genome, self.setup.get("genome")) if x is not None), None)
        return Cells.read(
            data,
            layer=self.setup.get("layer"),
            genome=declared,
            modality=self.setup["atac"],
            layer_argument="layer",
            role=role,
            values="any",
        )

    def tokenizer(self, cells: Cells, max_tokens: int, seed: int = 0) -> Tokenizer:
        """The tokenizer of these cells, after a check that the vocabulary covers enough of their open OCRs."""
        tokenizer = Tokenizer(self.vocabularies, cells.ocrs, max_tokens=max_tokens, seed=seed)
        tokenizer.coverage(chunk for _, chunk in cells.iter_rows()).check(self.checkpoint.name, cells.n_ocrs)
        return tokenizer

    def batch_ids(
        self, data: MuData | AnnData, atac: AnnData, names: pd.Index, batch: str | None
    ) -> NDArray[np.int64] | None:
        """Ids of the batches of the cells `names`, for a network that reads batches; `batch` for all cells if it is given."""
        known = self.vocabularies.batches
        if not known:
            if batch is not None:
                msg = f"batch={batch!r}: this network was trained without batches. Leave out batch=."
                raise ValueError(msg)
            return None
        if batch is None and "batch_key" not in self.setup:
            msg = f"This network was trained with batches: pass batch= one of {', '.join(list(known)[:5])}."
            raise ValueError(msg)
        labels = (
            [batch] * len(names)
            if batch is not None
            else list(_batch_labels(data, atac, self.setup["batch_key"], names))
        )
        if unknown := [label for label in dict.fromkeys(labels) if label not in known]:
            msg = (
                f"The network was not trained with batch {', '.join(map(repr, unknown[:3]))}. It knows {', '.join(list(known)[:5])}: "
                "pass one of them as batch= to predict as for that batch."
            )
            raise ValueError(msg)
        return np.array([known[label] for label in labels], dtype=np.int64)

    def paired_cells(self, mdata: MuData) -> tuple[PairedCells, NDArray[np.int64], int]:
        """The cells to train on, their row numbers in accessibility, and the number of cells that lack one of the modalities."""
        atac, rna = get_atac(mdata, self.setup["atac"]), get_atac(mdata, self.setup["rna"])
        names = paired_names(atac, rna)
        if n_unpaired := atac.n_obs + rna.n_obs - 2 * len(names):
            logger.warning("%d cells that have only one modality are left out of training", n_unpaired)
        atac_cells = self.cells(mdata, None)
        tokenizer = self.tokenizer(atac_cells, len(self.vocabularies.peaks))
        tokens: list[NDArray[np.int32]] = []
        rows = atac.obs_names.get_indexer(names).astype(np.int64)
        for _, chunk in atac_cells.iter_rows(rows=rows):
            tokens += [cell.astype(np.int32) for cell in tokenizer(chunk, np.empty(chunk.shape[0], dtype=object))]
        genes = self.known_genes(mdata)
        levels = self._levels(rna, rna.obs_names.get_indexer(names), rna.var_names.get_indexer(genes))
        batch = self.batch_ids(mdata, atac, names, None)
        cells = PairedCells(tokens, levels, *self.vocabularies.gene_ids(genes), batch)
        n_expressed = np.diff(levels.indptr)
        usable = np.array([len(cell) > 0 for cell in tokens]) & (n_expressed > 0) & (n_expressed < len(genes))
        if not usable.any():
            msg = "There are no cells to train on: a paired cell needs an open peak, genes that are expressed, and genes that are not."
            raise ValueError(msg)
        if not usable.all():
            logger.warning(
                "%d of %d paired cells are left out of training: no open peak, or none or all of %d genes expressed",
                int((~usable).sum()),
                len(usable),
                len(genes),
            )
        return cells[np.flatnonzero(usable)], rows[usable], n_unpaired

    def _levels(self, rna: AnnData, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> sparse.csr_matrix:
        """Levels of expression of the genes `columns` in the cells `rows`, by quantiles over all genes of a cell."""
        layer, n_bins = self.setup.get("rna_layer"), n_levels(self.checkpoint.net.config.n_bins)
        chunks = []
        for index, chunk in iter_rows(get_matrix(rna, layer), rows=rows):
            check_values(chunk, _place(self.setup["rna"], layer), rows=index, column="gene")
            chunks.append(bin_rows(chunk, n_bins)[:, columns])
        return sparse.vstack(chunks, format="csr")


def refuse_repeated(names: pd.Index, what: str, fix: str) -> None:
    """Raise ValueError with the first three repeated names, if there are any."""
    repeated = names[names.duplicated()]
    if len(repeated):
        some = ", ".join(dict.fromkeys(map(str, repeated[:3])))
        msg = f"{len(repeated)} {what} repeat an earlier name, among them {some}. Make names unique first: {fix}."
        raise ValueError(msg)


def paired_names(atac: AnnData, rna: AnnData, role: str = "mdata") -> pd.Index:
    """Names of the cells with both modalities, in the order of accessibility; raises ValueError if there are none.

    Where few cells have the same name in both, although most names would be the same but for a prefix or suffix, a warning says so.
    """
    names = atac.obs_names[atac.obs_names.isin(rna.obs_names)]
    if len(names) >= _FEW_PAIRS * min(atac.n_obs, rna.n_obs) and not names.empty:
        return names
    advice = _advice(atac.obs_names, rna.obs_names, len(names), role)
    if names.empty:
        msg = (
            f"No cell has both modalities: {atac.n_obs} cells of {role} with accessibility ({', '.join(atac.obs_names[:2])}, ...) and "
            f"{rna.n_obs} with expression ({', '.join(rna.obs_names[:2])}, ...) have no name in common. "
            + (advice or "Give the same cells the same obs_names.")
        )
        raise ValueError(msg)
    if advice:
        logger.warning("only %d cells of %s have both modalities. %s", len(names), role, advice)
    return names


def _advice(atac: pd.Index, rna: pd.Index, n_pairs: int, role: str) -> str:
    """How to get more than `n_pairs` pairs if names of the same cells are spelled differently; empty otherwise."""
    if not (atac.is_unique and rna.is_unique):
        return ""
    of_atac, of_rna = match_names(atac, rna)
    if len(of_atac) == n_pairs:
        return ""
    one, other = next(pair for pair in zip(atac[of_atac], rna[of_rna], strict=True) if pair[0] != pair[1])
    return (
        f"{len(of_atac) - n_pairs} names differ by more than the barcode, such as {one!r} and {other!r}: {role} = "
        f"sfa.pp.pair_cells({role}) makes them the same, which gives {len(of_atac)} pairs."
    )


def batches_of(mdata: MuData, setup: Mapping[str, str]) -> list[str]:
    """The sorted batches of the paired cells; empty if there is no ``batch_key``."""
    if "batch_key" not in setup:
        return []
    atac = get_atac(mdata, setup["atac"])
    names = paired_names(atac, get_atac(mdata, setup["rna"]))
    return sorted(_batch_labels(mdata, atac, setup["batch_key"], names).unique())


def _batch_labels(data: MuData | AnnData, atac: AnnData, key: str, names: pd.Index) -> pd.Series:
    """The batches of the cells `names` as text, from the accessibility modality or from the MuData around it."""
    labels = get_column(data, atac, key, "mdata", "batch_key").reindex(names)
    missing = ~is_label(labels)
    if missing.any():
        some = ", ".join(map(str, names[missing][:3]))
        msg = f"{int(missing.sum())} cells have no batch in mdata.obs[{key!r}], among them {some}. Fill them in, or leave these cells out."
        raise ValueError(msg)
    return labels.astype(str)


def _place(modality: str, layer: str | None) -> str:
    return f"{modality}.X" if layer is None else f"{modality}.layers[{layer!r}]"
