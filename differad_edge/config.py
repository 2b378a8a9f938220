"""Settings: typed, with units in their names, unknown keys refused, every mistake named."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from differad_edge.errors import ConfigError

__all__ = [
    "AlignmentConfig",
    "CascadeConfig",
    "ConfigModel",
    "InspectorConfig",
    "ModelConfig",
    "SidePx",
    "ThresholdConfig",
    "load_config",
    "load_mapping",
    "parse_config",
]

_MAX_FILE_BYTES = 1_000_000
_SECRETS = frozenset({"token", "password", "url"})  # an address may hold either

Share = Annotated[float, Field(ge=0.0, le=1.0)]
SidePx = Annotated[int, Field(ge=32, le=4096)]
"""Of what a language model sees: its memory grows with the fourth power of a side."""
Model = TypeVar("Model", bound=BaseModel)


class ConfigModel(BaseModel):
    """Base of every configuration: unknown keys, NaN and infinity are refused, and it cannot be changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would read true as 1, and ``steps: true`` as a run of one step."""
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("true and false are allowed where something is switched on or off")
        return value


class AlignmentConfig(ConfigModel):
    """How far a part may lie from where its reference lay, and still be compared."""

    max_shift_px: Annotated[float, Field(ge=0)] | None = None
    """In pixels of the target; None: ``max_shift_share`` counts."""
    max_shift_share: Share = 0.15
    """Share of the image's smaller side."""
    max_angle_deg: Annotated[float, Field(ge=0, le=45)] = 10.0
    scale_range: tuple[PositiveFloat, PositiveFloat] = (0.9, 1.1)
    """Smallest and largest target-over-reference scale."""
    max_residual: Share = 0.6
    """From this on (1 - correlation after alignment) the part is misaligned; see results.Alignment."""
    local_shift_px: Annotated[float, Field(ge=0)] = 6.0
    """How far a detail may sit from its place after the alignment, in pixels, without being a difference."""

    @field_validator("scale_range")
    @classmethod
    def _scale_range_holds_one(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] <= 1.0 <= value[1]:
            raise ValueError("smallest <= 1 <= largest")
        return value

    def shift_limit_px(self, width: int, height: int) -> float:
        """The largest shift in pixels for a target of ``width`` x ``height`` pixels."""
        return self.max_shift_share * min(width, height) if self.max_shift_px is None else self.max_shift_px


class ThresholdConfig(ConfigModel):
    """From which score on a part is NG."""

    score: Share | None = None
    """Overrides calibration and the engine's default; None: the product's calibration, else the engine's default."""
    false_reject_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of good parts that calibration may let fail."""
    max_findings: Annotated[int, Field(ge=1, le=1000)] = 32


class LearningConfig(ConfigModel):
    """What one product's good parts may cost where they are not the same picture. Fewer are kept where it is more."""

    max_good_parts: Annotated[int, Field(ge=2, le=1000)] = 20
    """Of more, those that differ most from each other. Each adds about 7 MiB, and 1.5 ms to every comparison."""
    max_memory_mib: PositiveFloat = 256.0
    """Memory that one product holds; two good parts are kept whatever it says."""


class ModelConfig(ConfigModel):
    """The language model that the engines "vlm", "remote" and "cascade" ask."""

    path: Annotated[str, Field(min_length=1)] | None = None
    """vlm, cascade: a checkpoint folder, an id of the model hub, or a folder that `export` wrote; with a server: the
    model's name there."""
    server: Annotated[str, Field(pattern=r"^https?://[^/\s?#@]+(/[^\s?#]*)?$")] | None = None
    """remote, cascade: base address of an OpenAI-compatible server, as http://127.0.0.1:8000, with or without /v1."""
    prompt: Literal["student", "trained", "general"] | None = None
    """How the model is asked: as a student, which gives its verdict first; as one trained in the paper's format, which
    thinks first; or as one that must be told the format in full. None: what the checkpoint says it was trained with,
    else "student" for a Qwen3-VL in this process and "trained" for any other."""
    max_new_tokens: Annotated[int, Field(ge=16, le=4096)] = 256
    size_px: tuple[SidePx, SidePx] | None = None
    """Student: width and height at which it sees every image; None: what the checkpoint says, else 800x800."""
    fit: Literal["stretch", "letterbox"] | None = None
    """Student: whether images are stretched to that size or keep their aspect; None: the checkpoint's, else stretch."""
    precision: Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4"] | None = None
    """Checkpoint of a student: fp32, bf16, fp16, or fp8 for its weights alone; None: bf16 on a GPU, else fp32. Export:
    which of the engines compiled for this GPU; None: those compiled last, else ONNX Runtime."""
    describe: bool = True
    """Student: put NG parts into words, as far as the deadline leaves time."""
    references_mb: PositiveFloat = 2048.0
    """Student: memory of the device for references that were read before, over all products."""


