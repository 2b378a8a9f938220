"""The error tree: stable codes, drawn as it is, picklable."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from differad_edge import errors
from differad_edge.errors import AnswerError, DifferadError, MissingExtraError, MissingSystemPackageError, RefusedError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, DifferadError)]
DRAWN = re.compile(r"^ {4}(?P<indent>[ │├└]*)(?P<name>[A-Z]\w+) +(?P<code>[a-z-]+)(?: \(.*\))?$", re.MULTILINE)
OWN_CONSTRUCTOR = (AnswerError, MissingExtraError, MissingSystemPackageError, RefusedError)


def test_every_class_is_public_and_drawn_with_its_code_under_its_base() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, tuple[str, str | None]] = {}
    parents: list[str] = []
    for match in DRAWN.finditer(errors.__doc__):
        depth = len(match["indent"]) // 3 + (1 if len(match["indent"]) % 3 else 0)
        parents[depth:] = [match["name"]]
        drawn[match["name"]] = (match["code"], parents[depth - 1] if depth else None)
    real = {cls.__name__: (cls.code, None if cls is DifferadError else cls.__bases__[0].__name__) for cls in CLASSES}
    assert drawn == real
    assert set(errors.__all__) == set(real)


def test_codes_are_unique_kebab_case() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_missing_extra_says_what_to_install_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("vlm", "transformers")))
    assert str(error) == "'transformers' is not installed; install it with: pip install 'differad-edge[vlm]'"
    assert (error.extra, error.package, error.code) == ("vlm", "transformers", "missing-extra")


def test_a_missing_system_package_says_what_to_install_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(MissingSystemPackageError("Aravis", "apt-get install gir1.2-aravis-0.8")))
    assert str(error) == "Aravis is not installed; install it with: apt-get install gir1.2-aravis-0.8"
    assert (error.what, error.code) == ("Aravis", "missing-system-package")


def test_an_answer_that_cannot_be_parsed_carries_its_reason_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(AnswerError("answer: got '', allowed: a box", "no-box")))
    assert (error.code, error.reason, str(error)) == ("unparsable-answer", "no-box", "answer: got '', allowed: a box")


def test_a_refusal_carries_the_servers_code_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(RefusedError("busy", "a part is being inspected")))
    assert (error.code, str(error)) == ("busy", "a part is being inspected")
    assert RefusedError.code == "refused"


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls not in OWN_CONSTRUCTOR])
def test_message_is_kept(cls: type[DifferadError]) -> None:
    assert str(pickle.loads(pickle.dumps(cls("roi: got ()")))) == "roi: got ()"
