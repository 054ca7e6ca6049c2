"""Train a part of a network, and leave the rest bit for bit as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


def freeze_all_but(net: nn.Module, parts: Iterable[str]) -> None:
    """Let only these parts of a network be trained.

    Parameters
    ----------
    net
        The network.
    parts
        Names of parameters, or of modules with all of their parameters, such as ``"layers.3"``.
    """
    trained = tuple(parts)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(any(name == part or name.startswith(f"{part}.") for part in trained))


def trained_names(net: nn.Module) -> list[str] | None:
    """Names of the parameters that are trained, or None if all are."""
    needed = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    return None if all(needed.values()) else [name for name, is_trained in needed.items() if is_trained]


def training_mode(module: nn.Module) -> None:
    """Set a module to training; parts of it whose parameters are all frozen keep their statistics, as BatchNorm would not otherwise."""
    module.train()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            part.training = False
