"""Threads of a relay process: one for each configured sink, and the sweeper in any case."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from support.fakes import FakeObjectStore
from support.samples import a_failure, a_request
from support.waiting import until

from inference.container import Services
from inference.relay.process import _housekeeping, _runners
from inference.settings import load_settings
from inference.task_store import Commit


@pytest.mark.parametrize(
    ("choice", "relays"),
    [
        ({}, ["relay-jsonl"]),
        ({"ensemble": True}, ["relay-kafka", "relay-mongodb"]),  # the mode may change
        ({"ensemble": False}, ["relay-kafka", "relay-mongodb"]),
        ({"sinks": ["jsonl", "kafka"]}, ["relay-jsonl", "relay-kafka"]),
        ({"sinks": []}, []),
        ({"sinks": [], "webhooks": {"secret": "whsec_c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3Jl"}}, ["webhooks"]),
    ],
    ids=str,
)
def test_there_is_a_relay_for_each_sink_and_for_webhooks_if_they_are_on(
    redis_url: str, tmp_path: Path, choice: dict[str, Any], relays: list[str]
) -> None:
    settings = load_settings(None, {"data_dir": tmp_path, "models": ["models/digits"], "broker": {"url": redis_url}} | choice)
    runners = _runners(settings, Services(settings))
    assert runners.keys() == {*relays, "sweeper", "housekeeping"}
    stopping = threading.Event()
    stopping.set()
    for runner in runners.values():
        runner.run(stopping)  # which closes what was opened


def test_old_dead_letters_and_rejected_messages_are_discarded(redis_url: str, tmp_path: Path, key_prefix: str) -> None:
    given = {"data_dir": tmp_path, "models": ["models/digits"], "broker": {"url": redis_url}}
    for hours, left in ((None, 1), (1.0, 1), (1e-9, 0)):
        store_settings = {"key_prefix": key_prefix, "dead_letter_retention_hours": hours}
        services = Services(load_settings(None, given | {"task_store": store_settings}))
        if hours is None:
            task_id = services.store.accept(a_request(), enqueue=None, max_queue_depth=0).task_id
            services.store.lease("w", [task_id])
            services.store.start("w", [task_id])
            services.store.commit("w", [Commit(task_id, 1, a_failure(), dead_letter=True)])
            services.rejected.add("predict.digits", {"unreadable": "x"}, "odd")
        else:
            until(lambda: services.store.list_old_dead_letters(after_s=1e-3, limit=1), "the dead letter is older than a moment")  # noqa: B023
        interval_s = _housekeeping(services.settings, services)._jobs["retention"]()
        assert interval_s == (3600 if hours is None else pytest.approx(360 * hours))
        assert (services.store.count_dead_letters(), services.rejected.count()) == (left, left)


def test_removal_of_old_uploads_goes_on_soon_if_there_are_more(redis_url: str, tmp_path: Path, key_prefix: str) -> None:
    given = {"data_dir": tmp_path, "models": ["models/digits"], "broker": {"url": redis_url}}
    services = Services(load_settings(None, given | {"task_store": {"key_prefix": key_prefix}}))
    more = iter([True, False])
    services.objects = FakeObjectStore()
    services.objects.apply_retention = lambda _hours: next(more)  # type: ignore[method-assign]
    retention = _housekeeping(services.settings, services)._jobs["retention"]
    assert [retention(), retention()] == [1.0, 3600.0]


def test_uploads_without_a_task_stay_where_records_are_evicted(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"data_dir": tmp_path, "models": ["models/digits"], "broker": {"url": redis_url}}
    for allow_eviction in (False, True):
        settings = load_settings(None, given | {"task_store": {"allow_eviction": allow_eviction}})
        jobs = _housekeeping(settings, Services(settings))._jobs
        assert ("uploads without a task" in jobs) is not allow_eviction
        assert ("task_store.allow_eviction" in caplog.text) is allow_eviction
