"""Add a modality to a MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._anndata import without_pulling
from .._logging import logger

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def refuse_view(mdata: MuData) -> None:
    """Raise ValueError if `mdata` is a view, to which no modality can be added."""
    if mdata.is_view:
        msg = "This MuData is a view of another one, to which no modality can be added: call mdata = mdata.copy() first, or pass copy=True."
        raise ValueError(msg)


def check_suffix(suffix: str, *, is_mudata: bool) -> None:
    """Raise ValueError if a suffix is given for an AnnData, to which no modality is added."""
    if suffix and not is_mudata:
        msg = f"gene_suffix={suffix!r} is for names of genes in a new modality, and an AnnData has none. Leave it out."
        raise ValueError(msg)


def with_suffix(added: AnnData, suffix: str) -> AnnData:
    """`added` with names of genes that differ from those of measured expression: `suffix` behind each, and the gene itself in ``var``.

    Plots of a MuData by gene, such as ``muon.pl.embedding(mdata, color="CD3E")``, refuse a name that two modalities have.
    """
    if suffix:
        added.var.insert(0, "gene", added.var_names.to_numpy(dtype=object))
        added.var_names = added.var_names.astype(str) + suffix
    return added


def log_added(mdata: MuData, key: str) -> None:
    """Log that modality `key` was added, and how plots by gene know it from another one with the same names."""
    logger.info("added modality %r", key)
    added = mdata.mod[key].var_names
    for name, modality in mdata.mod.items():
        if name != key and len(shared := added.intersection(modality.var_names)):
            logger.info(
                "modality %r has names such as %r too: plots by gene of the whole MuData need %r, or pass gene_suffix= here",
                name,
                shared[0],
                f"{key}:{shared[0]}",
            )
            return


def add_modality(mdata: MuData, key: str, added: AnnData) -> None:
    """Store `added` as modality `key` of `mdata`, and replace a modality of that name.

    Raises
    ------
    ValueError
        If `mdata` is a view.
    """
    refuse_view(mdata)
    old = mdata.mod.get(key)
    if old is not None and all(
        getattr(old, names).equals(getattr(added, names)) for names in ("obs_names", "var_names")
    ):
        mdata.mod[key] = added
        return
    with without_pulling():
        mdata.mod[key] = added
        _update(mdata)


def _update(mdata: MuData) -> None:
    """Call ``mdata.update()`` with names of the indices that it can join.

    ``MuData.copy`` of version 0.3 forgets the name of the common index if there are columns beside it, and ``update`` then fails to join
    them to those of the modalities, whose indices have kept their name.
    """
    for axis in ("obs", "var"):
        names = {getattr(modality, axis).index.name for modality in mdata.mod.values()}
        table = getattr(mdata, axis)
        table.index = table.index.rename(names.pop() if len(names) == 1 else None)
    mdata.update()
