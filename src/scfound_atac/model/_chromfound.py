"""`ChromFound`: train, apply and save the network on the user's own cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField

from .. import __version__
from .._docs import shared_docs
from .._paths import as_path
from .._settings import settings
from ..data import Cells, prepare_rows
from ..data.cells import read_columns
from ..data.fit_rows import N_FIT_CELLS, fit_rows
from ..genome.build import declared_genome
from ..hub import Checkpoint, load, save
from ..hub.checkpoint import DEFAULT_PREPARATION
from ..inference.chromfound import Runner, embed_cells
from ..inference.kind import known_in_genome_order, ocr_columns
from ..nn import ChromFoundConfig, ChromFoundNet
from ..nn.objectives import MASK_FRACTION, WITHOUT_THINNING, check_weights
from ..train.lightning import BoundNet, CellDataModule, TrainingPlan, run_training
from ._scvi_contract import (
    ADATA_FILE,
    KL_OF_PEAKVI,
    REGISTRY_FILE,
    SIZES_OF_PEAKVI,
    check_save,
    device_of,
    file_of,
    given_options,
    known_options,
    read_registry,
    refuse_arguments,
    row_numbers,
    saved_cells,
    settled_seed,
    write_registry,
)
from ._scvi_model import MINIFIED, NO_SURGERY, AnyFeaturesField, ScviModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..inference.chromfound import Pooling

OCR_FILE = "ocrs.tsv.gz"
_NO_LIKELIHOOD = "the network has no likelihood and no latent distribution"
_NO_COVARIATES = "the network reads no covariates"
_NO_DATAMODULE = "cells come from AnnData; a corpus of files is trained on with `sfa pretrain`"
_NO_PICKLE = "weights are written as safetensors and JSON, not by torch.save"
# Arguments and methods of `scvi.model.PEAKVI` that this class does not have, with the reason; the training page shows them.
NOT_TAKEN: dict[str, dict[str, str]] = {
    "__init__": SIZES_OF_PEAKVI,
    "setup_anndata": dict.fromkeys(("categorical_covariate_keys", "continuous_covariate_keys"), _NO_COVARIATES),
    "train": {
        **KL_OF_PEAKVI,
        "datamodule": _NO_DATAMODULE,
    },
    "get_latent_representation": {
        "give_mean": _NO_LIKELIHOOD,
        "mc_samples": _NO_LIKELIHOOD,
        "return_dist": _NO_LIKELIHOOD,
        "dataloader": _NO_DATAMODULE,
    },
    **NO_SURGERY,
    "save": {"save_kwargs": _NO_PICKLE, "legacy_mudata_format": "the data are no MuData", "datamodule": _NO_DATAMODULE},
    "load": {
        "backup_url": "`hub.fetch` downloads weights, and checks them",
        "datamodule": _NO_DATAMODULE,
        "allowed_classes_names_list": "the folder names its network, and another one is refused",
    },
    "methods": {
        **dict.fromkeys(
            (
                "get_normalized_accessibility",
                "differential_accessibility",
                "get_elbo",
                "get_marginal_ll",
                "get_reconstruction_error",
                "get_latent_library_size",
                "get_feature_correlation_matrix",
                "get_likelihood_parameters",
                "posterior_predictive_sample",
                "get_aggregated_posterior",
                "differential_expression",
                "get_importance_weights",
                "get_library_size_factors",
                "get_region_factors",
            ),
            _NO_LIKELIHOOD,
        ),
        "prepare_query_mudata": "the data are no MuData",
        **MINIFIED,
        "setup_annbatch": _NO_DATAMODULE,
        "convert_legacy_save": "there are no such folders; those of earlier versions of this package open as they are",
    },
}
# Options of `plan_kwargs` and `datasplitter_kwargs`, by the arguments of `TrainingPlan` and `CellDataModule`.
_PLAN = ("lr", "weight_decay", "eps", "n_warmup_steps", "mask_fraction", "objectives")
_SPLITTER = ("external_indexing", "drop_last", "pin_memory", "num_workers")


class ChromFound(ScviModel):
    """ChromFound, trained and applied on the user's own cells (arXiv 2505.12638).

    A network of window attention and Mamba blocks over all OCRs of a cell, trained to reconstruct accessibility that was masked.

    Parameters
    ----------
    adata
        AnnData that was registered with `setup_anndata`.
    registry
        Registry of such an AnnData, instead of the AnnData itself, for a model that is only applied; `load` passes it.
    config
        Sizes of a new network, as a `scfound_atac.nn.ChromFoundConfig` or a mapping of its fields; the released sizes if None. With
        ``n_factors=50`` the network also reads the description of each region (`scfound_atac.genome.load_region_table`).
    checkpoint
        A pretrained network to start from; see also `from_pretrained`.
    seed
        Random seed of the initial weights; ``scvi.settings.seed`` if None, or 0 if that is not set.

    Notes
    -----
    What it has of `scvi.model.PEAKVI`, and what not, is listed on the training page of the documentation. It has no
    ``get_normalized_accessibility`` and no ``differential_accessibility``, as the network has no likelihood.

    Examples
    --------
    >>> sfa.model.ChromFound.setup_anndata(adata, layer="counts")
    >>> model = sfa.model.ChromFound(adata)
    >>> model.train(max_epochs=5)
    >>> adata.obsm["X_sfa"] = model.get_latent_representation()
    >>> model.save("my_model")
    >>> sfa.tl.embed(other, model="./my_model")
    """

    _not_taken = NOT_TAKEN

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        config: ChromFoundConfig | Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(adata, registry)
        if checkpoint is not None and config is not None:
            msg = "Pass config= for a new network or checkpoint= for a pretrained one, not both."
            raise ValueError(msg)
        if checkpoint is None:
            if not isinstance(config, ChromFoundConfig):
                config = ChromFoundConfig(**(config or {}))
            with torch.random.fork_rng():
                torch.manual_seed(settled_seed(seed))
                net = ChromFoundNet(config)
            checkpoint = Checkpoint(net=net, name="untrained", sha256="", preparation=DEFAULT_PREPARATION)
        if checkpoint.model_class != "ChromFound":
            msg = (
                f"{checkpoint.name!r} is a {checkpoint.model_class} model, not ChromFound; use it with sfa.tl.embed, "
                "or train it with `sfa pretrain`."
            )
            raise ValueError(msg)
        self._checkpoint = checkpoint
        self._ocrs: pd.DataFrame | None = None
        if self.adata is not None:
            self._bind(self._columns_of(self.adata))
        else:
            nowhere = torch.empty(0, dtype=torch.int64)
            self.module = BoundNet(checkpoint.net, nowhere, nowhere, nowhere)
        self.init_params_ = self._get_init_params(locals())

    def _bind(self, ocrs: pd.DataFrame) -> None:
        """Give the module the OCRs of the cells; nothing happens if it has them."""
        if self._ocrs is not None and self._ocrs.equals(ocrs):
            return
        net = self._checkpoint.net
        order = known_in_genome_order(ocrs, self._checkpoint.chromosome_ids(ocrs["chrom"].to_numpy()))
        columns = ocr_columns(self._checkpoint, ocrs, order)
        device = next(net.parameters()).device
        self.module = BoundNet(net, *map(torch.from_numpy, columns.values())).to(device)
        self._ocrs, self._order = ocrs, order
        n_parameters = sum(p.numel() for p in net.parameters())
        self._model_summary_string = f"ChromFound over {len(order)} OCRs, {n_parameters} parameters"

    def _columns_of(self, adata: AnnData) -> pd.DataFrame:
        return read_columns(adata, genome=self._setup["genome"])[1][["chrom", "start", "end"]]

    @classmethod
    @shared_docs
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        *,
        layer: str | None = None,
        recipe: Literal["chromfound"] | None = "chromfound",
        genome: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the counts of an AnnData and check its coordinates.

        Parameters
        ----------
        adata
            Cells x OCRs with coordinates in ``var`` or in the names.
        batch_key, labels_key
            Columns of ``obs`` with the batch and the label of each cell. They are registered, as in scvi-tools; the network reads neither.
        layer
            {layer}
        recipe
            ``"chromfound"`` scales the counts of each cell to the same total and takes log1p; None uses the matrix as it is.
        genome
            {genome}
        **kwargs
            How to take over the registry of another model, as in scvi-tools: ``source_registry``, and with it ``extend_categories``.

        Raises
        ------
        KeyError
            If `layer` or a column does not exist.
        TypeError
            If `adata` is no AnnData, or an argument of scvi-tools has no meaning here.
        ValueError
            If coordinates cannot be used, or values look normalised while a `recipe` is set.
        """
        if recipe not in ("chromfound", None):
            msg = f"recipe={recipe!r} is not known: use 'chromfound' or None."
            raise ValueError(msg)
        if isinstance(adata, MuData):
            msg = 'adata must be an AnnData, got MuData. Pass the modality that holds accessibility: adata = adata["atac"].'
            raise TypeError(msg)
        Cells.read(
            adata,
            layer=layer,
            genome=genome,
            values="any" if recipe is None else "counts",
            or_else=", or pass recipe=None to use values that are normalised already",
        )
        refuse_arguments(NOT_TAKEN["setup_anndata"], kwargs, "ChromFound.setup_anndata")
        setup_method_args = cls._get_setup_method_args(
            **locals()
        )  # locals() must be the arguments only: no variable may be assigned before this line
        fields = [
            AnyFeaturesField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        cls._register(manager, adata, **kwargs)

    @classmethod
    def from_pretrained(cls, model: str | Path, adata: AnnData) -> ChromFound:
        """Start from pretrained weights.

        Parameters
        ----------
        model
            Name from the registry or folder of a model, as for `scfound_atac.hub.load`.
        adata
            AnnData that was registered with `setup_anndata`.
        """
        instance = cls(adata, checkpoint=load(model))
        instance.is_trained_ = True
        return instance

    @classmethod
    def _set_up_query(cls, data: AnnData, registry: Mapping[str, Any]) -> None:
        source, arguments = cls._source(registry, data, {"batch_key": "batch", "labels_key": "labels"})
        cls.setup_anndata(data, source_registry=source, extend_categories=True, **arguments)

    @classmethod
    def _parts_that_adapt(cls, net: ChromFoundNet) -> tuple[str, ...]:
        return f"layers.{net.config.n_layers - 1}", "norm", "decoder"

    @classmethod
    def _known_fractions(cls, data: AnnData, checkpoint: Checkpoint, setup: Mapping[str, Any]) -> dict[str, float]:
        """OCRs on chromosomes that the network knows."""
        cells = Cells.read(data, layer=setup["layer"], genome=setup["genome"], values="any")
        is_known = checkpoint.chromosome_ids(cells.ocrs["chrom"].to_numpy()) > 0
        n_open = np.zeros(len(is_known), dtype=np.int64)
        for _, chunk in cells.iter_rows():
            n_open += chunk.getnnz(axis=0)
        return {
            "n_ocrs": len(is_known),
            "fraction_known": float(is_known.mean()),
            "fraction_open_known": float(n_open[is_known].sum() / n_open.sum()) if n_open.any() else float("nan"),
        }

    @classmethod
    def _reference_names(cls, checkpoint: Checkpoint, registry: Mapping[str, Any]) -> pd.Index:
        return pd.Index(registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"])

    def train(
        self,
        max_epochs: int = 5,
        lr: float = 5e-5,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        *,
        shuffle_set_split: bool = True,
        batch_size: int = 16,
        weight_decay: float = 0.01,
        eps: float = 1e-8,
        early_stopping: bool = False,
        early_stopping_patience: int = 3,
        check_val_every_n_epoch: int | None = None,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        crop_size: int | None = None,
        mask_fraction: float = MASK_FRACTION,
        n_warmup_steps: int = 100,
        loss_on: Literal["replaced", "all"] = "replaced",
        objectives: Mapping[str, float] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Train with the masked objective of the paper (section 3.3), or with other objectives.

        Afterwards `history` has a table per value, as in scvi-tools; a further call appends to it.

        Parameters
        ----------
        max_epochs
            Number of passes over the training cells; 5 in the paper.
        lr, weight_decay, eps
            Learning rate, weight decay and epsilon of AdamW. The rate warms up over `n_warmup_steps` and falls to zero along a cosine.
        accelerator, devices
            Hardware to train on, as in `lightning.pytorch.Trainer`.
        train_size
            Fraction of the cells to train on; 0.9 if None.
        validation_size
            Fraction of the cells that are held out for validation; the rest if None. If the two are less than 1, there are test cells.
        shuffle_set_split
            Draw the cells of each part. Otherwise the first cells are held out, and the next are trained on.
        batch_size
            Cells per step; 128 in the paper.
        early_stopping
            Stop when `early_stopping_monitor`, by default ``"validation_loss"``, has not fallen for a while. The weights are then those of
            the last epoch; ``callbacks=[scvi.train.SaveCheckpoint(load_best_on_end=True)]`` brings back those of the best.
        early_stopping_patience
            Number of validations without improvement after which training stops.
        check_val_every_n_epoch
            Number of epochs between two validations; 1 if None.
        datasplitter_kwargs
            Options of the cells: ``external_indexing`` (row numbers of the training, validation and test cells), ``drop_last``,
            ``pin_memory``, ``num_workers``.
        plan_kwargs
            Options of the plan: ``lr``, ``weight_decay``, ``eps``, ``n_warmup_steps``, ``mask_fraction``, ``objectives``. An argument of
            `train` that is not at its default goes first.
        crop_size
            Number of neighbouring OCRs in the random stretches to train on; whole cells if None.
        mask_fraction
            Fraction of zero and of non-zero OCRs that the masked objectives replace.
        n_warmup_steps
            Number of steps of linear warm-up, at most a tenth of the run.
        loss_on
            ``"replaced"`` computes the error at the replaced positions only, as in the paper. ``"all"`` computes it at every position,
            which removes the shortcut of predicting the opposite of the input (see the models page of the documentation).
        objectives
            Weights of several objectives, such as ``{"denoise": 1.0, "contrast": 0.1}``, instead of `loss_on`; the training page of the
            documentation lists them. All except ``"masked"`` and ``"all"`` thin counts, so the model must be set up with counts.
        seed
            Random seed of the split, the order of cells, crops, masks and dropout; ``scvi.settings.seed`` if None, or 0 if that is not set.
        **kwargs
            Options of `scvi.train.Trainer` and `lightning.pytorch.Trainer`, for example ``logger``, ``callbacks``,
            ``enable_checkpointing``, ``early_stopping_monitor``, ``max_steps``, ``accumulate_grad_batches``, ``precision``,
            ``default_root_dir``; and ``ckpt_path``, a checkpoint of `lightning.pytorch.callbacks.ModelCheckpoint` from which an interrupted
            run goes on.

        Raises
        ------
        ValueError
            If a size is out of range, `loss_on` or an objective is unknown, `objectives` thin values that are not counts, the model was
            opened without data, or early stopping has no cells to validate on.
        TypeError
            If an argument of scvi-tools has no meaning here, or the plan or the splitter has no such option.
        """
        refuse_arguments(NOT_TAKEN["train"], kwargs, "ChromFound.train")
        splitter = known_options(datasplitter_kwargs, _SPLITTER, "datasplitter_kwargs")
        given: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "eps": eps,
            "n_warmup_steps": n_warmup_steps,
            "mask_fraction": mask_fraction,
            "objectives": objectives,
        }
        plan_options = given_options(given, plan_kwargs, _PLAN, ChromFound.train)
        objectives = plan_options.pop("objectives")
        if loss_on not in ("replaced", "all"):
            msg = f"loss_on={loss_on!r} is not known: use 'replaced' or 'all'."
            raise ValueError(msg)
        objectives = dict(objectives or {"masked" if loss_on == "replaced" else "all": 1.0})
        check_weights(objectives)
        if self.adata is None:
            msg = "The model was opened without data: pass adata to load() to train it."
            raise ValueError(msg)
        self._bind(self._columns_of(self.adata))
        seed = settled_seed(seed)
        preparation = dict(self._checkpoint.preparation)
        if self._setup["recipe"] is None:
            preparation = {"target_sum": None, "log1p": False}
            if not set(objectives) <= set(WITHOUT_THINNING):
                msg = "These objectives thin counts. Call setup_anndata(adata, layer=...) with counts, without recipe=None."
                raise ValueError(msg)
        values = self._cells(self.adata).to_memory()
        data = CellDataModule(
            values[:, self._order],
            np.asarray(values.sum(axis=1), dtype=np.float32).ravel(),
            batch_size=batch_size,
            crop_size=crop_size,
            train_size=0.9 if train_size is None else train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            seed=seed,
            **splitter,
        )
        plan = TrainingPlan(self.module, objectives, data.fraction_open, preparation, seed=seed, **plan_options)
        trainer_kwargs = {
            "enable_progress_bar": settings.progress_bar,
            "early_stopping_monitor": "validation_loss",
            "gradient_clip_val": 1.0,
            "num_sanity_val_steps": 0,
            "reload_dataloaders_every_n_epochs": 1,
            **kwargs,
        }
        record = {
            "objectives": objectives,
            "mask_fraction": plan_options["mask_fraction"],
            "n_cells": data.n_train,
            "n_ocrs": len(self._order),
            "version": __version__,
            "batch_size": batch_size,
            "crop_size": crop_size or len(self._order),
            "lr": plan_options["lr"],
            "seed": seed,
        }
        before = self._checkpoint
        self._checkpoint = replace(
            before, name="trained", sha256="", training=record
        )  # what a checkpoint callback writes
        try:
            record["n_steps"] = run_training(
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
                **trainer_kwargs,
            )
        except BaseException:
            self._checkpoint = replace(before, sha256="")  # the weights may have changed
            raise

    @property
    def _setup(self) -> dict[str, Any]:
        """The arguments of `setup_anndata`."""
        setup: dict[str, Any] = self.registry_["setup_args"]
        return setup

    def _cells(self, adata: AnnData) -> Cells:
        setup = self._setup
        values: Literal["any", "counts"] = "any" if setup["recipe"] is None else "counts"
        return Cells.read(adata, layer=setup["layer"], genome=setup["genome"], values=values)

    def _prepare(self, rows: csr_matrix) -> csr_matrix:
        return rows if self._setup["recipe"] is None else prepare_rows(rows, **self._checkpoint.preparation)

    def _apply(
        self,
        adata: AnnData | None,
        pooling: Pooling,
        *,
        indices: Sequence[int] | NDArray[Any] | None,
        batch_size: int | Literal["auto"] | None,
        n_components: int | None = None,
        n_fit_cells: int = N_FIT_CELLS,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Vectors of cells: principal components, or one number per column of ``var``."""
        cells = self._cells(self._validate_anndata(adata))
        runner = Runner(
            self._checkpoint, cells.ocrs, pooling=pooling, device=self.device, batch_size=batch_size or "auto"
        )
        rows, back = row_numbers(indices, len(cells)), None
        if rows is not None:
            rows, back = np.unique(rows, return_inverse=True)
        vectors, axes = embed_cells(
            cells,
            runner,
            prepare=self._prepare,
            n_components=n_components,
            fit_rows=fit_rows(cells.names, n_fit_cells, seed),
            rows=rows,
            progress=settings.progress_bar,
        )
        if back is not None:
            vectors = vectors[back]
        return vectors if axes is not None else cells.to_var(vectors.T, runner.order).T

    @torch.inference_mode()
    @shared_docs
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        *,
        n_components: int | None = 50,
        n_fit_cells: int = N_FIT_CELLS,
        batch_size: int | Literal["auto"] | None = "auto",
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        """Compute cell vectors: hidden states averaged over the hidden dimensions, then PCA over the cells (section A.1), as in `tl.embed`.

        Parameters
        ----------
        adata
            Cells to embed; the registered ones if None.
        indices
            Row numbers of the cells to return, or a mask; all if None. The principal components are those of all cells of `adata`, so the
            result is the same as without `indices`, and then chosen.
        n_components
            Number of principal components, or None for one number per OCR of ``var``.
        n_fit_cells
            Maximum number of cells to which PCA is fitted. They are chosen by `seed` and name.
        batch_size
            Cells per forward pass; ``"auto"`` or None chooses it by the memory of the device.
        seed
            Random seed. It chooses the cells for PCA if there are more than `n_fit_cells`; ``scvi.settings.seed`` if None, or 0 if that is
            not set.

        Returns
        -------
        Array (n_obs, n_components), or (n_obs, n_vars), float32.
        """
        self._check_if_trained(warn=True)
        return self._apply(
            adata,
            "hidden_mean",
            indices=indices,
            batch_size=batch_size,
            n_components=n_components,
            n_fit_cells=n_fit_cells,
            seed=settled_seed(seed),
        )

    @torch.inference_mode()
    @shared_docs
    def get_reconstruction(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        *,
        batch_size: int | Literal["auto"] | None = "auto",
    ) -> NDArray[np.float32]:
        """Compute the accessibility that the network reconstructs, on the scale of the prepared values.

        Parameters
        ----------
        adata
            Cells to reconstruct; the registered ones if None.
        indices
            Row numbers of the cells to return, or a mask; all if None.
        batch_size
            Cells per forward pass; ``"auto"`` or None chooses it by the memory of the device.

        Returns
        -------
        Array (n_obs, n_vars), float32, dense.
        """
        self._check_if_trained(warn=True)
        return self._apply(adata, "reconstruction", indices=indices, batch_size=batch_size)

    @shared_docs
    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        *,
        overwrite: bool = False,
        save_anndata: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a folder with safetensors, JSON and the OCR table that `load` and `scfound_atac.hub.load` open.

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
        check_save(NOT_TAKEN["save"], kwargs, "ChromFound.save", self.adata, with_data=save_anndata)
        folder = save(
            self.module.net,
            dir_path,
            chromosomes=self._checkpoint.chromosomes,
            preparation=self._checkpoint.preparation,
            training=self._checkpoint.training,
            regions=self._checkpoint.regions,
            overwrite=overwrite,
            prefix=prefix,
        )
        if self._ocrs is not None:
            self._ocrs.to_csv(file_of(folder, OCR_FILE, prefix), sep="\t", index=False)
        write_registry(self.registry_, file_of(folder, REGISTRY_FILE, prefix))
        if save_anndata:
            self.adata.write_h5ad(file_of(folder, ADATA_FILE, prefix), **kwargs)

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
    ) -> ChromFound:
        """Open a saved model, with the AnnData that was saved with it, with another one with the same OCRs in any order, or without.

        Parameters
        ----------
        dir_path
            {saved_folder}
        adata
            Cells with the OCRs of the saved model. They are registered as those of the saved model were, unless `setup_anndata` was called
            for them. If None, those that were saved with the model; if there are none, or with False, the model is opened without data,
            and can be applied, but not trained.
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
            If `adata` has other OCRs than those of the saved model; `from_pretrained` works for any OCR set. Or if the folder was written
            by an earlier version, without a registry, and `adata` is not given.
        """
        refuse_arguments(NOT_TAKEN["load"], kwargs, "ChromFound.load")
        known_options(kwargs, (), "ChromFound.load")
        folder = as_path(dir_path, "dir_path")
        checkpoint = load(folder, prefix=prefix)
        registry_file, table = (file_of(folder, name, prefix) for name in (REGISTRY_FILE, OCR_FILE))
        registry = read_registry(registry_file) if registry_file.is_file() else None
        if registry is not None:
            cls._check_class(registry, folder)
        if registry is None and not isinstance(adata, AnnData):
            msg = (
                f"{folder} has no {registry_file.name}, as it was written by an earlier version: pass an AnnData for which "
                "ChromFound.setup_anndata was called."
            )
            raise ValueError(msg)
        if adata is None:
            adata = saved_cells(folder, prefix)
        saved = None
        if table.is_file():
            saved = pd.read_csv(table, sep="\t", dtype={"chrom": str})
        if isinstance(adata, AnnData):
            if saved is not None:
                _check_ocrs(adata, saved)
            if registry is not None and not cls._is_set_up(adata):
                cls.setup_anndata(adata, source_registry=registry, extend_categories=True, **registry["setup_args"])
            model = cls(adata, checkpoint=checkpoint)
        else:
            model = cls(registry=registry, checkpoint=checkpoint)
            if saved is not None:
                model._bind(saved)
        model.is_trained_ = True
        model.to_device(device_of(accelerator, device))
        return model


def _read_weights(folder: str) -> Mapping[str, torch.Tensor]:
    """Weights of a folder that a checkpoint callback wrote."""
    state: Mapping[str, torch.Tensor] = load(Path(folder)).net.state_dict()
    return state


def _check_ocrs(adata: AnnData, saved: pd.DataFrame) -> None:
    """Refuse cells with other OCRs than those that were saved with a model."""
    _, ocrs = read_columns(adata, genome=declared_genome(adata.uns.get("genome")) or "GRCh38")
    expected, given = (pd.MultiIndex.from_frame(x[["chrom", "start", "end"]]) for x in (saved, ocrs))
    if len(expected.symmetric_difference(given)):
        msg = (
            f"adata has other OCRs than the saved model ({len(given.difference(expected))} of {len(given)} are new). "
            "Use ChromFound.from_pretrained(folder, adata), which works for any OCR set, or sfa.pp.map_ocrs(adata, target)."
        )
        raise ValueError(msg)
