"""What a recipe needs: ``python -m training.plan RECIPE [key=value ...] --gpus 4xA100-80G`` prints memory and time.

An estimate by arithmetic, every term of it printed: parameters and tokens are exact (tests hold them to the tiny
model's real counts), floating-point work is that of the matrix products, and the efficiencies are stated assumptions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import typer

from differad_edge.errors import ConfigError, DifferadError
from training.lineage import model_shape
from training.recipe import LoraRecipe, Recipe, load_recipe
from training.shapes import Shape
from training.tiny.model import SIDE_PX as TINY_SIDE_PX

__all__ = [
    "GIB",
    "GPUS",
    "Gpu",
    "Plan",
    "kept_by_a_layer",
    "main",
    "model_shape",
    "parse_gpus",
    "plan",
    "report",
    "trained_parameters",
]


class Gpu(NamedTuple):
    """``memory_gib`` usable by a process, dense bf16 ``tflops`` and memory ``bandwidth_gbs``, from the data sheets."""

    memory_gib: float
    tflops: float
    bandwidth_gbs: float


GPUS = {
    "A100-40G": Gpu(39.4, 312, 1555),
    "A100-80G": Gpu(79.1, 312, 2039),
    "H100-80G": Gpu(79.1, 989, 3350),
    "H200-141G": Gpu(140.4, 989, 4800),
    "L40S-48G": Gpu(44.5, 362, 864),
    "RTX4090-24G": Gpu(23.5, 165, 1008),
}
MATMUL_EFFICIENCY = 0.40  # of the peak, in training and prefill: what ZeRO runs of 7B models usually reach
BANDWIDTH_EFFICIENCY = 0.60  # of the peak, in decoding with transformers
DECODE_OVERHEAD_MS = 25.0  # per decoding step of transformers' generate, whatever the batch; vLLM has about 2
VLLM_OVERHEAD_MS = 2.0
CUDA_CONTEXT_GIB = 1.5  # context, workspaces and fragmentation
ADAM_BYTES = 12  # float32 master weight and two moments for a bf16 weight; 8 (two moments) for a float32 one
PROMPT_TEXT_TOKENS = 120  # the longest training prompt and the chat template, in Qwen's vocabulary
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """All per device. Memory in GiB, time in seconds of one optimiser step."""

    parameters: int
    trained: int
    sequence_tokens: int
    image_tokens: int
    completions_per_step: int
    weights_gib: float
    gradients_gib: float
    optimiser_gib: float
    activations_gib: float
    rollout_gib: float
    reference_gib: float
    other_gib: float
    forward_flops: float
    step_flops: float
    generate_s: float
    train_s: float
    steps: int | None

    @property
    def total_gib(self) -> float:
        """Training and rollout do not overlap, but an allocator keeps what it had: they are added."""
        return (
            self.weights_gib
            + self.gradients_gib
            + self.optimiser_gib
            + self.activations_gib
            + self.rollout_gib
            + self.reference_gib
            + self.other_gib
        )

    @property
    def step_s(self) -> float:
        """Seconds of one optimiser step."""
        return self.generate_s + self.train_s


def plan(recipe: Recipe, shape: Shape, gpu: Gpu, devices: int, image_px: tuple[int, int], pairs: int | None) -> Plan:
    """Estimate ``recipe`` for a model of ``shape`` on ``devices`` of ``gpu``.

    ``image_px``: width and height as the processor resizes them. ``pairs``: of the data set, None where unknown.
    """
    grpo, optimiser = recipe.grpo, recipe.optimiser
    is_grpo = recipe.stage == "grpo"
    lora = recipe.model.lora
    value = 2 if recipe.weights_dtype == "bfloat16" else 4
    # PEFT holds adapters in float32 beside bfloat16 weights; DeepSpeed brings them to bfloat16 with a master copy.
    learning = 4 if lora is not None and not recipe.run.deepspeed else value
    image_tokens = shape.image_tokens(*image_px)
    answer = grpo.max_new_tokens if is_grpo else 128
    prompt = 2 * image_tokens + PROMPT_TEXT_TOKENS
    sequence = prompt + answer
    trained = trained_parameters(recipe, shape)
    sharded = devices if recipe.run.deepspeed else 1
    spread = sharded if recipe.run.deepspeed == "zero3" else 1
    weights = shape.parameters * value / spread
    adapters = trained * learning / spread if lora is not None else 0.0
    forward = shape.forward_flops(sequence, image_tokens, 2, scored=answer)
    rows = optimiser.batch * optimiser.accumulation  # completions or pairs of one device in one step
    # Forward, two of backward (inputs and weights; one where adapters leave the weights as they are), and one more
    # forward where activations are computed again. A vision tower that does not learn has forward passes alone.
    vision = 0.0 if _vision_learns(recipe) else shape.forward_flops(0, image_tokens, 2, scored=0)
    backward = (1 if lora is not None else 2) * (forward - vision)
    again = forward - vision if optimiser.gradient_checkpointing else 0.0
    divergence = is_grpo and grpo.kl_beta > 0
    passes = forward + backward + again + (forward if divergence else 0.0)
    reference = divergence and lora is None  # with adapters it is the same weights without them
    peak = gpu.tflops * 1e12 * MATMUL_EFFICIENCY
    generate = _generate_s(recipe, shape, gpu, rows, prompt, image_tokens) if is_grpo else 0.0
    groups = rows * devices / (grpo.generations if is_grpo else 1)
    steps = optimiser.steps
    if steps is None and pairs is not None:
        steps = max(1, int(pairs * optimiser.epochs / groups))
    return Plan(
        parameters=shape.parameters,
        trained=trained,
        sequence_tokens=sequence,
        image_tokens=image_tokens,
        completions_per_step=rows * devices,
        weights_gib=(weights + adapters) / GIB,
        gradients_gib=trained * learning / sharded / GIB,
        optimiser_gib=trained * (ADAM_BYTES if learning == 2 else 8) / sharded / GIB,
        activations_gib=_activation_bytes(recipe, shape, sequence, image_tokens, answer) / GIB,
        rollout_gib=_rollout_bytes(recipe, shape, gpu, rows, prompt + answer, value, weights) / GIB if is_grpo else 0.0,
        reference_gib=(weights if reference else 0.0) / GIB,
        other_gib=CUDA_CONTEXT_GIB,
        forward_flops=forward,
        step_flops=passes * rows,
        generate_s=generate,
        train_s=passes * rows / peak,
        steps=steps,
    )


def trained_parameters(recipe: Recipe, shape: Shape) -> int:
    """How many parameters get gradients: all, all but the vision tower, or the adapters' alone (of all targets)."""
    if recipe.model.lora is not None:
        attention = 2 * (shape.hidden + shape.q_width) + 2 * (shape.hidden + shape.kv_width)
        mlp = 3 * (shape.hidden + shape.intermediate)
        return shape.layers * recipe.model.lora.rank * (attention + mlp)
    return shape.parameters - (0 if _vision_learns(recipe) else shape.vision)


