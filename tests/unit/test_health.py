"""check_health and differad-edge doctor: everything that can be wrong is found, and only that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Pictures, run, use_engine
from fakes import PixelEngine, ScriptedEngine, answers, nothing_found

import differad_edge.health as health
from differad_edge.engines.base import Candidate
from differad_edge.errors import MissingSystemPackageError, ModelIntegrityError
from differad_edge.health import Check, Status, check_health
from differad_edge.results import Box


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def calibrated(pictures: Pictures) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_engine(monkeypatch)
        run("register", "board", pictures.golden, "--store", pictures.store)
        run("calibrate", "board", pictures.good_folder, "--store", pictures.store)
    return pictures.store


@pytest.fixture
def store(calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the product "board", calibrated."""
    use_engine(monkeypatch)
    shutil.copytree(calibrated, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A small smoke pair, which is drawn quickly, unless it is for the shipped model."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(health, "_SMOKE_SIZE_PX", 240)


def found(store: Path) -> dict[str, Check]:
    return {check.name: check for check in check_health(store)}


def failed(store: Path) -> set[str]:
    return {name for name, check in found(store).items() if check.status is Status.FAILED}


def test_all_is_in_order(store: Path) -> None:
    checks = found(store)
    for kind in ("basler", "aravis"):
        assert checks.pop(f"cameras {kind}").status in (Status.OK, Status.NOTE)
    assert list(checks) == [
        "versions", "extra line", "extra web", "engine", "cores", "store", "smoke pair, good",
        "smoke pair, bad", "product board"
    ]  # fmt: skip
    assert {check.status for check in checks.values()} == {Status.OK}
    assert "calibrated on 4 good parts" in checks["product board"].detail


def test_the_command_says_so_and_ends_with_0(store: Path) -> None:
    shown = run("doctor", "--store", store)
    assert (shown.code, shown.err) == (0, "")
    assert "All is in order." in shown.out
    assert "smoke pair, bad" in shown.out


def test_json_is_one_object_and_nothing_else(store: Path) -> None:
    shown = run("doctor", "--store", store, "--json", "-")
    assert (shown.code, shown.err) == (0, "")
    report = json.loads(shown.out)
    assert report["ok"] is True
    assert {"name", "status", "detail"} == set(report["checks"][0])


def test_a_store_that_does_not_exist_yet_is_fine_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine(monkeypatch)
    assert failed(tmp_path / "none") == set()
    assert not (tmp_path / "none").exists()


def test_industrial_cameras_are_named_or_what_they_need(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(kind: str) -> list[str]:
        if kind == "basler":
            return ["40012345", "40012346"]
        raise MissingSystemPackageError("Aravis 0.8", "apt-get install gir1.2-aravis-0.8")

    monkeypatch.setattr(health, "connected", connected)
    checks = found(store)
    assert checks["cameras basler"].detail == "connected: 40012345, 40012346"
    assert checks["cameras aravis"].status is Status.NOTE
    assert checks["cameras aravis"].detail.endswith("install it with: apt-get install gir1.2-aravis-0.8")
    monkeypatch.setattr(health, "connected", lambda kind: [])
    assert found(store)["cameras basler"] == Check("cameras basler", Status.OK, "none is connected")


def test_an_uncalibrated_product_is_a_note(pictures: Pictures, store: Path) -> None:
    run("register", "board", pictures.golden, "--store", store)
    assert found(store)["product board"].status is Status.NOTE
    assert run("doctor", "--store", store).code == 0


def test_a_corrupt_product_is_found_and_the_others_are_still_checked(pictures: Pictures, store: Path) -> None:
    run("register", "aged", pictures.golden, "--store", store)
    (damaged,) = (store / "aged" / "v000001").glob("*.png")
    damaged.write_bytes(b"")
    checks = found(store)
    assert checks["product aged"].status is Status.FAILED
    assert checks["product aged"].detail.startswith("corrupt-reference: ")
    assert checks["product board"].status is Status.OK
    shown = run("doctor", "--store", store)
    assert shown.code == 1
    assert "1 of 12 checks failed." in shown.out


def test_a_calibration_of_another_engine_is_found(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch, PixelEngine("3" * 64))
    assert failed(store) == {"product board"}
    assert "calibrate again" in found(store)["product board"].detail


def test_a_damaged_model_is_found(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(name: str, threads: int | None = None) -> None:
        raise ModelIntegrityError("lite-encode.onnx: got SHA-256 00, allowed: 11; install again")

    monkeypatch.setattr(health, "create_engine", damaged)
    assert failed(store) == {"engine"}
    assert found(store)["engine"].detail.startswith("model-integrity: lite-encode.onnx")


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        (lambda: ScriptedEngine(nothing_found), {"smoke pair, bad"}),  # passes everything
        (
            lambda: ScriptedEngine(answers(0.9, Candidate(Box(0, 0, 20, 20), 0.9))),
            {"smoke pair, good", "smoke pair, bad", "product board"},
        ),  # rejects everything, in the wrong place
        (lambda: ScriptedEngine(answers(float("nan"))), {"smoke pair, good", "smoke pair, bad", "product board"}),
    ],
    ids=["blind", "alarmist", "nan"],
)
def test_an_engine_that_answers_garbage_is_found(
    store: Path, monkeypatch: pytest.MonkeyPatch, engine: Callable[[], ScriptedEngine], names: set[str]
) -> None:
    built = use_engine(monkeypatch, engine())
    assert isinstance(built, ScriptedEngine)
    built.fingerprint = PixelEngine().fingerprint  # so that the calibration is not what fails
    assert failed(store) == names


def test_twin_opencv_distributions_are_found(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_opencv_distributions", lambda: ["opencv-python", "opencv-python-headless"])
    assert failed(store) == {"versions"}
    assert "uninstall all and install one" in found(store)["versions"].detail


def test_a_store_on_a_full_disk_is_found(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MIN_FREE_BYTES", 10**18)
    assert failed(store) == {"store"}


def test_a_store_that_is_a_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch)
    (tmp_path / "file").write_text("no folder")
    assert "store" in failed(tmp_path / "file")


@pytest.mark.slow
def test_the_shipped_model_is_healthy(tmp_path: Path) -> None:
    assert failed(tmp_path) == set()
