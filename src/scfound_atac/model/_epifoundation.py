"""`EpiFoundation`: train, apply and save the network on the user's own paired cells."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from mudata import read_h5mu

from .._anndata import get_atac
from .._docs import shared_docs
from .._logging import logger
from .._paths import as_path, make_folder
from .._settings import settings
from ..data.build_vocabularies import build_vocabularies
from ..data.cells import read_columns
from ..data.vocabularies import is_special
from ..hub import Checkpoint, load, save
from ..inference.epifoundation import PeakSetRunner, embed_peak_sets
from ..nn import EpiFoundationConfig, EpiFoundationNet
from ..train.loop import BEST, make_fabric, own_randomness
from ..train.paired_data import (
    DEFAULT_SETUP,
    SETUP_KEY,
    DataReader,
    batches_of,
    make_setup,
    paired_names,
    read_setup,
    refuse_repeated,
)
from ..train.peak_to_gene import PeakToGeneOptions, PeakToGeneRun
from ..train.run_folder import LOG, log_tables
from ._scvi_contract import KL_OF_PEAKVI, SIZES_OF_PEAKVI, known_options, refuse_arguments, row_numbers, settled_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

_OF_THE_DATA = ("n_peaks", "n_genes", "n_chromosomes", "n_batches", "n_cell_types")
_SIZES = tuple(field.name for field in fields(EpiFoundationConfig) if field.name not in _OF_THE_DATA)
# Arguments and methods of `scvi.model.PEAKVI` that this class does not have, with the reason; the training page shows them.
_NO_LIKELIHOOD = "the network has no likelihood of accessibility and no latent distribution"
_NO_COVARIATES = "the network reads a batch and no other covariate"
_NO_DATAMODULE = "cells come from MuData"
_NO_TRAINER = "the loop of `sfa pretrain` trains; its options are arguments of `train`"
_NO_BASE = (
    "not derived from scvi-tools' base class: `mdata.uns` holds the setup, `load_registry` reads that of a folder"
)
_NO_PICKLE = "weights are written as safetensors and JSON, not by torch.save"
NOT_TAKEN: dict[str, dict[str, str]] = {
    "__init__": SIZES_OF_PEAKVI | {"registry": "a checkpoint holds the setup, and needs no data"},
    "setup_anndata": {
        "labels_key": "the network learns expression, not labels",
        **dict.fromkeys(("categorical_covariate_keys", "continuous_covariate_keys"), _NO_COVARIATES),
    },
    "train": {
        **KL_OF_PEAKVI,
        "validation_size": "all paired cells that are not trained on are held out",
        "shuffle_set_split": "the cells that are held out are always drawn",
        "weight_decay": "Adam without weight decay, as in the paper",
        "eps": "Adam as in the paper",
        "check_val_every_n_epoch": "`validate_every` counts steps",
        **dict.fromkeys(("datasplitter_kwargs", "plan_kwargs"), _NO_TRAINER),
        "datamodule": _NO_DATAMODULE,
    },
    "get_latent_representation": {
        "give_mean": _NO_LIKELIHOOD,
        "mc_samples": _NO_LIKELIHOOD,
        "return_dist": _NO_LIKELIHOOD,
        "dataloader": _NO_DATAMODULE,
    },
    "save": {
        "save_kwargs": _NO_PICKLE,
        "legacy_mudata_format": "the names of peaks and genes are vocabularies",
        "datamodule": _NO_DATAMODULE,
    },
    "load": {
        "accelerator": "`get_latent_representation` and `predict_expression` have `device`",
        "device": "`get_latent_representation` and `predict_expression` have `device`",
        "backup_url": "`hub.fetch` downloads weights, and checks them",
        "datamodule": _NO_DATAMODULE,
        "allowed_classes_names_list": "the folder names its network, and another one is refused",
    },
    "methods": {
        **dict.fromkeys(
            (
                "get_normalized_accessibility",
                "differential_accessibility",
                "differential_expression",
                "differential_abundance",
                "get_normalized_expression",
                "get_elbo",
                "get_marginal_ll",
                "get_reconstruction_error",
                "get_latent_library_size",
                "get_feature_correlation_matrix",
                "get_likelihood_parameters",
                "posterior_predictive_sample",
                "get_aggregated_posterior",
                "get_importance_weights",
                "get_library_size_factors",
                "get_region_factors",
            ),
            _NO_LIKELIHOOD,
        ),
        **dict.fromkeys(
            ("load_query_data", "prepare_query_anndata", "prepare_query_mudata"),
            "new cells need no training, and `from_pretrained` takes any OCR set",
        ),
        **dict.fromkeys(
            (
                "data_registry",
                "deregister_manager",
                "get_anndata_manager",
                "get_from_registry",
                "get_setup_arg",
                "get_state_registry",
                "get_var_names",
                "register_manager",
                "setup_anndata",
                "to_device",
                "transfer_fields",
                "update_setup_method_args",
                "view_anndata_setup",
                "view_registry",
                "view_setup_args",
                "view_setup_method_args",
            ),
            _NO_BASE,
        ),
        "setup_annbatch": _NO_DATAMODULE,
        "convert_legacy_save": "there are no such folders; those of earlier versions of this package open as they are",
    },
}
# Values need no preparation, because the network only reads which OCRs are open.
_AS_IT_IS = {"target_sum": None, "log1p": False}
# Number of steps between checkpoints in a temporary folder, from which no run is resumed.
_NEVER = 2**62
# Maximum number of genes times cells for which a decoder holds hidden units at the same time; bounds memory.
_QUERIES = 250_000
_MDATA_FILE = "mdata.h5mu"


class EpiFoundation:
    """EpiFoundation, trained and applied on the user's own cells (bioRxiv 2025.02.05.636688).

    A transformer over the set of open peaks of a cell, trained to predict which genes are expressed in the same cell.

    Parameters
    ----------
    mdata
        MuData that was registered with `setup_mudata`. None for a pretrained network that is applied and not trained.
    config
        Sizes of a new network that differ from the paper, such as ``{"d_model": 128, "n_layers": 2}``: fields of
        `scfound_atac.nn.EpiFoundationConfig`, except those that follow from the data. ``{"value_decoder": True}`` adds a decoder of levels
        of expression. The vocabularies are the OCRs of `mdata` on chr1 to chr22, X and Y, and its genes.
    checkpoint
        A pretrained network to start from; see also `from_pretrained`. Each OCR then stands for the peak of the vocabulary that it
        overlaps, and genes are matched by name.
    gene_chromosomes
        Chromosome of each gene, for a new network; by default ``var["chrom"]`` or ``var["chromosome"]`` of the genes. Genes without a known
        chromosome get a common token, with a warning.
    seed
        Random seed of the initial weights; ``scvi.settings.seed`` if None, or 0 if that is not set.

    Attributes
    ----------
    history
        The log of the last training run in the form of scvi-tools, a table per value over the steps; None before training.
    validation_names
        Names of the cells that the last training run held out.

    Raises
    ------
    ValueError
        If `mdata` is not set up; `config` has no valid sizes; `checkpoint` is of another kind, knows none of the genes, or was trained
        with batches that `mdata` lacks; or a new network is requested and no cell has both modalities.

    Examples
    --------
    >>> sfa.model.EpiFoundation.setup_mudata(mdata)
    >>> model = sfa.model.EpiFoundation(mdata, config={"d_model": 128, "n_layers": 2})
    >>> model.train(max_epochs=20)
    >>> mdata["atac"].obsm["X_sfa"] = model.get_latent_representation()
    >>> model.predict_expression(genes=["MS4A1", "CCL4"])
    >>> model.save("my_model")
    >>> sfa.tl.embed(other, model="./my_model")
    """

    def __init__(
        self,
        mdata: MuData | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
        gene_chromosomes: Mapping[str, object] | pd.Series | None = None,
        seed: int | None = None,
    ) -> None:
        if checkpoint is not None and (config is not None or gene_chromosomes is not None):
            msg = "config= and gene_chromosomes= define a new network: pass them or checkpoint=, not both."
            raise ValueError(msg)
        self.mdata, self._is_trained = mdata, checkpoint is not None
        self.history: dict[str, pd.DataFrame] | None = None
        self.validation_names: pd.Index | None = None
        self._setup = read_setup((checkpoint.training if checkpoint else {}).get("setup", DEFAULT_SETUP))
        if mdata is not None:
            if SETUP_KEY not in mdata.uns:
                msg = "mdata is not set up: call sfa.model.EpiFoundation.setup_mudata(mdata) first."
                raise ValueError(msg)
            self._setup = read_setup(mdata.uns[SETUP_KEY])
        if checkpoint is None:
            if mdata is None:
                msg = "Pass mdata for a new network, or a pretrained one as checkpoint=."
                raise ValueError(msg)
            checkpoint = self._new_network(mdata, dict(config or {}), gene_chromosomes, settled_seed(seed))
        if checkpoint.model_class != "EpiFoundation":
            msg = (
                f"{checkpoint.name!r} is a {checkpoint.model_class} model, not EpiFoundation; use it with sfa.tl.embed."
            )
            raise ValueError(msg)
        self._checkpoint = checkpoint
        if mdata is not None:
            self._reader.check(mdata)

    @classmethod
    @shared_docs
    def setup_mudata(
        cls,
        mdata: MuData,
        batch_key: str | None = None,
        *,
        layer: str | None = None,
        rna_layer: str | None = None,
        modalities: Mapping[str, str] | None = None,
        genome: str | None = None,
    ) -> None:
        """Register the accessibility and expression of a MuData, and check both.

        Parameters
        ----------
        mdata
            Cells x OCRs with coordinates in ``var`` or in the names, and cells x genes. Cells are paired by ``obs_names``; those with only
            one modality are not used in training.
        layer, rna_layer
            Layers with the counts and with the expression; ``X`` if None. Only the open OCRs are used; expression may be counts or
            normalised.
        batch_key
            Column of ``obs`` with the batch of each cell, in the accessibility modality or in `mdata`. The network gets the batch when it
            predicts expression, so that cell vectors need not contain it.
        modalities
            Names of the modalities, if they are not ``{"atac": "atac", "rna": "rna"}``.
        genome
            {genome}

        Returns
        -------
        None. Sets ``mdata.uns["epifoundation_setup"]``.

        Raises
        ------
        TypeError
            If `mdata` is not a MuData.
        KeyError
            If the modality, layer or column does not exist.
        ValueError
            If coordinates cannot be used, or names of cells or genes are not unique.
        """
        given = {"layer": layer, "rna_layer": rna_layer, "batch_key": batch_key, "genome": genome}
        mdata.uns[SETUP_KEY] = make_setup(mdata, dict(modalities or {}), given)

    @classmethod
    def from_pretrained(cls, model: str | Path, mdata: MuData | None = None) -> EpiFoundation:
        """Start from pretrained weights.

        Parameters
        ----------
        model
            Name from the registry or folder of a model, as for `scfound_atac.hub.load`.
        mdata
            MuData that was registered with `setup_mudata`. It may have other OCRs, other genes and cells without a pair, and is not needed
            to apply the model.
        """
        return cls(mdata, checkpoint=load(model))

    @property
    def checkpoint(self) -> Checkpoint:
        """The network with its vocabularies, which can be given to `scfound_atac.tl.embed`."""
        return self._checkpoint

    @property
    def _reader(self) -> DataReader:
        return DataReader(self._checkpoint, self._setup)

    def __repr__(self) -> str:
        sizes = self._checkpoint.net.config
        n_parameters = sum(p.numel() for p in self._checkpoint.net.parameters())
        vocabularies = self._reader.vocabularies
        n_genes = len([gene for gene in vocabularies.genes if not is_special(gene)])
        return (
            f"EpiFoundation of {len(vocabularies.ocrs)} peaks and {n_genes} genes: width {sizes.d_model}, {sizes.n_layers} layers, "
            f"{n_parameters} parameters, {'trained' if self._is_trained else 'not trained'}"
        )

    def train(
        self,
        max_epochs: int = 140,
        *,
        batch_size: int = 8,
        accumulate: int = 20,
        lr: float = 1e-4,
        n_warmup_steps: int = 100,
        clip: float = 100.0,
        max_genes: int = 8_000,
        train_size: float = 0.9,
        max_steps: int | None = None,
        validate_every: int | None = None,
        checkpoint_every: int | None = None,
        precision: Literal["auto", "32", "bf16-mixed"] = "auto",
        n_workers: int = 0,
        output: str | Path | None = None,
        resume: bool = True,
        accelerator: str = "auto",
        devices: int | list[int] | str = 1,
        num_nodes: int = 1,
        strategy: str = "auto",
        early_stopping: bool = False,
        early_stopping_patience: int = 3,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on the cells with both modalities to predict which genes are expressed (section 3.3.3).

        With a decoder of levels, the network also learns how strongly they are expressed.

        Each time the network sees a cell, it predicts up to `max_genes` genes, half of them expressed in the cell and half not. At the end
        the model has the weights with the lowest loss on the held-out cells. If a run is interrupted, the same call continues it from
        `output` with the same steps as without the interruption.

        Parameters
        ----------
        max_epochs
            Number of passes over the training cells. This and the next five defaults are those of the paper.
        batch_size, accumulate
            Cells per batch over all processes, and batches per step.
        lr
            Maximum learning rate of Adam. It warms up, and falls to zero along a cosine.
        n_warmup_steps
            Number of steps of linear warm-up, at most a tenth of the run.
        clip
            Maximum norm of the gradient.
        max_genes
            Maximum number of genes that are predicted per cell and step.
        train_size
            Fraction of the paired cells to train on; the others are held out. With 1 the last weights are kept.
        max_steps
            Number of steps, instead of `max_epochs`.
        validate_every, checkpoint_every
            Number of steps between two validations, and between two checkpoints in `output`; one epoch by default.
        precision
            ``"32"``, ``"bf16-mixed"``, or ``"auto"``: bf16 on a GPU that supports it.
        n_workers
            Number of processes that prepare batches in advance.
        output
            Folder of the run with ``log.csv``, ``last.ckpt``, and the networks ``best`` and ``final``; a temporary folder if None.
        resume
            Continue from ``last.ckpt`` in `output` if there is one; start over if False.
        accelerator, devices, num_nodes, strategy
            Hardware to train on, as in `lightning.fabric.Fabric`. Several devices need a script that each process runs, or torchrun.
        early_stopping
            Stop when the loss on the held-out cells has not fallen for a while. The best weights are kept with and without it.
        early_stopping_patience
            Number of validations without improvement after which training stops.
        seed
            Random seed of the split, of all draws and of dropout; ``scvi.settings.seed`` if None, or 0 if that is not set.
        **kwargs
            None are taken: arguments of scvi-tools without a meaning here are refused.

        Raises
        ------
        ValueError
            If there is no paired cell; values are negative, infinite or NaN; hardly any open OCR is in the vocabulary of the checkpoint; an
            option is out of range; `output` holds another run; or early stopping has no cells to validate on.
        TypeError
            If an argument of scvi-tools has no meaning here.
        FloatingPointError
            If the loss becomes infinite or NaN.
        """
        refuse_arguments(NOT_TAKEN["train"], kwargs, "EpiFoundation.train")
        known_options(kwargs, (), "EpiFoundation.train")
        if early_stopping and train_size == 1:
            msg = "early_stopping needs cells to validate on, and none is held out: lower train_size."
            raise ValueError(msg)
        seed = settled_seed(seed)
        options = PeakToGeneOptions(
            max_epochs=max_epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            accumulate=accumulate,
            lr=lr,
            n_warmup_steps=n_warmup_steps,
            clip=clip,
            max_genes=max_genes,
            train_size=train_size,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every if output is not None else _NEVER,
            precision=precision,
            n_workers=n_workers,
            seed=seed,
            patience=early_stopping_patience if early_stopping else None,
        )
        sizes = self._checkpoint.net.config
        if self.mdata is None:
            msg = "The model was opened without data: pass mdata= to load() or from_pretrained() to train it."
            raise ValueError(msg)
        if not (sizes.n_bins or sizes.value_decoder):
            msg = f"Model {self._checkpoint.name!r} has no decoder of expression, so it cannot be trained."
            raise ValueError(msg)
        if output is not None:
            make_folder(output, "output")
        cells, names, n_unpaired = self._reader.paired_cells(self.mdata)
        facts = {"n_unpaired_cells": n_unpaired, "setup": self._setup}
        fabric = make_fabric(accelerator, devices, num_nodes, strategy)
        fabric.launch()
        with ExitStack() as stack:
            stack.enter_context(own_randomness(fabric))
            if output is None:
                output = fabric.broadcast(stack.enter_context(TemporaryDirectory()) if fabric.is_global_zero else "")
            folder = Path(str(output))
            PeakToGeneRun(self._checkpoint, cells, options, fabric, folder=folder, facts=facts, resume=resume).train()
            self._checkpoint = replace(load(folder / BEST), name="trained")
            self.history = log_tables(folder / LOG)
            fabric.barrier()  # the folder is removed only after every process has read it
        self.validation_names, self._is_trained = names[options.split(len(cells))[1]], True

    @shared_docs
    def get_latent_representation(
        self,
        mdata: MuData | AnnData | None = None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        *,
        genome: str | None = None,
        batch_size: int | Literal["auto"] | None = "auto",
        device: str = "auto",
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        """Compute cell vectors: the state of [CLS] after the last layer (section 3.3.2).

        Parameters
        ----------
        mdata
            Cells to embed, paired or not, with any OCRs on GRCh38: a MuData, or an AnnData with the accessibility. The registered ones if
            None.
        indices
            Row numbers of the cells of the accessibility modality, or a mask; all if None.
        genome
            {genome}
        batch_size
            Maximum number of cells per forward pass; ``"auto"`` or None chooses it by the memory of the device.
        device
            {device}
        seed
            Random seed. It chooses the peaks of cells that have more than the network reads; ``scvi.settings.seed`` if None, or 0 if that
            is not set.

        Returns
        -------
        Array (n_obs, d_model) in the order of the accessibility modality, float32, as `scfound_atac.tl.embed` writes it with this model.

        Raises
        ------
        ValueError
            If coordinates or values cannot be used, or hardly any open OCR is in the vocabulary.
        """
        self._atac(mdata)
        runner = PeakSetRunner(self._checkpoint, device=device, batch_size=batch_size or "auto")
        return self._embed(mdata, runner, genome, settled_seed(seed), indices)

    @shared_docs
    def predict_expression(
        self,
        mdata: MuData | AnnData | None = None,
        genes: Iterable[str] | None = None,
        *,
        kind: Literal["probability", "level"] | None = None,
        batch: str | None = None,
        genome: str | None = None,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        seed: int = 0,
    ) -> pd.DataFrame:
        """Predict the expression of genes from accessibility.

        In training, half of the genes that the network sees are expressed, so its probabilities exceed the true fraction of expressed
        genes. Only their order over cells and genes is informative.

        Parameters
        ----------
        mdata
            Cells to predict for, as in `get_latent_representation`; the registered ones if None.
        genes
            Names of genes of the vocabulary. By default those of the registered data that are in the vocabulary, or all of it without data.
        kind
            ``"probability"`` that a gene is expressed, or its ``"level"`` on the scale of `scfound_atac.pp.bin_expression`, for a network
            with a decoder of levels. By default the probability, if there is a decoder for it.
        batch
            Predict the expression in this batch; by default in the batch of each cell. Only for networks that were trained with batches.
        genome
            {genome}
        batch_size
            Maximum number of cells per forward pass; ``"auto"`` chooses it by the memory of the device.
        device
            {device}
        seed
            Random seed. It chooses the peaks of cells that have more than the network reads.

        Returns
        -------
        Table (n_obs, genes), float32.

        Raises
        ------
        KeyError
            If a gene is not in the vocabulary.
        ValueError
            If coordinates or values cannot be used, hardly any open OCR is in the vocabulary, genes are repeated, or the network cannot
            predict this `kind` or does not know the batch.
        """
        atac, net = self._atac(mdata), self._checkpoint.net
        if kind is None:
            kind = "probability" if net.config.n_bins else "level"
        if kind not in ("probability", "level"):
            msg = f"kind={kind!r} is not known: use 'probability' or 'level'."
            raise ValueError(msg)
        if not (net.config.n_bins if kind == "probability" else net.config.value_decoder):
            msg = f"This network has no decoder for kind={kind!r}; a new one gets that of levels by config={{'value_decoder': True}}."
            raise ValueError(msg)
        reader = self._reader
        names = reader.known_genes(self.mdata) if genes is None else [str(gene) for gene in genes]
        refuse_repeated(pd.Index(names), "genes", "unique()")
        ids, chromosomes = reader.vocabularies.gene_ids(names)
        batches = reader.batch_ids(self._given(mdata), atac, atac.obs_names, batch)
        runner = PeakSetRunner(self._checkpoint, device=device, batch_size=batch_size)
        vectors = self._embed(mdata, runner, genome, seed)
        values = np.empty((len(vectors), len(names)), dtype=np.float32)
        n_cells = max(1, _QUERIES // max(1, len(names)))
        with torch.inference_mode():
            queries = net.embed_genes(*(torch.from_numpy(x).to(runner.device) for x in (ids, chromosomes)))
            for first in range(0, len(vectors), n_cells):
                part = slice(first, first + n_cells)
                cell = torch.from_numpy(vectors[part]).to(runner.device)
                batch_ids = None if batches is None else torch.from_numpy(batches[part]).to(runner.device)
                if kind == "level":
                    found = net.predict_values(cell, queries, batch_ids)
                else:
                    found = 1 - net.predict_expression(cell, queries, batch_ids).softmax(-1)[..., 0]
                values[part] = found.cpu().numpy()
        return pd.DataFrame(values, index=atac.obs_names, columns=names)

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
        """Write a folder with safetensors, JSON and the vocabularies that `load` and `scfound_atac.hub.load` open.

        Parameters
        ----------
        dir_path
            {dir_path}
        prefix
            Text before the name of each file, so that a folder can hold several models.
        overwrite
            {overwrite}
        save_anndata
            Also write the registered MuData, as ``mdata.h5mu``; `load` then needs no other.
        **kwargs
            Options of `mudata.MuData.write`, for example ``compression``.

        Raises
        ------
        FileExistsError
            If there is a model and `overwrite` is False.
        TypeError
            If an argument of scvi-tools has no meaning here.
        ValueError
            If `save_anndata` is set and the model was opened without data.
        """
        refuse_arguments(NOT_TAKEN["save"], kwargs, "EpiFoundation.save")
        if kwargs and not save_anndata:
            msg = f"{', '.join(kwargs)} are options of the MuData that is written: pass save_anndata=True."
            raise TypeError(msg)
        mdata = self.mdata if save_anndata else None
        if save_anndata and mdata is None:
            msg = "The model was opened without data: leave save_anndata out."
            raise ValueError(msg)
        checkpoint = self._checkpoint
        save(
            checkpoint.net,
            dir_path,
            chromosomes=checkpoint.chromosomes,
            preparation=checkpoint.preparation,
            training={**checkpoint.training, "setup": self._setup},
            vocabularies=checkpoint.vocabularies,
            overwrite=overwrite,
            prefix=prefix,
        )
        if mdata is not None:
            mdata.write(as_path(dir_path, "dir_path") / f"{prefix or ''}{_MDATA_FILE}", **kwargs)

    @classmethod
    @shared_docs
    def load(
        cls,
        dir_path: str | Path,
        mdata: MuData | Literal[False] | None = None,
        prefix: str | None = None,
        **kwargs: Any,
    ) -> EpiFoundation:
        """Open a saved model, with or without data. The data may have other OCRs and genes than those of the training.

        Parameters
        ----------
        dir_path
            {saved_folder}
        mdata
            Cells to train on. They are registered as those of the saved model were, unless `setup_mudata` was called for them. If None,
            those that were saved with the model; if there are none, or with False, the model can be applied, but not trained.
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
        """
        refuse_arguments(NOT_TAKEN["load"], kwargs, "EpiFoundation.load")
        known_options(kwargs, (), "EpiFoundation.load")
        folder = as_path(dir_path, "dir_path")
        checkpoint = load(folder, prefix=prefix)
        own_data = folder / f"{prefix or ''}{_MDATA_FILE}"
        if mdata is None and own_data.is_file():
            mdata = read_h5mu(own_data)
        if mdata is None or mdata is False:
            return cls(checkpoint=checkpoint)
        if SETUP_KEY not in mdata.uns:
            cls.setup_mudata(mdata, **_setup_arguments(checkpoint))
        return cls(mdata, checkpoint=checkpoint)

    @staticmethod
    def load_registry(dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
        """How the MuData of a saved model was set up, under the names that scvi-tools uses.

        Parameters
        ----------
        dir_path
            Folder that `save` wrote.
        prefix
            Text before the name of each file, as it was given to `save`.

        Returns
        -------
        ``model_name``, ``setup_method_name`` and ``setup_args``.
        """
        checkpoint = load(as_path(dir_path, "dir_path"), prefix=prefix)
        return {
            "model_name": checkpoint.model_class,
            "setup_method_name": "setup_mudata",
            "setup_args": _setup_arguments(checkpoint),
        }

    def _new_network(
        self,
        mdata: MuData,
        sizes: dict[str, Any],
        gene_chromosomes: Mapping[str, object] | pd.Series | None,
        seed: int,
    ) -> Checkpoint:
        """A new network with vocabularies from the data."""
        if unknown := [name for name in sizes if name not in _SIZES]:
            msg = f"A new network has no option {', '.join(unknown[:3])}; its sizes are {', '.join(_SIZES)}."
            raise ValueError(msg)
        atac, rna = self._atac(mdata), get_atac(mdata, self._setup["rna"])
        paired_names(atac, rna)
        batches = batches_of(mdata, self._setup)
        if gene_chromosomes is None:
            column = next((name for name in ("chrom", "chromosome") if name in rna.var), None)
            gene_chromosomes = {} if column is None else rna.var[column]
        _, ocrs = read_columns(atac, f'mdata["{self._setup["atac"]}"]', self._setup.get("genome"))
        vocabularies = build_vocabularies(ocrs, rna.var_names, gene_chromosomes, batches)
        network = EpiFoundationConfig(
            **({"n_bins": 2} | sizes),
            n_peaks=len(vocabularies.peaks),
            n_genes=len(vocabularies.genes),
            n_chromosomes=len(vocabularies.chromosomes),
            n_batches=len(batches),
        )
        if not (network.n_bins or network.value_decoder):
            msg = (
                "With n_bins=0 and without value_decoder=True there is nothing to train: keep one of the two decoders."
            )
            raise ValueError(msg)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = EpiFoundationNet(network).eval()
        return Checkpoint(
            net=net,
            name="untrained",
            sha256="",
            chromosomes=tuple(vocabularies.chromosomes),
            preparation=_AS_IT_IS,
            model_class="EpiFoundation",
            vocabularies=vocabularies,
        )

    def _given(self, data: MuData | AnnData | None) -> MuData | AnnData:
        given = self.mdata if data is None else data
        if given is None:
            msg = "The model was opened without data: pass the cells to apply it to."
            raise ValueError(msg)
        return given

    def _atac(self, data: MuData | AnnData | None) -> AnnData:
        return get_atac(self._given(data), self._setup["atac"], "mdata")

    def _embed(
        self,
        data: MuData | AnnData | None,
        runner: PeakSetRunner,
        genome: str | None,
        seed: int,
        indices: Sequence[int] | NDArray[Any] | None = None,
    ) -> NDArray[np.float32]:
        if not self._is_trained:
            logger.warning("The network is not trained: call train() first")
        cells = self._reader.cells(self._given(data), genome)
        tokenizer = self._reader.tokenizer(cells, runner.net.config.max_tokens, seed)
        rows = row_numbers(indices, len(cells))
        if rows is None:
            return embed_peak_sets(cells, tokenizer, runner, progress=settings.progress_bar)
        rows, back = np.unique(rows, return_inverse=True)
        return embed_peak_sets(cells.subset(rows), tokenizer, runner, progress=settings.progress_bar)[back]


def _setup_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """The arguments of `EpiFoundation.setup_mudata` with which a checkpoint was trained."""
    setup = read_setup(checkpoint.training.get("setup", DEFAULT_SETUP))
    modalities = {name: setup.pop(name) for name in DEFAULT_SETUP if name in setup}
    return {**setup, "modalities": modalities}
