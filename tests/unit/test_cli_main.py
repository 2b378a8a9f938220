"""The command line as a whole: what it loads, what it offers, how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run

from differad_edge import __version__
from differad_edge.cli._errors import guarded
from differad_edge.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = ["demo", "register", "products", "calibrate", "inspect", "evaluate", "bench", "doctor"]


def test_help_loads_nothing_that_inspection_needs() -> None:
    code = (
        "import sys, json\nfrom differad_edge.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\nprint(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded & {"numpy", "cv2", "onnxruntime", "pydantic", "yaml", "torch"} == set()


def test_help_names_every_command() -> None:
    shown = run("--help")
    assert shown.code == 0
    for name in COMMANDS:
        assert f" {name} " in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    shown = run(command, "--help")
    assert shown.code == 0
    assert len(shown.out) > 200


def test_version() -> None:
    shown = run("--version")
    assert (shown.code, shown.out) == (0, f"differad-edge {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["inspect"],
        ["inspect", "a.png", "b.png", "--colour"],
        ["register", "gasket"],
        ["calibrate", "gasket"],
        ["evaluate"],
        ["bench", "--size", "large"],
        ["demo", "--seed", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_leaves_standard_output_empty(arguments: list[str]) -> None:
    shown = run(*arguments)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "differad_edge", "--version"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == f"differad-edge {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--json", "-"]], ids=["words", "json"])
def test_names_that_standard_output_cannot_say_are_no_fault(tmp_path: Path, arguments: list[str]) -> None:
    store = tmp_path / "prüf\u4e2d"
    store.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "differad_edge", "products", "--store", str(store), *arguments],
        capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    if arguments:
        assert json.loads(done.stdout)["store"] == str(store)
    else:
        assert b"pr\\xfcf\\u4e2d" in done.stdout


class TestGuard:
    def test_an_error_of_several_lines_is_said_in_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        def command() -> None:
            raise ConfigError("first\nsecond")

        with pytest.raises(Exception) as caught:  # noqa: PT011  # typer's Exit, which has no public base
            guarded(command)()
        assert caught.value.exit_code == 2  # type: ignore[attr-defined]
        assert capsys.readouterr().err == "error [invalid-config]: first; second\n"

    def test_a_fault_of_the_program_is_no_verdict(self, capsys: pytest.CaptureFixture[str]) -> None:
        def command() -> None:
            raise KeyError("lost")

        with pytest.raises(Exception) as caught:  # noqa: PT011
            guarded(command)()
        assert caught.value.exit_code == 3  # type: ignore[attr-defined]
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("error [internal]: KeyError: 'lost'")

    def test_a_reader_that_has_left_is_no_fault(self) -> None:
        def command() -> None:
            raise BrokenPipeError(32, "Broken pipe")

        with pytest.raises(BrokenPipeError):
            guarded(command)()
