"""Work of one inspection by a Qwen3-VL, and what a GPU needs for it at least: peak arithmetic, peak bandwidth.

Matrix products alone are counted, two operations for each multiply-add. Predictions take shares of the peaks that were
reached by others on these GPUs (FlashRT's published RTX 4090 figures for this model) or are assumed; they are no
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["GPUS", "Gpu", "Work", "find_gpu"]


@dataclass(frozen=True)
class Gpu:
    """``flops``: peak of bfloat16 with float32 sums, per second; ``bandwidth``: bytes per second.

    ``vision_share``, ``prefill_share``, ``bandwidth_share``: of the peaks, assumed to be reached; ``step_s``: added to
    each decode step, ``call_s`` to each inspection.
    """

    flops: float
    bandwidth: float
    vision_share: float
    prefill_share: float
    bandwidth_share: float
    step_s: float
    call_s: float = 0.5e-3


GPUS = {
    "NVIDIA GeForce RTX 4090": Gpu(165.2e12, 1008e9, 0.65, 0.70, 0.80, 0.30e-3),
    "NVIDIA H100": Gpu(790e12, 3.0e12, 0.50, 0.50, 0.80, 0.40e-3),
}


def find_gpu(name: str) -> Gpu | None:
    """The GPU whose name this begins with."""
    return next((gpu for known, gpu in GPUS.items() if name.startswith(known)), None)


@dataclass(frozen=True)
class Work:
    """Of one model: ``config`` as in a shape, ``patches`` of an image, tokens before and from the target on."""

    config: dict[str, Any]
    patches: int
    prefix: int
    tail: int

    @property
    def vision_flops(self) -> float:
        """One image."""
        v, n = self.config["vision_config"], self.patches
        width, hidden = v["hidden_size"], v["intermediate_size"]
        merged = width * v["spatial_merge_size"] ** 2
        patch = 3 * v["patch_size"] ** 2  # the two frames of a still image are folded
        linear = v["depth"] * 2 * n * (4 * width * width + 2 * width * hidden)
        attention = v["depth"] * 4 * n * n * width
        tokens = n // v["spatial_merge_size"] ** 2
        mergers = 1 + len(v["deepstack_visual_indexes"])
        return (
            linear
            + attention
            + 2 * n * patch * width
            + mergers * 2 * tokens * (merged * merged + merged * v["out_hidden_size"])
        )

    @property
    def layer_weights(self) -> int:
        """Of all layers of the language model."""
        t = self.config["text_config"]
        width, heads, kv = t["hidden_size"], t["num_attention_heads"], t["num_key_value_heads"]
        attention = width * t["head_dim"] * (2 * heads + 2 * kv)
        return int(t["num_hidden_layers"] * (attention + 3 * width * t["intermediate_size"]))

    def prefill_flops(self, new: int, past: int) -> float:
        """Reading ``new`` tokens after ``past``."""
        t = self.config["text_config"]
        seen = new * past + new * (new + 1) / 2
        attention = t["num_hidden_layers"] * 4 * t["num_attention_heads"] * t["head_dim"] * seen
        return 2 * self.layer_weights * new + attention + 2 * t["hidden_size"] * t["vocab_size"]

    @property
    def step_bytes(self) -> float:
        """Read from memory for one token of the answer, in bfloat16: weights, head, keys and values."""
        t = self.config["text_config"]
        rows = t["num_hidden_layers"] * 2 * t["num_key_value_heads"] * t["head_dim"]
        return 2.0 * (self.layer_weights + t["vocab_size"] * t["hidden_size"] + rows * (self.prefix + self.tail))

    def seconds(self, gpu: Gpu, *, steps: int, naive: bool = False, floor: bool = False) -> float:
        """``steps``: passes over the weights after the question; ``naive``: both images are read for each part.

        ``floor``: at the peaks, with nothing between the kernels.
        """
        images = 2 if naive else 1
        new, past = (self.prefix + self.tail, 0) if naive else (self.tail, self.prefix)
        vision, prefill = images * self.vision_flops / gpu.flops, self.prefill_flops(new, past) / gpu.flops
        decode = steps * self.step_bytes / gpu.bandwidth
        if floor:
            return vision + prefill + decode
        decode = decode / gpu.bandwidth_share + steps * gpu.step_s
        return vision / gpu.vision_share + prefill / gpu.prefill_share + decode + gpu.call_s
