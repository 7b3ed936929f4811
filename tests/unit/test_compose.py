"""docker-compose.yml, the Dockerfiles and .env.example fit together, and fit the configuration."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from support.compose import (
    COMPOSE,
    LASTING,
    NETWORKS,
    ONE_SHOT,
    PARTS,
    ROOT,
    SERVICES,
    environment,
    filled,
    made_secrets,
)
from support.limited_users import REDIS_USER, redis_rules

from inference.settings import Settings, load_settings


def stages() -> dict[str, tuple[str, str]]:
    """Parent and text of each stage of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: (parent, body) for parent, name, body in found}


def built_from(stage: str) -> str:
    """The text of a stage and of all that it comes from or copies from."""
    if stage not in stages():
        return ""
    parent, body = stages()[stage]
    return "\n".join([body, built_from(parent), *map(built_from, re.findall(r"--from=(\S+)", body))])


def is_pinned(image: str) -> bool:
    return re.search(r":v?\d+\.\d+[\w.-]*$|:\d{8}$", image) is not None


# ---- the specification ----


def test_it_fits_the_schema_of_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


# ---- each service ----


def test_all_services_are_there() -> None:
    assert set(SERVICES) == {ONE_SHOT, *PARTS, "redis", "minio", "kafka", "mongo", "rabbitmq", "prometheus", "grafana"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name: str) -> None:
    assert is_pinned(SERVICES[name]["image"])


def test_what_images_are_built_from_is_pinned() -> None:
    for file in ("Dockerfile", "deploy/docker/minio.Dockerfile"):
        text = (ROOT / file).read_text(encoding="utf-8")
        own = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
        bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - own
        assert bases
        assert all(is_pinned(base.partition("-")[0]) for base in bases), bases


@pytest.mark.parametrize("name", LASTING)
def test_lasting_services_are_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]

    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", LASTING)
def test_dependencies_are_waited_for(name: str) -> None:
    waits_for = SERVICES[name].get("depends_on", {})

    for other, wait in waits_for.items():
        is_one_shot = other == ONE_SHOT
        assert wait["condition"] == ("service_completed_successfully" if is_one_shot else "service_healthy")
        assert wait.get("required", True) is not bool(SERVICES[other].get("profiles"))
    queue = {"redis", "rabbitmq"}
    needed = {"relay": queue | {ONE_SHOT, "mongo", "kafka"}, "flower": queue, "grafana": {"prometheus"}}
    assert set(waits_for) == needed.get(name, queue | {ONE_SHOT} if name in PARTS else set())


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", filled(port, {})), port
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize(
    ("name", "port"),
    [
        ("redis", 6379),
        ("minio", 9000),
        ("kafka", 9092),
        ("mongo", 27017),
        ("rabbitmq", 5672),
        ("api", 30005),
        ("prometheus", 9090),
        ("grafana", 3000),
    ],
)
def test_a_port_is_what_clients_expect(name: str, port: int) -> None:
    assert [filled(published, {}) for published in SERVICES[name]["ports"]] == [f"127.0.0.1:{port}:{port}"]


def test_volumes_are_declared_and_used() -> None:
    sources = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}

    assert {source for source in sources if not source.startswith("./")} == set(COMPOSE["volumes"])
    files = [source for source in sources if source.startswith("./")]
    assert files
    assert [source for source in files if not (ROOT / source).exists()] == []


# ---- least privilege ----


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]  # noqa: S108 in a container
    assert 0 < service["pids_limit"] <= 4096
    assert re.fullmatch(r"\d+[mg]", filled(service["mem_limit"], {}))
    assert service["networks"]
    assert set(service["networks"]) <= set(NETWORKS)


def test_no_container_runs_as_root() -> None:
    """Images of the project and apache/kafka have a user of their own; others start as root, or might, unless one is named."""
    named = {name: service["user"] for name, service in SERVICES.items() if "user" in service}
    assert named == {"redis": "redis", "mongo": "mongodb", "rabbitmq": "rabbitmq", "prometheus": "nobody", "grafana": "472"}


