"""A network bound to the OCR set it is trained on, as scvi-tools expects a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi.module.base import BaseModuleClass, LossOutput

if TYPE_CHECKING:
    from torch import Tensor

    from ..nn import ChromFoundNet


class ChromFoundModule(BaseModuleClass):
    """`ChromFoundNet` with the coordinates of one OCR set in genome order, and the regions' factors if the network uses them."""

    def __init__(
        self, net: ChromFoundNet, chromosome: Tensor, start: Tensor, end: Tensor, factors: Tensor | None = None
    ) -> None:
        super().__init__()
        self.net = net
        for name, tensor in (("chromosome", chromosome), ("start", start), ("end", end), ("factors", factors)):
            self.register_buffer(name, tensor, persistent=False)

    def inference(self, value: Tensor, first: int = 0) -> dict[str, Tensor]:
        """Hidden states (B, L, D)."""
        crop = slice(first, first + value.shape[1])
        factors = None if self.factors is None else self.factors[crop]
        ocrs = self.net.embed_ocrs(self.chromosome[crop], self.start[crop], self.end[crop], factors)
        return {"hidden": self.net(value, ocrs)}

    def generative(self, hidden: Tensor) -> dict[str, Tensor]:
        """Reconstructed accessibility (B, L)."""
        return {"reconstruction": self.net.reconstruct(hidden)}

    def loss(
        self, tensors: dict[str, Any], inference_outputs: dict[str, Tensor], generative_outputs: dict[str, Tensor]
    ) -> LossOutput:
        """Mean squared error at the positions of ``tensors["mask"]``, averaged over cells."""
        value, mask = tensors["value"], tensors.get("mask", torch.ones_like(tensors["value"], dtype=torch.bool))
        error = ((generative_outputs["reconstruction"] - value) ** 2 * mask).sum(1) / mask.sum(1).clamp(min=1)
        return LossOutput(loss=error.mean(), reconstruction_loss=error)

    def _get_inference_input(self, tensors: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"value": tensors.get("corrupted", tensors["value"]), "first": tensors.get("first", 0)}

    def _get_generative_input(
        self, tensors: dict[str, Any], inference_outputs: dict[str, Tensor], **kwargs: Any
    ) -> dict[str, Tensor]:
        return {"hidden": inference_outputs["hidden"]}

    def sample(self, *args: Any, **kwargs: Any) -> None:
        """The network is a deterministic auto-encoder and has nothing to sample."""
        msg = "ChromFound does not define a distribution to sample from; use get_reconstruction()."
        raise TypeError(msg)
