"""Pods of deploy/kubernetes: confined, probed, stopped in time, and configured as the service understands it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes import (
    TARGETS,
    Manifest,
    build,
    container,
    labels_of_pods,
    matches,
    named,
    of_kind,
    pod,
    workloads,
)
from support.service import ROOT

from inference.settings import Settings, load_settings

PARTS = ("inference-api", "inference-relay", "inference-flower", "inference-worker-efficientnet-lite0")
PART_OF = "app.kubernetes.io/part-of"
#: Seconds beyond the settings that a part may take to end.
_MARGIN_S = 3
#: Text of each secret that a test gives to the settings.
SECRETS = {
    "redis-url": "redis://inference:secret@redis:6379/0",
    "rabbitmq-url": "amqp://inference:secret@rabbitmq:5672//",
    "s3-access-key": "inference",
    "s3-secret-key": "secret-key",
    "mongodb-url": "mongodb://inference:secret@mongo:27017/inference",
    "flower-login": "admin:secret",
}


def is_part(workload: Manifest) -> bool:
    return bool(labels_of_pods(workload)[PART_OF] == "inference")


def environment(target: str, workload: Manifest) -> dict[str, Any]:
    """Variables of a container; those that are no plain value as they are described."""
    found: dict[str, Any] = {}
    for source in container(workload).get("envFrom", []):
        found |= named(target, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {one["name"]: one.get("value", one.get("valueFrom")) for one in container(workload).get("env", [])}


def mounted_secrets(workload: Manifest) -> dict[str, str]:
    """Key of the secret by the path that it is mounted at."""
    paths = {mount["name"]: mount["mountPath"] for mount in container(workload)["volumeMounts"]}
    return {
        f"{paths[volume['name']]}/{item['path']}": item["key"]
        for volume in pod(workload)["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }


def settings_of(target: str, workload: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as this part reads them, with its secrets in a folder."""
    variables = environment(target, workload)
    secrets = mounted_secrets(workload)
    volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
    configuration = named(target, "ConfigMap", volumes["configuration"]["configMap"]["name"])["data"]
    (mount,) = (mount for mount in container(workload)["volumeMounts"] if mount["name"] == "configuration")
    name = variables["INFERENCE_CONFIG"].removeprefix(f"{mount['mountPath']}/")
    (folder / name).write_text(configuration[name], encoding="utf-8")
    for variable, value in variables.items():
        if variable.endswith("_FILE"):
            file = folder / secrets[value]
            file.write_text(f"{SECRETS[secrets[value]]}\n", encoding="utf-8")
            monkeypatch.setenv(variable, str(file))
        elif variable.startswith("INFERENCE_") and variable != "INFERENCE_CONFIG":
            monkeypatch.setenv(variable, value)
    monkeypatch.chdir(ROOT)  # where the images have the code
    return load_settings(folder / name)


