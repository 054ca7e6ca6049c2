"""`RNAPredictor`: expression of genes from accessibility, learned from cells with both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csc_matrix
from torch import nn

from .._anndata import NotFoundError, get_atac
from .._arguments import check_arguments, check_single
from .._docs import shared_docs
from .._logging import logger as log  # `train` has an argument logger
from .._settings import settings
from ..data import Cells
from ..data.fit_rows import N_FIT_CELLS
from ..datasets.gene_table import given_or_bundled
from ..genome import read_genes
from ..hub.loading import as_checkpoint
from ..hub.registry import DEFAULT_MODEL
from ..inference.features import CellFeatures
from ..inference.kinds import kind_of
from ..inference.local import LocalView
from ..inference.perturbation import changed_features, mean_effects
from ..nn.heads import ExpressionHead, GeneQueryHead
from ..scores import expression_scores, gene_scores
from ..train.expression import gene_names, read_expression, split_cells
from ..train.expression_head import apply_expression_head, fit_expression_head
from ..train.local_ridge import fit_local
from ..train.paired_data import refuse_repeated
from ._head_folder import HeadFolder, read_head_folder, write_head_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from ..datasets.gene_table import Genes
    from ..hub import Checkpoint
    from ..inference.local import LocalReader
    from ..inference.perturbation import Effects
    from ..train.local_ridge import LocalFit

HEADS = {"gene-query": GeneQueryHead, "mlp": ExpressionHead}
_KIND = "RNAPredictor"
_LOCAL, _WITH_DECOYS = "local", "with_decoys"


@shared_docs
class RNAPredictor:
    """Predict expression from accessibility, on top of a pretrained network.

    Two things describe a cell: the vector that the backbone computes from its open OCRs, for any OCR set, and the spectral components of
    its counts on the OCRs of the training cells, as far as it was measured there. A small network predicts the expression of every gene
    from these features.

    It is used as a regressor of scikit-learn is, and not as a model of scvi-tools: it is not bound to data and needs no ``setup_mudata``,
    but learns from one object and is applied to others.

    Parameters
    ----------
    model
        {backbone}
    head
        - ``"gene-query"``: each gene has a vector of its own that queries the cell (bioRxiv 2025.02.05.636688). For an EpiFoundation
          backbone the vectors of known genes start from its own. With more than 2,048 genes, each step trains a random subset of them.
        - ``"mlp"``: a hidden layer of width 1,024 (arXiv 2505.12638, section A.3).

        ``"gene-query"`` had the higher correlation on held-out cells of all data sets on which both were compared (51 and 600 genes,
        ``benchmarks/logs/rna.md``), and is slower for many genes.
    measured
        {measured}
    local
        Distance in bases from the start of transcription, for example 250,000. OCRs of the training cells up to there get a weight of their
        own for the gene, by ridge regression given the other features of the cells, with a penalty that is chosen for each gene by
        generalised cross-validation; the head learns the rest. Without it (None), a prediction rests on a few dozen numbers per cell, which
        hardly tell one OCR from thousands of others: set it if you want to know what a single OCR does
        (`scfound_atac.tl.perturb_ocrs`), or which OCRs belong to a gene (`scfound_atac.tl.link_enhancers`).
    seed
        {seed}

    Attributes
    ----------
    genes
        Names of the genes that are predicted.
    report
        After training: scores on test cells (`scfound_atac.bench.expression_scores`), numbers of cells, and the history.
    gene_report
        The same scores for each gene.
    history
        The loss and the mean correlation per gene of each epoch, a table per value; None before training.

    Examples
    --------
    >>> predictor = sfa.model.RNAPredictor().train(mdata)
    >>> predictor.report["gene_pearson"]
    >>> predictor.predict(atac_of_other_cells)
    """

    def __init__(
        self,
        model: str | Path | Checkpoint = DEFAULT_MODEL,
        *,
        head: Literal["gene-query", "mlp"] = "gene-query",
        measured: bool = True,
        local: int | None = None,
        seed: int = 0,
    ) -> None:
        check_single(head=head)
        if head not in HEADS:
            msg = f"head={head!r} is not known: use one of {tuple(HEADS)}."
            raise ValueError(msg)
        check_arguments(measured=measured, local=local, seed=seed)
        self.checkpoint = as_checkpoint(model)
        kind_of(self.checkpoint).check_backbone()
        self.head, self.measured, self.local, self.seed = head, measured, local, seed
        self.genes: list[str] = []
        self.scale = ""
        self.report: dict[str, Any] = {}
        self.gene_report = pd.DataFrame()
        self._features: CellFeatures | None = None
        self._net: nn.Module | None = None
        self._local: LocalView | None = None
        self._with_decoys: LocalView | None = None
        self._scaling: dict[str, NDArray[np.float32]] = {}

    @property
    def history(self) -> dict[str, pd.DataFrame] | None:
        """The loss and the score of each epoch, with a table per value as in scvi-tools; None before training."""
        from ..train.epochs import history_tables

        return history_tables(self.report.get("history", [])) if self.report else None

    @shared_docs
    def train(
        self,
        mdata: MuData,
        *,
        genes: Sequence[str] | None = None,
        split_key: str | None = None,
        binned: bool = False,
        layer: str | None = None,
        rna_layer: str | None = None,
        modality: str | None = None,
        rna_modality: str = "rna",
        genome: str | None = None,
        max_epochs: int = 60,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        train_batch_size: int = 128,
        n_fit_cells: int = N_FIT_CELLS,
        gene_table: Genes = None,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        early_stopping: bool = False,
        early_stopping_patience: int = 10,
        logger: Any = None,
    ) -> RNAPredictor:
        """Learn from cells with both modalities. The epoch with the best mean per-gene Pearson correlation on held-out cells is kept.

        Parameters
        ----------
        mdata
            MuData with accessibility (counts) and expression, or `scfound_atac.data.Cells` that were read from it. Expression as counts is
            scaled to 10,000 per cell and log-transformed; other values are used as they are. Cells with only one modality are left out.
        genes
            Genes to predict; all by default.
        split_key
            Column of ``obs`` with groups, such as donors, that are kept together when cells are divided into 80 % for training, 10 % to
            choose the epoch and 10 % for testing; cells are drawn one by one if None.
        binned
            Predict ten levels of expression instead of values (`scfound_atac.pp.bin_expression`), as in EpiFoundation's paper.
        layer, rna_layer
            Layers with the counts and with the expression; ``X`` if None.
        modality, rna_modality
            Names of the modalities; ``"atac"`` if None, and ``"rna"``.
        genome
            {genome}
        max_epochs, lr, weight_decay, train_batch_size
            Options of AdamW with warm-up and a cosine schedule. The paper trains for 10 epochs at 1e-4, but trains the backbone too.
        n_fit_cells
            Maximum number of cells to which the spectral components are fitted; they are chosen by seed and name.
        gene_table
            For a predictor with a local part: where genes start, as a BED, GTF or GFF3 file or a table with ``chrom``, ``start``, ``end``,
            ``name`` and ``strand``; by default `scfound_atac.datasets.genes`. Genes that are not in it have no local part.
        device
            {device}
        batch_size
            {batch_size}
        early_stopping
            Stop when the mean correlation per gene on the cells that choose the epoch has not risen for a while. The best epoch is kept
            with and without it.
        early_stopping_patience
            Number of epochs without improvement after which training stops.
        logger
            A logger of `lightning.pytorch.loggers`, or several. They get the values of `history`.

        Returns
        -------
        The predictor itself.

        Raises
        ------
        ValueError
            If no cell has both modalities, names repeat, values cannot be used, or there are too few cells to hold some out.
        KeyError
            If genes, a column, layer or modality do not exist.
        """
        check_arguments(
            split_key=split_key,
            binned=binned,
            rna_layer=rna_layer,
            rna_modality=rna_modality,
            max_epochs=max_epochs,
            train_batch_size=train_batch_size,
            lr=lr,
            weight_decay=weight_decay,
            n_fit_cells=n_fit_cells,
            early_stopping=early_stopping,
            early_stopping_patience=early_stopping_patience,
        )
        if max_epochs < 1 or train_batch_size < 1:
            msg = f"max_epochs={max_epochs} and train_batch_size={train_batch_size} must be at least 1."
            raise ValueError(msg)
        source: Any = mdata
        role = "mdata"
        if isinstance(mdata, Cells):
            assert mdata.source is not None
            source, role = mdata.source[0], mdata.role.partition("[")[0]
        atac = get_atac(source, modality, role)
        target = read_expression(
            source, atac, modality=rna_modality, layer=rna_layer, genes=genes, binned=binned, role=role
        )
        read_all = Cells.read(mdata, layer=layer, genome=genome, modality=modality, role=role)
        cells = read_all.subset(atac.obs_names.get_indexer(target.names))
        rows = split_cells(source, atac, target.names, split_key=split_key, seed=self.seed, role=read_all.role)
        train, validation, test = rows["train"], rows["validation"], rows["test"]

        features = CellFeatures.fit(
            self.checkpoint, cells.subset(train), measured=self.measured, n_fit_cells=n_fit_cells, seed=self.seed
        )
        read = features(cells, device=device, batch_size=batch_size, seed=self.seed, progress=settings.progress_bar)
        x = read.all()
        scaling = {
            "x_mean": x[train].mean(axis=0),
            "x_scale": _scale(x[train]),
            "y_mean": target.values[train].mean(axis=0),
            "y_scale": _scale(target.values[train]),
        }
        x = _standardised(x, scaling["x_mean"], scaling["x_scale"])
        y = _standardised(target.values, scaling["y_mean"], scaling["y_scale"])
        local, with_decoys, near = None, None, np.zeros_like(y)
        if self.local is not None:
            local, with_decoys = self._fit_local(cells.subset(train), x[train], y[train], target.genes, gene_table)
            reader = local.of(cells.ocrs)
            for index, chunk in cells.iter_rows():
                near[index] = reader.predict(reader.prepare(chunk), np.arange(y.shape[1]))
        rest = y - near
        net = self._new_head(x.shape[1], target.genes)
        history = fit_expression_head(
            net,
            (x[train], rest[train]),
            (x[validation], rest[validation]),
            first_measured=read.known.shape[1],
            max_epochs=max_epochs,
            lr=lr,
            weight_decay=weight_decay,
            batch_size=train_batch_size,
            seed=self.seed,
            device=device,
            patience=early_stopping_patience if early_stopping else None,
            logger=logger,
        )
        predicted = apply_expression_head(net, x[test], np.arange(y.shape[1])) + near[test]
        predicted = predicted * scaling["y_scale"] + scaling["y_mean"]
        scores = expression_scores(target.values[test], predicted)

        # Up to here the predictor is unchanged, so that an error leaves it as it was.
        self._features, self._net, self._scaling = features, net, scaling
        self._local, self._with_decoys = local, with_decoys
        self.genes, self.scale = target.genes, target.scale
        self.gene_report = gene_scores(
            pd.DataFrame(target.values[test], columns=target.genes), pd.DataFrame(predicted, columns=target.genes)
        )
        self.report = {
            **{name: float(value) for name, value in scores.items()},
            **{f"n_cells_{name}": len(part) for name, part in rows.items()},
            "scale": target.scale,
            "split_key": split_key or "",
            "history": history,
        }
        log.info(
            "%d genes from %d cells; on %d held-out cells: mean per-gene Pearson %.3f, flat Pearson %.3f",
            len(self.genes),
            len(train),
            len(test),
            self.report["gene_pearson"],
            self.report["flat_pearson"],
        )
        return self

    def _fit_local(
        self, cells: Cells, x: NDArray[np.float32], y: NDArray[np.float32], genes: list[str], gene_table: Genes
    ) -> LocalFit:
        """The weights of OCRs around genes, learned from the training cells, given their features."""
        assert self.local is not None
        table = read_genes(given_or_bundled(gene_table))
        columns = pd.Index(genes).get_indexer(table["name"])
        if not (columns >= 0).any():
            msg = (
                f"None of the {len(genes)} genes ({', '.join(genes[:3])}, ...) is in the table of genes with {len(table)} symbols, so that "
                "none has a local part. Pass gene_table= a table with their names, or leave out local=."
            )
            raise ValueError(msg)
        table, columns = table[columns >= 0], columns[columns >= 0]
        local = fit_local(cells.to_memory(), x, y, cells.ocrs, table, columns, distance=self.local, seed=self.seed)
        n_ocrs = np.diff(local.alone.weights.indptr)
        log.info(
            "%d of %d genes have a local part, with %d OCRs on average", (n_ocrs > 0).sum(), len(genes), n_ocrs.mean()
        )
        return local

    def _new_head(self, d: int, genes: list[str]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if self.head == "mlp":
                return ExpressionHead(d, len(genes))
            known = _gene_vectors(self.checkpoint, genes)
            if known is None:
                return GeneQueryHead(d, len(genes))
            vectors, is_known = known
            net = GeneQueryHead(d, len(genes), d_gene=vectors.shape[1])
            with torch.no_grad():
                net.genes.weight[is_known] = vectors[is_known]
            log.info("The backbone knows %d of %d genes", int(is_known.sum()), len(genes))
            return net

    @shared_docs
    def predict(
        self,
        adata: AnnData | MuData,
        *,
        genes: Sequence[str] | None = None,
        layer: str | None = None,
        genome: str | None = None,
        modality: str | None = None,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
    ) -> pd.DataFrame:
        """Predict the expression of cells, on the scale of training. `adata` is not changed.

        Parameters
        ----------
        adata
            Cells x OCRs with counts, of any OCR set.
        genes
            Some of the genes; all by default.
        layer
            {layer}
        genome
            {genome}
        modality
            {modality}
        device
            {device}
        batch_size
            {batch_size}

        Returns
        -------
        Table of cells x genes, float32.

        Raises
        ------
        RuntimeError
            If the predictor is not trained.
        KeyError
            If a gene was not part of the training.
        ValueError
            If the counts cannot be used, or genes repeat.
        """
        features, _ = self._trained()
        columns = self._columns(genes)
        cells = Cells.read(adata, layer=layer, genome=genome, modality=modality)
        read = features(cells, device=device, batch_size=batch_size, seed=self.seed, progress=settings.progress_bar)
        if features.view is not None and read.measured is None:
            log.warning(
                "Only %.1f %% of the OCRs of the training cells are among those of the query: the prediction rests on the backbone alone",
                100 * read.fraction_ocrs,
            )
        near = None if self._local is None else self._local.of(cells.ocrs)
        values = None if near is None else near.prepare(cells.to_memory())
        predicted = self._of_features(read.all(), columns, near, values)
        return pd.DataFrame(predicted, index=cells.index, columns=[self.genes[i] for i in columns])

    def perturb(
        self,
        cells: Cells,
        sets: csr_matrix,
        *,
        to: float = 0.0,
        genes: Sequence[str] | None = None,
        groups: NDArray[np.int64] | None = None,
        n_groups: int = 1,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        share: bool = True,
        with_decoys: bool = False,
    ) -> Effects:
        """Mean change of the predicted expression when sets of OCRs are perturbed; `scfound_atac.tl.perturb_ocrs` makes a table of it.

        Parameters
        ----------
        cells
            Cells that were read by ``sfa.data.Cells.read``.
        sets
            1 for each OCR of each perturbation, CSR (n_perturbations, n_ocrs), OCRs in the order of ``cells.ocrs``.
        to
            Factor of the values of these OCRs as the model reads them: 0 is a knock-out.
        genes
            Some of the genes; all by default.
        groups
            Number of the group of each cell, from 0, and -1 for cells that are left out; by default one group of all cells.
        n_groups
            Number of groups.
        device
            ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; ``"auto"`` uses CUDA if there is a GPU.
        batch_size
            Cells per forward pass; ``"auto"`` chooses it by the memory of the device.
        share
            Whether a cell and its perturbed copies share what does not change. Without it every perturbed cell is run anew, which is slow
            and defines the result.
        with_decoys
            In the local part, take the weights that OCRs near genes have beside decoys (`decoy_weights`), in place of those of predictions.

        Returns
        -------
        A record with ``before`` (n_groups, n_genes), ``change`` (n_perturbations, n_groups, n_genes), ``n_cells`` (n_groups,) and
        ``n_changed`` (n_perturbations, n_groups): numbers of cells, and of those among them in which an OCR of the perturbation is open.

        Raises
        ------
        RuntimeError
            If the predictor is not trained.
        KeyError
            If a gene was not part of the training.
        ValueError
            If genes repeat.
        """
        features, _ = self._trained()
        columns = self._columns(genes)
        local = self._with_decoys if with_decoys else self._local
        near = None if local is None else local.of(cells.ocrs)
        parts = changed_features(
            features,
            cells,
            sets,
            to,
            near,
            device=device,
            batch_size=batch_size,
            seed=self.seed,
            progress=settings.progress_bar,
            share=share,
        )
        scale = self._scaling["y_scale"][columns]
        shift = 0.0 if near is None else near.mean[columns] * scale
        return mean_effects(
            parts,
            lambda x: self._of_features(x, columns) - shift,
            None if near is None else lambda values: near.sums(values, columns) * scale,
            n_perturbations=sets.shape[0],
            groups=np.zeros(len(cells), dtype=np.int64) if groups is None else groups,
            n_groups=n_groups,
            n_genes=len(columns),
        )

    def decoy_weights(self, ocrs: pd.DataFrame, genes: Sequence[str] | None = None) -> csc_matrix | None:
        """Weights of OCRs near genes and of decoys, from one fit, with which `scfound_atac.tl.link_enhancers` compares them.

        Parameters
        ----------
        ocrs
            OCRs with ``chrom``, ``start`` and ``end``, such as ``cells.ocrs``.
        genes
            Some of the genes; all by default.

        Returns
        -------
        CSC (n_ocrs, n_genes), on the scale of standardised expression; decoys are the OCRs of other chromosomes. None if the predictor has
        no local part.

        Raises
        ------
        RuntimeError
            If the predictor is not trained.
        ValueError
            If it has a local part without decoys, because it was trained by an earlier version.
        """
        self._trained()
        columns = self._columns(genes)
        if self._local is None:
            return None
        if self._with_decoys is None:
            msg = (
                "This predictor was trained by a version that knew no decoys, so that its links have nothing to be compared with. "
                "Train it again: sfa.model.RNAPredictor(local=...).train(mdata)."
            )
            raise ValueError(msg)
        return self._with_decoys.of(ocrs).weights[:, columns]

    def check_genes(self, genes: Sequence[str] | None) -> list[str]:
        """The names in `genes`, or all genes that are predicted if it is None.

        Raises
        ------
        RuntimeError
            If the predictor is not trained.
        KeyError
            If a gene was not part of the training.
        ValueError
            If genes repeat.
        """
        self._trained()
        return [self.genes[i] for i in self._columns(genes)]

    def _columns(self, genes: Sequence[str] | None) -> NDArray[np.int64]:
        """Numbers of the genes that are asked for."""
        wanted = pd.Index(self.genes if genes is None else gene_names(genes))
        refuse_repeated(wanted, "genes", "genes=list(dict.fromkeys(genes))")
        columns = pd.Index(self.genes).get_indexer(wanted)
        if (columns < 0).any():
            missing = wanted[columns < 0]
            msg = f"{len(missing)} genes were not trained on, among them {', '.join(missing[:3])}; predictor.genes lists those that were."
            raise NotFoundError(msg)
        return columns.astype(np.int64)

    def _of_features(
        self,
        seen: NDArray[np.float32],
        columns: NDArray[np.int64],
        near: LocalReader | None = None,
        values: csr_matrix | None = None,
    ) -> NDArray[np.float32]:
        """Expression of genes, with the local part if there is one.

        Takes features (n, d), with or without those that are measured, numbers of genes, and values (n, n_ocrs) for the local part.
        """
        _, net = self._trained()
        x = np.zeros((len(seen), len(self._scaling["x_mean"])), dtype=np.float32)
        width = seen.shape[1]
        x[:, :width] = _standardised(seen, self._scaling["x_mean"][:width], self._scaling["x_scale"][:width])
        y_scale, y_mean = self._scaling["y_scale"][columns], self._scaling["y_mean"][columns]
        predicted = apply_expression_head(net, x, columns)
        if near is not None and values is not None:
            predicted += near.predict(values, columns)
        return predicted * y_scale + y_mean

    def _trained(self) -> tuple[CellFeatures, nn.Module]:
        if self._features is None or self._net is None:
            msg = "This predictor is not trained: call train(mdata) first."
            raise RuntimeError(msg)
        return self._features, self._net

    @shared_docs
    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder with safetensors, JSON and OCR tables that `load` opens; `scfound_atac.hub.load` opens its backbone.

        Parameters
        ----------
        folder
            {dir_path}
        overwrite
            {overwrite}

        Returns
        -------
        The folder.

        Raises
        ------
        FileExistsError
            If there is a model and `overwrite` is False.
        RuntimeError
            If the predictor is not trained.
        """
        features, net = self._trained()
        arrays = {f"net/{name}": x.detach().cpu().numpy() for name, x in net.state_dict().items()}
        arrays |= {f"scaling/{name}": x for name, x in self._scaling.items()}
        arrays |= {f"gene_report/{name}": self.gene_report[name].to_numpy(np.float64) for name in self.gene_report}
        names = ("genes", "scale", "head", "measured", "local", "seed", "report")
        facts = {name: getattr(self, name) for name in names} | {"gene_scores": list(self.gene_report)}
        ocrs = None
        for group, view in ((_LOCAL, self._local), (_WITH_DECOYS, self._with_decoys)):
            if view is not None:
                ocrs = view.ocrs  # the same for both
                arrays |= {f"{group}/{name}": getattr(view.weights, name) for name in ("data", "indices", "indptr")}
                arrays[f"{group}/mean"] = view.mean
                facts["local_target_sum"] = view.target_sum
        return write_head_folder(HeadFolder(_KIND, features, facts, arrays, ocrs), folder, overwrite=overwrite)

    @classmethod
    @shared_docs
    def load(cls, folder: str | Path) -> RNAPredictor:
        """Open a saved predictor.

        Parameters
        ----------
        folder
            {saved_folder}

        Raises
        ------
        FileNotFoundError
            If a file of the folder is missing.
        ValueError
            If the folder holds something else, or a file is damaged.
        """
        saved = read_head_folder(folder, _KIND)
        facts = saved.facts
        options = {name: facts[name] for name in ("head", "measured", "seed")}
        predictor = cls(saved.features.checkpoint, local=facts.get("local"), **options)
        predictor.genes, predictor.scale, predictor.report = facts["genes"], facts["scale"], facts["report"]
        predictor._features, predictor._scaling = saved.features, saved.group("scaling")
        predictor.gene_report = pd.DataFrame(saved.group("gene_report"), index=predictor.genes)[facts["gene_scores"]]
        state = {name: torch.from_numpy(x) for name, x in saved.group("net").items()}
        d = len(predictor._scaling["x_mean"])
        net: nn.Module
        if predictor.head == "mlp":
            net = ExpressionHead(d, len(predictor.genes))
        else:
            net = GeneQueryHead(d, len(predictor.genes), d_gene=state["genes.weight"].shape[1])
        net.load_state_dict(state)
        predictor._net = net.eval()
        predictor._local, predictor._with_decoys = (_local_view(saved, group) for group in (_LOCAL, _WITH_DECOYS))
        return predictor

    def __repr__(self) -> str:
        what = f"{len(self.genes)} genes" if self.genes else "not trained"
        return f"RNAPredictor on {self.checkpoint.name!r}, head {self.head!r}: {what}"


