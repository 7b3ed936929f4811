"""KEDA reads what the service writes: the key of the waiting tasks, and the metric of the oldest."""

from __future__ import annotations

import re
import shutil
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.kubernetes import (
    FOLDER,
    KEDA,
    build_folder,
    container,
    labels_of_pods,
    matches,
    module_folder,
    named,
    of_kind,
    pod,
    workloads,
)
from support.samples import QUEUE, a_request
from support.service import ROOT
from support.time_travel import let_time_pass

from inference.container import Services
from inference.models.registry import described_models
from inference.settings import Settings
from inference.status.service_metrics import ServiceMetrics
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

#: Names of the stable interface; the documentation has them too.
KEY = "inference:waiting:predict.{model}"
METRIC = 'inference_oldest_waiting_task_age_seconds{{model="{model}"}}'
#: Rights of KEDA's user of Redis, as docs/kubernetes.md gives them.
RIGHTS = "~inference:waiting:* resetchannels -@all +hello +client|setinfo +select +ping +eval +type +zcard +llen +scard +hlen"


def scaled_objects() -> dict[str, dict[str, Any]]:
    """ScaledObjects of production by the worker that they scale."""
    return {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in of_kind("production", "ScaledObject")}


def scaler_script() -> str:
    """The script by which KEDA's redis scaler counts."""
    source = (module_folder(KEDA) / "pkg/scalers/redis_scaler.go").read_text(encoding="utf-8")
    (script,) = re.findall(r"luaScript := `(.+?)`", source, re.DOTALL)
    return str(script)


def test_each_worker_has_a_scaler_for_its_queue() -> None:
    workers = [one for one in workloads("production") if labels_of_pods(one).get("app.kubernetes.io/component") == "worker"]
    assert set(scaled_objects()) == {worker["metadata"]["name"] for worker in workers}
    for worker in workers:
        model = labels_of_pods(worker)["inference/model"]
        waiting, oldest = scaled_objects()[worker["metadata"]["name"]]["triggers"]
        assert (waiting["type"], waiting["metadata"]["listName"]) == ("redis", KEY.format(model=model))
        assert (oldest["type"], oldest["metadata"]["valueLocation"]) == ("metrics-api", METRIC.format(model=model))
        assert oldest["metadata"]["format"] == "prometheus"


def test_it_scales_to_zero_and_back() -> None:
    for spec in scaled_objects().values():
        assert spec["minReplicaCount"] == 0
        assert {trigger["metricType"] for trigger in spec["triggers"]} == {"AverageValue"}
        activations = [
            trigger["metadata"][key]
            for trigger in spec["triggers"]
            for key in ("activationListLength", "activationTargetValue")
            if key in trigger["metadata"]
        ]
        assert activations == ["0", "0"]  # one waiting task starts the first worker


def test_the_metric_is_asked_of_the_relay() -> None:
    service = named("production", "Service", "inference-relay")
    (port,) = service["spec"]["ports"]
    for spec in scaled_objects().values():
        assert spec["triggers"][1]["metadata"]["url"] == f"http://inference-relay.inference.svc:{port['port']}/metrics"
    (declared,) = container(named("production", "Deployment", "inference-relay"))["ports"]
    assert declared["name"] == port["targetPort"]


def test_the_key_has_the_prefix_of_the_settings() -> None:
    settings = Settings()
    for name, model in described_models(settings).items():
        assert f"{settings.task_store.key_prefix}:waiting:{model.queue}" == KEY.format(model=name)


@pytest.fixture
def waiting(redis_client: redis.Redis, redis_url: str, key_prefix: str) -> Iterator[Callable[[], int]]:
    """Counts waiting tasks as KEDA does: its script, on the service's key, with the rights of its user alone."""
    name, password = f"keda-{key_prefix}", uuid.uuid4().hex
    rights = RIGHTS.replace("inference", key_prefix).split()
    redis_client.execute_command("ACL", "SETUSER", name, "reset", "on", f">{password}", *rights)
    with redis.Redis.from_url(redis_url, username=name, password=password, socket_timeout=5) as client:
        yield lambda: int(client.eval(scaler_script(), 1, f"{key_prefix}:waiting:{QUEUE}"))
    redis_client.execute_command("ACL", "DELUSER", name)


