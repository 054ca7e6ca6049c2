"""`RegionSet`: the default model, adapted to the user's own cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix, vstack
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._utils import _get_adata_minify_type
from scvi.data.fields import CategoricalJointObsField, CategoricalObsField, LayerField, NumericalJointObsField
from scvi.model import PEAKVI
from scvi.model._utils import _get_batch_code_from_category
from scvi.model.base import BaseMinifiedModeModelClass

from .. import __version__
from .._docs import shared_docs
from .._paths import as_path, make_folder
from .._settings import settings
from ..data import Cells
from ..data.cells import read_columns
from ..genome.build import declared_genome
from ..hub.loading import as_checkpoint
from ..nn.region_set import RegionSetConfig
from ..nn.region_set_vae import RegionSetVAE, RegionSetVAEConfig
from ..train.lightning import run_training
from ..train.region_set import (
    N_WARMUP_STEPS,
    RegionSetModule,
    RegionSetPlan,
    SeededSplitter,
    start_effects,
    start_from_default,
)
from ._scvi_contract import (
    ADATA_FILE,
    REGISTRY_FILE,
    check_save,
    device_of,
    file_of,
    given_options,
    known_options,
    refuse_arguments,
    row_numbers,
    saved_cells,
    settled_seed,
    write_registry,
)
from ._scvi_model import SavedRegistry, refuse_new_batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..hub import Checkpoint

WEIGHTS_FILE, CONFIG_FILE, OCR_FILE = "model.safetensors", "config.json", "ocrs.tsv.gz"
_FORMAT = 1
_ONE_NETWORK = "the encoder starts from the default embedding and the decoder is linear; their form is fixed"
_NO_DATAMODULE = "cells come from AnnData"
_NO_PICKLE = "weights are written as safetensors and JSON, not by torch.save"
_NO_SUCH_LAYER = (
    "the network has no such layers; only effects of new batches are trained, or everything with unfrozen=True"
)
# Arguments and methods of `scvi.model.PEAKVI` that this class does not have, with the reason; the training page shows them.
NOT_TAKEN: dict[str, dict[str, str]] = {
    "__init__": dict.fromkeys(
        (
            "n_layers_encoder",
            "n_layers_decoder",
            "model_depth",
            "region_factors",
            "use_batch_norm",
            "use_layer_norm",
            "latent_distribution",
            "deeply_inject_covariates",
            "encode_covariates",
        ),
        _ONE_NETWORK,
    ),
    "train": {"datamodule": _NO_DATAMODULE},
    "get_normalized_accessibility": {
        "normalize_regions": "the probability of an OCR already holds how often it is open",
        "dataloader": _NO_DATAMODULE,
    },
    "load_query_data": {
        **dict.fromkeys(
            (
                "freeze_expression",
                "freeze_decoder_first_layer",
                "freeze_batchnorm_encoder",
                "freeze_batchnorm_decoder",
                "freeze_classifier",
            ),
            _NO_SUCH_LAYER,
        ),
        "datamodule": _NO_DATAMODULE,
    },
    "save": {"save_kwargs": _NO_PICKLE, "legacy_mudata_format": "the data are no MuData", "datamodule": _NO_DATAMODULE},
    "load": {
        "backup_url": "`hub.fetch` downloads weights, and checks them",
        "datamodule": _NO_DATAMODULE,
        "allowed_classes_names_list": "the folder names its network, and another one is refused",
    },
    "methods": {
        **dict.fromkeys(
            (
                "get_normalized_expression",
                "differential_expression",
                "get_feature_correlation_matrix",
                "get_latent_library_size",
                "get_likelihood_parameters",
                "posterior_predictive_sample",
                "get_importance_weights",
            ),
            "of models of expression; `get_normalized_accessibility` and `differential_accessibility` are there",
        ),
        "get_marginal_ll": "PEAKVI has none either; `get_elbo` is a bound of it",
        "prepare_query_mudata": "the data are no MuData",
        "setup_annbatch": _NO_DATAMODULE,
        "convert_legacy_save": "there are no such folders",
    },
}


def _refused(name: str) -> Any:
    def method(*_: Any, **__: Any) -> None:
        msg = f"RegionSet has no {name}: {NOT_TAKEN['methods'][name]}."
        raise TypeError(msg)

    method.__doc__ = "Not there; the training page says why."
    return method


# Methods that PEAKVI would pass on, and that would fail somewhere inside.
_Refused = type("_Refused", (), {name: _refused(name) for name in NOT_TAKEN["methods"]})
_PLAN = (
    "lr",
    "weight_decay",
    "eps",
    "n_epochs_kl_warmup",
    "n_steps_kl_warmup",
    "n_warmup_steps",
    "max_kl_weight",
    "min_kl_weight",
)
_SPLITTER = ("external_indexing", "drop_last", "pin_memory", "num_workers", "load_sparse_tensor")


class RegionSet(_Refused, SavedRegistry, PEAKVI, BaseMinifiedModeModelClass):  # type: ignore[misc, valid-type]
    """The default model, adapted to the user's own cells without labels, with batches and other covariates.

    A variational autoencoder (`scfound_atac.nn.RegionSetVAE`) that starts from the embedding of `scfound_atac.tl.embed`. Its decoder
    explains which OCRs are open by the cell's latent vector, the number of its open OCRs, its batch, and other covariates. It has all
    methods of `scvi.model.PEAKVI`, from which it is derived, under the same names.

    Parameters
    ----------
    adata
        AnnData that was registered with `setup_anndata`.
    registry
        Registry of such an AnnData, instead of the AnnData itself, for a model that is only applied; `load` passes it.
    n_hidden
        Width of the hidden layer of the encoder.
    n_latent
        Number of latent dimensions, and of components of the default embedding from which training starts.
    dropout_rate
        Fraction of hidden values that are left out in training.
    backbone
        Pretrained region-set model: a name or folder as for `scfound_atac.hub.load`, or a loaded one. Sizes alone
        (`scfound_atac.nn.RegionSetConfig`) are enough for a model whose weights are loaded afterwards.

    Notes
    -----
    What it has of `scvi.model.PEAKVI`, and what not, is listed on the training page of the documentation.

    Examples
    --------
    >>> sfa.model.RegionSet.setup_anndata(adata, batch_key="donor")
    >>> model = sfa.model.RegionSet(adata)
    >>> model.train()
    >>> adata.obsm["X_sfa"] = model.get_latent_representation()
    >>> model.differential_accessibility(groupby="donor", group1="donor1", group2="donor2")
    """

    _module_cls = RegionSetModule
    _LATENT_QZM_KEY = "scfound_atac_latent_qzm"
    _LATENT_QZV_KEY = "scfound_atac_latent_qzv"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_hidden: int = 128,
        n_latent: int = 50,
        dropout_rate: float = 0.1,
        backbone: str | Path | Checkpoint | RegionSetConfig = "region-set",
    ) -> None:
        super(PEAKVI, self).__init__(adata, registry)  # that of PEAKVI builds its own network
        self._backbone: Checkpoint | None = None
        sizes = backbone
        if not isinstance(sizes, RegionSetConfig):
            with torch.random.fork_rng():  # a network that is built draws weights before it reads them
                self._backbone = as_checkpoint(backbone)  # type: ignore[arg-type]
            if self._backbone.model_class != "RegionSet":
                msg = f"{self._backbone.name!r} is a {self._backbone.model_class} model; backbone= takes a region-set model."
                raise ValueError(msg)
            sizes = self._backbone.net.config
        cats = self._state("extra_categorical_covs").get("n_cats_per_key", ())
        config = RegionSetVAEConfig(
            n_ocrs=int(self.summary_stats.n_vars),
            n_latent=n_latent,
            n_hidden=n_hidden,
            n_axes=n_latent,
            dropout=dropout_rate,
            n_batch=int(self.summary_stats.n_batch),
            n_cats=tuple(map(int, cats)),
            n_continuous=int(self.summary_stats.get("n_extra_continuous_covs", 0)),
            backbone=sizes,
        )
        self.n_latent = n_latent
        self.get_normalized_function_name = "get_normalized_accessibility"
        with torch.random.fork_rng():
            torch.manual_seed(settled_seed(None))
            self.module = RegionSetModule(RegionSetVAE(config))
        self.module.minified_data_type = self.minified_data_type
        sizes_in_words = f"{n_latent} latent dimensions, {n_hidden} hidden units, batches: {config.n_batch}"
        self._model_summary_string = f"RegionSet over {config.n_ocrs} OCRs: {sizes_in_words}"
        self.init_params_ = self._get_init_params(locals())
        # scvi-tools builds the model of a query from this, and then fills it: sizes are enough, and can be written.
        self.init_params_["non_kwargs"]["backbone"] = sizes
        if self.adata is not None:
            self._bind_ocrs(_ocrs_of(self.adata, self.registry_["setup_args"]["genome"]))

    def _state(self, field: str) -> dict[str, Any]:
        """What the registry says of a field."""
        return dict(self.registry_["field_registries"].get(field, {}).get("state_registry", {}))

    @classmethod
    @shared_docs
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        layer: str | None = None,
        *,
        genome: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the counts of an AnnData and check its coordinates.

        Parameters
        ----------
        adata
            Cells x OCRs with coordinates in ``var`` or in the names.
        batch_key
            Column of ``obs`` with the batch of each cell, whose effect on each OCR the decoder learns.
        labels_key
            Column of ``obs`` with labels. They are registered, as in scvi-tools; the network does not read them.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of ``obs`` with further covariates, whose effects the decoder learns too.
        layer
            {layer}
        genome
            {genome}
        **kwargs
            How to take over the registry of another model, as in scvi-tools: ``source_registry``, and with it ``extend_categories``.

        Raises
        ------
        KeyError
            If `layer` or a column does not exist.
        TypeError
            If `adata` is no AnnData.
        ValueError
            If coordinates cannot be used, or values are no counts.
        """
        if isinstance(adata, MuData):
            msg = 'adata must be an AnnData, got MuData. Pass the modality that holds accessibility: adata = adata["atac"].'
            raise TypeError(msg)
        minified = _get_adata_minify_type(adata)
        if minified is None:
            Cells.read(adata, layer=layer, genome=genome, values="counts")
        setup_method_args = cls._get_setup_method_args(
            **{name: value for name, value in locals().items() if name != "minified"}
        )
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
            CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
            NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
        ]
        if minified is not None:
            fields += cls._get_fields_for_adata_minification(minified)
        cls._register(AnnDataManager(fields=fields, setup_method_args=setup_method_args), adata, **kwargs)

    @property
    def is_started(self) -> bool:
        """Whether the network holds the default embedding of its cells, or what was learned from there."""
        return bool(self.module.net.ready)

    def _start(self) -> None:
        """Let the network start from the default embedding of the registered cells, unless it has started already."""
        if self.is_started:
            return
        if self.adata is None:
            msg = "The model was opened without data: pass adata to load()."
            raise ValueError(msg)
        if self._backbone is None:
            msg = "The model has neither weights nor a pretrained backbone: pass backbone='region-set'."
            raise ValueError(msg)
        device = self.device
        self.module.cpu().eval()
        start_from_default(self.module.net, self._backbone, self._cells(), self._batches(), settled_seed(None))
        self.module.to(device)

    def _cells(self) -> Cells:
        """The registered cells, checked."""
        setup = self.registry_["setup_args"]
        return Cells.read(self.adata, layer=setup["layer"], genome=setup["genome"], values="counts")

    def _batches(self) -> NDArray[np.int64]:
        """The number of the batch of each registered cell."""
        return np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel().astype(np.int64)

    def _start_effects(self, n_known: int) -> None:
        """Estimate the effects of batches that the network has not learned."""
        device = self.device
        self.module.cpu().eval()
        start_effects(self.module.net, self._cells(), self._batches(), n_known)
        self.module.to(device)

    def _make_data_loader(self, *args: Any, **kwargs: Any) -> Any:
        self._start()
        return super()._make_data_loader(*args, **kwargs)

    def _check_if_trained(self, *_: Any, **__: Any) -> None:
        """A model that is not trained yet gives the default embedding, so nothing is wrong with it."""

    def train(
        self,
        max_epochs: int = 30,
        lr: float = 3e-3,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,  # noqa: FBT001, FBT002 - the place of scvi-tools
        batch_size: int = 128,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        early_stopping: bool = False,  # noqa: FBT001, FBT002
        early_stopping_patience: int = 5,
        check_val_every_n_epoch: int | None = None,
        n_steps_kl_warmup: int | None = None,
        n_epochs_kl_warmup: int | None = None,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Adapt the model to the registered cells.

        Each step divides the open OCRs of a cell at random: the encoder reads one half, and the decoder explains the other. Afterwards
        `history` has a table per value, as in scvi-tools; a further call appends to it.

        Parameters
        ----------
        max_epochs
            Number of passes over the training cells.
        lr, weight_decay, eps
            Learning rate, weight decay and epsilon of AdamW. The rate warms up over 100 steps and falls to zero along a cosine.
        accelerator, devices
            Hardware to train on, as in `lightning.pytorch.Trainer`.
        train_size
            Fraction of the cells to train on; 0.9 if None.
        validation_size
            Fraction of the cells that are held out for validation; the rest if None. If the two are less than 1, there are test cells.
        shuffle_set_split
            Draw the cells of each part. Otherwise the first cells are held out, and the next are trained on.
        batch_size
            Cells per step.
        early_stopping
            Stop when `early_stopping_monitor`, by default ``"reconstruction_loss_validation"``, has not fallen for a while.
        early_stopping_patience
            Number of validations without improvement after which training stops.
        check_val_every_n_epoch
            Number of epochs between two validations; 1 if None.
        n_steps_kl_warmup, n_epochs_kl_warmup
            Number of steps or of epochs over which the weight of the prior of latent vectors rises from 0 to 1. Without either it is 1 from
            the start, because training does not start from random weights.
        datasplitter_kwargs
            Options of the cells: ``external_indexing`` (row numbers of the training, validation and test cells), ``drop_last``,
            ``pin_memory``, ``num_workers``, ``load_sparse_tensor``.
        plan_kwargs
            Options of `scvi.train.TrainingPlan`: ``lr``, ``weight_decay``, ``eps``, ``n_epochs_kl_warmup``, ``n_steps_kl_warmup``,
            ``n_warmup_steps``, ``max_kl_weight``, ``min_kl_weight``. An argument of `train` that is not at its default goes first.
        seed
            Random seed of the split, the order of cells, thinning, samples and dropout; ``scvi.settings.seed`` if None, or 0 if that is not
            set.
        **kwargs
            Options of `scvi.train.Trainer` and `lightning.pytorch.Trainer`, for example ``logger``, ``callbacks``,
            ``enable_checkpointing``, ``early_stopping_monitor``, ``max_steps``, ``precision``, ``default_root_dir``; and ``ckpt_path``, a
            checkpoint of `lightning.pytorch.callbacks.ModelCheckpoint` from which an interrupted run goes on.

        Raises
        ------
        ValueError
            If a size is out of range, the model was opened without data or its data are minified, or early stopping has no cells to
            validate on.
        TypeError
            If an argument of scvi-tools has no meaning here, or the plan or the splitter has no such option.
        """
        refuse_arguments(NOT_TAKEN["train"], kwargs, "RegionSet.train")
        splitter = known_options(datasplitter_kwargs, _SPLITTER, "datasplitter_kwargs")
        given: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "eps": eps,
            "n_steps_kl_warmup": n_steps_kl_warmup,
            "n_epochs_kl_warmup": n_epochs_kl_warmup,
            "n_warmup_steps": N_WARMUP_STEPS,
        }
        plan_options = given_options(given, plan_kwargs, _PLAN, RegionSet.train)
        if self.adata is None:
            msg = "The model was opened without data: pass adata to load() to train it."
            raise ValueError(msg)
        if self.minified_data_type is not None:
            msg = "The cells are minified, so their counts are gone: train a model on the AnnData with counts."
            raise ValueError(msg)
        seed = settled_seed(seed)
        data = SeededSplitter(
            self.adata_manager,
            batch_size=batch_size,
            train_size=0.9 if train_size is None else train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            seed=seed,
            **splitter,
        )
        self._start()
        plan = RegionSetPlan(self.module, optimizer="AdamW", seed=seed, **plan_options)
        run_training(
            self,
            plan,
            data,
            _read_weights,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            early_stopping_patience=early_stopping_patience,
            check_val_every_n_epoch=(check_val_every_n_epoch or 1) if data.n_val else None,
            seed=seed,
            **{
                "enable_progress_bar": settings.progress_bar,
                "early_stopping_monitor": "reconstruction_loss_validation",
                "num_sanity_val_steps": 0,
                "reload_dataloaders_every_n_epochs": 1,
                "gradient_clip_val": 10.0,
                **kwargs,
            },
        )

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:  # noqa: FBT001, FBT002
        """Refuse cells with other OCRs, or with the same in another order, which scvi-tools would read as if they were these."""
        if adata is None and self.adata is None:
            msg = "The model was opened without data: pass the cells to apply it to."
            raise ValueError(msg)
        if adata is not None and (expected := getattr(self, "_ocrs", None)) is not None:
            _check_ocrs(adata, expected, self.registry_["setup_args"]["genome"])
        if adata is not None and self.adata is not None and self.get_anndata_manager(adata) is None:
            # they may be of new batches, which the encoder does not read
            self._register_manager_for_instance(self.adata_manager.transfer_fields(adata, extend_categories=True))
        return super()._validate_anndata(adata, copy_if_view=copy_if_view)

    @torch.inference_mode()
    def get_normalized_accessibility(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        n_samples_overall: int | None = None,
        region_list: Sequence[str] | None = None,
        transform_batch: str | int | None = None,
        use_z_mean: bool = True,  # noqa: FBT001, FBT002 - the place of scvi-tools
        threshold: float | None = None,
        normalize_cells: bool = False,  # noqa: FBT001, FBT002
        *,
        batch_size: int = 128,
        return_numpy: bool = False,
        **kwargs: Any,
    ) -> pd.DataFrame | NDArray[np.float32] | csr_matrix:
        """Probability that each OCR is open, in a cell of the median number of open OCRs.

        An OCR to which the decoder gives the fraction f of the open OCRs of a cell is open in it with probability ``1 - exp(-n f)``, with n
        the median over the cells on which training started.

        Parameters
        ----------
        adata
            Cells with the OCRs of the model; the registered ones if None.
        indices
            Row numbers of the cells, or a mask; all if None.
        n_samples_overall
            Number of cells to draw, with replacement; all if None. `numpy.random.seed` decides which, as in scvi-tools.
        region_list
            Names of the OCRs to return; all if None.
        transform_batch
            Batch whose effect is used for all cells; their own if None.
        use_z_mean
            Use the mean of the latent vector; otherwise draw from its distribution.
        threshold
            Smallest probability that is kept; a sparse matrix is made then.
        normalize_cells
            Use the number of open OCRs of each cell instead of the median.
        batch_size
            Cells per forward pass.
        return_numpy
            Return an array, or with `threshold` a sparse matrix, instead of a table.
        **kwargs
            None are taken: arguments of scvi-tools without a meaning here are refused.

        Returns
        -------
        Table (n_obs, n_vars), or what `return_numpy` says.
        """
        refuse_arguments(NOT_TAKEN["get_normalized_accessibility"], kwargs, "RegionSet.get_normalized_accessibility")
        known_options(kwargs, (), "RegionSet.get_normalized_accessibility")
        if threshold is not None and not 0 <= threshold <= 1:
            msg = f"threshold must lie in [0, 1], got {threshold}."
            raise ValueError(msg)
        adata = self._validate_anndata(adata)
        rows = row_numbers(indices, adata.n_obs)
        rows = np.arange(adata.n_obs) if rows is None else rows
        if n_samples_overall is not None:
            rows = np.random.choice(rows, n_samples_overall)  # noqa: NPY002 - the generator that scvi-tools seeds
        columns: Any = slice(None)
        if region_list is not None:
            columns = adata.var_names.isin(list(region_list))
        batch = _get_batch_code_from_category(self.get_anndata_manager(adata, required=True), transform_batch)[0]
        parts: list[Any] = []
        for tensors in self._make_data_loader(adata=adata, indices=rows, batch_size=batch_size):
            inference, generative = self.module.forward(
                tensors,
                get_generative_input_kwargs={"transform_batch": batch},
                generative_kwargs={"use_z_mean": use_z_mean},
                compute_loss=False,
            )
            expected = torch.exp(generative["log_rate"][..., columns]) * self.module.net.reference_depth
            if normalize_cells:
                expected = expected * inference["d"]
            found = -torch.expm1(-expected).cpu().numpy()
            if threshold is not None:
                found = csr_matrix(np.where(found < threshold, np.float32(0), found))
            parts.append(found)
        values = np.concatenate(parts) if threshold is None else vstack(parts, format="csr")
        if return_numpy:
            return values
        names = {"index": adata.obs_names[rows], "columns": adata.var_names[columns]}
        return (
            pd.DataFrame(values, **names) if threshold is None else pd.DataFrame.sparse.from_spmatrix(values, **names)
        )

    @torch.inference_mode()
    def get_region_factors(self) -> NDArray[np.float32]:
        """Probability that each OCR is open in a cell with the median number of open OCRs and the latent vector 0, shape (n_vars,)."""
        self._start()
        net = self.module.net
        found: NDArray[np.float32] = -torch.expm1(-torch.softmax(net.mean, dim=0) * net.reference_depth).cpu().numpy()
        return found

    def minify_adata(self, *args: Any, **kwargs: Any) -> None:
        """Give the model an AnnData without counts, but with the distributions of the latent vectors; the arguments are scvi-tools'.

        First store these: ``adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)``.
        """
        counts = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        super().minify_adata(*args, **kwargs)
        n_open = np.asarray((counts > 0).sum(axis=1), dtype=np.float32).ravel()  # scvi-tools stores the sums of counts
        self.adata.obs[self._OBSERVED_LIB_SIZE_KEY] = n_open

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: str | Path | RegionSet | None = None,
        registry: dict[str, Any] | None = None,
        inplace_subset_query_vars: bool = False,  # noqa: FBT001, FBT002 - the places of scvi-tools
        accelerator: str = "auto",
        device: int | str = "auto",
        unfrozen: bool = False,  # noqa: FBT001, FBT002
        freeze_dropout: bool = False,  # noqa: FBT001, FBT002
        *,
        transfer_batch: bool = True,
        **kwargs: Any,
    ) -> RegionSet:
        """A model for new cells, with what another one has learned, after scArches (Lotfollahi et al. 2021).

        The encoder reads no batch, so that new cells lie in the space of the reference without training. The effects of their batches on
        the OCRs are estimated at once; `train` makes them more exact, and changes nothing else unless `unfrozen` is set.

        Parameters
        ----------
        adata
            New cells with the OCRs of the reference; `prepare_query_anndata` sorts OCRs by name, and `scfound_atac.pp.map_ocrs` brings
            other peaks to them. They need no `setup_anndata`.
        reference_model
            A model, or the folder of a saved one.
        registry
            Registry of such cells instead of `adata`, as in scvi-tools.
        inplace_subset_query_vars
            Leave out OCRs of `adata` that the reference does not have, in place.
        accelerator, device
            Where the network is placed, as in scvi-tools: on a GPU if there is one.
        unfrozen
            Let `train` change the whole network.
        freeze_dropout
            Train without dropout.
        transfer_batch
            Take cells of batches that the reference does not have.
        **kwargs
            None are taken: arguments of scvi-tools without a meaning here are refused.

        Raises
        ------
        ValueError
            If there is no reference, `adata` has other OCRs, or there are new batches without `transfer_batch`.
        TypeError
            If an argument of scvi-tools has no meaning here, or `reference_model` is of another class.
        """
        refuse_arguments(NOT_TAKEN["load_query_data"], kwargs, "RegionSet.load_query_data")
        known_options(kwargs, (), "RegionSet.load_query_data")
        if adata is None and registry is None:
            msg = "RegionSet.load_query_data needs the new cells as adata=."
            raise ValueError(msg)
        if isinstance(reference_model, str | Path):
            reference_model = cls.load(reference_model, adata=False)
        if reference_model is None:
            msg = "RegionSet.load_query_data needs a trained model or its folder as reference_model=."
            raise ValueError(msg)
        if not isinstance(reference_model, cls):
            msg = f"reference_model is a {type(reference_model).__name__}, not {cls.__name__}."
            raise TypeError(msg)
        if not transfer_batch and adata is not None:
            refuse_new_batches(reference_model.registry_, adata)
        reference_model._start()
        if adata is not None:
            if inplace_subset_query_vars:
                adata._inplace_subset_var(adata.var_names.isin(reference_model._ocrs.index))
            _check_ocrs(adata, reference_model._ocrs, reference_model.registry_["setup_args"]["genome"])
        model: RegionSet = super().load_query_data(
            adata,
            reference_model,
            registry,
            accelerator=accelerator,
            device=device,
            unfrozen=True,  # what is frozen is decided below
        )
        model._bind_ocrs(reference_model._ocrs)
        net = model.module.net
        net.backbone.requires_grad_(requires_grad=False)
        if freeze_dropout:
            for part in net.modules():
                if isinstance(part, torch.nn.Dropout):
                    part.p = 0.0
        if adata is not None and net.config.n_batch > reference_model.module.net.config.n_batch:
            model._start_effects(reference_model.module.net.config.n_batch)
        if not unfrozen:
            net.freeze_reference(reference_model.module.net.config.n_batch)
        model.is_trained_ = reference_model.is_trained_
        return model

    @staticmethod
    def prepare_query_anndata(
        adata: AnnData,
        reference_model: str | Path | RegionSet,
        return_reference_var_names: bool = False,  # noqa: FBT001, FBT002 - the places of scvi-tools
        inplace: bool = True,  # noqa: FBT001, FBT002
    ) -> AnnData | pd.Index | None:
        """Sort the OCRs of new cells as a model has them, by name, and fill in those that are missing; for other peaks: `pp.map_ocrs`.

        Parameters
        ----------
        adata
            New cells.
        reference_model
            A model, or the folder of a saved one.
        return_reference_var_names
            Only return the names of the model's OCRs.
        inplace
            Change `adata`; otherwise return a new object.
        """
        if isinstance(reference_model, str | Path):
            reference_model = RegionSet.load(reference_model, adata=False)
        found: AnnData | pd.Index | None = PEAKVI.prepare_query_anndata(
            adata, reference_model, return_reference_var_names, inplace
        )
        return found

    @shared_docs
    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,  # noqa: FBT001, FBT002 - the places of scvi-tools
        save_anndata: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> None:
        """Write a folder with safetensors, JSON and the OCR table that `load` opens.

        Parameters
        ----------
        dir_path
            {dir_path}
        prefix
            Text before the name of each file, so that a folder can hold several models.
        overwrite
            {overwrite}
        save_anndata
            Also write the registered AnnData, as ``adata.h5ad``; `load` then needs no other.
        **kwargs
            Options of `anndata.AnnData.write_h5ad`, for example ``compression``.

        Raises
        ------
        FileExistsError
            If there is a model and `overwrite` is False.
        TypeError
            If an argument of scvi-tools has no meaning here.
        ValueError
            If `save_anndata` is set and the model was opened without data.
        """
        check_save(NOT_TAKEN["save"], kwargs, "RegionSet.save", self.adata, with_data=save_anndata)
        folder = as_path(dir_path, "dir_path")
        weights = file_of(folder, WEIGHTS_FILE, prefix)
        if not overwrite and weights.exists():
            msg = f"{weights} exists. Pass overwrite=True to replace it."
            raise FileExistsError(msg)
        self._start()
        make_folder(folder, "folder")
        config = {
            "format_version": _FORMAT,
            "model_class": "RegionSetVAE",
            "version": __version__,
            "network": self.module.net.config.to_dict(),
            "is_trained": bool(self.is_trained_),
        }
        file_of(folder, CONFIG_FILE, prefix).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        self._ocrs.to_csv(file_of(folder, OCR_FILE, prefix), sep="\t", index_label="name")
        write_registry(self.registry_, file_of(folder, REGISTRY_FILE, prefix))
        if save_anndata:
            self.adata.write_h5ad(file_of(folder, ADATA_FILE, prefix), **kwargs)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.module.net.state_dict().items()}, weights)

    @classmethod
    @shared_docs
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | Literal[False] | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        **kwargs: Any,
    ) -> RegionSet:
        """Open a saved model, with the AnnData that was saved with it, with another one with the same OCRs, or without.

        Parameters
        ----------
        dir_path
            {saved_folder}
        adata
            Cells with the OCRs of the saved model, in the same order. They are registered as those of the saved model were, unless
            `setup_anndata` was called for them. If None, those that were saved with the model; if there are none, or with False, the model
            is opened without data.
        accelerator, device
            Where the network is placed, as in scvi-tools: on a GPU if there is one.
        prefix
            Text before the name of each file, as it was given to `save`.
        **kwargs
            None are taken: arguments of scvi-tools without a meaning here are refused.

        Raises
        ------
        FileNotFoundError
            If there is no such model.
        TypeError
            If an argument of scvi-tools has no meaning here.
        ValueError
            If the folder holds another model or is damaged, or `adata` has other OCRs.
        """
        refuse_arguments(NOT_TAKEN["load"], kwargs, "RegionSet.load")
        known_options(kwargs, (), "RegionSet.load")
        folder = as_path(dir_path, "dir_path")
        names = (WEIGHTS_FILE, CONFIG_FILE, OCR_FILE, REGISTRY_FILE)
        if missing := [path.name for name in names if not (path := file_of(folder, name, prefix)).is_file()]:
            msg = f"{folder} has no {', '.join(missing)}: it is no folder that RegionSet.save wrote, or has another prefix."
            raise FileNotFoundError(msg)
        config = _read_config(file_of(folder, CONFIG_FILE, prefix))
        registry = cls.load_registry(folder, prefix)
        cls._check_class(registry, folder)
        ocrs = pd.read_csv(
            file_of(folder, OCR_FILE, prefix), sep="\t", index_col="name", dtype={"chrom": str, "name": str}
        )
        if adata is None:
            adata = saved_cells(folder, prefix)
        sizes = config["network"]
        options = {
            "n_hidden": sizes["n_hidden"],
            "n_latent": sizes["n_latent"],
            "dropout_rate": sizes["dropout"],
            "backbone": RegionSetConfig(**sizes["backbone"]),
        }
        if isinstance(adata, AnnData):
            _check_ocrs(adata, ocrs, registry["setup_args"]["genome"])
            if not cls._is_set_up(adata):
                cls.setup_anndata(adata, source_registry=registry, **registry["setup_args"])
            model = cls(adata, **options)
            for field in ("batch", "extra_categorical_covs", "extra_continuous_covs"):
                own, saved = (_categories(x, field) for x in (model.registry_, registry))
                if own != saved:
                    msg = (
                        f"adata was set up with other values of {field} than the saved model has. Pass a copy, which is registered as "
                        "those cells were, or take cells of new batches by RegionSet.load_query_data(adata, folder)."
                    )
                    raise ValueError(msg)
        else:
            model = cls(registry=registry, **options)
            model._bind_ocrs(ocrs)
        weights = file_of(folder, WEIGHTS_FILE, prefix)
        try:
            model.module.net.load_state_dict(load_file(weights))
        except Exception as error:
            msg = f"{weights} does not hold the weights of this model ({str(error).splitlines()[0]}). Save the model again."
            raise ValueError(msg) from error
        model.module.eval()
        model.is_trained_ = config["is_trained"]
        model.to_device(device_of(accelerator, device))
        return model

    def _bind_ocrs(self, ocrs: pd.DataFrame) -> None:
        """Remember the OCRs of the network: names, and coordinates where there are any."""
        self._ocrs = ocrs


def _categories(registry: Mapping[str, Any], field: str) -> list[Any]:
    """What a registry says of a field of covariates, as plain values."""
    state = registry["field_registries"].get(field, {}).get("state_registry", {})
    names = ("categorical_mapping", "mappings", "columns")
    found = [state[name] for name in names if state.get(name) is not None]
    return [
        {key: list(map(str, x)) for key, x in part.items()} if hasattr(part, "items") else list(map(str, part))
        for part in found
    ]


def _read_weights(folder: str) -> Mapping[str, torch.Tensor]:
    """Weights of a folder that a checkpoint callback wrote."""
    return load_file(Path(folder) / WEIGHTS_FILE)


def _read_config(path: Path) -> dict[str, Any]:
    """The configuration of a saved model.

    Raises
    ------
    ValueError
        If the file is damaged or of another model.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is damaged ({error}). Save the model again."
        raise ValueError(msg) from error
    if not isinstance(config, dict) or config.get("model_class") != "RegionSetVAE":
        msg = f"{path} is not the configuration of a model of class RegionSet."
        raise ValueError(msg)
    return config


