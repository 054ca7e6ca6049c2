"""`EpiFoundation`: train, apply and save the network on the user's own paired cells."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from mudata import MuData, read_h5mu
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.data.fields import MuDataCategoricalObsField

from .._anndata import get_atac
from .._docs import shared_docs
from .._logging import logger
from .._paths import as_path, make_folder
from .._settings import settings
from ..data.build_vocabularies import build_vocabularies
from ..data.cells import read_columns
from ..data.tokens import Tokenizer
from ..data.vocabularies import is_special
from ..hub import Checkpoint, load, save
from ..inference.epifoundation import PeakSetRunner, embed_peak_sets
from ..nn import EpiFoundationConfig, EpiFoundationNet
from ..train.freezing import freeze_all_but, trained_names
from ..train.history import joined_history
from ..train.loggers import Loggers
from ..train.loop import BEST, make_fabric, own_randomness
from ..train.paired_data import (
    DEFAULT_SETUP,
    SETUP_KEY,
    DataReader,
    batches_of,
    column_of,
    make_setup,
    paired_names,
    read_setup,
    refuse_repeated,
    setup_arguments,
    setup_of,
)
from ..train.parts import given_parts
from ..train.peak_to_gene import PeakToGeneOptions, PeakToGeneRun
from ..train.run_folder import LOG, log_tables
from ._scvi_contract import (
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
    settled_seed,
    write_registry,
)
from ._scvi_model import (
    MINIFIED,
    NO_SURGERY,
    UUID,
    MuDataAnyFeaturesField,
    NetModule,
    ScviModel,
    also_named,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

_OF_THE_DATA = ("n_peaks", "n_genes", "n_chromosomes", "n_batches", "n_cell_types")
_SIZES = tuple(field.name for field in fields(EpiFoundationConfig) if field.name not in _OF_THE_DATA)
# Arguments and methods of `scvi.model.PEAKVI` that this class does not have, with the reason; the training page shows them.
_NO_LIKELIHOOD = "the network has no likelihood of accessibility and no latent distribution"
_NO_COVARIATES = "the network reads a batch and no other covariate"
_NO_DATAMODULE = "cells come from MuData"
_NO_TRAINER = "no Trainer of Lightning runs: `output` keeps checkpoints and the best network, and the same call goes on from there"
_NO_PICKLE = "weights are written as safetensors and JSON, not by torch.save"
NOT_TAKEN: dict[str, dict[str, str]] = {
    "__init__": SIZES_OF_PEAKVI,
    "setup_anndata": dict.fromkeys(("categorical_covariate_keys", "continuous_covariate_keys"), _NO_COVARIATES),
    "setup_mudata": {
        **dict.fromkeys(("categorical_covariate_keys", "continuous_covariate_keys"), _NO_COVARIATES),
        "protein_layer": "the network reads no proteins",
        "size_factor_key": "the network reads which OCRs are open, and no counts",
        "idx_layer": "cells are known by their names",
    },
    "train": {
        **KL_OF_PEAKVI,
        **dict.fromkeys(("callbacks", "enable_checkpointing", "ckpt_path"), _NO_TRAINER),
        "early_stopping_mode": "all values of a validation are losses, which are to fall",
        "datamodule": _NO_DATAMODULE,
    },
    "get_latent_representation": {
        "give_mean": _NO_LIKELIHOOD,
        "mc_samples": _NO_LIKELIHOOD,
        "return_dist": _NO_LIKELIHOOD,
        "dataloader": _NO_DATAMODULE,
    },
    **NO_SURGERY,
    "save": {
        "save_kwargs": _NO_PICKLE,
        "legacy_mudata_format": "the names of peaks and genes are vocabularies",
        "datamodule": _NO_DATAMODULE,
    },
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
        **MINIFIED,
        "setup_annbatch": _NO_DATAMODULE,
        "convert_legacy_save": "there are no such folders; those of earlier versions of this package open as they are",
    },
}
# Options of `plan_kwargs` and `datasplitter_kwargs`.
_PLAN = ("lr", "weight_decay", "eps", "n_warmup_steps")
_SPLITTER = ("external_indexing", "num_workers")
# Values need no preparation, because the network only reads which OCRs are open.
_AS_IT_IS = {"target_sum": None, "log1p": False}
# Number of steps between checkpoints in a temporary folder, from which no run is resumed.
_NEVER = 2**62
# Maximum number of genes times cells for which a decoder holds hidden units at the same time; bounds memory.
_QUERIES = 250_000
_MDATA_FILE = "mdata.h5mu"


class EpiFoundation(ScviModel):
    """EpiFoundation, trained and applied on the user's own cells (bioRxiv 2025.02.05.636688).

    A transformer over the set of open peaks of a cell, trained to predict which genes are expressed in the same cell.

    Parameters
    ----------
    adata
        MuData that was registered with `setup_mudata`. None for a pretrained network that is applied and not trained.
    registry
        Registry of such a MuData, instead of the MuData itself, for a pretrained network; `load` passes it.
    config
        Sizes of a new network that differ from the paper, such as ``{"d_model": 128, "n_layers": 2}``: fields of
        `scfound_atac.nn.EpiFoundationConfig`, except those that follow from the data. ``{"value_decoder": True}`` adds a decoder of levels
        of expression. The vocabularies are the OCRs of `adata` on chr1 to chr22, X and Y, and its genes.
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
        The log of training in the form of scvi-tools, a table per value over the steps, to which a further run is appended; None before
        training.
    train_indices, validation_indices, test_indices
        Row numbers, in the accessibility modality, of the cells that the last training run learned from, held out, and did not use.
    validation_names
        Names of the cells that the last training run held out.

    Raises
    ------
    ValueError
        If `adata` is not set up; `config` has no valid sizes; `checkpoint` is of another kind, knows none of the genes, or was trained
        with batches that `adata` lacks; or a new network is requested and no cell has both modalities.

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

    _not_taken = NOT_TAKEN

    @also_named(mdata="adata")
    def __init__(
        self,
        adata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
        gene_chromosomes: Mapping[str, object] | pd.Series | None = None,
        seed: int | None = None,
    ) -> None:
        if checkpoint is not None and (config is not None or gene_chromosomes is not None):
            msg = "config= and gene_chromosomes= define a new network: pass them or checkpoint=, not both."
            raise ValueError(msg)
        if checkpoint is None and adata is None:
            msg = "Pass a MuData for a new network, or a pretrained one as checkpoint=."
            raise ValueError(msg)
        if checkpoint is not None and checkpoint.model_class != "EpiFoundation":
            msg = (
                f"{checkpoint.name!r} is a {checkpoint.model_class} model, not EpiFoundation; use it with sfa.tl.embed."
            )
            raise ValueError(msg)
        if adata is not None and not self._is_set_up(adata):
            if SETUP_KEY not in adata.uns:
                msg = "mdata is not set up: call sfa.model.EpiFoundation.setup_mudata(mdata) first."
                raise ValueError(msg)
            # It was set up before it was written to a file, or copied.
            self.setup_mudata(adata, **setup_arguments(read_setup(adata.uns[SETUP_KEY])))
        if adata is None and registry is None and checkpoint is not None:
            registry = _registry_without_data(checkpoint)
        super().__init__(adata, registry)
        self._setup = setup_of(self.registry_["setup_args"])
        if checkpoint is None:
            checkpoint = self._new_network(dict(config or {}), gene_chromosomes, settled_seed(seed))
        else:
            self.is_trained_ = True
        self.validation_names: pd.Index | None = None
        self._is_placed = False
        self._hold(checkpoint)
        self._run: tuple[Path | None, dict[str, pd.DataFrame] | None] = (None, None)  # where, and the history before it
        if adata is not None:
            self._reader.check(adata)
        self.init_params_ = self._get_init_params(locals())

    def _hold(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.module = NetModule(checkpoint.net)
        self._model_summary_string = self._summary()

    @property
    def mdata(self) -> MuData | None:
        """The registered data; another name of `adata`."""
        found: MuData | None = self.adata
        return found

    @classmethod
    @shared_docs
    def setup_mudata(
        cls,
        mdata: MuData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        *,
        layer: str | None = None,
        atac_layer: str | None = None,
        rna_layer: str | None = None,
        modalities: Mapping[str, str] | None = None,
        genome: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the accessibility and expression of a MuData, and check both.

        Parameters
        ----------
        mdata
            Cells x OCRs with coordinates in ``var`` or in the names, and cells x genes. Cells are paired by ``obs_names``; those with only
            one modality are not used in training.
        batch_key
            Column of ``obs`` with the batch of each cell, in the accessibility modality or in `mdata`. The network gets the batch when it
            predicts expression, so that cell vectors need not contain it.
        labels_key
            Column of ``obs`` with the label of each cell. It is registered, as in scvi-tools; the network does not read it.
        layer, rna_layer
            Layers with the counts and with the expression; ``X`` if None. Only the open OCRs are used; expression may be counts or
            normalised.
        atac_layer
            What `scvi.model.MULTIVI` calls `layer`.
        modalities
            Names of the modalities, if they are not ``{"atac": "atac", "rna": "rna"}``. The keys of `scvi.model.MULTIVI` may be used, too:
            ``"atac_layer"`` and ``"rna_layer"``.
        genome
            {genome}
        **kwargs
            How to take over the registry of another model, as in scvi-tools: ``source_registry``, and with it ``extend_categories``.

        Returns
        -------
        None. Sets ``mdata.uns["epifoundation_setup"]``, and what scvi-tools registers: codes of batches and labels, and its own keys.

        Raises
        ------
        TypeError
            If `mdata` is not a MuData, or an argument of scvi-tools has no meaning here.
        KeyError
            If the modality, layer or column does not exist.
        ValueError
            If coordinates cannot be used, or names of cells or genes are not unique.
        """
        refuse_arguments(NOT_TAKEN["setup_mudata"], kwargs, "EpiFoundation.setup_mudata")
        known_options(kwargs, ("source_registry", "extend_categories"), "EpiFoundation.setup_mudata")
        if layer is not None and atac_layer is not None and layer != atac_layer:
            msg = f"layer={layer!r} and atac_layer={atac_layer!r} are two names of one argument: pass one of them."
            raise ValueError(msg)
        given = {
            "layer": atac_layer if layer is None else layer,
            "rna_layer": rna_layer,
            "batch_key": batch_key,
            "genome": genome,
        }
        name = "layer" if atac_layer is None else "atac_layer"
        setup = make_setup(mdata, dict(modalities or {}), given, labels_key, name)
        atac, rna = setup["atac"], setup["rna"]
        places = {name: column_of(mdata, atac, key) for name, key in (("batch", batch_key), ("labels", labels_key))}
        arguments = {**setup_arguments(setup), "labels_key": labels_key}
        own = cls._get_setup_method_args(cls=cls, mdata=mdata, **arguments)
        values = {"is_count_data": False, "correct_data_format": False, "mod_required": True}
        # As for MULTIVI, expression is X.
        fields = [
            MuDataAnyFeaturesField(REGISTRY_KEYS.X_KEY, rna_layer, mod_key=rna, **values),
            MuDataAnyFeaturesField(REGISTRY_KEYS.ATAC_X_KEY, setup.get("layer"), mod_key=atac, **values),
            *(MuDataCategoricalObsField(name, column, mod_key=modality) for name, (modality, column) in places.items()),
        ]
        # Cells with one modality only are left out of training, and may stay in the MuData.
        checks = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)
        manager = AnnDataManager(fields=fields, setup_method_args=own, validation_checks=checks)
        cls._register(manager, mdata, **kwargs)
        mdata.uns[SETUP_KEY] = setup

    @classmethod
    def setup_anndata(cls, adata: AnnData, *args: Any, **kwargs: Any) -> None:
        """Not for this class: its data are a MuData.

        Parameters
        ----------
        adata, *args, **kwargs
            Nothing is done with them.

        Raises
        ------
        TypeError
            Always.
        """
        msg = (
            "EpiFoundation is trained on accessibility and expression: "
            "EpiFoundation.setup_mudata(mudata.MuData({'atac': atac, 'rna': rna})). "
            "A model that is trained embeds an AnnData without any setup: get_latent_representation(adata)."
        )
        raise TypeError(msg)

    @classmethod
    @also_named(mdata="adata")
    def from_pretrained(cls, model: str | Path, adata: MuData | None = None) -> EpiFoundation:
        """Start from pretrained weights.

        Parameters
        ----------
        model
            Name from the registry or folder of a model, as for `scfound_atac.hub.load`.
        adata
            MuData that was registered with `setup_mudata`. It may have other OCRs, other genes and cells without a pair, and is not needed
            to apply the model.
        """
        return cls(adata, checkpoint=load(model))

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the network to a device, on which it then computes.

        Parameters
        ----------
        device
            ``"cpu"``, ``"cuda:1"``, the number of a GPU, or a device of torch.
        """
        super().to_device(device)
        self._is_placed = True

    @classmethod
    def _set_up_query(cls, data: MuData, registry: Mapping[str, Any]) -> None:
        source, arguments = cls._source(registry, data, {"labels_key": "labels"})
        cls.setup_mudata(data, source_registry=source, extend_categories=True, **arguments)

    @classmethod
    def _parts_that_adapt(cls, net: EpiFoundationNet) -> tuple[str, ...]:
        return f"layers.{net.config.n_layers - 1}", "norm", "batch_embedding", "expression_decoder", "value_decoder"

    @classmethod
    def _with_batches_of(cls, checkpoint: Checkpoint, data: MuData) -> Checkpoint:
        """New batches get the mean vector of those of the reference."""
        vocabularies, net = checkpoint.vocabularies, checkpoint.net
        setup = read_setup(data.uns[SETUP_KEY])
        assert vocabularies is not None
        new = (
            [name for name in batches_of(data, setup) if name not in vocabularies.batches]
            if vocabularies.batches
            else []
        )
        if not new:
            return checkpoint
        config = replace(net.config, n_batches=net.config.n_batches + len(new))
        with torch.random.fork_rng():
            larger = EpiFoundationNet(config).eval()
        state = dict(net.state_dict())
        table = state["batch_embedding.table.weight"]
        state["batch_embedding.table.weight"] = torch.cat([table, table.mean(0, keepdim=True).expand(len(new), -1)])
        larger.load_state_dict(state)
        names = {**vocabularies.batches, **{name: net.config.n_batches + i for i, name in enumerate(new)}}
        return replace(checkpoint, net=larger, sha256="", vocabularies=replace(vocabularies, batches=names))

    @classmethod
    def _known_fractions(
        cls, data: MuData | AnnData, checkpoint: Checkpoint, setup: Mapping[str, Any]
    ) -> dict[str, float]:
        """OCRs that overlap a peak of the vocabulary, and of a MuData the genes."""
        reader = DataReader(checkpoint, setup_of(setup))
        cells = reader.cells(data, None, role="adata")
        tokenizer = Tokenizer(reader.vocabularies, cells.ocrs, max_tokens=checkpoint.net.config.max_tokens)
        coverage = tokenizer.coverage(chunk for _, chunk in cells.iter_rows())
        found = {
            "n_ocrs": cells.n_ocrs,
            "fraction_known": coverage.fraction_ocrs,
            "fraction_open_known": coverage.fraction_open,
        }
        if reader.setup["rna"] in getattr(data, "mod", {}):
            n_genes = data.mod[reader.setup["rna"]].n_vars
            found |= {"n_genes": n_genes, "fraction_genes_known": len(reader.known_genes(data)) / max(1, n_genes)}
        return found

    @classmethod
    def _reference_names(cls, checkpoint: Checkpoint, registry: Mapping[str, Any]) -> dict[str, pd.Index]:
        setup, vocabularies = setup_of(registry["setup_args"]), checkpoint.vocabularies
        assert vocabularies is not None
        names = {"atac": vocabularies.peaks, "rna": vocabularies.genes}
        return {setup[kind]: pd.Index([x for x in found if not is_special(x)]) for kind, found in names.items()}

    @classmethod
    def prepare_query_mudata(
        cls,
        mdata: MuData,
        reference_model: EpiFoundation | str | Path,
        return_reference_var_names: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> dict[str, Any]:
        """How much of new cells the network of a reference knows. Nothing needs to be prepared, and the cells stay as they are.

        Parameters
        ----------
        mdata
            The new cells.
        reference_model
            A model of this class, or a folder that it was saved in.
        return_reference_var_names
            Return the names of the reference's peaks and genes instead, by modality.
        **kwargs
            None are taken: arguments of scvi-tools without a meaning here are refused.

        Returns
        -------
        What `prepare_query_anndata` returns, and ``n_genes`` and ``fraction_genes_known``. Or the names of the reference's features.

        Raises
        ------
        TypeError
            If an argument of scvi-tools has no meaning here.
        """
        found: dict[str, Any] = cls._prepare_query(
            "prepare_query_mudata", mdata, reference_model, names=return_reference_var_names, given=kwargs
        )
        return found

    @property
    def _reader(self) -> DataReader:
        return DataReader(self._checkpoint, self._setup)

    def __repr__(self) -> str:
        return f"{self._summary()}, {'trained' if self.is_trained_ else 'not trained'}"

    def _summary(self) -> str:
        sizes = self._checkpoint.net.config
        n_parameters = sum(p.numel() for p in self._checkpoint.net.parameters())
        vocabularies = self._reader.vocabularies
        n_genes = len([gene for gene in vocabularies.genes if not is_special(gene)])
        return (
            f"EpiFoundation of {len(vocabularies.ocrs)} peaks and {n_genes} genes: width {sizes.d_model}, {sizes.n_layers} layers, "
            f"{n_parameters} parameters"
        )

    def train(
        self,
        max_epochs: int = 140,
        lr: float = 1e-4,
        accelerator: str = "auto",
        devices: int | list[int] | str = 1,
        train_size: float | None = None,
        validation_size: float | None = None,
        *,
        shuffle_set_split: bool = True,
        batch_size: int = 8,
        accumulate: int = 20,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        n_warmup_steps: int = 100,
        clip: float = 100.0,
        max_genes: int = 8_000,
        max_steps: int | None = None,
        early_stopping: bool = False,
        early_stopping_patience: int = 3,
        early_stopping_monitor: str = "validation_loss",
        early_stopping_min_delta: float = 0.0,
        check_val_every_n_epoch: int | None = None,
        validate_every: int | None = None,
        checkpoint_every: int | None = None,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        logger: Any = None,
        precision: Literal["auto", "32", "bf16-mixed"] = "auto",
        n_workers: int = 0,
        output: str | Path | None = None,
        resume: bool = True,
        num_nodes: int = 1,
        strategy: str = "auto",
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
            Number of passes over the training cells. This, `lr`, `batch_size`, `accumulate`, `n_warmup_steps`, `clip` and `max_genes` have
            the defaults of the paper.
        lr, weight_decay, eps
            Maximum learning rate, weight decay and epsilon of AdamW. The rate warms up, and falls to zero along a cosine. The paper's Adam
            is AdamW without weight decay.
        accelerator, devices, num_nodes, strategy
            Hardware to train on, as in `lightning.fabric.Fabric`. Several devices need a script that each process runs, or torchrun.
        train_size
            Fraction of the paired cells to train on; 0.9 if None. With 1 the last weights are kept.
        validation_size
            Fraction of the paired cells that are held out for validation; the rest if None.
        shuffle_set_split
            Draw the cells of each part. Otherwise the first cells are held out, and the next are trained on.
        batch_size, accumulate
            Cells per batch over all processes, and batches per step.
        n_warmup_steps
            Number of steps of linear warm-up, at most a tenth of the run.
        clip
            Maximum norm of the gradient.
        max_genes
            Maximum number of genes that are predicted per cell and step.
        max_steps
            Number of steps, instead of `max_epochs`.
        early_stopping
            Stop when `early_stopping_monitor` has not fallen for a while. The weights with the lowest loss on the held-out cells are kept
            with and without it.
        early_stopping_patience
            Number of validations without improvement after which training stops.
        early_stopping_monitor, early_stopping_min_delta
            A value of the validation in `history`, and by how much it must fall to count as improved.
        check_val_every_n_epoch
            Number of epochs between two validations; 1 if None.
        validate_every, checkpoint_every
            Number of steps between two validations, instead of `check_val_every_n_epoch`, and between two checkpoints in `output`, which
            are one epoch apart by default.
        datasplitter_kwargs
            Options of the cells: ``external_indexing``, row numbers in the accessibility modality of the training, validation and test
            cells, of which those without a pair are left out; and ``num_workers``, another name of `n_workers`.
        plan_kwargs
            ``lr``, ``weight_decay``, ``eps`` and ``n_warmup_steps``. An argument of `train` that is not at its default goes first.
        logger
            A logger of `lightning.pytorch.loggers`, or several. They get the values of `history`.
        precision
            ``"32"``, ``"bf16-mixed"``, or ``"auto"``: bf16 on a GPU that supports it.
        n_workers
            Number of processes that prepare batches in advance.
        output
            Folder of the run with ``log.csv``, ``last.ckpt``, and the networks ``best`` and ``final``; a temporary folder if None.
        resume
            Continue from ``last.ckpt`` in `output` if there is one; start over if False.
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
            If an argument of scvi-tools has no meaning here, or the plan or the splitter has no such option.
        FloatingPointError
            If the loss becomes infinite or NaN.
        """
        refuse_arguments(NOT_TAKEN["train"], kwargs, "EpiFoundation.train")
        known_options(kwargs, (), "EpiFoundation.train")
        splitter = known_options(datasplitter_kwargs, _SPLITTER, "datasplitter_kwargs")
        of_train: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "eps": eps,
            "n_warmup_steps": n_warmup_steps,
        }
        plan = given_options(of_train, plan_kwargs, _PLAN, EpiFoundation.train)
        seed = settled_seed(seed)
        options = PeakToGeneOptions(
            max_epochs=max_epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            accumulate=accumulate,
            clip=clip,
            max_genes=max_genes,
            train_size=0.9 if train_size is None else train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            check_val_every_n_epoch=1 if check_val_every_n_epoch is None else check_val_every_n_epoch,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every if output is not None else _NEVER,
            precision=precision,
            n_workers=n_workers or splitter.get("num_workers", 0),
            seed=seed,
            patience=early_stopping_patience if early_stopping else None,
            monitor=early_stopping_monitor,
            min_delta=early_stopping_min_delta,
            **plan,
        )
        loggers = Loggers(logger)
        sizes = self._checkpoint.net.config
        if self.mdata is None:
            msg = "The model was opened without data: pass adata= to load() or from_pretrained() to train it."
            raise ValueError(msg)
        if not (sizes.n_bins or sizes.value_decoder):
            msg = f"Model {self._checkpoint.name!r} has no decoder of expression, so it cannot be trained."
            raise ValueError(msg)
        given = splitter.get("external_indexing")
        if given is not None:
            given = given_parts(given, self._atac(None).n_obs)
        cells, rows, n_unpaired = self._reader.paired_cells(self.mdata)
        parts = options.divide(rows, given)
        if early_stopping and not len(parts[1]):
            msg = "early_stopping needs cells to validate on, and none is held out: lower train_size, or raise validation_size."
            raise ValueError(msg)
        if output is not None:
            make_folder(output, "output")
        facts: dict[str, Any] = {"n_unpaired_cells": n_unpaired, "setup": self._setup, "external_indexing": None}
        if given is not None:
            facts["external_indexing"] = hashlib.sha256(b"|".join(part.tobytes() for part in parts)).hexdigest()[:16]
        fabric = make_fabric(accelerator, devices, num_nodes, strategy)
        fabric.launch()
        adapts = trained_names(self._checkpoint.net)
        with ExitStack() as stack:
            stack.enter_context(own_randomness(fabric))
            own_folder = output is None
            if output is None:
                output = fabric.broadcast(stack.enter_context(TemporaryDirectory()) if fabric.is_global_zero else "")
            folder = Path(str(output))
            run = PeakToGeneRun(
                self._checkpoint,
                cells,
                (parts[0], parts[1]),
                options,
                fabric,
                folder=folder,
                facts=facts,
                resume=resume,
                loggers=loggers,
            )
            run.train()
            place = self.device
            self._hold(replace(load(folder / BEST), name="trained"))
            self.module.to(place)
            if adapts is not None:
                freeze_all_but(self._checkpoint.net, adapts)
            # The log of a run that went on holds all of its steps, also those that are in the history already.
            is_same = run.is_continued and folder.resolve() == self._run[0]
            before = self._run[1] if is_same else self.history
            self._run = (None if own_folder else folder.resolve(), before)
            self.history_ = joined_history(before, log_tables(folder / LOG), resumed=False, first=1)
            fabric.barrier()  # the folder is removed only after every process has read it
        self.train_indices, self.validation_indices, self.test_indices = (rows[part] for part in parts)
        self.validation_names = self._atac(None).obs_names[self.validation_indices]
        self.is_trained_ = True

    @also_named(mdata="adata")
    @shared_docs
    def get_latent_representation(
        self,
        adata: MuData | AnnData | None = None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        *,
        batch_size: int | Literal["auto"] | None = "auto",
        genome: str | None = None,
        device: str = "auto",
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        """Compute cell vectors: the state of [CLS] after the last layer (section 3.3.2).

        Parameters
        ----------
        adata
            Cells to embed, paired or not, with any OCRs on GRCh38: a MuData, or an AnnData with the accessibility. The registered ones if
            None.
        indices
            Row numbers of the cells of the accessibility modality, or a mask; all if None.
        batch_size
            Maximum number of cells per forward pass; ``"auto"`` or None chooses it by the memory of the device.
        genome
            {genome}
        device
            ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; ``"auto"`` is the device on which `load`, `load_query_data` or `to_device` placed the
            network, or else CUDA if there is a GPU.
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
        self._atac(adata)
        runner = PeakSetRunner(self._checkpoint, device=self._place(device), batch_size=batch_size or "auto")
        return self._embed(adata, runner, genome, settled_seed(seed), indices)

    def _place(self, device: str) -> str | torch.device:
        return self.device if device == "auto" and self._is_placed else device

    @also_named(mdata="adata")
    @shared_docs
    def predict_expression(
        self,
        adata: MuData | AnnData | None = None,
        genes: Iterable[str] | None = None,
        *,
        kind: Literal["probability", "level"] | None = None,
        batch: str | None = None,
        genome: str | None = None,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Predict the expression of genes from accessibility.

        In training, half of the genes that the network sees are expressed, so its probabilities exceed the true fraction of expressed
        genes. Only their order over cells and genes is informative.

        Parameters
        ----------
        adata
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
            As in `get_latent_representation`.
        seed
            Random seed. It chooses the peaks of cells that have more than the network reads; ``scvi.settings.seed`` if None, or 0 if that
            is not set.

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
        atac, net = self._atac(adata), self._checkpoint.net
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
        batches = reader.batch_ids(self._given(adata), atac, atac.obs_names, batch)
        runner = PeakSetRunner(self._checkpoint, device=self._place(device), batch_size=batch_size)
        vectors = self._embed(adata, runner, genome, settled_seed(seed))
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
        check_save(NOT_TAKEN["save"], kwargs, "EpiFoundation.save", self.mdata, with_data=save_anndata)
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
        folder = as_path(dir_path, "dir_path")
        write_registry(self.registry_, file_of(folder, REGISTRY_FILE, prefix))
        if save_anndata:
            self.adata.write(file_of(folder, _MDATA_FILE, prefix), **kwargs)

    @classmethod
    @also_named(mdata="adata")
    @shared_docs
    def load(
        cls,
        dir_path: str | Path,
        adata: MuData | Literal[False] | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        **kwargs: Any,
    ) -> EpiFoundation:
        """Open a saved model, with or without data. The data may have other OCRs and genes than those of the training.

        Parameters
        ----------
        dir_path
            {saved_folder}
        adata
            A MuData with cells to train on. They are registered as those of the saved model were, unless `setup_mudata` was called for
            them. If None, those that were saved with the model; if there are none, or with False, the model can be applied, but not
            trained.
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
            If the folder holds a model of another class, or the device does not exist.
        """
        refuse_arguments(NOT_TAKEN["load"], kwargs, "EpiFoundation.load")
        known_options(kwargs, (), "EpiFoundation.load")
        place = device_of(accelerator, device)
        folder = as_path(dir_path, "dir_path")
        checkpoint = load(folder, prefix=prefix)
        registry = _registry(folder, prefix, checkpoint)
        cls._check_class(registry, folder)
        own_data = file_of(folder, _MDATA_FILE, prefix)
        if adata is None and own_data.is_file():
            read = read_h5mu(own_data)
            for key in (UUID, SETUP_KEY):  # the registry says more than the setup
                read.uns.pop(key, None)
            adata = read
        if adata is None or adata is False:
            model = cls(registry=registry, checkpoint=checkpoint)
        else:
            if not cls._is_set_up(adata) and SETUP_KEY not in adata.uns:
                cls._set_up_query(adata, registry)
            model = cls(adata, checkpoint=checkpoint)
        model.to_device(place)
        return model

    @classmethod
    def _registry_of(cls, folder: Path, prefix: str | None) -> dict[str, Any]:
        return _registry(folder, prefix, load(folder, prefix=prefix))

    def _new_network(
        self,
        sizes: dict[str, Any],
        gene_chromosomes: Mapping[str, object] | pd.Series | None,
        seed: int,
    ) -> Checkpoint:
        """A new network with vocabularies from the data."""
        if unknown := [name for name in sizes if name not in _SIZES]:
            msg = f"A new network has no option {', '.join(unknown[:3])}; its sizes are {', '.join(_SIZES)}."
            raise ValueError(msg)
        mdata = self.adata
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
        return get_atac(self._given(data), self._setup["atac"], "adata")

    def _embed(
        self,
        data: MuData | AnnData | None,
        runner: PeakSetRunner,
        genome: str | None,
        seed: int,
        indices: Sequence[int] | NDArray[Any] | None = None,
    ) -> NDArray[np.float32]:
        if not self.is_trained_:
            logger.warning("The network is not trained: call train() first")
        cells = self._reader.cells(self._given(data), genome, role="adata" if data is not None else "mdata")
        tokenizer = self._reader.tokenizer(cells, runner.net.config.max_tokens, seed)
        rows = row_numbers(indices, len(cells))
        if rows is None:
            return embed_peak_sets(cells, tokenizer, runner, progress=settings.progress_bar)
        rows, back = np.unique(rows, return_inverse=True)
        return embed_peak_sets(cells.subset(rows), tokenizer, runner, progress=settings.progress_bar)[back]


def _registry_without_data(checkpoint: Checkpoint) -> dict[str, Any]:
    """The registry of a checkpoint that holds a setup and no registry, as those of earlier versions and of `tl.embed` do."""
    setup = read_setup(checkpoint.training.get("setup", DEFAULT_SETUP))
    return {
        "scvi_version": None,
        "model_name": checkpoint.model_class,
        "setup_method_name": "setup_mudata",
        "setup_args": {**setup_arguments(DEFAULT_SETUP | setup), "labels_key": None},
        "field_registries": {},
    }


def _registry(folder: Path, prefix: str | None, checkpoint: Checkpoint) -> dict[str, Any]:
    path = file_of(folder, REGISTRY_FILE, prefix)
    return read_registry(path) if path.is_file() else _registry_without_data(checkpoint)
