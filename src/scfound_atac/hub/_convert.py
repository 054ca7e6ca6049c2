"""Convert the released checkpoints of the authors to the names and shapes of this package."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..nn.chromfound import ChromFoundConfig
    from ..nn.epifoundation import EpiFoundationConfig

# Released name -> our name. Other names are an error and never ignored.
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
    """Our name for a tensor of a released ChromFound checkpoint; raises ValueError for an unknown tensor."""
    key = key.removeprefix("module.")
    for pattern, replacement in _RENAMES:
        renamed, n = re.subn(pattern, replacement, key)
        if n:
            return renamed
    msg = f"Unknown tensor {key!r} in the released checkpoint: this is not a ChromFound model, or one of an unknown version."
    raise ValueError(msg)


def chromfound_state(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `ChromFoundNet` from the released one."""
    return {rename_chromfound_key(key): tensor for key, tensor in released.items()}


# Settings of the released code that change the network, with the only value that this network supports.
_REQUIRED = {
    "chromatin_embedding": True,
    "do_fft": False,
    "embedding_fusion_type": "add",
    "embedding_norm": False,
    "linear_embedding": True,
    "positional_embedding_type": "dna_position",
}


def chromfound_config(state: Mapping[str, Tensor], model_args: Mapping[str, Any]) -> ChromFoundConfig:
    """Sizes of the network, from the tensors if possible, or else from the released ``model_args``."""
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


_EPIFOUNDATION_RENAMES = (
    (r"^atac_emb\.", "peak_embedding."),
    (r"^rna_emb\.", "gene_embedding."),
    (r"^chr_emb\.", "chromosome_embedding."),
    (r"^batch_emb\.", "batch_embedding."),
    (r"^(\w+_embedding)\.embedding\.", r"\1.table."),
    (r"^(\w+_embedding)\.enc_norm\.", r"\1.norm."),
    (r"^bn_atac\.", "peak_norm."),
    (r"^bn_rna\.", "gene_norm."),
    (r"^encoder\.transformer_encoder\.layers\.", "layers."),
    (r"^(layers\.\d+)\.self_attn\.Wqkv\.", r"\1.qkv."),
    (r"^(layers\.\d+)\.self_attn\.out_proj\.", r"\1.proj."),
    (r"^(layers\.\d+)\.linear(\d)\.", r"\1.fc\2."),
    (r"^mvc_decoder\.", "expression_decoder."),
    (r"^(\w+_decoder)\.gene2query\.", r"\1.query."),
    (r"^(\w+_decoder)\.hidden_activation\.", r"\1.activation."),
    (r"^cls_decoder\._decoder\.", "cell_type_head."),
    (r"^cls_decoder\.out_layer\.", "cell_type_head.6."),
)


def epifoundation_state(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `EpiFoundationNet` from the released one; unknown names are refused later by the strict load."""
    state = {}
    for key, tensor in released.items():
        name = key.removeprefix("module.")
        for pattern, replacement in _EPIFOUNDATION_RENAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    return state


# Settings that change the network, with the only value that this network supports.
_EPIFOUNDATION_REQUIRED = {"cell_emb_style": "cls", "mvc_arch_style": "concat query"}


def epifoundation_config(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> EpiFoundationConfig:
    """Sizes of the network, from the tensors if possible, or else from the released ``config.json``."""
    from ..nn.epifoundation import EpiFoundationConfig

    def rows(name: str) -> int:
        return len(state[name]) if name in state else 0

    n_layers = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("layers.")), default=-1)
    n_peaks, d_model = state["peak_embedding.table.weight"].shape
    n_chromosomes = rows("chromosome_embedding.table.weight")
    shown = {"embedding_dim": d_model, "num_layers": n_layers, "use_chr_labels": n_chromosomes > 0}
    for name, value in (_EPIFOUNDATION_REQUIRED | shown).items():
        if settings.get(name, value) != value:
            what = "the weights have" if name in shown else "supported is only"
            msg = f"The released configuration has {name}={settings[name]!r}; {what} {value!r}."
            raise ValueError(msg)
    queries = [f"{decoder}_decoder.query.weight" for decoder in ("expression", "value")]
    return EpiFoundationConfig(
        n_peaks=n_peaks,
        n_genes=rows("gene_embedding.table.weight"),
        n_chromosomes=n_chromosomes,
        n_batches=rows("batch_embedding.table.weight"),
        n_cell_types=rows("cell_type_head.6.weight"),
        n_bins=rows("expression_decoder.fc2.weight"),
        value_decoder="value_decoder.fc2.weight" in state,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=settings["head_num"],
        d_feed_forward=state["layers.0.fc1.weight"].shape[0],
        d_query=next((rows(name) for name in queries if name in state), EpiFoundationConfig.d_query),
        dropout=float(settings.get("dropout", EpiFoundationConfig.dropout)),
        max_tokens=settings.get("atac_max_len", EpiFoundationConfig.max_tokens),
    )
