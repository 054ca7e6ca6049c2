"""Check and resolve device, precision and batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .._arguments import check_single

if TYPE_CHECKING:
    import torch

    Precision = Literal["auto", "fp32", "bf16"]
    BatchSize = int | Literal["auto"]

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(device: str | torch.device) -> torch.device:
    """The device as torch knows it; ``"auto"`` is CUDA if there is a GPU, or else the CPU.

    Raises
    ------
    ValueError
        If the device does not exist on this machine.
    """
    import torch

    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        msg = f"Unknown device {device!r}; use 'auto', 'cpu' or 'cuda'."
        raise ValueError(msg) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        msg = f"device={device!r}, but torch sees no CUDA GPU. Use device='auto' or 'cpu', or install a CUDA build of torch."
        raise ValueError(msg)
    return resolved


def check_options(precision: str, batch_size: object) -> None:
    """Refuse an unknown precision or an invalid batch size.

    Raises
    ------
    ValueError
        If an option is invalid.
    """
    check_single(precision=precision, batch_size=batch_size)
    if precision not in PRECISIONS:
        msg = f"Unknown precision {precision!r}; use one of {PRECISIONS}."
        raise ValueError(msg)
    is_number = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if batch_size != "auto" and (not is_number or batch_size < 1):  # type: ignore[operator]
        msg = f"batch_size must be a positive integer or 'auto', got {batch_size!r}."
        raise ValueError(msg)


def refuse_options(name: str, device: object, precision: object, batch_size: object) -> None:
    """Refuse options of GPU networks, for a model that runs on the CPU in single precision and needs no batches.

    ``"cpu"`` and ``"fp32"`` are accepted, because they describe what the model does.

    Raises
    ------
    ValueError
        If an option has another value.
    """
    check_options(str(precision), batch_size)
    asked = {
        "device": (device, ("auto", "cpu")),
        "precision": (precision, ("auto", "fp32")),
        "batch_size": (batch_size, ("auto",)),
    }
    for option, (value, fitting) in asked.items():
        if str(value) not in fitting:
            if option == "device":
                resolve_device(str(value))  # for a device that does not exist, this error comes first
            msg = (
                f"Model {name!r} has no option {option}={value!r}: it runs on the CPU in seconds. Leave out {option}=; "
                "ChromFound and EpiFoundation models have it."
            )
            raise ValueError(msg)
