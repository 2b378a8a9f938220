"""differad-edge demo: the story from beginning to end, and the pictures it leaves."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Pictures, run, save, use_engine

import differad_edge.cli._demo_line as demo_line
import differad_edge.cli._demo_run as demo_run
from differad_edge.cli._sheet import Block, Tile, draw_card, draw_sheet
from differad_edge.references import ReferenceStore
from differad_edge.results import Box, Verdict


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts, few of them, and an engine that needs no model."""
    use_engine(monkeypatch)
    monkeypatch.setattr(demo_line, "SIZE_PX", 160)
    monkeypatch.setattr(demo_line, "PARTS_EACH", 3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(tmp_path_factory.mktemp("pictures"))


@pytest.mark.usefixtures("small")
class TestStory:
    def test_it_registers_inspects_and_says_what_to_try_next(self, tmp_path: Path) -> None:
        shown = run("demo", "--out", tmp_path / "demo")
        assert (shown.code, shown.err) == (0, "")
        assert re.search(r"\d of 3 defects found.*\d of 6 good parts rejected, \d+ ms a part", shown.out)
        for part in ("gasket-01", "board-03", "label-02"):
            assert part in shown.out
        for words in ("Look at:", "sheet.png", "Try next:", "inspect --product", "demo FOLDER", "register NAME"):
            assert words in shown.out
        assert ReferenceStore(tmp_path / "demo" / "store").product_ids() == ("board", "gasket", "label")
        assert len(list((tmp_path / "demo" / "parts").iterdir())) == 12

    def test_the_command_it_suggests_works(self, tmp_path: Path) -> None:
        shown = run("demo", "--out", tmp_path / "demo")
        (line,) = [line for line in shown.out.splitlines() if " inspect --product " in line]
        arguments = line.split(" inspect ")[1].split()
        arguments[arguments.index("part.png")] = str(tmp_path / "part.png")
        assert run("inspect", *arguments).code in (0, 1)
        assert (tmp_path / "part.png").is_file()

    def test_the_pictures_can_be_opened(self, tmp_path: Path) -> None:
        run("demo", "--out", tmp_path)
        sheet, card = cv2.imread(str(tmp_path / "sheet.png")), cv2.imread(str(tmp_path / "readme.jpg"))
        assert sheet is not None
        assert card is not None
        assert sheet.shape[1] > 1500
        assert card.shape[1] < 1200

    def test_it_can_be_run_again_in_the_same_place(self, tmp_path: Path) -> None:
        assert run("demo", "--out", tmp_path).code == 0
        assert run("demo", "--out", tmp_path, "--seed", "1").code == 0

    def test_the_same_seed_shows_the_same_parts(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            run("demo", "--out", tmp_path / name)
        for file in (tmp_path / "a" / "parts").iterdir():
            assert file.read_bytes() == (tmp_path / "b" / "parts" / file.name).read_bytes()


@pytest.mark.usefixtures("small")
class TestFolder:
    def test_own_images_are_compared_with_the_golden_one(self, pictures: Pictures, tmp_path: Path) -> None:
        own = tmp_path / "own"
        for name, file in (("a.png", pictures.good[0]), ("b.png", pictures.bad), ("golden-1.png", pictures.golden)):
            save(own / name, cv2.imread(str(file)))
        (own / "broken.png").write_text("hello")
        (own / "notes.txt").write_text("no image")
        shown = run("demo", own, "--out", tmp_path / "demo")
        assert (shown.code, shown.err) == (0, "")
        words = shown.out[shown.out.index("Your images, compared with golden-1.png") :]
        assert re.search(r"a\.png +OK", words)
        assert re.search(r"b\.png +NG", words)
        assert re.search(r"broken\.png +ERROR +undecodable-image", words)
        assert "notes.txt" not in words
        assert (tmp_path / "demo" / "your-images.png").is_file()

    @pytest.mark.parametrize(
        ("names", "golden"),
        [
            (["b.png", "a.jpg", "c.png"], "a.jpg"),
            (["a.png", "Reference.bmp"], "Reference.bmp"),
            (["a.png", "golden.png", "reference.png"], "golden.png"),
        ],
    )
    def test_which_image_is_the_golden_sample(self, tmp_path: Path, names: list[str], golden: str) -> None:
        for name in names:
            save(tmp_path / name, np.full((32, 32, 3), 90, np.uint8))
        chosen, parts = demo_run.find_golden(tmp_path)
        assert chosen.name == golden
        assert sorted(file.name for file in parts) == sorted(set(names) - {golden})

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            ([], "folder '{own}': got no images, allowed: images (.png"),
            (["a.png"], "folder '{own}': got 1 image, allowed: at least 2"),
            (None, "folder: got '{own}', allowed: a folder with a golden sample and parts"),
        ],
    )
    def test_a_folder_that_cannot_be_used_is_named_before_anything_is_done(
        self, pictures: Pictures, tmp_path: Path, make: list[str] | None, message: str
    ) -> None:
        own = tmp_path / "own"
        if make is not None:
            own.mkdir()
            for name in make:
                save(own / name, cv2.imread(str(pictures.golden)))
        shown = run("demo", own, "--out", tmp_path / "demo")
        assert (shown.code, shown.out) == (2, "")
        assert shown.error.startswith(f"error [undecodable-image]: {message.format(own=own)}")
        assert not (tmp_path / "demo").exists()

    def test_an_output_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        shown = run("demo", "--out", tmp_path / "file")
        assert shown.code == 2
        assert shown.error.startswith("error [invalid-config]: --out: ")


