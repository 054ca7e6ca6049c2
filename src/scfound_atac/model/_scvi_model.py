"""A model of scvi-tools that holds one network: its registry as a file, data of any OCR set, and queries of a trained reference."""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pandas as pd
import torch
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField, MuDataWrapper
from scvi.model.base import BaseModelClass

from .._docs import shared_docs
from .._paths import as_path
from ..hub import Checkpoint, load
from ..train.freezing import freeze_all_but
from ._scvi_contract import REGISTRY_FILE, UUID, device_of, file_of, known_options, read_registry, refuse_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Self

    from anndata import AnnData
    from mudata import MuData

F = TypeVar("F", bound="Callable[..., Any]")

_ANOTHER_NETWORK = "parts of another network; without `unfrozen` the last layer and what follows it are trained"
NO_SURGERY: dict[str, dict[str, str]] = {
    "load_query_data": {
        **dict.fromkeys(
            (
                "freeze_expression",
                "freeze_decoder_first_layer",
                "freeze_batchnorm_encoder",
                "freeze_batchnorm_decoder",
                "freeze_classifier",
            ),
            _ANOTHER_NETWORK,
        ),
        "freeze_dropout": "`config` has the dropout of a network",
        "registry": "a query is bound to its cells",
        "inplace_subset_query_vars": "the network reads any OCR set, so no column is in the way",
        "datamodule": "cells come from AnnData or MuData",
    },
    "prepare_query_anndata": {"inplace": "nothing is padded or sorted, so the cells stay as they are"},
}
"""Arguments for queries of `scvi.model.PEAKVI` that no class here has, with the reason."""
_NO_POSTERIOR = "minified data stand for cells by a latent posterior, and the network has none"
MINIFIED = dict.fromkeys(("minify_adata", "minify_mudata", "minified_data_type"), _NO_POSTERIOR)
"""What scvi-tools has for minified data, with the reason why no class here has it."""


class AnyFeaturesField(LayerField):
    """A matrix whose columns need not be those of the registered one, because the network reads any set of them."""

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **_: Any) -> dict[str, Any]:
        """Register the matrix of other cells as it is."""
        self.validate_field(adata_target)
        return self.register_field(adata_target)


MuDataAnyFeaturesField = MuDataWrapper(AnyFeaturesField)


class NetModule(torch.nn.Module):
    """A network as the module of a model of scvi-tools, which asks it for its device."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.net.parameters()).device


def also_named(**names: str) -> Callable[[F], F]:
    """Let a function take arguments under names that they had in earlier versions: ``@also_named(mdata="adata")``."""

    def decorate(function: F) -> F:
        @wraps(function)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            for before, now in names.items():
                if before in kwargs:
                    if now in kwargs:
                        msg = f"{before}= is the earlier name of {now}=: pass one of them."
                        raise TypeError(msg)
                    kwargs[now] = kwargs.pop(before)
            return function(*args, **kwargs)

        return renamed  # type: ignore[return-value]

    return decorate


class SavedRegistry:
    """What a model of scvi-tools does with the registry of its data, which is saved beside the weights as a file."""

    _setup_adata_manager_store: ClassVar[dict[str, AnnDataManager]]

    @classmethod
    def _is_set_up(cls, data: AnnData | MuData) -> bool:
        """Whether this very object was registered; a copy counts as another."""
        manager = cls._setup_adata_manager_store.get(data.uns.get(UUID))
        return manager is not None and manager.adata is data

    @classmethod
    def _register(cls, manager: AnnDataManager, data: AnnData | MuData, **transfer: Any) -> None:
        """Register the fields of a manager with the cells. A copy of cells that are registered becomes an object of its own."""
        if UUID in data.uns and not cls._is_set_up(data):
            del data.uns[UUID]
        manager.register_fields(data, **transfer)
        cls.register_manager(manager)  # type: ignore[attr-defined]

    @classmethod
    def _registry_of(cls, folder: Path, prefix: str | None) -> dict[str, Any]:
        return read_registry(file_of(folder, REGISTRY_FILE, prefix))

    @classmethod
    def load_registry(cls, dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
        """The registry that was saved with a model: how its data were set up.

        Parameters
        ----------
        dir_path
            Folder that `save` wrote.
        prefix
            Text before the name of each file, as it was given to `save`.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        return cls._registry_of(as_path(dir_path, "dir_path"), prefix)

    @classmethod
    def view_setup_args(cls, dir_path: str | Path, prefix: str | None = None) -> None:
        """Print the arguments with which the data of a saved model were registered.

        Parameters
        ----------
        dir_path
            Folder that `save` wrote.
        prefix
            Text before the name of each file, as it was given to `save`.
        """
        AnnDataManager.view_setup_method_args(cls.load_registry(dir_path, prefix))

    @classmethod
    def _check_class(cls, registry: Mapping[str, Any], where: object) -> None:
        if registry.get("model_name") != cls.__name__:
            msg = f"{where} holds a model of class {registry.get('model_name')}, not {cls.__name__}."
            raise ValueError(msg)


