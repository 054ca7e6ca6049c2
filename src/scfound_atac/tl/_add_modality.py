"""A modality more in a MuData."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def refuse_view(mdata: MuData) -> None:
    """ValueError if `mdata` is a view, which cannot be given a modality."""
    if mdata.is_view:
        msg = "This MuData is a view of another one and cannot be given a modality: pass mdata = mdata.copy(), or copy=True."
        raise ValueError(msg)


def add_modality(mdata: MuData, key: str, added: AnnData) -> None:
    """Put `added` into `mdata` under `key`, in place of what is there.

    Raises
    ------
    ValueError
        If `mdata` is a view.
    """
    import mudata

    refuse_view(mdata)
    old = mdata.mod.get(key)
    if old is not None and all(
        getattr(old, names).equals(getattr(added, names)) for names in ("obs_names", "var_names")
    ):
        mdata.mod[key] = added
        return
    # The default of MuData 0.3 fails where modalities share some names; 0.4 knows this way alone and has no such option.
    options = mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext()
    with options, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # symbols may stand in the modality of measured expression too
        if old is not None:
            del mdata.mod[key]
            mdata.update()
        mdata.mod[key] = added
        mdata.update()