def _ocrs_of(adata: AnnData, genome: str | None) -> pd.DataFrame:
    """Coordinates of each column of ``var`` by its name; missing for columns that are no OCRs."""
    columns, ocrs = read_columns(adata, genome=genome or declared_genome(adata.uns.get("genome")) or "GRCh38")
    table = ocrs[["chrom", "start", "end"]].set_axis(adata.var_names[columns])
    return table if len(table) == adata.n_vars else table.reindex(adata.var_names)


def _check_ocrs(adata: AnnData, expected: pd.DataFrame, genome: str | None) -> None:
    """Refuse cells with other OCRs than those of a model, or with the same in another order; their names may be spelled otherwise."""
    if list(adata.var_names) == list(expected.index):
        return
    found = _ocrs_of(adata, genome)
    if found.reset_index(drop=True).equals(expected.astype(found.dtypes.to_dict()).reset_index(drop=True)):
        return
    places = [pd.MultiIndex.from_frame(table.dropna()) for table in (found, expected)]
    missing = len(places[1].difference(places[0]))
    if not missing and len(found) == len(expected):
        mend = "Sort its columns: adata[:, model.get_var_names()].copy()."
    else:
        mend = "Bring it to the OCRs of the model: sfa.pp.map_ocrs(adata, cells_of_the_model)."
    msg = f"adata has not the {len(expected)} OCRs of the model in their order ({missing} are missing). {mend}"
    raise ValueError(msg)
