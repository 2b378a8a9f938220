"""Hot swap: the old inspector serves until another one has passed its smoke pairs."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from line_fakes import Bench, ScriptedInspector, picture, running, until

from differad_edge.cameras.simulated import SimulatedProduct
from differad_edge.engines.lite import LiteEngine
from differad_edge.errors import EngineError, SmokeTestError, UnknownProductError
from differad_edge.images import Image
from differad_edge.inspector import EdgeInspector
from differad_edge.references.store import ReferenceStore
from differad_edge.results import Verdict
from differad_edge.runtime.loading import Loader
from differad_edge.runtime.serving import Serving
from differad_edge.runtime.settings import SmokePair, WatchdogSettings
from differad_edge.runtime.smoke import damaged, smoke_test
from differad_edge.runtime.states import State


def store_with(folder: Path, *products: str) -> ReferenceStore:
    store = ReferenceStore(folder)
    for product in products:
        store.register(product, [picture(7)])
    return store


def proves_nothing(inspector: object, product: object) -> None:
    pass


def test_a_load_takes_the_place_of_the_old_one_and_closes_it(tmp_path: Path) -> None:
    built: list[ScriptedInspector] = []

    def build(engine: str | None) -> ScriptedInspector:
        built.append(ScriptedInspector())
        return built[-1]

    serving = Serving(build, store_with(tmp_path, "p"), ["p"], proves_nothing)
    assert serving.current is None
    first = serving.load()
    second = serving.load()
    assert (first.number, second.number) == (1, 2)
    assert serving.current is second
    assert (built[0].closed, built[1].closed) == (True, False)
    assert second.products["p"].reference_id == "p/ref-001"


def test_a_load_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    built: list[ScriptedInspector] = []
    refuse: list[str] = []

    def build(engine: str | None) -> ScriptedInspector:
        built.append(ScriptedInspector())
        if engine == "broken":
            raise EngineError("cannot be loaded")
        return built[-1]

    def prove(inspector: object, product: object) -> None:
        if refuse:
            raise SmokeTestError("garbage")

    serving = Serving(build, store_with(tmp_path, "p"), ["p"], prove)
    good = serving.load()
    with pytest.raises(EngineError):
        serving.load(engine="broken")
    refuse.append("x")
    with pytest.raises(SmokeTestError):
        serving.load()
    assert built[-1].closed
    refuse.clear()
    with pytest.raises(UnknownProductError):
        serving.load(also="q")
    assert serving.current is good
    assert serving.products == ("p",)
    assert serving.load().number == 2


def test_a_version_in_the_store_that_is_not_in_use_is_noticed(tmp_path: Path) -> None:
    store = store_with(tmp_path, "p")
    serving = Serving(lambda engine: ScriptedInspector(), store, ["p"], proves_nothing)
    assert (serving.in_use(), serving.stored()) == ({}, {"p": 1})
    serving.load()
    store.register("p", [picture(8)])
    assert (serving.in_use(), serving.stored()) == ({"p": 1}, {"p": 2})
    serving.load()
    assert serving.in_use() == serving.stored()


def test_an_inspector_that_serves_keeps_its_version_until_it_is_replaced(tmp_path: Path, lite: LiteEngine) -> None:
    product = SimulatedProduct("gasket", 256)
    serving_one = EdgeInspector(tmp_path, lite, follow_store=False)
    follower = EdgeInspector(tmp_path, lite)
    follower.register("g", [product.golden()])
    part = product.good(1)
    before = serving_one.inspect(part, "g").reference_sha256
    follower.register("g", [SimulatedProduct("gasket", 256, seed=3).good(2)])
    assert serving_one.inspect(part, "g").reference_sha256 == before
    assert follower.inspect(part, "g").reference_sha256 != before


class TestSmoke:
    @pytest.mark.parametrize("name", ["gasket", "board", "label"])
    def test_the_embedded_engine_passes(self, tmp_path: Path, lite: LiteEngine, name: str) -> None:
        inspector = EdgeInspector(tmp_path, lite)
        product = inspector.register(name, [SimulatedProduct(name, 320).golden()])
        smoke_test(inspector, product, {})

    @pytest.mark.parametrize("verdict", list(Verdict))
    def test_an_engine_that_gives_always_the_same_verdict_never_passes(self, tmp_path: Path, verdict: Verdict) -> None:
        product = store_with(tmp_path, "p").load("p")
        stuck = ScriptedInspector()
        stuck.inspect = lambda *args, **named: _always(verdict)  # type: ignore[method-assign]
        with pytest.raises(SmokeTestError, match="'p'"):
            smoke_test(stuck, product, {})

    def test_own_pairs_count_too(self, tmp_path: Path) -> None:
        product = store_with(tmp_path / "store", "p").load("p")
        file = tmp_path / "known-bad.png"
        cv2.imwrite(str(file), picture(9))
        golden = product.references[0].image

        def script(image: Image, name: str) -> Verdict:
            return Verdict.NG if np.array_equal(image, damaged(product.references[0])) else Verdict.OK

        inspector = ScriptedInspector(script)
        smoke_test(inspector, product, {})
        assert script(golden, "p") is Verdict.OK
        with pytest.raises(SmokeTestError, match=r"known-bad\.png got OK.*allowed: NG"):
            smoke_test(inspector, product, {"p": [SmokePair(image=file, verdict="NG")]})

    def test_the_damage_lies_where_it_is_compared(self, tmp_path: Path) -> None:
        ignore = np.ones((48, 64), bool)
        ignore[4:24, 36:60] = False
        stored = ReferenceStore(tmp_path).register("p", [picture(7)], roi=(32, 0, 64, 32), ignore=ignore)
        reference = stored.references[0]
        changed = (damaged(reference) != reference.image).any(2)
        assert changed.sum() >= 64
        assert not changed[:, :32].any()
        assert not changed[32:].any()
        assert (changed & ~ignore).sum() > 0.8 * changed.sum()


def _always(verdict: Verdict) -> object:
    from line_fakes import answer

    return answer("p", verdict, None if verdict in (Verdict.OK, Verdict.NG) else "engine-failure")


class TestLoader:
    def make(self, bench: Bench, **watchdog: float) -> Loader:
        settings = WatchdogSettings.model_validate(watchdog)
        return Loader(bench.serving, [bench.station], bench.outlet, bench.metrics, settings)

    def test_a_first_load_that_fails_is_an_error_until_one_succeeds(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, load=False)
        fail = [True]

        def prove(inspector: object, product: object) -> None:
            if fail:
                raise SmokeTestError("product 'p': garbage")

        bench.serving = Serving(bench._build, bench.store, ["p"], prove)
        loader = self.make(bench)
        with running(bench):
            with pytest.raises(SmokeTestError):
                loader.load()
            assert bench.station.readiness.machine.state is State.ERROR
            assert isinstance(loader.error, SmokeTestError)
            assert [alarm["code"] for alarm in bench.outlet.alarms.active()] == ["engine-failed"]
            fail.clear()
            loader.load()
            until(lambda: bench.station.readiness.accepting)
            assert bench.outlet.alarms.active() == []

    def test_a_failed_hot_swap_leaves_the_old_one_serving(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path)
        loader = self.make(bench)
        old = bench.serving.current
        with running(bench):
            until(lambda: bench.station.readiness.accepting)
            with pytest.raises(UnknownProductError):
                loader.load(also="nothing")
            assert bench.serving.current is old
            assert bench.station.readiness.accepting
            assert [alarm["code"] for alarm in bench.outlet.alarms.active()] == ["reload-failed"]
            bench.camera.push()
            assert bench.wait_for(1)[0].is_ok

    def test_a_hanging_engine_is_replaced_until_the_budget_is_spent(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path)
        loader = self.make(bench, stuck_after_ms=100, restarts=2)
        with running(bench):
            until(lambda: bench.station.readiness.accepting)
            loader.replace_hanging_engine()
            assert len(bench.built) == 1
            for restart in (2, 3):
                bench.inspector.busy_ms = 500
                loader.replace_hanging_engine()
                bench.inspector.busy_ms = 0
                until(lambda restart=restart: bench.serving.current.number == restart)  # type: ignore[misc,union-attr]
                until(lambda: not loader.loading)
                assert bench.station.readiness.accepting
            bench.inspector.busy_ms = 500
            loader.replace_hanging_engine()
            assert bench.station.readiness.machine.state is State.ERROR
            assert "budget" in bench.station.readiness.machine.why
            assert len(bench.built) == 3
            bench.inspector.busy_ms = 0
            loader.reset()
            until(lambda: bench.station.readiness.accepting)

    def test_a_replacement_that_fails_is_tried_again_and_nothing_waits_for_the_engine_that_hangs(
        self, tmp_path: Path
    ) -> None:
        bench = Bench(tmp_path, load=False)
        fail = [False]

        def prove(inspector: object, product: object) -> None:
            if fail[0]:
                raise SmokeTestError("garbage")

        bench.serving = Serving(bench._build, bench.store, ["p"], prove)
        loader = self.make(bench, stuck_after_ms=100, restarts=2)
        with running(bench):
            loader.load()
            until(lambda: bench.station.readiness.accepting)
            fail[0], bench.inspector.busy_ms = True, 500
            loader.replace_hanging_engine()
            assert bench.station.readiness.machine.state is State.ERROR
            until(lambda: not loader.loading)
            assert bench.station.readiness.machine.state is State.ERROR
            fail[0] = False
            loader.replace_hanging_engine()
            until(lambda: bench.station.readiness.accepting)
            assert bench.outlet.alarms.active() == []

    def test_a_product_registered_elsewhere_is_taken_up_once(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path)
        loader = self.make(bench)
        bench.store.register("p", [picture(8)])
        loader.follow_store()
        until(lambda: bench.serving.current.products["p"].version == 2)  # type: ignore[union-attr]
        loader.follow_store()
        assert len(bench.built) == 2

    def test_a_product_that_does_not_pass_is_not_tried_again_and_again(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, load=False)
        tries: list[int] = []
        lock = threading.Lock()

        def prove(inspector: object, product: object) -> None:
            with lock:
                tries.append(product.version)  # type: ignore[attr-defined]
            if product.version == 2:  # type: ignore[attr-defined]
                raise SmokeTestError("garbage")

        bench.serving = Serving(bench._build, bench.store, ["p"], prove)
        loader = self.make(bench)
        loader.load()
        bench.store.register("p", [picture(8)])
        for _ in range(5):
            loader.follow_store()
            until(lambda: not loader.loading)
        assert tries == [1, 2]
        bench.store.register("p", [picture(9)])
        loader.follow_store()
        until(lambda: bench.serving.current.products["p"].version == 3)  # type: ignore[union-attr]
