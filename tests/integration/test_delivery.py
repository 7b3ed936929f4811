"""Deliveries from a task's end to the real sinks: each result goes where its request wanted it, once, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from pymongo import MongoClient
from support.samples import a_request, a_success
from support.tenant import read_topic
from support.waiting import until

from inference.container import Services
from inference.relay.process import _runners
from inference.settings import Settings, load_settings
from inference.task_store import Commit

SINKS = ("jsonl", "mongodb", "kafka")
ASKED: dict[str, tuple[str, ...]] = {
    "everywhere": SINKS,
    "nowhere": (),
    "to the aggregator": ("kafka",),
    "to the database": ("mongodb",),
    "to the file and the database": ("jsonl", "mongodb"),
}


def settings_of(env: dict[str, str], redis_url: str, folder: Path, name: str) -> Settings:
    return load_settings(
        None,
        {
            "data_dir": folder,
            "models": ["models/digits"],
            "sinks": SINKS,
            "broker": {"url": redis_url},
            "task_store": {"key_prefix": name},
            "mongodb": {"url": env["MONGODB_URL"], "database": "inference-tests", "collection": name},
            "kafka": {"bootstrap_servers": env["KAFKA_BOOTSTRAP"], "topic": name, "partitions": 1},
        },
    )


def finish(services: Services, task_id: str, sinks: tuple[str, ...]) -> None:
    request = a_request(task_id, sinks=sinks, queue="predict.digits")
    services.store.accept(request, enqueue=None, max_queue_depth=0)
    services.store.lease("w", [task_id])
    services.store.start("w", [task_id])
    assert services.store.commit("w", [Commit(task_id, 1, a_success())]) == [True]


@contextmanager
def relaying(settings: Settings) -> Iterator[None]:
    stopping = threading.Event()
    runners = _runners(settings, Services(settings)).values()
    threads = [threading.Thread(target=runner.run, args=(stopping,)) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def arrived(settings: Settings) -> dict[str, list[str]]:
    """Return the ids of all that is there, by sink."""
    lines = settings.jsonl_path.read_bytes().splitlines()
    records = [record.value for record in read_topic(settings.kafka.bootstrap_servers, settings.kafka.topic)]
    with MongoClient[dict[str, Any]](settings.mongodb.url.get_secret_value()) as client:
        database = client[settings.mongodb.database]
        stored = [document["_id"] for document in database[settings.mongodb.collection].find()]
        database.drop_collection(settings.mongodb.collection)
    return {
        "jsonl": sorted(orjson.loads(line)["task_id"] for line in lines),
        "kafka": sorted(orjson.loads(record)["task_id"] for record in records),
        "mongodb": sorted(stored),
    }


def test_each_result_goes_where_it_was_wanted(
    services_env: dict[str, str], redis_url: str, tmp_path: Path, own_name: str
) -> None:
    settings = settings_of(services_env, redis_url, tmp_path, own_name)
    services = Services(settings)
    for task_id, sinks in ASKED.items():
        finish(services, task_id, sinks)
    with relaying(settings):
        until(lambda: sum(services.outbox_stats(sink).entries for sink in SINKS) == 0, "every delivery", timeout_s=60)
    assert arrived(settings) == {sink: sorted(task for task, sinks in ASKED.items() if sink in sinks) for sink in SINKS}
    for task_id, sinks in ASKED.items():
        assert services.store.get(task_id).deliveries == dict.fromkeys(sinks, "delivered")
