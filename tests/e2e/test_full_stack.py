"""The service with the servers of a real installation: MinIO, MongoDB and Kafka, and each of the two brokers."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
import redis
import requests
from kafka import KafkaConsumer
from minio import Minio
from pymongo import MongoClient
from support.service import Service, wait_until

pytestmark = [pytest.mark.process, pytest.mark.services]

#: Of the Redis server; emptied here.
DATABASE = 7
METADATA = json.dumps({"shape": "8,8,1", "dtype": "float32"})
REQUESTS = 40


class Stack(NamedTuple):
    service: Service
    env: dict[str, str]
    #: of everything that is this test's alone
    name: str

    def documents(self) -> list[dict[str, Any]]:
        with MongoClient[dict[str, Any]](self.env["MONGODB_URL"]) as client:
            return list(client["inference-tests"][self.name].find())

    def records(self) -> list[Any]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.env["KAFKA_BOOTSTRAP"], auto_offset_reset="earliest", consumer_timeout_ms=2000
        )
        try:
            consumer.subscribe([self.name])
            return list(consumer)
        finally:
            consumer.close()

    def uploads(self) -> list[str]:
        client = Minio(
            self.env["MINIO_ENDPOINT"].removeprefix("http://"),
            access_key=self.env["MINIO_ACCESS_KEY"],
            secret_key=self.env["MINIO_SECRET_KEY"],
            secure=False,
        )
        return [str(found.object_name) for found in client.list_objects(self.name, recursive=True)]


@pytest.fixture(params=["redis", "rabbitmq"])
def stack(request: pytest.FixtureRequest, services_env: dict[str, str], repository: Path, tmp_path: Path) -> Iterator[Stack]:
    name = f"stack-{uuid.uuid4().hex[:12]}"
    redis_url = services_env["REDIS_URL"].rpartition("/")[0] + f"/{DATABASE}"
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    variables = services_env | {
        "REDIS_URL": redis_url,
        "INFERENCE_DATA_DIR": str(tmp_path / "data"),
        "INFERENCE_MODELS": '["models/digits"]',
        "INFERENCE_SAMPLE_IMAGE": "samples/digit_7.png",
        "INFERENCE_UPLOADS__BUCKET": name,
        "INFERENCE_TASK_STORE__KEY_PREFIX": name,
        "INFERENCE_MONGODB__DATABASE": "inference-tests",
        "INFERENCE_MONGODB__COLLECTION": name,
        "INFERENCE_KAFKA__TOPIC": name,
    }
    if request.param == "rabbitmq":
        variables["INFERENCE_BROKER__URL"] = services_env["AMQP_URL"]
    service = Service(tmp_path, {}, config=repository / "configurations" / "full.yaml", variables=variables)
    try:
        service.start()
        yield Stack(service, services_env, name)
    finally:
        service.end()


def test_every_result_is_everywhere_once(stack: Stack, repository: Path) -> None:
    picture = (repository / "samples/digit_7.png").read_bytes()

    def send(number: int) -> tuple[bool, requests.Response]:
        """Whether it is a good one, and the answer."""
        mode = "async" if number % 2 else "sync"
        match number % 4:
            case 0 | 1:
                raw = np.full((8, 8, 1), number, "<f4").tobytes()
                return True, stack.service.post(raw, mode=mode, metadata=METADATA)
            case 2:
                return True, stack.service.post(picture, mode=mode)
        return False, stack.service.post(b"no image at all", mode=mode)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(REQUESTS)))

    assert [(good, answer.ok) for good, answer in answers if good != answer.ok] == []
    good_ids = sorted(answer.json()["task_id"] for good, answer in answers if good)
    assert len(good_ids) == len(set(good_ids)) == 30
    for task_id in good_ids:
        assert stack.service.task(task_id, wait_s=30)["status"] == "succeeded"

    # The service sends its sample image too, once it is up.
    wait_until(lambda: set(good_ids) <= {found["_id"] for found in stack.documents()}, timeout_s=30, what="all are in MongoDB")
    in_mongodb = Counter(found["task_id"] for found in stack.documents())
    assert {task_id: in_mongodb[task_id] for task_id in good_ids} == dict.fromkeys(good_ids, 1)

    wait_until(lambda: set(good_ids) <= {kafka_id(record) for record in stack.records()}, timeout_s=30, what="all are in Kafka")
    in_kafka = {kafka_id(record): orjson.loads(record.value) for record in stack.records()}
    assert in_kafka.keys() == in_mongodb.keys()
    assert all(document["task_id"] == task_id for task_id, document in in_kafka.items())

    day = datetime.now(UTC).strftime("%Y/%m/%d")
    assert set(stack.uploads()) == {f"uploads/{day}/{task_id}" for task_id in in_mongodb}

    for task_id in good_ids:
        deliveries = wait_until(lambda task_id=task_id: delivered(stack.service.task(task_id)), timeout_s=10, what="it is noted")
        assert deliveries == {"mongodb", "kafka"}


def kafka_id(record: Any) -> str:
    return str(dict(record.headers)["task_id"].decode())


def delivered(task: dict[str, Any]) -> set[str]:
    """The sinks that have the result, once all of them have."""
    by_status = {delivery["sink"]: delivery["status"] for delivery in task["deliveries"]}
    return set(by_status) if set(by_status.values()) == {"delivered"} else set()