@pytest.mark.parametrize("target", TARGETS)
def test_pods_are_confined(target: str) -> None:
    for workload in workloads(target):
        of_pod, of_container = pod(workload)["securityContext"], container(workload)["securityContext"]

        assert of_pod["runAsNonRoot"] is True
        assert of_pod["runAsUser"] > 0
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert of_container["readOnlyRootFilesystem"] is True
        assert of_container["allowPrivilegeEscalation"] is False
        assert of_container["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(workload))
        assert not any("hostPath" in volume for volume in pod(workload)["volumes"])
    assert {"restricted"} == {
        value for (name, value) in named(target, "Namespace", "inference")["metadata"]["labels"].items() if "pod-security" in name
    }


@pytest.mark.parametrize("target", TARGETS)
def test_no_part_may_use_kubernetes(target: str) -> None:
    accounts = {account["metadata"]["name"]: account for account in of_kind(target, "ServiceAccount")}
    for workload in workloads(target):
        assert pod(workload)["automountServiceAccountToken"] is False
        assert pod(workload)["enableServiceLinks"] is False
        if is_part(workload):
            assert accounts[pod(workload)["serviceAccountName"]]["automountServiceAccountToken"] is False
    assert not of_kind(target, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


@pytest.mark.parametrize("target", TARGETS)
def test_images_are_pinned(target: str) -> None:
    for workload in workloads(target):
        assert re.search(r":v?\d+\.\d+\.\d+[\w.-]*$|:\d{8}$", container(workload)["image"]), container(workload)["image"]


@pytest.mark.parametrize("target", TARGETS)
def test_resources_are_set(target: str) -> None:
    for workload in workloads(target):
        resources = container(workload)["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert "memory" in resources["limits"]


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_container_writes_is_a_volume(target: str) -> None:
    for workload in workloads(target):
        volumes = {volume["name"] for volume in pod(workload)["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        mounts = {mount["name"]: mount for mount in container(workload)["volumeMounts"]}

        assert set(mounts) == volumes
        assert {"/tmp"} <= {mount["mountPath"] for mount in mounts.values()}  # noqa: S108


@pytest.mark.parametrize("target", TARGETS)
def test_secrets_come_by_reference(target: str) -> None:
    assert not of_kind(target, "Secret")
    for workload in workloads(target):
        secrets = mounted_secrets(workload)
        files = {value for name, value in environment(target, workload).items() if name.endswith("_FILE")}
        assert files <= set(secrets)
        if is_part(workload):
            assert set(secrets) - files <= {"/run/secrets/redis-url"}  # a broker in RabbitMQ leaves Flower without use for it
    for config in of_kind(target, "ConfigMap"):
        assert not re.search(r"://[^/\s]*:[^/\s]*@", str(config["data"]))


@pytest.mark.parametrize("target", TARGETS)
def test_a_part_has_no_more_secrets_than_in_compose(target: str) -> None:
    known = {
        "api": {"redis-url", "s3-access-key", "s3-secret-key"},
        "worker": {"redis-url", "s3-access-key", "s3-secret-key"},
        "relay": {"redis-url", "s3-access-key", "s3-secret-key", "mongodb-url"},
        "flower": {"redis-url", "flower-login"},
    }
    for workload in filter(is_part, workloads(target)):
        rabbitmq = {"rabbitmq-url"} if target in ("rabbitmq", "everything") else set()
        keys = {"s3-access-key", "s3-secret-key"} if target == "s3-role" else set()
        part = labels_of_pods(workload)["app.kubernetes.io/component"]
        assert set(mounted_secrets(workload).values()) == known[part] - keys | rabbitmq


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_configuration_is_valid(target: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(target, named(target, "Deployment", name), tmp_path, monkeypatch)

    assert settings.broker.is_amqp is (target in ("rabbitmq", "everything"))
    assert settings.task_store.url == SECRETS["redis-url"]
    assert settings.security.require_keys
    assert settings.uploads.store == "s3"
    has_role = target == "s3-role" and name != "inference-flower"
    assert settings.s3.credentials == ("role" if has_role else "keys")
    assert bool(settings.s3.access_key.get_secret_value()) is (name != "inference-flower" and not has_role)
    assert settings.api.ready_without_workers
    models = {label for workload in workloads(target) if (label := labels_of_pods(workload).get("inference/model"))}
    assert {Path(model).name for model in settings.models} == models


@pytest.mark.parametrize("target", TARGETS)
def test_probes_ask_ports_that_are_listened_on(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for workload in filter(is_part, workloads(target)):
        settings = settings_of(target, workload, tmp_path, monkeypatch)
        part = labels_of_pods(workload)["app.kubernetes.io/component"]
        port = {
            "api": settings.api.port,
            "worker": settings.monitoring.worker_port,
            "relay": settings.monitoring.relay_port,
            "flower": 5555,
        }[part]
        host = settings.api.host if part == "api" else settings.monitoring.host
        assert host == "0.0.0.0"  # noqa: S104
        (declared,) = container(workload)["ports"]
        assert declared["containerPort"] == port
        probes = [container(workload)[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        assert {probe["port"] for probe in probes} == {declared["name"]}
        paths = {"/healthcheck"} if part == "flower" else {"/health/live", "/health/ready"}
        assert {probe["path"] for probe in probes} == paths
        assert container(workload)["livenessProbe"]["httpGet"]["path"] != "/health/ready"  # a store that is down kills no pod


@pytest.mark.parametrize("target", TARGETS)
def test_a_pod_has_time_to_drain(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for workload in filter(is_part, workloads(target)):
        settings = settings_of(target, workload, tmp_path, monkeypatch)
        needed_s = {
            "api": settings.api.shutdown_delay_s + settings.api.drain_timeout_s,
            "worker": settings.worker.drain_timeout_s,
            "relay": max(settings.mongodb.timeout_s, settings.kafka.timeout_s, settings.webhooks.timeout_s),
            "flower": 0,
        }[labels_of_pods(workload)["app.kubernetes.io/component"]]
        assert pod(workload)["terminationGracePeriodSeconds"] >= needed_s + _MARGIN_S
        assert settings.api.drain_timeout_s >= settings.deadlines.sync_s + 5
        probe = container(named(target, "Deployment", "inference-api"))["readinessProbe"]
        assert settings.api.shutdown_delay_s > probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_has_time_to_load(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = named(target, "Deployment", PARTS[-1])
    settings = settings_of(target, worker, tmp_path, monkeypatch)
    # a worker is live while its models load, and ready afterwards
    assert container(worker)["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert worker["spec"].get("progressDeadlineSeconds", 600) > settings.worker.load_timeout_s


@pytest.mark.parametrize("target", TARGETS)
def test_a_worker_takes_the_queue_of_its_model(target: str) -> None:
    for worker in workloads(target):
        labels = labels_of_pods(worker)
        if labels.get("app.kubernetes.io/component") != "worker":
            continue
        assert container(worker)["command"][-2:] == ["-Q", "predict.$(MODEL)"]
        assert environment(target, worker)["MODEL"] == {"fieldRef": {"fieldPath": "metadata.labels['inference/model']"}}
        assert worker["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert "inference/model" in worker["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("target", TARGETS)
def test_nodes_can_be_drained(target: str) -> None:
    for workload in filter(is_part, workloads(target)):
        labels = labels_of_pods(workload)
        budgets = [
            budget["spec"] for budget in of_kind(target, "PodDisruptionBudget") if matches(budget["spec"]["selector"], labels)
        ]
        if labels["app.kubernetes.io/component"] == "flower":
            assert budgets == []
            continue
        (budget,) = budgets
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("target", TARGETS)
def test_pods_are_spread_over_nodes_and_zones(target: str) -> None:
    for workload in filter(is_part, workloads(target)):
        labels = labels_of_pods(workload)
        if labels["app.kubernetes.io/component"] == "flower":
            continue
        rules = pod(workload)["topologySpreadConstraints"]
        assert {rule["topologyKey"] for rule in rules} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for rule in rules:
            assert matches(rule["labelSelector"], labels)
            selected = [other for other in workloads(target) if matches(rule["labelSelector"], labels_of_pods(other))]
            assert [other["metadata"]["name"] for other in selected] == [workload["metadata"]["name"]]


def test_production_has_more_than_one_of_each_part_that_serves() -> None:
    for name in ("inference-api", "inference-relay"):
        assert named("production", "Deployment", name)["spec"]["replicas"] > 1
    assert "replicas" not in named("production", "Deployment", PARTS[-1])["spec"]  # KEDA's


def test_the_first_user_of_mongodb_is_the_one_of_compose() -> None:
    script = named("dev", "ConfigMap", "mongo-first-start")["data"]["mongo-user.js"]
    assert script == (ROOT / "deploy/docker/mongo-user.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", TARGETS)
def test_parts_can_be_upgraded_one_after_the_other(target: str) -> None:
    """The order is that of docs/kubernetes.md: by the label of a part, after all that has none."""
    first = {
        (one["kind"], one["metadata"]["name"])
        for one in build(target)
        if "app.kubernetes.io/component" not in one["metadata"].get("labels", {})
    }
    for workload in filter(is_part, workloads(target)):
        labels = workload["metadata"]["labels"]
        assert labels["app.kubernetes.io/component"] == labels_of_pods(workload)["app.kubernetes.io/component"]
        maps = [volume["configMap"]["name"] for volume in pod(workload)["volumes"] if "configMap" in volume]
        maps += [source["configMapRef"]["name"] for source in container(workload)["envFrom"]]
        assert len(maps) == 2
        assert {("ServiceAccount", pod(workload)["serviceAccountName"]), *(("ConfigMap", name) for name in maps)} <= first


@pytest.mark.parametrize("target", TARGETS)
def test_services_find_pods_and_ports(target: str) -> None:
    for service in of_kind(target, "Service"):
        found = [one for one in workloads(target) if service["spec"]["selector"].items() <= labels_of_pods(one).items()]
        (workload,) = found
        names = {port["name"] for port in container(workload)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


@pytest.mark.parametrize("target", ["gpu", "everything"])
def test_workers_on_gpus(target: str) -> None:
    worker = named(target, "Deployment", PARTS[-1])
    assert container(worker)["image"].startswith("inference-worker-gpu:")
    assert container(worker)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    for other in PARTS[:-1]:
        assert "nvidia" not in str(named(target, "Deployment", other))


def test_every_secret_is_documented() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    table = text.partition("| key | content | mounted by |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`([a-z0-9-]+)`", table)) - {"rabbitmq"}
    parts = filter(is_part, workloads("everything"))
    assert documented == {key for part in parts for key in mounted_secrets(part).values()}


def test_a_development_secret_has_all_keys(tmp_path: Path) -> None:
    script = ROOT / "deploy/docker/make-secrets.sh"
    subprocess.run(["sh", str(script), str(tmp_path)], check=True, env={"PATH": os.environ["PATH"]})
    made = {file.name for file in tmp_path.iterdir()} | {"s3-access-key", "s3-secret-key"}  # the page has these made by hand
    assert {key for workload in workloads("dev") for key in mounted_secrets(workload).values()} <= made
