"""Secrets of docker-compose.yml: who has which, and the script that makes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.compose import COMPOSE, ONE_SHOT, ROOT, SERVICES, environment, filled, made_secrets, make_secrets, secrets_of


@pytest.fixture
def made(tmp_path: Path) -> dict[str, str]:
    """The secrets by their name."""
    return made_secrets(tmp_path)


def test_each_part_has_its_own_secrets_alone() -> None:
    queue = {"redis-url", "rabbitmq-url"}
    images = queue | {"minio-secret-key"}

    assert {name: secrets_of(name) for name in SERVICES if secrets_of(name)} == {
        "api": images,
        "worker": images,
        "worker-gpu": images,
        "relay": images | {"mongodb-url"},
        "flower": queue | {"flower-login"},
        "redis": {"redis-users.acl"},
        "rabbitmq": {"rabbitmq-login"},
        "minio": {"minio-root-password"},
        ONE_SHOT: {"minio-root-password", "minio-secret-key"},
        "mongo": {"mongo-root-password", "mongo-password"},
        "prometheus": {"prometheus-key"},
        "grafana": {"grafana-password"},
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_secret_that_is_named_is_mounted(name: str) -> None:
    texts = json.dumps(SERVICES[name]) + (ROOT / "deploy/docker/mongo-user.js").read_text("utf-8") * (name == "mongo")
    for broker in ("redis", "rabbitmq"):
        named = set(re.findall(r"/run/secrets/([\w.-]+)", filled(texts.replace("$$", ""), {"BROKER": broker})))
        assert named <= secrets_of(name)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_secret_is_in_an_environment_or_on_a_command_line(name: str) -> None:
    for key, value in environment(name).items():
        if re.search(r"PASS|SECRET|AUTH|ACL", key):
            assert key.endswith("_FILE"), key
            assert value.startswith("/run/secrets/"), key
        assert not re.search(r"://[^/]*@", value), key
    words = json.dumps([SERVICES[name].get(key) for key in ("command", "entrypoint", "healthcheck")])
    assert not re.search(r"requirepass|--pass\b|password=", words, re.IGNORECASE)


def test_the_key_of_prometheus_is_kept(made: dict[str, str], tmp_path: Path) -> None:
    assert made["prometheus-key"] == ""
    (tmp_path / "prometheus-key").write_text("rk_key\n", encoding="utf-8")

    assert make_secrets(tmp_path).returncode == 0
    assert (tmp_path / "prometheus-key").read_text(encoding="utf-8") == "rk_key\n"


def test_each_file_of_a_secret_is_made(made: dict[str, str]) -> None:
    files = {secret["file"].removeprefix("./secrets/") for secret in COMPOSE["secrets"].values()}

    assert set(COMPOSE["secrets"]) == set().union(*map(secrets_of, SERVICES))
    assert files <= set(made)
    assert made["flower-login"] == f"admin:{made['flower-password']}"


def test_secrets_are_kept_and_what_contains_them_is_made_anew(made: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "redis-password").write_text("a-new-password\n", encoding="utf-8")
    assert make_secrets(tmp_path).returncode == 0
    again = {file.name: file.read_text("utf-8").strip() for file in tmp_path.iterdir()}

    changed = {"redis-password", "redis-url", "redis-users.acl"}
    assert {name for name in made if made[name] != again[name]} == changed
    assert again["redis-url"] == "redis://inference:a-new-password@redis:6379/0"
    passwords = [value for name, value in made.items() if re.search(r"(password|key)$", name) and name != "prometheus-key"]
    assert len(set(passwords)) == len(passwords) == 9
    assert all(re.fullmatch(r"[0-9a-f]{40}", value) for value in passwords)


def test_other_users_of_the_host_cannot_read_them_and_containers_can(made: dict[str, str], tmp_path: Path) -> None:
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in made} == {0o644}


@pytest.mark.parametrize("value", ["with/slash", "with space", "a@b:cdefgh", "", "short77"])
def test_a_wrong_secret_is_refused_in_one_line(value: str, tmp_path: Path) -> None:
    (tmp_path / "mongo-password").write_text(value, encoding="utf-8")
    done = make_secrets(tmp_path)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path}/mongo-password ")
    assert not value or value not in done.stderr