def _vision_learns(recipe: Recipe) -> bool:
    return not recipe.model.freeze_vision and recipe.model.lora is None


def _activation_bytes(recipe: Recipe, shape: Shape, sequence: int, image_tokens: int, scored: int) -> float:
    """Of one forward and backward pass over one device's batch."""
    tokens = sequence * recipe.optimiser.batch
    value = 2 if recipe.model.dtype == "bfloat16" else 4
    layer = value * tokens * kept_by_a_layer(recipe.model.lora, shape)
    patches = 2 * image_tokens * shape.merge**2 * recipe.optimiser.batch
    vision_layer = value * patches * (8 * shape.vision_hidden + 2 * shape.vision_mlp)
    logits = 4 * recipe.optimiser.batch * scored * shape.vocabulary  # float32, one copy: TRL computes them in chunks
    learning_layers = shape.vision_layers if _vision_learns(recipe) else 0
    if recipe.optimiser.gradient_checkpointing:
        inputs = tokens * shape.hidden * shape.layers + patches * shape.vision_hidden * learning_layers
        return value * inputs + layer + vision_layer + logits
    return layer * shape.layers + vision_layer * max(1, learning_layers) + logits


def kept_by_a_layer(lora: LoraRecipe | None, shape: Shape) -> float:
    """Values of a token, in the model's dtype, that a decoder layer keeps for its backward pass.

    Inputs of its matrix products, norms (their float32 copies count twice) and attention. A test counts them.
    """
    normed = shape.q_width + shape.kv_width if shape.qk_norm else 0
    attention = 2 * shape.q_width + 2 * shape.kv_width  # q, k and v as they are attended to, and what comes out
    if lora is None:
        return 8 * shape.hidden + 3 * normed + attention + 4 * shape.intermediate
    # Frozen weights keep no inputs; each adapter keeps its own, and the mask of its dropout, a byte an element.
    inputs = 5 * shape.hidden + shape.q_width + shape.intermediate
    adapters = (1.5 if lora.dropout else 1.0) * inputs + 7 * lora.rank
    return 4 * shape.hidden + 2 * normed + attention + 3 * shape.intermediate + adapters


def _rollout_bytes(recipe: Recipe, shape: Shape, gpu: Gpu, rows: int, tokens: int, value: int, weights: float) -> float:
    if recipe.rollout.backend == "vllm-server":
        return 0.0  # on the server's own devices
    if recipe.rollout.backend == "vllm-colocate":
        return gpu.memory_gib * recipe.rollout.gpu_memory_share * GIB
    cache = rows * tokens * shape.kv_bytes_per_token(value)
    # Under ZeRO-3 generation gathers the whole model on every device.
    return cache + (shape.parameters * value - weights if recipe.run.deepspeed == "zero3" else 0.0)