def _local_view(saved: HeadFolder, group: str) -> LocalView | None:
    """The weights that are saved under the name `group`; None if there are none."""
    parts = saved.group(group)
    if not parts or saved.ocrs is None:
        return None
    shape = (len(saved.ocrs), len(saved.facts["genes"]))
    weights = csc_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=shape)
    return LocalView(saved.ocrs, saved.facts["local_target_sum"], weights, parts["mean"])


def _scale(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation of each column; exactly 0 for a constant column, so that the prediction of a constant gene is its constant."""
    varies = (values != values[:1]).any(axis=0)
    return np.where(varies, values.std(axis=0, dtype=np.float64), 0).astype(np.float32)


def _standardised(
    values: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    return ((values - mean) / np.where(scale > 0, scale, 1)).astype(np.float32, copy=False)


def _gene_vectors(checkpoint: Checkpoint, genes: list[str]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Vectors of the genes in an EpiFoundation (n_genes, D), and which genes it knows (n_genes,); None for other backbones."""
    vocabularies = checkpoint.vocabularies
    if vocabularies is None or not checkpoint.net.config.n_genes:
        return None
    is_known = torch.tensor([gene in vocabularies.known_genes for gene in genes])
    vectors = torch.zeros(len(genes), checkpoint.net.config.d_model)
    if is_known.any():
        ids = vocabularies.gene_ids([gene for gene, known in zip(genes, is_known.tolist(), strict=True) if known])
        with torch.inference_mode():
            where = next(checkpoint.net.parameters()).device  # where cells were read, possibly a GPU
            found = checkpoint.net.embed_genes(*(torch.from_numpy(x).to(where) for x in ids))
        vectors[is_known] = found.cpu()
    return vectors, is_known