class CascadeConfig(ConfigModel):
    """When the engine "cascade" asks the language model: where the embedded engine's score lies between two limits."""

    ok_below: Share = 0.25
    """The embedded engine's OK stands below this score; 0: never."""
    ng_from: Share = 0.85
    """Its NG stands from this score on; 1: hardly ever."""
    draft: bool = True
    """A student checks the box that the embedded engine found, in one pass, before it writes its own: the answer stays
    the same, up to rounding, and comes sooner."""

    @model_validator(mode="after")
    def _in_order(self) -> CascadeConfig:
        if self.ok_below > self.ng_from:
            raise ValueError(f"ok_below: got {self.ok_below:g}, allowed: at most ng_from, {self.ng_from:g}")
        return self


class InspectorConfig(ConfigModel):
    """Everything that an EdgeInspector is built from."""

    store: Path | None = None
    """Folder of the registered products; None: $DIFFERAD_STORE, else the user's data folder."""
    engine: Annotated[str, Field(min_length=1)] = "lite"
    deadline_ms: PositiveFloat | None = None
    """For every part, unless the call names its own; None: no deadline."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of the inference runtime; None: its own choice."""
    alignment: AlignmentConfig = AlignmentConfig()
    thresholds: ThresholdConfig = ThresholdConfig()
    learning: LearningConfig = LearningConfig()
    model: ModelConfig = ModelConfig()
    cascade: CascadeConfig = CascadeConfig()


def load_config(path: str | Path, model: type[Model]) -> Model:
    """Read a YAML file into ``model``. An empty file gives the defaults.

    Raises ConfigError when the file cannot be read, is no YAML mapping, repeats a key, or breaks a rule of ``model``;
    the message names each field, its value and what is allowed.
    """
    return parse_config(load_mapping(path), model, where=str(path))


def load_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings that are not checked yet. Raises ConfigError, see load_config."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        if len(raw) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: got more than {_MAX_FILE_BYTES} bytes, allowed: at most that")
        data = yaml.load(raw.decode("utf-8"), Loader=_StrictLoader)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid YAML: {error}") from error
    if data is not None and not isinstance(data, dict):
        raise ConfigError(f"{path}: got {type(data).__name__}, allowed: a mapping of settings")
    return data or {}


def parse_config(data: object, model: type[Model], *, where: str = "config") -> Model:
    """Read a mapping into ``model``; ``where`` begins every message. Raises ConfigError, see load_config."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: got {type(data).__name__}, allowed: a mapping of settings")
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        lines = [_describe(item, model, where) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from error


def _describe(item: Mapping[str, Any], model: type[BaseModel], where: str) -> str:
    field = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        return f"{where}: {field}: unknown setting, allowed here: {', '.join(_siblings(item['loc'], model))}"
    if item["type"] == "missing":
        return f"{where}: {field}: missing, and it has no default"
    allowed = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{where}: {field}: got {_shown(item['input'], field)}, allowed: {allowed}"


def _shown(value: object, field: str) -> str:
    """The value as a message may show it: no secret, and no section that may hold one."""
    if field.rpartition(".")[2] in _SECRETS:
        return "a value that is not shown"
    several = value if isinstance(value, (list, tuple)) else [value]
    return "these settings" if any(isinstance(one, (Mapping, BaseModel)) for one in several) else repr(value)


def _siblings(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The settings that are allowed where an unknown one was found."""
    choices = [model]
    for part in location[:-1]:
        if isinstance(part, int):
            continue  # which one of several
        if len(choices) > 1:  # pydantic names the kind that ``type`` chose
            choices = [choice for choice in choices if _kind(choice) == part] or choices[:1]
            continue
        field = choices[0].model_fields.get(part)
        inner = [] if field is None else _models_in(field.annotation)
        if not inner:
            break
        choices = inner
    return sorted(choices[0].model_fields)


def _kind(model: type[BaseModel]) -> object:
    """What ``type`` says in a section of one of several kinds."""
    field = model.model_fields.get("type")
    return None if field is None else next(iter(get_args(field.annotation)), None)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in ``Model``, ``Model | None``, ``tuple[Model, ...]`` or ``tuple[A | B, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; YAML's own rule, which PyYAML does not hold."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the parent says it better
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