def _generate_s(recipe: Recipe, shape: Shape, gpu: Gpu, rows: int, prompt: int, image_tokens: int) -> float:
    value = 2 if recipe.model.dtype == "bfloat16" else 4
    new = recipe.grpo.max_new_tokens
    prefill = rows * shape.forward_flops(prompt, image_tokens, 2, scored=1) / (gpu.tflops * 1e12 * MATMUL_EFFICIENCY)
    read = shape.parameters * value + rows * (prompt + new / 2) * shape.kv_bytes_per_token(value)
    overhead = DECODE_OVERHEAD_MS if recipe.rollout.backend == "transformers" else VLLM_OVERHEAD_MS
    step = read / (gpu.bandwidth_gbs * 1e9 * BANDWIDTH_EFFICIENCY) + overhead / 1000
    return prefill + new * step  # without what is drawn again: how many groups are degenerate shows in the run


def parse_gpus(text: str) -> tuple[int, str]:
    """``4xA100-80G`` as 4 and the name. Raises ConfigError."""
    found = re.fullmatch(r"(\d+)x(.+)", text)
    if found is None or found[2] not in GPUS or int(found[1]) < 1:
        raise ConfigError(f"--gpus: got {text!r}, allowed: Nx and one of {', '.join(GPUS)}, as in 4xA100-80G")
    return int(found[1]), found[2]


def report(recipe: Recipe, made: Plan, devices: int, name: str) -> str:
    """The plan as text, a line a term."""
    fits = "fits" if made.total_gib <= GPUS[name].memory_gib else "DOES NOT FIT"
    lines = [
        f"{recipe.name} ({recipe.stage}) on {devices} x {name}",
        f"parameters             {made.parameters / 1e9:8.3f} billion, {made.trained / 1e9:.3f} trained",
        f"sequence               {made.sequence_tokens:8d} tokens, of which 2 x {made.image_tokens} for images",
        f"rows a step            {made.completions_per_step:8d} over all devices",
        "memory of one device",
        f"  weights              {made.weights_gib:8.2f} GiB",
        f"  gradients            {made.gradients_gib:8.2f} GiB",
        f"  optimiser            {made.optimiser_gib:8.2f} GiB",
        f"  activations          {made.activations_gib:8.2f} GiB",
        f"  rollout              {made.rollout_gib:8.2f} GiB",
        f"  reference model      {made.reference_gib:8.2f} GiB",
        f"  context              {made.other_gib:8.2f} GiB",
        f"  together             {made.total_gib:8.2f} of {GPUS[name].memory_gib} GiB: {fits}",
        "time of one optimiser step",
        f"  generation           {made.generate_s:8.1f} s",
        f"  training             {made.train_s:8.1f} s ({made.step_flops / 1e12:.0f} TFLOP a device)",
    ]
    if made.steps is not None:
        hours = made.steps * made.step_s / 3600
        lines.append(f"{made.steps} steps: {hours:.1f} hours, {hours * devices:.0f} GPU hours")
    else:
        lines.append("give --pairs or optimiser.steps for the time of the run")
    lines.append(
        f"Assumed: {MATMUL_EFFICIENCY:.0%} of peak in matrix products, {BANDWIDTH_EFFICIENCY:.0%} of bandwidth in "
        "decoding, answers of full length, no group drawn twice. An estimate, not a measurement."
    )
    return "\n".join(lines)


def main(
    recipe: Annotated[str, typer.Argument(help="A committed recipe's name, or a YAML file.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]")] = None,
    gpus: Annotated[str, typer.Option(help="How many of which, as in 4xA100-80G.")] = "4xA100-80G",
    model: Annotated[str, typer.Option(help="Model to plan for in place of the recipe's.")] = "",
    image: Annotated[
        int | None, typer.Option(min=28, help="Side of the images in pixels; default: model.size_px, else 800.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Pairs in the data set.")] = None,
) -> None:
    """Estimate memory and time of a recipe."""
    try:
        devices, name = parse_gpus(gpus)
        read = load_recipe(recipe, changes or ())
        shape = model_shape(model or read.model.path)
        usual = read.model.size_px or ((TINY_SIDE_PX,) * 2 if read.data.tiny else (800, 800))
        known = pairs or (read.data.tiny.pairs if read.data.tiny else None)
        made = plan(read, shape, GPUS[name], devices, (image, image) if image else usual, known)
    except DifferadError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(report(read, made, devices, name))


if __name__ == "__main__":
    typer.run(main)
