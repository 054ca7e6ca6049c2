"""The configuration of a pretraining run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..nn.objectives import check_weights

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Text is converted to float, because YAML reads 1e-4 as text. Counts must be whole numbers.
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0, strict=True)]
PathText = Annotated[str, BeforeValidator(lambda path: str(path) if isinstance(path, Path) else path)]

_KNOWN_KEYS_ONLY = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_KNOWN_KEYS_ONLY)
class OptimizerConfig:
    """AdamW with linear warm-up, a cosine to zero, and a maximum norm of the gradient."""

    lr: Positive = 5e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    n_warmup_steps: StrictInt = 500
    clip: Positive = 1.0


@dataclass(frozen=True, config=_KNOWN_KEYS_ONLY)
class BatchConfig:
    """Numbers of cells and OCRs per batch over all processes; see `scfound_atac.data.batches.CorpusBatches`."""

    n_cells: Count = 32
    crop_size: Annotated[int, Field(ge=0, strict=True)] | None = 8192
    crop: Literal["neighbours", "random"] = "neighbours"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.02


@dataclass(frozen=True, config=_KNOWN_KEYS_ONLY)
class PreparationConfig:
    """How counts are prepared; it is stored with the weights."""

    target_sum: float | None = 1e4
    log1p: StrictBool = True


@dataclass(frozen=True, config=_KNOWN_KEYS_ONLY)
class PretrainConfig:
    """Configuration of a pretraining run. Relative paths are relative to the current directory.

    Attributes
    ----------
    corpus
        Folder with ``corpus.yaml``.
    output
        Folder of the run.
    study_weights
        Weights of studies by name or kind, instead of those in ``corpus.yaml``; 0 leaves a study out.
    network
        The ``kind`` and the sizes of a new network.
    init_from
        Folder, or name in the registry, of a network to start from, instead of a new one.
    region_table
        File of the region table for networks with ``n_factors``; by default that of `init_from` or of the package. Another table is stored
        with the weights.
    objectives
        Weight of each objective of `scfound_atac.nn.objectives`.
    preparation
        How counts are prepared; by default as for the network of `init_from`, or as in `PreparationConfig`.
    n_steps
        Number of updates of the weights.
    accumulate
        Number of batches per update.
    precision
        ``"32"``, ``"bf16-mixed"``, or ``"auto"``: bf16 on a GPU that supports it.
    checkpoint_activations
        Compute activations again in the backward pass instead of storing them.
    checkpoint_every, validate_every
        Number of steps between two checkpoints, and between two validations.
    n_workers
        Number of processes that read batches in advance; with 0 the training process reads them itself.
    accelerator, devices, num_nodes, strategy
        Hardware to train on, as in `lightning.fabric.Fabric`.
    """

    corpus: PathText
    output: PathText
    study_weights: dict[str, float] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    init_from: PathText | None = None
    region_table: PathText | None = None
    objectives: dict[str, float] = field(default_factory=lambda: {"denoise": 1.0})
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    preparation: PreparationConfig | None = None
    seed: StrictInt = 0
    n_steps: Count = 10_000
    accumulate: Count = 1
    precision: Annotated[Literal["auto", "32", "bf16-mixed"], BeforeValidator(str)] = "auto"
    checkpoint_activations: StrictBool = False
    checkpoint_every: Count = 500
    validate_every: Count = 500
    n_validation_batches: Count = 16
    n_workers: StrictInt = 0
    accelerator: str = "auto"
    devices: StrictInt | str = "auto"
    num_nodes: StrictInt = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        check_weights(self.objectives)
        if bool(self.network) == bool(self.init_from):
            msg = "Give either network: {kind: ..., sizes} for new weights, or init_from: to start from existing ones."
            raise ValueError(msg)
        if self.network and "kind" not in self.network:
            msg = "network lacks its kind, for example network: {kind: chromfound}."
            raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, which `read_config` can read."""
        plain = asdict(self)
        plain["optimizer"]["betas"] = list(self.optimizer.betas)
        return plain


def read_config(config: Mapping[str, Any] | str | Path) -> PretrainConfig:
    """Read a configuration from a mapping or a YAML file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If a key is unknown (the message lists the known ones), or a value has a wrong type or is out of range.
    """
    if not isinstance(config, str | Path):
        return _checked(dict(config) if isinstance(config, Mapping) else config, "the configuration")
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
    return _checked(values, str(path))


def _checked(values: Any, where: str) -> PretrainConfig:
    try:
        return TypeAdapter(PretrainConfig).validate_python(values)
    except ValidationError as error:
        wrong = "; ".join(map(_in_words, error.errors()))
        msg = f"{where}: {wrong}."
        raise ValueError(msg) from None


def _in_words(error: ErrorDetails) -> str:
    """One line about one invalid value; for an unknown key, with the known ones."""
    place, problem = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ").rstrip(".")
    if error["type"] == "unexpected_keyword_argument":
        part = {"optimizer": OptimizerConfig, "batch": BatchConfig, "preparation": PreparationConfig}
        known = fields(part.get(str(error["loc"][0]), PretrainConfig))
        return f"unknown key {place}; known are {', '.join(f.name for f in known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {problem}, got {error['input']!r}" if place else problem
