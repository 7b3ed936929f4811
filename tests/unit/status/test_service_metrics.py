"""Metrics of the whole service, as every part exposes them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import generate_latest
from support.certificates import make_certificates
from support.metrics import Metrics
from support.real_servers import NOBODY
from support.samples import a_request, a_success

from inference.container import Services
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo
from inference.settings import Settings
from inference.status.certificates import certificate_ends
from inference.status.service_metrics import ServiceMetrics
from inference.task_store import Commit

QUEUE = "predict.digits"


@pytest.fixture
def settings(repository: Path, tmp_path: Path, redis_url: str, key_prefix: str) -> Settings:
    sections: dict[str, Any] = {"broker": {"url": redis_url}, "task_store": {"key_prefix": key_prefix}}
    return Settings(data_dir=tmp_path, models=(repository / "models/digits",), **sections)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    services = Services(settings)
    yield services
    services.redis.close()


def read(services: Services) -> Metrics:
    return Metrics(generate_latest(ServiceMetrics(services)).decode())  # type: ignore[arg-type] # it only collects


def accept(services: Services, *, owner: str = "", sinks: tuple[str, ...] = ()) -> str:
    request = a_request(queue=QUEUE, sinks=sinks, owner=owner)
    return services.store.accept(request, enqueue=None, max_queue_depth=0).task_id


def start(services: Services, task_id: str) -> None:
    services.store.lease("w", [task_id])
    assert services.store.start("w", [task_id]) == [1]


def test_of_a_service_that_does_nothing(services: Services) -> None:
    found = read(services)
    assert [found.value("store_up", store=store) for store in ("task_store", "broker", "object_store")] == [1, 1, 1]
    for name in ("waiting_tasks", "running_tasks", "oldest_waiting_task_age_seconds", "workers_with_model"):
        assert found.labels(name) == [{"model": "digits"}]
        assert found.value(name, model="digits") == 0
    for name in ("workers", "dead_letters", "rejected_messages", "unstored_images", "waiting_webhooks"):
        assert found.labels(name) == [{}]
        assert found.value(name) == 0
    assert {labels["sink"] for labels in found.labels("outbox_entries")} == {"jsonl", "kafka", "mongodb"}
    assert found.labels("owner_open_tasks") == []
    assert found.value("task_store_memory_bytes") > 0
    assert found.value("free_disk_bytes", content="uploads") > 0


def test_tasks_workers_and_results(services: Services, redis_client: redis.Redis, key_prefix: str) -> None:
    ids = [accept(services, sinks=("jsonl",)) for _ in range(4)]
    hour_ago_ms = int(datetime.now(UTC).timestamp() * 1000) - 3_600_000
    redis_client.hset(f"{key_prefix}:task:{ids[2]}", "created_at", hour_ago_ms)
    for task_id in ids[:2]:
        start(services, task_id)
    assert services.store.commit("w", [Commit(ids[0], 1, a_success())]) == [True]
    for worker, models in {"w": ("digits", "another"), "v": ()}.items():
        infos = tuple(LoadedModelInfo(name, "1", "sha256:00", predict_ms=0.5) for name in models)
        services.presence.announce(WorkerInfo(worker, infos))

    found = read(services)
    assert (found.value("waiting_tasks", model="digits"), found.value("running_tasks", model="digits")) == (2, 1)
    assert 3600 <= found.value("oldest_waiting_task_age_seconds", model="digits") < 4000
    assert (found.value("workers"), found.value("workers_with_model", model="digits")) == (2, 1)
    assert found.labels("workers_with_model") == [{"model": "digits"}]
    assert found.value("outbox_entries", sink="jsonl") == 1
    assert found.value("outbox_entries", sink="kafka") == 0
    assert found.labels("outbox_oldest_entry_age_seconds") == found.labels("outbox_entries")


def test_a_record_that_cannot_be_read_hides_nothing(services: Services, redis_client: redis.Redis, key_prefix: str) -> None:
    redis_client.hset(f"{key_prefix}:task:{accept(services)}", "created_at", "no time")
    found = read(services)
    assert found.value("waiting_tasks", model="digits") == 1
    assert found.value("oldest_waiting_task_age_seconds", model="digits") == 0


def test_the_ten_owners_with_the_most_tasks_and_the_rest(services: Services, redis_client: redis.Redis, key_prefix: str) -> None:
    open_tasks = {f"owner-{number}": number for number in range(1, 15)} | {"other": 100}
    redis_client.hset(f"{key_prefix}:open-tasks", mapping=open_tasks)
    found = read(services)
    values = {labels["owner"]: found.value("owner_open_tasks", **labels) for labels in found.labels("owner_open_tasks")}
    assert values == {f"owner-{number}": number for number in range(6, 15)} | {"other": 100 + 1 + 2 + 3 + 4 + 5}


def test_open_tasks_are_those_of_the_record_store(services: Services) -> None:
    accept(services, owner="alice")
    accept(services, owner="alice")
    assert read(services).value("owner_open_tasks", owner="alice") == 2


def test_the_stores_are_read_at_most_once_a_second(services: Services) -> None:
    now_s = [0.0]
    metrics = ServiceMetrics(services, clock=lambda: now_s[0])
    first = list(metrics.collect())
    accept(services)
    assert list(metrics.collect()) == first
    now_s[0] = 1.0
    assert list(metrics.collect()) != first


def test_a_record_store_that_is_down(settings: Settings) -> None:
    down = settings.model_copy(update={"broker": settings.broker.model_copy(update={"url": f"redis://{NOBODY}/0"})})
    found = read(Services(down))
    assert [found.value("store_up", store=store) for store in ("task_store", "object_store")] == [0, 1]
    assert {"store": "task_store"} in found.labels("store_up")
    assert found.labels("dead_letters") == []
    assert found.value("free_disk_bytes", content="uploads") > 0


class TestCertificates:
    def test_ends_by_setting(self, settings: Settings, tmp_path: Path) -> None:
        made = make_certificates(tmp_path)
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(b"# two\n" + made.authority.read_bytes() + made.certificate.read_bytes())
        named = Settings.model_validate(
            {
                "data_dir": tmp_path,
                "broker": {"url": f"rediss://127.0.0.1:1/0?ssl_ca_certs={made.authority}"},
                "s3": {"ca_file": bundle, "secure": True},
            }
        )
        ends = certificate_ends(named)
        assert ends.keys() == {"broker.url?ssl_ca_certs", "s3.ca_file"}
        now, day = datetime.now(UTC), timedelta(days=1)
        for end in ends.values():
            assert now + day < datetime.fromtimestamp(end, UTC) <= now + 2 * day
        assert certificate_ends(settings) == {}

    def test_a_file_that_is_no_certificate_has_no_end(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.pem"
        for text in ("", "no PEM", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"):
            broken.write_text(text, encoding="utf-8")
            assert (
                certificate_ends(Settings.model_validate({"data_dir": tmp_path, "s3": {"ca_file": broken, "secure": True}})) == {}
            )
