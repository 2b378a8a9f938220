from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_fixtures import save, write_image, write_mask, write_text

from differad_edge.config import load_config
from differad_edge.errors import ConfigError, DatasetError, TrainingError
from differad_edge.images import Image
from differad_edge.pairs import load_pairs
from differad_edge.results import Box
from training.dualdiff import main
from training.dualdiff_align import MAX_RESIDUAL, alignment_residual
from training.dualdiff_features import OwnFeatures, features_of, most_similar
from training.dualdiff_plan import CATEGORIES_FILE, SUBSETS, Plan, quotas, select
from training.dualdiff_review import ROWS_A_PAGE, read_rejected, write_review
from training.layouts.base import Source, views

SIDE = 128


def part(seed: int, turn_deg: float = 0.0, shift: tuple[float, float] = (0, 0), light: int = 0) -> Image:
    """A part with shapes that follow from the seed, in a pose and under a light."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE, 3), 60, np.uint8)
    for _ in range(9):
        centre = tuple(int(value) for value in rng.integers(30, SIDE - 30, 2))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.circle(image, centre, int(rng.integers(5, 16)), colour, cv2.FILLED)
    motion = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), turn_deg, 1.0)
    motion[:, 2] += shift
    moved = cv2.warpAffine(image, motion, (SIDE, SIDE), borderValue=(60, 60, 60))
    return np.clip(np.asarray(moved, np.int16) + light, 0, 255).astype(np.uint8)


# -- the list of categories -------------------------------------------------------------------------------------------


def test_the_list_that_ships_has_the_numbers_of_the_paper_and_says_that_it_is_ours() -> None:
    plan = load_config(CATEGORIES_FILE, Plan)
    assert plan.pairs == 13_003
    assert len(plan.categories) == 20
    assert {category.subset for category in plan.categories} == set(SUBSETS)
    reported = {category.name for category in plan.categories if category.reported_in_paper}
    assert reported == {"bottle", "screw", "grid", "pill", "capsule", "carpet", "hazelnut", "tile", "transistor"}
    assert "OURS, NOT THE PAPER'S" in CATEGORIES_FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pairs: 3\ncategories: []", "categories"),
        ("pairs: 0\ncategories: [{name: a, dataset: visa, product: a, subset: common_logic}]", "pairs"),
        ("pairs: 3\ncategories: [{name: a, dataset: imagenet, product: a, subset: common_logic}]", "'imagenet' of 'a'"),
        ("pairs: 3\ncategories: [{name: a, dataset: visa, product: a, subset: hard}]", "subset"),
        (
            "pairs: 3\ncategories:\n" + "  - {name: a, dataset: visa, product: a, subset: common_logic}\n" * 2,
            "'a' stands there twice",
        ),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write_text(tmp_path / "list.yaml", text), Plan)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_quotas_add_up_and_are_even(available: dict[str, int], total: int) -> None:
    given_out = quotas(available, total)
    assert sum(given_out.values()) == min(total, sum(available.values()))
    assert all(0 <= given_out[name] <= available[name] for name in available)
    most = max(given_out.values())
    # Who gets less than the most by more than the remainder has given all.
    assert all(given_out[name] >= most - 1 or given_out[name] == available[name] for name in available)


def test_every_target_gives_its_best_pair_before_any_gives_its_second() -> None:
    records = [
        {"id": (target, place), "category": "a", "place": place, "target": target}
        for target in range(10)
        for place in range(3)
    ]
    assert Counter(record["place"] for record in select(records, 10, 0)) == {0: 10}
    assert Counter(record["place"] for record in select(records, 14, 0)) == {0: 10, 1: 4}
    assert select(records, 14, 0) == select(records, 14, 0)
    assert select(records, 14, 0) != select(records, 14, 1)
    assert select(records, 99, 0) == records


# -- features ---------------------------------------------------------------------------------------------------------


def test_own_features_are_unit_vectors_that_find_the_same_part_again() -> None:
    own = OwnFeatures()
    parts = own([part(seed) for seed in range(12)])
    again = own([part(seed, turn_deg=3, shift=(2, -1), light=12) for seed in range(12)])
    assert parts.shape == (12, 1280)
    assert parts.dtype == np.float32
    assert np.allclose(np.linalg.norm(parts, axis=1), 1, atol=1e-5)
    assert [near[0][0] for near in most_similar(again, parts, 3)] == list(range(12))


def test_own_features_of_a_black_image_and_of_any_size_are_finite() -> None:
    images = [np.zeros((16, 40, 3), np.uint8), part(0)[:50], np.full((300, 20, 3), 255, np.uint8)]
    assert np.isfinite(OwnFeatures()(images)).all()


def test_the_nearest_come_first_and_unreadable_ones_never() -> None:
    normals = np.array([[1, 0], [np.nan, np.nan], [0, 1], [0.6, 0.8]], np.float32)
    found = most_similar(np.array([[0, 1], [np.nan, 0]], np.float32), normals, 2)
    assert [(place, round(cosine, 3)) for place, cosine in found[0]] == [(2, 1.0), (3, 0.8)]
    assert found[1] == []


def test_features_are_kept_and_made_again_when_a_file_changes(tmp_path: Path) -> None:
    class Counted(OwnFeatures):
        seen = 0

        def __call__(self, images: object, /) -> np.ndarray:
            self.seen += len(images)  # type: ignore[arg-type]
            return super().__call__(images)  # type: ignore[arg-type]

    paths = [write_image(tmp_path / f"{number}.png", number) for number in range(3)]
    (tmp_path / "bad.png").write_bytes(b"x")
    source, maker = Source("set", tmp_path, ()), Counted()
    wanted = views([*paths, tmp_path / "bad.png"])
    first = features_of(source, wanted, maker, tmp_path / "kept")
    again = features_of(source, wanted, maker, tmp_path / "kept")
    assert np.array_equal(first, again, equal_nan=True)
    assert maker.seen == 3
    assert np.isnan(first[3]).all()
    assert np.isfinite(first[:3]).all()
    write_image(paths[0], 9)
    assert not np.array_equal(features_of(source, wanted, maker, tmp_path / "kept")[0], first[0])


@pytest.mark.slow
def test_clip_features_of_a_local_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from training.dualdiff_features import ClipFeatures

    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 99}, vision_config={**small, "image_size": 32, "patch_size": 8}
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    clip = ClipFeatures(tmp_path / "clip")
    features = clip([part(0), part(1)[:90], part(0)])
    assert features.shape == (3, config.projection_dim)
    assert features.dtype == np.float32
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.allclose(features[0], features[2], atol=1e-5)
    assert not np.allclose(features[0], features[1], atol=1e-3)
    with pytest.raises(TrainingError, match=r"--clip-model: .* holds no CLIP model"):
        ClipFeatures(tmp_path)


# -- alignment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pose", [(0.0, (0, 0)), (4.0, (0, 0)), (0.0, (14, -9)), (-6.0, (7, 5))])
def test_a_moved_part_aligns(pose: tuple[float, tuple[float, float]]) -> None:
    before = part(1)
    reference, target = before.copy(), part(1, *pose, light=20)
    assert alignment_residual(reference, target) < 0.1
    assert np.array_equal(reference, before)


def test_another_part_does_not_align() -> None:
    others = [alignment_residual(part(seed), part(seed + 100)) for seed in range(10)]
    own = [alignment_residual(part(seed, 3, (4, -2)), part(seed)) for seed in range(10)]
    assert max(own) < 0.1 < min(others)
    assert float(np.median(others)) > MAX_RESIDUAL


def test_what_lies_in_a_box_does_not_count() -> None:
    target = part(2)
    target[30:100, 20:90] = np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    assert alignment_residual(part(2), target, [Box(20, 30, 90, 100)]) < 0.05
    assert alignment_residual(part(2), target) > 0.3


def test_even_grey_images_agree_with_each_other_only() -> None:
    grey = np.full((64, 64, 3), 90, np.uint8)
    assert alignment_residual(grey, grey + 20) == 0.0
    assert alignment_residual(grey, part(0)) == 1.0


def test_a_reference_of_another_size_is_stretched() -> None:
    small = np.asarray(cv2.resize(part(3), (90, 60)), np.uint8)
    assert alignment_residual(small, part(3)) < 0.1


# -- the command ------------------------------------------------------------------------------------------------------


def write_pool(pool: Path) -> Path:
    """Two products of MVTec AD, one that aligns and one texture, and DeepPCB."""
    mvtec = pool / "mvtec_ad"
    for product, seed in (("bottle", 1), ("carpet", 2)):
        for number in range(10):
            # The last good image of the bottle shows another part.
            one = seed if number < 9 else seed + 50
            save(mvtec / product / f"train/good/{number:03d}.png", part(one, shift=(number % 3, 0), light=number))
        save(mvtec / product / "test/good/000.png", part(seed, shift=(0, 2)))
        for number in range(2):
            target = part(seed, light=5)
            target[60:80, 20 + 30 * number : 40 + 30 * number] = 255
            save(mvtec / product / f"test/broken/{number:03d}.png", target)
            rect = (20 + 30 * number, 60, 40 + 30 * number, 80)
            write_mask(mvtec / product / f"ground_truth/broken/{number:03d}_mask.png", [rect], size=(SIDE, SIDE))
    data = pool / "deeppcb/PCBData"
    save(data / "g/1/1_temp.png", part(7))
    save(data / "g/1/1_test.png", part(7, light=3))
    write_text(data / "g/1_not/1.txt", "20 20 40 40 2")
    write_text(data / "test.txt", "g/1/1.png g/1_not/1.txt")
    return pool


def write_list(path: Path, pairs: int = 1000, more: str = "") -> Path:
    rows = (
        "{name: bottle, dataset: mvtec_ad, product: bottle, subset: easy_structure}",
        "{name: rug, dataset: mvtec_ad, product: carpet, subset: easy_structure, alignable: false}",
        "{name: board, dataset: deeppcb, product: pcb, subset: complex_structure}",
    )
    return write_text(path, f"pairs: {pairs}\ncategories:\n" + "".join(f"  - {row}\n" for row in rows) + more)


def protocol(out: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in map(json.loads, (out / "protocol.jsonl").read_text().splitlines())}


def test_a_pool_becomes_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, out = write_pool(tmp_path / "pool"), tmp_path / "out"
    plan = write_list(tmp_path / "list.yaml")
    assert main(["build", str(pool), str(out), "--categories", str(plan), "--top", "10"]) == 0
    pairs = load_pairs(out).pairs
    # Of the bottle's ten good images nine pass, of the texture all, the board has its template.
    assert Counter(pair.product for pair in pairs) == {"bottle": 3 * 9, "rug": 3 * 10, "board": 1}
    assert Counter(pair.label for pair in pairs) == {"OK": 19, "NG": 39}
    facts = protocol(out)
    assert facts.keys() == {pair.id for pair in pairs}
    for pair in pairs:
        row = facts[pair.id]
        assert row["category"] == pair.product
        assert row["subset"] == ("complex_structure" if pair.product == "board" else "easy_structure")
        assert (row["residual"] is not None) == (pair.product == "bottle")
        assert pair.pair == ("aligned" if pair.product == "board" else "same_class")
        assert (pair.mask is not None) == (pair.label == "NG" and pair.product != "board")
        if pair.product == "bottle":
            assert not pair.reference.name.endswith("009.png")
    assert "58 of 1000 pairs" in capsys.readouterr().out


def test_the_number_of_pairs_is_kept_and_the_best_references_come_first(tmp_path: Path) -> None:
    pool, out = write_pool(tmp_path / "pool"), tmp_path / "out"
    arguments = ["build", str(pool), str(out), "--workers", "2", "--categories"]
    assert main([*arguments, str(write_list(tmp_path / "list.yaml", 7))]) == 0
    pairs = load_pairs(out).pairs
    assert Counter(pair.product for pair in pairs) == {"bottle": 3, "rug": 3, "board": 1}
    assert all(pair.id.endswith("_r0") for pair in pairs)
    # Another number takes from what was found, without another run.
    assert main([*arguments, str(write_list(tmp_path / "more.yaml", 9))]) == 0
    assert len(load_pairs(out).pairs) == 9
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main([*arguments, str(tmp_path / "more.yaml")]) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files


def test_missing_sets_products_and_bad_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, out = write_pool(tmp_path / "pool"), tmp_path / "out"
    (pool / "deeppcb").rename(tmp_path / "elsewhere")
    build = ["build", str(pool), str(out), "--categories", str(write_list(tmp_path / "list.yaml"))]
    assert main(build) == 2
    assert "which has no folder deeppcb" in capsys.readouterr().err
    first, second = (pool / f"mvtec_ad/bottle/train/good/{number:03d}.png" for number in range(2))
    first.write_bytes(b"no image")
    second.write_bytes(b"no image")
    assert main([*build, "--skip-missing"]) == 2
    assert "2 of 10 good images of 'bottle' are bad, allowed: 1%; " in capsys.readouterr().err
    save(second, part(1))
    assert main([*build, "--skip-missing"]) == 0
    said = capsys.readouterr()
    assert f"{first}: cannot be read" in said.err
    assert "board 0" in said.out
    more = "  - {name: x, dataset: mvtec_ad, product: sofa, subset: common_logic}\n"
    unknown = str(write_list(tmp_path / "unknown.yaml", more=more))
    assert main(["build", str(pool), str(out), "--skip-missing", "--categories", unknown]) == 2
    assert "has no target of 'sofa'; it has: bottle, carpet" in capsys.readouterr().err


def test_a_target_without_a_reference_that_passes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, out = write_pool(tmp_path / "pool"), tmp_path / "out"
    save(pool / "mvtec_ad/bottle/test/good/000.png", part(77))
    assert main(["build", str(pool), str(out), "--categories", str(write_list(tmp_path / "list.yaml"))]) == 0
    said = capsys.readouterr().err
    assert "targets without a reference that passes: 1; bad files: 0" in said
    assert "bottle/test/good/000.png: no good image passed the filters (residual " in said


def test_a_good_target_of_the_pool_is_no_reference_of_itself(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"pool/mask_folder/gasket/good/{number}.png", part(1, light=number))
    for name in ("bad/0.png", "masks/0.png"):
        write_mask(tmp_path / "pool/mask_folder/gasket" / name, size=(SIDE, SIDE))
    rows = "  - {name: gasket, dataset: mask_folder, product: gasket, subset: easy_structure}\n"
    plan = write_text(tmp_path / "list.yaml", f"pairs: 99\ncategories:\n{rows}")
    assert main(["build", str(tmp_path / "pool"), str(tmp_path / "out"), "--categories", str(plan)]) == 0
    pairs = load_pairs(tmp_path / "out").pairs
    assert Counter(pair.label for pair in pairs) == {"OK": 4 * 3}
    assert all(pair.reference.name != pair.target.name for pair in pairs)


def test_other_contents_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool")
    write_text(tmp_path / "full/notes.txt", "mine")
    listed = ["--categories", str(write_list(tmp_path / "list.yaml"))]
    assert main(["build", str(pool), str(tmp_path / "full"), *listed]) == 2
    assert "which holds other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    assert main(["build", str(pool), str(tmp_path / "out"), *listed, "--top", "0"]) == 2
    assert "--top: got 0, allowed: an integer from 1 to 1000" in capsys.readouterr().err


# -- the review -------------------------------------------------------------------------------------------------------


def test_a_review_takes_pairs_out_and_the_next_build_fills_the_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, out = write_pool(tmp_path / "pool"), tmp_path / "out"
    build = ["build", str(pool), str(out), "--categories", str(write_list(tmp_path / "list.yaml", 7))]
    assert main(build) == 0
    assert main(["review", str(out)]) == 0
    page = (out / "review/000.html").read_text(encoding="utf-8")
    pairs = load_pairs(out).pairs
    assert all(f'value="{pair.id}"' in page for pair in pairs)
    assert page.count("data:image/jpeg;base64,") == 2 * len(pairs)
    assert 'src="http' not in page
    gone = next(pair.id for pair in pairs if pair.product == "bottle")
    saved = write_text(tmp_path / "review-000.json", json.dumps({"rejected": [gone]}))
    assert main(["apply", str(out), str(saved)]) == 0
    assert {pair.id for pair in load_pairs(out).pairs} == {pair.id for pair in pairs} - {gone}
    assert main(["apply", str(out), str(saved)]) == 0, "applying a page twice changes nothing"
    assert main(build) == 0
    after = {pair.id for pair in load_pairs(out).pairs}
    assert len(after) == 7
    assert gone not in after
    write_text(saved, json.dumps({"rejected": sorted(after)}))
    assert main(["apply", str(out), str(saved)]) == 2
    assert "all 7 pairs are rejected" in capsys.readouterr().err
    assert len(load_pairs(out).pairs) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "allowed: a saved page"),
        ("[]", "allowed: a saved page"),
        ('{"rejected": "a"}', "rejected is a"),
        ('{"rejected": ["a", "z"]}', "rejects 'z', which is no pair of this set"),
    ],
)
def test_a_bad_page_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_rejected([write_text(tmp_path / "review-000.json", text)], ["a", "b"])


def test_names_cannot_break_out_of_the_page_and_old_pages_go(tmp_path: Path) -> None:
    write_image(tmp_path / "r.png")
    write_image(tmp_path / "t.png", 1)
    row = {"id": '"><script>', "product": "p", "reference": "r.png", "target": "t.png", "boxes": [], "label": "OK"}
    rows = [row, *({**row, "id": f"p{number}"} for number in range(ROWS_A_PAGE))]
    write_text(tmp_path / "pairs.jsonl", "\n".join(map(json.dumps, rows)))
    pairs = load_pairs(tmp_path).pairs
    pages = write_review(pairs, {"p0": {"residual": 0.25}}, tmp_path / "review")
    assert [page.name for page in pages] == ["000.html", "001.html"]
    text = pages[0].read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert "residual: 0.25" in text
    assert write_review(pairs[:1], {}, tmp_path / "review") == pages[:1]
    assert not pages[1].exists()
