"""A cached reference equals an uncached one to the bit, a full prefill within rounding; the known mistakes do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from students import GRAMMAR, IMAGE, picture, question, student

from differad_edge.engines.vlm import torch_runner
from differad_edge.engines.vlm.layout import Layout
from differad_edge.engines.vlm.runner import JUMP, Floats
from differad_edge.engines.vlm.torch_runner import TorchRunner
from differad_edge.errors import EngineError

ANSWER = [43, 44, 55]


def patches(image: np.ndarray, layout: Layout) -> Any:
    """What Qwen2VLImageProcessor makes of one BGR image of the working size."""
    rows, columns = layout.size.patch_rows, layout.size.patch_columns
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float() / 127.5 - 1
    both = pixels[None].repeat(2, 1, 1, 1).reshape(1, 2, 3, rows // 2, 2, 16, columns // 2, 2, 16)
    return both.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * columns, -1)


def full_prefill(model: Any, layout: Layout, reference: np.ndarray, target: np.ndarray) -> Floats:
    """transformers' own logits of question and ANSWER, from one pass over everything."""
    ids = torch.tensor([layout.token_ids(IMAGE) + ANSWER])
    grid = torch.tensor([[1, layout.size.patch_rows, layout.size.patch_columns]] * 2)
    both = torch.cat([patches(image, layout) for image in (reference, target)]).to(model.dtype)
    model.model.rope_deltas = None
    with torch.no_grad():
        said = model(
            input_ids=ids, pixel_values=both, image_grid_thw=grid, mm_token_type_ids=(ids == IMAGE).int()
        ).logits
    return said[0, layout.length - 1 :].float().numpy()


def cached(runner: TorchRunner, reference: np.ndarray, target: np.ndarray) -> Floats:
    runner.load(runner.make_prefix("r", runner.encode(reference)))
    hidden = runner.read(runner.encode(target))
    return np.concatenate([hidden, runner.advance(ANSWER, runner.layout.length)])


@pytest.mark.parametrize("side_px", [64, 256, 800])  # 800: the real 50x50 patches
def test_cached_equals_a_full_prefill(side_px: int) -> None:
    model, layout = student(), question(side_px)
    runner = TorchRunner(model, layout)
    reference, target = picture(1, side_px), picture(2, side_px)
    right = full_prefill(model, layout, reference, target)
    found = runner.logits(cached(runner, reference, target))
    assert np.abs(found - right).max() < 5e-5
    assert (found.argmax(-1) == right.argmax(-1)).all()
    assert right.std() > 5  # far from flat: a path left out would show


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cached_equals_uncached_to_the_bit(dtype: str) -> None:
    model, layout = student(dtype=getattr(torch, dtype)), question(800)
    reference, other, target = (picture(seed, 800) for seed in (1, 2, 3))
    uncached = cached(TorchRunner(model, layout), reference, target)
    runner = TorchRunner(model, layout)
    arrays = runner.save_prefix(runner.make_prefix("r", runner.encode(reference)))
    cached(runner, other, target)  # another product in between
    runner.load(runner.restore_prefix("r", arrays))
    runner.read(runner.encode(other))  # another part
    runner.advance([7] * 5, layout.length)
    hidden = runner.read(runner.encode(target))
    warm = np.concatenate([hidden, runner.advance(ANSWER, layout.length)])
    assert np.array_equal(warm, uncached)


def mistake_positions(layout: Layout, kind: str) -> np.ndarray:
    right = layout.positions.copy()
    tail = slice(layout.prefix_length, layout.length)
    if kind == "none":  # as if every token were text
        return np.broadcast_to(np.arange(layout.length), right.shape)
    if kind == "tail-only":  # the tail's own index
        right[:, tail] -= right[:, tail].min()
    return right


