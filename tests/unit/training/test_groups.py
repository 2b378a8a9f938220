"""Which rows each process draws again, and the histogram of weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.groups import next_redraw, weight_shares


@pytest.mark.parametrize(
    ("degenerate", "generations", "process", "local_rows", "rows", "kept"),
    [
        ([True, False], 2, 0, 4, (0, 1), {0, 1}),  # one process, one of its two groups
        ([False, True], 2, 0, 4, (2, 3), {2, 3}),  # the other
        ([True, True], 2, 0, 4, (0, 1, 2, 3), {0, 1, 2, 3}),  # both
        ([True, False], 2, 0, 2, (0, 1), {0, 1}),  # two processes, a group on each
        ([True, False], 2, 1, 2, (0, 1), set()),  # the other must take part and keeps what it had
        ([True, True, False, True], 2, 1, 4, (2, 3, 0, 1), {2, 3}),  # as many as the process with the most
        ([True], 4, 0, 2, (0, 1), {0, 1}),  # a group over two processes: each draws all its rows
        ([False, True], 4, 0, 2, (0, 1), set()),  # four processes, two a group
        ([False, True], 4, 2, 2, (0, 1), {0, 1}),
    ],
)
def test_rows_that_are_drawn_again(degenerate, generations, process, local_rows, rows, kept) -> None:  # type: ignore[no-untyped-def]
    plan = next_redraw(np.array(degenerate), generations, process, local_rows)
    assert plan.rows == rows
    assert plan.kept == kept


@given(st.data())
def test_every_process_asks_for_as_many_and_nothing_else_is_replaced(data: st.DataObject) -> None:
    generations = data.draw(st.integers(2, 6))
    processes = data.draw(st.integers(1, 4))
    local_rows = data.draw(st.integers(1, 12).filter(lambda rows: rows * processes % generations == 0))
    groups = local_rows * processes // generations
    degenerate = np.array(data.draw(st.lists(st.booleans(), min_size=groups, max_size=groups)))
    plans = [next_redraw(degenerate, generations, process, local_rows) for process in range(processes)]
    assert len({len(plan.rows) for plan in plans}) == 1
    replaced = [process * local_rows + row for process, plan in enumerate(plans) for row in plan.kept]
    assert sorted(replaced) == np.flatnonzero(np.repeat(degenerate, generations)).tolist()
    for plan in plans:
        assert plan.kept <= set(plan.rows)
        assert len(set(plan.rows)) == len(plan.rows)


def test_the_weights_histogram() -> None:
    shares = weight_shares(np.array([1.0, 1.2, 1.25, 1.6, 2.06]))
    assert shares == {"from_1": 0.4, "from_1.25": 0.2, "from_1.5": 0.2, "from_1.75": 0.2}
