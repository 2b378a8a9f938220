"""The graphs that describe places: their files, what they answer, and the size at which pictures are described."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import relit
from varying import felt

from differad_edge.deadline import Deadline
from differad_edge.engines.appearance import features
from differad_edge.engines.appearance.features import WORK_AREA_PX, Describer, fitted
from differad_edge.errors import DeadlineExceeded, EngineError, ModelIntegrityError

GRAPHS = ["appearance.onnx", "appearance-nearest.onnx"]
CPU = ["CPUExecutionProvider"]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped files, which the describer reads in their place."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in (*GRAPHS, "appearance.json"):
        with resources.as_file(resources.files("differad_edge") / "models" / name) as path:
            shutil.copy(path, folder / name)
    monkeypatch.setattr(features, "resources", SimpleNamespace(files=lambda package: tmp_path))
    return folder


def rewrite(models: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((models / "appearance.json").read_text(encoding="utf-8"))
    change(manifest)
    (models / "appearance.json").write_text(json.dumps(manifest), encoding="utf-8")


# -- the files ---------------------------------------------------------------------------------------------------------


def test_an_intact_copy_is_read(models: Path, describer: Describer) -> None:
    copy = Describer(1, CPU)
    assert copy.graphs == describer.graphs
    assert (copy.multiple, copy.block, copy.nearby) == (describer.multiple, describer.block, describer.nearby)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "manifest"])
def test_a_graph_that_differs_from_its_sha256_is_refused(models: Path, name: str, damage: str) -> None:
    data = bytearray((models / name).read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        (models / name).write_bytes(data)
    elif damage == "truncate":
        (models / name).write_bytes(data[:-1])
    elif damage == "missing":
        (models / name).unlink()
    else:
        rewrite(models, lambda manifest: manifest["files"][name].update(sha256="0" * 64))
    with pytest.raises(ModelIntegrityError, match=name):
        Describer(1, CPU)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"[]", b"null", b"3", b"\xff\xfe", b'{"files": {}}', b'{"files": 3}'],
    ids=repr,
)
def test_a_damaged_manifest_is_refused(models: Path, content: bytes | None) -> None:
    if content is None:
        (models / "appearance.json").unlink()
    else:
        (models / "appearance.json").write_bytes(content)
    with pytest.raises(ModelIntegrityError):
        Describer(1, CPU)


@pytest.mark.parametrize("field", ["files", "input_multiple", "block_cells", "nearby_cells"])
def test_a_manifest_without_a_field_is_refused(models: Path, field: str) -> None:
    rewrite(models, lambda manifest: manifest.pop(field))
    with pytest.raises(ModelIntegrityError, match=field):
        Describer(1, CPU)


def test_an_intact_file_that_is_no_graph_is_refused_at_first_use(models: Path) -> None:
    garbage = b"not a graph"
    (models / GRAPHS[0]).write_bytes(garbage)
    digest = hashlib.sha256(garbage).hexdigest()
    rewrite(models, lambda manifest: manifest["files"][GRAPHS[0]].update(sha256=digest))
    describer = Describer(1, CPU)
    with pytest.raises(EngineError, match="load"):
        describer.describe(np.zeros((64, 64, 3), np.uint8))


# -- what it answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (160, 272)])
def test_a_deep_cell_covers_8_px_and_a_fine_one_4(describer: Describer, size: tuple[int, int]) -> None:
    part = describer.describe(felt(1, size))
    width, height = size
    assert part.deep.shape[1:] == (height // 8, width // 8)
    assert part.fine.shape[1:] == (height // 4, width // 4)
    assert part.deep.dtype == part.fine.dtype == np.float32
    assert part.fine.min() >= 0
    assert np.isfinite(part.deep).all()


def test_an_even_picture_answers_no_filter_and_a_line_does_where_it_lies(describer: Describer) -> None:
    even = np.full((128, 128, 3), 120, np.uint8)
    assert describer.describe(even).fine.max() < 1e-3
    line = even.copy()
    cv2.line(line, (80, 20), (80, 60), (60, 60, 60), 2)
    answers = describer.describe(line).fine.max(0)
    row, column = np.unravel_index(answers.argmax(), answers.shape)
    assert answers.max() > 0.05
    assert 18 <= 4 * row <= 62
    assert abs(4 * column + 2 - 80) <= 6
    assert answers[:, :12].max() < 1e-3  # nothing beside it


def test_dark_and_bright_lines_answer_different_filters(describer: Describer) -> None:
    strongest = []
    for shade in (70, 180):
        image = np.full((128, 128, 3), 120, np.uint8)
        cv2.line(image, (64, 30), (64, 100), (shade,) * 3, 2)
        strongest.append(int(describer.describe(image).fine.max((1, 2)).argmax()))
    assert strongest[0] != strongest[1]


def test_less_light_changes_what_is_seen_little_against_another_part(describer: Describer) -> None:
    one, dim, other = felt(1), relit(felt(1), gain=0.8), felt(2)
    seen, seen_dim, seen_other = (describer.describe(image).deep for image in (one, dim, other))
    assert np.abs(seen - seen_dim).mean() < 0.5 * np.abs(seen - seen_other).mean()


def test_two_runs_are_bitwise_equal(describer: Describer) -> None:
    image = felt(1, (128, 128))
    first, second = describer.describe(image), describer.describe(image)
    assert np.array_equal(first.deep, second.deep)
    assert np.array_equal(first.fine, second.fine)


def test_a_deadline_that_has_passed_stops_both_graphs(describer: Describer) -> None:
    image = felt(1, (64, 64))
    deep = describer.describe(image, Deadline.after_ms(60_000)).deep
    with pytest.raises(DeadlineExceeded):
        describer.describe(image, Deadline.after_ms(0))
    index = describer.index(deep[None])
    with pytest.raises(DeadlineExceeded):
        describer.nearest(index, deep, Deadline.after_ms(0))


# -- the size at which pictures are described --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [(16, 16), (30, 20), (64, 64), (448, 448), (640, 480), (1920, 1080), (3000, 2000), (40, 4000), (4000, 40)],
)
def test_a_picture_is_brought_to_about_the_same_area(size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    height, width = fitted(image, 16).shape[:2]
    assert width % 16 == height % 16 == 0
    assert min(width, height) >= 64
    assert 0.7 * WORK_AREA_PX < width * height < 1.5 * WORK_AREA_PX


@settings(max_examples=40, deadline=None, derandomize=True)
@given(width=st.integers(16, 900), height=st.integers(16, 900), multiple=st.sampled_from([8, 16, 32]))
def test_the_shape_is_kept_but_for_rounding(width: int, height: int, multiple: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    rows, columns = fitted(image, multiple).shape[:2]
    assert rows % multiple == columns % multiple == 0
    scale = (WORK_AREA_PX / (width * height)) ** 0.5
    for side, got in ((width, columns), (height, rows)):
        assert got == 4 * multiple or abs(got - side * scale) <= multiple / 2


@pytest.mark.parametrize("size", [(50, 30), (700, 900)])
def test_all_of_the_picture_is_shown(size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    half_x, half_y = size[0] // 2, size[1] // 2
    image[:half_y, :half_x], image[:half_y, half_x:], image[half_y:, :half_x] = 50, 100, 150
    shown = fitted(image, 16)
    assert [int(shown[y, x, 0]) for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))] == [50, 100, 150, 0]
    rows, columns = shown.shape[:2]
    assert [int(shown[rows // 4, columns // 4, 0]), int(shown[rows // 4, 3 * columns // 4, 0])] == [50, 100]
