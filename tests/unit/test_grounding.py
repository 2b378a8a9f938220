"""The grounding format: prompts, grammar, strict parser, round trips, and texts that mean harm."""

from __future__ import annotations

import hashlib
import re
from typing import Any

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
    student_format_ok,
    training_prompt,
)
from differad_edge.results import Box, Verdict

# A text that changes needs a new PROMPT_VERSION: checkpoints are asked with the version they were trained with.
HASHES = {"1": "855b23772283b9f34a209794a9b791742723ce356c1c2282f5067b089b4b090f"}

grid_boxes = st.tuples(*[st.integers(0, 1000)] * 4).filter(lambda b: b[0] < b[2] and b[1] < b[3])
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
pieces = st.sampled_from(["<", ">", "</", "<think", "answer>", "(0,0),(0,0)", "OK", "NG", "[1,2,3,4]", "\n"])
thoughts = (st.text(max_size=60) | st.lists(pieces, max_size=8).map("".join)).map(str.strip)
writable_thoughts = thoughts.filter(lambda text: not any(tag in text for tag in TAGS))


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
        ("<answer>[(0,0),(0,0)]</answer>", Answer(None)),  # no anomaly, a list of pairs
        ("<answer>OK: (0,0),(0,0).</answer>", Answer(None)),  # verdict, zero box and full stop
        ("<answer>[(0,0),(0,0)].</answer>", Answer(None)),  # a list and full stop
        ("\n<answer>\n( [0, 0, 0, 0] )\n</answer>\n", Answer(None)),  # lines of their own
        (
            "\n<think>Same.</think>\n<answer>(0,0),(0,0)</answer><|im_end|>\n",
            Answer(None, "Same.", True),
        ),  # an end token
        ("<|endoftext|><think>Same.</think><answer>OK</answer>", Answer(None, "Same.", True)),  # padding in front
        ("<answer>[(1,2),(3,4)]</answer>", Answer((1, 2, 3, 4))),  # a list of pairs
        ("<answer>(1,2),(3,4),(0,0),(0,0)</answer>", Answer((1, 2, 3, 4))),  # the zero box is not the first
        ("<think>never closed <answer>(1,2),(3,4)</answer>", Answer((1, 2, 3, 4))),  # an open thought is none
        ("<think>a <answer>(1,2),(3,4)</answer> b</think>", Answer((1, 2, 3, 4))),  # nor one around the answer
        ("<think>a</think><answer>(1,2),(3,4)</answer><think>b</think>", Answer((1, 2, 3, 4), "a", True)),  # first one
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
        ("<answer>ok</answer>", AnswerFault.NO_BOX),  # another token
        ("<answer>OK(</answer>", AnswerFault.NO_BOX),  # a box that breaks off
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
        ("<answer>ok (1,2),(3,4)</answer>", AnswerFault.CONTRADICTION),  # lower case
        ("<answer>NG(0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),
        ("<answer>ng(0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),  # lower case
        ("<answer>(0,0),(0,0) NG</answer>", AnswerFault.CONTRADICTION),  # the verdict behind
        ("<answer>(0,0),(0,0)</answer>NG", AnswerFault.CONTRADICTION),  # and outside
        ("<answer>OK</answer> Wait, (1,2),(3,4) is damaged", AnswerFault.CONTRADICTION),  # taken back
        ("<answer>OK</answer>< answer>(1,2),(3,4)</answer>", AnswerFault.CONTRADICTION),  # taken back, misspelt
        ("<answer>OK</answer><think>The part lo", AnswerFault.CONTRADICTION),  # words that break off
        ("<answer>OK</answer><think>a</think><think>b</think>", AnswerFault.CONTRADICTION),  # two thoughts
        ("<think>a</think><think>b</think><answer>OK</answer>", AnswerFault.CONTRADICTION),  # two thoughts in front
        (
            "</think><think>The format is <answer>(0,0),(0,0)</answer>",
            AnswerFault.CONTRADICTION,
        ),  # as many ends as starts
        ("<think>a</think></think><think>x<answer>OK</answer>", AnswerFault.CONTRADICTION),  # the same, later
        ("<think>a</think> or <answer>OK</answer>", AnswerFault.CONTRADICTION),  # words between
        ("<Think>quote <answer>OK</answer>", AnswerFault.CONTRADICTION),  # a misspelt thought
        ("I should not say <answer>OK</answer>", AnswerFault.CONTRADICTION),  # words in front
        ("There is a big scratch at (1,1),(5,5). <answer>(0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),  # a box
        ("<answer>(0,0),(0,0),,,((</answer>", AnswerFault.CONTRADICTION),  # a second box that breaks off
        ("<answer>(0,0),(0,0)(</answer>", AnswerFault.CONTRADICTION),  # a bracket that does not close
        ("<answer>[(0,0),(0,0))</answer>", AnswerFault.CONTRADICTION),  # nor this one
        ("<answer>#(0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),  # the parser's own sign
        ("<think>Only <answer>(0,0),(0,0)</answer> when fine. But", AnswerFault.CONTRADICTION),  # quoted in a thought
        ("<think><answer>(0,0),(0,0)</answer></think>", AnswerFault.CONTRADICTION),  # quoted in a whole thought
        ("<answer>not OK (0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),  # words beside the zero box
        ("<answer>(1,2),(3),(0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),  # a broken box before the zero box
        ("<answer>(1,2,3,4),(0,0),(0,0)</answer>", AnswerFault.CONTRADICTION),  # another broken one
        ("<answer>(0,0),(0,0),(1,2),(3,4)</answer>", AnswerFault.CONTRADICTION),  # a real box after the zero box
        ("<answer>OK</answer><answer>NG(1,2),(3,4)</answer>", AnswerFault.CONTRADICTION),  # a second opinion
        (
            "<think>same is <answer>(0,0),(0,0)</answer>.</think><answer>(1,2),(3,4)</answer>",
            AnswerFault.CONTRADICTION,  # the format quoted in the thought
        ),
        ("x" * (MAX_ANSWER_CHARS + 1), AnswerFault.TOO_LONG),
        ("<answer>OK</answer>" + " " * MAX_ANSWER_CHARS, AnswerFault.TOO_LONG),  # though it could be read
        ("<answer>" * 125_000, AnswerFault.TOO_LONG),  # a million characters
    ],
)
def test_what_the_parser_refuses(text: Any, fault: AnswerFault) -> None:
    with pytest.raises(AnswerError) as caught:
        parse_answer(text)
    assert caught.value.reason == fault.value
    assert caught.value.code == "unparsable-answer"
    assert len(str(caught.value)) < 300


@given(grid_boxes | st.none(), writable_thoughts)
def test_what_is_written_is_read_back(box: grounding.GridBox | None, thought: str) -> None:
    assert parse_answer(format_answer(box, thought)) == Answer(box, thought, True)
    assert parse_answer(format_student_answer(box, thought)) == Answer(box, thought, False)
    assert parse_answer(format_student_answer(box)) == Answer(box)
    assert format_ok(format_answer(box, thought))


def stands_in(answer: Answer, text: str) -> bool:
    """Whether the text holds this very box, or says that there is none: an oracle that knows nothing of the grammar."""
    plain = re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"\s", "", text))
    x1, y1, x2, y2 = answer.box or (0, 0, 0, 0)
    forms = (f"({x1},{y1}),({x2},{y2})", f"({x1},{y1})({x2},{y2})", f"[{x1},{y1},{x2},{y2}]")
    return any(form in plain for form in forms) or (answer.box is None and "<answer>OK</answer>" in plain)


def read_or_refuse(text: str) -> Answer | None:
    try:
        return parse_answer(text)
    except AnswerError as error:
        fault = AnswerFault(error.reason)  # ValueError for a reason that is not one
    assert fault is not AnswerFault.TAG_IN_THOUGHT
    return None


@given(st.text(max_size=120) | st.text(alphabet="<>/()[],0123456789 answerthinkOKNG-.", max_size=120))
def test_any_text_gives_an_answer_that_stands_in_it_or_an_answer_error(text: str) -> None:
    for candidate in (text, f"<answer>{text}</answer>", f"<answer>{text}(0,0),(0,0)</answer>"):
        answer = read_or_refuse(candidate)
        assert answer is None or stands_in(answer, candidate)
        assert format_ok(candidate) in (True, False)


characters = st.sampled_from([*"<>/()[], 0159-.OKNG", "", "</answer>", "<answer>", "(0,0),(0,0)"])
edits = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 3), characters), min_size=1, max_size=4)


