"""Open a pretrained network by its name in the registry, from a folder of this package, or from a folder in the released form."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..genome.regions import bundled_table
from ._convert import chromfound_config, chromfound_state, epifoundation_config, epifoundation_state
from ._vocabularies import read_vocabularies
from .checkpoint import (
    CONFIG_FILE,
    FORMAT_VERSION,
    LINEAR_MODELS,
    PEAK_SET_MODELS,
    REGIONS_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    save,
    sha256_of,
)
from .registry import get_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

RELEASED_WEIGHTS = "model.pt"
RELEASED_CONFIG = "chromfd_pretrain.yaml"
RELEASED_VOCABULARY = "chromosome_vocab.yaml"
# EpiFoundation only reads which OCRs are open, so counts need no preparation.
_AS_IT_IS = {"target_sum": None, "log1p": False}
# Errors of the restricted unpickler of torch for a file that is truncated, is something else, or contains code.
_BROKEN_PICKLE = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load(model: str | Path, *, prefix: str | None = None) -> Checkpoint:
    """Load a pretrained network.

    Parameters
    ----------
    model
        One of the following; a name of an existing folder is taken for the folder.

        - a name from `scfound_atac.hub.list_models`; models that are not part of the package are downloaded at their first use
        - a folder of this package, with ``model.safetensors`` and ``config.json``
        - a folder of ChromFound as released by the authors: ``model.pt``, ``chromfd_pretrain.yaml``, ``chromosome_vocab.yaml``
        - a folder of EpiFoundation as released by the authors: a ``.pth`` file, ``config.json``, and those of the vocabularies
          ``atac_vocab.json``, ``chr_vocab.json``, ``rna_vocab.json``, ``gene2chr.json``, ``cell_vocab.json``, ``batch_vocab.json`` that
          the weights need
    prefix
        Text before the name of each file in a folder of this package, as it was given to `save`.

    Returns
    -------
    The network in evaluation mode on the CPU, with its vocabulary, preparation and checksum.

    Raises
    ------
    KeyError
        If the name is not in the registry.
    FileNotFoundError
        If a folder lacks one of its files.
    ValueError
        If the weights do not fit the network exactly, or the file is damaged.
    """
    folder = Path(model)
    if folder.is_dir():
        return _load_folder(folder, folder.resolve().name, prefix or "")
    if isinstance(model, Path) or "/" in model or "\\" in model:
        msg = f"No such folder: {folder}. Give a folder with {WEIGHTS_FILE} and {CONFIG_FILE}, or a name from sfa.hub.list_models()."
        raise FileNotFoundError(msg)
    from ._fetch import fetch

    if get_entry(model).is_annotator:
        msg = f"{model!r} is a trained annotator, not a network: use sfa.tl.annotate(adata, annotator={model!r})."
        raise ValueError(msg)
    return _load_folder(fetch(model), name=model)


def as_checkpoint(model: str | Path | Checkpoint) -> Checkpoint:
    """The checkpoint of a name or folder, as from `load`; a loaded checkpoint is returned unchanged."""
    if isinstance(model, Checkpoint):
        return model
    if not isinstance(model, str | os.PathLike):
        msg = f"model= takes a name of sfa.hub.list_models(), a folder with weights or a loaded checkpoint; got {type(model).__name__}."
        raise TypeError(msg)
    return load(Path(model) if isinstance(model, os.PathLike) else model)


def convert(released: str | Path, destination: str | Path, *, overwrite: bool = False) -> Path:
    """Convert a folder in the released form of the authors to safetensors and JSON.

    Parameters
    ----------
    released
        Folder of ChromFound or EpiFoundation weights, as described at `scfound_atac.hub.load`.
    destination
        Folder to write to; it is created if it does not exist.
    overwrite
        Replace weights that are already in the folder.

    Returns
    -------
    The destination, for `scfound_atac.hub.load`.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `scfound_atac.hub.load`.
    FileExistsError
        If `destination` holds weights and `overwrite` is False.
    """
    folder = Path(released)
    load_released = _load_epifoundation if _released_pth(folder) else _load_released
    checkpoint = load_released(folder, name=folder.name)
    return save(
        checkpoint.net,
        destination,
        chromosomes=checkpoint.chromosomes,
        preparation=checkpoint.preparation,
        training=checkpoint.training,
        vocabularies=checkpoint.vocabularies,
        overwrite=overwrite,
    )


def _load_folder(folder: Path, name: str, prefix: str = "") -> Checkpoint:
    if (folder / f"{prefix}{WEIGHTS_FILE}").is_file():
        return _load_ours(folder, name, prefix)
    if prefix:
        msg = f"{folder} holds no {prefix}{WEIGHTS_FILE}. Give the prefix= with which the model was saved."
        raise FileNotFoundError(msg)
    if _released_pth(folder):
        return _load_epifoundation(folder, name)
    if _is_linear(folder):
        return _load_ours(folder, name)
    if (folder / RELEASED_WEIGHTS).is_file():
        return _load_released(folder, name)
    msg = (
        f"{folder} holds no weights of a known model: expected {WEIGHTS_FILE} with {CONFIG_FILE}, or the authors' "
        f"{RELEASED_WEIGHTS} with {RELEASED_CONFIG} and {RELEASED_VOCABULARY} (ChromFound), or *.pth with {CONFIG_FILE} and vocabularies "
        "(EpiFoundation)."
    )
    raise FileNotFoundError(msg)


def _require(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        msg = f"{folder} lacks {', '.join(missing)}. Copy the file(s) from the source of the weights."
        raise FileNotFoundError(msg)


def _is_linear(folder: Path) -> bool:
    """Whether the folder describes a model without weights."""
    path = folder / CONFIG_FILE
    return path.is_file() and _read_config(path).get("model_class") in LINEAR_MODELS


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
        is_newer = config["format_version"] > FORMAT_VERSION
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise _not_a_configuration(path, error) from error
    if is_newer:
        msg = f"{path.parent} was written by a newer version (format {config['format_version']}); run `pip install -U scfound-atac`."
        raise ValueError(msg)
    return config


def _not_a_configuration(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not a model configuration ({error}). Fetch or save the model again.")


def _load_ours(folder: Path, name: str, prefix: str = "") -> Checkpoint:
    _require(folder, f"{prefix}{CONFIG_FILE}")
    path, weights, table = (folder / f"{prefix}{file}" for file in (CONFIG_FILE, WEIGHTS_FILE, REGIONS_FILE))
    config = _read_config(path)
    regions = table if table.is_file() else None
    try:
        model_class = config.get("model_class", "ChromFound")
        if model_class == "RegionSetVAE":
            msg = f"{folder} holds a model that was adapted to cells: open it with sfa.model.RegionSet.load({str(folder)!r})."
            raise ValueError(msg)
        shared = {
            "name": name,
            "chromosomes": tuple(config["chromosomes"]),
            "preparation": config["preparation"],
            "training": config.get("training", {}),
            "model_class": model_class,
            "mix": config.get("mix"),
            "regions": regions,
        }
        if model_class in LINEAR_MODELS:
            return Checkpoint(net=None, sha256=_linear_sha256(path, regions), **shared)
        network = _network_config(path, model_class, config["network"])
        if model_class in PEAK_SET_MODELS:
            shared["vocabularies"] = read_vocabularies(folder, network, prefix)
    except (KeyError, TypeError) as error:
        raise _not_a_configuration(path, error) from error
    if model_class == "ChromFound":
        _check_vocabulary(path, shared["chromosomes"], network)
    net = _build(model_class, network, _read_weights(weights), weights)
    return Checkpoint(net=net, sha256=sha256_of(weights), **shared)


def _linear_sha256(path: Path, regions: Path | None) -> str:
    """SHA-256 of a linear model: of its configuration and its region table."""
    return hashlib.sha256((sha256_of(path) + sha256_of(regions or bundled_table())).encode()).hexdigest()


def _network_config(path: Path, model_class: str, sizes: Mapping[str, Any]) -> Any:
    from ..nn.networks import MODEL_CLASSES

    if model_class not in MODEL_CLASSES:
        msg = (
            f"{path} has model_class={model_class!r}; this version knows {', '.join((*MODEL_CLASSES, *LINEAR_MODELS))}. "
            "Run `pip install -U scfound-atac`, or correct the name."
        )
        raise ValueError(msg)
    config_class, _ = MODEL_CLASSES[model_class]
    return config_class(**sizes)


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        msg = f"{path} is damaged ({error}). Fetch or save the model again."
        raise ValueError(msg) from error


def _load_released(folder: Path, name: str) -> Checkpoint:
    _require(folder, RELEASED_WEIGHTS, RELEASED_CONFIG, RELEASED_VOCABULARY)
    path = folder / RELEASED_WEIGHTS
    released = _read_pickle(path, "ChromFound", "module")
    settings, vocabulary = _read_yaml(folder / RELEASED_CONFIG), _read_yaml(folder / RELEASED_VOCABULARY)
    try:
        model_args, chromosomes = dict(settings["model_args"]), tuple(vocabulary["chromosome"])
        state = chromfound_state(released)
        network = chromfound_config(state, model_args)
    except KeyError as error:
        msg = f"{folder} is not in the authors' released form: {error} is missing."
        raise ValueError(msg) from error
    except (TypeError, ValueError) as error:
        msg = f"{folder} is not in the authors' released form: {error}"
        raise ValueError(msg) from error
    _check_vocabulary(folder / RELEASED_VOCABULARY, chromosomes, network)
    net = _build("ChromFound", network, state, path)
    return Checkpoint(net=net, name=name, sha256=sha256_of(path), chromosomes=chromosomes)


def _released_pth(folder: Path) -> Path | None:
    """The weights of a folder in the released form of EpiFoundation, or None.

    Raises
    ------
    ValueError
        If there are several weights.
    """
    found = sorted(folder.glob("*.pth"))
    if len(found) > 1:
        msg = f"{folder} holds several weights: {', '.join(path.name for path in found[:3])}. Keep only one of them in the folder."
        raise ValueError(msg)
    return found[0] if found else None


def _load_epifoundation(folder: Path, name: str) -> Checkpoint:
    path = _released_pth(folder)
    if path is None:
        msg = f"{folder} lacks the released weights, a .pth file."
        raise FileNotFoundError(msg)
    _require(folder, CONFIG_FILE)
    state = epifoundation_state(_read_pickle(path, "EpiFoundation", "model"))
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        network = epifoundation_config(state, settings)
    except KeyError as error:
        msg = f"{folder} is not in the authors' released form: {error} is missing."
        raise ValueError(msg) from error
    except (AttributeError, TypeError, ValueError) as error:  # ValueError: of JSON, too
        msg = f"{folder} is not in the authors' released form: {error}"
        raise ValueError(msg) from error
    vocabularies = read_vocabularies(folder, network)
    return Checkpoint(
        net=_build("EpiFoundation", network, state, path),
        name=name,
        sha256=sha256_of(path),
        chromosomes=tuple(sorted(vocabularies.chromosomes, key=vocabularies.chromosomes.__getitem__)),
        preparation=_AS_IT_IS,
        training={"released_config": settings},
        model_class="EpiFoundation",
        vocabularies=vocabularies,
    )


def _read_pickle(path: Path, model: str, key: str) -> dict[str, Tensor]:
    """The state dict under `key` of a released checkpoint, read without running code that it may contain."""
    import torch

    with path.open("rb") as file:
        try:
            released = torch.load(file, map_location="cpu", weights_only=True)
        except _BROKEN_PICKLE as error:
            msg = f"{path} is damaged or holds more than tensors ({type(error).__name__}). Download it again."
            raise ValueError(msg) from error
    if not isinstance(released, dict) or key not in released:
        msg = f"{path} is not a released {model} checkpoint: expected a dict with the key {key!r}."
        raise ValueError(msg)
    state = released[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        msg = f"{path} is not a released {model} checkpoint: {key!r} must hold tensors by name."
        raise ValueError(msg)
    return state


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is not in the authors' released form: {error}"
        raise ValueError(msg) from error


def _check_vocabulary(path: Path, chromosomes: tuple[str, ...], config: Any) -> None:
    if len(chromosomes) != config.n_chromosomes:
        msg = f"{path} lists {len(chromosomes)} chromosomes, the weights hold {config.n_chromosomes}."
        raise ValueError(msg)


def _build(model_class: str, config: Any, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    from ..nn.networks import MODEL_CLASSES

    _, network_class = MODEL_CLASSES[model_class]
    net = network_class(config)
    tensors: dict[str, Any] = {key: tensor.float() for key, tensor in state.items()}
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        msg = f"The weights in {path} do not fit the network they describe: {error}"
        raise ValueError(msg) from error
    return net.eval()
