"""docker-compose.yml, the Dockerfiles and .env.example fit together, and fit the configuration."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.settings import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = "check-secrets"
LASTING = sorted(set(SERVICES) - {ONE_SHOT})
PARTS = ["api", "flower", "relay", "worker", "worker-gpu"]
OPTIONAL_SECRETS = {"MONGO_PASSWORD", "REDIS_PASSWORD"}
REAL = {
    "MINIO_ROOT_USER": "inference",
    "MINIO_ROOT_PASSWORD": "aa11aa11",
    "RABBITMQ_PASSWORD": "bb22bb22",
    "FLOWER_PASSWORD": "cc33cc33",
}
_INNERMOST = re.compile(r"\$\{(\w+)(?:(:[-+?])([^{}]*))?\}|\$(?!\$)(\w+)")


def filled(text: str, variables: Mapping[str, str]) -> str:
    """What Compose makes of `$A`, `${A}`, `${A:-default}`, `${A:+given}` and `${A:?message}`."""

    def value(found: re.Match[str]) -> str:
        name, operator, word = found[1] or found[4], found[2], found[3]
        given = variables.get(name, "")
        if operator == ":?" and not given:
            raise KeyError(name)
        if operator == ":+":
            return word if given else ""
        return given or (word if operator == ":-" else "")

    while (changed := _INNERMOST.sub(value, text)) != text:
        text = changed
    return text


def environment(service: str, variables: Mapping[str, str] = REAL) -> dict[str, str]:
    return {name: filled(value, variables) for name, value in SERVICES[service].get("environment", {}).items()}


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


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
    assert set(SERVICES) == {ONE_SHOT, *PARTS, "redis", "minio", "kafka", "mongo", "rabbitmq"}


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
    waits_for = SERVICES[name]["depends_on"]

    assert waits_for[ONE_SHOT] == {"condition": "service_completed_successfully"}
    others = {other: wait for other, wait in waits_for.items() if other != ONE_SHOT}
    assert all(wait["condition"] == "service_healthy" for wait in others.values())
    assert all(wait.get("required", True) is not bool(SERVICES[other].get("profiles")) for other, wait in others.items())
    assert set(others) == ({"redis", "minio", "mongo", "kafka", "rabbitmq"} if name in PARTS else set())


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", filled(port, {})), port
    assert "network_mode" not in SERVICES[name] or SERVICES[name]["network_mode"] == "none"


@pytest.mark.parametrize(
    ("name", "port"), [("redis", 6379), ("minio", 9000), ("kafka", 9092), ("mongo", 27017), ("rabbitmq", 5672), ("api", 30005)]
)
def test_a_port_is_what_clients_expect(name: str, port: int) -> None:
    assert [filled(published, {}) for published in SERVICES[name]["ports"]] == [f"127.0.0.1:{port}:{port}"]


def test_volumes_are_declared_and_used() -> None:
    sources = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}

    assert {source for source in sources if not source.startswith("./")} == set(COMPOSE["volumes"])
    files = [source for source in sources if source.startswith("./")]
    assert files
    assert [source for source in files if not (ROOT / source).is_file()] == []


def test_secrets_come_from_variables_only() -> None:
    found = set()
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASS|SECRET|AUTH|ACCESS_KEY|MINIO_ROOT_USER", key):
                found.add(name)
                assert re.fullmatch(r"(\$\{[^{}]+\}:?)+", value), (name, key)
            assert not re.search(r"://[^$/]*:[^$/]*@", value), (name, key)
    assert found >= {"redis", "minio", "mongo", "rabbitmq", "flower", *PARTS}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_secret_is_on_a_command_line(name: str) -> None:
    words = json.dumps([SERVICES[name].get(key) for key in ("command", "entrypoint", "healthcheck")])
    assert not set(re.findall(r"(?<!\$)\$\{?(\w+)", words)) & set(environment(ONE_SHOT))


def test_redis_gets_its_password_from_a_file() -> None:
    command = SERVICES["redis"]["command"]
    (config,) = SERVICES["redis"]["configs"]
    assert command[command.index("--include") + 1] == config["target"]
    content = COMPOSE["configs"][config["source"]]["content"]
    assert filled(content, {"REDIS_PASSWORD": "r3d"}) == 'requirepass "r3d"'
    assert filled(content, {}) == 'requirepass ""'


@pytest.mark.parametrize("passwords", [{}, {"REDIS_PASSWORD": "r3d", "MONGO_PASSWORD": "m0n"}])
def test_make_services_finds_each_login(passwords: dict[str, str]) -> None:
    """dev/servers/docker.py reads them from the servers' environments."""
    variables = REAL | passwords
    assert environment("redis", variables)["REDISCLI_AUTH"] == passwords.get("REDIS_PASSWORD", "")
    mongo = environment("mongo", variables)
    login = ("inference", "m0n") if passwords else ("", "")
    assert (mongo["MONGO_INITDB_ROOT_USERNAME"], mongo["MONGO_INITDB_ROOT_PASSWORD"]) == login
    assert environment("rabbitmq", variables)["RABBITMQ_DEFAULT_PASS"] == "bb22bb22"
    assert environment("minio", variables)["MINIO_ROOT_PASSWORD"] == "aa11aa11"


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
    assert installed == {"requirements-base.txt"} | extra
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


