"""The configuration of a pretraining run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..nn.objectives import check_weights

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, a cosine to zero and clipping of the gradient's norm."""

    lr: float = 5e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    n_warmup_steps: int = 500
    clip: float = 1.0


@dataclass(frozen=True)
class BatchConfig:
    """Cells and OCRs per batch, over all processes; see `scfound_atac.data._batches.CorpusBatches`."""

    n_cells: int = 32
    crop_size: int | None = 8192
    crop: Literal["neighbours", "random"] = "neighbours"
    validation_fraction: float = 0.02


@dataclass(frozen=True)
class PreparationConfig:
    """How counts are prepared; kept with the weights."""

    target_sum: float | None = 1e4
    log1p: bool = True


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run. Relative paths are relative to the current directory.

    Attributes
    ----------
    corpus
        Folder with ``corpus.yaml``.
    output
        Folder of the run.
    study_weights
        Weights of studies in this run, by name or kind, instead of those in ``corpus.yaml``; 0 leaves them out.
    network
        ``kind`` and the sizes of a new network.
    init_from
        Start from the network in this folder, or of this name in the registry, instead.
    region_table
        File of the region table for networks with ``n_factors``; the package's, or that of `init_from`, if left out. Another one is stored
        with the weights.
    objectives
        Weight of each objective of `scfound_atac.nn.objectives`.
    preparation
        How counts are prepared; as for the network of `init_from`, or the defaults of `PreparationConfig`, if left out.
    n_steps
        Updates of the weights.
    accumulate
        Batches per update.
    precision
        ``"32"``, ``"bf16-mixed"``, or ``"auto"``: bf16 on a GPU that has it.
    checkpoint_activations
        Compute activations again in the backward pass instead of keeping them.
    checkpoint_every, validate_every
        Steps between two checkpoints, and between two validations.
    n_workers
        Processes that read batches ahead; none by default, so that the training process reads them itself.
    accelerator, devices, num_nodes, strategy
        As in `lightning.fabric.Fabric`.
    """

    corpus: str
    output: str
    study_weights: dict[str, float] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    region_table: str | None = None
    objectives: dict[str, float] = field(default_factory=lambda: {"denoise": 1.0})
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    preparation: PreparationConfig | None = None
    seed: int = 0
    n_steps: int = 10_000
    accumulate: int = 1
    precision: Literal["auto", "32", "bf16-mixed"] = "auto"
    checkpoint_activations: bool = False
    checkpoint_every: int = 500
    validate_every: int = 500
    n_validation_batches: int = 16
    n_workers: int = 0
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        check_weights(self.objectives)
        if bool(self.network) == bool(self.init_from):
            msg = "Give network: {kind: ..., sizes} for new weights or init_from: to start from others, one of the two."
            raise ValueError(msg)
        if self.network and "kind" not in self.network:
            msg = "network lacks its kind, for example network: {kind: chromfound}."
            raise ValueError(msg)
        positive = {
            "n_steps": self.n_steps,
            "accumulate": self.accumulate,
            "checkpoint_every": self.checkpoint_every,
            "validate_every": self.validate_every,
            "n_validation_batches": self.n_validation_batches,
            "batch.n_cells": self.batch.n_cells,
            "batch.crop_size": self.batch.crop_size or 1,
            "optimizer.lr": self.optimizer.lr,
            "optimizer.clip": self.optimizer.clip,
        }
        if wrong := [f"{name} = {value}" for name, value in positive.items() if value <= 0]:
            msg = f"These must be above zero: {', '.join(wrong)}."
            raise ValueError(msg)
        if not 0 < self.batch.validation_fraction < 1:
            msg = f"batch.validation_fraction must lie between 0 and 1, got {self.batch.validation_fraction}."
            raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, as `read_config` takes it."""
        plain = asdict(self)
        plain["optimizer"]["betas"] = list(self.optimizer.betas)
        return plain


def read_config(config: Mapping[str, Any] | str | Path) -> PretrainConfig:
    """Read a configuration from a mapping or a YAML file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For keys that do not exist (naming those that do), values of the wrong type, or values that make no run.
    """
    if not isinstance(config, str | Path):
        return _build(PretrainConfig, config, "the configuration")
    import yaml

    path = Path(config)
    if not path.is_file():
        msg = f"No such configuration: {path}."
        raise FileNotFoundError(msg)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is not YAML: {error}"
        raise ValueError(msg) from error
    return _build(PretrainConfig, values, str(path))


def _build(kind: Any, values: Any, where: str) -> Any:
    if not hasattr(values, "keys"):
        msg = f"{where} must be a mapping, got {values!r}."
        raise ValueError(msg)
    known = {f.name: f for f in fields(kind)}
    if unknown := [str(key) for key in values if key not in known]:
        msg = f"Unknown keys in {where}: {', '.join(unknown)}. Known: {', '.join(known)}."
        raise ValueError(msg)
    if absent := [name for name in ("corpus", "output") if name in known and name not in values]:
        msg = f"{where} lacks {', '.join(absent)}."
        raise ValueError(msg)
    hints = get_type_hints(kind)
    return kind(**{key: _convert(hints[key], value, key) for key, value in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as `hint` wants it; YAML reads 1e-4 as text and 32 as a number."""
    if is_dataclass(hint):
        return _build(hint, value, key)
    choices = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in choices:
            return None
        kinds = [choice for choice in choices if choice is not NoneType]
        return value if isinstance(value, tuple(kinds)) and value is not True else _convert(kinds[0], value, key)
    if get_origin(hint) is Literal:
        if str(value) in choices:
            return str(value)
    elif get_origin(hint) is dict:
        if hasattr(value, "keys"):
            return {str(k): v if choices[1] is Any else _convert(choices[1], v, f"{key}.{k}") for k, v in value.items()}
    elif get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and len(value) == len(choices):
            return tuple(_convert(choice, item, key) for choice, item in zip(choices, value, strict=True))
    elif hint is float:
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif hint is str and isinstance(value, Path):
        return str(value)
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = f"one of {', '.join(choices)}" if get_origin(hint) is Literal else getattr(hint, "__name__", str(hint))
    msg = f"{key} must be {wanted}, got {value!r}."
    raise ValueError(msg)
