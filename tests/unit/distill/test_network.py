from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.lite.network import (
    COMPARED,
    DECODER,
    HEAT_STRIDE,
    INPUT_MULTIPLE,
    STRIDES,
    Comparison,
    DifferenceNet,
    to_tensor,
)

SIZES = [(16, 16), (16, 64), (96, 48), (160, 160), (208, 112)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def net() -> DifferenceNet:
    """A network in eval mode whose batch norms have seen something."""
    torch.manual_seed(1)
    net = DifferenceNet()
    with torch.no_grad():
        net(images(0, (64, 64), 4), images(1, (64, 64), 4))
    return net.eval()


def images(seed: int, size: tuple[int, int], count: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("size", SIZES)
def test_both_images_are_encoded_alike_and_the_heat_map_has_half_their_size(
    net: DifferenceNet, size: tuple[int, int]
) -> None:
    a, b = images(2, size, 2), images(3, size, 2)
    with torch.no_grad():
        of_a, of_b, heat, turned = net.encode(a), net.encode(b), net(a, b), net(b, a)
    expected = [(2, c, size[0] // s, size[1] // s) for c, s in zip(COMPARED, STRIDES, strict=True)]
    assert [f.shape for f in of_a] == [f.shape for f in of_b] == expected
    assert heat.shape == turned.shape == (2, 1, size[0] // HEAT_STRIDE, size[1] // HEAT_STRIDE)
    assert all(side % INPUT_MULTIPLE == 0 for side in size)


@pytest.mark.parametrize("size", SIZES)
def test_preparing_the_reference_first_changes_nothing(net: DifferenceNet, size: tuple[int, int]) -> None:
    a, b = images(4, size), images(5, size)
    with torch.no_grad():
        together, apart = net(a, b), net.decode(net.prepare(a), net.encode(b))
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)
    assert together.std() > 0


def test_the_hot_path_never_encodes_the_reference(net: DifferenceNet, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        prepared, target = net.prepare(images(6, (32, 32))), net.encode(images(7, (32, 32)))
        monkeypatch.setattr(net, "encode", None)
        net.decode(prepared, target)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 5, 7), (3, 8, 1, 1)])
def test_identical_features_differ_by_exactly_nothing(both_ways: bool, shape: tuple[int, ...]) -> None:
    comparison = Comparison(8, 4, both_ways=both_ways)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(8)) * 100
    questions = comparison.questions(comparison.prepare(features), features.clone())
    assert questions.shape == (shape[0], 8 * (3 if both_ways else 2), *shape[2:])
    assert torch.equal(questions, torch.zeros_like(questions))


def test_identical_images_differ_by_exactly_nothing_at_every_scale(net: DifferenceNet) -> None:
    image = images(9, (64, 48))
    with torch.no_grad():
        prepared, features = net.prepare(image), net.encode(image.clone())
        for comparison, level, target in zip(net.comparisons, prepared, features, strict=True):
            assert not comparison.questions(level, target).any()


def test_what_moved_by_one_cell_is_within_the_range_and_what_is_new_is_not() -> None:
    comparison = Comparison(1, 1, both_ways=True)
    edge = (torch.arange(9) > 4).float().expand(1, 1, 9, 9)
    moved = (torch.arange(9) > 3).float().expand(1, 1, 9, 9)
    value, outside, lacking = comparison.questions(comparison.prepare(edge), moved)[0]
    assert value.any()
    assert not outside.any()
    assert not lacking.any()
    spot = torch.zeros(1, 1, 9, 9)
    spot[..., 4, 4] = 1
    nothing = torch.zeros(1, 1, 9, 9)
    _, outside, lacking = comparison.questions(comparison.prepare(nothing), spot)[0]
    assert outside.sum() == 1  # an extra spot
    assert not lacking.any()
    _, outside, lacking = comparison.questions(comparison.prepare(spot), nothing)[0]
    assert not outside.any()  # a missing spot: nothing that the target shows is unknown to the reference ...
    assert lacking.sum() == 1  # ... but the reference has something that the target lacks


def test_every_answer_of_the_comparisons_reaches_the_heat_map(net: DifferenceNet) -> None:
    fused = [torch.randn(1, w, 32 // s, 32 // s, requires_grad=True) for w, s in zip(DECODER, STRIDES, strict=True)]
    net.merge(fused).sum().backward()
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in fused)


def test_an_untrained_network_says_that_defects_are_rare() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        heat = DifferenceNet().eval()(images(10, (64, 64)), images(11, (64, 64))).sigmoid()
    assert heat.mean() < 0.1


def test_pictures_become_rgb_planes() -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = 10, 20, 30  # blue, green, red
    planes = to_tensor([picture, picture])
    assert planes.shape == (2, 3, 16, 32)
    assert planes.dtype == torch.uint8
    assert planes[1, :, 3, 5].tolist() == [30, 20, 10]


def test_the_network_is_small() -> None:
    assert 300_000 < sum(p.numel() for p in DifferenceNet().parameters()) < 600_000
