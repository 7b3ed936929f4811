"""Status for an operator: stores, queues, workers and outboxes as they are, and problems that need a look."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.redis_server import own_redis_server
from support.samples import a_failure, a_request, a_success

from inference.container import Services
from inference.domain import Outcome
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo
from inference.settings import Settings, load_settings
from inference.status.collect import Status, status_of
from inference.status.render import _age, status_table
from inference.task_store import Commit
from inference.task_store.outbox import Outbox
from inference.task_store.scripts import RELAY_GROUP

QUEUE = "predict.digits"


class Rig:
    """A service with one model and two sinks, on a real server of the Redis protocol."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._redis_url = redis_url
        self._folder = folder
        self._key_prefix = f"test-{uuid.uuid4().hex[:12]}"

    def settings(self, **changes: Any) -> Settings:
        common: dict[str, Any] = {
            "data_dir": self._folder,
            "models": ["models/digits"],
            "sinks": ["jsonl", "kafka"],
            "broker": {"url": self._redis_url},
            "task_store": {"key_prefix": self._key_prefix},
        }
        return load_settings(None, common | changes)

    def services(self, **changes: Any) -> Services:
        return Services(self.settings(**changes))

    def status(self, **changes: Any) -> Status:
        return status_of(self.services(**changes))

    def relay(self, sink: str, name: str = "relay-1") -> Outbox:
        outbox = Outbox(self.services().redis, self._key_prefix, sink, name)
        outbox.open()
        return outbox

    def start_all(self) -> None:
        """A worker, and a relay for each sink."""
        self.services().presence.announce(WorkerInfo("w", (LoadedModelInfo("digits", "1", "sha256:00", predict_ms=0.5),)))
        for sink in ("jsonl", "kafka"):
            self.relay(sink)

    def accept(self, *sinks: str) -> str:
        request = a_request(queue=QUEUE, sinks=sinks)
        return self.services().store.accept(request, enqueue=None, max_queue_depth=0).task_id

    def finish(self, *sinks: str, outcome: Outcome | None = None, dead_letter: bool = False) -> None:
        store, task_id = self.services().store, self.accept(*sinks)
        store.lease("w", [task_id])
        store.start("w", [task_id])
        assert store.commit("w", [Commit(task_id, 1, outcome or a_success(), dead_letter)]) == [True]


@pytest.fixture
def rig(redis_url: str, tmp_path: Path) -> Rig:
    return Rig(redis_url, tmp_path)


def test_all_is_well(rig: Rig) -> None:
    rig.start_all()
    status = rig.status()
    assert status.problems == ()
    assert status.stores == {"task_store": "ok", "broker": "ok", "object_store": "ok"}
    assert [(model.model, model.version, model.queue.depth, model.workers) for model in status.models] == [("digits", "1", 0, 1)]
    assert [(sink.sink, sink.outbox.entries, [relay.relay for relay in sink.relays]) for sink in status.sinks] == [
        ("jsonl", 0, ["relay-1"]),
        ("kafka", 0, ["relay-1"]),
    ]
    assert [worker.worker for worker in status.workers] == ["w"]
    assert status.dead_letters == 0


def test_what_waits_is_counted(rig: Rig) -> None:
    rig.start_all()
    for _ in range(2):
        rig.accept()
    rig.finish("kafka")
    rig.finish(outcome=a_failure(), dead_letter=True)
    status = rig.status()
    assert status.models[0].queue.depth == 2
    assert {sink.sink: sink.outbox.entries for sink in status.sinks} == {"jsonl": 0, "kafka": 1}
    assert status.dead_letters == 1
    assert status.problems == ()


def test_a_model_that_no_worker_has_needs_a_look(rig: Rig) -> None:
    rig.start_all()
    rig.services().presence.announce(WorkerInfo("w", ()))
    assert rig.status().problems == ("no worker has digits loaded",)


def test_an_outbox_that_nobody_reads_needs_a_look(rig: Rig) -> None:
    rig.start_all()
    rig.finish("mongodb")
    status = rig.status(sinks=["jsonl", "mongodb"])
    assert [(sink.sink, sink.relays != ()) for sink in status.sinks] == [("jsonl", True), ("mongodb", False)]
    assert status.problems == ("no relay reads the outbox of mongodb",)


def test_relays_that_share_an_outbox_are_named_with_what_they_hold(rig: Rig) -> None:
    rig.start_all()
    for _ in range(3):
        rig.finish("kafka")
    rig.relay("kafka", "relay-2").take(2, block_ms=1)
    (kafka,) = [sink for sink in rig.status().sinks if sink.sink == "kafka"]
    assert [(relay.relay, relay.held) for relay in kafka.relays] == [("relay-1", 0), ("relay-2", 2)]
    assert all(0 <= relay.silent_s < 10 for relay in kafka.relays)


