"""The authors' released checkpoints in this package's names and shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..nn.chromfound import ChromFoundConfig

# Released name -> our name; what is not covered here is an error, never dropped.
_RENAMES = (
    (r"^embedding\.value_embedding\.embedding\.", "value_embedding."),
    (r"^embedding\.chromosome_embedding\.", "chromosome_embedding."),
    (r"^backbone\.layers\.(\d+)\.norm\.", r"layers.\1.norm."),
    (r"^backbone\.layers\.(\d+)\.mixer\.", r"layers.\1.mamba."),
    (r"^backbone\.layers\.(\d+)\.reduction_layer\.", r"layers.\1.down."),
    (r"^backbone\.layers\.(\d+)\.expansion_layer\.", r"layers.\1.up."),
    (r"^backbone\.layers\.(\d+)\.chromfound_block\.", r"layers.\1.wpsa."),
    (r"^backbone\.norm_f\.", "norm."),
    (r"^mask_token_prediction\.projection\.", "decoder."),
)


def rename_chromfound_key(key: str) -> str:
    """Our name for a tensor of a released ChromFound checkpoint; ValueError for one the network does not have."""
    key = key.removeprefix("module.")
    for pattern, replacement in _RENAMES:
        renamed, n = re.subn(pattern, replacement, key)
        if n:
            return renamed
    msg = (
        f"Unknown tensor {key!r} in the released checkpoint: this is not a ChromFound model, or one of another version."
    )
    raise ValueError(msg)


def chromfound_state(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `ChromFoundNet` from the released one."""
    return {rename_chromfound_key(key): tensor for key, tensor in released.items()}


# Settings of the released code that change the network, with the one value whose weights this network can hold.
_REQUIRED = {
    "chromatin_embedding": True,
    "do_fft": False,
    "embedding_fusion_type": "add",
    "embedding_norm": False,
    "linear_embedding": True,
    "positional_embedding_type": "dna_position",
}


def chromfound_config(state: Mapping[str, Tensor], model_args: Mapping[str, Any]) -> ChromFoundConfig:
    """Network sizes: read from the tensors where they show, from the released ``model_args`` where they do not."""
    from ..nn.chromfound import ChromFoundConfig

    for name, value in _REQUIRED.items():
        if model_args.get(name, value) != value:
            msg = f"The released configuration has {name}={model_args[name]!r}; only {value!r} is supported."
            raise ValueError(msg)
    first = "layers.0."
    n_chromosomes, d_model = state["chromosome_embedding.weight"].shape
    d_inner, d_state = state[first + "mamba.A_log"].shape
    d_low = state[first + "down.weight"].shape[0]
    return ChromFoundConfig(
        d_model=d_model,
        n_layers=1 + max(int(key.split(".")[1]) for key in state if key.startswith("layers.")),
        n_heads=model_args["wpsa_heads"],
        window_size=model_args["wpsa_window_size"],
        shift_size=model_args["shift_size"],
        d_mlp=state[first + "wpsa.mlp.fc1.weight"].shape[0],
        d_low=d_low,
        d_state=d_state,
        d_conv=state[first + "mamba.conv1d.weight"].shape[-1],
        expand=d_inner // d_low,
        dt_rank=state[first + "mamba.dt_proj.weight"].shape[1],
        n_chromosomes=n_chromosomes,
        position_temperature=float(model_args["positional_temp"]),
        dropout=float(model_args.get("embedding_dropout", 0.1)),
    )
