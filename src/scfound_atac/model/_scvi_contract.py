"""What the classes that scvi-tools users know have in common: the registry as a file, arguments that are refused, seeds, devices, rows."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.pretty  # noqa: F401 - view_anndata_setup() of scvi-tools needs it, and does not import it
from anndata import read_h5ad

from .._logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch
    from anndata import AnnData
    from numpy.typing import NDArray

REGISTRY_FILE = "registry.json"
ADATA_FILE = "adata.h5ad"
UUID = "_scvi_uuid"
"""Key of ``uns`` by which scvi-tools knows an object; a file that was written, or a copy, may hold that of another object."""
_ARRAY = "__array__"


# Arguments of `scvi.model.PEAKVI` that no class here has, with the reason.
SIZES_OF_PEAKVI = dict.fromkeys(
    (
        "n_hidden",
        "n_latent",
        "n_layers_encoder",
        "n_layers_decoder",
        "dropout_rate",
        "model_depth",
        "region_factors",
        "use_batch_norm",
        "use_layer_norm",
        "latent_distribution",
        "deeply_inject_covariates",
        "encode_covariates",
    ),
    "sizes of another network; `config` has those of this one",
)
KL_OF_PEAKVI = dict.fromkeys(("n_steps_kl_warmup", "n_epochs_kl_warmup"), "the loss has no KL term")


def refuse_arguments(not_taken: Mapping[str, str], given: Mapping[str, Any], call: str) -> None:
    """Refuse arguments that scvi-tools has and a model has not, with the reason.

    Parameters
    ----------
    not_taken
        The reason for each argument that is not taken.
    given
        The arguments.
    call
        The class and the function, for the message.

    Raises
    ------
    TypeError
        If one of them is not taken.
    """
    for name in given:
        if name in not_taken:
            msg = f"{call} takes no {name}=: {not_taken[name]}."
            raise TypeError(msg)


def known_options(given: Mapping[str, Any] | None, known: Sequence[str], argument: str) -> dict[str, Any]:
    """The options of the mapping `argument`.

    Raises
    ------
    TypeError
        If there is one that is not `known`.
    """
    options = dict(given or {})
    if unknown := [name for name in options if name not in known]:
        msg = f"{argument} has no option {', '.join(map(repr, unknown[:3]))}; it takes {', '.join(known)}."
        raise TypeError(msg)
    return options


def given_options(
    given: Mapping[str, Any], more: Mapping[str, Any] | None, known: Sequence[str], train: Callable[..., Any]
) -> dict[str, Any]:
    """Options of the plan: arguments of `train`, and ``plan_kwargs``, which count where the argument of `train` is at its default.

    Raises
    ------
    TypeError
        If ``plan_kwargs`` have an option that is not `known`.
    """
    options, defaults = dict(given), inspect.signature(train).parameters
    for name, value in known_options(more, known, "plan_kwargs").items():
        if name not in defaults or options[name] == defaults[name].default:
            options[name] = value
    return options


def check_save(
    not_taken: Mapping[str, str], given: Mapping[str, Any], call: str, data: Any, *, with_data: bool
) -> None:
    """Refuse arguments of ``save`` that have no meaning, and data that are to be saved and are not there.

    Raises
    ------
    TypeError
        If an argument has no meaning, or options of writing data are given and no data are written.
    ValueError
        If there are no data to write.
    """
    refuse_arguments(not_taken, given, call)
    if given and not with_data:
        msg = f"{', '.join(given)} are options of the data that are written: pass save_anndata=True."
        raise TypeError(msg)
    if with_data and data is None:
        msg = "The model was opened without data: leave save_anndata out."
        raise ValueError(msg)


def file_of(folder: Path, name: str, prefix: str | None) -> Path:
    """The file of a saved model, whose names may have a prefix."""
    return folder / f"{prefix or ''}{name}"


def saved_cells(folder: Path, prefix: str | None) -> AnnData | None:
    """The AnnData that was saved with a model, as one that scvi-tools does not know; None, with a warning, if there is none."""
    path = file_of(folder, ADATA_FILE, prefix)
    if not path.is_file():
        logger.warning("%s holds no AnnData and none was passed: the model is opened without data", folder)
        return None
    adata = read_h5ad(path)
    adata.uns.pop(UUID, None)
    return adata


def settled_seed(seed: int | None) -> int:
    """The seed that was given, or else ``scvi.settings.seed``, or else 0."""
    import scvi

    return int(scvi.settings.seed or 0) if seed is None else int(seed)


def device_of(accelerator: str, device: int | str | torch.device) -> torch.device:
    """The device of a model that is loaded, as scvi-tools chooses it: a GPU if there is one.

    Raises
    ------
    ValueError
        If the device does not exist.
    """
    import torch

    from ..inference.options import resolve_device

    if isinstance(device, torch.device):
        return device
    if accelerator == "cpu":
        return torch.device("cpu")
    if isinstance(device, int):
        return resolve_device(f"cuda:{device}" if accelerator == "gpu" or torch.cuda.is_available() else "cpu")
    return resolve_device("cuda" if accelerator == "gpu" and device == "auto" else device)


def row_numbers(
    indices: Sequence[int] | Sequence[bool] | NDArray[Any] | None, n_cells: int
) -> NDArray[np.int64] | None:
    """Row numbers of `indices`, which may be numbers (negative ones count from the end) or a mask; None for all cells.

    Raises
    ------
    ValueError
        If a mask has another length than the cells.
    IndexError
        If a number lies outside the cells.
    """
    if indices is None:
        return None
    rows = np.asarray(indices)
    if rows.dtype == bool:
        if rows.shape != (n_cells,):
            msg = f"indices is a mask of shape {rows.shape}, and there are {n_cells} cells."
            raise ValueError(msg)
        return np.flatnonzero(rows)
    return np.arange(n_cells)[rows.astype(np.int64).ravel()]


def write_registry(registry: Mapping[str, Any], path: Path) -> None:
    """Write the registry of scvi-tools as JSON."""
    path.write_text(json.dumps(_plain(registry), indent=1) + "\n", encoding="utf-8")


def read_registry(path: Path) -> dict[str, Any]:
    """Read a registry that `write_registry` wrote.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is damaged.
    """
    if not path.is_file():
        msg = f"{path} does not exist: the folder was written by version 0.1, by `sfa pretrain` or with another prefix."
        raise FileNotFoundError(msg)
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_hook=_array_or_dict)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is damaged ({error}). Save the model again."
        raise ValueError(msg) from error
    if not isinstance(found, dict):
        msg = f"{path} is not the registry of a model. Save the model again."
        raise ValueError(msg)
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "items"):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, np.ndarray):
        return {_ARRAY: value.tolist(), "dtype": "object" if value.dtype.kind in "OUT" else str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value


def _array_or_dict(found: dict[str, Any]) -> Any:
    return np.array(found[_ARRAY], dtype=found["dtype"]) if _ARRAY in found else found
