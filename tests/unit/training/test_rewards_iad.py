"""The rewards of IAD-R1 and LR-IAD."""

from __future__ import annotations

import difflib
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.errors import TrainingError
from differad_edge.grounding import MAX_ANSWER_CHARS
from training.rewards_iad import (
    COLUMNS,
    ROWS,
    FocalConfig,
    Structured,
    TypeTaxonomy,
    accuracy_reward,
    cell_of,
    consistency_reward,
    focal_reward,
    location_score,
    read_structured,
    yes_no_format_reward,
)

quick = settings(max_examples=80, deadline=None)

NAMES = sorted(frozenset().union(*TypeTaxonomy().synonyms))

YES = "<think>A line runs across it.</think><location>upper left</location><type>scratch</type><answer>Yes</answer>"
NO = "<think>Nothing differs.</think><answer>No</answer>"
MALFORMED = (
    "",
    "Yes",
    "<answer>Yes",
    "</answer>Yes<answer>",
    "<think>a<answer>No</answer>",
    "<think>a<answer>No</answer></think>",  # one tag in another
    "<think>a</think><answer>No</think></answer>",
    "<think>a</think><answer>No</answer><answer>No</answer>",
    "<think>a</think> so <answer>No</answer>",
    "Well: <think>a</think><answer>No</answer>",
    "<think>a</think><answer>No</answer> Done.",
)