@pytest.mark.parametrize("passwords", [{}, {"REDIS_PASSWORD": "r3d", "MONGO_PASSWORD": "m0n"}])
@pytest.mark.parametrize("name", PARTS)
def test_the_parts_get_all_settings(
    name: str, passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = environment(name, REAL | passwords)
    for variable in list(os.environ):
        if variable.startswith("INFERENCE_"):
            monkeypatch.delenv(variable)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    file = ROOT / Path(given["INFERENCE_CONFIG"]).relative_to("/app")

    needed = set(re.findall(r"^[^#\n]*\$\{(\w+)\}", file.read_text(encoding="utf-8"), re.MULTILINE))
    assert needed <= set(given)
    settings = load_settings(file)
    redis = "redis://:r3d@redis:6379/0" if passwords else "redis://redis:6379/0"
    assert (settings.broker.url, settings.task_store.url) == (redis, redis)
    mongo = "mongodb://inference:m0n@mongo:27017/" if passwords else "mongodb://mongo:27017/"
    assert settings.mongodb.url.get_secret_value() == mongo
    assert settings.minio.endpoint == "http://minio:9000"
    assert settings.minio.access_key.get_secret_value() == environment("minio")["MINIO_ROOT_USER"]
    assert settings.minio.secret_key.get_secret_value() == environment("minio")["MINIO_ROOT_PASSWORD"]
    assert f"INSIDE://{settings.kafka.bootstrap_servers}" in environment("kafka")["KAFKA_ADVERTISED_LISTENERS"]
    if name == "api":
        assert settings.api.host == "0.0.0.0"  # noqa: S104 inside its container


def test_rabbitmq_becomes_the_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = re.search(r"^# BROKER_URL=(.+)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert url
    for variable, value in environment("worker", REAL | {"BROKER_URL": filled(url[1], REAL)}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)

    settings = load_settings(ROOT / "configurations/full.yaml")
    server = environment("rabbitmq")
    assert settings.broker.url == f"amqp://{server['RABBITMQ_DEFAULT_USER']}:{server['RABBITMQ_DEFAULT_PASS']}@rabbitmq:5672//"
    assert settings.task_store.url == "redis://redis:6379/0"


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
    assert environment("flower")["FLOWER_BASIC_AUTH"] == "admin:cc33cc33"


def test_the_gpu_worker_reserves_a_gpu() -> None:
    devices = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert [(device["driver"], device["capabilities"]) for device in devices] == [("nvidia", ["gpu"])]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


# ---- secrets ----


def check_secrets(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    script = ["sh", str(ROOT / "deploy/docker/check-secrets.sh")]
    return subprocess.run(script, env={"PATH": os.environ["PATH"], **variables}, capture_output=True, text=True, check=False)


def test_every_variable_without_a_default_is_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    required = set(re.findall(r"\$\{(\w+):\?", text))

    assert required == set(REAL)
    assert required <= set(environment(ONE_SHOT))
    assert set(environment(ONE_SHOT)) == required | OPTIONAL_SECRETS == set(example())


def test_real_secrets_pass() -> None:
    assert check_secrets(REAL).returncode == 0
    done = check_secrets(REAL | {"REDIS_PASSWORD": "r3d", "MONGO_PASSWORD": "m0n"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_example_is_refused_naming_each() -> None:
    done = check_secrets(example())

    assert done.returncode == 1
    named = re.findall(r"^error: (\w+) is still the example; set it in \.env$", done.stderr, re.MULTILINE)
    assert named == [name for name, value in example().items() if value.startswith("change-me")]
    assert len(named) == len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize("name", sorted(set(REAL) | OPTIONAL_SECRETS))
@pytest.mark.parametrize("value", ["change-me", "change-me-please", "with/slash", "with space", "a@b", "", None])
def test_a_wrong_secret_is_refused_in_one_line(name: str, value: str | None) -> None:
    variables = {key: kept for key, kept in {**REAL, name: value}.items() if kept is not None}
    done = check_secrets(variables)

    if name in OPTIONAL_SECRETS and not value:
        assert done.returncode == 0
        return
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {name} ")
