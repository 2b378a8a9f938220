"""What the stages of an export take in, by its manifest: a graph of other sizes or another type is another model's.

See export/stages.py, which writes them.
"""

from __future__ import annotations

from typing import Any

from differad_edge.engines.vlm.exported import Exported, Manifest, StageName
from differad_edge.errors import ModelIntegrityError

__all__ = ["check_graph"]

Tensor = tuple[tuple[int, ...], str]
"""Shape, and type as ONNX Runtime names it."""


def check_graph(exported: Exported, stage: StageName, session: Any) -> None:
    """Compare what a session of ONNX Runtime takes in with the manifest. Raises ModelIntegrityError."""
    found = {one.name: (tuple(one.shape), one.type) for one in session.get_inputs()}
    if stage == "prefix":  # the only sizes that no stage takes in
        found |= {one.name: (tuple(one.shape), one.type) for one in session.get_outputs()}
    wanted = _tensors_of(exported.manifest, stage)
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            got, allowed = (_shown(some.get(name)) for some in (found, wanted))
            where = f"{exported.folder}: stage {stage}: {name}"
            raise ModelIntegrityError(f"{where}: got {got}, allowed: {allowed} as the manifest says")


def _tensors_of(manifest: Manifest, stage: StageName) -> dict[str, Tensor]:
    shape, layout = manifest.shape, manifest.question.to_question().layout
    size = layout.size
    wide, kept = "tensor(float)", "tensor(float16)" if manifest.precision == "float16" else "tensor(float)"
    if stage == "vision":
        return {"image": ((size.height_px, size.width_px, 3), "tensor(uint8)")}
    if stage == "head":
        return {"hidden": ((1, shape.width), wide)}
    names = [f"{kind}_{layer}" for layer in range(shape.layers) for kind in ("keys", "values")]
    features: dict[str, Tensor] = {
        "features": ((size.tokens, shape.width), kept),
        "deep": ((shape.deep_levels, size.tokens, shape.width), kept),
    }
    if stage == "prefix":
        made = ((1, shape.kv_heads, layout.prefix_length, shape.head_dim), kept)
        return features | {f"{name}_out": made for name in names}
    buffers = dict.fromkeys(names, ((1, shape.kv_heads, layout.capacity, shape.head_dim), kept))
    if stage == "tail":
        return features | buffers
    count = 1 if stage == "step" else manifest.jump
    return {"x": ((count, shape.width), wide), "start": ((1,), "tensor(int64)"), **buffers}


def _shown(one: Tensor | None) -> str:
    return "none" if one is None else f"{one[0]} {one[1]}"
