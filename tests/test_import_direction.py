"""Imports point one way.

The modules of differad_edge stand on levels; a module imports from its own level or below, and never in a circle.
Packages that are not core dependencies are imported only inside the modules named here. All imports count: at the top,
in functions, and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "differad_edge"

# From the bottom up. A name stands for a module, or for a package with all that it holds.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "results", "deadline", "deadline_worker", "drawing"}),
    frozenset({"geometry", "images", "image_header", "image_quality", "config", "machine"}),
    frozenset({"grounding", "prompts", "pairs", "references", "cameras", "outputs"}),
    frozenset({"engines", "scoring", "decide", "describe"}),
    frozenset({"ready", "inspection", "inspector", "export", "benchmarking", "health"})
    | frozenset({"evaluation", "evaluation_products", "evaluation_sheet"}),
    frozenset({"runtime"}),
    frozenset({"client", "web"}),
    frozenset({"cli", "__main__"}),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}

# Narrower than the level: these may import only what stands here (and their own package).
ONLY = {
    "decide": {"results", "errors", "deadline", "geometry", "engines.base"},
    "describe": {"results", "errors", "geometry", "images", "engines.base"},
    "scoring": {"results", "errors", "geometry"},
}

CORE = {"numpy", "cv2", "pydantic", "yaml"}
# Everything else, and the only modules that may import it.
CONFINED = {
    "typing_extensions": {"results", "inspector", "runtime", "client", "web"},
    "typer": {"cli"},
    "rich": {"cli"},
    "onnxruntime": {"engines", "export"},
    "onnx": {"export"},
    "onnxscript": {"export"},
    "torch": {"engines.vlm", "export"},
    "transformers": {"engines.vlm", "export"},
    "tokenizers": {"engines.vlm", "export"},
    "PIL": {"engines.vlm"},
    "safetensors": {"engines.vlm", "export"},
    "tensorrt": {"engines.vlm", "export.tensorrt"},
    "tensorrt_rtx": {"engines.vlm", "export.tensorrt"},
    "cuda": {"engines.vlm.cuda"},
    "pypylon": {"cameras.basler"},
    "harvesters": {"cameras.genicam"},
    "genicam": {"cameras.genicam"},
    "gi": {"cameras.aravis"},
    "zmq": {"runtime", "client"},
    "xxhash": {"runtime"},
    "prometheus_client": {"runtime.metrics"},
    "paho": {"outputs.broker"},
    "google": {"outputs.sparkplug.payload"},
    "asyncua": {"outputs.opcua"},
    "cryptography": {"outputs.opcua"},
    "pymodbus": {"outputs.modbus"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
}

# What the folders outside the package may import of this repository.
TRAINING_MAY = {"errors", "results", "geometry", "images", "grounding", "pairs", "scoring"}
# Recipes are read as configurations are, and a model is asked with the preprocessing that it was trained with.
TRAINING_MAY |= {"config", *(f"engines.vlm.{name}" for name in ("canvas", "checkpoint", "layout", "load", "tokens"))}
PUBLIC = {
    "client",
    "errors",
    "results",
    "images",
    "cameras",
    "pairs",
    "scoring",
    "evaluation",
    "benchmarking",
    "machine",
}
VLM = {"engines.base", "engines.vlm", "export"}
OUTSIDE = {
    "training": (TRAINING_MAY, {"training"}),
    # A student's own parts, as the engine runs them: what is trained around them must see the same numbers.
    "distill": (TRAINING_MAY | {"engines.chat", "engines.vlm", "evaluation", "machine"}, {"training", "distill"}),
    "ros": (PUBLIC, {"ros", "differad_edge_ros"}),
    "benchmarks": (
        PUBLIC | {"runtime", "evaluation_products", "geometry", "engines.appearance"} | VLM,
        {"benchmarks"},
    ),
}
# distill too: what it ships is judged the way it is used.
SEES_THE_PUBLIC_API = {"ros", "benchmarks", "distill"}
FOLDERS = {*OUTSIDE, "differad_edge_ros", "tests"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, root: Path) -> Iterator[str]:
    """Every module that a file imports, in full; for ``from x import y`` it is x.y where that is a module, else x."""
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                submodule = root.joinpath(*base.split("."), alias.name)
                is_module = submodule.with_suffix(".py").is_file() or submodule.is_dir()
                yield f"{base}.{alias.name}" if is_module else base
        elif isinstance(node, ast.Call) and _is_import_call(node.func) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and not name.value.startswith("."):
                yield name.value


def _is_import_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def short(module: str) -> str:
    """``differad_edge.engines.lite`` as ``engines.lite``; the package itself as the empty string."""
    return module.removeprefix(PACKAGE).lstrip(".")


def wrong_arrows(root: Path) -> list[str]:
    """A sentence for each import under ``root`` that runs the wrong way."""
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        module = module_name(path, root)
        targets = set(imports_of(path, root))
        graph[module] = {target for target in targets if within(target, {PACKAGE})} - {module}
        found += [f"{module} imports {target}: {why}" for target in sorted(targets) if (why := fault(module, target))]
    found += [f"circle: {' -> '.join(circle)}" for circle in circles(graph)]
    for folder, (may, own) in OUTSIDE.items():
        for path in sorted((root / folder).rglob("*.py")):
            for target in sorted(set(imports_of(path, root))):
                top = target.partition(".")[0]
                if (
                    top == PACKAGE
                    and not within(short(target), may)
                    and not (folder in SEES_THE_PUBLIC_API and target == PACKAGE)
                ):
                    found.append(f"{module_name(path, root)} imports {target}: {folder} may import only {sorted(may)}")
                if top in FOLDERS - own:
                    found.append(f"{module_name(path, root)} imports {target}: {folder} may import only {sorted(own)}")
    return found


def fault(module: str, target: str) -> str | None:
    """Why a module of the package may not import ``target``; None when it may."""
    source = short(module)
    top = target.partition(".")[0]
    if top in FOLDERS:
        return "nothing in the package imports what stands outside it"
    if top != PACKAGE:
        if top in sys.stdlib_module_names or top in CORE or within(source, CONFINED.get(top, set())):
            return None
        return f"{top} is confined to {sorted(CONFINED[top])}" if top in CONFINED else f"{top} is no dependency"
    aim = short(target)
    if not source or source == "__init__":
        return None  # the front door shows every room
    room, aimed_room = source.partition(".")[0], aim.partition(".")[0]
    if room not in LEVEL_OF:
        return f"{room} has no level: give it one in LEVELS"
    if not aim:
        if LEVEL_OF[room] >= LEVEL_OF["inspector"]:
            return None  # these stand behind the public API and may use it; the inspector itself would close a circle
        return "below the public API, import from the module that defines the name"
    if aimed_room not in LEVEL_OF:
        return f"{aimed_room} has no level: give it one in LEVELS"
    if room in ONLY and aimed_room != room and not within(aim, ONLY[room]):
        return f"{room} may import only {sorted(ONLY[room])}"
    if LEVEL_OF[aimed_room] > LEVEL_OF[room]:
        return f"{aimed_room} stands above {room}"
    return None


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """One circle for each set of modules that import each other, and none when there are none."""
    state: dict[str, int] = {}
    trail: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        state[module] = 1
        trail.append(module)
        for target in sorted(graph.get(module, ())):
            # The __init__ of a room shows what its modules define: that is no circle of ideas.
            if target != PACKAGE and module.startswith(target + "."):
                continue
            if state.get(target) == 1:
                yield [*trail[trail.index(target) :], target]
            elif target not in state:
                yield from visit(target)
        trail.pop()
        state[module] = 2

    for module in sorted(graph):
        if module not in state:
            yield from visit(module)


def test_imports_point_one_way() -> None:
    assert wrong_arrows(ROOT) == []


def test_every_level_name_is_given_once() -> None:
    assert sum(len(names) for names in LEVELS) == len(LEVEL_OF)


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in {f"{PACKAGE}/__init__.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"differad_edge/geometry.py": "from differad_edge import inspector", "differad_edge/inspector.py": ""},
            "above",
        ),
        ({"differad_edge/results.py": "def f():\n    import differad_edge.images"}, "images stands above results"),
        ({"differad_edge/results.py": "from .images import Image"}, "images stands above results"),
        (
            {
                "differad_edge/engines/base.py": "from ..inspector import EdgeInspector",
                "differad_edge/inspector.py": "",
            },
            "inspector stands above engines",
        ),
        ({"differad_edge/images.py": "if TYPE_CHECKING:\n    from differad_edge.cli import app"}, "cli stands above"),
        ({"differad_edge/runtime/line.py": "import differad_edge.web.page"}, "web stands above runtime"),
        ({"differad_edge/decide.py": "from differad_edge.references import store"}, "decide may import only"),
        ({"differad_edge/decide.py": "from differad_edge.engines.lite import LiteEngine"}, "decide may import only"),
        ({"differad_edge/pairs.py": "from differad_edge import Verdict"}, "from the module that defines the name"),
        (
            {
                "differad_edge/__init__.py": "from differad_edge.inspector import EdgeInspector",
                "differad_edge/inspector.py": "from differad_edge import __version__",
            },
            "circle: differad_edge -> differad_edge.inspector -> differad_edge",
        ),
        ({"differad_edge/helpers.py": "from differad_edge import errors"}, "helpers has no level"),
        ({"differad_edge/engines/lite.py": "import torch"}, "torch is confined to ['engines.vlm', 'export']"),
        ({"differad_edge/inspector.py": "import onnxruntime as ort"}, "onnxruntime is confined"),
        ({"differad_edge/cameras/base.py": "from pypylon import pylon"}, "pypylon is confined to ['cameras.basler']"),
        ({"differad_edge/inspector.py": "import importlib\nimportlib.import_module('torch')"}, "torch is confined"),
        ({"differad_edge/images.py": "import scipy.ndimage"}, "scipy is no dependency"),
        ({"differad_edge/engines/lite.py": "from distill.lite import network"}, "what stands outside it"),
        ({"differad_edge/inspector.py": "import training"}, "what stands outside it"),
        ({"training/grpo.py": "from differad_edge.inspector import EdgeInspector"}, "training may import only"),
        ({"training/grpo.py": "import distill.lite"}, "training may import only"),
        ({"distill/label.py": "import differad_edge.engines.base"}, "distill may import only"),
        ({"ros/differad_edge_ros/node.py": "from differad_edge.inspector import EdgeInspector"}, "ros may import only"),
        ({"benchmarks/latency.py": "import differad_edge.engines"}, "benchmarks may import only"),
        (
            {
                "differad_edge/errors.py": "from differad_edge.results import Box",
                "differad_edge/results.py": "from differad_edge.errors import BoxError",
            },
            "circle: differad_edge.errors -> differad_edge.results -> differad_edge.errors",
        ),
    ],
)
def test_a_planted_wrong_arrow_is_found(tmp_path: Path, files: dict[str, str], message: str) -> None:
    plant(tmp_path, files)
    arrows = wrong_arrows(tmp_path)
    assert len(arrows) == 1, arrows
    assert message in arrows[0]


def test_the_right_arrows_are_left_alone(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            f"{PACKAGE}/__init__.py": "from differad_edge.inspector import EdgeInspector",
            f"{PACKAGE}/geometry.py": "import math\nimport numpy as np\nfrom differad_edge.results import Box",
            f"{PACKAGE}/decide.py": "from differad_edge.engines.base import Evidence",
            f"{PACKAGE}/engines/__init__.py": "from differad_edge.engines.base import Evidence",
            f"{PACKAGE}/engines/lite.py": "import onnxruntime\nfrom .base import Evidence",
            f"{PACKAGE}/engines/vlm/torch_runner.py": "import torch, transformers",
            f"{PACKAGE}/inspector.py": "from differad_edge import decide\nfrom differad_edge.references.store import x",
            f"{PACKAGE}/cli/inspect.py": "import typer\nfrom differad_edge import EdgeInspector",
            "distill/lite/fit.py": "import torch\nfrom differad_edge.scoring import summarise\nimport training.synth",
            "ros/differad_edge_ros/node.py": "import rclpy\nfrom differad_edge import EdgeInspector",
            "benchmarks/latency.py": "from differad_edge import Verdict\nfrom differad_edge.pairs import load_pairs",
        },
    )
    assert wrong_arrows(tmp_path) == []
