"""A tokenizer or a chat template of another model: named before anything is asked with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from differad_edge.config import ModelConfig
from differad_edge.engines.vlm.load import load_student, read_card
from differad_edge.engines.vlm.tokens import tokenizer_sha256
from differad_edge.errors import ModelIntegrityError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.student import write_tiny_student

    folder = write_tiny_student(tmp_path_factory.mktemp("student"))
    (folder / "student.json").write_text(json.dumps({"size_px": [128, 128]}))
    return folder


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


def load(folder: Path) -> Any:
    return load_student(ModelConfig(path=str(folder)), dtype="float32")


def swap(folder: Path, one: str, other: str) -> None:
    """Let two tokens change places, in a vocabulary that stays as large as it was."""
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    places = {one: other, other: one}
    for token in said["added_tokens"]:
        token["content"] = places.get(token["content"], token["content"])
    file.write_text(json.dumps(said))


def card(folder: Path, **fields: object) -> None:
    file = folder / "student.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (
            "<|image_pad|>",
            "<|video_pad|>",
            "<|image_pad|>: got the id {other} of its tokenizer, allowed: {one}, the im",
        ),
        ("<|vision_start|>", "<|box_start|>", "<|vision_start|>: got the id {other} of its tokenizer, allowed: {one}"),
        ("<|vision_end|>", "<|quad_end|>", "<|vision_end|>: got the id {other} of its tokenizer, allowed: {one}"),
        (
            "<|im_end|>",
            "<|im_start|>",
            "<|im_end|>: got the id {other} of its tokenizer, allowed: {one}, the eos_token",
        ),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(one: str, other: str, words: str, checkpoint: Path) -> None:
    ids = load(checkpoint).processor.tokenizer.convert_tokens_to_ids([one, other])
    swap(checkpoint, one, other)
    with pytest.raises(ModelIntegrityError) as caught:
        load(checkpoint)
    assert words.format(one=ids[0], other=ids[1]) in str(caught.value)


def test_any_end_that_the_config_names_is_one(checkpoint: Path) -> None:
    """Qwen3-VL's generation config names two."""
    end = load(checkpoint).processor.tokenizer.eos_token_id
    for name, section in (("config.json", "text_config"), ("generation_config.json", None)):
        file = checkpoint / name
        said = json.loads(file.read_text())
        (said if section is None else said[section])["eos_token_id"] = None if section else [end, 0]
        file.write_text(json.dumps(said))
    assert end in load(checkpoint).question.stop


def test_a_card_tells_a_verdict_that_changed_its_place(checkpoint: Path) -> None:
    """Nothing else can: every id is that of a token, and OK would be said of what is NG."""
    right = load(checkpoint).question.grammar.verdicts
    card(checkpoint, tokenizer_sha256=tokenizer_sha256(checkpoint))
    assert load(checkpoint).question.grammar.verdicts == right
    swap(checkpoint, "OK", "NG")
    with pytest.raises(ModelIntegrityError, match=r"tokenizer_sha256: got [0-9a-f]{12} of its tokenizer.json, allowed"):
        load(checkpoint)
    card(checkpoint, tokenizer_sha256=None)
    assert load(checkpoint).question.grammar.verdicts == right[::-1]
    card(checkpoint, tokenizer_sha256="x")
    with pytest.raises(ModelIntegrityError, match=r"student\.json: tokenizer_sha256: got 'x'"):
        load(checkpoint)


def test_training_writes_whose_tokenizer_it_is(checkpoint: Path, tmp_path: Path) -> None:
    from training.recipe import ModelRecipe
    from training.student import write_student_card

    trained = shutil.copytree(checkpoint, tmp_path / "final")
    swap(trained, "<|box_end|>", "<|quad_end|>")  # not that of what it was trained from
    card(checkpoint, tokenizer_sha256=tokenizer_sha256(checkpoint))
    write_student_card(ModelRecipe(path=str(checkpoint)), trained)
    assert read_card(str(trained)).tokenizer_sha256 == tokenizer_sha256(trained) != tokenizer_sha256(checkpoint)
    assert read_card(str(trained)).size_px == (128, 128)
    (trained / "tokenizer.json").unlink()
    write_student_card(ModelRecipe(path=str(checkpoint)), trained)
    assert read_card(str(trained)).tokenizer_sha256 is None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "does not have a chat template"),
        ("{% for", "unexpected 'end of template'"),
        ("{{ messages.foo.bar }}", "has no attribute 'foo'"),
        ("{{ raise_exception('images first') }}", "images first"),
    ],
)
def test_a_chat_template_that_fails_is_named(template: str | None, words: str, checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    if template is not None:
        (checkpoint / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelIntegrityError, match=r"^chat template: cannot be used: ") as caught:
        load(checkpoint)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