class TestParser:
    def test_yes(self) -> None:
        order = ("think", "location", "type", "answer")
        assert read_structured(YES) == Structured(order, "upper left", "scratch", "Yes")

    def test_no_with_white_space(self) -> None:
        text = " <think>a < b > c, </b></think>\n<answer> No </answer>\n"
        assert read_structured(text) == Structured(("think", "answer"), None, None, "No")

    @pytest.mark.parametrize("text", MALFORMED[2:])
    def test_malformed(self, text: str) -> None:
        assert read_structured(text) is None

    @pytest.mark.parametrize("text", ["x" * (MAX_ANSWER_CHARS + 1), None, b"<answer>No</answer>"])
    def test_no_text_or_too_long(self, text: object) -> None:
        assert read_structured(text) is None  # type: ignore[arg-type]

    @quick
    @given(
        st.permutations(["think", "location", "type", "answer"]),
        st.lists(st.text(alphabet="ab<>/ \n", max_size=6), max_size=4),
        st.sampled_from(["", " ", "\n\n"]),
    )
    def test_what_is_written_is_read(self, names: list[str], contents: list[str], between: str) -> None:
        parts = dict(zip(names, contents, strict=False))
        text = between.join(f"<{name}>{content}</{name}>" for name, content in parts.items())
        inside = {name: content.strip() for name, content in parts.items()}
        expected = Structured(tuple(parts), inside.get("location"), inside.get("type"), inside.get("answer"))
        assert read_structured(text) == expected
        assert read_structured(f"{text}x") is None
        assert read_structured(f"{text}<think>") is None

    @pytest.mark.parametrize("piece", ["<think>", "</answer>", "<think></think>", "<", "<answer", " ", "a "])
    def test_time_is_linear(self, piece: str) -> None:
        text = piece * (MAX_ANSWER_CHARS // len(piece))
        started = time.process_time()
        for tail in ("", "<answer>Yes</answer>"):
            consistency_reward([(text + tail)[-MAX_ANSWER_CHARS:]])
        # A quadratic search of 20,000 characters takes many seconds, a linear one milliseconds.
        assert time.process_time() - started < 1.0


class TestConsistency:
    def test_right(self) -> None:
        assert consistency_reward([YES, NO]).tolist() == [1.0, 1.0]
        assert consistency_reward([]).shape == (0,)

    @pytest.mark.parametrize(
        "text",
        [
            *MALFORMED,
            "<think>a</think><answer>Yes</answer>",  # Yes needs both
            "<think>a</think><location>left</location><answer>Yes</answer>",
            "<think>a</think><type>dent</type><location>left</location><answer>Yes</answer>",  # another order
            "<location>left</location><type>dent</type><think>a</think><answer>Yes</answer>",
            "<think>a</think><location> </location><type>dent</type><answer>Yes</answer>",
            YES.replace("Yes", "No"),  # No has neither
            NO.replace("No", "no"),
            NO.replace("No", "Maybe"),
            "<answer>No</answer>",
            "<answer>No</answer><think>a</think>",
        ],
    )
    def test_wrong(self, text: str) -> None:
        assert consistency_reward([YES, text, NO]).tolist() == [1.0, 0.0, 1.0]


class TestAccuracy:
    def test_good_parts(self) -> None:
        assert accuracy_reward([NO, YES, "No"], [None] * 3, [None] * 3).tolist() == [1.0, 0.0, 0.0]

    def test_defective_parts(self) -> None:
        texts = [YES] * 5 + [NO, YES + "."]
        locations = ["top left", "upper left", "lower left", "centre", None, "upper left", "upper left"]
        types = ["scratch", "scrape", "scratch", "bent", "scratch", "scratch", "scratch"]
        # 1 + (1 + 1)/2; 1 + (0.85 + 1)/2; 1 + (1 + 0)/2; 1 + 0; 1 + (1 + 0)/2; No; text outside the tags.
        expected = [2.0, 1.925, 1.5, 1.0, 1.5, 0.0, 0.0]
        assert accuracy_reward(texts, locations, types).tolist() == pytest.approx(expected, abs=1e-12)

    def test_a_taxonomy_of_ones_own(self) -> None:
        table = TypeTaxonomy((frozenset({"scratch", "hairline"}),), {}, ())
        assert accuracy_reward([YES], ["upper left"], ["hairline"], table).tolist() == [1.925]
        assert accuracy_reward([YES], ["upper left"], ["hairline"]).tolist() == [1.5]

    def test_arguments(self) -> None:
        with pytest.raises(TrainingError, match="types: got 1 rows for 2 texts"):
            accuracy_reward([YES, NO], [None, None], [None])
        with pytest.raises(TrainingError, match="locations: got 0 rows for 1 texts"):
            accuracy_reward([YES], [], ["dent"])
        with pytest.raises(TrainingError, match=r"locations: row 1 is 'somewhere', allowed: upper, middle, lower and"):
            accuracy_reward([NO, NO], [None, "somewhere"], [None, "dent"])
        with pytest.raises(TrainingError, match="locations: row 0 is 3, allowed: upper"):
            accuracy_reward([NO], [3], ["dent"])  # type: ignore[list-item]
        with pytest.raises(TrainingError, match="types: row 1 is 5, allowed: a text, or None"):
            accuracy_reward([NO, YES], [None, None], ["dent", 5])  # type: ignore[list-item]


class TestLocation:
    def test_every_cell_of_the_grid(self) -> None:
        names = [
            (row, column, f"{word} {side}") for row, word in enumerate(ROWS) for column, side in enumerate(COLUMNS)
        ]
        for row, column, name in names:
            assert cell_of(name) == (row, column), name
            assert [location_score(name, other) for _, _, other in names].count(1.0) == 1

    @pytest.mark.parametrize(
        ("text", "cell"),
        [
            ("Top-Left corner", (0, 0)),
            ("left", (1, 0)),
            ("bottom", (2, 1)),
            ("upper middle", (0, 1)),
            ("middle right", (1, 2)),
            ("the center", (1, 1)),
            ("middle", (1, 1)),
            ("lower_right", (2, 2)),
            ("somewhere", None),
            ("", None),
            ("left and right", None),
            ("upper left, lower right", None),
            ("upper left and centre", None),
        ],
    )
    def test_words(self, text: str, cell: tuple[int, int] | None) -> None:
        assert cell_of(text) == cell
        assert location_score(text, text) == float(cell is not None)

    def test_none_is_nowhere(self) -> None:
        assert location_score(None, "left") == location_score("left", None) == location_score(None, None) == 0.0


class TestTypes:
    TABLE = TypeTaxonomy()

    @pytest.mark.parametrize(
        ("said", "true", "score"),
        [
            ("scratch", "scratch", 1.0),
            ("Broken_Large ", "broken large", 1.0),
            ("划痕", "划痕", 1.0),
            ("scrape", "scratch", 0.85),
            ("scrape", "abrasion", 0.85),
            ("color", "discoloration", 0.85),
            ("dent", "scratch", 0.6),  # both on the surface
            ("scrape", "bump", 0.6),  # by their synonyms
            ("missing", "bent", 0.6),
            ("scratch", "stain", 0.3),  # surface and appearance lie close
            ("broken", "misplaced", 0.3),
            ("scratch", "bent", 0.0),
            ("scratch", "unheard of", 0.0),
            ("", "scratch", 0.0),
            ("!", "?", 0.0),
        ],
    )
    def test_scores(self, said: str, true: str, score: float) -> None:
        assert self.TABLE.score(said, true) == pytest.approx(score, abs=1e-12)

    def test_fuzzy(self) -> None:
        # "scratches" holds all 7 letters of "scratch": similarity 2 * 7 / (9 + 7) = 0.875; 0.4 * 0.875 = 0.35.
        assert self.TABLE.score("scratches", "scratch") == pytest.approx(0.35, abs=1e-12)
        # "abcdefg" in "abcdefgxxxxxx": 2 * 7 / 20 = 0.7, just enough: 0.28. One letter more: 14 / 21 < 0.7.
        assert self.TABLE.score("abcdefgxxxxxx", "abcdefg") == pytest.approx(0.28, abs=1e-12)
        assert self.TABLE.score("abcdefgxxxxxxx", "abcdefg") == 0.0

    def test_fuzzy_comes_before_group(self) -> None:
        table = TypeTaxonomy((), {"a": frozenset({"abcdefgh"}), "b": frozenset({"abcdefgx"})}, (frozenset({"a", "b"}),))
        # 7 letters of 8 and 8: similarity 14 / 16.
        assert table.score("abcdefgh", "abcdefgx") == pytest.approx(0.4 * 0.875, abs=1e-12)

    @quick
    @given(st.one_of(st.text(max_size=12), st.sampled_from(NAMES)), st.sampled_from(NAMES))
    def test_bounded_and_one_only_for_the_name_itself(self, said: str, true: str) -> None:
        score = self.TABLE.score(said, true)
        same = "".join(filter(str.isalnum, said.lower())) == true.replace(" ", "")
        assert 0.0 <= score <= 0.85 or (score == 1.0 and same)
        assert self.TABLE.score(true.upper(), true) == 1.0

    def test_a_long_name_takes_no_long_time(self) -> None:
        said = "abc" * (MAX_ANSWER_CHARS // 3)
        started = time.process_time()
        assert self.TABLE.score(said, "cba" * 20) == 0.0
        # difflib alone takes seconds to find that these are not similar.
        assert time.process_time() - started < 0.5

    def test_similarity_is_difflibs(self) -> None:
        said, true = "contamnation", "contamination"
        ratio = difflib.SequenceMatcher(None, said, true).ratio()
        assert self.TABLE.score(said, true) == pytest.approx(0.4 * ratio, abs=1e-12)

    @pytest.mark.parametrize(
        ("synonyms", "categories", "groups", "message"),
        [
            ((frozenset({"Dent"}),), {}, (), "taxonomy: got the name 'Dent', allowed: lower case"),
            ((), {"shape": frozenset({"pin-hole"})}, (), "taxonomy: got the name 'pin-hole'"),
            ((), {"shape": frozenset({""})}, (), "taxonomy: got the name ''"),
            ((frozenset({"a", "b"}), frozenset({"b"})), {}, (), "synonyms: 'b' stands in two sets"),
            ((), {"shape": frozenset({"bent"})}, (frozenset({"shapes"}),), "groups: got 'shapes', allowed: shape"),
        ],
    )
    def test_bad_tables(
        self,
        synonyms: tuple[frozenset[str], ...],
        categories: dict[str, frozenset[str]],
        groups: tuple[frozenset[str], ...],
        message: str,
    ) -> None:
        with pytest.raises(TrainingError, match=message):
            TypeTaxonomy(synonyms, categories, groups)


class TestFocal:
    BARE_YES = "<think>a</think><answer>Yes</answer>"

    def test_by_hand(self) -> None:
        # alpha 2, gamma 2, one part in five defective. Defect found: 2 * (1 - 0.2)^2 = 1.28; good part passed:
        # 2 * (1 - 0.8)^2 = 0.08.
        config = FocalConfig(alpha=2.0, gamma=2.0, defect_share=0.2)
        texts = [self.BARE_YES, NO, self.BARE_YES, NO, "Yes"]
        rewards = focal_reward(texts, [True, False, False, True, True], config)
        assert rewards.tolist() == pytest.approx([1.28, 0.08, 0.0, 0.0, 0.0], abs=1e-12)

    def test_without_focus_all_right_answers_are_worth_alpha(self) -> None:
        config = FocalConfig(alpha=0.7, gamma=0.0, defect_share=0.1)
        assert focal_reward([self.BARE_YES, NO], [True, False], config).tolist() == [0.7, 0.7]

    @quick
    @given(st.floats(0, 5), st.floats(0, 1))
    def test_the_rarer_kind_earns_more(self, gamma: float, share: float) -> None:
        found, passed = focal_reward([self.BARE_YES, NO], [True, False], FocalConfig(1.0, gamma, share))
        assert 0.0 <= min(found, passed) <= max(found, passed) <= 1.0
        assert (found >= passed) if share <= 0.5 else (found <= passed)

    def test_a_right_answer_is_worth_f(self) -> None:
        config = FocalConfig(alpha=2.0, gamma=2.0, defect_share=0.2, f=0.5)
        assert focal_reward([self.BARE_YES, NO], [True, True], config).tolist() == pytest.approx([0.64, 0.0], abs=1e-12)

    @pytest.mark.parametrize("field", ["alpha", "gamma", "defect_share", "f"])
    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", True])
    def test_bad_values(self, field: str, value: object) -> None:
        with pytest.raises(TrainingError, match=rf"{field}: got .* allowed: "):
            FocalConfig(**{field: value})  # type: ignore[arg-type]

    def test_a_share_above_one(self) -> None:
        with pytest.raises(TrainingError, match=r"defect_share: got 1\.5, allowed: 0 to 1"):
            FocalConfig(defect_share=1.5)

    def test_unequal_lengths(self) -> None:
        with pytest.raises(TrainingError, match="defective: got 2 rows for 1 texts"):
            focal_reward([NO], [True, False], FocalConfig())

    def test_format(self) -> None:
        texts = [self.BARE_YES, NO, YES, *MALFORMED, NO.replace("No", "Maybe"), "<answer>No</answer>"]
        rewards = yes_no_format_reward(texts)
        assert rewards.dtype == np.float64
        assert rewards.tolist() == [1.0, 1.0] + [0.0] * (len(texts) - 2)
