"""From names of methods to functions that embed cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from ..pp import lsi, spectral

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from numpy.typing import NDArray

    from ..hub import Checkpoint

_KEY = "bench"
_LINEAR = {"lsi": lsi, "spectral": spectral}


class Method(NamedTuple):
    """A function from cells to an array, and the checksum of the weights it uses, if any."""

    embed: Callable[[AnnData], NDArray[Any]]
    weights: str = ""


def find_methods(
    methods: Iterable[Any] | Mapping[str, Any], n_components: int, seed: int, *, batch_key: str | None = None
) -> dict[str, Method]:
    """Methods of `scfound_atac.bench.compare` by name. Models are loaded here, so that a wrong name fails before anything is computed.

    With a `batch_key`, models embed the cells with this column of ``obs`` as their batches.

    Raises
    ------
    TypeError
        If `methods` are neither names nor a mapping.
    ValueError
        If there is a `batch_key`, and a method is no model.
    """
    if isinstance(methods, str | Path) or (callable(methods) and not isinstance(methods, Iterable)):
        methods = [methods]
    if not isinstance(methods, Iterable):
        msg = f"methods= takes names of methods, or a mapping of names to models or functions; got {type(methods).__name__}."
        raise TypeError(msg)
    named = methods if isinstance(methods, Mapping) else {str(method): method for method in methods}
    return {str(name): _method(method, n_components, seed, batch_key) for name, method in named.items()}


def _method(method: Any, n_components: int, seed: int, batch_key: str | None) -> Method:
    if batch_key is not None and (callable(method) or method in _LINEAR):
        msg = f"Only models take batches, and {method!r} is none: use 'default+batch_key', or Harmony ('{method}+harmony')."
        raise ValueError(msg)
    if callable(method):
        return Method(method)
    if isinstance(method, str) and method in _LINEAR:
        return Method(partial(_written, _LINEAR[method], n_components=n_components, seed=seed))
    from ..tl import embed

    model = _random_weights(seed) if method == "random" else _checkpoint(method)
    options = {} if batch_key is None else {"batch_key": batch_key}
    function = partial(_written, embed, model=model, n_components=n_components, seed=seed, **options)
    return Method(function, model.sha256[:12])


def _checkpoint(model: str | Path | Checkpoint) -> Checkpoint:
    from ..hub.loading import as_checkpoint
    from ..hub.registry import DEFAULT_MODEL

    return as_checkpoint(DEFAULT_MODEL if model == "default" else model)


def _random_weights(seed: int) -> Checkpoint:
    import torch

    from ..hub import load, save
    from ..nn.networks import build_network

    with torch.random.fork_rng(devices=[]), TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        return load(save(build_network("chromfound", {}), Path(folder)))


def _written(function: Callable[..., Any], adata: AnnData, **options: Any) -> NDArray[Any]:
    """The array that a function of `pp` or `tl` writes into ``obsm``."""
    function(adata, key_added=_KEY, **options)
    return adata.obsm[_KEY]
