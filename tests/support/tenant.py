"""One service's share of the real servers: everything under a name of its own, so that many use them side by side."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import redis
import yaml
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kombu import Connection
from minio import Minio
from pymongo import MongoClient
from support.client import wait_until
from support.real_servers import minio_client
from support.service import ROOT
from support.traces import files_with, keys_with, objects_with

from inference.relay.orphans import Orphans
from inference.runtime.redis import connect
from inference.settings import load_settings
from inference.storage import open_object_store
from inference.storage.protocol import ObjectStore
from inference.task_store.outbox import outbox_stats
from inference.task_store.redis_store import RedisTaskStore, StorePolicy
from inference.task_store.scripts import RELAY_GROUP

#: Database of the Redis server.
_REDIS_DATABASE = 11
_MONGODB_DATABASE = "inference-tests"


class Tenant:
    """Data of a service with the model `digits` in the servers.

    Args:
        env: addresses of the servers, as in build/services.env.
        folder: for its model's files.
    """

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self.name = f"tenant-{uuid.uuid4().hex[:12]}"
        self.env = {**env, "REDIS_URL": env["REDIS_URL"].rpartition("/")[0] + f"/{_REDIS_DATABASE}"}
        self.redis = connect(self.env["REDIS_URL"])
        self.store = RedisTaskStore(self.redis, StorePolicy(self.name))
        self._folder = folder

    @cached_property
    def variables(self) -> dict[str, str]:
        """The environment that gives configurations/full.yaml these names."""
        return self.env | {
            "INFERENCE_DATA_DIR": str(self._folder / "data"),
            "INFERENCE_MODELS": json.dumps([str(_digits(self._folder, self.name))]),
            "INFERENCE_UPLOADS__BUCKET": self.name,
            "INFERENCE_TASK_STORE__KEY_PREFIX": self.name,
            "INFERENCE_MONGODB__DATABASE": _MONGODB_DATABASE,
            "INFERENCE_MONGODB__COLLECTION": self.name,
            "INFERENCE_KAFKA__TOPIC": self.name,
        }

    def documents(self) -> list[dict[str, Any]]:
        """Documents in MongoDB."""
        with MongoClient[dict[str, Any]](self.env["MONGODB_URL"]) as client:
            return list(client[_MONGODB_DATABASE][self.name].find())

    def records(self) -> list[Any]:
        """Records in Kafka, duplicates too."""
        return read_topic(self.env["KAFKA_BOOTSTRAP"], self.name)

    def uploads(self) -> dict[str, str]:
        """MD5 of the content of each object in MinIO, by its key."""
        found = self._minio.list_objects(self.name, recursive=True)
        return {str(each.object_name): str(each.etag) for each in found}

    def delete_orphans(self, store: RedisTaskStore, after_s: float) -> None:
        """Wait until each object in MinIO is of a task; those without one are deleted as the relay does when they are old enough.

        Args:
            store: that knows the tasks.
            after_s: age at which an object without a task is deleted.
        """
        orphans = Orphans(store, self.objects, after_s=after_s)

        def are_gone() -> bool:
            orphans.check_once()
            return not store.find_unknown(store.get_tag(), [key.rpartition("/")[2] for key in self.uploads()])

        wait_until(are_gone, timeout_s=60 + 2 * after_s, what="each object is of a task")

    @cached_property
    def objects(self) -> ObjectStore:
        minio = {name: self.env[f"MINIO_{name.upper()}"] for name in ("endpoint", "access_key", "secret_key")}
        options = {"s3": minio, "uploads": {"store": "s3", "bucket": self.name}}
        return open_object_store(load_settings(None, options))

    def worker_pids(self, task_ids: Sequence[str]) -> set[int]:
        """The processes of the workers that ended these tasks."""
        outcomes = [record.outcome for record in self.store.get_many(task_ids) if record is not None]
        return {int(outcome.worker.split(":")[1]) for outcome in outcomes if outcome is not None}

    def held(self, sink: str) -> dict[int, int]:
        """Return how many entries of a sink each relay has taken and not delivered, by its process id."""
        try:
            consumers: Any = self.redis.xinfo_consumers(f"{self.name}:outbox:{sink}", RELAY_GROUP)
        except redis.ResponseError:  # no stream yet, or no group
            return {}
        return {int(consumer["name"].rpartition(b":")[2]): consumer["pending"] for consumer in consumers}

    def wait_delivered(self, *sinks: str) -> None:
        for sink in sinks:
            wait_until(
                lambda sink=sink: outbox_stats(self.redis, self.name, sink).entries == 0,
                timeout_s=90,
                what=f"everything is delivered to {sink}",
            )

    def leave(self) -> None:
        """Remove its data from Redis, RabbitMQ and MinIO."""
        if keys := list(self.redis.scan_iter(f"*{self.name}*", count=1000)):
            self.redis.delete(*keys)
        claimed: Any = self.redis.hgetall("unacked")  # messages of killed workers, of all tenants
        if own := [tag for tag, message in claimed.items() if self.name.encode() in message]:
            self.redis.hdel("unacked", *own)
            self.redis.zrem("unacked_index", *own)
        self.redis.close()
        with Connection(self.env["AMQP_URL"]) as connection, closing(connection.channel()) as channel:
            channel.queue_delete(f"predict.{self.name}")
        if self._minio.bucket_exists(self.name):
            for key in self.uploads():
                self._minio.remove_object(self.name, key)
            self._minio.remove_bucket(self.name)

    def make_topic(self) -> None:
        """Create the topic, with several partitions, before a service does."""
        with closing(KafkaAdminClient(bootstrap_servers=self.env["KAFKA_BOOTSTRAP"])) as admin:
            admin.create_topics([NewTopic(self.name, 4, 1)])

    def leave_sinks(self) -> None:
        """Remove its data from MongoDB and Kafka."""
        with MongoClient[dict[str, Any]](self.env["MONGODB_URL"]) as client:
            client[_MONGODB_DATABASE].drop_collection(self.name)
        with closing(KafkaAdminClient(bootstrap_servers=self.env["KAFKA_BOOTSTRAP"])) as admin:
            if self.name in admin.list_topics():
                admin.delete_topics([self.name])

    def compact_topic(self) -> None:
        """Let Kafka keep only the last record of each key, as an operator does for erasures."""
        with closing(KafkaAdminClient(bootstrap_servers=self.env["KAFKA_BOOTSTRAP"])) as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.name, {"cleanup.policy": "compact"})])

    def traces(self, *sought: bytes) -> list[str]:
        """Places in Redis, MinIO, MongoDB or the folder of the data that have one of these."""
        return [
            *keys_with(self.redis, "*", *sought),
            *objects_with(self._minio, self.name, *sought),
            *(repr(document) for document in self.documents() if any(one in repr(document).encode() for one in sought)),
            *files_with(self._folder / "data", *sought),
        ]

    @cached_property
    def _minio(self) -> Minio:
        return minio_client(self.env)


def read_topic(bootstrap_servers: str, topic: str) -> list[Any]:
    """Every record that is there now."""
    with closing(KafkaConsumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        records: list[Any] = []
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for batch in consumer.poll(timeout_ms=500).values():
                records += batch
        return records


def _digits(folder: Path, name: str) -> Path:
    """The model's folder under another name, which is its queue's too: brokers are shared."""
    model = folder / name
    shutil.copytree(ROOT / "models" / "digits", model)
    description = yaml.safe_load((model / "model.yaml").read_text(encoding="utf-8"))
    (model / "model.yaml").write_text(yaml.safe_dump(description | {"name": name}), encoding="utf-8")
    return model
