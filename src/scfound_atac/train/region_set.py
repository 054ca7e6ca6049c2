"""Training of `scfound_atac.nn.RegionSetVAE` with the classes of scvi-tools: module, start, cells and plan.

The objective is the evidence lower bound of a variational autoencoder, with thinning: in each step the encoder reads a random half of the
open OCRs of a cell, and the likelihood is that of the other half, so that the network cannot learn single OCRs by heart. Outside of
training the encoder reads all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scvi import REGISTRY_KEYS
from scvi.dataloaders import AnnDataLoader, DataSplitter
from scvi.module.base import BaseMinifiedModeModuleClass, LossOutput, auto_move_data
from scvi.train import TrainingPlan
from torch.distributions import Normal, kl_divergence
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import BatchSampler, RandomSampler, default_convert

from ..inference.kind import Request
from ..inference.kinds import kind_of
from ..inference.region_set import NetworkVectors
from .parts import divide, given_parts
from .schedule import warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scvi.data import AnnDataManager
    from torch import Tensor

    from ..data import Cells
    from ..hub import Checkpoint
    from ..nn.region_set_vae import RegionSetVAE

# Fraction of a cell's open OCRs that the encoder does not read in a step. Chosen among 0, .3, .5 and .7, like the next two constants among
# 1, 10 and 100 and among .09, .5 and 1, by the likelihood of held-out halves of 400 cells of one bone-marrow donor.
THINNED = 0.5
WEIGHT_PRECISION = 10.0  # of the normal prior on the vector of each OCR
_START_LENGTH = 0.5  # root mean square length of the latent vectors at the start, where the prior has length 7
EFFECT_PRECISION = (
    10.0  # of the normal prior on effects of covariates: ten open OCRs in cells of a batch weigh as much as the prior
)
N_WARMUP_STEPS = 100
_RIDGE = 10.0  # of the first vectors of OCRs, in counts
_PSEUDOCOUNT = 0.5  # of the mean of an OCR
_ENTRIES_PER_BLOCK = 2**24  # number of cells times OCRs that are held as a dense table; bounds memory
_PRIME = 7919  # keeps the seeds of neighbouring epochs and runs apart


class RegionSetModule(BaseMinifiedModeModuleClass):
    """The network with the methods by which scvi-tools trains and applies it."""

    def __init__(self, net: RegionSetVAE) -> None:
        super().__init__()
        self.net = net
        self.n_latent = net.config.n_latent
        self.latent_distribution = "normal"

    def _get_inference_input(
        self,
        tensors: dict[str, Tensor | None],
        full_forward_pass: bool = False,  # noqa: FBT001, FBT002 - as scvi-tools calls it
    ) -> dict[str, Any]:
        if full_forward_pass or self.minified_data_type is None:
            return {"x": tensors[REGISTRY_KEYS.X_KEY]}
        return {
            "qzm": tensors[REGISTRY_KEYS.LATENT_QZM_KEY],
            "qzv": tensors[REGISTRY_KEYS.LATENT_QZV_KEY],
            "observed_lib_size": tensors[REGISTRY_KEYS.OBSERVED_LIB_SIZE],
        }

    def _get_generative_input(
        self, tensors: dict[str, Tensor | None], inference_outputs: dict[str, Any], transform_batch: Any = None
    ) -> dict[str, Any]:
        batch: Any = tensors[REGISTRY_KEYS.BATCH_KEY]
        if transform_batch is not None:
            batch = torch.full_like(batch, transform_batch)
        return {
            "z": inference_outputs["z"],
            "qz": inference_outputs["qz"],
            "batch_index": batch,
            "cont_covs": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
            "cat_covs": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY),
        }

    @auto_move_data
    def _regular_inference(self, x: Tensor, n_samples: int = 1) -> dict[str, Any]:
        is_open = (x > 0).float()
        read = is_open
        if self.training:
            read = is_open * (torch.rand_like(is_open) >= THINNED)
        mean, log_variance = self.net.encode(read)
        qz = Normal(mean, torch.exp(log_variance / 2))
        z = qz.rsample() if n_samples == 1 else qz.sample((n_samples,))
        depth = is_open.sum(dim=1, keepdim=True) / self.net.reference_depth
        return {"z": z, "qz": qz, "d": depth, "read": read}

    @auto_move_data
    def _cached_inference(
        self, qzm: Tensor, qzv: Tensor, observed_lib_size: Tensor, n_samples: int = 1
    ) -> dict[str, Any]:
        qz = Normal(qzm, qzv.sqrt())
        z = qz.sample() if n_samples == 1 else qz.sample((n_samples,))
        return {"z": z, "qz": qz, "d": observed_lib_size / self.net.reference_depth}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        qz: Normal,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        use_z_mean: bool = False,  # noqa: FBT001, FBT002 - as scvi-tools calls it
    ) -> dict[str, Tensor]:
        """Log fraction of the open OCRs of a cell that each OCR has, (..., B, L)."""
        if int(batch_index.max()) >= self.net.config.n_batch:
            msg = "There are cells of a batch that the model has not learned: use RegionSet.load_query_data(adata, model)."
            raise ValueError(msg)
        cats = None if cat_covs is None else cat_covs.long()
        return {"log_rate": self.net.decode(qz.loc if use_z_mean else z, batch_index.long().ravel(), cats, cont_covs)}

    def loss(
        self,
        tensors: dict[str, Tensor | None],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Tensor],
        kl_weight: float = 1.0,
        n_obs: int = 1,
    ) -> LossOutput:
        """Negative evidence lower bound per cell, and the negative log prior of the decoder over the number of cells."""
        target = (tensors[REGISTRY_KEYS.X_KEY] > 0).float()  # type: ignore[operator, union-attr]
        scale = 1.0
        if self.training:  # the half that the encoder has not read stands for the whole
            target, scale = target - inference_outputs["read"], 1 / THINNED
        reconstruction = -(target * generative_outputs["log_rate"]).sum(dim=-1) * scale
        qz = inference_outputs["qz"]
        kl = kl_divergence(qz, Normal(torch.zeros_like(qz.loc), torch.ones_like(qz.scale))).sum(dim=-1)
        prior = self.net.penalty(WEIGHT_PRECISION, EFFECT_PRECISION) / max(1, n_obs)
        return LossOutput(
            loss=(reconstruction + kl_weight * kl).mean() + prior, reconstruction_loss=reconstruction, kl_local=kl
        )


def start_from_default(
    net: RegionSetVAE, checkpoint: Checkpoint, cells: Cells, batch: NDArray[np.int64], seed: int = 0
) -> None:
    """Fill a new network such that its latent space is the default embedding of the cells, and its decoder fits it.

    Parameters
    ----------
    net
        Network for the OCRs of the AnnData, in the order of ``var``.
    checkpoint
        Pretrained region-set model.
    cells
        The cells.
    batch
        Number of the batch of each cell, shape (n_cells,).
    seed
        Random seed of the embedding.
    """
    # 1. Views and rotation of the default embedding.
    config = net.config
    kind = kind_of(checkpoint)
    found = kind.embed(cells, kind.settle(Request(n_components=config.n_latent, seed=seed, progress=False)))
    axes, rotation, shift = found.axes.components, found.tables["rotation"], found.tables["shift"]  # type: ignore[union-attr]
    every = np.arange(cells.n_ocrs)
    idf = cells.to_var(found.tables["idf"]["idf"].to_numpy(np.float32)[:, None], every)[:, 0]
    n_axes, n_latent = axes.shape[1], rotation.shape[1]
    length = np.sqrt(np.square(found.vectors).sum(axis=1).mean())
    scale = _START_LENGTH / length

    # 2. What the region-set network knows of the OCRs.
    network = NetworkVectors(checkpoint, checkpoint.region_table().lookup(cells.ocrs))

    with torch.no_grad():
        net.idf.copy_(torch.from_numpy(idf))
        net.axes[:, :n_axes] = torch.from_numpy(cells.to_var(axes, found.order))
        net.messages.copy_(torch.from_numpy(cells.to_var(network.messages, every)))
        net.keys.copy_(torch.from_numpy(cells.to_var(network.keys, every)))
        net.backbone.load_state_dict(checkpoint.net.state_dict())
        net.rotation[:n_axes, :n_latent] = torch.from_numpy(rotation[:n_axes] * scale)
        net.rotation[config.n_axes :, :n_latent] = torch.from_numpy(rotation[n_axes:] * scale)
        net.shift[:n_latent] = torch.from_numpy(shift * scale)

        # 3. Mean of each OCR, and one Newton step from zero for its vector: w_j = (p_j S + ridge)^-1 g_j in the eigenvectors of S, with
        #    S = sum_i n_i z_i z_i' and g_j = sum_i z_i (x_ij - n_i p_j), for cells i with n_i open OCRs.
        n_open, gradient = np.zeros(cells.n_vars), np.zeros((config.n_latent, cells.n_vars))
        covariance, weighted = np.zeros((config.n_latent, config.n_latent)), np.zeros(config.n_latent)
        depths = []
        for _, chunk in cells.iter_rows(chunk_size=_block_size(cells)):
            is_open = cells.widen(csr_matrix((np.ones_like(chunk.data), chunk.indices, chunk.indptr), chunk.shape))
            z = net.encode(torch.from_numpy(is_open.toarray().astype(np.float32)))[0].numpy().astype(np.float64)
            depth = np.asarray(is_open.sum(axis=1), dtype=np.float64).ravel()
            n_open += np.asarray(is_open.sum(axis=0)).ravel()
            gradient += (is_open.T @ z).T
            covariance += z.T @ (z * depth[:, None])
            weighted += depth @ z
            depths.append(depth)
        fraction = (n_open + _PSEUDOCOUNT) / (n_open.sum() + _PSEUDOCOUNT * len(n_open))
        gradient -= weighted[:, None] * fraction
        values, vectors = np.linalg.eigh(covariance)
        weights = vectors @ ((vectors.T @ gradient) / (np.maximum(values, 0)[:, None] * fraction + _RIDGE))
        net.mean.copy_(torch.from_numpy(np.log(fraction).astype(np.float32)))
        net.weights.copy_(torch.from_numpy(weights.astype(np.float32)))
        net.reference_depth.fill_(max(1.0, float(np.median(np.concatenate(depths)))))
        net.ready.fill_(1)

    # 4. Effects of batches that these vectors do not explain.
    if config.n_batch > 1:
        start_effects(net, cells, batch, 0)


def _block_size(cells: Cells) -> int:
    return int(np.clip(_ENTRIES_PER_BLOCK // cells.n_vars, 16, 1024))


@torch.no_grad()
def start_effects(net: RegionSetVAE, cells: Cells, batch: NDArray[np.int64], n_known: int) -> None:
    """Estimate effects of the batches from number `n_known` on, from cells that the network has not been trained on.

    For OCR j with O_j open OCRs in the cells of a batch, where the network expects E_j without an effect, the effect is
    ``log((O_j + k) / (E_j + k))``, with k the precision of the prior.

    Parameters
    ----------
    net
        Network that has learned from other cells.
    cells
        The cells.
    batch
        Number of the batch of each cell, shape (n_cells,).
    n_known
        Number of batches whose effects are known.
    """
    shape = (net.config.n_batch - n_known, cells.n_vars)
    observed, expected = np.zeros(shape), np.zeros(shape)
    for rows, chunk in cells.iter_rows(chunk_size=_block_size(cells)):
        values = cells.widen(csr_matrix((np.ones_like(chunk.data), chunk.indices, chunk.indptr), chunk.shape)).toarray()
        is_open = torch.from_numpy(values.astype(np.float32))
        rate = torch.softmax(net.mean + net.score(net.encode(is_open)[0]), dim=1)
        total = (is_open.sum(dim=1, keepdim=True) * rate).numpy()
        for number in range(len(observed)):
            here = batch[rows] == n_known + number
            observed[number] += values[here].sum(axis=0)
            expected[number] += total[here].sum(axis=0)
    effect = np.log((observed + EFFECT_PRECISION) / (expected + EFFECT_PRECISION))
    net.batch_effect[n_known:] = torch.from_numpy(effect.astype(np.float32))


class SeededSplitter(DataSplitter):
    """Cells of scvi-tools, whose parts depend on a seed, and their order on the seed and the number of the epoch."""

    def __init__(
        self,
        manager: AnnDataManager,
        *,
        batch_size: int,
        train_size: float = 0.9,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        external_indexing: Sequence[NDArray[np.integer] | None] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        n_cells = manager.adata.n_obs
        if external_indexing is not None:
            parts = given_parts(external_indexing, n_cells)
        else:
            parts = divide(n_cells, train_size, validation_size, seed if shuffle_set_split else None)
        super().__init__(manager, external_indexing=[np.sort(part) for part in parts], batch_size=batch_size, **kwargs)
        self._seed, self._batch_size = seed, batch_size

    def train_dataloader(self) -> AnnDataLoader:
        """Shuffled batches."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        generator = torch.Generator().manual_seed(self._seed + _PRIME * epoch)
        order = RandomSampler(np.arange(len(self.train_idx)), generator=generator)
        drop_last = self.drop_last and len(self.train_idx) >= self._batch_size
        return AnnDataLoader(
            self.adata_manager,
            indices=self.train_idx,
            sampler=BatchSampler(order, self._batch_size, drop_last=drop_last),
            load_sparse_tensor=self.load_sparse_tensor,
            pin_memory=self.pin_memory,
            collate_fn=_only_batch,
            **{name: value for name, value in self.data_loader_kwargs.items() if name != "batch_size"},
        )


