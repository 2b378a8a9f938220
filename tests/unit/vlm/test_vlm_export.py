"""An export answers as its model does, on ONNX Runtime, and nothing but a verified whole one is loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

pytest.importorskip("onnxscript")
pytest.importorskip("transformers")

from students import GRAMMAR, QUESTION, picture, student

from differad_edge.cli import app
from differad_edge.config import InspectorConfig, ModelConfig
from differad_edge.engines.vlm.decode import write_box
from differad_edge.engines.vlm.exported import MANIFEST, STAGES, VERIFIED, Exported
from differad_edge.engines.vlm.onnx_runner import OnnxRunner
from differad_edge.engines.vlm.torch_runner import TorchRunner
from differad_edge.errors import ConfigError, EngineError, ExportError, ModelIntegrityError, PairsError
from differad_edge.export.checkpoint import export_checkpoint
from differad_edge.export.onnx import write_export
from differad_edge.export.ranges import read_ranges
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Verdict

pytestmark = pytest.mark.slow

LAYER = "decoder.layers.0.mlp.gate_proj"


@pytest.fixture(scope="module")
def both(random_export: tuple[Any, Path]) -> tuple[TorchRunner, OnnxRunner]:
    """The same random model in PyTorch and as an export."""
    model, folder = random_export
    exported = Exported(folder)
    exported.check_files()
    assert exported.question == QUESTION
    return TorchRunner(model, QUESTION.layout), OnnxRunner(exported)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student with its processor, exported and verified by the commands."""
    from training.tiny.student import write_tiny_student

    folder = tmp_path_factory.mktemp("student")
    checkpoint = write_tiny_student(folder / "checkpoint")
    (checkpoint / "student.json").write_text(json.dumps({"size_px": [128, 96], "fit": "letterbox"}))
    out = folder / "out"
    words = ["export", str(checkpoint), str(out), "--precision", "float32", "--pairs", "3"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return out


def test_torch_and_onnx_runtime_agree(both: tuple[TorchRunner, OnnxRunner]) -> None:
    """50 random pairs: logits within 1e-4, greedy tokens and boxes the same."""
    at = QUESTION.layout.length
    for seed in range(50):
        reference, target = picture(seed), picture(1000 + seed)
        logits, boxes = [], []
        for runner in both:
            runner.load(runner.make_prefix(str(seed), runner.encode(reference)))  # type: ignore[attr-defined]
            hidden = runner.read(runner.encode(target))[0]  # type: ignore[attr-defined]
            said = [runner.logits(hidden)]
            for step in range(4):
                said.append(runner.logits(runner.advance([int(said[-1].argmax())], at + step)[0]))
            logits.append(np.stack(said))
            plain = write_box(runner, GRAMMAR, lead=GRAMMAR.verdicts[1:], at=at)  # type: ignore[arg-type]
            drafted = write_box(runner, GRAMMAR, lead=GRAMMAR.verdicts[1:], at=at, draft=(9, 9, 500, 500))  # type: ignore[arg-type]
            assert drafted.box == plain.box
            boxes.append(plain.box)
        assert np.abs(logits[0] - logits[1]).max() < 1e-4
        assert (logits[0].argmax(-1) == logits[1].argmax(-1)).all()
        assert boxes[0] == boxes[1]


def test_references_that_were_kept_are_read_again(both: tuple[TorchRunner, OnnxRunner]) -> None:
    _, runner = both
    first = runner.make_prefix("a", runner.encode(picture(1)))
    arrays = runner.save_prefix(first)
    runner.load(runner.make_prefix("b", runner.encode(picture(2))))
    other = runner.read(runner.encode(picture(3)))
    runner.load(runner.restore_prefix("a", arrays))
    again = runner.read(runner.encode(picture(3)))
    runner.load(first)
    assert np.array_equal(again, runner.read(runner.encode(picture(3))))
    assert np.abs(again - other).max() > 1e-3
    with pytest.raises(EngineError, match="prepared reference: got"):
        runner.restore_prefix("a", {"keys_and_values": arrays["keys_and_values"][:-1]})


def test_a_jump_without_room_goes_step_by_step(both: tuple[TorchRunner, OnnxRunner]) -> None:
    at = QUESTION.layout.capacity - 5
    for runner in both:
        runner.load(runner.make_prefix("a", runner.encode(picture(1))))  # type: ignore[attr-defined]
        runner.read(runner.encode(picture(2)))  # type: ignore[attr-defined]
        runner.advance([1] * (at - QUESTION.layout.length), QUESTION.layout.length)
    right, found = (runner.advance([3, 4, 5], at) for runner in both)
    np.testing.assert_allclose(found, right, atol=1e-4)


def test_the_graphs_share_their_weights(exported: Path) -> None:
    manifest = json.loads((exported / MANIFEST).read_text())
    assert set(manifest["stages"]) == set(STAGES)
    assert not list(exported.glob("*.data"))
    held = sum(
        int(entry.value)
        for stage in manifest["stages"].values()
        for tensor in onnx.load(str(exported / stage), load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    )
    # The vision tower and the embeddings are held once, the decoder by four stages.
    assert held > 2 * (exported / "weights.bin").stat().st_size


def test_what_was_not_verified_is_not_loaded(exported: Path) -> None:
    (exported / VERIFIED).unlink(missing_ok=True)
    with pytest.raises(ModelIntegrityError, match="not verified; run: differad-edge verify"):
        EdgeInspector(engine="vlm", model=str(exported))
    done = CliRunner().invoke(app, ["verify", str(exported), "--json", "-"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["agreed"] is True
    assert figures["tokens"] == 1.0
    assert figures["verdict_flips"] == 0
    assert max(figures[name] for name in ("features", "layers", "hidden", "logits")) < 1e-4
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    with EdgeInspector(engine="vlm", model=exported) as inspector:
        result = inspector.compare(image, image)
    assert (result.verdict, result.reason) == (Verdict.UNDECIDED, "unparsable-answer")  # random weights


def test_what_is_exported_by_default_is_verified_on_a_cpu(exported: Path, tmp_path: Path) -> None:
    """In bfloat16: the graphs are for a GPU, their widened copies for this machine."""
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["export", str(exported.parent / "checkpoint"), str(out), "--pairs", "3"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["verify", str(out)])
    assert done.exit_code == 0, done.output
    runner = OnnxRunner(Exported(out))
    prefix = runner.make_prefix("a", runner.encode(np.zeros((96, 128, 3), np.uint8)))
    kept = runner.save_prefix(prefix)
    assert kept["keys_and_values"].dtype == np.uint16
    np.testing.assert_array_equal(runner.restore_prefix("a", kept).content, prefix.content)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    with EdgeInspector(engine="vlm", model=str(out)) as inspector:
        assert inspector.compare(image, image).verdict is Verdict.UNDECIDED  # random weights
    done = CliRunner().invoke(app, ["verify", str(out), "--simulate", "int8", "--json", "-"])
    assert json.loads(done.stdout)["logits"] < 1.0
    manifest = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps({**manifest, "widened": {}}))
    with pytest.raises(ModelIntegrityError, match="got bfloat16 without widened graphs"):
        OnnxRunner(Exported(out))


def test_a_damaged_verification_is_made_again(exported: Path) -> None:
    (exported / VERIFIED).write_text("{torn")
    with pytest.raises(ModelIntegrityError, match="not verified; run: differad-edge verify"):
        EdgeInspector(engine="vlm", model=exported)
    done = CliRunner().invoke(app, ["verify", str(exported)])
    assert done.exit_code == 0, done.output
    EdgeInspector(engine="vlm", model=exported).close()


def test_half_an_export_is_not_left_behind(tmp_path: Path) -> None:
    def full(stage: str) -> None:
        assert (tmp_path / "out").is_dir()
        raise OSError(28, "No space left on device")

    options: dict[str, Any] = {"identity": "x", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(ExportError, match="cannot be written: No space left on device"):
        write_export(student(5), QUESTION, tmp_path / "out", write_beside=print, progress=full, **options)
    assert not list(tmp_path.iterdir())


def test_fewer_bits_are_measured_and_verify_nothing(exported: Path) -> None:
    before = (exported / VERIFIED).read_bytes() if (exported / VERIFIED).is_file() else None
    errors = {}
    for bits in ("fp8", "int8", "int4"):
        done = CliRunner().invoke(app, ["verify", str(exported), "--simulate", bits, "--json", "-"])
        figures = json.loads(done.stdout)
        assert done.exit_code == (0 if figures["agreed"] else 1)
        assert figures["runtime"] == f"onnxruntime-{bits}"
        errors[bits] = figures["logits"]
    assert 1e-3 < errors["int8"] < errors["fp8"] < 1.0  # three bits of mantissa against seven
    assert errors["int4"] < 1e-4  # the question is read as it was; only later tokens have four bits
    after = (exported / VERIFIED).read_bytes() if (exported / VERIFIED).is_file() else None
    assert after == before
    done = CliRunner().invoke(app, ["verify", str(exported), "--simulate", "int2"])
    assert done.exit_code == 2
    assert "precision: got 'int2', allowed: fp8, int8, int4" in done.output


def test_real_pairs_are_asked_about(exported: Path, tmp_path: Path) -> None:
    set_of_pairs = tmp_path / "pairs"
    set_of_pairs.mkdir()
    for name, seed in (("golden", 1), ("part", 2)):
        cv2.imwrite(str(set_of_pairs / f"{name}.png"), picture(seed))
    row = {"id": "a", "product": "p", "reference": "golden.png", "target": "part.png", "boxes": [], "label": "OK"}
    (set_of_pairs / "pairs.jsonl").write_text(json.dumps(row))
    (set_of_pairs / "set.json").write_text(json.dumps({"name": "two pictures"}))
    words = ["verify", str(exported), "--pairs", str(set_of_pairs)]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "--pairs and --checkpoint" in done.output) == (2, True)
    checkpoint = str(exported.parent / "checkpoint")
    done = CliRunner().invoke(app, [*words, "--checkpoint", checkpoint, "--json", "-"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pairs"] == 1
    out = tmp_path / "calibrated"
    options = ["--precision", "float32", "--pairs", "1", "--calibration", str(set_of_pairs)]
    done = CliRunner().invoke(app, ["export", checkpoint, str(out), *options])
    assert done.exit_code == 0, done.output
    assert (read_ranges(out)[LAYER].largest != read_ranges(exported)[LAYER].largest).any()


@pytest.mark.parametrize("stage", ["vision", "tail"])
def test_a_broken_graph_does_not_agree(stage: str, exported: Path, tmp_path: Path) -> None:
    """Weights that were lost on the way, with a manifest that was made to fit."""
    folder = shutil.copytree(exported, tmp_path / "copy")
    model = onnx.load(str(folder / f"{stage}.onnx"), load_external_data=False)
    tensor = max(model.graph.initializer, key=lambda one: int(np.prod(one.dims)))
    for entry in tensor.external_data:
        if entry.key == "offset":
            entry.value = "0"
    onnx.save(model, str(folder / f"{stage}.onnx"))
    manifest = json.loads((folder / MANIFEST).read_text())
    from differad_edge.engines.vlm.exported import sha256_of

    file = folder / f"{stage}.onnx"
    manifest["files"][file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    done = CliRunner().invoke(app, ["verify", str(folder)])
    assert done.exit_code == 1, done.output
    assert "DOES NOT AGREE" in done.output
    with pytest.raises(ModelIntegrityError, match="does not agree with PyTorch"):
        EdgeInspector(engine="vlm", model=str(folder))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "weights.bin").write_bytes(b"x"), "weights.bin: got 1 bytes"),
        (lambda folder: (folder / "tail.onnx").unlink(), "tail.onnx: cannot be read"),
        (lambda folder: flip(folder / "weights.bin"), "weights.bin: got SHA-256"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "exported model: "),
        (lambda folder: change(folder, prompt_version="0"), "prompt_version: got '0'"),
        (lambda folder: change(folder, stages={}), "stages: got none for head"),
        (lambda folder: change(folder, surprise=1), "surprise"),
        (lambda folder: unlist(folder, "weights.bin"), "files: got none named weights.bin, which is needed"),
        (lambda folder: unlist(folder, "embeddings.npy"), "files: got none named embeddings.npy"),
        (lambda folder: unlist(folder, "tokenizer.json"), "files: got none named tokenizer.json"),
        (lambda folder: unlist(folder, "golden.npz"), "files: got none named golden.npz"),
        (lambda folder: unlist(folder, "ranges.npz"), "files: got none named ranges.npz"),
        (lambda folder: (folder / "head.npy").write_bytes(b"x"), "files: got none named head.npy"),
        (lambda folder: ask(folder, verdicts=[]), "question: got these settings, allowed: verdicts: two tokens"),
        (lambda folder: ask(folder, order="trained"), "verdicts: none where the order is trained"),
        (lambda folder: ask(folder, order="trained", verdicts=[]), "opening, think_open: at least a token"),
        (lambda folder: ask(folder, stops=[[1], [], [1]]), "stops, close: at least a token"),
        (lambda folder: ask(folder, capacity=3), "capacity: got 3, allowed: more than the"),
        (
            lambda folder: ask(folder, verdicts=[5, 10**6]),
            "question: tokens below 350, shape.vocabulary; it has 1000000",
        ),
        (lambda folder: ask(folder, digits=[10**6] * 10), "question: tokens below"),
        (lambda folder: ask(folder, image_token=-1), "question.image_token: got -1"),
        (lambda folder: change(folder, stages=dict.fromkeys(STAGES, "../x")), "got '../x', allowed: one of its files"),
    ],
)
def test_a_damaged_export_is_named(harm, words: str, exported: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = shutil.copytree(exported, tmp_path / "copy")
    harm(folder)
    with pytest.raises(ModelIntegrityError) as caught:
        EdgeInspector(engine="vlm", model=str(folder))
    assert words in str(caught.value)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def unlist(folder: Path, name: str) -> None:
    assert (folder / name).is_file()
    files = json.loads((folder / MANIFEST).read_text())["files"]
    change(folder, files={one: entry for one, entry in files.items() if one != name})


def ask(folder: Path, **fields: object) -> None:
    change(folder, question=json.loads((folder / MANIFEST).read_text())["question"] | fields)


def reshape(folder: Path, **fields: object) -> None:
    change(folder, shape=json.loads((folder / MANIFEST).read_text())["shape"] | fields)


def shorten(folder: Path) -> None:
    before = json.loads((folder / MANIFEST).read_text())["question"]["before"]
    ask(folder, before=before[:-1])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: reshape(folder, layers=3), "stage prefix: keys_3_out: got (1, 4, "),
        (lambda folder: reshape(folder, layers=9), "allowed: (1, 4, "),
        (lambda folder: reshape(folder, kv_heads=2), "tensor(float), allowed: (1, 2, "),
        (lambda folder: reshape(folder, head_dim=32), "tensor(float), allowed: (1, 4, "),
        (lambda folder: reshape(folder, deep_levels=1), "stage prefix: deep: got (2, "),
        (lambda folder: reshape(folder, width=64), "embeddings.npy: got ("),
        (lambda folder: reshape(folder, vocabulary=5000), "embeddings.npy: got ("),
        (shorten, "stage prefix: keys_0_out: got (1, 4, "),
        (lambda folder: ask(folder, capacity=2000), "stage tail: keys_0: got (1, 4, "),
        (lambda folder: change(folder, jump=7), "stage jump: x: got (24, 128) tensor(float), allowed: (7, 128)"),
        (lambda folder: change(folder, precision="float16"), "float32, allowed: (350, 128) float16 in float16"),
        (lambda folder: change(folder, precision="bfloat16"), "float32, allowed: (350, 128) uint16 in bfloat16"),
    ],
)
def test_a_manifest_of_other_graphs_is_named(harm, words: str, exported: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Its files are those that it lists, and yet they are not what it says."""
    folder = shutil.copytree(exported, tmp_path / "copy", copy_function=os.link)
    manifest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_bytes(manifest)
    harm(folder)
    done = CliRunner().invoke(app, ["verify", str(folder)])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert words in said


def change(folder: Path, **fields: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | fields
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_what_cannot_be_exported_is_named(exported: Path, tmp_path: Path) -> None:
    from training.tiny.model import write_tiny_checkpoint
    from training.tiny.student import write_tiny_student

    teacher = write_tiny_checkpoint(tmp_path / "teacher")
    with pytest.raises(ExportError, match="is a 'qwen2_vl', allowed: a Qwen3-VL"):
        export_checkpoint(ModelConfig(path=str(teacher)), tmp_path / "out", precision="float32")
    other = write_tiny_student(tmp_path / "student")
    with pytest.raises(ConfigError, match="precision: got 'int3'"):
        export_checkpoint(ModelConfig(path=str(other)), tmp_path / "out", precision="int3")
    nowhere = ModelConfig(path=str(tmp_path / "none"))  # what is wrong shows before it is looked for
    with pytest.raises(ExportError, match="allowed: a folder that is not there yet"):
        export_checkpoint(nowhere, exported, precision="float32")
    with pytest.raises(PairsError, match="not a folder"):
        export_checkpoint(nowhere, tmp_path / "out", precision="float32", calibration=tmp_path / "no pairs")
    with pytest.raises(ExportError, match="allowed: a folder that is not there yet"):
        export_checkpoint(ModelConfig(path=str(other), size_px=(64, 64)), exported, precision="float32")
    config = InspectorConfig(engine="vlm", model=ModelConfig(path=str(exported), size_px=(64, 64)))
    with pytest.raises(ConfigError, match=r"model\.size_px: got \(64, 64\), allowed: nothing for an export"):
        EdgeInspector(config=config)