def test_a_server_is_reached_by_its_clients_alone() -> None:
    members = {network: {name for name in SERVICES if network in SERVICES[name]["networks"]} for network in NETWORKS}

    assert members == {
        "front": {"api", "flower"},
        "queue": {"redis", "rabbitmq", *PARTS},
        "stores": {"minio", ONE_SHOT, "api", "worker", "worker-gpu", "relay"},
        "sinks": {"mongo", "kafka", "relay"},
        "metrics": {"prometheus", "api", "worker", "worker-gpu", "relay"},
        "dashboards": {"prometheus", "grafana"},
    }


def test_the_api_asks_for_a_key() -> None:
    for name in PARTS:
        assert ("INFERENCE_SECURITY__REQUIRE_KEYS" in environment(name)) == (name != "flower")
    for name in ("api", "worker", "worker-gpu", "relay"):  # a worker that does not know it gives plain messages no owner
        assert environment(name)["INFERENCE_SECURITY__REQUIRE_KEYS"] == "true"
    assert "INFERENCE_SECURITY__ANONYMOUS" not in environment("api")


def test_the_user_of_minio_may_use_the_bucket_of_the_service() -> None:
    policy = json.loads((ROOT / "deploy/docker/minio-policy.json").read_text("utf-8"))
    bucket = yaml.safe_load((ROOT / "configurations/containers.yaml").read_text("utf-8"))["uploads"]["bucket"]

    resources = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
    assert resources == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}
    assert not any("*" in action for statement in policy["Statement"] for action in statement["Action"])


def test_all_but_public_images_run_as_somebody_else_than_root() -> None:
    for stage in ("api", "worker", "worker-gpu"):
        assert re.search(r"^USER [1-9]\d*$", built_from(stage), re.MULTILINE)
    assert re.search(r"^USER [1-9]\d*$", (ROOT / "deploy/docker/minio.Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)


# ---- images and settings ----


@pytest.mark.parametrize("name", PARTS)
def test_only_workers_have_tensorflow(name: str) -> None:
    build = SERVICES[name]["build"]
    installed = set(re.findall(r"-r (\S+)", built_from(build["target"])))

    extra = {"worker": {"requirements.txt"}, "worker-gpu": {"requirements-gpu.txt"}}.get(name, set())
    assert installed == {"requirements-base.txt", "requirements-tracing.txt"} | extra
    assert "tensorflow" not in (ROOT / "requirements-base.txt").read_text(encoding="utf-8")


def test_what_the_dockerfile_copies_is_let_through() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    body = "\n".join(body for _, body in stages().values())
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", body, re.MULTILINE) for word in line.split()]

    assert "*" in ignore
    assert copied
    for word in copied:
        assert (ROOT / word).exists(), word
        assert any(Path(word).match(pattern) for pattern in allowed), word


def settings_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str] | None = None) -> Settings:
    """The settings of a part as its container has them; `folder` has the secrets."""
    for variable in list(os.environ):
        if variable.startswith("INFERENCE_"):
            monkeypatch.delenv(variable)
    given = environment(name, variables)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value.replace("/run/secrets", str(folder)))
    monkeypatch.chdir(folder)
    return load_settings(ROOT / Path(given["INFERENCE_CONFIG"]).relative_to("/app"))


