"""Open a pretrained network: a registry name, a folder in our form, or one in the authors' released form."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._checkpoint import CONFIG_FILE, FORMAT_VERSION, WEIGHTS_FILE, Checkpoint, save, sha256_of
from ._convert import chromfound_config, chromfound_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..nn.chromfound import ChromFoundConfig, ChromFoundNet

RELEASED_WEIGHTS = "model.pt"
RELEASED_CONFIG = "chromfd_pretrain.yaml"
RELEASED_VOCABULARY = "chromosome_vocab.yaml"
# What torch's restricted unpickler raises for a file that was cut, is something else, or asks to run code.
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


def load(model: str | Path) -> Checkpoint:
    """Load a pretrained network.

    Parameters
    ----------
    model
        A name from `scfound_atac.hub.list_models` (bundled weights need no network; others are downloaded on first use and
        then work offline), or a folder: ours (``model.safetensors``, ``config.json``) or the authors' released form
        (``model.pt``, ``chromfd_pretrain.yaml``, ``chromosome_vocab.yaml``). A folder is told from a name by its existence.

    Returns
    -------
    The network in evaluation mode on CPU, with its vocabulary, preparation and checksum.

    Raises
    ------
    KeyError
        For a name that is not in the registry.
    FileNotFoundError
        If a folder lacks one of its files.
    ValueError
        If the weights do not fit the network exactly, or the file is damaged.
    """
    folder = Path(model)
    if folder.is_dir():
        return _load_folder(folder, name=folder.resolve().name)
    if isinstance(model, Path) or "/" in model or "\\" in model:
        msg = f"No such folder: {folder}. Give a folder with {WEIGHTS_FILE} and {CONFIG_FILE}, or a name from sfa.hub.list_models()."
        raise FileNotFoundError(msg)
    from ._fetch import fetch

    return _load_folder(fetch(model), name=model)


def convert(released: str | Path, destination: str | Path, *, overwrite: bool = False) -> Path:
    """Rewrite a folder in the authors' released form as safetensors + JSON.

    Parameters
    ----------
    released
        Folder with ``model.pt``, ``chromfd_pretrain.yaml`` and ``chromosome_vocab.yaml``.
    destination
        Folder to write; made if absent.
    overwrite
        Replace weights that are already there.

    Returns
    -------
    The destination, which `scfound_atac.hub.load` opens.

    Raises
    ------
    FileNotFoundError, ValueError
        As `scfound_atac.hub.load`.
    FileExistsError
        If `destination` holds weights and `overwrite` is False.
    """
    checkpoint = _load_released(Path(released), name=Path(released).name)
    return save(
        checkpoint.net,
        destination,
        chromosomes=checkpoint.chromosomes,
        preparation=checkpoint.preparation,
        training=checkpoint.training,
        overwrite=overwrite,
    )


def _load_folder(folder: Path, name: str) -> Checkpoint:
    if (folder / WEIGHTS_FILE).is_file():
        return _load_ours(folder, name)
    if (folder / RELEASED_WEIGHTS).is_file():
        return _load_released(folder, name)
    msg = (
        f"{folder} holds no ChromFound weights: expected {WEIGHTS_FILE} with {CONFIG_FILE}, or the authors' "
        f"{RELEASED_WEIGHTS} with {RELEASED_CONFIG} and {RELEASED_VOCABULARY}."
    )
    raise FileNotFoundError(msg)


def _require(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        msg = f"{folder} lacks {', '.join(missing)}. Copy the file(s) from where the weights came from."
        raise FileNotFoundError(msg)


def _load_ours(folder: Path, name: str) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..nn.chromfound import ChromFoundConfig

    _require(folder, CONFIG_FILE)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        version = config["format_version"]
        if version > FORMAT_VERSION:
            msg = f"{folder} was written by a newer version (format {version}); run `pip install -U scfound-atac`."
            raise ValueError(msg)
        network = ChromFoundConfig(**config["network"])
        chromosomes, preparation = tuple(config["chromosomes"]), config["preparation"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        msg = f"{folder / CONFIG_FILE} is not a model configuration ({error}). Fetch or save the model again."
        raise ValueError(msg) from error
    _check_vocabulary(folder / CONFIG_FILE, chromosomes, network)
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        msg = f"{folder / WEIGHTS_FILE} is damaged ({error}). Fetch or save the model again."
        raise ValueError(msg) from error
    return Checkpoint(
        net=_build(network, state, folder / WEIGHTS_FILE),
        name=name,
        sha256=sha256_of(folder / WEIGHTS_FILE),
        chromosomes=chromosomes,
        preparation=preparation,
        training=config.get("training", {}),
    )


def _load_released(folder: Path, name: str) -> Checkpoint:
    _require(folder, RELEASED_WEIGHTS, RELEASED_CONFIG, RELEASED_VOCABULARY)
    path = folder / RELEASED_WEIGHTS
    released = _read_pickle(path)
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
    return Checkpoint(net=_build(network, state, path), name=name, sha256=sha256_of(path), chromosomes=chromosomes)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict of a released checkpoint, read without running any code it may hold."""
    import torch

    with path.open("rb") as file:
        try:
            released = torch.load(file, map_location="cpu", weights_only=True)
        except _BROKEN_PICKLE as error:
            msg = f"{path} is damaged or holds more than tensors ({type(error).__name__}). Download it again."
            raise ValueError(msg) from error
    if not isinstance(released, dict) or "module" not in released:
        msg = f"{path} is not a released ChromFound checkpoint: expected a dict with the key 'module'."
        raise ValueError(msg)
    state = released["module"]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        msg = f"{path} is not a released ChromFound checkpoint: 'module' must hold tensors by name."
        raise ValueError(msg)
    return state


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is not in the authors' released form: {error}"
        raise ValueError(msg) from error


def _check_vocabulary(path: Path, chromosomes: tuple[str, ...], config: ChromFoundConfig) -> None:
    if len(chromosomes) != config.n_chromosomes:
        msg = f"{path} lists {len(chromosomes)} chromosomes, the weights hold {config.n_chromosomes}."
        raise ValueError(msg)


def _build(config: ChromFoundConfig, state: Mapping[str, Tensor], path: Path) -> ChromFoundNet:
    from ..nn.chromfound import ChromFoundNet

    net = ChromFoundNet(config)
    tensors: dict[str, Any] = {key: tensor.float() for key, tensor in state.items()}
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        msg = f"The weights in {path} do not fit the network they describe: {error}"
        raise ValueError(msg) from error
    return net.eval()