def _only_batch(batches: list[dict[str, Any]]) -> Any:
    """The batch that a batch sampler has chosen; the loader takes it for a single cell."""
    return default_convert(batches[0])


class RegionSetPlan(TrainingPlan):
    """Plan of scvi-tools with a warm-up and a cosine, and draws that depend on the seed and the number of the step."""

    def __init__(
        self, module: RegionSetModule, *, seed: int = 0, n_warmup_steps: int = N_WARMUP_STEPS, **kwargs: Any
    ) -> None:
        super().__init__(module, **kwargs)
        self._seed, self._n_warmup_steps = seed, n_warmup_steps

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Seed the draws of the step, so that a run that goes on from a checkpoint takes the same steps."""
        torch.manual_seed(_PRIME * self._seed + self.global_step)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """Draw the same samples in each validation, so that early stopping does not follow chance."""
        torch.manual_seed(_PRIME * self._seed + batch_idx)
        return super().validation_step(batch, batch_idx)

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer of scvi-tools, with a learning rate for each step."""
        config = super().configure_optimizers()
        if "lr_scheduler" in config:  # reduce_lr_on_plateau was asked for
            return config
        n_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(config["optimizer"], lambda step: warmup_cosine(step, self._n_warmup_steps, n_steps))
        return {**config, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
