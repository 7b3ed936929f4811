"""Start of the API at an address that other machines may reach: with a key, or because the settings mean it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from support.api_process import ApiProcess, get
from support.client import free_port, wait_until
from support.keys import key_document, new_key

from inference.keys.key_store import KeyStore
from inference.keys.key_text import is_well_formed

pytestmark = pytest.mark.process

REFUSAL = (
    "api.host: other machines may reach 0.0.0.0, and there is no key that they could be asked for; create one with"
    " `server.py keys create --owner NAME --role admin`, name a file with keys (security.keys_file), or serve everybody without"
    " a key (security.anonymous: true); 127.0.0.1 serves only this machine"
)


def run_server(repository: Path, folder: Path, settings: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    config = folder / "config.yaml"
    document = {"data_dir": str(folder / "data"), "models": ["models/digits"]} | settings
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "server.py", *arguments, "--config", str(config)]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def on_redis(redis_url: str, key_prefix: str, redis_client: redis.Redis) -> Iterator[dict[str, Any]]:
    yield {"broker": {"url": redis_url}, "task_store": {"key_prefix": key_prefix}}
    redis_client.delete(f"{key_prefix}:keys")


@pytest.mark.parametrize("command", [[], ["api"]])
def test_start_without_a_key_is_refused(repository: Path, tmp_path: Path, on_redis: dict[str, Any], command: list[str]) -> None:
    address = ("--host", "0.0.0.0", "--port", str(free_port()))  # noqa: S104 not bound: it is refused
    done = run_server(repository, tmp_path, on_redis, *command, *address)
    assert done.returncode == 2
    assert f"error: {REFUSAL}\n" in done.stderr


def test_first_key_needs_no_running_service(repository: Path, tmp_path: Path) -> None:
    create = ("keys", "create", "--owner", "api", "--role", "admin")
    host = {"api": {"host": "0.0.0.0", "port": free_port()}}  # noqa: S104 not bound: it is refused
    refused = run_server(repository, tmp_path, host)
    assert (refused.returncode, refused.stderr) == (2, f"error: {REFUSAL}\n")
    created = run_server(repository, tmp_path, host, *create)
    assert created.returncode == 0, created.stderr
    assert is_well_formed(created.stdout.splitlines()[-1])
    listed = run_server(repository, tmp_path, host, "keys", "list")
    assert listed.stdout.split()[1:] == ["api", "admin", "store"]


@pytest.fixture
def api(tmp_path: Path, redis_url: str, on_redis: dict[str, Any], first_key: str) -> Iterator[ApiProcess]:
    """Two processes of one API that other machines may reach, with a key in the record store, and an empty file with keys."""
    assert first_key
    (tmp_path / "keys.yaml").write_text("keys: {}", encoding="utf-8")
    others = on_redis | {"security": {"keys_file": str(tmp_path / "keys.yaml")}}
    running = ApiProcess(tmp_path, redis_url, host="0.0.0.0", others=others, workers=2)  # noqa: S104 behind a key
    running.host = "127.0.0.1"
    try:
        yield running.wait()
    finally:
        running.end()


@pytest.fixture
def keys(on_redis: dict[str, Any], redis_client: redis.Redis) -> KeyStore:
    return KeyStore(redis_client, on_redis["task_store"]["key_prefix"])


@pytest.fixture
def first_key(keys: KeyStore) -> str:
    text, key = new_key()
    keys.add(key)
    return text


def test_keys_change_in_all_processes_while_they_run(api: ApiProcess, keys: KeyStore, first_key: str, tmp_path: Path) -> None:
    def answers(text: str) -> set[int]:
        """Return the statuses of so many answers that both processes gave some."""
        request = get(b"Authorization: Bearer %s\r\nConnection: close\r\n" % text.encode(), target=b"/tasks/unknown")
        found = set()
        for _ in range(12):
            with api.connect() as connection:
                found.add(connection.ask(request).status)
        return found

    def wait_for(text: str, statuses: set[int]) -> None:
        wait_until(lambda: answers(text) <= statuses, timeout_s=60, what=f"the answer is {statuses}")

    assert "OPEN TO OTHER MACHINES" not in api.log
    assert answers(first_key) == {404}
    second, second_entry = new_key()
    keys.add(second_entry)
    wait_for(second, {404})
    keys.revoke(second_entry.key_id)
    wait_for(second, {401, 429})  # 429 after several failures
    third, third_entry = new_key()
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(key_document(third_entry)), encoding="utf-8")
    wait_for(third, {404})