def test_a_relay_that_is_silent_for_long_reads_no_more_though_it_holds_some(rig: Rig) -> None:
    rig.start_all()
    rig.finish("kafka")
    rig.relay("kafka").take(1, block_ms=1)
    redis = rig.services().redis
    for sink in ("jsonl", "kafka"):
        redis.zincrby(f"{rig.settings().task_store.key_prefix}:relays:{sink}", -3600, "relay-1")
    status = rig.status()
    assert [[relay.held for relay in sink.relays] for sink in status.sinks] == [[], [1]]
    assert status.problems == ("no relay reads the outbox of jsonl", "no relay reads the outbox of kafka")


def test_an_outbox_over_its_limit_needs_a_look(rig: Rig) -> None:
    rig.start_all()
    for _ in range(2):
        rig.finish("kafka")
    assert rig.status(outbox={"max_entries": 3}).problems == ()
    (problem,) = rig.status(outbox={"max_entries": 2}).problems
    assert re.fullmatch(r"2 results wait for kafka, the oldest for \d+ s: new requests are refused", problem)


def test_results_for_a_sink_that_is_configured_no_more_need_a_look(rig: Rig) -> None:
    rig.start_all()
    rig.finish("kafka")
    status = rig.status(sinks=["jsonl"])
    assert [sink.sink for sink in status.sinks] == ["jsonl", "kafka"]
    assert status.problems == ("1 results wait for kafka, which is not a configured sink",)


def test_a_service_without_sinks_is_well_without_a_relay(rig: Rig) -> None:
    rig.start_all()
    assert (rig.status(sinks=[]).sinks, rig.status(sinks=[]).problems) == ((), ())


def test_stores_that_are_down_are_part_of_the_answer(tmp_path: Path) -> None:
    with own_redis_server() as server:
        rig = Rig(server.url, tmp_path)
        server.stop()
        (tmp_path / "uploads").write_bytes(b"a file where the folder should be")
        status = rig.status()
    assert "ok" not in status.stores.values()
    assert [problem.partition(":")[0] for problem in status.problems] == ["task_store", "broker", "object_store"]
    assert (status.models, status.sinks, status.workers, status.dead_letters) == ((), (), (), None)
    assert "task_store    down" in status_table(status)


def test_the_table_fits_a_terminal_and_ends_with_what_needs_a_look(rig: Rig) -> None:
    rig.start_all()
    rig.finish("kafka")
    rig.relay("kafka").take(1, block_ms=1)
    lines = status_table(rig.status()).splitlines()
    assert "digits  1        0        -       -        1" in lines
    assert "w       digits 1 (0.5 ms)" in lines
    assert "kafka  1        0 s     relay-1 (1 in hand)" in lines
    assert lines[-2:] == ["0 dead letters", "all is well"]
    assert max(map(len, lines)) < 80
    rig.services().presence.leave("w")
    assert status_table(rig.status()).splitlines()[-1] == "! no worker has digits loaded"


def test_images_that_wait_for_the_object_store_are_counted(rig: Rig) -> None:
    rig.start_all()
    rig.services().store.keep_image(rig.accept(), b"image")
    assert rig.status().unstored_images == 1
    assert "1 images wait for the object store" in status_table(rig.status()).splitlines()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "-"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (260_000, "3 d")]
)
def test_ages_are_short(seconds: float, shown: str) -> None:
    assert _age(seconds) == shown


def test_machines_get_the_same_as_json(rig: Rig) -> None:
    rig.start_all()
    document = orjson.loads(orjson.dumps(rig.status()))
    assert document["models"][0]["queue"] == {"depth": 0, "oldest_age_s": 0, "drain_rate_per_s": 0}
    assert document["sinks"][0]["relays"][0].keys() == {"relay", "held", "silent_s"}
    assert document["workers"][0]["models"][0]["name"] == "digits"
    assert document["problems"] == []


def test_a_disk_or_a_record_store_that_is_nearly_full_needs_a_look(rig: Rig) -> None:
    problems = rig.status(uploads={"min_free_disk_mb": 2**40}).problems
    assert [problem for problem in problems if problem.endswith("(uploads.min_free_disk_mb): new requests are refused")]


def test_relays_that_ended_long_ago_are_forgotten_unless_they_hold_results(rig: Rig) -> None:
    """Each start of a relay is a consumer of its own."""
    for name in ("idle", "holding"):
        rig.relay("jsonl", name)
    client, prefix = rig.services().redis, rig._key_prefix
    for name in ("idle", "holding"):
        client.xgroup_createconsumer(f"{prefix}:outbox:jsonl", RELAY_GROUP, name)
    rig.finish("jsonl")
    assert rig.relay("jsonl", "holding").take(1, block_ms=10)
    client.zadd(f"{prefix}:relays:jsonl", {"idle": 1, "holding": 1})
    rig.relay("jsonl", "new")
    consumers: Any = client.xinfo_consumers(f"{prefix}:outbox:jsonl", RELAY_GROUP)
    assert [one["name"] for one in consumers] == [b"holding"]
    assert client.zrange(f"{prefix}:relays:jsonl", 0, -1) == [b"holding", b"new"]
