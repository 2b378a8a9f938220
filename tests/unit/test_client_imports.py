"""A robot's computer has pyzmq and numpy, and perhaps nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ABSENT = ("cv2", "onnxruntime", "pydantic", "yaml", "typer", "rich", "torch", "fastapi", "xxhash", "prometheus_client")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_loads_neither_engine_nor_opencv() -> None:
    loaded = json.loads(run("import differad_edge.client, sys, json; print(json.dumps(sorted(sys.modules)))"))
    assert set(ABSENT) & set(loaded) == set()
    assert not [name for name in loaded if name.startswith(("differad_edge.engines", "differad_edge.inspector"))]


def test_the_client_packs_and_sends_an_image_without_them() -> None:
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in ABSENT)
    code = f"""
import sys
{blocked}
import numpy as np
from differad_edge.client import InspectionClient
from differad_edge.errors import NoAnswerError
with InspectionClient('tcp://127.0.0.1:1', timeout_ms=50) as client:
    try:
        client.inspect(np.zeros((32, 32, 3), np.uint8))
    except NoAnswerError:
        print('asked')
"""
    assert run(code).strip() == "asked"


def test_without_pyzmq_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules['zmq'] = None
from differad_edge.errors import MissingExtraError
try:
    import differad_edge.client
except MissingExtraError as error:
    print(error)
"""
    assert "pip install 'differad-edge[line]'" in run(code)
