"""A recipe: everything, beside code and data, that decides what a training run gives. YAML, typed, no unknown keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from differad_edge.config import ConfigModel, SidePx, load_mapping, parse_config
from differad_edge.errors import ConfigError
from training.tiny.pairs import HELD_OUT_SEED

RECIPES = Path(__file__).parent / "recipes"
DEEPSPEED = Path(__file__).parent / "deepspeed"

AnyRecipe = TypeVar("AnyRecipe", bound=ConfigModel)
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1, pattern=r"\S")]


class LoraRecipe(ConfigModel):
    """Low-rank adapters in place of full training."""

    rank: PositiveInt = 64
    alpha: PositiveFloat = 128.0
    dropout: Share = 0.05
    targets: str = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    """Regular expression over module names."""

    @field_validator("targets")
    @classmethod
    def _is_an_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as exc:
            raise ValueError(f"no regular expression: {exc}") from exc
        return value


class ModelRecipe(ConfigModel):
    """What is trained. ``path``: a folder, or an id of the model hub."""

    path: Name
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    freeze_vision: bool = True
    lora: LoraRecipe | None = None
    size_px: tuple[SidePx, SidePx] | None = None
    """Student: width and height at which it sees every image; None: what the checkpoint says, else 800x800."""
    fit: Literal["stretch", "letterbox"] | None = None
    """Student: whether images are stretched to that size or keep their aspect; None: the checkpoint's, else stretch."""


class TinyRecipe(ConfigModel):
    """Pairs of the tiny generator: how many, and how fast they become hard (shares of the run)."""

    pairs: PositiveInt
    ramp_start: Share = 0.0
    ramp_end: Share = 0.0
    hardest: Share = 1.0
    """Difficulty at the end of the ramp; 1 is the full task."""
    loose: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """How far outside the true box the edges of a cold start's boxes lie at most, in shares of the box's side."""

    @model_validator(mode="after")
    def _ramp_rises(self) -> TinyRecipe:
        if self.ramp_end < self.ramp_start:
            raise ValueError(f"ramp_end: got {self.ramp_end}, allowed: at least ramp_start = {self.ramp_start}")
        return self


class DataRecipe(ConfigModel):
    """Either pair sets (folders with pairs.jsonl) or generated tiny pairs."""

    pair_sets: tuple[Path, ...] = ()
    tiny: TinyRecipe | None = None
    answers: Literal["difference", "difference-fixed", "student", "iad-r1", "lr-iad"] = "difference"
    shuffle: bool = True
    workers: Annotated[int, Field(ge=0, le=256)] = 2

    @model_validator(mode="after")
    def _one_source(self) -> DataRecipe:
        if bool(self.pair_sets) == (self.tiny is not None):
            raise ValueError("either pair_sets or tiny")
        return self


class OptimiserRecipe(ConfigModel):
    """AdamW. ``steps`` counts optimiser steps; None: as many as ``epochs`` need."""

    learning_rate: PositiveFloat
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_grad_norm: PositiveFloat = 1.0
    steps: PositiveInt | None = None
    epochs: PositiveFloat = 1.0
    batch: PositiveInt
    """Pairs (cold start) or completions (GRPO) on one device in one forward pass."""
    accumulation: PositiveInt = 1
    """Forward passes a step."""
    gradient_checkpointing: bool = True


class RewardRecipe(ConfigModel):
    """What a completion earns: format plus localisation."""

    kind: Literal["difference", "student", "lr-iad", "iad-r1"] = "difference"
    """ "student": as "difference", with the format of an answer in the student's order."""
    localisation: Literal["dclr", "dclr_eq7", "iou", "center"] = "dclr"
    alpha: Share = 0.6
    """Weight of the centre against the scale in S_cons (Eq. 6)."""
    format_weight: Annotated[float, Field(ge=0)] = 1.0
    focal_alpha: PositiveFloat = 1.0
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    focal_f: PositiveFloat = 1.0
    defect_share: Share = 0.5
    """Of the training pairs, for the focal reward's p. It counts only with grpo.scale_rewards "none": all answers of a
    group have one p, which a division by the group's spread takes out again."""