def edited(text: str, changes: list[tuple[int, int, str]]) -> str:
    for at, removed, inserted in changes:
        text = text[:at] + inserted + text[at + removed :]
    return text


@given(grid_boxes | st.none(), st.booleans(), edits)
def test_a_mutated_answer_never_gives_a_box_that_is_not_in_it(
    box: grounding.GridBox | None, student: bool, changes: list[tuple[int, int, str]]
) -> None:
    text = edited(format_student_answer(box, "A chip.") if student else format_answer(box, "A chip."), changes)
    answer = read_or_refuse(text)
    assert answer is None or stands_in(answer, text)


@given(grid_boxes, st.integers(0, 60), st.sampled_from([*"<>/()[], 0159-.OKNG", "", "OK", "(0,0),(0,0)", "[0,0,0,0]"]))
def test_one_change_never_turns_the_students_ng_into_ok(box: grounding.GridBox, at: int, inserted: str) -> None:
    text = format_student_answer(box, "A chip.")
    for removed in (0, 1):
        answer = read_or_refuse(edited(text, [(at, removed, inserted)]))
        assert answer is None or answer.box is not None


@given(grid_boxes, st.integers(0, 80), st.booleans())
def test_a_torn_answer_never_reads_as_no_anomaly(box: grounding.GridBox, at: int, student: bool) -> None:
    whole = format_student_answer(box, "A chip.") if student else format_answer(box, "A chip.")
    for torn in (whole[:at], whole[at:]):
        answer = read_or_refuse(torn)
        assert answer is None or answer.box == box


