"""differad-edge inspect: exit codes, what goes where, and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import DEFECT, Pictures, run, save, use_engine
from fakes import ScriptedEngine, raises

from differad_edge.geometry import iou
from differad_edge.results import Box


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch)


@pytest.mark.usefixtures("pixel")
class TestPair:
    def test_a_good_part_is_0(self, pictures: Pictures) -> None:
        shown = run("inspect", pictures.golden, pictures.good[0])
        assert (shown.code, shown.err) == (0, "")
        assert shown.out.startswith("OK  score 0.")

    def test_a_bad_part_is_1_and_its_place_is_shown(self, pictures: Pictures) -> None:
        shown = run("inspect", pictures.golden, pictures.bad)
        assert (shown.code, shown.err) == (1, "")
        assert shown.out.startswith("NG  score ")
        assert "extra round difference" in shown.out

    def test_a_frame_that_shows_nothing_is_3(self, pictures: Pictures) -> None:
        shown = run("inspect", pictures.golden, pictures.black)
        assert shown.code == 3
        assert shown.out.startswith("UNDECIDED")
        assert "bad-frame: black" in shown.out

    def test_json_on_standard_output_is_one_object_and_nothing_else(self, pictures: Pictures) -> None:
        shown = run("inspect", pictures.golden, pictures.bad, "--json", "-")
        assert (shown.code, shown.err) == (1, "")
        result = json.loads(shown.out)
        assert (result["schema_version"], result["verdict"]) == (1, "NG")
        assert iou(Box(*result["findings"][0]["box"]), DEFECT) > 0.5

    def test_json_in_a_file_leaves_the_words_on_standard_output(self, pictures: Pictures, tmp_path: Path) -> None:
        shown = run("inspect", pictures.golden, pictures.good[0], "--json", tmp_path / "result.json")
        assert json.loads((tmp_path / "result.json").read_text())["verdict"] == "OK"
        assert shown.out.startswith("OK")
        assert [file.name for file in tmp_path.iterdir()] == ["result.json"]

    @pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp"])
    def test_the_overlay_has_the_size_of_the_part(self, pictures: Pictures, tmp_path: Path, suffix: str) -> None:
        file = tmp_path / f"overlay{suffix}"
        assert run("inspect", pictures.golden, pictures.bad, "--out", file).code == 1
        drawn, part = cv2.imread(str(file)), cv2.imread(str(pictures.bad))
        assert drawn is not None
        assert part is not None
        assert drawn.shape == part.shape
        assert not np.array_equal(drawn, part)

    def test_a_deadline_that_is_long_enough_changes_nothing(self, pictures: Pictures) -> None:
        assert run("inspect", pictures.golden, pictures.good[0], "--deadline-ms", "30000").code == 0

    def test_a_deadline_that_has_passed_is_3(self, pictures: Pictures) -> None:
        shown = run("inspect", pictures.golden, pictures.good[0], "--deadline-ms", "0", "--json", "-")
        assert shown.code == 3
        assert json.loads(shown.out)["reason"] == "deadline"


@pytest.mark.usefixtures("pixel")
class TestProduct:
    def test_a_registered_product_is_compared_with(self, pictures: Pictures, tmp_path: Path) -> None:
        assert run("register", "board", pictures.golden, "--store", tmp_path).code == 0
        shown = run("inspect", "--product", "board", pictures.bad, "--store", tmp_path, "--json", "-")
        assert shown.code == 1
        assert json.loads(shown.out)["reference_id"] == "board/ref-001"
        timely = run("inspect", "-p", "board", pictures.good[0], "--store", tmp_path, "--deadline-ms", "30000")
        assert timely.code == 0

    def test_an_unknown_one_is_named_with_those_that_are_known(self, pictures: Pictures, tmp_path: Path) -> None:
        assert run("register", "board", pictures.golden, "--store", tmp_path).code == 0
        shown = run("inspect", "--product", "bord", pictures.bad, "--store", tmp_path)
        assert (shown.code, shown.out) == (2, "")
        assert shown.error == "error [unknown-product]: product 'bord' is not registered; the store holds: board"


def test_an_engine_that_fails_is_3(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch, ScriptedEngine(raises(RuntimeError("out of memory"))))
    shown = run("inspect", pictures.golden, pictures.good[0], "--json", "-")
    assert shown.code == 3
    assert json.loads(shown.out)["reason"] == "engine-failure"


@pytest.mark.usefixtures("pixel")
class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["{golden}"], "error [invalid-config]: images: got 1, allowed: REF TARGET, or --product NAME TARGET"),
            (["{golden}", "{bad}", "{bad}"], "error [invalid-config]: images: got 3"),
            (["-p", "x", "{golden}", "{bad}"], "error [invalid-config]: images: got 2"),
            (["{golden}", "{folder}/none.png"], "error [undecodable-image]: target '{folder}/none.png': no such file"),
            (["{folder}/none.png", "{bad}"], "error [undecodable-image]: reference '{folder}/none.png': no such file"),
            (["{golden}", "{text}"], "error [undecodable-image]: target '{text}': got 5 bytes that are no image"),
            (["{golden}", "{tiny}"], "error [image-size]: target '{tiny}': got 8x8 px, allowed: sides of at least 16"),
            (["{golden}", "{bad}", "--deadline-ms", "-5"], "error [invalid-config]: deadline_ms: got -5.0, allowed"),
            (["{golden}", "{bad}", "--deadline-ms", "nan"], "error [invalid-config]: deadline_ms: got nan, allowed"),
            (["{golden}", "{bad}", "--out", "{folder}/o.svg"], "error [invalid-config]: --out: got '{folder}/o.svg'"),
            (["{golden}", "{bad}", "--out", "{folder}/no/o.png"], "error [invalid-config]: --out: got '{folder}/no/o"),
            (["{golden}", "{bad}", "--json", "{folder}"], "error [invalid-config]: --json: got the folder '{folder}'"),
            (["-p", "../x", "{bad}"], "error [invalid-product-id]: "),
            (["{golden}", "{bad}", "--threads", "0"], "error [invalid-config]: EdgeInspector: threads: got 0, allowed"),
        ],
    )
    def test_it_is_named_in_one_line(
        self, pictures: Pictures, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        text = tmp_path / "text.png"
        text.write_text("hello")
        tiny = save(tmp_path / "tiny.png", np.zeros((8, 8, 3), np.uint8))
        words = {"golden": pictures.golden, "bad": pictures.bad, "folder": tmp_path, "text": text, "tiny": tiny}
        shown = run("inspect", *(argument.format(**words) for argument in arguments), "--store", tmp_path / "store")
        assert (shown.code, shown.out) == (2, "")
        assert shown.error.startswith(message.format(**words))

    def test_no_result_is_written_then(self, pictures: Pictures, tmp_path: Path) -> None:
        out = tmp_path / "result.json"
        assert run("inspect", pictures.golden, tmp_path / "none.png", "--json", out).code == 2
        assert not out.exists()


def test_an_unknown_engine_is_named(pictures: Pictures) -> None:
    shown = run("inspect", pictures.golden, pictures.bad, "--engine", "heavy")
    assert shown.code == 2
    assert shown.error == "error [unknown-engine]: engine: got 'heavy', allowed: lite, vlm, remote, cascade"


@pytest.mark.slow
def test_the_shipped_model_inspects_a_pair_from_the_shell(tmp_path: Path) -> None:
    from differad_edge.cameras.simulated import SimulatedProduct

    source = SimulatedProduct("gasket", 320)
    bad = source.with_defect("missing hole")
    files = {"golden": source.golden(), "good": source.good(0), "bad": bad.image}
    for name, image in files.items():
        save(tmp_path / f"{name}.png", image)
    for name, code in (("good", 0), ("bad", 1)):
        command = [sys.executable, "-m", "differad_edge", "inspect", "golden.png", f"{name}.png", "--json", "-"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        result = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (code, "")
    assert iou(Box(*result["findings"][0]["box"]), bad.boxes[0]) > 0.3
