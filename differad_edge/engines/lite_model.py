"""What the embedded engine is made of: its files, checked against their SHA-256, and ONNX Runtime's errors as ours."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from differad_edge.errors import ConfigError, DeadlineExceeded, EngineError, ModelIntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from differad_edge.deadline import Deadline
    from differad_edge.engines.heatmap import HeatmapRule

__all__ = [
    "COMPARE",
    "ENCODE",
    "Detail",
    "LiteModel",
    "choose_providers",
    "fingerprint_of",
    "onnx_errors",
    "read_model",
    "run_within",
]

MANIFEST, ENCODE, COMPARE = "lite.json", "lite-encode.onnx", "lite-compare.onnx"
_DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Detail:
    """At which resolution images are compared.

    Images of up to ``native_up_to_px`` a side are compared pixel by pixel, larger ones at ``reduced_scale`` (0.25 to
    1), which costs less time and the smallest defects; 1 compares every image at its own resolution.

    Raises ConfigError for a value that is not allowed.
    """

    native_up_to_px: int = 640
    reduced_scale: float = 0.75

    def __post_init__(self) -> None:
        if self.native_up_to_px < 0:
            raise ConfigError(f"native_up_to_px: got {self.native_up_to_px!r}, allowed: 0 or more")
        if not 0.25 <= self.reduced_scale <= 1:
            raise ConfigError(f"reduced_scale: got {self.reduced_scale!r}, allowed: 0.25 to 1")

    def work_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) px at which an image of ``width`` x ``height`` px is compared."""
        if max(width, height) <= self.native_up_to_px:
            return width, height
        return max(1, round(width * self.reduced_scale)), max(1, round(height * self.reduced_scale))


@dataclass(frozen=True)
class LiteModel:
    """The manifest, and the bytes of the graphs by file name."""

    input_multiple: int
    heat_stride_px: int
    scales: int
    default_threshold: float
    graphs: dict[str, bytes]


def read_model(folder: Path | None) -> LiteModel:
    """Read the model that is shipped (None), or the one in ``folder``. Raises ModelIntegrityError."""
    root = resources.files("differad_edge") / "models" if folder is None else folder
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        graphs = {name: (root / name).read_bytes() for name in (ENCODE, COMPARE)}
        for name, graph in graphs.items():
            found, wanted = hashlib.sha256(graph).hexdigest(), manifest["files"][name]["sha256"]
            if found != wanted:
                raise ModelIntegrityError(f"{name}: got SHA-256 {found}, allowed: {wanted}; install again")
        threshold = float(manifest.get("default_threshold", _DEFAULT_THRESHOLD))
        if not 0 < threshold < 1:  # NaN included: nothing would ever reach it
            raise ValueError(f"default_threshold is {threshold!r}, allowed: between 0 and 1")
        return LiteModel(
            input_multiple=int(manifest["input_multiple"]),
            heat_stride_px=int(manifest["heat_stride"]),
            scales=len(manifest["scales"]),
            default_threshold=threshold,
            graphs=graphs,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelIntegrityError(f"lite model in {root}: cannot be read: {error}; install again") from error


def choose_providers(runtime: Any, wanted: Sequence[str] | None) -> list[str]:
    """Execution providers in order of preference; None: CUDA where there is one, then the CPU. Raises EngineError."""
    available = runtime.get_available_providers()
    if wanted is None:
        return [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
    unknown = [p for p in wanted if p not in available]
    if unknown:
        raise EngineError(f"providers: got {unknown}, allowed with this ONNX Runtime: {available}")
    return list(wanted)


def fingerprint_of(graphs: Mapping[str, bytes], rule: HeatmapRule, detail: Detail) -> str:
    """SHA-256 over weights and settings, hex."""
    digest = hashlib.sha256(b"lite-2")
    for name in sorted(graphs):
        digest.update(hashlib.sha256(graphs[name]).digest())
    digest.update(json.dumps([asdict(rule), asdict(detail)], sort_keys=True).encode())
    return digest.hexdigest()


@contextmanager
def onnx_errors(action: str, *, stopped: Deadline | None = None) -> Iterator[None]:
    """Turn what ONNX Runtime raises into EngineError, or into DeadlineExceeded once ``stopped`` has expired."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's own classes have no public base
        if stopped is not None and stopped.expired:
            raise DeadlineExceeded(f"lite: the deadline of {stopped.budget_ms:g} ms has passed") from error
        raise EngineError(f"lite: could not {action}: {type(error).__name__}: {error}") from error


def run_within(session: Any, feeds: Mapping[str, Any], action: str, deadline: Deadline | None) -> list[Any]:
    """All outputs of ``session``; past the deadline ONNX Runtime is stopped between two layers.

    Raises DeadlineExceeded, EngineError.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    if deadline is None:
        with onnx_errors(action):
            return list(session.run(None, feeds, options))
    deadline.check()
    alarm = threading.Timer(deadline.remaining_ms / 1000, lambda: setattr(options, "terminate", True))
    alarm.daemon = True
    alarm.start()
    try:
        with onnx_errors(action, stopped=deadline):
            return list(session.run(None, feeds, options))
    finally:
        alarm.cancel()