PIECES = ["<answer>", "(", "(1,2)", "[1,2,", "<think>", "</think>", " ", "(1,2) ", "(1,2),", ",", "0", "(1", "\u0661"]


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_repetition_is_read_in_linear_time(monkeypatch: pytest.MonkeyPatch, piece: str) -> None:
    # A hundred times the longest text that is read: quadratic work on it takes minutes to hours, linear work a blink.
    size = 100 * MAX_ANSWER_CHARS
    monkeypatch.setattr(grounding, "MAX_ANSWER_CHARS", 2 * size)
    repeated = piece * (size // len(piece))
    zero = "<answer>{}(0,0),(0,0){}</answer>"
    for text in (
        *(repeated, f"<think>x</think><answer>{repeated}</answer>", f"<answer>(1,2){repeated}</answer>"),
        *(zero.format("", f"{repeated}x"), zero.format(f"OK{repeated}x", ""), f"{repeated}{zero.format('', '')}"),
    ):
        read_or_refuse(text)
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


@pytest.mark.parametrize(
    "box",
    [
        (3, 2, 1, 4),  # reversed
        (1, 2, 1, 4),  # no width
        (1, 2, 3, 1001),  # outside
        (-1, 2, 3, 4),  # outside on the other side
        (0, 0, 0, 0),  # None says that there is no anomaly
        (1, 2, 3),  # three numbers
        (1.0, 2.0, 3.0, 4.0),  # floats
    ],
)
def test_an_impossible_box_is_not_written(box: Any) -> None:
    with pytest.raises(BoxError):
        format_answer(box, "x")
    with pytest.raises(BoxError):
        format_student_answer(box)


@pytest.mark.parametrize(
    ("thought", "fault"),
    [
        ("see </think>", AnswerFault.TAG_IN_THOUGHT),
        ("<answer>", AnswerFault.TAG_IN_THOUGHT),
        ("y" * MAX_ANSWER_CHARS, AnswerFault.TOO_LONG),
        (7, AnswerFault.NOT_TEXT),
    ],
)
def test_a_thought_that_would_break_the_grammar_is_not_written(thought: Any, fault: AnswerFault) -> None:
    for write in (format_answer, format_student_answer):
        with pytest.raises(AnswerError) as caught:
            write(None, thought)
        assert caught.value.reason == fault.value


def test_the_longest_thought_that_is_written_is_read_back() -> None:
    thought = "y" * (MAX_ANSWER_CHARS // 2)
    assert parse_answer(format_student_answer((1, 2, 3, 4), thought)) == Answer((1, 2, 3, 4), thought)


def test_the_verdict_follows_the_box() -> None:
    assert Answer((1, 2, 3, 4)).verdict is Verdict.NG
    assert Answer(None).verdict is Verdict.OK


def test_a_box_comes_in_pixels_of_the_target() -> None:
    assert Answer((100, 200, 500, 1000)).box_px(640, 480) == Box(64.0, 96.0, 320.0, 480.0)
    assert Answer(None).box_px(640, 480) is None


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        (format_student_answer(None), True),
        (format_student_answer(None, "Nothing differs."), True),
        (format_student_answer((1, 2, 30, 40), "A scratch."), True),
        ("<answer>NG(1,2),(3,4)</answer>", False),  # no words
        ("<answer>NG</answer><think>a</think>", False),  # no box
        ("<answer>OK(1,2),(3,4)</answer>", False),
        ("<answer>NG(1,2),(3,4)(1,2),(3,4)</answer><think>a</think>", False),
        ("<answer>NG(1,x),(3,4)</answer><think>a</think>", False),
        (" <answer>OK</answer>", False),
        ("<answer>OK</answer> and more", False),
        ("<answer>OK", False),
        ("<think>a</think><answer>OK</answer>", False),  # the teacher's order
        ("", False),
        (3, False),
    ],
)
def test_the_format_of_a_student(text: Any, ok: bool) -> None:
    assert student_format_ok(text) is ok