class TestSheet:
    @pytest.fixture
    def tiles(self, tmp_path: Path) -> list[Tile]:
        rng = np.random.default_rng(0)
        shapes = [(40, 40), (300, 200), (90, 700), (1200, 1200)]
        verdicts = list(Verdict)
        tiles = []
        for index, (height, width) in enumerate(shapes):
            file = save(tmp_path / f"{index}.png", rng.integers(0, 255, (height, width, 3), np.uint8))
            boxes = (Box(0, 0, 5, 5), Box(width - 3, height - 3, width, height)) if index != 1 else ()
            note = "a very long remark that goes on and on " * (index + 1)
            tiles.append(Tile(file, "title " * 20, verdicts[index], 0.5, boxes, note, missed=(Box(1, 1, 9, 9),)))
        return tiles

    @pytest.mark.parametrize("count", [0, 1, 4, 13])
    def test_any_number_of_parts_of_any_shape_fit(self, tiles: list[Tile], count: int) -> None:
        golden = np.full((50, 80, 3), 60, np.uint8)
        chosen = tuple((tiles * 4)[:count])
        sheet = draw_sheet("title", "subtitle", [Block("one", golden, chosen), Block("two", golden, chosen)])
        assert sheet.dtype == np.uint8
        assert sheet.shape[2] == 3
        taller = draw_sheet("title", "subtitle", [Block("one", golden, (*chosen, *tiles * 4))])
        assert taller.shape[0] > draw_sheet("title", "subtitle", [Block("one", golden, chosen)]).shape[0]

    def test_the_verdicts_differ_in_colour(self, tiles: list[Tile]) -> None:
        golden = np.full((50, 80, 3), 60, np.uint8)
        pictures = [draw_card([(golden, tile)]) for tile in tiles]
        edges = {tuple(int(v) for v in picture[-150, 21]) for picture in pictures}
        assert len(edges) == len(tiles)


@pytest.mark.slow
def test_the_shipped_model_tells_a_good_story(tmp_path: Path) -> None:
    shown = run("demo", "--out", tmp_path)
    assert shown.code == 0
    found = re.search(r"(\d+) of (\d+) defects found.*?(\d+) of (\d+) good parts rejected", shown.out)
    assert found is not None
    defects_found, defects, alarms, good = map(int, found.groups())
    assert (defects, good) == (8, 16)
    assert defects_found >= 7
    assert alarms <= 1