class GrpoRecipe(ConfigModel):
    """Group relative policy optimisation. DESIGN's decisions 7 to 9 are the defaults."""

    generations: Annotated[int, Field(ge=2)] = 8
    temperature: PositiveFloat = 0.9
    top_k: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: PositiveInt = 256
    resample: bool = True
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    difficulty_weight: bool = True
    tau: Share = 0.3
    kl_beta: Annotated[float, Field(ge=0)] = 0.0
    epsilon: PositiveFloat = 0.2
    loss: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    scale_rewards: Literal["group", "none"] = "group"


class RolloutRecipe(ConfigModel):
    """Who generates: transformers in the training process, or vLLM (beside it, or as a server of its own)."""

    backend: Literal["transformers", "vllm-colocate", "vllm-server"] = "transformers"
    server_url: Annotated[str, Field(pattern=r"^https?://[^/\s?#@]+(/[^\s?#]*)?$")] | None = None
    gpu_memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    tensor_parallel: PositiveInt = 1

    @model_validator(mode="after")
    def _server_has_an_address(self) -> RolloutRecipe:
        if (self.backend == "vllm-server") != (self.server_url is not None):
            raise ValueError("server_url where backend is vllm-server, and only there")
        return self


class RunRecipe(ConfigModel):
    """Where it is written, how often, and what watches it."""

    out: Path
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    log_steps: PositiveInt = 10
    save_steps: PositiveInt = 100
    keep_checkpoints: PositiveInt = 2
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    deepspeed: Literal["zero2", "zero3"] | None = None
    gpus: PositiveInt = 1
    """How many processes it runs on; training.plan and the launch lines use it."""

    @field_validator("out", mode="before")
    @classmethod
    def _is_named(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("a folder")  # an empty path would be the working directory
        return value

    @field_validator("out")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        try:
            return value.expanduser()
        except RuntimeError as exc:
            raise ValueError(f"a folder; {exc}") from exc


_READ_BY = {
    "difference": ("difference", "difference-fixed"),
    "student": ("student",),
    "iad-r1": ("iad-r1",),
    "lr-iad": ("lr-iad",),
}
"""By ``reward.kind``: the ``data.answers`` that it can score. Any other would earn nothing, hour after hour."""


class Recipe(ConfigModel):
    """One run. ``stage``: "cold-start" learns from answers that are given, "grpo" from rewards."""

    name: Name
    stage: Literal["cold-start", "grpo"]
    about: str
    """One or two sentences: which paper and table, and what is our own choice."""
    model: ModelRecipe
    data: DataRecipe
    optimiser: OptimiserRecipe
    reward: RewardRecipe = RewardRecipe()
    grpo: GrpoRecipe = GrpoRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    run: RunRecipe

    @property
    def weights_dtype(self) -> Literal["float32", "bfloat16"]:
        """In which the weights are held: bfloat16 needs a float32 master copy (DeepSpeed's) or frozen weights.

        AdamW's steps of 1e-6 are lost in the rounding of a bfloat16 weight; then it computes in bfloat16 alone.
        """
        trained_as_they_are = self.run.deepspeed is None and self.model.lora is None
        return "float32" if trained_as_they_are else self.model.dtype

    @property
    def is_student(self) -> bool:
        """Whether it trains a student, which sees images at one working size and answers with its verdict first."""
        return self.data.answers == "student"

    @property
    def grounds(self) -> bool:
        """Whether its rewards look at boxes."""
        return self.reward.kind in ("difference", "student")

    @model_validator(mode="after")
    def _answers_are_what_the_reward_reads(self) -> Recipe:
        read = _READ_BY[self.reward.kind]
        if self.stage == "grpo" and self.data.answers not in read:
            allowed = " or ".join(map(repr, read))
            raise ValueError(
                f"data.answers: got {self.data.answers!r}, allowed with reward.kind {self.reward.kind!r}: {allowed}"
            )
        return self

    @model_validator(mode="after")
    def _a_size_is_a_students(self) -> Recipe:
        for name in ("size_px", "fit"):
            if getattr(self.model, name) is not None and not self.is_student:
                raise ValueError(f"model.{name}: allowed with data.answers 'student' alone")
        return self

    @model_validator(mode="after")
    def _held_out_pairs_stay_so(self) -> Recipe:
        if self.data.tiny is not None and self.run.seed == HELD_OUT_SEED:
            raise ValueError(
                f"run.seed: got {HELD_OUT_SEED}, allowed with data.tiny: any but that of its held-out pairs"
            )
        return self

    @model_validator(mode="after")
    def _strategy_fits_the_reward(self) -> Recipe:
        for name in ("resample", "difficulty_weight"):
            if self.stage == "grpo" and not self.grounds and getattr(self.grpo, name):
                raise ValueError(f"grpo.{name}: got true, allowed with reward.kind {self.reward.kind!r}: false")
        if self.reward.kind == "lr-iad" and self.grpo.scale_rewards != "none":
            raise ValueError("grpo.scale_rewards: got 'group', allowed with reward.kind 'lr-iad': 'none'")
        return self

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> Recipe:
        completions = self.optimiser.batch * self.optimiser.accumulation * self.run.gpus
        if self.stage == "grpo" and completions % self.grpo.generations:
            raise ValueError(
                f"batch x accumulation x gpus = {completions} is no multiple of grpo.generations = "
                f"{self.grpo.generations}"
            )
        return self


def recipe_names() -> tuple[str, ...]:
    """The recipes that are committed."""
    return tuple(sorted(file.stem for file in RECIPES.glob("*.yaml")))


def load_recipe(name: str, changes: Sequence[str] = (), *, stage: str | None = None) -> Recipe:
    """Read the committed recipe ``name``, or the file of that path, with ``changes`` ("optimiser.batch=4") applied.

    A recipe may open with ``base: NAME``: it then holds only what differs from that one.
    Raises ConfigError, naming field, value and what is allowed; so does a recipe of another ``stage``.
    """
    recipe = read_recipe(name, changes, Recipe, RECIPES)
    if stage is not None and recipe.stage != stage:
        raise ConfigError(f"recipe: {name}: stage is {recipe.stage!r}, allowed here: {stage!r}")
    return recipe


def read_recipe(name: str, changes: Sequence[str], kind: type[AnyRecipe], folder: Path) -> AnyRecipe:
    """The recipe ``name`` of ``folder``, or the file of that path, as a ``kind``; see `load_recipe`."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not _is_file(file):
        known = ", ".join(sorted(one.stem for one in folder.glob("*.yaml")))
        raise ConfigError(f"recipe: got {name[:80]!r}, allowed: a .yaml file, or one of {known}")
    mapping = _with_base(file, (), folder)
    for change in changes:
        _apply(mapping, change)
    return parse_config(mapping, kind, where=str(file))


def _with_base(file: Path, seen: tuple[Path, ...], folder: Path) -> dict[str, Any]:
    if file in seen:
        raise ConfigError(f"{file}: base leads back to itself")
    mapping = dict(load_mapping(file))
    base = mapping.pop("base", None)
    if base is None:
        return mapping
    above = folder / f"{base}.yaml"
    if not _is_file(above):
        known = ", ".join(sorted(one.stem for one in folder.glob("*.yaml")))
        raise ConfigError(f"{file}: base is {str(base)[:80]!r}, allowed: one of {known}")
    return _merged(_with_base(above, (*seen, file), folder), mapping)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the system allows
        return False


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _apply(mapping: dict[str, Any], change: str) -> None:
    path, sign, text = change.partition("=")
    if not sign or not all(path.split(".")):
        raise ConfigError(f"change: got {change[:80]!r}, allowed: key=value, as in optimiser.batch=4")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # ValueError: no such day, a number of 5000 digits
        raise ConfigError(f"change: {change[:80]!r} has a value that is not YAML") from exc
    *above, last = path.split(".")
    place = mapping
    for key in above:
        inner = place.get(key)
        place[key] = dict(inner) if isinstance(inner, dict) else {}
        place = place[key]
    place[last] = value
