"""`ChromFound`: train, apply and save the network on the user's own cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner

from .. import __version__
from .._docs import shared_docs
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
from ..train.lightning import BoundNet, CellDataModule, TrainingPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..inference.chromfound import Pooling

OCR_FILE = "ocrs.tsv.gz"


class ChromFound(BaseModelClass):
    """ChromFound, trained and applied on the user's own cells (arXiv 2505.12638).

    A network of window attention and Mamba blocks over all OCRs of a cell, trained to reconstruct accessibility that was masked.

    Parameters
    ----------
    adata
        AnnData that was registered with `setup_anndata`.
    config
        Sizes of a new network, as a `scfound_atac.nn.ChromFoundConfig` or a mapping of its fields; the released sizes if None. With
        ``n_factors=50`` the network also reads the description of each region (`scfound_atac.genome.load_region_table`).
    checkpoint
        A pretrained network to start from; see also `from_pretrained`.
    seed
        Random seed of the initial weights.

    Examples
    --------
    >>> sfa.model.ChromFound.setup_anndata(adata, layer="counts")
    >>> model = sfa.model.ChromFound(adata)
    >>> model.train(max_epochs=5)
    >>> adata.obsm["X_sfa"] = model.get_latent_representation()
    >>> model.save("my_model")
    >>> sfa.tl.embed(other, model="./my_model")
    """

    def __init__(
        self,
        adata: AnnData,
        *,
        config: ChromFoundConfig | Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(adata)
        if checkpoint is not None and config is not None:
            msg = "Pass config= for a new network or checkpoint= for a pretrained one, not both."
            raise ValueError(msg)
        if checkpoint is None:
            if not isinstance(config, ChromFoundConfig):
                config = ChromFoundConfig(**(config or {}))
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                net = ChromFoundNet(config)
            checkpoint = Checkpoint(net=net, name="untrained", sha256="", preparation=DEFAULT_PREPARATION)
        if checkpoint.model_class != "ChromFound":
            msg = (
                f"{checkpoint.name!r} is a {checkpoint.model_class} model, not ChromFound; use it with sfa.tl.embed, "
                "or train it with `sfa pretrain`."
            )
            raise ValueError(msg)
        self._checkpoint = checkpoint
        _, ocrs = read_columns(self.adata, genome=self._setup["genome"])
        order = known_in_genome_order(ocrs, checkpoint.chromosome_ids(ocrs["chrom"].to_numpy()))
        columns = ocr_columns(checkpoint, ocrs, order)
        self.module = BoundNet(checkpoint.net, *map(torch.from_numpy, columns.values()))
        self._order = order
        n_parameters = sum(p.numel() for p in checkpoint.net.parameters())
        self._model_summary_string = f"ChromFound over {len(order)} OCRs, {n_parameters} parameters"
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    @shared_docs
    def setup_anndata(
        cls,
        adata: AnnData,
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
        layer
            {layer}
        recipe
            ``"chromfound"`` scales the counts of each cell to the same total and takes log1p; None uses the matrix as it is.
        genome
            {genome}

        Raises
        ------
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
        setup_method_args = cls._get_setup_method_args(
            **locals()
        )  # locals() must be the arguments only: no variable may be assigned before this line
        field = LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False)
        manager = AnnDataManager(fields=[field], setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

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

    @property
    def checkpoint(self) -> Checkpoint:
        """The network with its vocabulary and preparation, which can be given to `scfound_atac.tl.embed`."""
        return self._checkpoint

    def train(
        self,
        max_epochs: int = 5,
        *,
        batch_size: int = 16,
        crop_size: int | None = None,
        lr: float = 5e-5,
        weight_decay: float = 0.01,
        mask_fraction: float = MASK_FRACTION,
        n_warmup_steps: int = 100,
        loss_on: Literal["replaced", "all"] = "replaced",
        objectives: Mapping[str, float] | None = None,
        train_size: float = 0.9,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train with the masked objective of the paper (section 3.3), or with other objectives.

        Parameters
        ----------
        max_epochs
            Number of passes over the training cells; 5 in the paper.
        batch_size
            Cells per step; 128 in the paper.
        crop_size
            Number of neighbouring OCRs in the random stretches to train on; whole cells if None.
        lr, weight_decay
            Learning rate and weight decay of AdamW. The rate warms up over `n_warmup_steps` and falls to zero along a cosine.
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
        train_size
            Fraction of the cells to train on; the others are used for validation.
        accelerator, devices
            Hardware to train on, as in `lightning.pytorch.Trainer`.
        seed
            Random seed of the split, the order of cells, crops, masks and dropout.
        **trainer_kwargs
            Options of `lightning.pytorch.Trainer`, for example ``max_steps``, ``accumulate_grad_batches``, ``precision``,
            ``default_root_dir``.

        Raises
        ------
        ValueError
            If `train_size` is outside (0, 1], `loss_on` or an objective is unknown, or `objectives` thin values that are not counts.
        """
        if loss_on not in ("replaced", "all"):
            msg = f"loss_on={loss_on!r} is not known: use 'replaced' or 'all'."
            raise ValueError(msg)
        if not 0 < train_size <= 1:
            msg = f"train_size must lie in (0, 1], got {train_size}."
            raise ValueError(msg)
        objectives = dict(objectives or {"masked" if loss_on == "replaced" else "all": 1.0})
        check_weights(objectives)
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
            train_size=train_size,
            seed=seed,
        )
        plan = TrainingPlan(
            self.module,
            objectives,
            data.fraction_open,
            preparation,
            mask_fraction=mask_fraction,
            lr=lr,
            weight_decay=weight_decay,
            n_warmup_steps=n_warmup_steps,
            seed=seed,
        )
        trainer_kwargs = {
            "enable_progress_bar": settings.progress_bar,
            "check_val_every_n_epoch": 1 if data.n_val else None,
            "gradient_clip_val": 1.0,
            "num_sanity_val_steps": 0,
            "reload_dataloaders_every_n_epochs": 1,
            **trainer_kwargs,
        }
        runner = TrainRunner(
            self, plan, data, max_epochs=max_epochs, accelerator=accelerator, devices=devices, **trainer_kwargs
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module.train()
            runner()
        self._checkpoint = replace(
            self._checkpoint,
            net=self.module.net,
            name="trained",
            sha256="",
            training={
                "objectives": objectives,
                "mask_fraction": mask_fraction,
                "n_cells": data.n_train,
                "n_ocrs": len(self._order),
                "n_steps": int(runner.trainer.global_step),
                "version": __version__,
                "batch_size": batch_size,
                "crop_size": crop_size or len(self._order),
                "lr": lr,
                "seed": seed,
            },
        )

    @property
    def _setup(self) -> dict[str, Any]:
        """The arguments of `setup_anndata`."""
        return self.adata_manager.registry["setup_args"]

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
        batch_size: int | Literal["auto"],
        n_components: int | None = None,
        n_fit_cells: int = N_FIT_CELLS,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Vectors of cells: principal components, or one number per column of ``var``."""
        cells = self._cells(self._validate_anndata(adata))
        runner = Runner(self._checkpoint, cells.ocrs, pooling=pooling, device=self.device, batch_size=batch_size)
        vectors, axes = embed_cells(
            cells,
            runner,
            prepare=self._prepare,
            n_components=n_components,
            fit_rows=fit_rows(cells.names, n_fit_cells, seed),
            progress=settings.progress_bar,
        )
        return vectors if axes is not None else cells.to_var(vectors.T, runner.order).T

    @torch.inference_mode()
    @shared_docs
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        n_components: int | None = 50,
        n_fit_cells: int = N_FIT_CELLS,
        batch_size: int | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Compute cell vectors: hidden states averaged over the hidden dimensions, then PCA over the cells (section A.1), as in `tl.embed`.

        Parameters
        ----------
        adata
            Cells to embed; the registered ones if None.
        n_components
            Number of principal components, or None for one number per OCR of ``var``.
        n_fit_cells
            Maximum number of cells to which PCA is fitted. They are chosen by `seed` and name.
        batch_size
            {batch_size}
        seed
            Random seed. It chooses the cells for PCA if there are more than `n_fit_cells`.

        Returns
        -------
        Array (n_obs, n_components), or (n_obs, n_vars), float32.
        """
        self._check_if_trained(warn=True)
        return self._apply(
            adata,
            "hidden_mean",
            batch_size=batch_size,
            n_components=n_components,
            n_fit_cells=n_fit_cells,
            seed=seed,
        )

    @torch.inference_mode()
    @shared_docs
    def get_reconstruction(
        self, adata: AnnData | None = None, *, batch_size: int | Literal["auto"] = "auto"
    ) -> NDArray[np.float32]:
        """Compute the accessibility that the network reconstructs, on the scale of the prepared values.

        Parameters
        ----------
        adata
            Cells to reconstruct; the registered ones if None.
        batch_size
            {batch_size}

        Returns
        -------
        Array (n_obs, n_vars), float32, dense.
        """
        self._check_if_trained(warn=True)
        return self._apply(adata, "reconstruction", batch_size=batch_size)

    @shared_docs
    def save(self, dir_path: str | Path, *, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Write a folder with safetensors, JSON and the OCR table that `load` and `scfound_atac.hub.load` open.

        Parameters
        ----------
        dir_path
            {dir_path}
        overwrite
            {overwrite}
        save_anndata
            Also write the registered AnnData, as ``adata.h5ad``.

        Raises
        ------
        FileExistsError
            If there is a model and `overwrite` is False.
        """
        folder = save(
            self.module.net,
            dir_path,
            chromosomes=self._checkpoint.chromosomes,
            preparation=self._checkpoint.preparation,
            training=self._checkpoint.training,
            regions=self._checkpoint.regions,
            overwrite=overwrite,
        )
        read_columns(self.adata, genome=self._setup["genome"])[1][["chrom", "start", "end"]].to_csv(
            folder / OCR_FILE, sep="\t", index=False
        )
        if save_anndata:
            self.adata.write_h5ad(folder / "adata.h5ad")

    @classmethod
    @shared_docs
    def load(cls, dir_path: str | Path, adata: AnnData) -> ChromFound:
        """Open a saved model for a registered AnnData with the same OCRs, in any order.

        Parameters
        ----------
        dir_path
            {saved_folder}
        adata
            AnnData that was registered with `setup_anndata`.

        Raises
        ------
        ValueError
            If `adata` has other OCRs than those of the saved model; `from_pretrained` works for any OCR set.
        """
        table = Path(dir_path) / OCR_FILE
        if table.is_file():
            saved = pd.MultiIndex.from_frame(pd.read_csv(table, sep="\t"))
            _, ocrs = read_columns(adata, genome=declared_genome(adata.uns.get("genome")) or "GRCh38")
            given = pd.MultiIndex.from_frame(ocrs[["chrom", "start", "end"]])
            if len(saved.symmetric_difference(given)):
                msg = (
                    f"adata has other OCRs than the saved model ({len(given.difference(saved))} of {len(given)} are new). "
                    "Use ChromFound.from_pretrained(folder, adata), which works for any OCR set, or sfa.pp.map_ocrs(adata, target)."
                )
                raise ValueError(msg)
        return cls.from_pretrained(Path(dir_path), adata)
