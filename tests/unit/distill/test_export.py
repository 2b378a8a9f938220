from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from differad_edge.engines.base import ReferenceView
from differad_edge.engines.lite import LiteEngine
from differad_edge.errors import ConfigError
from distill.lite import export as exporting
from distill.lite.export import COMPARE, ENCODE, MANIFEST, check_parity, export, main, reference_inputs
from distill.lite.network import COMPARED, STRIDES, DifferenceNet, to_tensor
from distill.lite.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's exporter speaks of its successor

SIZES = [(16, 16), (48, 80), (160, 160), (208, 112)]
Picture = NDArray[np.uint8]


def picture(seed: int, size: tuple[int, int]) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def float_rgb(image: Picture) -> torch.Tensor:
    return to_tensor([image]).float()


@pytest.fixture(scope="module")
def net() -> DifferenceNet:
    """A random network whose batch norms have seen something and whose heat is neither 0 nor 1."""
    torch.set_num_threads(1)
    torch.manual_seed(2)
    net = DifferenceNet()
    with torch.no_grad():
        net(float_rgb(picture(0, (96, 96))), float_rgb(picture(1, (96, 96))))
    return net.eval()


@pytest.fixture(scope="module")
def run(net: DifferenceNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    saved = {"net": {}, "average": net.state_dict(), "optimiser": {}, "step": 7, "recipe": asdict(Recipe(steps=9))}
    torch.save(saved, folder / "checkpoint.pt")
    return folder


@pytest.fixture(scope="module")
def models(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    export(run / "checkpoint.pt", folder)
    return folder


@pytest.fixture(scope="module")
def sessions(models: Path) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    encode, compare = (
        ort.InferenceSession(str(models / name), options, providers=["CPUExecutionProvider"])
        for name in (ENCODE, COMPARE)
    )
    return encode, compare


def compared(session: ort.InferenceSession, target: Picture, known: list[torch.Tensor]) -> NDArray[np.float32]:
    names = [value.name for value in session.get_inputs()]
    heat: NDArray[np.float32] = session.run(
        None, dict(zip(names, [target[None], *(k.numpy() for k in known)], strict=True))
    )[0]
    return heat


@pytest.mark.parametrize("size", SIZES)
def test_both_graphs_agree_with_the_network_at_any_size(
    net: DifferenceNet, sessions: tuple[ort.InferenceSession, ort.InferenceSession], size: tuple[int, int]
) -> None:
    encode, compare = sessions
    reference, target = picture(3, size), picture(4, size)
    with torch.no_grad():
        expected = net(float_rgb(reference), float_rgb(target)).sigmoid()[0, 0].numpy()
        features = net.encode(float_rgb(reference))
        known = reference_inputs(net, [float_rgb(reference)])
    heat = compared(compare, target, known)
    assert heat.shape == (size[0] // 2, size[1] // 2)
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, expected, atol=1e-4)
    assert np.ptp(expected) > 1e-3, "the network says the same everywhere: nothing was compared"
    for encoded, feature in zip(encode.run(None, {"image": reference[None]}), features, strict=True):
        np.testing.assert_allclose(encoded, feature.numpy(), atol=1e-4, rtol=1e-4)


def test_the_image_goes_in_as_uint8_bgr_and_nothing_else_does(
    sessions: tuple[ort.InferenceSession, ort.InferenceSession],
) -> None:
    encode, compare = sessions
    (image,) = encode.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", [1, "height", "width", 3])
    assert [(compare.get_inputs()[0].name, compare.get_inputs()[0].type)] == [("image", "tensor(uint8)")]
    assert len(compare.get_inputs()) == 1 + 4 * len(STRIDES)
    with pytest.raises(Exception, match="Unexpected input data type"):
        encode.run(None, {"image": picture(5, (32, 32))[None].astype(np.float32)})
    reddish = np.zeros((32, 32, 3), np.uint8)
    reddish[..., 2] = 200
    assert not np.allclose(
        encode.run(None, {"image": reddish[None]})[0], encode.run(None, {"image": reddish[None, ..., ::-1].copy()})[0]
    )


def test_two_references_make_a_range_that_forgives_both(
    net: DifferenceNet, sessions: tuple[ort.InferenceSession, ort.InferenceSession]
) -> None:
    size = (48, 64)
    first, second, target = picture(6, size), picture(7, size), picture(8, size)
    with torch.no_grad():
        both = reference_inputs(net, [float_rgb(first), float_rgb(second)])
        features = net.encode(float_rgb(first))
        # Neither reference differs from the range of both: the comparison asks nothing but zeros.
        nothing = [
            c.fuse(torch.zeros(1, (3 if c.both_ways else 2) * channels, *f.shape[2:]), f)
            for c, channels, f in zip(net.comparisons, COMPARED, features, strict=True)
        ]
        expected = net.merge(nothing).sigmoid()[0, 0].numpy()
        turned = reference_inputs(net, [float_rgb(second), float_rgb(first)])
        twice = reference_inputs(net, [float_rgb(first), float_rgb(first)])
        once = reference_inputs(net, [float_rgb(first)])
    compare = sessions[1]
    np.testing.assert_allclose(compared(compare, first, both), expected, atol=1e-4)
    np.testing.assert_array_equal(compared(compare, target, both), compared(compare, target, turned))
    np.testing.assert_array_equal(compared(compare, target, once), compared(compare, target, twice))
    assert not np.allclose(compared(compare, target, both), compared(compare, target, once), atol=1e-4)


def test_the_engine_runs_what_was_exported(net: DifferenceNet, models: Path) -> None:
    engine = LiteEngine(threads=1, model_folder=models)
    reference, target = picture(9, (96, 64)), picture(10, (96, 64))
    evidence = engine.compare(engine.prepare([ReferenceView(reference, None, "0" * 64)]), target)
    with torch.no_grad():
        expected = net(float_rgb(reference), float_rgb(target)).sigmoid()[0, 0].numpy()
    assert evidence.heatmap is not None
    np.testing.assert_allclose(evidence.heatmap, expected, atol=5e-3)  # prepared features are kept in float16


def test_the_manifest_says_what_lies_beside_it(models: Path) -> None:
    manifest = json.loads((models / MANIFEST).read_text())
    assert set(manifest["files"]) == {ENCODE, COMPARE}
    for name, entry in manifest["files"].items():
        content = (models / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert sorted(path.name for path in models.iterdir()) == sorted([ENCODE, COMPARE, MANIFEST])
    assert manifest["scales"] == list(STRIDES)
    (stage,) = manifest["training"]
    assert (stage["steps"], stage["steps_done"], stage["init_sha256"]) == (9, 7, None)


def test_the_graphs_carry_no_path_and_no_date(models: Path) -> None:
    for name in (ENCODE, COMPARE):
        model = onnx.load(str(models / name))
        assert (model.producer_name, model.producer_version, model.doc_string) == ("differad-edge", "", "")
        assert not model.metadata_props
        assert str(Path.cwd()).encode() not in (models / name).read_bytes()


def test_the_same_checkpoint_gives_the_same_bytes(run: Path, models: Path, tmp_path: Path) -> None:
    manifest = export(run / "checkpoint.pt", tmp_path)
    assert manifest["files"] == json.loads((models / MANIFEST).read_text())["files"]


def test_parity_sees_other_weights(models: Path) -> None:
    torch.manual_seed(3)
    assert check_parity(DifferenceNet().eval(), models) > exporting.PARITY


def test_parity_is_no_number_when_the_network_gives_none(models: Path) -> None:
    net = DifferenceNet().eval()
    with torch.no_grad():
        net.out[0].get_parameter("bias").fill_(float("nan"))
    assert np.isnan(check_parity(net, models))


@pytest.mark.parametrize("difference", [1.1e-4, float("nan")])
def test_graphs_that_disagree_replace_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    (tmp_path / ENCODE).write_bytes(b"the old model")
    monkeypatch.setattr(exporting, "check_parity", lambda *_: difference)
    monkeypatch.setattr(exporting, "write_graphs", lambda *_: None)
    with pytest.raises(RuntimeError, match="allowed: at most 1e-04"):
        export(run / "checkpoint.pt", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ENCODE]
    assert (tmp_path / ENCODE).read_bytes() == b"the old model"


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint: got .*checkpoint\.pt, allowed"):
        export(tmp_path / "checkpoint.pt", tmp_path / "models")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), str(tmp_path / "models")])
    assert ended.value.code == 2
    assert "checkpoint: got" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
