"""All networks, by their names in pretraining configurations and in saved weights."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from .chromfound import ChromFoundConfig, ChromFoundNet
from .epifoundation import EpiFoundationConfig, EpiFoundationNet
from .region_set import RegionSetConfig, RegionSetNet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class CellNetwork(Protocol):
    """Methods of a network that the objectives use."""

    config: Any

    def embed_ocrs(self, chromosome: Tensor, start: Tensor, end: Tensor, factors: Tensor | None = None) -> Tensor:
        """OCR tokens: (L,) ids, (L,) and (L,) bases, (L, n_factors) -> (L, D)."""

    def predict(self, value: Tensor, ocrs: Tensor) -> Tensor:
        """Accessibility of every OCR, a logit where the objective is a Bernoulli likelihood: (B, L), (L, D) -> (B, L)."""

    def cell_vector(self, value: Tensor, ocrs: Tensor) -> Tensor:
        """One vector of fixed size per cell: (B, L), (L, D) -> (B, d)."""


NETWORKS: dict[str, tuple[Any, Any]] = {
    "chromfound": (ChromFoundConfig, ChromFoundNet),
    "region-set": (RegionSetConfig, RegionSetNet),
}
# Names in saved weights, including networks that the objectives do not train.
MODEL_CLASSES: dict[str, tuple[Any, Any]] = {
    "ChromFound": NETWORKS["chromfound"],
    "RegionSet": NETWORKS["region-set"],
    "EpiFoundation": (EpiFoundationConfig, EpiFoundationNet),
}


def model_class_of(net: nn.Module) -> str:
    """Name of a network's class in saved weights.

    Raises
    ------
    TypeError
        If it is not one of these networks.
    """
    for name, (_, network_class) in MODEL_CLASSES.items():
        if type(net) is network_class:
            return name
    msg = f"{type(net).__name__} is not one of the networks that can be saved: {', '.join(MODEL_CLASSES)}."
    raise TypeError(msg)


def build_network(kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    """A new network with random weights from the generator of torch.

    Raises
    ------
    ValueError
        If `kind` is unknown or does not have the given sizes.
    """
    if kind not in NETWORKS:
        msg = f"Unknown network kind {kind!r}; use one of {sorted(NETWORKS)}."
        raise ValueError(msg)
    config_class, network_class = NETWORKS[kind]
    known = [field.name for field in fields(config_class)]
    if unknown := [name for name in sizes if name not in known]:
        msg = f"Network {kind!r} has no {', '.join(unknown[:3])}; its sizes are {', '.join(known)}."
        raise ValueError(msg)
    return network_class(config_class(**sizes))