@pytest.mark.parametrize("kind", ["none", "tail-only", "deepstack"])
def test_each_known_mistake_shows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, layout = student(), question(128)
    reference, target = picture(1), picture(2)
    right = full_prefill(model, layout, reference, target)
    if kind != "deepstack":
        wrong = mistake_positions(layout, kind)
        monkeypatch.setattr(Layout, "positions", property(lambda self: wrong))
    runner = TorchRunner(model, layout)
    if kind == "deepstack":
        encode = runner.encode
        runner.load(runner.make_prefix("r", encode(reference)))
        features, deep = encode(target)
        hidden = runner.read((features, torch.zeros_like(deep)))
        found = runner.logits(hidden)
    else:
        found = runner.logits(cached(runner, reference, target))
    assert np.abs(found[0] - right[0]).max() > 1


def test_a_jump_equals_single_steps() -> None:
    for seed in range(20):
        model, layout = student(seed), question(64, seed=seed)
        runner = TorchRunner(model, layout)
        runner.load(runner.make_prefix("r", runner.encode(picture(seed, 64))))
        runner.read(runner.encode(picture(seed + 100, 64)))
        tokens = np.random.default_rng(seed).integers(0, 900, 12).tolist()
        at = layout.length
        jumped = runner.logits(runner.advance(tokens, at))
        single = runner.logits(np.concatenate([runner.advance([token], at + n) for n, token in enumerate(tokens)]))
        # Sums in another order, of logits up to 20: a processor with other kernels rounds otherwise.
        np.testing.assert_allclose(jumped, single, rtol=1e-5, atol=5e-5)
        assert (jumped.argmax(-1) == single.argmax(-1)).all()


def test_some_rows_are_those_of_the_whole_head() -> None:
    runner = TorchRunner(student(), question(64))
    hidden = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    every, some = runner.logits(hidden), runner.logits(hidden, GRAMMAR.choices)
    np.testing.assert_allclose(every[:, list(GRAMMAR.choices)], some, atol=1e-5)


@pytest.mark.parametrize("change", ["shape", "dtype", "nothing"])
def test_what_another_model_kept_is_refused(change: str) -> None:
    runner = TorchRunner(student(), question(64))
    arrays = runner.save_prefix(runner.make_prefix("r", runner.encode(picture(1, 64))))
    kept = arrays["keys_and_values"]
    wrong = {"shape": {"keys_and_values": kept[:1]}, "dtype": {"keys_and_values": kept.astype(np.float16)}}.get(
        change, {}
    )
    with pytest.raises(EngineError, match="prepared reference: got"):
        runner.restore_prefix("r", wrong)


def test_with_graphs_a_jump_has_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills a jump changes nothing; no GPU is needed for that, only for the capture itself."""
    sizes = []

    def capture(run: Any, inputs: Any, pool: Any) -> Any:
        def replay(*given: Any) -> Any:
            assert [one.shape for one in given] == [one.shape for one in inputs]
            sizes.append(len(given[0]))
            return run(*given)

        return replay

    monkeypatch.setattr(torch_runner, "_capture", capture)
    model, layout = student(3), question(64, seed=3)
    plain, graphed = TorchRunner(model, layout, graphs=False), TorchRunner(model, layout, graphs=True)
    for runner in (plain, graphed):
        runner.load(runner.make_prefix("r", runner.encode(picture(1, 64))))
        runner.read(runner.encode(picture(2, 64)))
    sizes.clear()
    for count in (1, 2, 13, JUMP, JUMP + 1):
        tokens = list(range(100, 100 + count))
        np.testing.assert_allclose(
            graphed.advance(tokens, layout.length), plain.advance(tokens, layout.length), atol=1e-5
        )
    assert sizes == [1, JUMP, JUMP, JUMP]
    end = layout.capacity
    assert len(graphed.advance([1, 2], end - 2)) == 2
    with pytest.raises(EngineError, match=f"answer: got {end + 1} tokens"):
        graphed.advance([1, 2], end - 1)
