"""Counters and latencies of a line for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from differad_edge.errors import MissingExtraError

try:
    import prometheus_client
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise MissingExtraError("line", "prometheus-client") from error

if TYPE_CHECKING:
    from differad_edge.outputs.outbox import OutboxStats
    from differad_edge.runtime.record import ResultRecord

__all__ = ["Metrics"]

_LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


class _Requests(Collector):
    """Counters that somebody else keeps, read when they are asked for."""

    def __init__(self, counters: Callable[[], Mapping[str, int]]) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("differad_edge_requests", "Requests on the control socket.", labels=("outcome",))
        for outcome, count in self._counters().items():
            family.add_metric((outcome,), count)
        yield family


class _Outputs(Collector):
    """What the outboxes count, read when it is asked for."""

    def __init__(self, stats: Callable[[], Sequence[OutboxStats]]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        name = "differad_edge_output"
        sent = CounterMetricFamily(f"{name}_sent", "Results that the other side has confirmed.", labels=("output",))
        failures = CounterMetricFamily(f"{name}_failures", "Broken connections and attempts.", labels=("output",))
        dropped = CounterMetricFamily(
            f"{name}_dropped", "Results that were not sent, by cause.", labels=("output", "cause")
        )
        waiting = GaugeMetricFamily(f"{name}_waiting", "Results that are not confirmed yet.", labels=("output",))
        is_open = GaugeMetricFamily(f"{name}_open", "1 when it is connected, or listens.", labels=("output",))
        for stats in self._stats():
            sent.add_metric((stats.name,), stats.sent)
            failures.add_metric((stats.name,), stats.failures)
            waiting.add_metric((stats.name,), stats.waiting)
            is_open.add_metric((stats.name,), stats.open)
            for cause, count in stats.dropped.items():
                dropped.add_metric((stats.name, cause), count)
        yield from (sent, failures, dropped, waiting, is_open)


class Metrics:
    """The figures of one server, in a registry of its own: two servers in a process do not mix theirs."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        prefix = "differad_edge"
        self._results = Counter(
            f"{prefix}_results", "Results by verdict and reason.", ("station", "verdict", "reason"), registry=registry
        )
        self._drops = Counter(
            f"{prefix}_dropped_frames", "Frames that were not inspected.", ("station", "cause"), registry=registry
        )
        self._refused = Counter(
            f"{prefix}_refused_triggers", "Triggers that were not accepted.", ("station", "code"), registry=registry
        )
        self._latency = Histogram(
            f"{prefix}_latency_seconds",
            "From the trigger, or in free run the capture, to the published result.",
            ("station",),
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._stages = Histogram(
            f"{prefix}_stage_seconds",
            "Time in each stage.",
            ("stage",),
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._ready = Gauge(f"{prefix}_station_ready", "1 when triggers are accepted.", ("station",), registry=registry)
        self._camera = Gauge(f"{prefix}_camera_connected", "1 when frames come.", ("station",), registry=registry)
        self._lost = Counter(f"{prefix}_camera_losses", "Broken connections.", ("station",), registry=registry)
        self._restarts = Counter(f"{prefix}_engine_restarts", "Engines replaced because they hung.", registry=registry)
        self._unjournaled = Counter(
            f"{prefix}_unjournaled_results", "Results that the journal could not take.", registry=registry
        )
        self._late = Counter(
            f"{prefix}_late_results", "Comparisons that ended after their deadline.", registry=registry
        )
        self._alarms = Gauge(f"{prefix}_alarm", "1 while an alarm is active.", ("code",), registry=registry)
        self._sequence = Gauge(f"{prefix}_last_sequence", "Sequence number of the last result.", registry=registry)

    def result(self, record: ResultRecord, latency_s: float) -> None:
        """A result was published ``latency_s`` after its trigger."""
        self._results.labels(record.station, record.verdict.value, record.result.reason or "").inc()
        self._latency.labels(record.station).observe(latency_s)
        for stage, ms in record.result.timings.stages.items():
            self._stages.labels(stage).observe(ms / 1000)
        self._sequence.set(record.sequence)
        if not record.journaled:
            self._unjournaled.inc()

    def dropped(self, station: str, cause: str, count: int) -> None:
        """Frames of a station were dropped."""
        self._drops.labels(station, cause).inc(count)

    def refused(self, station: str, code: str) -> None:
        """A trigger was not accepted."""
        self._refused.labels(station, code).inc()

    def ready(self, station: str, value: bool) -> None:
        """Whether a station accepts triggers."""
        self._ready.labels(station).set(value)

    def camera(self, station: str, connected: bool) -> None:
        """A camera came or went."""
        self._camera.labels(station).set(connected)
        if not connected:
            self._lost.labels(station).inc()

    def engine_restarted(self) -> None:
        """A hanging engine was replaced."""
        self._restarts.inc()

    def late(self) -> None:
        """A comparison ended after its deadline."""
        self._late.inc()

    def watch_requests(self, counters: Callable[[], Mapping[str, int]]) -> None:
        """Requests on the control socket by what became of them (refused, malformed, undeliverable, ...)."""
        self._registry.register(_Requests(counters))

    def watch_outputs(self, stats: Callable[[], Sequence[OutboxStats]]) -> None:
        """Each output's results: sent, waiting, dropped."""
        self._registry.register(_Outputs(stats))

    def alarm(self, code: str, active: bool) -> None:
        """An alarm began or ended."""
        self._alarms.labels(code).set(active)

    def text(self) -> bytes:
        """Prometheus text format, version 0.0.4."""
        return bytes(prometheus_client.generate_latest(self._registry))
