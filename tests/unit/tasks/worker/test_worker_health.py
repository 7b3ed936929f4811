"""Health of a worker: what is stuck, loads, or stops, with no server asked."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import WorkerShutdown
from pipeline_rig import MakeRig, wait_until
from support.fake_clock import FakeClock

from inference.container import Services
from inference.runtime.health import OK
from inference.runtime.loop_watch import LoopWatch
from inference.settings import load_settings
from inference.settings.http_address import bound_socket
from tasks.consumer.step import InferenceStep, _start_monitoring
from tasks.pipeline.jobs import HeldJobs
from tasks.worker.health import WorkerHealth
from tasks.worker.lease_renewal import LeaseRenewer


class Rig:
    """A worker's health, and what it is read from."""

    def __init__(self) -> None:
        self.stops = False
        self.stuck: dict[str, float] = {}
        self.consumption = OK
        self.loaded = {"digits": "warm"}
        self.threads: dict[str, float] = {}
        self.health = WorkerHealth(is_stopping=lambda: self.stops, stuck=lambda: self.stuck, consumption=lambda: self.consumption)

    def finish_start(self) -> None:
        predictor = SimpleNamespace(references={"digits": "1"}, loaded=self.loaded)
        worker: Any = SimpleNamespace(predictor=predictor, stuck=lambda: self.threads)
        self.health.worker = worker


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_worker_that_loads_its_models_is_live_and_not_ready(rig: Rig) -> None:
    assert (rig.health.live(), rig.health.ready()) == ({"threads": OK}, {"process": "starting"})
    rig.finish_start()
    assert rig.health.ready() == {"models": OK, "consumer": OK}


def test_one_that_was_told_to_end_is_not_ready_and_still_live(rig: Rig) -> None:
    for started in (False, True):
        if started:
            rig.finish_start()
        rig.stops = True
        assert (rig.health.live(), rig.health.ready()) == ({"threads": OK}, {"process": "stopping"})


def test_a_predictor_that_is_down_makes_it_not_ready(rig: Rig) -> None:
    rig.finish_start()
    rig.loaded.clear()
    assert rig.health.ready() == {"models": "not loaded: digits", "consumer": OK}
    assert rig.health.live() == {"threads": OK}


def test_without_the_broker_it_is_not_ready_and_still_live(rig: Rig) -> None:
    rig.finish_start()
    rig.consumption = "no connection to the broker"
    assert rig.health.ready() == {"models": OK, "consumer": "no connection to the broker"}
    assert rig.health.live() == {"threads": OK}


def test_loops_that_hang_are_named(rig: Rig) -> None:
    rig.finish_start()
    rig.threads, rig.stuck = {"batch-0 of digits": 400.0}, {"the main loop": 301.0}
    assert rig.health.live() == {
        "threads": "batch-0 of digits has made no progress for 400 s; the main loop has made no progress for 301 s"
    }


def test_a_port_that_is_taken_ends_the_start_as_a_wrong_setting_does(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        settings = load_settings(None, {"data_dir": tmp_path, "monitoring": {"worker_port": port}})
        with pytest.raises(WorkerShutdown) as end:
            _start_monitoring(Services(settings), rig.health)
    assert end.value.code == 2
    assert f"monitoring.worker_port: cannot listen on 127.0.0.1:{port}: " in caplog.text


def test_a_pipeline_whose_predictor_hangs_for_ever_is_stuck(make_rig: MakeRig) -> None:
    rig, clock = make_rig(), FakeClock()
    for stage in rig.stages:
        stage.watch = LoopWatch(clock)
    rig.start()
    rig.predictor.gate.clear()
    rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    clock.advance(1000)
    wait_until(lambda: rig.pipeline.stuck() == {"batch-0 of digits": 1000}, "the other stages are idle, which is no fault")
    rig.predictor.gate.set()
    wait_until(lambda: rig.pipeline.stuck() == {}, "the batch has ended")


def test_the_wait_between_two_renewals_of_long_leases_is_no_hang() -> None:
    clock = FakeClock()
    store: Any = None
    renewer = LeaseRenewer(store, "worker", HeldJobs(), lease_s=3600)
    renewer.watch = LoopWatch(clock)
    found: list[dict[str, float]] = []

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.advance(timeout or 0.0)
            found.append(renewer.watch.stuck())
            self.set()
            return True

    renewer.stopping = Waiting()
    renewer._run()
    assert found == [{}]


def test_the_main_loop_is_not_watched_while_the_running_batches_end() -> None:
    step = InferenceStep(SimpleNamespace())
    watch = step._main_loop.watch
    watch.begin("the main loop")
    watched: list[bool] = []
    worker: Any = SimpleNamespace(stop=lambda: watched.append(watch.is_watching), tracer=None)
    step._worker = worker
    step.stop(None)
    assert watched == [False]