def test_each_waiting_task_counts_once(redis_client: redis.Redis, key_prefix: str, waiting: Callable[[], int]) -> None:
    store = RedisTaskStore(redis_client, StorePolicy(key_prefix))
    counts = [waiting()]
    tasks = [store.accept(a_request(), enqueue=None, max_queue_depth=0).task_id for _ in range(3)]
    counts.append(waiting())
    store.lease("worker", tasks[:2])
    counts.append(waiting())
    store.start("worker", tasks[:1])
    counts.append(waiting())
    store.cancel(tasks[2])
    counts.append(waiting())

    assert counts == [0, 3, 3, 2, 1]  # a task that a worker holds waits until the model starts


def oldest_age_s(exposition: str, selector: str) -> float:
    """The value that KEDA's metrics-api scaler finds: an error if there is none, after which it does not scale to zero."""
    found = re.fullmatch(r'(\w+)\{(\w+)="([^"]+)"\}', selector)
    assert found is not None
    name, label, value = found.groups()
    (sample,) = (
        sample
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and sample.labels[label] == value
    )
    return sample.value


def test_the_metric_is_there_with_and_without_waiting_tasks(
    redis_client: redis.Redis, redis_url: str, key_prefix: str, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"broker": {"url": redis_url}, "task_store": {"key_prefix": key_prefix}}
    services = Services(Settings(data_dir=tmp_path, **sections))
    (model,) = services.descriptions.values()
    (spec,) = scaled_objects().values()
    ages_s = []
    for _ in range(2):
        exposition = generate_latest(ServiceMetrics(services)).decode()  # type: ignore[arg-type] # it only collects
        ages_s.append(oldest_age_s(exposition, spec["triggers"][1]["metadata"]["valueLocation"]))
        services.store.accept(a_request(queue=model.queue), enqueue=None, max_queue_depth=0)
        let_time_pass(redis_client, key_prefix, 25)
    services.redis.close()

    assert ages_s[0] == 0
    assert 25 <= ages_s[1] < 60


def test_the_documentation_gives_these_rights() -> None:
    assert RIGHTS in (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")


def test_a_model_is_added_as_documented(tmp_path: Path) -> None:
    text = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    (step,) = re.findall(r"```yaml\n(.+?)```", text, re.DOTALL)
    copied = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copied)
    (copied / "models/flowers").mkdir()
    (copied / "models/flowers/kustomization.yaml").write_text(textwrap.dedent(step), encoding="utf-8")
    base = copied / "base/kustomization.yaml"
    base.write_text(
        base.read_text(encoding="utf-8").replace("resources:\n", "resources:\n  - ../models/flowers\n"), encoding="utf-8"
    )
    scaler = copied / "components/keda/flowers"
    shutil.copytree(copied / "components/keda/efficientnet-lite0", scaler)
    file = scaler / "kustomization.yaml"
    replaced = file.read_text(encoding="utf-8").replace("efficientnet-lite0", "flowers")
    assert replaced.count("flowers") == 4
    file.write_text(replaced, encoding="utf-8")

    built = {(one["kind"], one["metadata"]["name"]): one for one in (*build_folder(base.parent), *build_folder(scaler))}

    worker = built["Deployment", "inference-worker-flowers"]
    assert labels_of_pods(worker)["inference/model"] == "flowers"
    assert matches(built["PodDisruptionBudget", "inference-worker-flowers"]["spec"]["selector"], labels_of_pods(worker))
    assert pod(worker)["serviceAccountName"] == "inference-worker-flowers"
    spec = built["ScaledObject", "inference-worker-flowers"]["spec"]
    assert spec["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert spec["triggers"][0]["metadata"]["listName"] == KEY.format(model="flowers")
    assert spec["triggers"][1]["metadata"]["valueLocation"] == METRIC.format(model="flowers")