@pytest.fixture
def made(tmp_path: Path) -> dict[str, str]:
    """The secrets by their name."""
    return made_secrets(tmp_path)


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_get_all_settings(name: str, made: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of(name, tmp_path, monkeypatch)

    redis = f"redis://inference:{made['redis-password']}@redis:6379/0"
    assert (settings.broker.url, settings.task_store.url) == (redis, redis)
    assert settings.s3.endpoint == environment(ONE_SHOT)["MINIO_ENDPOINT"]
    if name != "flower":
        assert settings.s3.access_key.get_secret_value() == environment(ONE_SHOT)["MINIO_ACCESS_KEY"]
        assert settings.s3.secret_key.get_secret_value() == made["minio-secret-key"]
    if name == "relay":
        mongo = f"mongodb://inference:{made['mongo-password']}@mongo:27017/{settings.mongodb.database}"
        assert settings.mongodb.url.get_secret_value() == mongo
    assert f"INSIDE://{settings.kafka.bootstrap_servers}" in environment("kafka")["KAFKA_ADVERTISED_LISTENERS"]
    if name == "api":
        assert settings.api.host == "0.0.0.0"  # noqa: S104 inside its container


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("name", ["api", "worker", "worker-gpu", "relay"])
def test_traces_are_sent_where_the_example_says(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^# (TRACING_\w+)=(.+)$", example, re.MULTILINE))
    assert not settings_of(name, tmp_path, monkeypatch).tracing.is_on
    tracing = settings_of(name, tmp_path, monkeypatch, variables).tracing

    assert (tracing.endpoint, str(tracing.sample_ratio)) == (variables["TRACING_ENDPOINT"], variables["TRACING_SAMPLE_RATIO"])


def test_rabbitmq_becomes_the_broker(made: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    (broker,) = re.findall(r"^# BROKER=(.+)$", example, re.MULTILINE)
    settings = settings_of("worker", tmp_path, monkeypatch, {"BROKER": broker})

    password = made["rabbitmq-password"]
    assert settings.broker.url == f"amqp://inference:{password}@rabbitmq:5672//"
    assert made["rabbitmq-login.conf"].splitlines() == ["default_user = inference", f"default_pass = {password}"]
    assert settings.task_store.url == f"redis://inference:{made['redis-password']}@redis:6379/0"


def test_redis_keeps_what_was_accepted() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "always")
    assert options["--maxmemory-policy"] == "noeviction"


def test_flower_asks_for_a_password_and_keeps_its_state() -> None:
    flower = SERVICES["flower"]
    database = next(word.partition("=")[2] for word in flower["command"] if word.startswith("--db="))

    assert "--persistent=True" in flower["command"]
    assert any(Path(database).is_relative_to(volume.split(":")[1]) for volume in flower["volumes"])


def test_the_gpu_worker_reserves_a_gpu() -> None:
    devices = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert [(device["driver"], device["capabilities"]) for device in devices] == [("nvidia", ["gpu"])]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


def test_prometheus_scrapes_each_part_where_it_serves_its_metrics(
    made: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configuration = yaml.safe_load((ROOT / "deploy/monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    targets = {
        (name, found["port"])
        for job in configuration["scrape_configs"]
        for found in job.get("dns_sd_configs", [])
        for name in found["names"]
    }
    settings = {name: settings_of(name, tmp_path, monkeypatch) for name in ("worker", "worker-gpu", "relay")}
    serving = {
        name: part.monitoring.relay_port if name == "relay" else part.monitoring.worker_port for name, part in settings.items()
    }

    assert targets == {("api", 30005), *serving.items()}
    for part in settings.values():
        assert part.monitoring.host == "0.0.0.0"  # noqa: S104 inside its container


def test_monitoring_is_provisioned_from_the_repository() -> None:
    source = yaml.safe_load((ROOT / "deploy/monitoring/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    providers = yaml.safe_load((ROOT / "deploy/monitoring/grafana/provisioning/dashboards/inference.yml").read_text("utf-8"))
    mounted = dict(volume.removesuffix(":ro").split(":") for volume in SERVICES["grafana"]["volumes"])

    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    dashboards = next(folder for folder, path in mounted.items() if path == providers["providers"][0]["options"]["path"])
    assert (ROOT / dashboards / "inference.json").is_file()
    assert "/etc/grafana/provisioning" in mounted.values()
    assert "./deploy/monitoring/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]


def test_the_example_of_variables_has_every_variable_and_no_secret() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    example = (ROOT / ".env.example").read_text(encoding="utf-8")

    assert used <= set(re.findall(r"^# (\w+)=", example, re.MULTILINE))
    assert not re.search(r"PASSWORD|SECRET", example)


def test_the_rights_in_redis_are_documented() -> None:
    page = (ROOT / "docs/production.md").read_text(encoding="utf-8")
    assert f"ACL SETUSER {REDIS_USER} on >PASSWORD {' '.join(redis_rules())}\n" in page
