"""The benchmark: what it counts, with a clock that is scripted, and what `bench` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from commands import run, use_engine

from differad_edge.benchmarking import measure, peak_memory_mib, run_benchmark
from differad_edge.errors import ConfigError
from differad_edge.images import Image
from differad_edge.results import InspectionResult, Timings, Verdict

FRAMES = [np.full((32, 32, 3), grey, np.uint8) for grey in (10, 20, 30)]


class Scripted:
    """Takes the times that it is given, on a clock of its own."""

    def __init__(self, times_ms: Sequence[float]) -> None:
        self.now_s = 100.0
        self.times: Iterator[float] = iter(times_ms)
        self.seen: list[int] = []

    def clock(self) -> float:
        return self.now_s

    def inspect(self, frame: Image, /, product: str) -> InspectionResult:
        taken_ms = next(self.times)
        self.now_s += taken_ms / 1e3
        self.seen.append(int(frame[0, 0, 0]))
        return InspectionResult(
            verdict=Verdict.OK,
            reason=None,
            score=0.1,
            threshold=0.5,
            findings=(),
            timings=Timings({"align": taken_ms / 4, "compare": taken_ms / 2}, taken_ms),
            product=product,
            reference_id=None,
            reference_sha256=None,
            engine="scripted",
            image_size=(32, 32),
        )


class TestMeasure:
    def test_the_warm_up_is_apart_and_the_frames_take_turns(self) -> None:
        scripted = Scripted([500, 90, 10, 20, 30, 40])
        moved: list[tuple[int, int]] = []
        latencies = measure(
            scripted, "x", FRAMES, n=4, warm_up=2, clock=scripted.clock, progress=lambda *step: moved.append(step)
        )
        report = latencies.to_dict()
        assert scripted.seen == [10, 20, 30, 10, 20, 30]
        assert moved == [(done, 6) for done in range(1, 7)]
        assert report["warm_up"] == {"n": 2, "first_ms": pytest.approx(500), "last_ms": pytest.approx(90)}
        assert latencies.total_ms == pytest.approx((10, 20, 30, 40))
        assert (report["n"], report["p50_ms"], report["max_ms"]) == (4, pytest.approx(25), pytest.approx(40))
        assert report["verdicts"] == {"OK": 4}

    def test_jitter_is_the_distance_from_the_middle_to_the_slowest_hundredth(self) -> None:
        scripted = Scripted([10.0] * 98 + [60.0, 110.0])
        report = measure(scripted, "x", FRAMES, n=100, warm_up=0, clock=scripted.clock).to_dict()
        assert report["p99_ms"] == pytest.approx(60.5)
        assert report["jitter_ms"] == pytest.approx(50.5)
        assert report["std_ms"] == pytest.approx(np.std([10.0] * 98 + [60.0, 110.0]))
        assert report["warm_up"] == {"n": 0, "first_ms": None, "last_ms": None}

    def test_stages_are_those_of_the_results(self) -> None:
        scripted = Scripted([1000, 8, 8, 8])
        report = measure(scripted, "x", FRAMES, n=3, warm_up=1, clock=scripted.clock).to_dict()
        assert report["stages"] == {
            "align": {"p50_ms": pytest.approx(2), "p95_ms": pytest.approx(2)},
            "compare": {"p50_ms": pytest.approx(4), "p95_ms": pytest.approx(4)},
        }

    @pytest.mark.parametrize(("n", "warm_up", "frames"), [(0, 1, FRAMES), (1, -1, FRAMES), (1, 1, [])])
    def test_nothing_to_measure_is_refused(self, n: int, warm_up: int, frames: list[Image]) -> None:
        with pytest.raises(ConfigError, match="allowed: at least 1, 0 and 1"):
            measure(Scripted([]), "x", frames, n=n, warm_up=warm_up)


def test_memory_is_measured_where_it_can_be() -> None:
    peak = peak_memory_mib()
    assert peak is None or 10 < peak < 100_000


class TestRun:
    def test_the_report_has_the_names_that_others_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        use_engine(monkeypatch)
        monkeypatch.setenv("DIFFERAD_STORE", str(tmp_path / "mine"))
        out = tmp_path / "latency.json"
        shown = run("bench", "--size", "160", "--pairs", "5", "--good", "3", "--json", out)
        assert (shown.code, shown.err) == (0, "")
        report = json.loads(out.read_text())
        keys = {"p50_ms", "p95_ms", "p99_ms", "max_ms", "jitter_ms", "n", "stages", "machine", "warm_up", "memory"}
        assert set(report) >= keys
        assert (report["n"], report["size_px"], report["engine"]) == (5, [160, 160], "pixel")
        # This engine compares place by place only.
        assert (report["good"], report["product"], report["learning"]) == (3, "board", None)
        assert set(report["prepare_ms"]) == {"register"}
        assert set(report["stages"]) >= {"align", "compare", "decide"}
        assert 0 < report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"] <= report["max_ms"]
        assert sum(report["verdicts"].values()) == 5
        for words in ("160x160 px", "p99 - p50", "Warm-up: 10 inspections apart", "Machine:"):
            assert words in shown.out
        assert not (tmp_path / "mine").exists()

    def test_json_on_standard_output_is_one_object_and_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        use_engine(monkeypatch)
        shown = run("bench", "--size", "160", "--pairs", "2", "--json", "-")
        assert (shown.code, shown.err) == (0, "")
        assert json.loads(shown.out)["n"] == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--pairs", "0"], "pairs: got 0, allowed: 1 to 1000000"),
            (["--good", "0"], "good: got 0, allowed: 1 to 100"),
            (["--size", "50"], "size: got 50, allowed: 128 to 4096 pixels"),
            (["--size", "160", "--pairs", "1", "--threads", "-1"], "EdgeInspector: threads: got -1, allowed"),
        ],
    )
    def test_bad_input_is_named_in_one_line(self, arguments: list[str], message: str) -> None:
        shown = run("bench", *arguments)
        assert (shown.code, shown.out) == (2, "")
        assert shown.error.startswith(f"error [invalid-config]: {message}")

    @pytest.mark.slow
    def test_the_shipped_model_gives_every_part_a_verdict(self) -> None:
        report = run_benchmark(size=256, pairs=6)
        assert report["engine"] == "lite"
        assert set(report["verdicts"]) <= {"OK", "NG"}