class ScviModel(SavedRegistry, BaseModelClass):
    """A model of scvi-tools around a `Checkpoint`, whose network reads any OCR set.

    A class derived from it has `checkpoint` in its constructor, a method that registers data, and `_known_fractions`.
    """

    _not_taken: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    _checkpoint: Checkpoint

    @property
    def checkpoint(self) -> Checkpoint:
        """The network with its vocabulary and preparation, which can be given to `scfound_atac.tl.embed`."""
        return self._checkpoint

    def _validate_anndata(self, adata: Any = None, copy_if_view: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Register cells that are new to the model like its own; they may be of new batches."""
        if adata is None and self.adata is None:
            msg = "The model was opened without data: pass the cells to apply it to."
            raise ValueError(msg)
        if adata is not None and self.adata is not None and self.get_anndata_manager(adata) is None:
            self._register_manager_for_instance(self.adata_manager.transfer_fields(adata, extend_categories=True))
        return super()._validate_anndata(adata, copy_if_view=copy_if_view)

    # ------------------------------------------------------------ queries

    @classmethod
    def _reference(cls, reference_model: Self | str | Path) -> tuple[Checkpoint, dict[str, Any]]:
        """A copy of the network of a reference, and its registry."""
        if isinstance(reference_model, BaseModelClass):
            if not isinstance(reference_model, cls):
                msg = f"reference_model is a {type(reference_model).__name__}, not {cls.__name__}."
                raise TypeError(msg)
            net = deepcopy(reference_model.checkpoint.net).cpu().requires_grad_(requires_grad=True)
            return replace(reference_model.checkpoint, net=net), reference_model.registry
        folder = as_path(reference_model, "reference_model")
        checkpoint = load(folder)
        registry = cls.load_registry(folder)
        cls._check_class(registry, folder)
        return checkpoint, registry

    @classmethod
    def _source(cls, registry: Mapping[str, Any], data: Any, optional: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
        """The registry to take over, and the arguments of the setup; without columns that are not needed and that the query lacks."""
        arguments = dict(registry["setup_args"])
        fields = dict(registry["field_registries"])
        for argument, field in optional.items():
            key = arguments.get(argument)
            if key is not None and not any(key in part.obs for part in (data, *getattr(data, "mod", {}).values())):
                arguments[argument] = None
                fields.pop(field, None)
        return {**registry, "field_registries": fields}, arguments

    @classmethod
    @abstractmethod
    def _set_up_query(cls, data: Any, registry: Mapping[str, Any]) -> None:
        """Register the cells of a query as those of the reference were."""

    @classmethod
    def _with_batches_of(cls, checkpoint: Checkpoint, data: Any) -> Checkpoint:
        """The network of the reference with room for the batches of the query."""
        return checkpoint

    @classmethod
    @abstractmethod
    def _parts_that_adapt(cls, net: Any) -> tuple[str, ...]:
        """Names of the parts of a network that a query trains if the rest is frozen."""

    @classmethod
    @shared_docs
    def load_query_data(
        cls,
        adata: Any = None,
        reference_model: Self | str | Path | None = None,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
        unfrozen: bool = False,
        transfer_batch: bool = True,
        **kwargs: Any,
    ) -> Self:
        """A model of new cells that starts from a trained reference, to embed them, or to train on them further.

        The network reads any OCR set, so the cells need no `prepare_query_anndata` and no columns of the reference. Before it is trained,
        the model gives the cells of the reference the vectors that the reference gives them. The reference itself does not change.

        Parameters
        ----------
        adata
            The new cells. They are registered with the arguments of the reference; batches that are new are added to its batches.
        reference_model
            A model of this class, or a folder that it was saved in.
        accelerator, device
            Where the network is placed, as in scvi-tools: on a GPU if there is one.
        unfrozen
            Let `train` change the whole network. Otherwise only the last layer and what follows it are trained, and everything before
            them stays bit for bit as it is.
        transfer_batch
            Take cells of batches that the reference does not have.
        **kwargs
            None are taken: arguments of scvi-tools without a meaning here are refused.

        Returns
        -------
        The model, which counts as trained.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or it has no registry.
        TypeError
            If an argument of scvi-tools has no meaning here, or `reference_model` is of another class.
        ValueError
            If one of the first two arguments is missing, the reference is of another class, the cells cannot be used, or there are new
            batches without `transfer_batch`.
        """
        name = f"{cls.__name__}.load_query_data"
        refuse_arguments(cls._not_taken["load_query_data"], kwargs, name)
        known_options(kwargs, (), name)
        if adata is None or reference_model is None:
            missing = (
                "the new cells as adata=" if adata is None else "a trained model or its folder as reference_model="
            )
            msg = f"{name} needs {missing}."
            raise ValueError(msg)
        checkpoint, registry = cls._reference(reference_model)
        if not transfer_batch:
            refuse_new_batches(registry, adata)
        place = device_of(accelerator, device)
        cls._set_up_query(adata, registry)
        checkpoint = cls._with_batches_of(checkpoint, adata)
        model = cls(adata, checkpoint=checkpoint)
        if not unfrozen:
            freeze_all_but(checkpoint.net, cls._parts_that_adapt(checkpoint.net))
        model.is_trained_ = True
        model.to_device(place)
        return model

    @classmethod
    @abstractmethod
    def _known_fractions(cls, data: Any, checkpoint: Checkpoint, setup: Mapping[str, Any]) -> dict[str, float]:
        """How much of new cells the network knows."""

    @classmethod
    @abstractmethod
    def _reference_names(cls, checkpoint: Checkpoint, registry: Mapping[str, Any]) -> Any:
        """Names of the features of the reference."""

    @classmethod
    def _prepare_query(
        cls, method: str, data: Any, reference_model: Self | str | Path, *, names: bool, given: Mapping[str, Any]
    ) -> Any:
        call = f"{cls.__name__}.{method}"
        refuse_arguments(cls._not_taken["prepare_query_anndata"], given, call)
        known_options(given, (), call)
        checkpoint, registry = cls._reference(reference_model)
        if names:
            return cls._reference_names(checkpoint, registry)
        return cls._known_fractions(data, checkpoint, registry["setup_args"])

    @classmethod
    def prepare_query_anndata(
        cls,
        adata: AnnData,
        reference_model: Self | str | Path,
        return_reference_var_names: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> Any:
        """How much of new cells the network of a reference knows. Nothing needs to be prepared, and the cells stay as they are.

        Parameters
        ----------
        adata
            The new cells, with accessibility.
        reference_model
            A model of this class, or a folder that it was saved in.
        return_reference_var_names
            Return the names of the reference's features instead.
        **kwargs
            None are taken: arguments of scvi-tools without a meaning here are refused.

        Returns
        -------
        A dictionary: ``n_ocrs``, the number of OCRs of the cells; ``fraction_known``, the fraction of them that the network can read; and
        ``fraction_open_known``, the fraction of all open OCRs of all cells that it can read. Or the names of the reference's features.

        Raises
        ------
        TypeError
            If an argument of scvi-tools has no meaning here.
        """
        return cls._prepare_query(
            "prepare_query_anndata", adata, reference_model, names=return_reference_var_names, given=kwargs
        )


def refuse_new_batches(registry: Mapping[str, Any], data: Any) -> None:
    """Refuse cells of batches that the registry of a reference does not have."""
    key = registry["setup_args"].get("batch_key")
    known = registry["field_registries"].get("batch", {}).get("state_registry", {}).get("categorical_mapping", ())
    parts = [
        part.obs[key] for part in (data, *getattr(data, "mod", {}).values()) if key is not None and key in part.obs
    ]
    if not parts:
        return
    present = pd.concat(parts).dropna().astype(str).unique()
    if new := sorted(set(present) - set(map(str, known))):
        msg = f"transfer_batch=False, and the reference does not have batch {', '.join(map(repr, new[:3]))}."
        raise ValueError(msg)
