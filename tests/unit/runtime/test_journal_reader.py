"""Asking a journal: filters, pages, counts, and reading while somebody writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journals import record

from differad_edge.config import parse_config
from differad_edge.errors import ConfigError, JournalError
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_query import ResultQuery
from differad_edge.runtime.journal_reader import JournalReader


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "line.sqlite") as opened:
        yield opened


@pytest.fixture
def filled(journal: Journal) -> Journal:
    """Twelve results: 1 to 4 OK, 5 to 8 NG, 9 and 10 UNDECIDED, 11 and 12 ERROR, seconds apart."""
    for sequence in range(1, 13):
        verdict = "OK" if sequence <= 4 else "NG" if sequence <= 8 else "UNDECIDED" if sequence <= 10 else "ERROR"
        journal.append(
            record(
                sequence,
                verdict,
                reason={9: "deadline", 10: "no-frame", 11: "engine-failure", 12: "engine-failure"}.get(sequence),
                product="b" if sequence % 2 == 0 else "a",
                station="left" if sequence % 3 == 0 else "right",
                part_id=f"part-{sequence // 2}",
                session="old" if sequence < 7 else "new",
            )
        )
    for sequence, mark in ((1, "confirmed"), (2, "overruled"), (5, "overruled"), (6, "confirmed"), (7, "cleared")):
        journal.review(sequence, mark)
    return journal


def found(journal: Journal, **fields: Any) -> list[int]:
    with JournalReader(journal.path) as reader:
        query = parse_config(fields, ResultQuery)
        every = [stored.record.sequence for stored in reader.all_results(query)]
        listed = [stored.record.sequence for stored in reader.results(query)]
        assert listed == every[: query.limit]
        assert reader.counts(query).total == len(every)
        return listed


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, list(range(1, 13))),
        ({"after_sequence": 10}, [11, 12]),
        ({"before_sequence": 3}, [1, 2]),
        ({"after_sequence": 3, "before_sequence": 6}, [4, 5]),
        ({"station": "left"}, [3, 6, 9, 12]),
        ({"product": "b"}, [2, 4, 6, 8, 10, 12]),
        ({"verdict": "OK"}, [1, 2, 3, 4]),
        ({"verdict": ["NG", "ERROR"]}, [5, 6, 7, 8, 11, 12]),
        ({"verdict": ["OK", "ERROR"]}, [1, 2, 3, 4, 11, 12]),
        ({"reason": "engine-failure"}, [11, 12]),
        ({"since_utc": "2026-05-04T10:00:11Z"}, [11, 12]),
        ({"since_utc": "2026-05-04T12:00:11+02:00"}, [11, 12]),  # another zone
        ({"since_utc": "2026-05-04T10:00:11"}, [11, 12]),  # no zone: UTC
        ({"since_utc": "2026-05-05"}, []),
        ({"until_utc": "2026-05-04T10:00:03Z"}, [1, 2]),
        ({"trigger_id": "t-7"}, [7]),
        ({"part_id": "part-3"}, [6, 7]),
        ({"session": "old"}, [1, 2, 3, 4, 5, 6]),
        ({"reviewed": "confirmed"}, [1, 6]),
        ({"reviewed": "overruled"}, [2, 5]),
        ({"reviewed": "any"}, [1, 2, 5, 6]),
        ({"reviewed": "none", "verdict": "NG"}, [7, 8]),
        ({"limit": 2}, [1, 2]),
        ({"newest_first": True, "limit": 3}, [12, 11, 10]),
        ({"newest_first": True, "verdict": "NG"}, [8, 7, 6, 5]),
        ({"product": "'; DROP TABLE results; --"}, []),
    ],
)
def test_filters(filled: Journal, fields: dict[str, Any], expected: list[int]) -> None:
    assert found(filled, **fields) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sequence": 3}, "sequence: unknown setting, allowed here: after_sequence"),
        ({"verdict": "GOOD"}, "verdict.0: got 'GOOD', allowed: 'OK', 'NG'"),
        ({"limit": 0}, "limit: got 0"),
        ({"limit": 10**9}, "limit: got 1000000000"),
        ({"after_sequence": -1}, "after_sequence: got -1"),
        ({"since_utc": "yesterday"}, "since_utc: got 'yesterday'"),
        ({"reviewed": "maybe"}, "reviewed: got 'maybe', allowed: 'confirmed', 'overruled', 'none' or 'any'"),
        ({"part_id": "x" * 2000}, "part_id: got "),
        ({"part_id": "\udcff"}, "part_id: got "),
    ],
)
def test_what_cannot_be_asked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(fields, ResultQuery, where="query")
    assert str(caught.value).startswith(f"query: {message}")


def test_counts(filled: Journal) -> None:
    with JournalReader(filled.path) as reader:
        counts = reader.counts()
        assert counts.total == 12
        assert counts.verdicts == {"OK": 4, "NG": 4, "UNDECIDED": 2, "ERROR": 2}
        assert counts.products["a"] == {"OK": 2, "NG": 2, "UNDECIDED": 1, "ERROR": 1}
        assert counts.reasons == {"deadline": 1, "no-frame": 1, "engine-failure": 2}
        assert counts.marks == {"confirmed": 2, "overruled": 2}
        assert reader.counts(ResultQuery(verdict=("OK",), limit=1)).verdicts == {"OK": 4}


def test_pages_bring_each_result_once(journal: Journal) -> None:
    for sequence in range(1, 1203):
        journal.append(record(sequence, "OK"))
    with JournalReader(journal.path) as reader:
        assert [s.record.sequence for s in reader.all_results()] == list(range(1, 1203))
        newest = ResultQuery(newest_first=True)
        assert [s.record.sequence for s in reader.all_results(newest, at_most=700)] == list(range(1202, 502, -1))
        assert len(reader.results()) == 1000


def test_one_result(filled: Journal) -> None:
    with JournalReader(filled.path) as reader:
        stored = reader.get(5)
        assert stored is not None
        answer = stored.to_dict()
        assert reader.get(99) is None
        assert reader.last_sequence() == 12
    assert (answer["sequence"], answer["verdict"], answer["review"]["mark"]) == (5, "NG", "overruled")
    assert answer["has_image"] is False
    wanted = "schema_version sequence trigger_id product verdict reason score findings engine reference_sha256"
    assert set(f"{wanted} captured_utc timings".split()) <= set(answer)


def test_reading_while_another_thread_writes(journal: Journal) -> None:
    """Whatever a reader sees is a whole beginning of what was written."""
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        with JournalReader(journal.path) as reader:
            while True:
                last = done.is_set()
                numbers = [stored.record.sequence for stored in reader.all_results()]
                assert numbers == list(range(1, len(numbers) + 1))
                seen.append(len(numbers))
                if last:
                    return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for sequence in range(1, 401):
        journal.append(record(sequence, "OK"))
    done.set()
    for thread in threads:
        thread.join()
    assert seen[-1] == 400
    assert len(seen) > 4


def test_following(journal: Journal) -> None:
    journal.append(record(1))
    got: list[int] = []
    with JournalReader(journal.path) as reader:
        for stored in reader.follow(poll_ms=5, stop=lambda: len(got) == 3):
            got.append(stored.record.sequence)
            if len(got) < 3:
                journal.append(record(len(got) + 1))
    assert got == [1, 2, 3]


def test_a_journal_without_its_server(filled: Journal) -> None:
    filled.close()
    with JournalReader(filled.path) as reader:
        assert reader.last_sequence() == 12


def test_refusals(tmp_path: Path, filled: Journal) -> None:
    with pytest.raises(JournalError, match=r"none\.sqlite: no such file"):
        JournalReader(tmp_path / "none.sqlite")
    reader = JournalReader(filled.path)
    reader.close()
    reader.close()
    with pytest.raises(JournalError, match="this reader is closed"):
        reader.results()


def test_a_record_that_cannot_be_read_is_named(filled: Journal) -> None:
    with filled.background_write("spoil a record") as connection:
        connection.execute("UPDATE results SET record = '{}' WHERE sequence = 3")
    with JournalReader(filled.path) as reader, pytest.raises(JournalError, match="result 3 cannot be read"):
        reader.results()


def test_it_cannot_write(filled: Journal) -> None:
    with JournalReader(filled.path) as reader, pytest.raises(JournalError, match="it is read-only"):
        reader._rows("DELETE FROM results")


def test_the_filters_that_matter_use_an_index(filled: Journal) -> None:
    from differad_edge.runtime.journal_query import where_clause

    for fields, index in (
        ({"trigger_id": "t"}, "results_by_trigger"),
        ({"part_id": "p"}, "results_by_part"),
        ({"verdict": ["NG"]}, "results_not_ok"),
    ):
        condition, parameters = where_clause(ResultQuery(**fields))  # type: ignore[arg-type]
        sql = f"EXPLAIN QUERY PLAN SELECT * FROM results LEFT JOIN marks USING (sequence) WHERE {condition}"
        with filled.background_write("explain") as connection:
            plan = str(connection.execute(sql, parameters).fetchall())
        assert index in plan, plan
