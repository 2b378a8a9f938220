from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from differad_edge.geometry import tight_box
from differad_edge.images import load_image
from differad_edge.pairs import load_pairs
from training.synth_cli import main

ROOT = Path(__file__).resolve().parents[3]


def write_images(folder: Path, count: int, *, side: int = 80, suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (side, side + 10, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.{suffix}"), cv2.GaussianBlur(noise, (0, 0), 1.5))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 6)


def run(images: Path, out: Path, *more: str, n: int = 24, seed: int = 3) -> int:
    return main([str(images), str(out), "--n", str(n), "--seed", str(seed), "--size", "64", *more])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_result_is_a_pair_set(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(images, out, n=60) == 0
    loaded = load_pairs(out)
    assert loaded.name == "synthetic"
    assert len(loaded.pairs) == 60
    assert {pair.label for pair in loaded.pairs} == {"OK", "NG"}
    for pair in loaded.pairs:
        assert pair.product == "images"
        reference, target = load_image(pair.reference), load_image(pair.target)
        assert reference.shape == target.shape == (64, 64, 3)
        if pair.label == "OK":
            assert pair.mask is None
            assert pair.description == "No difference."
            assert np.array_equal(reference, target)
        else:
            assert pair.mask is not None
            mask = load_image(pair.mask)
            assert set(np.unique(mask)) == {0, 255}
            assert pair.boxes == (tight_box(mask[..., 0] > 0),)
            assert pair.defect_types == ("foreign_texture",)
            box = pair.boxes[0]
            assert pair.description is not None
            assert pair.description.startswith("A patch of foreign texture at the ")
            assert f"{round(box.width)}x{round(box.height)} px" in pair.description
    captured = capsys.readouterr()
    assert "60 pairs" in captured.out
    assert captured.err == "textures: the other images of IMAGES\n"  # and no progress bar in a pipe


def test_every_image_takes_its_turn(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out", "--normal-share", "1", n=12)
    references = [load_image(pair.reference).tobytes() for pair in load_pairs(tmp_path / "out").pairs]
    assert len(set(references)) == 6
    assert references[:6] == references[6:]


def test_the_bytes_are_the_same_for_one_and_two_workers(images: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path / "one") == 0
    assert run(images, tmp_path / "two", "--workers", "2") == 0
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert run(images, tmp_path / "other", seed=4) == 0
    assert bytes_of(tmp_path / "other")["pairs.jsonl"] != bytes_of(tmp_path / "one")["pairs.jsonl"]


def test_half_of_the_files_gone_are_made_again(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "whole")
    run(images, tmp_path / "out")
    for path in sorted((tmp_path / "out/target").iterdir())[::2]:
        path.unlink()
    (tmp_path / "out/pairs.jsonl").unlink()
    assert run(images, tmp_path / "out") == 0
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_a_killed_run_goes_on_where_it_was(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "training.synth", str(images), str(out), "--n", "400", "--seed", "3"]
    command += ["--size", "256", "--workers", "2"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline_s = time.monotonic() + 60
        journal = out / ".progress/journal.jsonl"
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 30):
            assert time.monotonic() < deadline_s
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (out / "pairs.jsonl").exists()
    gone_s = time.monotonic() + 20  # the workers notice that their parent is gone
    while _alive(process.pid):
        assert time.monotonic() < gone_s
        time.sleep(0.05)
    done = journal.read_bytes().count(b"\n")
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    resumed = int(again.stdout.split(" from an earlier run")[0].rpartition(" ")[2])
    assert done - 1 <= resumed <= done
    command[4] = str(tmp_path / "whole")
    subprocess.run([*command[:-1], "1"], cwd=ROOT, capture_output=True, check=True)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_stopped_command_says_how_to_go_on(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.synth_cli.run_batch", stop)
    assert run(images, tmp_path / "out") == 128 + signal.SIGINT
    assert "the same command goes on" in capsys.readouterr().err


def test_textures_of_a_folder_are_planted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, textures = tmp_path / "images", tmp_path / "textures"
    for folder, grey in ((images, 20), (textures, 200)):
        folder.mkdir()
        for number in range(2):
            cv2.imwrite(str(folder / f"{number}.png"), np.full((64, 64, 3), grey + number, np.uint8))
    assert run(images, tmp_path / "out", "--textures", str(textures), n=10) == 0
    assert "textures: 2 images of" in capsys.readouterr().err
    for pair in load_pairs(tmp_path / "out").pairs:
        if pair.mask is not None:
            changed = np.abs(load_image(pair.target).astype(int) - load_image(pair.reference)).max(axis=2)
            assert changed[load_image(pair.mask)[..., 0] > 0].mean() > 2  # JPEG keeps most of the smallest change


def test_a_single_image_gets_generated_textures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_images(tmp_path / "images", 1), tmp_path / "out", n=12) == 0
    assert "textures: generated" in capsys.readouterr().err
    assert {pair.label for pair in load_pairs(tmp_path / "out").pairs} == {"OK", "NG"}


def test_the_folder_names_the_product(tmp_path: Path) -> None:
    write_images(tmp_path / "images/bottle/good", 2)
    write_images(tmp_path / "images/screw", 2, suffix="jpg")
    write_images(tmp_path / "images/.hidden", 2)
    assert run(tmp_path / "images", tmp_path / "out", n=12) == 0
    assert {pair.product for pair in load_pairs(tmp_path / "out").pairs} == {"bottle", "screw"}


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    assert run(write_images(tmp_path / "images", 2, suffix=suffix), tmp_path / "out", n=2) == 0


def test_one_bad_image_is_passed_over_and_named(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "003.png").write_bytes((images / "003.png").read_bytes()[:200])
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, workers in zip(outs, ("1", "2"), strict=True):
        assert run(images, out, "--workers", workers) == 0
        assert len(load_pairs(out).pairs) == 24
        error = capsys.readouterr().err
        assert "1 bad source files were passed over" in error
        assert "003.png" in error
    assert bytes_of(outs[0]) == bytes_of(outs[1])


def test_more_than_one_in_a_hundred_bad_ends_the_run(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("001.png", "004.png"):
        (images / name).write_bytes(b"no image")
    assert run(images, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "2 of 6 source files are bad, allowed: 1%" in error
    assert "001.png" in error
    assert "004.png" in error


def _one_line(captured: str) -> str:
    lines = [line for line in captured.splitlines() if not line.startswith("textures:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--n", "0"), "--n: got 0, allowed: an integer from 1"),
        (("--seed", "-1"), "--seed: got -1"),
        (("--workers", "0"), "--workers: got 0"),
        (("--size", "8"), "--size: got 8"),
        (("--normal-share", "1.1"), "--normal-share: got 1.1"),
        (("--textures", "nowhere"), "--textures: got nowhere, which does not exist"),
    ],
)
def test_bad_numbers_give_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    assert run(images, tmp_path / "out", *more) == 2
    assert message in _one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["missing", "a file", "empty", "no images"])
def test_bad_image_folders_give_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    folder = tmp_path / "images"
    if case == "a file":
        folder.write_text("x")
    elif case != "missing":
        folder.mkdir()
    if case == "no images":
        (folder / "notes.txt").write_text("x")
    assert run(folder, tmp_path / "out") == 2
    expected = {"missing": "does not exist", "a file": "is no folder"}.get(case, "holds no image")
    assert expected in _one_line(capsys.readouterr().err)


def test_out_with_other_content_or_within_the_images_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    assert run(images, out) == 2
    assert "OUT: got" in _one_line(capsys.readouterr().err)
    assert bytes_of(out) == {"letter.txt": b"dear"}
    assert run(images, images / "out") == 2
    assert "which lies in IMAGES" in _one_line(capsys.readouterr().err)


def test_another_configuration_or_no_resume_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(images, tmp_path / "out", n=3) == 0
    capsys.readouterr()
    assert run(images, tmp_path / "out", n=3, seed=9) == 2
    assert "seed was 3 and is 9" in _one_line(capsys.readouterr().err)
    assert run(images, tmp_path / "out", "--no-resume", n=3) == 2
    assert "holds a run" in _one_line(capsys.readouterr().err)
    assert run(images, tmp_path / "out", n=3) == 0


@pytest.mark.parametrize("argv", [[], ["images"], ["images", "out", "--n", "many", "--seed", "1"]])
def test_unreadable_arguments_give_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert _one_line(capsys.readouterr().err).startswith("error: ")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_leaves_the_same_bytes(images: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path / "here") == 0
    assert run(images, tmp_path / "there", "--ray", "local") == 0
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_ray_cluster_that_is_not_there_gives_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(images, tmp_path / "out", "--ray", "127.0.0.1:1") == 2
    assert "--ray: got '127.0.0.1:1', where no Ray cluster answers" in capsys.readouterr().err
