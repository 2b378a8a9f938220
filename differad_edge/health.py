"""Whether everything that an inspection needs is in order on this machine. Each check is a sentence and a status."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import differad_edge
from differad_edge.cameras.present import INDUSTRIAL, connected
from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.engines import create_engine
from differad_edge.engines.base import ComparesAsItLies, Engine, Learning
from differad_edge.errors import DifferadError, MissingExtraError, MissingSystemPackageError
from differad_edge.geometry import iou
from differad_edge.inspector import EdgeInspector
from differad_edge.machine import describe_machine
from differad_edge.references import ReferenceStore
from differad_edge.results import Verdict

__all__ = ["Check", "Status", "check_health"]

MIN_OPENCV = 5
MIN_FREE_BYTES = 100_000_000

_SMOKE_SIZE_PX = 320


class Status(str, Enum):
    """NOTE is worth knowing and nothing to mend; only FAILED makes the whole unhealthy."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Check:
    """``name``: what was looked at; ``detail``: what was found, and how to mend it."""

    name: str
    status: Status
    detail: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON types."""
        return {"name": self.name, "status": self.status.value, "detail": self.detail}


def check_health(
    store: str | os.PathLike[str] | None = None, engine: str = "lite", *, threads: int | None = None
) -> Iterator[Check]:
    """Check versions, cameras, engine, cores, store, products, and that a good part is OK and a bad one NG.

    ``store``: as for EdgeInspector. Products get their features prepared when they are not yet; nothing else in the
    store changes. Never raises for what is wrong with the installation, the store or a product: that is a Check.
    """
    yield from _guarded("versions", _check_versions)
    yield from _guarded("extras", _check_extras)
    for kind in INDUSTRIAL:
        yield from _guarded(f"cameras {kind}", lambda: _check_cameras(kind))  # noqa: B023
    built: list[Engine] = []
    yield from _guarded("engine", lambda: _check_engine(engine, threads, built))
    yield from _guarded("cores", lambda: _check_cores(threads))
    yield from _guarded("store", lambda: _check_store(ReferenceStore(store)))
    if built:
        yield from _guarded("smoke pair", lambda: _check_smoke(built[0]))
        yield from _guarded("products", lambda: _check_products(store, built[0]))


_EXTRAS = {"line": ("zmq", "xxhash", "prometheus_client"), "web": ("fastapi", "uvicorn")}
_NEEDED_FOR = {"line": "serve, watch and the client", "web": "the dashboard"}


def _check_extras() -> Iterator[Check]:
    for extra, packages in _EXTRAS.items():
        missing = [package for package in packages if find_spec(package) is None]
        needs = f"{_NEEDED_FOR[extra]} need{'s' if extra == 'web' else ''}"
        if missing:
            detail = f"{needs} {', '.join(missing)}: pip install 'differad-edge[{extra}]'"
            yield Check(f"extra {extra}", Status.NOTE, detail)
        else:
            yield Check(f"extra {extra}", Status.OK, f"{needs} it; installed")


def _check_cameras(kind: str) -> Iterator[Check]:
    """What is connected of it; without its library that is worth knowing, and no fault of a line that has none."""
    try:
        there = connected(kind)
    except (MissingExtraError, MissingSystemPackageError) as error:
        yield Check(f"cameras {kind}", Status.NOTE, f"{kind}: sources need it: {error}")
    else:
        words = f"connected: {', '.join(there)}" if there else "none is connected"
        yield Check(f"cameras {kind}", Status.OK, words)


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """What ``check`` finds; an error of any kind is a failed check and does not keep the others from running."""
    try:
        yield from check()
    except DifferadError as error:
        yield Check(name, Status.FAILED, f"{error.code}: {error}")
    except Exception as error:  # a broken installation fails in ways that nobody listed
        yield Check(name, Status.FAILED, f"{type(error).__name__}: {error}")


def _check_versions() -> Iterator[Check]:
    machine = describe_machine()
    words = (
        f"differad-edge {differad_edge.__version__}, Python {machine['python']}, NumPy {machine['numpy']}, "
        f"OpenCV {machine['opencv']}, ONNX Runtime {machine['onnxruntime']}"
    )
    twins = _opencv_distributions()
    if len(twins) > 1:
        detail = f"{words}; {' and '.join(twins)} overwrite each other's files: uninstall all and install one"
        yield Check("versions", Status.FAILED, detail)
    elif not machine["opencv"] or int(machine["opencv"].partition(".")[0]) < MIN_OPENCV:
        yield Check("versions", Status.FAILED, f"{words}; OpenCV {MIN_OPENCV} or later is needed")
    else:
        yield Check("versions", Status.OK, words)


def _opencv_distributions() -> list[str]:
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
    return [name for name in names if _is_installed(name)]


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _check_engine(name: str, threads: int | None, built: list[Engine]) -> Iterator[Check]:
    engine = create_engine(name, threads=threads)  # its model files are checked against their SHA-256 here
    built.append(engine)
    detail = f"{engine.name}, fingerprint {engine.fingerprint[:16]}, threshold {engine.default_threshold:.3f}"
    yield Check("engine", Status.OK, f"{detail}; model files match their SHA-256")
    providers: Any = getattr(engine, "providers", None)
    if providers:
        gpus = describe_machine()["gpus"]
        words = ", ".join(providers)
        if gpus and all(provider == "CPUExecutionProvider" for provider in providers):
            yield Check("providers", Status.NOTE, f"{words}; {gpus[0]} is there and not used: install onnxruntime-gpu")
        else:
            yield Check("providers", Status.OK, words)


def _check_cores(threads: int | None) -> Iterator[Check]:
    machine = describe_machine()
    usable = machine["usable_cores"]
    words = f"{usable} of {machine['logical_cores']} cores usable, threads {threads or 'as the runtime chooses'}"
    if usable is not None and threads is not None and threads > usable:
        yield Check("cores", Status.NOTE, f"{words}; more threads than cores make it slower")
    else:
        yield Check("cores", Status.OK, words)


def _check_store(store: ReferenceStore) -> Iterator[Check]:
    root = store.root
    existing = root
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(existing).free
    except OSError as error:
        yield Check("store", Status.FAILED, f"{root}: cannot be written: {error.strerror or error}")
        return
    if free < MIN_FREE_BYTES:
        yield Check("store", Status.FAILED, f"{root}: only {free / 1e6:.0f} MB are free on its disk")
    elif existing != root:
        yield Check("store", Status.OK, f"{root} is made when the first product is registered")
    else:
        yield Check("store", Status.OK, f"{root}, {len(store.product_ids())} products")


def _check_smoke(engine: Engine) -> Iterator[Check]:
    """A good and a bad part that nobody can argue about, through the whole path; alike, and where good parts differ."""
    yield from _check_pair(engine, "smoke pair", "gasket", 1, "missing hole", 0.3)
    if isinstance(engine, ComparesAsItLies):
        yield from _check_pair(engine, "parts that differ", "felt", 5, "stain", 0.15)


def _check_pair(
    engine: Engine, name: str, product: str, good_parts: int, defect: str, least_iou: float
) -> Iterator[Check]:
    source = SimulatedProduct(product, _SMOKE_SIZE_PX)
    bad = source.with_defect(defect)
    with (
        tempfile.TemporaryDirectory(prefix="differad-doctor-") as folder,
        EdgeInspector(store=Path(folder), engine=engine) as inspector,
    ):
        inspector.register(product, [source.golden(), *(source.good(index) for index in range(1, good_parts))])
        good_result = inspector.inspect(source.good(0), product)
        bad_result = inspector.inspect(bad.image, product)
    good_words = f"a good part is {good_result.verdict} ({good_result.score:.3f})"
    good_status = Status.OK if good_result.verdict is Verdict.OK else Status.FAILED
    yield Check(f"{name}, good", good_status, f"{good_words}{_why(good_result.detail)}")
    found = bad_result.box is not None and any(iou(bad_result.box, box) > least_iou for box in bad.boxes)
    place = "" if bad_result.verdict is not Verdict.NG else ", found in its place" if found else ", in the wrong place"
    bad_status = Status.OK if bad_result.verdict is Verdict.NG and found else Status.FAILED
    words = f"a part with a {defect} is {bad_result.verdict} ({bad_result.score:.3f}){place}"
    yield Check(f"{name}, bad", bad_status, f"{words}{_why(bad_result.detail)}")


def _check_products(store: str | os.PathLike[str] | None, engine: Engine) -> Iterator[Check]:
    with EdgeInspector(store=store, engine=engine) as inspector:
        for product_id in inspector.store.product_ids():
            yield from _guarded(f"product {product_id}", lambda: _check_product(inspector, product_id))  # noqa: B023


def _check_product(inspector: EdgeInspector, product_id: str) -> Iterator[Check]:
    """Its files match their hashes, its calibration belongs to this engine, and its own golden sample is OK."""
    name = f"product {product_id}"
    product = inspector.store.load(product_id)
    calibration = product.calibration
    result, learning = inspector.warm_up(product_id), inspector.learning(product_id)
    if result.verdict is not Verdict.OK:
        detail = f"its own golden sample is {result.verdict} ({result.score:.3f}){_why(result.detail)}"
        yield Check(name, Status.FAILED, f"{detail}; register it again")
    elif calibration is None:
        yield Check(
            name, Status.NOTE, f"in order, not calibrated: it has the engine's own threshold{_learned(learning)}"
        )
    elif calibration.engine_fingerprint != inspector.engine.fingerprint:
        yield Check(
            name, Status.FAILED, "calibrated with another engine, so the engine's own threshold counts; calibrate again"
        )
    else:
        yield Check(name, Status.OK, f"in order, calibrated on {calibration.n} good parts{_learned(learning)}")


def _learned(learning: Learning | None) -> str:
    return "" if learning is None else f"; {learning.statement()}"


def _why(detail: str | None) -> str:
    return "" if detail is None else f": {detail}"
