"""Network policies of deploy/kubernetes: nothing is allowed but what a part needs."""

from __future__ import annotations

import re

import pytest
import yaml
from support.kubernetes import TARGETS, Manifest, container, labels_of_pods, matches, named, of_kind, workloads
from support.service import ROOT

#: Ports that each part may connect to, by its networks in docker-compose.yml; DNS, and S3 over TLS, join them.
REDIS, RABBITMQ, MINIO, SINKS, DNS = {6379}, {5671, 5672}, {443, 9000}, {9092, 27017}, {53}
MAY_REACH = {
    "api": REDIS | MINIO | DNS,
    "worker": REDIS | MINIO | DNS,
    "relay": REDIS | MINIO | SINKS | DNS,
    "flower": REDIS | DNS,
}
PARTS = ("inference-api", "inference-relay", "inference-flower", "inference-worker-efficientnet-lite0")


def policies(target: str, workload: Manifest, direction: str) -> list[Manifest]:
    """The policies for the pods of a workload that are about `Ingress` or `Egress`."""
    return [
        policy["spec"]
        for policy in of_kind(target, "NetworkPolicy")
        if matches(policy["spec"]["podSelector"], labels_of_pods(workload)) and direction in policy["spec"]["policyTypes"]
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_every_pod_has_a_policy_that_denies(target: str) -> None:
    for workload in workloads(target):
        assert policies(target, workload, "Ingress")
        assert policies(target, workload, "Egress")
    assert named(target, "NetworkPolicy", "inference-default-deny")["spec"].keys() == {"podSelector", "policyTypes"}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("target", ["base", "production", "rabbitmq", "gpu"])
def test_a_part_reaches_its_servers_alone(target: str, name: str) -> None:
    workload = named(target, "Deployment", name)
    rules = [rule for policy in policies(target, workload, "Egress") for rule in policy.get("egress", [])]
    ports = {port["port"] for rule in rules for port in rule["ports"]}
    broker = RABBITMQ if target == "rabbitmq" else set()

    assert ports == MAY_REACH[labels_of_pods(workload)["app.kubernetes.io/component"]] | broker
    for rule in rules:
        assert rule["to"]
        assert all(peer.get("ipBlock", {}).get("cidr") != "0.0.0.0/0" for peer in rule["to"])


def test_who_may_connect() -> None:
    found = {}
    for name in PARTS:
        workload = named("production", "Deployment", name)
        found[name.split("-")[1]] = {
            (*peer["namespaceSelector"]["matchLabels"].items(), port["port"])
            for policy in policies("production", workload, "Ingress")
            for rule in policy.get("ingress", [])
            for peer in rule["from"]
            for port in rule["ports"]
        }
    prometheus = ("kubernetes.io/metadata.name", "monitoring")
    scraped = {(prometheus, 30005), (prometheus, 9101), (prometheus, 9102)}
    assert found == {
        "api": {(("inference/clients", "true"), "http"), *scraped},
        "relay": {(("kubernetes.io/metadata.name", "keda"), "monitoring"), *scraped},
        "worker": scraped,
        "flower": set(),
    }


def test_servers_are_for_the_parts_alone() -> None:
    ports = {port["containerPort"] for one in of_kind("dev", "StatefulSet") for port in container(one)["ports"]}
    (spec,) = policies("dev", named("dev", "StatefulSet", "redis"), "Ingress")
    of_parts, of_keda = spec["ingress"]

    assert of_parts["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "inference"}}}]
    assert {port["port"] for port in of_parts["ports"]} == ports
    assert of_keda["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}]
    for name in PARTS:
        assert policies("dev", named("dev", "Deployment", name), "Egress")[-1]


def test_servers_have_the_names_and_versions_of_compose() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for server in of_kind("dev", "StatefulSet"):
        assert f"image: {container(server)['image']}\n" in compose
        assert re.search(rf"^  {server['metadata']['name']}:$", compose, re.MULTILINE)


def test_prometheus_finds_the_jobs_of_its_rules() -> None:
    found = set()
    for monitor in of_kind("production", "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
        assert relabeling["targetLabel"] == "job"
        for workload in workloads("production"):
            if matches(monitor["spec"]["selector"], labels_of_pods(workload)):
                (port,) = container(workload)["ports"]
                assert port["name"] == endpoint["port"]
                found.add(relabeling["replacement"].replace("$1", labels_of_pods(workload)["app.kubernetes.io/component"]))

    configuration = yaml.safe_load((ROOT / "deploy/monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert found == {job["job_name"] for job in configuration["scrape_configs"]} - {"prometheus"}
