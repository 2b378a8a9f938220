"""The grounding format: prompts, grammar, strict parser, round trips, and texts that mean harm."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from differad_edge import grounding
from differad_edge.errors import AnswerError, BoxError
from differad_edge.grounding import (
    BASELINE_PROMPT,
    EVALUATION_PROMPT,
    MAX_ANSWER_CHARS,
    PROMPT_VERSION,
    TRAINING_PROMPTS,
    Answer,
    AnswerFault,
    format_answer,
    format_ok,
    format_student_answer,
    messages,
    parse_answer,
    training_prompt,
)
from differad_edge.results import Box

# A text that changes needs a new PROMPT_VERSION: checkpoints are asked with the version they were trained with.
HASHES = {"1": "855b23772283b9f34a209794a9b791742723ce356c1c2282f5067b089b4b090f"}

grid_boxes = st.tuples(*[st.integers(0, 1000)] * 4).filter(lambda b: b[0] < b[2] and b[1] < b[3])
thoughts = st.text(max_size=60).map(lambda text: text.replace("<", "").strip())


def test_the_texts_are_those_of_their_version() -> None:
    texts = "\n".join((*TRAINING_PROMPTS, EVALUATION_PROMPT, BASELINE_PROMPT))
    assert {PROMPT_VERSION: hashlib.sha256(texts.encode()).hexdigest()} == HASHES


def test_every_prompt_says_all_that_an_answer_needs() -> None:
    prompts = (*TRAINING_PROMPTS, EVALUATION_PROMPT, BASELINE_PROMPT)
    assert len(set(prompts)) == len(prompts) == 22
    for prompt in prompts:
        assert prompt.isascii()
        assert "\n" not in prompt
        for part in ("<think>", "</think>", "<answer>", "</answer>", "(x1,y1),(x2,y2)", "(0,0),(0,0)", "1000"):
            assert part in prompt, (part, prompt)


def test_a_group_keeps_its_prompt_and_groups_differ() -> None:
    drawn = [training_prompt(group, seed=3) for group in range(400)]
    assert drawn == [training_prompt(group, seed=3) for group in range(400)]
    assert set(drawn) == set(TRAINING_PROMPTS)
    assert drawn != [training_prompt(group, seed=4) for group in range(400)]


def test_the_reference_comes_before_the_target_and_the_text_last() -> None:
    (turn,) = messages("Compare.")
    assert turn["role"] == "user"
    assert turn["content"] == [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Compare."}]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>A chip.</think><answer>(1,2),(3,4)</answer>", Answer((1, 2, 3, 4), "A chip.", True)),  # the teacher's
        ("<answer>NG(1,2),(3,4)</answer><think>A chip.</think>", Answer((1, 2, 3, 4), "A chip.", False)),  # student's
        ("<answer>(1,2),(3,4)</answer>", Answer((1, 2, 3, 4))),  # no thought
        ("<answer>[1,2,3,4]</answer>", Answer((1, 2, 3, 4))),  # brackets
        ("<answer> [ 1, 2, 3 ,4 ] </answer>", Answer((1, 2, 3, 4))),  # brackets with white space
        ("<answer>( 1, 2 ) , ( 3, 4 )</answer>", Answer((1, 2, 3, 4))),  # pairs with white space
        ("<answer>(1,2) (3,4)</answer>", Answer((1, 2, 3, 4))),  # no comma between the pairs
        ("<answer>(1,2),(3,4),(5,6),(7,8)</answer>", Answer((1, 2, 3, 4))),  # the first box counts
        ("<answer>(1,2),(3,4)</answer><answer>(5,6),(7,8)</answer>", Answer((1, 2, 3, 4))),  # the first answer counts
        ("<answer>the box is (1,2),(3,4)</answer>", Answer((1, 2, 3, 4))),  # words in front
        ("<answer>(007,045),(120,999)</answer>", Answer((7, 45, 120, 999))),  # leading zeros
        ("<answer>(0,0),(1000,1000)</answer>", Answer((0, 0, 1000, 1000))),  # the whole image
        ("<answer>(0,0),(0,0)</answer>", Answer(None)),  # no anomaly
        ("<answer>[0,0,0,0]</answer>", Answer(None)),  # no anomaly, brackets
        ("<answer>OK</answer>", Answer(None)),  # the verdict alone
        ("<answer> OK (0,0),(0,0)</answer>", Answer(None)),  # verdict and zero box
        ("<think>never closed <answer>(1,2),(3,4)</answer>", Answer((1, 2, 3, 4))),  # an open thought is none
    ],
)
def test_what_the_parser_takes(text: str, answer: Answer) -> None:
    assert parse_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, AnswerFault.NOT_TEXT),
        (b"<answer>OK</answer>", AnswerFault.NOT_TEXT),
        ("", AnswerFault.NO_ANSWER),
        ("(1,2),(3,4)", AnswerFault.NO_ANSWER),  # a box outside the tags
        ("<ANSWER>(1,2),(3,4)</ANSWER>", AnswerFault.NO_ANSWER),  # tags are lower case
        ("</answer><answer>(1,2),(3,4)", AnswerFault.UNCLOSED_ANSWER),  # the end comes first
        ("<answer>(1,2),(3,4)", AnswerFault.UNCLOSED_ANSWER),  # cut off
        ("<answer></answer>(1,2),(3,4)", AnswerFault.NO_BOX),  # empty
        ("<answer>none</answer>", AnswerFault.NO_BOX),  # words
        ("<answer>NG</answer>", AnswerFault.NO_BOX),  # a defect without a place
        ("<answer>OK then</answer>", AnswerFault.NO_BOX),  # more than the verdict
        ("<answer>OKAY</answer>", AnswerFault.NO_BOX),  # another word
        ("<answer>(1,2),(3)</answer>", AnswerFault.NO_BOX),  # three numbers
        ("<answer>[1,2,3]</answer>", AnswerFault.NO_BOX),  # three numbers in brackets
        ("<answer>(1,2),(3.5,4)</answer>", AnswerFault.NOT_INTEGER),  # a float
        ("<answer>(-1,2),(3,4)</answer>", AnswerFault.NOT_INTEGER),  # a sign
        ("<answer>(+1,2),(3,4)</answer>", AnswerFault.NOT_INTEGER),  # the other sign
        ("<answer>(x1,y1),(x2,y2)</answer>", AnswerFault.NOT_INTEGER),  # the prompt's own words
        ("<answer>(1e2,2),(300,4)</answer>", AnswerFault.NOT_INTEGER),  # an exponent
        ("<answer>(\u0661,2),(3,4)</answer>", AnswerFault.NOT_INTEGER),  # digits of another script
        ("<answer>(1_0,2),(30,4)</answer>", AnswerFault.NOT_INTEGER),  # what int() would take
        ("<answer>(1,2),(3,1001)</answer>", AnswerFault.OUTSIDE),  # just outside
        (f"<answer>(1,2),(3,{'9' * 9000})</answer>", AnswerFault.OUTSIDE),  # an integer of 9000 digits
        ("<answer>(3,2),(1,4)</answer>", AnswerFault.REVERSED),
        ("<answer>(1,4),(3,2)</answer>", AnswerFault.REVERSED),
        ("<answer>(1,2),(1,4)</answer>", AnswerFault.EMPTY_BOX),
        ("<answer>(5,5),(5,5)</answer>", AnswerFault.EMPTY_BOX),  # a point is not the zero box
        ("<answer>OK(1,2),(3,4)</answer>", AnswerFault.CONTRADICTION),
        ("<answer>NG(0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),
        ("x" * (MAX_ANSWER_CHARS + 1), AnswerFault.TOO_LONG),
    ],
)
def test_what_the_parser_refuses(text: str, fault: AnswerFault) -> None:
    with pytest.raises(AnswerError) as caught:
        parse_answer(text)
    assert caught.value.reason == fault.value
    assert caught.value.code == "unparsable-answer"
    assert len(str(caught.value)) < 300


@given(grid_boxes | st.none(), thoughts)
def test_what_is_written_is_read_back(box: grounding.GridBox | None, thought: str) -> None:
    assert parse_answer(format_answer(box, thought)) == Answer(box, thought, True)
    assert parse_answer(format_student_answer(box, thought)) == Answer(box, thought, False)
    assert parse_answer(format_student_answer(box)) == Answer(box)
    assert format_ok(format_answer(box, thought))


@given(st.text(alphabet="<>/()[],0123456789 answerthinkOKNG-.", max_size=120))
def test_any_text_gives_an_answer_that_stands_in_it_or_an_answer_error(text: str) -> None:
    for candidate in (text, f"<answer>{text}</answer>"):
        try:
            answer = parse_answer(candidate)
        except AnswerError as error:
            assert error.reason in {fault.value for fault in AnswerFault}
            continue
        numbers = [int(number) for number in re.findall(r"[0-9]+", candidate)]
        if answer.box is None:
            assert "OK" in candidate or numbers.count(0) >= 4
        else:
            assert set(answer.box) <= set(numbers)


@given(grid_boxes, st.integers(0, 60), st.integers(0, 60))
def test_a_torn_answer_never_reads_as_no_anomaly(box: grounding.GridBox, start: int, end: int) -> None:
    whole = format_answer(box, "A chip.")
    torn = whole[: len(whole) - end - 1] if end else whole[start:]
    try:
        assert parse_answer(torn).box is not None
    except AnswerError:
        pass


@pytest.mark.parametrize("piece", ["<answer>", "(", "(1,2)", "[1,2,", "<think>", " ", "(1,2) ", ",", "0"])
def test_a_long_repetition_is_read_once(piece: str) -> None:
    # Quadratic work on the longest text would take minutes.
    text = f"<answer>{piece * (MAX_ANSWER_CHARS // len(piece))}"[: MAX_ANSWER_CHARS - 9] + "</answer>"
    try:
        parse_answer(text)
    except AnswerError:
        pass
    format_ok(text)


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("<think>A chip.</think><answer>(1,2),(3,4)</answer>", True),
        (" <think>\nA chip.\n</think>\n <answer> [1,2,3,4] </answer>\n", True),  # white space
        ("<think></think><answer>(0,0),(0,0)</answer>", True),  # an empty thought
        ("<think>x</think><answer>(9,9),(1,1)</answer>", True),  # the box may be wrong: that is another reward
        ("<answer>(1,2),(3,4)</answer>", False),  # no thought
        ("<answer>(1,2),(3,4)</answer><think>x</think>", False),  # the student's order
        ("So: <think>x</think><answer>(1,2),(3,4)</answer>", False),  # text in front
        ("<think>x</think><answer>(1,2),(3,4)</answer> done", False),  # text behind
        ("<think>x</think> hm <answer>(1,2),(3,4)</answer>", False),  # text between
        ("<think>x</think><answer>(1,2),(3,4),(5,6),(7,8)</answer>", False),  # two boxes
        ("<think>x</think><answer>(1,2),(3,4.0)</answer>", False),  # not integers
        ("<think>x</think><answer>OK</answer>", False),  # no box
        ("<think>x<think></think><answer>(1,2),(3,4)</answer>", False),  # a tag twice
        ("<think>x<answer>(1,2),(3,4)</answer></think>", False),  # nested
        ("", False),
    ],
)
def test_the_format_reward_asks_for_the_whole_text(text: str, ok: bool) -> None:
    assert format_ok(text) is ok


@pytest.mark.parametrize("box", [(3, 2, 1, 4), (1, 2, 3, 1001), (0, 0, 0, 0), (1, 1, 1, 1)])
def test_an_impossible_box_is_not_written(box: grounding.GridBox) -> None:
    with pytest.raises(BoxError):
        format_answer(box, "x")
    with pytest.raises(BoxError):
        format_student_answer(box)


@pytest.mark.parametrize("thought", ["see </think>", "<answer>", "y" * MAX_ANSWER_CHARS])
def test_a_thought_that_would_break_the_grammar_is_not_written(thought: str) -> None:
    with pytest.raises(AnswerError):
        format_answer(None, thought)


def test_a_box_comes_in_pixels_of_the_target() -> None:
    assert Answer((100, 200, 500, 1000)).box_px(640, 480) == Box(64.0, 96.0, 320.0, 480.0)
    assert Answer(None).box_px(640, 480) is None
