"""`ChromFound`: train, apply and save the network on the user's own cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner

from .. import __version__
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
from ..nn.objectives import MASK_RATIO, WITHOUT_THINNING, check_weights
from ..train.lightning import BoundNet, CellDataModule, TrainingPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..inference.chromfound import Pooling

OCR_FILE = "ocrs.tsv.gz"


class ChromFound(BaseModelClass):
    """ChromFound on the user's own cells (arXiv 2505.12638).

    A window-attention and Mamba network over all OCRs of a cell, trained to restore accessibility that was masked.

    Parameters
    ----------
    adata
        Registered with `setup_anndata`.
    config
        Sizes of a new network, as a `scfound_atac.nn.ChromFoundConfig` or a mapping of its fields; the released sizes if None. With
        ``n_factors=50`` the network is told what is known of each region (`scfound_atac.genome.load_region_table`).
    checkpoint
        Start from this pretrained network instead; see also `from_pretrained`.
    seed
        Seed of the initial weights.

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
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        recipe: Literal["chromfound"] | None = "chromfound",
        genome: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the counts and check the coordinates.

        Parameters
        ----------
        adata
            Cells by OCRs, coordinates in ``var`` or in the names.
        layer
            Layer with the counts; ``X`` if None.
        recipe
            ``"chromfound"`` prepares counts by total-count normalisation and log1p; None feeds the matrix as it is.
        genome
            Genome build, if it cannot be recognised; see `scfound_atac.tl.embed`.

        Raises
        ------
        ValueError
            For coordinates that are not usable, or values that look normalised while a `recipe` is set.
        """
        if recipe not in ("chromfound", None):
            msg = f"recipe={recipe!r} is not known: use 'chromfound' or None."
            raise ValueError(msg)
        if hasattr(adata, "mod"):
            msg = 'adata must be an AnnData, got MuData. Pass the modality that holds accessibility: adata = adata["atac"].'
            raise TypeError(msg)
        Cells.read(
            adata,
            layer=layer,
            genome=genome,
            values="any" if recipe is None else "counts",
            or_else=", or set up with recipe=None to use what is normalised already",
        )
        setup_method_args = cls._get_setup_method_args(
            **locals()
        )  # the arguments of this call: no other variable before this line
        field = LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False)
        manager = AnnDataManager(fields=[field], setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def from_pretrained(cls, model: str | Path, adata: AnnData) -> ChromFound:
        """Start from pretrained weights: a registry name or a folder, as `scfound_atac.hub.load` takes."""
        instance = cls(adata, checkpoint=load(model))
        instance.is_trained_ = True
        return instance

    @property
    def checkpoint(self) -> Checkpoint:
        """The network with its vocabulary and preparation, as `scfound_atac.tl.embed` takes it."""
        return self._checkpoint

    def train(
        self,
        max_epochs: int = 5,
        *,
        batch_size: int = 16,
        crop_size: int | None = None,
        lr: float = 5e-5,
        weight_decay: float = 0.01,
        mask_ratio: float = MASK_RATIO,
        n_warmup_steps: int = 100,
        loss_on: Literal["replaced", "all"] = "replaced",
        objectives: Mapping[str, float] | None = None,
        train_size: float = 0.9,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train with the paper's masked objective (section 3.3), or with others.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; the paper's 5 by default.
        batch_size
            Cells per step (the paper: 128).
        crop_size
            Train on random stretches of this many neighbouring OCRs; on whole cells if None.
        lr, weight_decay
            Of AdamW; the learning rate warms up over `n_warmup_steps` and falls to zero along a cosine.
        mask_ratio
            Fraction of zero and of non-zero OCRs that the masked objectives replace.
        n_warmup_steps
            Steps of linear warm-up, at most a tenth of the run.
        loss_on
            ``"replaced"`` counts the error at the replaced positions alone, as in the paper. ``"all"`` counts every position, which closes
            the short cut of answering the opposite of what is seen (see the models page of the documentation).
        objectives
            Weights of a sum of objectives instead, such as ``{"denoise": 1.0, "contrast": 0.1}``; the training page of the documentation
            lists them, and `loss_on` is not used. All but ``"masked"`` and ``"all"`` thin counts, so the model must be set up with counts.
        train_size
            Share of cells to train on; the rest is for validation.
        accelerator, devices
            As in Lightning.
        seed
            Seed of split, order, crops, masks and dropout.
        **trainer_kwargs
            For `lightning.pytorch.Trainer`, for example ``max_steps``, ``accumulate_grad_batches``, ``precision``, ``default_root_dir``.

        Raises
        ------
        ValueError
            For a `train_size` outside (0, 1], an unknown `loss_on` or objective, or `objectives` that thin values which are not counts.
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
                msg = "objectives= need counts to thin. Call setup_anndata(adata, layer=...) with counts, without recipe=None."
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
            mask_ratio=mask_ratio,
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
                "mask_ratio": mask_ratio,
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
        """Vectors of cells: components, or one number per column of ``var``."""
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
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        n_components: int | None = 50,
        n_fit_cells: int = N_FIT_CELLS,
        batch_size: int | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Cell vectors: hidden states averaged over the hidden dimensions, then PCA over the cells (section A.1), as in `tl.embed`.

        Parameters
        ----------
        adata
            Cells to embed; the registered ones if None.
        n_components
            Principal components, or None for the whole vector, one number per OCR of ``var``.
        n_fit_cells
            PCA is fitted to at most this many cells, chosen by `seed` and cell name.
        batch_size
            Cells per forward pass.
        seed
            Random seed; it chooses the cells when there are more than `n_fit_cells`.

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
    def get_reconstruction(
        self, adata: AnnData | None = None, *, batch_size: int | Literal["auto"] = "auto"
    ) -> NDArray[np.float32]:
        """Accessibility as the network reconstructs it, on the scale of the prepared values: (n_obs, n_vars) float32, dense."""
        self._check_if_trained(warn=True)
        return self._apply(adata, "reconstruction", batch_size=batch_size)

    def save(self, dir_path: str | Path, *, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Write a folder that `load` and `scfound_atac.hub.load` open: safetensors, JSON and the OCR table.

        Parameters
        ----------
        dir_path
            Folder; made if absent.
        overwrite
            Replace a model that is already there.
        save_anndata
            Write the registered AnnData beside it as ``adata.h5ad``.

        Raises
        ------
        FileExistsError
            If a model is there and `overwrite` is False.
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
    def load(cls, dir_path: str | Path, adata: AnnData) -> ChromFound:
        """Open a saved model on a registered AnnData with the same OCRs, in any order.

        Raises
        ------
        ValueError
            If `adata` has other OCRs than the model was saved with; `from_pretrained` takes any OCR set.
        """
        table = Path(dir_path) / OCR_FILE
        if table.is_file():
            saved = pd.MultiIndex.from_frame(pd.read_csv(table, sep="\t"))
            _, ocrs = read_columns(adata, genome=declared_genome(adata.uns.get("genome")) or "GRCh38")
            given = pd.MultiIndex.from_frame(ocrs[["chrom", "start", "end"]])
            if len(saved.symmetric_difference(given)):
                msg = (
                    f"adata has other OCRs than the saved model ({len(given.difference(saved))} of {len(given)} are new). "
                    "Use ChromFound.from_pretrained(folder, adata), which takes any OCR set, or sfa.pp.map_ocrs(adata, target)."
                )
                raise ValueError(msg)
        return cls.from_pretrained(Path(dir_path), adata)
