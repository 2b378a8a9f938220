"""differad-edge register, calibrate and products."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Pictures, run, save, use_engine
from fakes import ScriptedEngine, answers

from differad_edge.engines.base import Candidate
from differad_edge.references import ReferenceStore
from differad_edge.results import Box


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(autouse=True)
def pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


class TestRegister:
    def test_it_shows_what_it_stored_and_what_to_do_next(self, pictures: Pictures, store: Path) -> None:
        shown = run("register", "board", pictures.golden, "--store", store)
        assert (shown.code, shown.err) == (0, "")
        (reference,) = ReferenceStore(store).load("board").references
        for words in ("board, version 1", "golden.png", "320x240 px", reference.sha256[:16], "99 give 1 %"):
            assert words in shown.out
        assert f"differad-edge calibrate board --store {store} GOOD.png ..." in shown.out

    def test_several_images_and_a_region(self, pictures: Pictures, store: Path) -> None:
        shown = run("register", "board", pictures.golden, pictures.good[0], "--roi", "10,20,300,220", "--store", store)
        assert shown.code == 0
        assert [r.roi for r in ReferenceStore(store).load("board").references] == [(10, 20, 300, 220)] * 2

    def test_white_parts_of_the_mask_are_ignored(self, pictures: Pictures, store: Path, tmp_path: Path) -> None:
        mask = np.zeros((240, 320), np.uint8)
        mask[60:120, 80:150] = 255
        file = save(tmp_path / "mask.jpg", mask)  # JPEG leaves traces around: they are not meant
        shown = run("register", "board", pictures.golden, "--ignore", file, "--store", store)
        assert shown.code == 0
        ignore = ReferenceStore(store).load("board").references[0].ignore
        assert ignore is not None
        np.testing.assert_array_equal(ignore, mask > 0)
        assert f"{ignore.mean():.1%} of the image is ignored" in shown.out
        assert run("inspect", "-p", "board", pictures.bad, "--store", store).code == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["../x", "{golden}"], "error [invalid-product-id]: "),
            (["a", "{folder}/none.png"], "error [undecodable-image]: '{folder}/none.png': no such file or folder"),
            (["a", "{empty}"], "error [undecodable-image]: folder '{empty}': got no images, allowed: images (.png"),
            (["a", "{golden}", "{golden}"], "error [duplicate-reference]: "),
            (["a", "{golden}", "{small}"], "error [incompatible-reference]: "),
            (["a", "{black}"], "error [image-quality]: "),
            (["a", "{golden}", "--roi", "1,2,3"], "error [invalid-region]: --roi: got '1,2,3', allowed: four whole"),
            (["a", "{golden}", "--roi", "a,b,c,d"], "error [invalid-region]: --roi: got 'a,b,c,d', allowed: four"),
            (["a", "{golden}", "--roi", "0,0,999,99"], "error [invalid-region]: "),
            (["a", "{golden}", "--roi", "50,50,10,90"], "error [invalid-region]: "),
            (["a", "{golden}", "--ignore", "{small}"], "error [invalid-region]: "),
            (["a", "{golden}", "--ignore", "{folder}/no.png"], "error [undecodable-image]: ignore mask '{folder}/no"),
        ],
    )
    def test_bad_input_is_named_and_nothing_is_stored(
        self, pictures: Pictures, store: Path, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        small = save(tmp_path / "small.png", cv2.resize(cv2.imread(str(pictures.golden)), (160, 120)))
        words = {
            "golden": pictures.golden, "black": pictures.black, "folder": tmp_path, "empty": tmp_path / "empty",
            "small": small,
        }  # fmt: skip
        shown = run("register", *(argument.format(**words) for argument in arguments), "--store", store)
        assert (shown.code, shown.out) == (2, "")
        assert shown.error.startswith(message.format(**words))
        assert ReferenceStore(store).product_ids() == ()

    def test_a_store_that_cannot_be_written_is_named(self, pictures: Pictures, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        shown = run("register", "board", pictures.golden, "--store", tmp_path / "file")
        assert (shown.code, shown.error.split(":")[0]) == (2, "error [reference-store]")


class TestCalibrate:
    def test_it_says_what_it_promises(self, pictures: Pictures, store: Path) -> None:
        run("register", "board", pictures.golden, "--store", store)
        shown = run("calibrate", "board", pictures.good_folder, "--store", store)
        assert (shown.code, shown.err) == (0, "")
        calibration = ReferenceStore(store).load("board").calibration
        assert calibration is not None
        assert calibration.n == 4
        assert calibration.statement() in shown.out

    def test_files_and_folders_mix(self, pictures: Pictures, store: Path) -> None:
        run("register", "board", pictures.good[3], "--store", store)
        shown = run("calibrate", "board", pictures.golden, *pictures.good[:2], "--store", store)
        assert shown.code == 0
        assert "calibrated on 3 good parts" in shown.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["bord", "{good}"], "error [unknown-product]: product 'bord' is not registered; the store holds: board"),
            (["board", "{golden}"], "error [calibration]: good part 1 (golden.png): has the same pixels as reference"),
            (["board", "{black}"], "error [calibration]: good part 1 (black.png): cannot be compared: bad-frame"),
            (["board", "{folder}"], "error [undecodable-image]: folder '{folder}': got no images"),
            (["board", "{folder}/x.png"], "error [undecodable-image]: '{folder}/x.png': no such file or folder"),
            (["board", "{good}", "--false-reject-rate", "0"], "error [calibration]: false_reject_rate is 0"),
            (["board", "{good}", "--false-reject-rate", "nan"], "error [calibration]: false_reject_rate is nan"),
        ],
    )
    def test_bad_input_is_named_and_the_threshold_stays(
        self, pictures: Pictures, store: Path, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        run("register", "board", pictures.golden, "--store", store)
        words = {
            "good": pictures.good[0], "golden": pictures.golden, "black": pictures.black, "folder": tmp_path / "empty"
        }  # fmt: skip
        words["folder"].mkdir()
        shown = run("calibrate", *(argument.format(**words) for argument in arguments), "--store", store)
        assert (shown.code, shown.out) == (2, "")
        assert shown.error.startswith(message.format(**words))
        assert ReferenceStore(store).load("board").calibration is None

    def test_a_bad_part_among_the_good_is_refused_unless_it_is_accepted(
        self, pictures: Pictures, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = use_engine(monkeypatch, ScriptedEngine())
        assert isinstance(engine, ScriptedEngine)
        run("register", "board", pictures.golden, "--store", store)
        scores = iter([0.1, 0.1, 0.9, 0.1] * 2)
        engine.behaviour = lambda target: answers(s := next(scores), Candidate(Box(0, 0, 9, 9), s))(target)
        refused = run("calibrate", "board", pictures.good_folder, "--store", store)
        assert refused.code == 2
        assert refused.error.startswith("error [calibration]: ")
        assert "probably not a good part" in refused.error
        accepted = run("calibrate", "board", pictures.good_folder, "--store", store, "--accept-outliers")
        assert accepted.code == 0
        calibration = ReferenceStore(store).load("board").calibration
        assert calibration is not None
        assert calibration.threshold > 0.9


class TestProducts:
    def test_an_empty_store_says_what_to_do(self, store: Path) -> None:
        shown = run("products", "--store", store)
        assert (shown.code, shown.err) == (0, "")
        assert "differad-edge register NAME GOLDEN.png" in shown.out
        assert not store.exists()

    def test_the_table_and_the_statement(self, pictures: Pictures, store: Path) -> None:
        run("register", "board", pictures.golden, "--roi", "10,20,300,220", "--store", store)
        run("register", "zulu", pictures.golden, "--store", store)
        run("calibrate", "board", pictures.good_folder, "--store", store)
        shown = run("products", "--store", store)
        assert shown.code == 0
        for words in ("320x240 px", "10,20,300,220", "engine's own", "board: Threshold 0.5000, calibrated on 4 good"):
            assert words in shown.out

    def test_json_is_one_object_and_nothing_else(self, pictures: Pictures, store: Path) -> None:
        run("register", "board", pictures.golden, "--store", store)
        run("calibrate", "board", pictures.good_folder, "--store", store)
        shown = run("products", "--store", store, "--json", "-")
        assert (shown.code, shown.err) == (0, "")
        report = json.loads(shown.out)
        (product,) = report["products"]
        assert (product["id"], product["version"], product["size_px"]) == ("board", 2, [320, 240])
        assert product["calibration"]["n"] == 4
        assert product["prepared_bytes"] > 0
        assert product["error"] is None

    def test_a_corrupt_product_does_not_hide_the_others(self, pictures: Pictures, store: Path) -> None:
        for name in ("aged", "board"):
            run("register", name, pictures.golden, "--store", store)
        (damaged,) = (store / "aged" / "v000001").glob("*.png")
        damaged.write_bytes(damaged.read_bytes()[:-9] + b"something")
        shown = run("products", "--store", store)
        assert shown.code == 0
        assert "aged: corrupt-reference: " in shown.out
        assert "320x240 px" in shown.out
        rows = json.loads(run("products", "--store", store, "--json", "-").out)["products"]
        assert [row["error"] is None for row in rows] == [False, True]
